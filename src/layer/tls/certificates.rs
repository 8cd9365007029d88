//! A server's certificates: loading them, and choosing one for the name that a client asks for.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::LOG_TARGET;
use crate::error::counted;
use crate::layer::tls::{Pem, TlsError, x509};

const NO_KIND: &str = "is of no kind that is supported: RSA of 2048 to 8192 bits, ECDSA with P-256 or \
                       P-384, or Ed25519";

/// Loads a certificate with its chain, and its key. Logs a warning if it is not valid now.
pub(super) fn load(chain: &Pem, key: &Pem) -> Result<CertifiedKey, TlsError> {
    let certificates = chain.certificates()?;
    let signing =
        ring::sign::any_supported_type(&key.key()?).map_err(|_| key.error("key", NO_KIND))?;

    let public = signing.public_key();
    let matches = |certificate: &CertificateDer<'_>| {
        let parsed = ParsedCertificate::try_from(certificate).ok();
        parsed.map(|parsed| public.as_ref() == Some(&parsed.subject_public_key_info()))
    };

    match matches(&certificates[0]) {
        None => return Err(chain.error("certificate", "is not an X.509 certificate of version 3")),
        Some(true) => {}
        Some(false) => {
            let other = certificates.iter().position(|it| matches(it) == Some(true));
            let hint = other.map_or_else(String::new, |at| {
                format!(
                    ", but certificate {} of the file, which has to come first",
                    at + 1
                )
            });
            let problem = format!("does not match the certificate {chain}{hint}");
            return Err(key.error("key", problem));
        }
    }

    warn_of_dates(chain, &certificates);
    Ok(CertifiedKey::new(certificates, signing))
}

/// Returns the seconds since 1970, by which certificates are valid or not.
pub(super) fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

/// Logs a warning for each certificate of the file that is not valid now.
fn warn_of_dates(chain: &Pem, certificates: &[CertificateDer<'_>]) {
    let now = now();
    for certificate in certificates {
        let Some(validity) = x509::validity(certificate) else {
            continue;
        };

        let subject = x509::subject(certificate).unwrap_or_default();
        let day = 24 * 60 * 60;
        if validity.ends < now {
            let days = counted((now - validity.ends) / day, "day", "days");
            log::warn!(
                target: LOG_TARGET,
                "certificate {chain}: \"{subject}\" expired {days} ago"
            );
        } else if validity.begins > now {
            let days = counted((validity.begins - now) / day + 1, "day", "days");
            log::warn!(
                target: LOG_TARGET,
                "certificate {chain}: \"{subject}\" is not valid yet, but in {days}"
            );
        }
    }
}

/// A server's certificates by name. The first is for clients that ask for no name, or for one that
/// none is valid for.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// Names in lower case, some as `*.example.org`, and positions in `all`.
    names: HashMap<String, Vec<usize>>,
}

impl Certificates {
    pub(super) fn new(all: Vec<CertifiedKey>) -> Self {
        let mut names = HashMap::<_, Vec<_>>::new();
        for (at, certified) in all.iter().enumerate() {
            for name in x509::dns_names(&certified.cert[0]) {
                names.entry(name.to_lowercase()).or_default().push(at);
            }
        }

        Self {
            all: all.into_iter().map(Arc::new).collect(),
            names,
        }
    }

    /// Returns the certificates for a name: those for the very name, or those for all names in its
    /// domain.
    fn named(&self, name: &str) -> Option<&[usize]> {
        let wild = || {
            let (_, domain) = name.split_once('.')?;
            self.names.get(&format!("*.{domain}"))
        };
        self.names.get(name).or_else(wild).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    /// Returns the first certificate for the client's name whose kind of key the client knows.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |certified: &&Arc<CertifiedKey>| {
            let scheme = certified.key.choose_scheme(hello.signature_schemes());
            scheme.is_some()
        };
        let name = hello.server_name().map(str::to_lowercase);
        let named = name.as_deref().and_then(|name| self.named(name));

        let mut candidates = named.into_iter().flatten().map(|at| &self.all[*at]);
        let found = candidates
            .find(usable)
            .or_else(|| self.all.iter().find(usable));
        found.or(self.all.first()).cloned()
    }
}

/// The choice of a certificate for one connection. It remembers the name, which rustls does not
/// tell otherwise.
#[derive(Debug)]
pub(super) struct Selection {
    certificates: Arc<dyn ResolvesServerCert>,
    name: OnceLock<String>,
}

impl Selection {
    pub(super) fn new(certificates: Arc<dyn ResolvesServerCert>) -> Self {
        Self {
            certificates,
            name: OnceLock::new(),
        }
    }

    /// Returns the name that the client asked for, in lower case.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }
}

impl ResolvesServerCert for Selection {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            self.name.get_or_init(|| name.to_lowercase());
        }
        self.certificates.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.certificates.only_raw_public_keys()
    }
}
