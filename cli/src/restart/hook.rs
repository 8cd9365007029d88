//! What each loop of a server has to do with its restarts.

use std::time::Instant;

use serveloop::Actions;

use crate::restart::restarts::{LOOK_AGAIN, Restarts};

/// One loop's part in the restarts. Each clone is for one loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct RestartHook {
    restarts: Option<Restarts>,
    is_retired: bool,
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
    pub(crate) fn started<P>(&self, actions: &Actions<'_, P>) {
        if let Some(restarts) = &self.restarts {
            restarts.join(actions.waker());
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
            if retires || is_own || self.next.is_some() {
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
        if restarts.is_replaced() && !self.is_retired {
            self.is_retired = true;
            actions.retire();
            let grace = restarts.grace().filter(|_| restarts.is_forking());
            self.next = grace.and_then(|grace| now.checked_add(grace));
            return;
        }
        if self.next.is_some_and(|at| now < at) {
            return;
        }

        self.next = None;
        if self.is_retired {
            restarts.end();
        } else if restarts.is_starting() {
            restarts.look();
            self.next = now.checked_add(LOOK_AGAIN);
        }
    }
}
