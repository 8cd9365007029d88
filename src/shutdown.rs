//! Requests to stop a server, from anywhere, and how far a loop's shutdown has come.

use std::io::Read;
use std::net::Shutdown as End;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use crate::session::Tick;
use crate::sys;
use crate::waker::sync::{AtomicU64, AtomicUsize, Ordering};

/// Signals within this many milliseconds of the first count as the same request.
const SIGNALS_TOGETHER: u64 = 500;

/// Stops a server: from another thread, from inside a protocol, or from a signal handler.
///
/// The first request drains the server: no further connections are accepted, each session is asked
/// to finish, and connections that are still open at `drain_timeout` are ended. The second request
/// ends everything at once. Signals are easily sent twice; use
/// [`shutdown_by_signal`](Self::shutdown_by_signal) for them. Requests are noticed immediately.
/// They work before the server runs, and do nothing after it has ended.
///
/// A forked process, for example one of [`serve_forking`](crate::Server::serve_forking), shares the
/// handle but not its count. The requests of all children together are one request to their parent.
///
/// To shut down on Ctrl-C and SIGTERM, use the crate `signal-hook`:
///
/// ```no_run
/// use serveloop::{Config, Peer, Server, protocols::Echo};
/// use signal_hook::{consts::{SIGINT, SIGTERM}, iterator::Signals};
///
/// let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
/// let handle = server.shutdown_handle();
/// let mut signals = Signals::new([SIGINT, SIGTERM])?;
/// std::thread::spawn(move || signals.forever().for_each(|_| handle.shutdown_by_signal()));
/// server.serve_forever(|_| Some(Echo))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ShutdownHandle {
    shared: Arc<Shared>,
}

struct Shared {
    requests: AtomicUsize,
    open: Open,
    /// Whom a thread that watches for the shutdown tells that the server lives.
    pulse: OnceLock<Weak<dyn Pulse>>,
    made: Instant,
    /// When the first signal came, in milliseconds since `made` plus one. 0 means that none has
    /// come.
    first_signal: AtomicU64,
    /// Rung by a byte that is never read, so that every loop and process that watches wakes up. The
    /// other direction carries the bytes of [`ShutdownHandle::wake`], which are read.
    bell: UnixStream,
    watched: UnixStream,
}

impl ShutdownHandle {
    /// Creates a handle for a loop that you run yourself; see
    /// [`Reactor::obey`](crate::Reactor::obey).
    ///
    /// # Errors
    /// Returns an error if the process does not have two free descriptors.
    pub fn new() -> io::Result<Self> {
        let (bell, watched) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        watched.set_nonblocking(true)?;

        let requests = AtomicUsize::new(0);
        Ok(Self {
            shared: Arc::new(Shared {
                requests,
                open: Open::default(),
                pulse: OnceLock::new(),
                made: Instant::now(),
                first_signal: AtomicU64::new(0),
                bell,
                watched,
            }),
        })
    }

