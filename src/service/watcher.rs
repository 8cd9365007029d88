//! Descriptors of others: timers, pipes, what tells of changed files.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use crate::LOG_TARGET;
use crate::session::catch;
use crate::sys;
use crate::waker::Wake;
use crate::waker::sync::{AtomicBool, Mutex, Ordering, lock};

/// Ends the thread's wait. No descriptor has this number.
const END: Token = Token(usize::MAX);

/// The most descriptors that the thread hears of at a time. The others follow at once.
const EVENTS_MOST: usize = 64;

/// Watches descriptors that the server knows nothing of, such as a timer, a pipe, inotify or the socket of
/// another library, and wakes a connection or a factory when one becomes readable.
///
/// One thread watches them all, and does nothing else. So a watcher is the same in every model, and costs a
/// loop nothing. Where each connection has a process of its own, only the parent can watch: a factory's
/// waker works, and [`watch`](Self::watch) fails in the child. The thread ends with the last clone and the
/// last [`Watch`].
///
/// ```
/// use serveloop::service::{Watch, Watcher};
/// use serveloop::{Actions, Config, Factory, Peer, Server, protocols::Echo};
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// /// Ends the server when a byte comes from somewhere else.
/// struct Controlled {
///     watcher: Watcher,
///     control: UnixStream,
///     watch: Option<Watch>,
/// }
///
/// impl Factory for Controlled {
///     type Protocol = Echo;
///
///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
///         Some(Echo)
///     }
///
///     fn started(&mut self, actions: &mut Actions<'_, Echo>) {
///         let watch = self.watcher.watch(&self.control, actions.waker());
///         self.watch = Some(watch.expect("a descriptor that can be watched"));
///     }
///
///     fn woken(&mut self, actions: &mut Actions<'_, Echo>) {
///         // Readable until a read says `WouldBlock`; only then is there another wake.
///         while let Ok(1) = self.control.read(&mut [0]) {
///             actions.shutdown();
///         }
///     }
/// }
///
/// let (mut other, control) = UnixStream::pair()?;
/// control.set_nonblocking(true)?;
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// other.write_all(b"!")?;
/// let watcher = Watcher::new()?;
/// server.with(Controlled { watcher, control, watch: None }).serve_forever()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Watcher {
    thread: Arc<Thread>,
}

type Targets = Mutex<Slab<Arc<dyn Wake>>>;

/// The thread, as its users know it.
struct Thread {
    registry: Registry,
    targets: Arc<Targets>,
    waker: ::mio::Waker,
    ends: Arc<AtomicBool>,
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the system has no thread or no descriptor for it.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let thread = Thread {
            registry: poll.registry().try_clone()?,
            targets: Arc::default(),
            waker: ::mio::Waker::new(poll.registry(), END)?,
            ends: Arc::default(),
        };

        let (targets, ends) = (Arc::clone(&thread.targets), Arc::clone(&thread.ends));
        thread::Builder::new()
            .name("serveloop-watch".to_owned())
            .spawn(move || watch_all(poll, &targets, &ends))?;
        Ok(Self {
            thread: Arc::new(thread),
        })
    }

    /// Uses `waker` when `source` has become readable, or was closed by its other side, from now until the
    /// [`Watch`] is dropped: the waker of a connection ([`Transport::waker`](crate::Transport::waker)), of
    /// a factory ([`Actions::waker`](crate::Actions::waker)), or any function.
    ///
    /// The next wake comes when more has come after a read that returned `WouldBlock`, so the source should
    /// not block. It may also be woken without a cause. The source itself stays the caller's, and can be
    /// dropped before the watch.
    ///
    /// # Errors
    /// Fails for what cannot be watched, such as a file on a disk, which is always readable; if the process
    /// has no descriptor left; and in the process of a single connection.
    pub fn watch(&self, source: &impl AsFd, waker: impl Wake + 'static) -> io::Result<Watch> {
        if sys::is_child() {
            let problem = "the process of a single connection cannot watch descriptors";
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }

        // A descriptor of its own, because the caller's may be closed at any time.
        let descriptor = source.as_fd().try_clone_to_owned()?;
        let key = lock(&self.thread.targets).insert(Arc::new(waker));
        let watch = Watch {
            thread: Arc::clone(&self.thread),
            descriptor,
            key,
        };
        self.thread.registry.register(
            &mut SourceFd(&watch.descriptor.as_raw_fd()),
            Token(key),
            Interest::READABLE,
        )?;
        Ok(watch)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!(target: LOG_TARGET, "cannot end the thread that watches descriptors: {error}");
        }
    }
}

/// The thread: wakes whoever asked for what has become readable.
fn watch_all(mut poll: Poll, targets: &Targets, ends: &AtomicBool) {
    let mut events = Events::with_capacity(EVENTS_MOST);
    while !ends.load(Ordering::Acquire) {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::error!(target: LOG_TARGET, "descriptors are no longer watched: {error}");
                return;
            }
            Ok(()) => {}
        }

        for event in &events {
            // Not called with the lock held: a waker may drop a watch.
            let target = lock(targets).get(event.token().0).cloned();
            let Some(target) = target else {
                continue;
            };
            if catch(|| target.wake()).is_none() {
                log::error!(target: LOG_TARGET, "the waker of a watched descriptor panicked");
            }
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("watched", &lock(&self.thread.targets).len())
            .finish_non_exhaustive()
    }
}

/// A descriptor that is watched: see [`Watcher::watch`]. Dropping it ends that: its waker is not used from
/// the next event on.
///
/// ```
/// use serveloop::service::Watcher;
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// use std::sync::mpsc::channel;
///
/// let (mut other, source) = UnixStream::pair()?;
/// let (sender, woken) = channel();
/// let watch = Watcher::new()?.watch(&source, move || sender.send(()).unwrap_or_default())?;
/// other.write_all(b"!")?;
/// woken.recv()?;
///
/// drop(watch);
/// assert!(woken.recv().is_err(), "the function is gone");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the watch"]
pub struct Watch {
    thread: Arc<Thread>,
    descriptor: OwnedFd,
    key: usize,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let descriptor = self.descriptor.as_raw_fd();
        let source = &mut SourceFd(&descriptor);
        // If this fails, it was not registered.
        let _ = self.thread.registry.deregister(source);
        let target = lock(&self.thread.targets).try_remove(self.key);
        drop(target);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}
