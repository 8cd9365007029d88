//! A factory whose server tells the service manager how it is.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::address::{NetworkList, Peer};
use crate::service::notify::Notifier;
use crate::session::{Actions, Ended, Factory, Refusal};
use crate::shutdown::{Pulse, ShutdownHandle};
use crate::sys;
use crate::waker::sync::lock;

/// How many signs of life to give in the time after which the manager would act.
const SIGNS: u32 = 4;

/// How soon to try again to send what the manager had no room for.
const RETRY: Duration = Duration::from_millis(50);

/// A factory whose server notifies the service manager, in every model.
///
/// - `READY=1` is sent when every loop of the server serves.
/// - `STOPPING=1` is sent when the shutdown begins.
/// - `WATCHDOG=1` is sent a quarter of the manager's timeout apart, as long as every loop turns. An
///   idle loop turns for that purpose. A handler that blocks keeps its loop from turning, so the slowest
///   of several workers decides. With a thread or a process for each connection, the loop that
///   accepts them counts, not what serves them. In the sequential model, waiting for a client counts as
///   turning.
///
/// Each clone is one loop. A `Notified` without a notifier passes everything on.
///
/// ```
/// use std::os::unix::net::UnixDatagram;
///
/// use serveloop::service::notify::{Notified, Notifier};
/// use serveloop::{Config, Peer, Server, protocols::Echo};
///
/// # let directory = std::env::temp_dir().join(format!("notified-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("manager");
/// let manager = UnixDatagram::bind(&path)?;
///
/// let notifier = Notifier::new(path.to_str().ok_or("a path in UTF-8")?)?;
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// let handle = server.shutdown_handle();
/// handle.shutdown();
/// let factory = Notified::new(Some(notifier), handle, |_: &Peer| Some(Echo));
/// server.with(factory).serve_forever()?;
///
/// let mut room = [0; 64];
/// let count = manager.recv(&mut room)?;
/// assert_eq!(&room[..count], b"READY=1");
/// let count = manager.recv(&mut room)?;
/// assert_eq!(&room[..count], b"STOPPING=1");
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Notified<F> {
    factory: F,
    handle: ShutdownHandle,
    own: Option<Own>,
}

/// What one loop keeps.
struct Own {
    shared: Arc<Shared>,
    /// The number of this loop.
    number: usize,
    /// When this loop gives its next sign of life, or tries again to send something.
    next: Option<Instant>,
    has_said_stopping: bool,
}

/// What the loops of a server share.
struct Shared {
    notifier: Option<Notifier>,
    /// What to do when every loop serves.
    at_ready: Mutex<Option<AtReady>>,
    handle: ShutdownHandle,
    loops: Mutex<Vec<Turning>>,
    is_ready: AtomicBool,
    is_stopping: AtomicBool,
}

type AtReady = Box<dyn FnOnce() + Send>;

/// How a loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turning {
    /// It has not begun to serve.
    NotYet,
    /// It has not turned since the last sign of life of the server.
    Owes,
    /// It has turned since.
    Turned,
    /// It has ended, or was never used.
    Gone,
}

impl<F> Notified<F> {
    /// Wraps `factory`. The shutdown of `handle` is what the manager is told of: give the server's.
    #[must_use]
    pub fn new(notifier: Option<Notifier>, handle: ShutdownHandle, factory: F) -> Self {
        let own = notifier.map(|notifier| {
            let shared = Arc::new(Shared::new(Some(notifier), &handle));
            handle.set_pulse(Arc::downgrade(&shared) as _);
            Own::new(shared)
        });
        Self {
            factory,
            handle,
            own,
        }
    }

    /// Calls `work` once, on the loop that begins last, when every loop of the server serves and before
    /// the manager is told so. It works without a notifier too. Call this before the value is cloned.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use serveloop::service::notify::Notified;
    /// use serveloop::{Config, Peer, Server, protocols::Echo};
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// let handle = server.shutdown_handle();
    /// let (sender, ready) = mpsc::channel();
    ///
    /// let factory = Notified::new(None, handle.clone(), |_: &Peer| Some(Echo));
    /// let factory = factory.at_ready(move || {
    ///     let _ = sender.send("every loop serves");
    ///     handle.shutdown();
    /// });
    /// server.with(factory).serve_forever()?;
    /// assert_eq!(ready.recv()?, "every loop serves");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn at_ready(mut self, work: impl FnOnce() + Send + 'static) -> Self {
        let handle = &self.handle;
        let new = || Own::new(Arc::new(Shared::new(None, handle)));
        let own = self.own.get_or_insert_with(new);
        *lock(&own.shared.at_ready) = Some(Box::new(work));
        self
    }
}

impl<F> Notified<F> {
    fn notifies(&self) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|own| own.shared.notifier.is_some())
    }
}

impl Own {
    fn new(shared: Arc<Shared>) -> Self {
        let mut loops = shared.loops();
        let number = loops.len();
        loops.push(Turning::NotYet);
        drop(loops);
        Self {
            shared,
            number,
            next: None,
            has_said_stopping: false,
        }
    }

