//! The average rates of a peer.

use std::time::Duration;

use crate::session::clock::Tick;

/// What is measured now, in each direction.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What the peer sends of a message.
    pub(super) incoming: Option<Window>,
    /// What it takes of the output.
    pub(super) outgoing: Option<Window>,
}

/// The least rate, and how long averages are over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) bytes_per_second: usize,
    pub(super) grace: Duration,
}

/// A time over which an average is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    began: Tick,
    /// What moved before, in bytes.
    before: u64,
    /// When the message began that is measured. The next one is another matter.
    pub(super) message: Tick,
}

impl Window {
    pub(super) fn new(began: Tick, before: u64, message: Tick) -> Self {
        Self {
            began,
            before,
            message,
        }
    }

    fn end(&self, rate: Rate) -> Tick {
        self.began.after(rate.grace)
    }

    /// Looks at a window that is over: `total` bytes have moved until now. Returns false if these are too
    /// few. Otherwise the next window begins.
    pub(super) fn judge(&mut self, total: u64, now: Tick, rate: Rate) -> bool {
        if now < self.end(rate) {
            return true;
        }
        let moved = u128::from(total.wrapping_sub(self.before));
        let owed = rate.bytes_per_second as u128 * rate.grace.as_millis();
        let is_enough = moved * Duration::from_secs(1).as_millis() >= owed;
        *self = Self::new(now, total, self.message);
        is_enough
    }
}

impl Pace {
    /// Returns when a window is over.
    pub(super) fn deadline(&self, rate: Rate) -> Option<Tick> {
        let windows = [self.incoming, self.outgoing].into_iter().flatten();
        windows.map(|window| window.end(rate)).min()
    }
}
