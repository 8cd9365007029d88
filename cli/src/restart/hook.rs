//! What each loop of a server has to do with its restarts.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serveloop::net::HandedConnection;
use serveloop::{Actions, Peer};

use crate::restart::restarts::{LOOK_AGAIN, Restarts};

/// One loop's part in the restarts. Each clone is for one loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct RestartHook {
    restarts: Option<Restarts>,
    /// The number of this loop.
    number: usize,
    is_retired: bool,
    /// How many connections it was given in this turn.
    adopted: usize,
    /// When to look how far the new process is, or to end what is left.
    next: Option<Instant>,
}

impl RestartHook {
    pub(crate) fn new(restarts: Option<Restarts>) -> Self {
        Self {
            restarts,
            ..Self::default()
        }
    }

    /// Notes that the loop serves.
    pub(crate) fn started<P>(&mut self, actions: &Actions<'_, P>) {
        if let Some(restarts) = &self.restarts {
            self.number = restarts.join(actions.waker());
        }
    }

    /// Returns when to look again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Retires the loop if a new process serves. Costs one atomic load if nothing is going on.
    #[inline]
    pub(crate) fn look<P>(&mut self, actions: &mut Actions<'_, P>) {
        if let Some(restarts) = &self.restarts {
            let retires = restarts.is_replaced() && !self.is_retired;
            let is_own = restarts.is_forking() && restarts.is_starting();
            if retires
                || is_own
                || restarts.has_arrivals()
                || self.adopted > 0
                || self.next.is_some()
            {
                self.act(actions);
            }
        }
    }

    #[cold]
    fn act<P>(&mut self, actions: &mut Actions<'_, P>) {
        let Some(restarts) = &self.restarts else {
            return;
        };
        let now = actions.now();
        // They were adopted at the end of the call before this one.
        restarts.note_adopted(mem::take(&mut self.adopted));
        if restarts.has_arrivals() {
            let arrived = restarts.arrivals(self.number);
            self.adopted = arrived.len();
            for connection in arrived {
                actions.adopt(connection);
            }
            actions.call_again(Duration::ZERO);
        }
        if restarts.is_replaced() && !self.is_retired {
            self.is_retired = true;
            actions.retire();
            if let Some((leaving, listeners)) = restarts.leaving(self.number) {
                hand_over(actions, leaving, listeners);
            }
            let grace = restarts.grace().filter(|_| restarts.is_forking());
            self.next = grace.and_then(|grace| now.checked_add(grace));
            return;
        }
        if self.next.is_some_and(|at| now < at) {
            return;
        }

        // Without other threads, the loop does what one would do elsewhere.
        let was_due = self.next.take().is_some();
        if self.is_retired && was_due {
            restarts.end();
        } else if restarts.is_forking() && restarts.is_starting() {
            restarts.look();
            self.next = now.checked_add(LOOK_AGAIN);
        }
    }
}

/// Sends the connections of a loop away, with the numbers that their listeners have there.
fn hand_over<P>(
    actions: &mut Actions<'_, P>,
    leaving: Sender<HandedConnection>,
    listeners: Arc<[Option<u16>]>,
) {
    let of = move |number: usize| listeners.get(number).copied().flatten();
    let is_there = {
        let of = of.clone();
        move |peer: &Peer| peer.listener().and_then(&of).is_some()
    };
    actions.hand_over(is_there, move |connection| {
        let there = of(connection.listener().into()).unwrap_or_default();
        // Whoever would receive it waits for all of them.
        let _ = leaving.send(connection.with_listener(there));
    });
}
