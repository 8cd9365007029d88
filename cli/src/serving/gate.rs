//! Who may connect, and how often: decided before a protocol is made.

use std::sync::Arc;
use std::time::Instant;

use serveloop::{Factory, Peer};

use crate::restart::Restarts;
use crate::serving::boxed_factory::{Boxed, BoxedFactory, Surrounding};
use crate::serving::{Access, AccessLog, ConnectRate};

/// Refuses peers that a listener does not admit, or that connect too often. A client that a proxy
/// names is judged by its own address.
#[derive(Clone)]
pub(super) struct Gate {
    /// By the listener's number.
    access: Option<Arc<[Option<Access>]>>,
    rate: Option<ConnectRate>,
    restarts: Option<Restarts>,
}

impl Gate {
    pub(super) fn new(
        access: Option<Arc<[Option<Access>]>>,
        rate: Option<ConnectRate>,
        restarts: Option<Restarts>,
    ) -> Self {
        Self {
            access,
            rate,
            restarts,
        }
    }

    /// Returns why a peer is refused, if so.
    fn refusal(&self, peer: &Peer) -> Option<&'static str> {
        let access = peer.listener().and_then(|number| {
            let by_listener = self.access.as_ref()?;
            by_listener.get(number)?.as_ref()
        });
        let listed = access.and_then(|access| access.refusal(peer.address()));
        if listed.is_some() || peer.is_datagram() {
            return listed;
        }
        // Those that come from a former process have connected there.
        if self.restarts.as_ref().is_some_and(Restarts::takes_over) {
            return None;
        }
        let is_admitted = |rate: &ConnectRate| rate.admits(peer.address(), Instant::now());
        let has_time = self.rate.as_ref().is_none_or(is_admitted);
        (!has_time).then_some("it connects more often than --connects-per-second allows")
    }
}

impl Surrounding for Gate {
    fn build(&mut self, factory: &mut BoxedFactory, peer: &Peer) -> Option<Boxed> {
        if let Some(why) = self.refusal(peer) {
            AccessLog.refuse(peer, why);
            return None;
        }
        factory.build_protocol(peer)
    }
}