    /// Requests a shutdown. Does not block, allocate or lock, so a signal handler may call it.
    pub fn shutdown(&self) {
        self.shared.requests.fetch_add(1, Ordering::SeqCst);
        let rung = sys::send(&self.shared.bell, &[0]);
        // A full bell has been rung already. If the system has no room for a byte, ending the
        // stream needs none and wakes the listeners too. If the listener is gone, there is nothing
        // left to wake.
        if rung.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            let _ = self.shared.bell.shutdown(End::Write);
        }
    }

    /// Ends everything at once: accepts no further connections, resets open ones, and drops output
    /// that they are owed. Like [`shutdown`](Self::shutdown), it may be called from a signal
    /// handler.
    ///
    /// ```
    /// use serveloop::{Config, Server, protocols::Echo};
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// server.shutdown_handle().abort();
    /// server.serve_forever(|_| Some(Echo))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(&self) {
        // The first request begins the shutdown, and the second one ends it.
        if self.shared.requests.fetch_max(1, Ordering::SeqCst) < 2 {
            self.shutdown();
        }
    }

    /// Requests a shutdown on behalf of a signal.
    ///
    /// Wrappers, process groups and `timeout` often deliver a signal twice within milliseconds,
    /// which must not cut the drain short. Calls within half a second of the first count as one
    /// request; a later call ends everything at once. Like [`shutdown`](Self::shutdown), this may
    /// be called from a signal handler.
    ///
    /// ```
    /// let handle = serveloop::ShutdownHandle::new()?;
    /// handle.shutdown_by_signal();
    /// handle.shutdown_by_signal();
    /// assert_eq!(handle.requests(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown_by_signal(&self) {
        let now = u64::try_from(self.shared.made.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        let first = &self.shared.first_signal;
        // Zero means that no signal has come yet.
        match first.compare_exchange(0, now + 1, Ordering::SeqCst, Ordering::SeqCst) {
            Err(before) if is_together(now + 1, before) => {}
            _ => self.shutdown(),
        }
    }

    /// Ends the current wait of a loop that obeys this handle, or its next one, without a shutdown:
    /// the loop runs a turn, and calls its factory's
    /// [`service_actions`](crate::Factory::service_actions). Of several loops at least one does.
    /// Several calls may result in one turn. A call before the loop runs is kept for it. Only loops
    /// on [`Mio`](crate::net::Mio) notice it.
    ///
    /// Like [`shutdown`](Self::shutdown), it may be called from a signal handler: set a flag there,
    /// then wake the loop, and look at the flag in `service_actions`. A loop that does not return to
    /// its wait, such as that of [`serve_sequential`](crate::Server::serve_sequential) while it
    /// serves a connection, notices it later.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// use serveloop::{Actions, Config, Factory, Peer, Server, protocols::Echo};
    ///
    /// /// Ends the server when the flag is set. A real server would read its configuration again.
    /// struct Flagged(Arc<AtomicBool>);
    ///
    /// impl Factory for Flagged {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         if self.0.load(Ordering::SeqCst) {
    ///             actions.shutdown();
    ///         }
    ///     }
    /// }
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// let handle = server.shutdown_handle();
    /// let flag = Arc::new(AtomicBool::new(false));
    /// let set = Arc::clone(&flag);
    ///
    /// std::thread::spawn(move || {
    ///     set.store(true, Ordering::SeqCst);
    ///     handle.wake();
    /// });
    /// server.with(Flagged(flag)).serve_forever()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wake(&self) {
        // A full buffer ends the wait as well as another byte would.
        let _ = sys::send(&self.shared.watched, &[0]);
    }

    /// Returns a descriptor that is readable while a call of [`wake`](Self::wake) is pending.
    pub(crate) fn wakes(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// Reads all that [`wake`](Self::wake) has written.
    fn take_wakes(&self) {
        let mut room = [0; 64];
        while (&self.shared.bell)
            .read(&mut room)
            .is_ok_and(|count| count > 0)
        {}
    }

    /// Returns whether a shutdown was requested: by this process, of this process, or by the
    /// process that forked it.
    pub(crate) fn is_rung(&self) -> bool {
        self.requests() > 0 || sys::is_asked_to_end() || self.has_byte()
    }

    /// Returns whether this process or one that shares the handle has rung the bell.
    fn has_byte(&self) -> bool {
        sys::has_input(self.shared.watched.as_fd())
    }

    /// Sets whom to tell that the server lives. Only the first call counts.
    pub(crate) fn set_pulse(&self, pulse: Weak<dyn Pulse>) {
        let _ = self.shared.pulse.set(pulse);
    }

    /// Returns whom to tell that the server lives, if anybody wants to know.
    pub(crate) fn pulse(&self) -> Option<Arc<dyn Pulse>> {
        self.shared.pulse.get()?.upgrade()
    }

    /// Returns how many requests were made.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

/// Returns whether a signal counts as the same request as the first one. A handler that is
/// interrupted by another after reading the clock comes second, but with the earlier time.
fn is_together(now: u64, first: u64) -> bool {
    now.saturating_sub(first) < SIGNALS_TOGETHER
}

/// What is told how a server is, by a thread of its own while the server's thread is busy with one
/// connection.
pub(crate) trait Pulse: Send + Sync {
    /// Returns how often it wants to know that the server lives, if it does.
    fn interval(&self) -> Option<Duration>;

    /// Notes that the server's thread waits for its client, or has done so since the last time.
    fn beat(&self);

    /// Notes that the shutdown begins.
    fn stopping(&self);
}

impl AsFd for ShutdownHandle {
    /// Returns a descriptor that becomes readable with the first request and stays readable. Do not
    /// read from it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.watched.as_fd()
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownHandle")
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}

/// How many connections the loops of one server have open when its shutdown begins, for one line in
/// the log.
#[derive(Default)]
struct Open {
    /// How many loops obey the handle, and how many of these have begun to shut down.
    loops: AtomicUsize,
    begun: AtomicUsize,
    connections: AtomicUsize,
}

/// The progress of a loop's shutdown.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    handle: Option<ShutdownHandle>,
    /// Whether the loop's connections are among those that the handle counts.
    counted: bool,
    /// Requests that did not come through the handle.
    requests: usize,
    /// Whether the requests of children have been added to `requests`, as one.
    rung_by_child: bool,
    /// How many requests were acted on. The first begins the shutdown, and later ones end it.
    acted_on: usize,
    /// When the connections that are still open are ended, unless that has happened already.
    deadline: Option<Tick>,
}

