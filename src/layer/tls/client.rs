//! What a client's TLS connections share.

use std::env;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::layer::tls::listed::Listed;
use crate::layer::tls::server::{check_alpn, roots, versions};
use crate::layer::tls::{Pem, TlsError, TlsVersion};

/// Where systems keep the certificates of public authorities.
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Names the file to use instead, as it does for OpenSSL.
const SYSTEM_ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// What a client's TLS connections share: trusted authorities, the client's own certificate,
/// application protocols, and earlier sessions that can be resumed.
///
/// It is a handle, and all clones are the same.
///
/// ```no_run
/// use serveloop::layer::tls::ClientTls;
///
/// // Trusts the authorities that the system trusts.
/// let public = ClientTls::builder().build()?;
/// // Trusts one authority, and shows a certificate to servers that ask for one.
/// let private = ClientTls::builder()
///     .roots("ca.pem")
///     .certificate("client.pem", "client.key")
///     .build()?;
/// # Ok::<(), serveloop::layer::tls::TlsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Begins a configuration.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder {
            trust: Trust::System,
            certificate: None,
            alpn: Vec::new(),
            oldest: TlsVersion::Tls12,
            resumption: Resumption::default(),
        }
    }

    /// Uses a configuration of rustls, for what the builder does not offer.
    #[must_use]
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

/// The servers that a client trusts.
#[derive(Clone, Debug)]
enum Trust {
    System,
    Files(Vec<Pem>),
    Store(RootCertStore),
    Everybody,
}

/// The parts of a [`ClientTls`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientTlsBuilder {
    trust: Trust,
    certificate: Option<(Pem, Pem)>,
    alpn: Vec<Vec<u8>>,
    oldest: TlsVersion,
    resumption: Resumption,
}

impl ClientTlsBuilder {
    /// Trusts servers whose certificate comes from an authority in `authorities`, or is there itself,
    /// and not those that the system trusts. May be called several times.
    ///
    /// A self-signed certificate that is there has to be valid now and for the server's name, like
    /// any other.
    pub fn roots(mut self, authorities: impl Into<Pem>) -> Self {
        match &mut self.trust {
            Trust::Files(files) => files.push(authorities.into()),
            trust => *trust = Trust::Files(vec![authorities.into()]),
        }
        self
    }

    /// Trusts servers whose certificate comes from an authority in `store`, and no others.
    pub fn root_store(mut self, store: RootCertStore) -> Self {
        self.trust = Trust::Store(store);
        self
    }

    /// Trusts every server. **The connection is encrypted, but the server is unknown**: an attacker
    /// between the two sides can read and change everything. For tests.
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Everybody;
        self
    }

    /// Sets the certificate that is shown to servers that ask for one, with the chain that leads to
    /// its authority, and its private key.
    pub fn certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.certificate = Some((chain.into(), key.into()));
        self
    }

    /// Adds an application protocol that the client offers, in the order of preference (ALPN).
    pub fn alpn(mut self, protocol: impl AsRef<[u8]>) -> Self {
        self.alpn.push(protocol.as_ref().to_vec());
        self
    }

    /// Sets the oldest version of TLS that servers may choose. By default it is TLS 1.2.
    pub fn oldest_version(mut self, version: TlsVersion) -> Self {
        self.oldest = version;
        self
    }

    /// Sets where sessions are kept that later connections resume. By default they are in memory, up
    /// to 256, and eight for one server. `Resumption::disabled()` makes a full handshake on every
    /// connection.
    ///
    /// ```no_run
    /// use serveloop::layer::tls::{ClientTls, rustls::client::Resumption};
    ///
    /// let tls = ClientTls::builder()
    ///     .resumption(Resumption::disabled())
    ///     .build()?;
    /// # Ok::<(), serveloop::layer::tls::TlsError>(())
    /// ```
    pub fn resumption(mut self, resumption: Resumption) -> Self {
        self.resumption = resumption;
        self
    }

    /// Reads the files. Without [`roots`](Self::roots), [`root_store`](Self::root_store) and
    /// [`insecure`](Self::insecure) the file of authorities is that of the system, or what the
    /// environment variable `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// Returns an error that names the file and the reason, like
    /// [`ServerTlsBuilder::build`](super::ServerTlsBuilder::build).
    pub fn build(self) -> Result<ClientTls, TlsError> {
        check_alpn(&self.alpn)?;
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(self.oldest))
            .map_err(|error| TlsError::of("TLS configuration", error))?;

        let config = match self.trust {
            Trust::Everybody => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
            Trust::Store(store) => config.with_root_certificates(store),
            Trust::Files(files) => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(from_files(&files, provider)?)),
            Trust::System => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(from_system(provider)?)),
        };

        let mut config = match self.certificate {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let certified = super::certificates::load(&chain, &key)?;
                let resolver = rustls::sign::SingleCertAndKey::from(certified);
                config.with_client_cert_resolver(Arc::new(resolver))
            }
        };
        config.alpn_protocols = self.alpn;
        config.resumption = self.resumption;
        Ok(ClientTls(Arc::new(config)))
    }
}

fn from_files(files: &[Pem], provider: Arc<CryptoProvider>) -> Result<Listed, TlsError> {
    let (mut authorities, mut all) = (RootCertStore::empty(), Vec::new());
    for file in files {
        let certificates = file.certificates()?;
        authorities.extend(roots(file, &certificates)?.roots);
        all.extend(certificates);
    }
    Listed::new(all, authorities, provider)
}

/// Returns the authorities that the system trusts. Those that rustls cannot read are left out.
fn from_system(provider: Arc<CryptoProvider>) -> Result<Listed, TlsError> {
    let named = env::var_os(SYSTEM_ROOTS_VARIABLE).filter(|path| !path.is_empty());
    let mut usual = SYSTEM_ROOTS.iter().map(std::path::Path::new);
    let path = match named {
        Some(path) => path.into(),
        None => usual.find(|path| path.exists()).map(Into::into).ok_or_else(|| {
            TlsError::new(format!(
                "the system has no file of trusted authorities: neither {SYSTEM_ROOTS_VARIABLE} \
                 names one nor is there {}",
                SYSTEM_ROOTS.join(" or ")
            ))
        })?,
    };

    let file = Pem::File(path);
    let certificates = file.certificates()?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().cloned());
    Listed::new(certificates, store, provider)
}

/// Accepts the certificate of every server. What a server signs must still be signed by the key in
/// its certificate.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
