//! Work of a server that belongs to none of its connections.

use std::time::Instant;

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
