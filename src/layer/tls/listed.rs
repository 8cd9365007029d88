//! Servers whose own certificate a client trusts, in addition to those whose authority it trusts.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::layer::tls::{TlsError, x509};

/// Accepts a server's certificate if an authority has issued it, or if it is itself listed among
/// them. The usual way to make a self-signed certificate makes it one of an authority, and rustls
/// accepts that from no server.
#[derive(Debug)]
pub(super) struct Listed {
    chains: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Listed {
    /// Creates a verifier. `authorities` are those of `certificates`.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        authorities: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let chains = WebPkiServerVerifier::builder_with_provider(authorities.into(), provider)
            .build()
            .map_err(|error| TlsError::new(format!("TLS configuration: {error}")))?;
        Ok(Self {
            chains,
            certificates,
        })
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .chains
            .verify_server_cert(certificate, others, name, ocsp, now);
        match verified {
            Err(error) if is_of_the_issuer(&error) && self.certificates.contains(certificate) => {
                verify_dates(certificate, now)?;
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Returns whether a certificate was refused only because of who has issued it.
fn is_of_the_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            let error = other.0.downcast_ref::<webpki::Error>();
            matches!(error, Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

fn verify_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let validity = x509::validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let time = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    };

    if validity.ends < seconds {
        let not_after = time(validity.ends);
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        });
    }
    if validity.begins > seconds {
        let not_before = time(validity.begins);
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        });
    }
    Ok(())
}
