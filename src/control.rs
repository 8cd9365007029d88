//! What a server and a connection's thread know of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::system::Interruptible;

/// How soon an interrupt that came too early, between two system calls, is sent again.
pub(crate) const INTERRUPT_AGAIN: Duration = Duration::from_millis(10);

/// How long after the drain's deadline a thread is given up, or a process killed, that has not ended
/// itself.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// One connection, as both sides see it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) thread: Interruptible,
    /// The session knows of the shutdown.
    told: AtomicBool,
    /// The session is to end now.
    ended: AtomicBool,
    /// How many bytes the session's buffers hold.
    held: AtomicUsize,
    /// How many those of all sessions hold, itself included.
    held_by_all: Arc<AtomicUsize>,
}

impl Control {
    /// One of several connections that have a limit together.
    pub(crate) fn sharing(held_by_all: &Arc<AtomicUsize>) -> Self {
        let mut control = Self::default();
        control.held_by_all = Arc::clone(held_by_all);
        control
    }

    /// Takes note of how many bytes the session holds. False if it now holds more than before, and
    /// all together more than `most`.
    pub(crate) fn note_held(&self, held: usize, most: usize) -> bool {
        let before = self.held.swap(held, Ordering::Relaxed);
        if held <= before {
            self.held_by_all.fetch_sub(before - held, Ordering::Relaxed);
            return true;
        }
        let more = held - before;
        self.held_by_all.fetch_add(more, Ordering::Relaxed) + more <= most
    }

    /// Has a session end that has not begun yet.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Has the thread look at the shutdown, unless it knows of it; or end now.
    pub(crate) fn interrupt(&self, end: bool) {
        self.ended.fetch_or(end, Ordering::SeqCst);
        if end || !self.told.load(Ordering::SeqCst) {
            self.thread.interrupt();
        }
    }

    /// Whether the session knows of the shutdown.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    pub(crate) fn note_told(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.note_held(0, usize::MAX);
    }
}
