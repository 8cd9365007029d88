//! What is wrong with a configuration of TLS, or with a peer's TLS.

use std::error::Error;
use std::fmt;

use crate::error::ProtocolError;

/// An error of TLS. The text says what is wrong, and in a configuration with which file.
///
/// On a connection it is inside a [`ProtocolError`], and its source is rustls's error, for those who
/// want to tell one failure from another:
///
/// ```
/// use serveloop::ProtocolError;
/// use serveloop::layer::tls::{TlsError, rustls};
///
/// fn has_refused_us(error: &ProtocolError) -> bool {
///     let ProtocolError::Other(error) = error else {
///         return false;
///     };
///     let error = error.downcast_ref::<TlsError>().and_then(TlsError::rustls);
///     matches!(error, Some(rustls::Error::AlertReceived(_)))
/// }
/// ```
#[derive(Debug)]
pub struct TlsError {
    text: String,
    source: Option<rustls::Error>,
}

impl TlsError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::with_source(text, None)
    }

    /// Creates an error whose text ends with that of `error`.
    pub(super) fn of(text: impl fmt::Display, error: rustls::Error) -> Self {
        Self::with_source(format!("{text}: {}", described(&error)), Some(error))
    }

    pub(super) fn with_source(text: impl Into<String>, source: Option<rustls::Error>) -> Self {
        Self {
            text: text.into(),
            source,
        }
    }

    /// Returns the error of rustls that caused this one, if one did.
    #[must_use]
    pub fn rustls(&self) -> Option<&rustls::Error> {
        self.source.as_ref()
    }
}

/// Returns rustls's error in words for those who run a server.
fn described(error: &rustls::Error) -> String {
    match error {
        rustls::Error::AlertReceived(alert) => format!("the peer sent the alert {alert:?}"),
        rustls::Error::NoCertificatesPresented => "the peer sent no certificate".to_owned(),
        rustls::Error::NoApplicationProtocol => "no application protocol in common".to_owned(),
        rustls::Error::General(text) => text.clone(),
        error => error.to_string(),
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as &dyn Error)
    }
}

impl From<TlsError> for ProtocolError {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}
