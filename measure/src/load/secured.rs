//! TLS for a load: which server, which sessions, and how failures are explained.

use std::sync::Arc;

use serveloop::CloseReason;
use serveloop::layer::tls::{ClientTls, Tls, TlsError};

use crate::load::stage::Stage;
use crate::load::tickets::Tickets;

/// Explains why a TLS connection to the server of a name ended, if that is a matter of TLS.
type Explain = fn(&CloseReason, &str, Stage) -> Option<String>;

/// TLS for all connections of a load.
///
/// ```
/// use serveloop::layer::tls::ClientTls;
/// use serveloop_measure::{Secured, Terms};
///
/// let tls = ClientTls::builder().insecure().build()?;
/// let secured = Secured::new(tls, "localhost")?;
/// let terms = Terms { secured: Some(&secured), ..Terms::default() };
/// # let _ = terms;
/// # Ok::<(), serveloop::layer::tls::TlsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Secured {
    tls: ClientTls,
    name: String,
    tickets: Option<Arc<Tickets>>,
    explain: Explain,
}

impl Secured {
    /// Returns TLS to the server `name`, a host name or an IP address.
    ///
    /// # Errors
    /// Fails if it is neither.
    pub fn new(tls: ClientTls, name: &str) -> Result<Self, TlsError> {
        Tls::client(&tls, name)?;
        Ok(Self {
            tls,
            name: name.to_owned(),
            tickets: None,
            explain: |_, _, _| None,
        })
    }

    /// Lets each connection but the first resume a session of `tickets`, as far as the server offers
    /// them: connections are opened only as fast as there are tickets.
    #[must_use]
    pub fn resuming(self, tickets: Arc<Tickets>) -> Self {
        Self {
            tickets: Some(tickets),
            ..self
        }
    }

    /// Explains the failures of TLS by `explain`, which gets the server's name and how far the
    /// connection came.
    #[must_use]
    pub fn explained_by(self, explain: Explain) -> Self {
        Self { explain, ..self }
    }

    /// Returns how many connections may be opened at a time so that each can resume a session, or
    /// `None` if that does not matter.
    pub(crate) fn opening_most(&self) -> Option<usize> {
        let tickets = self.tickets.as_ref()?;
        Some(tickets.usable().max(1))
    }

    pub(crate) fn explain(&self, reason: &CloseReason, stage: Stage) -> Option<String> {
        (self.explain)(reason, &self.name, stage)
    }

    /// Creates TLS for one connection.
    pub(crate) fn connection(&self) -> Tls {
        Tls::client(&self.tls, &self.name).expect("the name was tried before")
    }
}
