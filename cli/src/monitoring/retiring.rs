//! The factory of the small server, which listens no more when a new process does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serveloop::{Actions, Factory, Peer, Protocol};

/// Makes protocols until another process has taken over.
pub(super) struct Retiring<B> {
    build: B,
    is_replaced: Arc<AtomicBool>,
    is_retired: bool,
}

impl<B> Retiring<B> {
    pub(super) fn new(build: B, is_replaced: Arc<AtomicBool>) -> Self {
        Self {
            build,
            is_replaced,
            is_retired: false,
        }
    }
}

impl<B: FnMut(&Peer) -> Option<Box<dyn Protocol + Send>>> Factory for Retiring<B> {
    type Protocol = Box<dyn Protocol + Send>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        (self.build)(peer)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        if !self.is_retired && self.is_replaced.load(Ordering::SeqCst) {
            self.is_retired = true;
            actions.retire();
        }
    }
}
