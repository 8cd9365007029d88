//! Wakers: how other threads and other connections get a session's attention.
//!
//! This room also has `sync`, the locks and atomics of what several threads share, so that a model
//! checker can replace them. It imports no other room.

#[cfg_attr(serveloop_loom, path = "../../loom/src/sync.rs")]
pub(crate) mod sync;

use std::sync::{Arc, Weak};
use std::{fmt, mem};

use self::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, lock};

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
            mailbox.push(Woken::Waker(Arc::clone(&self.target)));
        }
    }
}

impl Waker {
    /// Returns the driver's number for the session, and the driver's mailbox.
    pub(crate) fn target(&self) -> (usize, Weak<Mailbox>) {
        (self.target.id, self.target.mailbox.clone())
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("id", &self.target.id)
            .finish_non_exhaustive()
    }
}

/// The id of a loop's factory. Connections have larger ones.
pub(crate) const FACTORY: usize = 0;

pub(crate) struct Target {
    pub(crate) id: usize,
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

/// Wakes a session, so that a waker can be given to what calls back from another thread, as
/// [`Offload`](crate::service::Offload) does.
impl Wake for Waker {
    fn wake(&self) {
        Self::wake(self);
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
    woken: Mutex<Vec<Woken>>,
    /// How many bytes of posts wait for the driver's sessions, or are being sent by them.
    posted: AtomicUsize,
    /// The driver's wait ends when there are this many.
    alarm: AtomicUsize,
    wake: Box<dyn Wake>,
}

/// Why sessions are woken.
pub(crate) enum Woken {
    /// By a waker, which wakes its session again only when this has been taken.
    Waker(Arc<Target>),
    /// Something was posted to the session with this number, which had nothing before.
    Posted(usize),
    /// The same was posted to several sessions.
    PostedAll(Vec<usize>),
}

impl Woken {
    /// Returns whether the loop's factory is woken, and no session.
    pub(crate) fn is_for_factory(&self) -> bool {
        matches!(self, Self::Waker(target) if target.id == FACTORY)
    }
}

impl Mailbox {
    /// Creates a mailbox that calls `wake` whenever it stops being empty.
    #[must_use]
    pub fn new(wake: Box<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            woken: Mutex::new(Vec::new()),
            posted: AtomicUsize::new(0),
            alarm: AtomicUsize::new(usize::MAX),
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
        self.take_woken().into_iter().flat_map(|woken| {
            let (one, all) = match woken {
                Woken::Waker(target) => (Some(target.id), Vec::new()),
                Woken::Posted(id) => (Some(id), Vec::new()),
                Woken::PostedAll(ids) => (None, ids),
            };
            one.into_iter().chain(all)
        })
    }

    /// Works like `take`, for a driver that looks at the reasons.
    pub(crate) fn take_woken(&self) -> Vec<Woken> {
        let woken = mem::take(&mut *self.woken());
        // Done before iterating: a target that stayed queued could never be woken again.
        for woken in &woken {
            if let Woken::Waker(target) = woken {
                target.queued.swap(false, Ordering::AcqRel);
            }
        }
        woken
    }

    /// Wakes a session for a post.
    pub(crate) fn push_posted(&self, id: usize) {
        self.push(Woken::Posted(id));
    }

    /// Wakes sessions for what was posted to all of them.
    pub(crate) fn push_posted_all(&self, ids: Vec<usize>) {
        if !ids.is_empty() {
            self.push(Woken::PostedAll(ids));
        }
    }

    /// Returns how many bytes of posts wait for the driver's sessions, or are being sent by them.
    pub(crate) fn posted(&self) -> usize {
        self.posted.load(Ordering::Relaxed)
    }

    /// Adds the bytes of a post to the account.
    pub(crate) fn charge(&self, bytes: usize) {
        let before = self.posted.fetch_add(bytes, Ordering::Relaxed);
        let alarm = self.alarm.load(Ordering::Relaxed);
        if before < alarm && before.saturating_add(bytes) >= alarm {
            self.wake.wake();
        }
    }

    /// Ends the driver's wait when this many bytes are posted, since posts behind others wake no session.
    pub(crate) fn set_alarm(&self, bytes: usize) {
        self.alarm.store(bytes, Ordering::Relaxed);
    }

    /// Takes the bytes of a post off the account.
    pub(crate) fn discharge(&self, bytes: usize) {
        let before = self.posted.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "{bytes} bytes are not on the account");
    }

    /// Ends the driver's wait, although no session is woken.
    pub(crate) fn ring(&self) {
        self.wake.wake();
    }

    fn push(&self, news: Woken) {
        let mut woken = self.woken();
        let was_empty = woken.is_empty();
        woken.push(news);
        // Unlock first, because `wake` may use this mailbox.
        drop(woken);
        if was_empty {
            self.wake.wake();
        }
    }

    fn woken(&self) -> MutexGuard<'_, Vec<Woken>> {
        lock(&self.woken)
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
