//! The client's side of TLS: one cipher suite, one group, and no checks, which would only cost the
//! generator time.

use std::io;
use std::sync::Arc;

use serveloop::layer::tls::ClientTls;
use serveloop::layer::tls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use serveloop::layer::tls::rustls::client::{ClientConnection, Resumption};
use serveloop::layer::tls::rustls::crypto::ring;
use serveloop::layer::tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serveloop::layer::tls::rustls::{
    self, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};
use serveloop_measure::{Secured, Tickets};

const NAME: &str = "localhost";

/// How many tickets are kept, more than there are connections at a time.
const TICKETS: usize = 1_000;

/// What the handshakes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    New,
    Resumed,
}

impl Sessions {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "full",
            Self::Resumed => "resumed",
        }
    }
}

/// Returns TLS for a load.
pub(crate) fn secured(sessions: Sessions) -> io::Result<Secured> {
    let tickets = Tickets::new(TICKETS);
    let mut config = config()?;
    config.resumption = match sessions {
        Sessions::New => Resumption::disabled(),
        Sessions::Resumed => tickets.resumption(),
    };

    let secured = Secured::new(ClientTls::from_rustls(Arc::new(config)), NAME);
    let secured = secured.map_err(io::Error::other)?;
    Ok(match sessions {
        Sessions::New => secured,
        Sessions::Resumed => secured.resuming(tickets),
    })
}

/// Returns the first flight of a client, as it is on the wire.
pub(crate) fn hello() -> io::Result<Vec<u8>> {
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let client = ClientConnection::new(Arc::new(config()?), name);
    let mut hello = Vec::new();
    client.map_err(io::Error::other)?.write_tls(&mut hello)?;
    Ok(hello)
}

fn config() -> io::Result<ClientConfig> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
    provider.kx_groups = vec![ring::kx_group::X25519];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    Ok(config)
}

/// Checks neither certificates nor signatures.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
