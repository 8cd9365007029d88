//! Work of a server that belongs to none of its connections.

use std::time::Instant;

/// What a server does between its connections, on each loop.
pub(crate) trait Chore: Send {
    /// Returns when it is to be done next, or `None` for never.
    fn due(&self) -> Option<Instant>;

    /// Does a part of it that takes little time.
    fn run(&mut self, now: Instant);

    /// Returns the chore of one more loop.
    fn copy(&self) -> Box<dyn Chore>;
}

impl Clone for Box<dyn Chore> {
    fn clone(&self) -> Self {
        (**self).copy()
    }
}