impl Shutdown {
    /// Makes the loop obey a handle too.
    pub(crate) fn obey(&mut self, handle: ShutdownHandle) {
        handle.shared.open.loops.fetch_add(1, Ordering::SeqCst);
        self.leave();
        self.handle = Some(handle);
    }

    /// Makes the loop stop obeying its handle, unless it has begun to shut down.
    fn leave(&mut self) {
        if let Some(handle) = self.handle.take().filter(|_| !self.counted) {
            handle.shared.open.loops.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Adds the number of connections that this loop has open when its shutdown begins. Returns the
    /// total of all loops of the handle to the last loop that begins, and `None` to the others. If
    /// this loop alone was asked to end, returns its own number.
    pub(crate) fn count_open(&mut self, connections: usize) -> Option<usize> {
        let asked = |handle: &&ShutdownHandle| handle.requests() > 0;
        let Some(handle) = self.handle.as_ref().filter(asked) else {
            return Some(connections);
        };

        self.counted = true;
        let open = &handle.shared.open;
        open.connections.fetch_add(connections, Ordering::SeqCst);
        let begun = open.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let last = begun >= open.loops.load(Ordering::SeqCst);
        last.then(|| open.connections.load(Ordering::SeqCst))
    }

    /// Asks only this loop to end.
    pub(crate) fn request(&mut self) {
        self.requests += 1;
    }

    /// Asks every loop of the server to end.
    pub(crate) fn request_all(&mut self) {
        match &self.handle {
            Some(handle) => handle.shutdown(),
            None => self.request(),
        }
    }

    /// Notes that the handle's bell was rung, or that the handle was woken. A caller in this process
    /// increases the count before it rings. If the count is 0, a child rang, whose count is in its
    /// own memory. The first such ring is a request.
    pub(crate) fn note_rung(&mut self) {
        let Some(handle) = &self.handle else {
            return;
        };

        handle.take_wakes();
        let by_child = handle.requests() == 0 && handle.has_byte();
        if by_child && !mem::replace(&mut self.rung_by_child, true) {
            self.request();
        }
    }

    /// Returns whether a request has not been acted on yet, either to begin or to end at once.
    pub(crate) fn is_requested(&self) -> bool {
        let requests = self.requests + self.handle.as_ref().map_or(0, ShutdownHandle::requests);
        requests > self.acted_on
    }

    pub(crate) fn begin(&mut self, deadline: Option<Tick>) {
        self.acted_on = 1;
        self.deadline = deadline;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.acted_on > 0
    }

    /// Notes that a further request was acted on.
    pub(crate) fn note_end(&mut self) {
        self.acted_on += 1;
    }

    /// Returns whether the deadline has passed, and is true only once.
    pub(crate) fn expire(&mut self, now: Tick) -> bool {
        self.deadline.take_if(|at| *at <= now).is_some()
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.deadline
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_last_of_several_loops_says_what_is_open_in_all() {
        let handle = ShutdownHandle::new().unwrap();
        let obeying = || {
            let mut shutdown = Shutdown::default();
            shutdown.obey(handle.clone());
            shutdown
        };
        let [mut first, mut second, mut third] = [(); 3].map(|()| obeying());

        drop(obeying());
        // A loop that ends alone counts only its own connections.
        assert_eq!(obeying().count_open(9), Some(9));

        handle.shutdown();
        assert_eq!(first.count_open(4), None);
        drop(first);
        assert_eq!(second.count_open(2), None);
        assert_eq!(third.count_open(1), Some(7));
    }

    #[test]
    fn signals_that_come_together_are_one_request() {
        let handle = ShutdownHandle::new().unwrap();
        for _ in 0..5 {
            handle.shutdown_by_signal();
        }
        assert_eq!(handle.requests(), 1);
        thread::sleep(Duration::from_millis(SIGNALS_TOGETHER));
        handle.shutdown_by_signal();
        handle.shutdown_by_signal();
        assert_eq!(handle.requests(), 3);
    }

    #[test]
    fn a_signal_that_read_the_clock_before_the_first_did_is_one_with_it() {
        assert!(is_together(7, 8));
        assert!(is_together(8, 8));
        assert!(!is_together(8 + SIGNALS_TOGETHER, 8));
    }

    /// A call from code, unlike a signal, is never merged with another.
    #[test]
    fn other_requests_are_counted_each() {
        let handle = ShutdownHandle::new().unwrap();
        handle.shutdown();
        handle.shutdown_by_signal();
        assert_eq!(handle.requests(), 2);
    }
}
