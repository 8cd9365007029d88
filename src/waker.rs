//! How other threads and other connections get a session's attention.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{fmt, mem};

/// Calls [`woken`](crate::Protocol::woken) on one session, from anywhere.
///
/// It carries no data: protocol and caller share a channel or a mutex of their own, the caller puts
/// something there and wakes. Several wakes before the session runs are one call. A waker that
/// outlives its session does nothing.
#[derive(Clone)]
pub struct Waker {
    target: Arc<Target>,
}

impl Waker {
    /// Has the session's `woken` called soon, on the session's own thread. Never blocks for long.
    pub fn wake(&self) {
        if self.target.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(mailbox) = self.target.mailbox.upgrade() {
            mailbox.push(Arc::clone(&self.target));
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("id", &self.target.id)
            .finish_non_exhaustive()
    }
}

struct Target {
    id: usize,
    queued: AtomicBool,
    /// Weak, since a mailbox that its driver never empties again would keep itself alive.
    mailbox: Weak<Mailbox>,
}

/// Ends a driver's wait, from any thread: a driver gives one to its [`Mailbox`].
pub trait Wake: Send + Sync {
    /// Ends the wait that is going on, or the next one. Called on the thread that wakes, without a
    /// lock of the mailbox. Failing is the implementer's to log.
    fn wake(&self);
}

/// What makes wakers: a driver lends one to its sessions.
pub trait Wakers {
    /// A waker for the session that the driver knows as `id`.
    fn waker(&self, id: usize) -> Waker;
}

/// Where wakes wait for the driver that serves the sessions.
pub struct Mailbox {
    woken: Mutex<Vec<Arc<Target>>>,
    wake: Box<dyn Wake>,
}

impl Mailbox {
    /// A mailbox that calls `wake` whenever it stops being empty.
    #[must_use]
    pub fn new(wake: Box<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            woken: Mutex::new(Vec::new()),
            wake,
        })
    }

    /// A mailbox of which nobody needs to be told.
    pub(crate) fn silent() -> Arc<Self> {
        struct Silent;
        impl Wake for Silent {
            fn wake(&self) {}
        }
        Self::new(Box::new(Silent))
    }

    /// Takes all wakes that came since the last call, however many of them the caller looks at. A
    /// wake that comes later is a new one, also for the same session.
    pub fn take(&self) -> impl Iterator<Item = usize> + use<> {
        let woken = mem::take(&mut *self.woken());
        // Here rather than on the way: a target that stays queued can never be woken again.
        for target in &woken {
            target.queued.swap(false, Ordering::AcqRel);
        }
        woken.into_iter().map(|target| target.id)
    }

    fn push(&self, target: Arc<Target>) {
        let mut woken = self.woken();
        woken.push(target);
        let is_first = woken.len() == 1;
        // Whatever `wake` does, it may use this mailbox.
        drop(woken);
        if is_first {
            self.wake.wake();
        }
    }

    fn woken(&self) -> MutexGuard<'_, Vec<Arc<Target>>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wakers for Arc<Mailbox> {
    fn waker(&self, id: usize) -> Waker {
        let target = Target {
            id,
            queued: AtomicBool::new(false),
            mailbox: Self::downgrade(self),
        };
        Waker {
            target: Arc::new(target),
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
