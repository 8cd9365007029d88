//! Work of a server that belongs to none of its connections.

use std::time::Instant;

use serveloop::server::Refusal;
use serveloop::{Actions, Ended, Factory, Peer};

/// What a server does between its connections, on each loop.
pub(crate) trait Chore: Clone + Send {
    /// Returns when it is to be done next, or `None` for never.
    fn due(&self) -> Option<Instant>;

    /// Does a part of it that takes little time.
    fn run(&mut self, now: Instant);
}

/// Nothing to do.
#[derive(Clone, Copy)]
pub(super) struct NoChore;

impl Chore for NoChore {
    fn due(&self) -> Option<Instant> {
        None
    }

    fn run(&mut self, _: Instant) {}
}

/// A factory that also does a chore.
#[derive(Clone)]
pub(super) struct Busy<F, C> {
    factory: F,
    chore: C,
}

impl<F, C> Busy<F, C> {
    pub(super) fn new(factory: F, chore: C) -> Self {
        Self { factory, chore }
    }
}

impl<F: Factory, C: Chore> Factory for Busy<F, C> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<F::Protocol> {
        self.factory.build_protocol(peer)
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.factory.needs_stream(listener)
    }

    fn needs_loop(&self) -> bool {
        self.factory.needs_loop()
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn started(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.started(actions);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = self.factory.poll_timeout();
        own.into_iter().chain(self.chore.due()).min()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        let now = actions.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.chore.due()) {
            self.chore.run(now);
        }
        if is_due(self.factory.poll_timeout()) {
            self.factory.handle_timeout(actions);
        }
    }

    fn woken(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.woken(actions);
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.service_actions(actions);
    }
}
