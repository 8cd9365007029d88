//! Whether a server has stopped sending anything back.

use std::time::{Duration, Instant};

/// Detects that the server has stopped sending messages back.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) patience: Duration,
    /// When it began, if the last turn brought nothing.
    since: Option<Instant>,
    progress: u64,
}

impl Silence {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
            progress: 0,
        }
    }

    pub(super) fn forget(&mut self) {
        self.progress = u64::MAX;
    }

    /// Returns whether there has been no progress for too long.
    pub(super) fn is_over(&mut self, progress: u64) -> bool {
        if progress != self.progress {
            self.progress = progress;
            self.since = None;
            return false;
        }

        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() >= self.patience
    }
}
