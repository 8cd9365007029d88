//! Certificates and keys from PEM files.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::LOG_TARGET;
use crate::layer::tls::TlsError;

/// The largest file that is read, in bytes. A bundle of all public authorities has some 200 KiB.
const FILE_MOST: u64 = 16 * 1024 * 1024;

/// Where certificates or a key come from: a file in PEM format, or its content.
///
/// A text or a path is the name of a file, and bytes are the content:
///
/// ```
/// use serveloop::layer::tls::Pem;
///
/// let by_name: Pem = "cert.pem".into();
/// let content: Pem = b"-----BEGIN CERTIFICATE-----".into();
/// assert_eq!(by_name.to_string(), "cert.pem");
/// assert_eq!(content.to_string(), "PEM in memory");
/// ```
#[derive(Clone)]
pub enum Pem {
    /// The file of this name. It is read again by [`ServerTls::reload`](super::ServerTls::reload).
    File(PathBuf),
    /// The content of a file.
    Bytes(Vec<u8>),
}

impl Pem {
    /// Returns all certificates, in their order. There is at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let content = self.read("certificate")?;
        let found = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|error| self.error("certificate", described(&error)))?;

        if found.is_empty() {
            return Err(self.error("certificate", missing("certificate", &content)));
        }
        Ok(found)
    }

    /// Returns the first private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let content = self.read("key")?;
        self.warn_of_readers();

        let problem = match PrivateKeyDer::pem_slice_iter(&content).next() {
            Some(Ok(key)) => return Ok(key),
            _ if String::from_utf8_lossy(&content).contains("ENCRYPTED") => {
                "is encrypted, and `openssl pkey` writes it without a passphrase".to_owned()
            }
            Some(Err(error)) => described(&error),
            None => missing("private key", &content),
        };
        Err(self.error("key", problem))
    }

    /// Creates an error that names the file.
    pub(super) fn error(&self, what: &str, problem: impl fmt::Display) -> TlsError {
        TlsError::new(format!("{what} {self}: {problem}"))
    }

    fn read(&self, what: &str) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => read(path).map_err(|problem| self.error(what, problem)),
        }
    }

    /// Logs a warning if every user of the system can read the file of a private key.
    fn warn_of_readers(&self) {
        let Self::File(path) = self else {
            return;
        };
        let mode = fs::metadata(path).map_or(0, |data| data.permissions().mode());
        if mode & 0o004 != 0 {
            log::warn!(
                target: LOG_TARGET,
                "key {self}: every user can read it (mode {:04o}), `chmod 600` lets only its owner",
                mode & 0o7777
            );
        }
    }
}

/// Reads a file that is neither endless nor huge.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_MOST + 1).read_to_end(&mut content))
        .map_err(|error| error.to_string())?;
    if content.len() as u64 > FILE_MOST {
        return Err(format!("is longer than {FILE_MOST} bytes"));
    }
    Ok(content)
}

/// Returns an error of the format in words, without bytes of the file.
fn described(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins in the wrong way".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not in base64".to_owned(),
        error => error.to_string(),
    }
}

/// Says that there is no `wanted` in a file, and what is there instead.
fn missing(wanted: &str, content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(content);
    let found = sections.filter_map(Result::ok).next();

    let hint = match found.map(|(kind, _)| kind) {
        Some(SectionKind::Certificate) => ", but a certificate",
        Some(SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) => {
            ", but a private key"
        }
        Some(_) => "",
        None if content.is_empty() => ", it is empty",
        None if content.first() == Some(&0x30) => ", it looks like DER, and PEM is needed",
        None if text.contains("-----BEGIN") => "",
        None => ", it is not in PEM format",
    };
    format!("holds no {wanted}{hint}")
}

impl From<&str> for Pem {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<String> for Pem {
    fn from(path: String) -> Self {
        Self::File(path.into())
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&[u8]> for Pem {
    fn from(content: &[u8]) -> Self {
        Self::Bytes(content.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Pem {
    fn from(content: &[u8; N]) -> Self {
        Self::Bytes(content.into())
    }
}

impl From<Vec<u8>> for Pem {
    fn from(content: Vec<u8>) -> Self {
        Self::Bytes(content)
    }
}

/// Shows the name of the file, and never a key.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Bytes(_) => f.write_str("PEM in memory"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
