//! Wakers: how other threads and other connections get a session's attention.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{fmt, mem};

/// Causes [`woken`](crate::Protocol::woken) to be called on one session, from anywhere.
///
/// A waker carries no data. The protocol and the caller share a channel or a mutex: the caller puts
/// something there and then wakes the session. Several wakes before the session runs result in one
/// call. A waker that outlives its session does nothing.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop::{Protocol, Result, Transport, Waker};
/// use std::sync::{Arc, Mutex};
///
/// /// What others put here is sent when they wake the session.
/// #[derive(Default)]
/// struct Outbox {
///     text: String,
///     waker: Option<Waker>,
/// }
///
/// struct Sender(Arc<Mutex<Outbox>>);
///
/// impl Protocol for Sender {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         self.0.lock().unwrap().waker = Some(transport.waker());
///         Ok(())
///     }
///
///     fn woken(&mut self, transport: &mut Transport<'_>) {
///         transport.write(std::mem::take(&mut self.0.lock().unwrap().text).as_bytes());
///     }
///
///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
///         Ok(data.len())
///     }
/// }
///
/// let outbox = Arc::<Mutex<Outbox>>::default();
/// let mut session = MemorySession::new(Sender(Arc::clone(&outbox)));
/// let waker = outbox.lock().unwrap().waker.clone().unwrap();
///
/// outbox.lock().unwrap().text = "news".to_owned();
/// std::thread::spawn(move || waker.wake()).join().unwrap();
/// session.run();
/// assert_eq!(session.sent(), b"news");
/// ```
#[derive(Clone)]
pub struct Waker {
    target: Arc<Target>,
}

impl Waker {
    /// Causes the session's `woken` to be called soon, on the session's own thread. Never blocks
    /// for long.
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
    /// Weak, because a mailbox whose driver never empties it again would keep itself alive.
    mailbox: Weak<Mailbox>,
}

/// Ends a driver's wait, from any thread. A driver gives one to its [`Mailbox`].
pub trait Wake: Send + Sync {
    /// Ends the current wait, or else the next one. It is called on the thread that wakes, while no
    /// lock of the mailbox is held. An implementation logs its own failures.
    fn wake(&self);
}

/// A function without arguments ends a wait too. For a driver that never waits, it is `|| ()`.
impl<F: Fn() + Send + Sync> Wake for F {
    fn wake(&self) {
        self();
    }
}

/// Makes wakers. A driver lends an implementation to its sessions.
pub trait Wakers {
    /// Returns a waker for the session that the driver knows as `id`.
    fn waker(&self, id: usize) -> Waker;
}

/// A queue of wakes for the driver that serves the sessions.
///
/// ```
/// use serveloop::driver::{Mailbox, Wakers};
///
/// let driver = std::thread::current();
/// let mailbox = Mailbox::new(Box::new(move || driver.unpark()));
/// let waker = mailbox.waker(7);
///
/// std::thread::spawn(move || waker.wake());
/// let woken = loop {
///     std::thread::park();
///     if let Some(id) = mailbox.take().next() {
///         break id;
///     }
/// };
/// assert_eq!(woken, 7);
/// ```
pub struct Mailbox {
    woken: Mutex<Vec<Arc<Target>>>,
    wake: Box<dyn Wake>,
}

impl Mailbox {
    /// Creates a mailbox that calls `wake` whenever it stops being empty.
    #[must_use]
    pub fn new(wake: Box<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            woken: Mutex::new(Vec::new()),
            wake,
        })
    }

    /// Creates a mailbox that notifies no driver.
    pub(crate) fn silent() -> Arc<Self> {
        Self::new(Box::new(|| ()))
    }

    /// Takes all wakes that arrived since the last call, and returns the IDs of their sessions. The
    /// wakes are taken even if the caller does not look at all of them. A later wake is a new one,
    /// even for the same session.
    pub fn take(&self) -> impl Iterator<Item = usize> + use<> {
        let woken = mem::take(&mut *self.woken());
        // Done before iterating: a target that stayed queued could never be woken again.
        for target in &woken {
            target.queued.swap(false, Ordering::AcqRel);
        }
        woken.into_iter().map(|target| target.id)
    }

    fn push(&self, target: Arc<Target>) {
        let mut woken = self.woken();
        woken.push(target);
        let is_first = woken.len() == 1;
        // Unlock first, because `wake` may use this mailbox.
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
