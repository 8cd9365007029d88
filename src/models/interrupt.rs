//! What a server and a connection's thread know of each other.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::sys;
use crate::sys::Interruptible;

/// How soon an interrupt that came too early, between two system calls, is sent again.
pub(super) const INTERRUPT_AGAIN: Duration = Duration::from_millis(10);

/// How long after the drain's deadline a thread is given up, or a process killed, that has not ended
/// itself.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What a process says to its parent when its session knows of the shutdown.
pub(super) const TOLD: u8 = 1;

/// How many descriptors connections may have together, and how many they have.
#[derive(Debug)]
pub(super) struct Descriptors {
    most: usize,
    taken: AtomicUsize,
}

impl Descriptors {
    pub(super) fn new(most: usize) -> Self {
        let taken = AtomicUsize::new(0);
        Self { most, taken }
    }

    /// Sets one aside; `None` if all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let taken = Taken(Arc::clone(self));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(taken)
    }

    /// Whether one is left.
    pub(super) fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.most
    }
}

impl Default for Descriptors {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// A descriptor that is set aside until this is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Descriptors>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection, as both sides see it.
#[derive(Debug, Default)]
pub(super) struct Interrupt {
    pub(super) thread: Interruptible,
    /// The session knows of the shutdown.
    told: AtomicBool,
    /// The session is to end now.
    ended: AtomicBool,
    /// How many bytes the session's buffers hold.
    held: AtomicUsize,
    /// How many those of all sessions hold, itself included.
    held_by_all: Arc<AtomicUsize>,
    /// What the session takes its descriptors from.
    pub(super) descriptors: Arc<Descriptors>,
    /// The parent process, which wants to hear when the session knows of the shutdown.
    parent: Option<Arc<UnixStream>>,
}

impl Interrupt {
    /// One of several connections that have a limit together.
    pub(super) fn sharing(held_by_all: &Arc<AtomicUsize>, descriptors: &Arc<Descriptors>) -> Self {
        let mut interrupt = Self::default();
        interrupt.held_by_all = Arc::clone(held_by_all);
        interrupt.descriptors = Arc::clone(descriptors);
        interrupt
    }

    /// The one connection of a process.
    pub(super) fn of_child(parent: &Arc<UnixStream>) -> Self {
        let mut interrupt = Self::default();
        interrupt.parent = Some(Arc::clone(parent));
        interrupt
    }

    /// Takes note of how many bytes the session holds. False if it now holds more than before, and
    /// all together more than `most`.
    pub(super) fn note_held(&self, held: usize, most: usize) -> bool {
        let before = self.held.swap(held, Ordering::Relaxed);
        if held <= before {
            self.held_by_all.fetch_sub(before - held, Ordering::Relaxed);
            return true;
        }
        let more = held - before;
        self.held_by_all.fetch_add(more, Ordering::Relaxed) + more <= most
    }

    /// Has a session end that has not begun yet.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Has the thread look at the shutdown, unless it knows of it; or end now.
    pub(super) fn interrupt(&self, end: bool) {
        self.ended.fetch_or(end, Ordering::SeqCst);
        if end || !self.told.load(Ordering::SeqCst) {
            self.thread.interrupt();
        }
    }

    /// Whether the session knows of the shutdown.
    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    pub(super) fn note_told(&self) {
        if self.told.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(parent) = &self.parent {
            // A parent that does not hear it interrupts us again, or is gone.
            let _ = sys::send(&**parent, &[TOLD]);
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.note_held(0, usize::MAX);
    }
}
