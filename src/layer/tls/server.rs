//! What a server's TLS connections share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoClientAuth, NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::layer::tls::certificates::{Certificates, Selection, load};
use crate::layer::tls::{Pem, TlsError, TlsVersion};

/// How often the keys of session tickets are used in every process, in seconds. They are renewed
/// every six hours.
const TICKETS_USED_EVERY: u64 = 60;

/// The longest session, in bytes, whose ticket another process accepts. Most of it is the client's
/// certificates.
const TICKET_MOST: usize = 16 * 1024;

/// What a server's TLS connections share: certificates, client certificates, application protocols
/// and the keys of session tickets.
///
/// It is a handle. All clones are the same, so all workers of a server accept each other's tickets
/// and [`reload`](Self::reload) works for all of them. Processes inherit it as it was when they were
/// forked.
///
/// ```no_run
/// use serveloop::layer::tls::{ClientCertificates, ServerTls};
///
/// let tls = ServerTls::builder()
///     .certificate("example.org.pem", "example.org.key")
///     .certificate("example.net.pem", "example.net.key")
///     .alpn("h2")
///     .alpn("http/1.1")
///     .client_certificates(ClientCertificates::Optional, "clients-ca.pem")
///     .build()?;
/// // Later, when the files have changed:
/// if let Err(error) = tls.reload() {
///     eprintln!("{error}; the old certificates stay");
/// }
/// # Ok::<(), serveloop::layer::tls::TlsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What the configuration is made from, or `None` if it was given.
    sources: Option<ServerTlsBuilder>,
    current: RwLock<Current>,
    /// When the keys of tickets were last used here, in seconds since 1970.
    used: AtomicU64,
}

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The authorities of client certificates. A ticket is worth as much as the certificate that
    /// was shown for it.
    authorities: Vec<CertificateDer<'static>>,
}

impl ServerTls {
    /// Begins a configuration.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder {
            certificates: Vec::new(),
            clients: None,
            alpn: Vec::new(),
            oldest: TlsVersion::Tls12,
        }
    }

    /// Uses a configuration of rustls, for what the builder does not offer. Early data stays off.
    ///
    /// # Errors
    /// Returns an error if rustls does not accept the configuration.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Self::new(None, config, Vec::new())
    }

    /// Reads all files again. Handshakes that begin afterwards use what is there now; connections
    /// that are open stay as they are. Session tickets stay valid, unless the authorities of client
    /// certificates have changed.
    ///
    /// # Errors
    /// Returns an error like [`ServerTlsBuilder::build`], and one if the configuration was made by
    /// [`from_rustls`](Self::from_rustls). What was in use stays in use then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Some(sources) = &self.0.sources else {
            return Err(TlsError::new(
                "a configuration of rustls has no files to reload",
            ));
        };

        let before = self.current();
        let next = sources.load(Some(&before))?;
        check(&next.config)?;
        let mut current = self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = next;
        Ok(())
    }

    fn new(
        sources: Option<ServerTlsBuilder>,
        config: Arc<ServerConfig>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        check(&config)?;
        let current = Current {
            config,
            authorities,
        };
        Ok(Self(Arc::new(Shared {
            sources,
            current: RwLock::new(current),
            used: AtomicU64::new(0),
        })))
    }

    fn current(&self) -> Current {
        let current = self.0.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the configuration for a new connection, and where it leaves the client's name.
    pub(super) fn connection(&self) -> (Arc<ServerConfig>, Arc<Selection>) {
        let mut config = ServerConfig::clone(&self.current().config);
        self.use_tickets(&*config.ticketer);
        let selection = Arc::new(Selection::new(config.cert_resolver));
        config.cert_resolver = Arc::clone(&selection) as _;
        config.max_early_data_size = 0;
        (Arc::new(config), selection)
    }

    /// Uses the keys of tickets from time to time, and throws the ticket away. A server whose
    /// processes do all handshakes would never renew the keys that they inherit, and a key of rustls
    /// accepts no ticket longer than those that it made itself.
    fn use_tickets(&self, tickets: &dyn ProducesTickets) {
        let now = UnixTime::now().as_secs();
        let used = self.0.used.load(Ordering::Relaxed);
        if now.abs_diff(used) >= TICKETS_USED_EVERY && tickets.enabled() {
            self.0.used.store(now, Ordering::Relaxed);
            let _ = tickets.encrypt(&[0; TICKET_MOST]);
        }
    }
}

/// Checks that connections can be made, so that none fails later.
fn check(config: &Arc<ServerConfig>) -> Result<(), TlsError> {
    let made = UnbufferedServerConnection::new(Arc::clone(config));
    made.map(drop)
        .map_err(|error| TlsError::of("TLS configuration", error))
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientCertificates {
    /// A client without a certificate is served too.
    Optional,
    /// A client without a certificate is refused in its handshake.
    Required,
}

/// The parts of a [`ServerTls`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerTlsBuilder {
    certificates: Vec<(Pem, Pem)>,
    clients: Option<(ClientCertificates, Pem)>,
    alpn: Vec<Vec<u8>>,
    oldest: TlsVersion,
}

