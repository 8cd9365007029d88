//! What the tests share: a server, a client's configuration, bytes to send.

pub(crate) mod link;
pub(crate) mod serving;

use std::sync::Arc;

use serveloop_quic_echo::quinn_proto::crypto::rustls::QuicClientConfig;
use serveloop_quic_echo::quinn_proto::rustls::crypto::ring;
use serveloop_quic_echo::quinn_proto::rustls::pki_types::pem::PemObject;
use serveloop_quic_echo::quinn_proto::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serveloop_quic_echo::quinn_proto::rustls::{self, RootCertStore};
use serveloop_quic_echo::quinn_proto::{ClientConfig, TransportConfig};
use serveloop_quic_echo::{ALPN, EchoServer, Settings};

const CHAIN: &[u8] = include_bytes!("../../../../../tests/it/layer/tls/certificates/localhost.pem");
const KEY: &[u8] = include_bytes!("../../../../../tests/it/layer/tls/certificates/localhost.key");
const ROOT: &[u8] = include_bytes!("../../../../../tests/it/layer/tls/certificates/authority.pem");

pub(crate) fn server(settings: &Settings) -> EchoServer {
    server_with(certificates(CHAIN), settings)
}

/// Returns a server whose first flight is too long for a path that is not validated.
pub(crate) fn wordy_server(settings: &Settings) -> EchoServer {
    let mut chain = certificates(CHAIN);
    let more = certificates(ROOT);
    chain.extend(more.iter().cycle().take(40).cloned());
    server_with(chain, settings)
}

fn server_with(chain: Vec<CertificateDer<'static>>, settings: &Settings) -> EchoServer {
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    EchoServer::new(chain, key, settings).unwrap()
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .map(Result::unwrap)
        .collect()
}

/// Returns the configuration of a client that trusts the server, and speaks `protocol`.
pub(crate) fn client_of(protocol: &[u8], transport: TransportConfig) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in certificates(ROOT) {
        roots.add(root).unwrap();
    }
    let mut tls = rustls::ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];

    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

pub(crate) fn client() -> ClientConfig {
    client_of(ALPN, TransportConfig::default())
}

/// Returns the byte at a place of what a client sends: a shift by anything less than 2 MiB shows.
pub(crate) fn byte_at(place: usize) -> u8 {
    let mixed = (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(byte_at).collect()
}
