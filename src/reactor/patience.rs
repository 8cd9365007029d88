//! How long a loop may wait.

use std::time::Duration;

use crate::net::Net;
use crate::reactor::Reactor;
use crate::session::{Factory, Tick};

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Returns how long the loop may wait if no event comes, and the factory is to be told something at
    /// `factory`; `None` means without limit.
    pub(super) fn patience(&self, factory: Option<Tick>) -> Option<Duration> {
        let accepts = self.listeners.is_ready() && !self.is_full();
        let begins = !self.requests.connects.is_empty() || self.shutdown.is_requested();
        if accepts || begins || self.connections.is_busy() || self.sessions.is_busy() {
            return Some(Duration::ZERO);
        }

        let mut next = self.connections.deadline();
        let has_more = self.listeners.deadline().is_some()
            || self.shutdown.has_begun()
            || !self.postponed.is_empty()
            || self.model.is_some()
            || !self.sessions.is_empty()
            || self.requests.again.is_some();
        if has_more {
            next = next.into_iter().chain(self.unusual_deadline()).min();
        }
        if let Some(at) = factory {
            next = Some(next.map_or(at, |next| next.min(at)));
        }

        let now = self.env.clock.tick().max(self.ended);
        next.map(|at| at.since(now))
    }

    /// Returns the next deadline of what a loop has only at times.
    #[cold]
    fn unusual_deadline(&self) -> Option<Tick> {
        let all = [
            self.listeners.deadline(),
            self.shutdown.deadline(),
            self.postponed.deadline(),
            self.sessions.deadline(),
            self.model.as_ref().and_then(|model| model.deadline()),
            self.requests.again.map(|at| self.env.clock.tick_of(at)),
        ];
        all.into_iter().flatten().min()
    }

    /// Returns whether postponed connections are to be tried again, or told of the shutdown.
    #[cold]
    pub(super) fn is_due_again(&self) -> bool {
        self.shutdown.has_begun() || self.postponed.is_due(self.env.clock.tick())
    }

    /// Returns whether the model can take no further connections for now.
    fn is_full(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.is_full())
    }
}