impl ServerTlsBuilder {
    /// Adds a certificate with the chain that leads to its authority, and its private key. The
    /// server's own certificate comes first in its file. Both may be the same file.
    ///
    /// A client that asks for a name gets the first certificate that is valid for the name and whose
    /// kind of key the client knows, so a name may have one with RSA and one with ECDSA. Clients
    /// that ask for no name, or for an unknown one, get the first of all.
    pub fn certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.certificates.push((chain.into(), key.into()));
        self
    }

    /// Asks clients for a certificate, which has to come from one of the authorities in
    /// `authorities`. By default clients are not asked. [`TlsInfo`](super::TlsInfo) has what a client
    /// has shown.
    ///
    /// A client that resumes a session does not show its certificate again. It is as if it did, until
    /// the certificate expires or the authorities change. Lists of revoked certificates need
    /// [`ServerTls::from_rustls`].
    pub fn client_certificates(
        mut self,
        wanted: ClientCertificates,
        authorities: impl Into<Pem>,
    ) -> Self {
        self.clients = Some((wanted, authorities.into()));
        self
    }

    /// Adds an application protocol that the server speaks, in the order of preference (ALPN). A
    /// client that offers only others is refused in its handshake. A client that offers none is
    /// served; [`TlsInfo::alpn`](super::TlsInfo::alpn) is `None` then.
    pub fn alpn(mut self, protocol: impl AsRef<[u8]>) -> Self {
        self.alpn.push(protocol.as_ref().to_vec());
        self
    }

    /// Sets the oldest version of TLS that clients may use. By default it is TLS 1.2.
    pub fn oldest_version(mut self, version: TlsVersion) -> Self {
        self.oldest = version;
        self
    }

    /// Reads the files.
    ///
    /// Logs a warning for a certificate that has expired or is not valid yet, and for a key that
    /// every user of the system can read.
    ///
    /// # Errors
    /// Returns an error that names the file and the reason: if a file is missing, is not readable or
    /// holds no certificate or key, if a key does not match its certificate, and if there is no
    /// certificate at all.
    pub fn build(self) -> Result<ServerTls, TlsError> {
        let current = self.load(None)?;
        ServerTls::new(Some(self), current.config, current.authorities)
    }

    /// Makes the configuration from its files. What two configurations may have in common is taken
    /// from `before`.
    fn load(&self, before: Option<&Current>) -> Result<Current, TlsError> {
        let certificates = self
            .certificates
            .iter()
            .map(|(chain, key)| load(chain, key));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() {
            return Err(TlsError::new("a server needs a certificate"));
        }
        check_alpn(&self.alpn)?;

        let provider = Arc::new(ring::default_provider());
        let (authorities, verifier) = self.verifier(&provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(self.oldest))
            .map_err(|error| TlsError::of("TLS configuration", error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Certificates::new(certificates)));

        config.alpn_protocols.clone_from(&self.alpn);
        // Tickets keep sessions with the clients, which serves all workers and needs no memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match before {
            Some(before) if before.authorities == authorities => {
                Arc::clone(&before.config.ticketer)
            }
            _ => tickets()?,
        };
        Ok(Current {
            config: Arc::new(config),
            authorities,
        })
    }

    /// Returns the authorities of client certificates, and what checks those.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
        let Some((wanted, source)) = &self.clients else {
            return Ok((Vec::new(), Arc::new(NoClientAuth)));
        };

        let authorities = source.certificates()?;
        let roots = Arc::new(roots(source, &authorities)?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        if *wanted == ClientCertificates::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        let verifier = verifier.build();
        Ok((
            authorities,
            verifier.map_err(|error| source.error("certificate", error))?,
        ))
    }
}

type Verifier = (Vec<CertificateDer<'static>>, Arc<dyn ClientCertVerifier>);

fn tickets() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    ring::Ticketer::new().map_err(|error| TlsError::of("keys for session tickets", error))
}

/// Returns a store of authorities.
pub(super) fn roots(
    source: &Pem,
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            let place = format!("certificate {} of", at + 1);
            TlsError::of(format!("{place} {source}"), error)
        })?;
    }
    Ok(roots)
}

pub(super) fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEW: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match oldest {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &NEW,
    }
}

/// Checks the lengths of the names, which have one byte on the wire.
pub(super) fn check_alpn(alpn: &[Vec<u8>]) -> Result<(), TlsError> {
    let bad = alpn.iter().find(|name| name.is_empty() || name.len() > 255);
    match bad {
        Some(name) => Err(TlsError::new(format!(
            "application protocol \"{}\": a name has 1 to 255 bytes",
            name.escape_ascii()
        ))),
        None => Ok(()),
    }
}
