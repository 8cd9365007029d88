//! How a server is told to stop, from anywhere.

use std::fmt;
use std::io;
use std::mem;
use std::net::Shutdown as End;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Tick;
use crate::system;

/// Stops a server: from another thread, from inside a protocol, or from a signal handler.
///
/// The first request drains: nothing more is accepted, each session is asked to finish, and what is
/// still open at `drain_timeout` is ended. The second request ends everything at once. Requests are
/// noticed immediately; they work before the server runs and do nothing after it has ended.
///
/// A process that was forked off, by [`serve_forking`](crate::Server::serve_forking) for example,
/// shares the handle but not its count: the requests of all children together are one request to
/// their parent.
///
/// Ctrl-C and SIGTERM, with the crate `signal-hook`:
///
/// ```no_run
/// use serveloop::{Config, Peer, Server, protocols::Echo};
/// use signal_hook::{consts::{SIGINT, SIGTERM}, iterator::Signals};
///
/// let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
/// let handle = server.shutdown_handle();
/// let mut signals = Signals::new([SIGINT, SIGTERM])?;
/// std::thread::spawn(move || signals.forever().for_each(|_| handle.shutdown()));
/// server.serve_forever(|_: &Peer| Some(Echo))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ShutdownHandle {
    shared: Arc<Shared>,
}

struct Shared {
    requests: AtomicUsize,
    /// Rung by a byte that nobody takes out, so that every loop and process that watches wakes up.
    bell: UnixStream,
    watched: UnixStream,
}

impl ShutdownHandle {
    /// A handle for a loop of one's own; see [`Reactor::obey`](crate::Reactor::obey).
    ///
    /// # Errors
    /// When the process has no two descriptors left.
    pub fn new() -> io::Result<Self> {
        let (bell, watched) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        watched.set_nonblocking(true)?;
        let requests = AtomicUsize::new(0);
        Ok(Self {
            shared: Arc::new(Shared {
                requests,
                bell,
                watched,
            }),
        })
    }

    /// Requests the shutdown. Does not block, allocate or lock: a signal handler may call it.
    pub fn shutdown(&self) {
        self.shared.requests.fetch_add(1, Ordering::SeqCst);
        let rung = system::send(&self.shared.bell, &[0]);
        // A full bell has been rung already. Where the system has no room for a byte, the end of the
        // stream, which needs none, is heard as well; nobody can hear a bell whose listener is gone.
        if rung.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            let _ = self.shared.bell.shutdown(End::Write);
        }
    }

    /// Whether it was requested, by this process, of it, or by the one that forked it.
    pub(crate) fn is_rung(&self) -> bool {
        let asked = self.requests() > 0 || system::is_asked_to_end();
        asked || system::has_input(self.shared.watched.as_fd())
    }

    /// How often it was requested.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl AsFd for ShutdownHandle {
    /// A descriptor that becomes readable with the first request and stays so. Not to be read.
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

/// How far a loop's shutdown has come.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    handle: Option<ShutdownHandle>,
    /// Requests that did not come by the handle.
    requests: usize,
    /// A child's requests have been counted among them, as one.
    rung_by_child: bool,
    /// How many requests were acted on: the first begins, the others end.
    acted_on: usize,
    /// When what is still open is ended, if it was not yet.
    deadline: Option<Tick>,
}

impl Shutdown {
    /// Listens to a handle too.
    pub(crate) fn obey(&mut self, handle: ShutdownHandle) {
        self.handle = Some(handle);
    }

    pub(crate) fn request(&mut self) {
        self.requests += 1;
    }

    /// The handle's bell was rung. Who rings in this process has counted before, so that otherwise it
    /// was a child, whose count is in its own memory; the first such ring is a request.
    pub(crate) fn note_rung(&mut self) {
        let counted = self.handle.as_ref().map_or(0, ShutdownHandle::requests);
        if counted == 0 && !mem::replace(&mut self.rung_by_child, true) {
            self.request();
        }
    }

    /// Whether there is a request that has not been acted on: to begin, or to end at once.
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

    /// A further request was acted on.
    pub(crate) fn note_end(&mut self) {
        self.acted_on += 1;
    }

    /// Whether the deadline has come, once.
    pub(crate) fn expire(&mut self, now: Tick) -> bool {
        self.deadline.take_if(|at| *at <= now).is_some()
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.deadline
    }
}
