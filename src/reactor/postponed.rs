//! Outbound connections that the system could not begin yet, because the queue of a Unix socket is
//! full. No event announces room in it.

use std::mem;
use std::time::Duration;

use crate::address::Address;
use crate::session::Tick;

/// How soon to try again.
const AGAIN: Duration = Duration::from_millis(10);

/// One connection to be opened, and how long it may be tried.
type Connect<P> = ((Address, P), Option<Tick>);

/// The connections that are waiting to be tried again.
pub(super) struct Postponed<P> {
    connects: Vec<Connect<P>>,
    /// When to try again, if there are any.
    again: Tick,
}

impl<P> Postponed<P> {
    pub(super) fn new() -> Self {
        Self {
            connects: Vec::new(),
            again: Tick::ZERO,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connects.is_empty()
    }

    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.again <= now
    }

    /// Returns when to try again.
    pub(super) fn deadline(&self) -> Option<Tick> {
        (!self.is_empty()).then_some(self.again)
    }

    pub(super) fn push(&mut self, connect: Connect<P>, now: Tick) {
        self.connects.push(connect);
        self.again = now.after(AGAIN);
    }

    /// Takes all connections, to try each of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Connect<P>> + use<P> {
        mem::take(&mut self.connects).into_iter()
    }
}
