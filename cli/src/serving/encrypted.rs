//! Listeners with TLS: a protocol without it at some, and the same inside TLS at others.

use std::sync::Arc;

use serveloop::{Factory, Peer};

use crate::serving::ListenerTls;
use crate::serving::boxed_factory::{Boxed, BoxedFactory, Surrounding};

/// The command's own options for TLS in the query of a listener.
pub(crate) const TLS_KEYS: [&str; 5] = ["cert", "key", "client-ca", "client-auth", "alpn"];

/// Makes protocols for the clients of listeners of which some have TLS.
#[derive(Clone)]
pub(super) struct Encrypted {
    /// By the listener's number.
    tls: Arc<[Option<ListenerTls>]>,
}

impl Encrypted {
    pub(super) fn new(tls: Arc<[Option<ListenerTls>]>) -> Self {
        Self { tls }
    }
}

impl Surrounding for Encrypted {
    fn build(&mut self, factory: &mut BoxedFactory, peer: &Peer) -> Option<Boxed> {
        let number = peer.listener();
        let Some(tls) = number.and_then(|number| self.tls.get(number)?.as_ref()) else {
            return factory.build_protocol(peer);
        };
        let mut factory = factory.clone();
        Some(tls.around(move |peer: &Peer| factory.build_protocol(peer)))
    }

    fn needs_stream(&self, listener: usize) -> bool {
        let own = self.tls.get(listener);
        own.is_some_and(Option::is_some)
    }
}
