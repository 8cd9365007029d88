//! The right to cancel an outbound connection before it is established.

use std::sync::Arc;

use crate::waker::Waker;
use crate::waker::sync::{Mutex, lock};

/// Shared by the one who asked for an outbound connection and by the loop that establishes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    /// The loop has not seen it yet.
    #[default]
    Asked,
    /// The loop tries to connect, and is woken for news.
    Tried(Waker),
    Cancelled,
    /// The connection is established, or the attempt has failed.
    Over,
}

impl Ticket {
    /// Cancels the attempt, unless it is over. Returns whether it was not.
    pub(crate) fn cancel(&self) -> bool {
        let mut stage = lock(&self.0);
        let waker = match &mut *stage {
            Stage::Asked => None,
            Stage::Tried(waker) => Some(waker.clone()),
            Stage::Cancelled | Stage::Over => return false,
        };
        *stage = Stage::Cancelled;
        drop(stage);

        waker.iter().for_each(Waker::wake);
        true
    }

    /// Notes whom to wake when the attempt is cancelled.
    pub(crate) fn set_waker(&self, waker: Waker) {
        let mut stage = lock(&self.0);
        if let Stage::Asked | Stage::Tried(_) = *stage {
            *stage = Stage::Tried(waker);
        }
    }

    /// Notes that the attempt is over, so that it cannot be cancelled any more.
    pub(crate) fn end(&self) {
        *lock(&self.0) = Stage::Over;
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*lock(&self.0), Stage::Cancelled)
    }

    /// Returns whether the connection is established or the attempt has failed.
    pub(crate) fn is_over(&self) -> bool {
        matches!(*lock(&self.0), Stage::Cancelled | Stage::Over)
    }
}
