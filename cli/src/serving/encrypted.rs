//! Listeners with TLS: a protocol without it at some, and the same inside TLS at others.

use std::sync::Arc;

use serveloop::{Ended, Factory, Peer};

use crate::serving::ListenerTls;
use crate::serving::boxed_factory::{AnyFactory, Boxed, BoxedFactory};

/// The command's own options for TLS in the query of a listener.
pub(crate) const TLS_KEYS: [&str; 5] = ["cert", "key", "client-ca", "client-auth", "alpn"];

/// Makes protocols for the clients of listeners of which some have TLS.
#[derive(Clone)]
pub(super) struct Encrypted {
    /// By the listener's number.
    tls: Arc<[Option<ListenerTls>]>,
    factory: BoxedFactory,
}

impl Encrypted {
    pub(super) fn new(tls: Arc<[Option<ListenerTls>]>, factory: BoxedFactory) -> Self {
        Self { tls, factory }
    }
}

impl AnyFactory for Encrypted {
    fn build(&mut self, peer: &Peer) -> Option<Boxed> {
        let number = peer.listener();
        let Some(tls) = number.and_then(|number| self.tls.get(number)?.as_ref()) else {
            return self.factory.build_protocol(peer);
        };
        let mut factory = self.factory.clone();
        Some(tls.around(move |peer: &Peer| factory.build_protocol(peer)))
    }

    fn needs_stream(&self, listener: usize) -> bool {
        let own = self.tls.get(listener);
        own.is_some_and(Option::is_some) || self.factory.needs_stream(listener)
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn copy(&self) -> Box<dyn AnyFactory> {
        Box::new(self.clone())
    }
}