    /// Notes that the loop turns, and returns what is due to be sent.
    #[cold]
    fn beat(&mut self, now: Instant) {
        self.shared.note(self.number);
        self.plan(now);
    }

    /// Decides when to be called again.
    fn plan(&mut self, now: Instant) {
        let notifier = self.shared.notifier.as_ref();
        let retry = notifier.is_some_and(Notifier::retry).then_some(RETRY);
        let wait = self.shared.interval().into_iter().chain(retry).min();
        self.next = wait.and_then(|wait| now.checked_add(wait));
    }

    #[cold]
    fn stop(&mut self, now: Instant) {
        self.has_said_stopping = true;
        self.shared.stopping();
        self.plan(now);
    }
}

impl Drop for Own {
    /// A loop that ends after it has served means that the server ends.
    fn drop(&mut self) {
        if sys::is_child() {
            return;
        }
        let before = self.shared.set(self.number, Turning::Gone);
        if before != Some(Turning::NotYet) {
            self.shared.stopping();
        }
        self.shared.ready_if_all_serve();
    }
}

impl Shared {
    fn new(notifier: Option<Notifier>, handle: &ShutdownHandle) -> Self {
        Self {
            notifier,
            at_ready: Mutex::default(),
            handle: handle.clone(),
            loops: Mutex::default(),
            is_ready: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    fn loops(&self) -> MutexGuard<'_, Vec<Turning>> {
        lock(&self.loops)
    }

    /// Sets how a loop is, and returns how it was.
    fn set(&self, number: usize, turning: Turning) -> Option<Turning> {
        let mut loops = self.loops();
        let own = loops.get_mut(number)?;
        Some(std::mem::replace(own, turning))
    }

    /// Says that the server is ready, once, when no loop has yet to begin and one has begun.
    fn ready_if_all_serve(&self) {
        let loops = self.loops();
        let waits = loops.contains(&Turning::NotYet);
        let serves = loops
            .iter()
            .any(|one| matches!(one, Turning::Owes | Turning::Turned));
        drop(loops);
        if !waits && serves && !self.is_ready.swap(true, Ordering::SeqCst) {
            let work = lock(&self.at_ready).take();
            work.into_iter().for_each(|work| work());
            self.notifier.iter().for_each(Notifier::ready);
        }
    }

    /// Notes that a loop has turned. When all have, the server gives a sign of life.
    fn note(&self, number: usize) {
        self.set(number, Turning::Turned);
        let mut loops = self.loops();
        let lives = |one: &Turning| matches!(one, Turning::Turned | Turning::Gone);
        if self.interval().is_none() || !loops.iter().all(lives) {
            return;
        }
        for one in loops.iter_mut().filter(|one| **one == Turning::Turned) {
            *one = Turning::Owes;
        }
        drop(loops);
        self.notifier.iter().for_each(Notifier::alive);
    }
}

/// In the sequential model, a thread that watches for the shutdown does this for the loop while it
/// serves a connection.
impl Pulse for Shared {
    fn interval(&self) -> Option<Duration> {
        Some(self.notifier.as_ref()?.watchdog()? / SIGNS)
    }

    fn beat(&self) {
        self.note(0);
        self.notifier.iter().for_each(|notifier| {
            notifier.retry();
        });
    }

    fn stopping(&self) {
        if !self.is_stopping.swap(true, Ordering::SeqCst) {
            self.notifier.iter().for_each(Notifier::stopping);
        }
    }
}

impl<F: Clone> Clone for Notified<F> {
    /// Returns the factory of one more loop.
    fn clone(&self) -> Self {
        let own = self.own.as_ref();
        Self {
            factory: self.factory.clone(),
            handle: self.handle.clone(),
            own: own.map(|own| Own::new(Arc::clone(&own.shared))),
        }
    }
}

impl<F: fmt::Debug> fmt::Debug for Notified<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notified")
            .field("factory", &self.factory)
            .field("notifies", &self.notifies())
            .finish()
    }
}

impl<F: Factory> Factory for Notified<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<F::Protocol> {
        self.factory.build_protocol(peer)
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.factory.needs_stream(listener)
    }

    fn needs_loop(&self) -> bool {
        self.factory.needs_loop()
    }

    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        self.factory.trusted_proxies(listener)
    }

    fn needs_one_process(&self) -> bool {
        self.factory.needs_one_process()
    }

    fn woken(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.woken(actions);
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn started(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.started(actions);
        if let Some(own) = &mut self.own {
            own.shared.set(own.number, Turning::Turned);
            own.shared.ready_if_all_serve();
            own.plan(actions.now());
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = self.own.as_ref().and_then(|own| own.next);
        self.factory.poll_timeout().into_iter().chain(own).min()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        let now = actions.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some(own) = self.own.as_mut().filter(|own| is_due(own.next)) {
            own.beat(now);
        }
        if is_due(self.factory.poll_timeout()) {
            self.factory.handle_timeout(actions);
        }
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        if let Some(own) = &mut self.own {
            let stops = !own.has_said_stopping && own.shared.handle.requests() > 0;
            if stops {
                own.stop(actions.now());
            }
        }
        self.factory.service_actions(actions);
    }
}
