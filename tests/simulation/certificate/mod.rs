//! TLS whose records have the same lengths in each run, whatever is random in them.

use std::sync::Arc;

use serveloop::layer::tls::rustls::client::Resumption;
use serveloop::layer::tls::rustls::crypto::ring;
use serveloop::layer::tls::rustls::pki_types::CertificateDer;
use serveloop::layer::tls::rustls::pki_types::pem::PemObject;
use serveloop::layer::tls::rustls::version::{TLS12, TLS13};
use serveloop::layer::tls::rustls::{ClientConfig, RootCertStore};
use serveloop::layer::tls::{ClientTls, ServerTls, TlsVersion};

const CERTIFICATE: &[u8] = include_bytes!("certificate.pem");
const KEY: &[u8] = include_bytes!("key.pem");

/// The name in the certificate.
pub(crate) const NAME: &str = "localhost";

/// Returns a server that speaks both versions.
pub(crate) fn server() -> ServerTls {
    let server = ServerTls::builder().certificate(CERTIFICATE, KEY);
    server.build().expect("the certificate is right")
}

/// Clients that trust the server and speak one version.
#[derive(Clone, Debug)]
pub(crate) struct Clients(ClientConfig);

impl Clients {
    pub(crate) fn new(version: TlsVersion) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("it is right");
        roots.add(certificate).expect("it can be an authority");
        let versions = match version {
            TlsVersion::Tls12 => &[&TLS12],
            _ => &[&TLS13],
        };
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the version is supported")
            .with_root_certificates(roots);
        Self(config.with_no_client_auth())
    }

    /// Returns a client that knows of no earlier session, so that its handshakes depend on nothing
    /// but what it does itself.
    pub(crate) fn client(&self) -> ClientTls {
        let mut config = self.0.clone();
        config.resumption = Resumption::in_memory_sessions(16);
        ClientTls::from_rustls(Arc::new(config))
    }
}
