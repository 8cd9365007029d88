//! State shared between the server and the thread of a connection: interrupts, shutdown and limits. A
//! waker of a session has a way of its own, `self_pipe`.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::address::Peer;
use crate::service::monitor::{ConnectionState, ConnectionStatus, Progress};
use crate::session::{Ending, Tick};
use crate::sys;
use crate::sys::Interruptible;

/// How long after the drain's deadline to abandon a thread, or kill a process, that has not ended.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The byte a process sends to its parent when its session knows of the shutdown.
pub(super) const TOLD: u8 = 1;

/// A shared limit on the descriptors of all connections.
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

    /// Reserves a descriptor. Returns `None` if all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<Taken> {
        let taken = Taken(Arc::clone(self));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(taken)
    }

    /// Returns whether a descriptor is left.
    pub(super) fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.most
    }
}

impl Default for Descriptors {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// A reserved descriptor, given back on drop.
#[derive(Debug)]
pub(super) struct Taken(Arc<Descriptors>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection, as seen by both the server and its thread.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    pub(super) thread: Interruptible,
    /// The session knows of the shutdown.
    told: AtomicBool,
    /// The session must end now.
    ended: AtomicBool,
    /// A monitor has asked the session to finish, or to end at once.
    asked: AtomicBool,
    aborted: AtomicBool,
    /// When the session began, how many bytes came and went, and when the last one did, in nanoseconds
    /// since then.
    began: OnceLock<Instant>,
    received: AtomicU64,
    sent: AtomicU64,
    moved: AtomicU64,
    /// How often the thread has begun or ended a wait: odd while it waits.
    waits: AtomicUsize,
    /// How many bytes the session's buffers hold.
    held: AtomicUsize,
    /// How many bytes the buffers of all sessions hold, including this one.
    held_by_all: Arc<AtomicUsize>,
    /// The descriptors that the session takes from.
    pub(super) descriptors: Arc<Descriptors>,
    /// The parent process, which is told when the session knows of the shutdown.
    parent: Option<Arc<UnixStream>>,
    /// Asks the server, on another thread or in another process, whether a client may have one more connection.
    ask: Option<Ask>,
}

/// Asks the server whether a client that a proxy has named may have this connection.
pub(super) struct Ask(pub(super) Box<dyn Fn(&Peer) -> bool + Send + Sync>);

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

impl Interrupt {
    /// Creates the state of one of several connections that share limits.
    pub(super) fn sharing(
        held_by_all: &Arc<AtomicUsize>,
        descriptors: &Arc<Descriptors>,
        ask: Ask,
    ) -> Self {
        let mut interrupt = Self::default();
        interrupt.ask = Some(ask);
        interrupt.held_by_all = Arc::clone(held_by_all);
        interrupt.descriptors = Arc::clone(descriptors);
        interrupt
    }

    /// Creates the state of one of several connections of which the others do not exist.
    #[cfg(feature = "testing")]
    pub(crate) fn beside(held_by_all: &Arc<AtomicUsize>) -> Self {
        let mut interrupt = Self::default();
        interrupt.held_by_all = Arc::clone(held_by_all);
        interrupt
    }

    /// Makes the session forget that it knows of the shutdown, to check that a simulation notices.
    #[cfg(feature = "testing")]
    pub(crate) fn forget_told(&self) {
        self.told.store(false, Ordering::SeqCst);
    }

    /// Creates the state of the only connection of a child process.
    pub(super) fn of_child(parent: &Arc<UnixStream>, ask: Ask) -> Self {
        let mut interrupt = Self::default();
        interrupt.ask = Some(ask);
        interrupt.parent = Some(Arc::clone(parent));
        interrupt
    }

    /// Records how many bytes the session holds. Returns false if it holds more than before and all
    /// sessions together hold more than `most`.
    pub(super) fn note_held(&self, held: usize, most: usize) -> bool {
        let before = self.held.swap(held, Ordering::Relaxed);
        if held <= before {
            self.held_by_all.fetch_sub(before - held, Ordering::Relaxed);
            return true;
        }
        let more = held - before;
        self.held_by_all.fetch_add(more, Ordering::Relaxed) + more <= most
    }

    /// Notes when the session begins.
    pub(super) fn begin(&self, now: Instant) {
        let _ = self.began.set(now);
    }

    /// Notes how many bytes came and went, and when the last one did.
    pub(super) fn note_traffic(&self, (received, sent, moved): (u64, u64, Tick)) {
        self.received.store(received, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
        self.moved
            .store(moved.nanos_since(Tick::ZERO), Ordering::Relaxed);
    }

    /// Returns whether a monitor has asked this session alone to finish.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Returns whether a monitor wants the session to end, and that may not be known there.
    pub(super) fn is_unaware(&self) -> bool {
        self.is_aborted() || self.is_asked() && !self.is_told()
    }

    /// Returns whether a monitor ends the session at once.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Marks a session that has not begun yet to end at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Interrupts the thread if it does not know of the shutdown, or if it must `end` now.
    pub(super) fn interrupt(&self, end: bool) {
        self.ended.fetch_or(end, Ordering::SeqCst);
        if end || !self.told.load(Ordering::SeqCst) {
            self.thread.interrupt();
        }
    }

    /// Returns whether the session knows of the shutdown.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    pub(super) fn note_told(&self) {
        if self.told.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(parent) = &self.parent {
            // If the parent misses this, it interrupts us again, or it is gone.
            let _ = sys::send(&**parent, &[TOLD]);
        }
    }

    /// Tells the server which client a proxy has named, and returns whether that client may have one
    /// more connection. Waits for the answer, since the client must not be served before it. A server
    /// that does not answer in time has other troubles than one connection too many.
    pub(super) fn reseat(&self, peer: &Peer) -> bool {
        self.ask.as_ref().is_none_or(|ask| ask.0(peer))
    }

    /// Runs `wait`, in which the thread waits for its peer or for time to pass.
    pub(super) fn while_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        // Only this thread writes.
        let before = self.waits.load(Ordering::Relaxed);
        self.waits.store(before.wrapping_add(1), Ordering::Relaxed);
        let outcome = wait();
        self.waits.store(before.wrapping_add(2), Ordering::Relaxed);
        outcome
    }

    /// Returns a number that changes with every wait, and is odd during one.
    pub(super) fn waits(&self) -> usize {
        self.waits.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Progress for Interrupt {
    fn fill(&self, status: ConnectionStatus, now: Instant) -> ConnectionStatus {
        let state = match self.is_told() || self.is_asked() {
            true => ConnectionState::Finishing,
            false => status.state,
        };
        let moved = Duration::from_nanos(self.moved.load(Ordering::Relaxed));
        let moved = self.began.get().and_then(|began| began.checked_add(moved));
        ConnectionStatus {
            idle: moved.map(|moved| now.saturating_duration_since(moved)),
            received: Some(self.received.load(Ordering::Relaxed)),
            sent: Some(self.sent.load(Ordering::Relaxed)),
            held: Some(self.held.load(Ordering::Relaxed)),
            state,
            ..status
        }
    }

    fn end_by(&self, ending: Ending) -> bool {
        match ending {
            Ending::Orderly => self.asked.store(true, Ordering::SeqCst),
            Ending::Abort => self.aborted.store(true, Ordering::SeqCst),
        }
        let is_unaware = self.is_unaware();
        if is_unaware {
            self.thread.interrupt();
        }
        !is_unaware
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.note_held(0, usize::MAX);
    }
}
