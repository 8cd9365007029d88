//! The factory of the small server, which listens no more when a new process does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serveloop::{Actions, Factory, Peer};

use crate::monitoring::clients::Clients;

/// Makes protocols until another process has taken over.
pub(super) struct Retiring {
    clients: Clients,
    is_replaced: Arc<AtomicBool>,
    is_retired: bool,
}

impl Retiring {
    pub(super) fn new(clients: Clients, is_replaced: Arc<AtomicBool>) -> Self {
        Self {
            clients,
            is_replaced,
            is_retired: false,
        }
    }
}

impl Factory for Retiring {
    type Protocol = <Clients as Factory>::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        self.clients.build_protocol(peer)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.clients.service_actions(actions);
        if !self.is_retired && self.is_replaced.load(Ordering::SeqCst) {
            self.is_retired = true;
            actions.retire();
        }
    }
}
