//! What a session is made of, on its way to where it is served.

use std::sync::Arc;

use crate::address::Peer;
use crate::config::Limits;
use crate::session::{Protocol, Session, Tick};

/// A protocol for an accepted connection or a datagram, and for whom it is.
#[derive(Debug)]
pub(crate) struct Admitted<P> {
    pub(crate) protocol: P,
    pub(crate) peer: Peer,
    /// The limits of the listener, if they are not those of the server.
    pub(crate) limits: Option<Arc<Limits>>,
}

impl<P: Protocol> Admitted<P> {
    /// Creates the session, which begins at `now`.
    pub(crate) fn begin(self, now: Tick) -> Session<P> {
        let mut session = Session::new(self.protocol, self.peer, now);
        if let Some(limits) = self.limits {
            session.set_limits(limits);
        }
        session
    }
}
