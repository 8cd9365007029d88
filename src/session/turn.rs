//! The messages that a protocol takes within its calls.

use crate::session::clock::Tick;

/// How many messages a protocol has taken within calls, in the turn that began at a moment.
#[derive(Debug)]
pub(super) struct Turn {
    began: Tick,
    taken: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            began: Tick::ZERO,
            taken: 0,
        }
    }
}

impl Turn {
    /// Counts one more message, if fewer than `most` were taken in the turn that began at `now`.
    pub(super) fn take(&mut self, now: Tick, most: usize) -> bool {
        if self.began != now {
            (self.began, self.taken) = (now, 0);
        }
        let has_more = self.taken < most;
        self.taken += usize::from(has_more);
        has_more
    }
}
