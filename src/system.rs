//! The few things that only the C library offers: the one module with unsafe code.
#![expect(
    unsafe_code,
    reason = "calls into the C library that no dependency wraps"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The soft and the hard limit of descriptors of this process.
pub(crate) fn descriptor_limits() -> io::Result<libc::rlimit> {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live, writable rlimit.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) } {
        0 => Ok(limits),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of descriptors to the hard limit.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let mut limits = descriptor_limits()?;
    if limits.rlim_cur == limits.rlim_max {
        return Ok(());
    }
    limits.rlim_cur = limits.rlim_max;
    // SAFETY: the pointer is to a live, initialised rlimit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user whose permissions count for this process.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Waits until one of the descriptors has something to tell, at most for `timeout` (rounded up to
/// a millisecond). A signal ends the wait with `Interrupted`.
pub(crate) fn poll(waits: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let millis = timeout.map_or(-1, |timeout| {
        let rounded = timeout.saturating_add(Duration::from_nanos(999_999));
        libc::c_int::try_from(rounded.as_millis()).unwrap_or(libc::c_int::MAX)
    });
    let count = waits.len() as libc::nfds_t;
    // SAFETY: the pointer and the count describe one live, writable slice.
    match unsafe { libc::poll(waits.as_mut_ptr(), count, millis) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What poll is to wait for on one descriptor.
pub(crate) fn wait_for_input(descriptor: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }
}

/// Whether something can be read from a descriptor now.
pub(crate) fn has_input(descriptor: BorrowedFd<'_>) -> bool {
    let mut waits = [wait_for_input(descriptor)];
    poll(&mut waits, Some(Duration::ZERO)).is_ok() && waits[0].revents != 0
}

/// The signal that ends a blocking system call of another thread or process. By default it is
/// ignored, so that it does no harm where nobody waits for it.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// Has [`INTERRUPT`] end blocking system calls of this process and of those that it forks.
pub(crate) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeroes are a valid sigaction: no flags, so that calls are not restarted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the action is initialised, and its handler does nothing, which is safe in a handler.
    match unsafe { libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A thread while it does what others may interrupt.
#[derive(Debug, Default)]
pub(crate) struct Interruptible {
    thread: Mutex<Option<libc::pthread_t>>,
}

impl Interruptible {
    /// Does `work`, during which this thread can be interrupted.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: pthread_self has no arguments and cannot fail.
        *self.thread() = Some(unsafe { libc::pthread_self() });
        let _over = Over(self);
        work()
    }

    /// Ends the blocking system call that the thread is in, if it is in one.
    pub(crate) fn interrupt(&self) {
        if let Some(thread) = *self.thread() {
            // SAFETY: the thread is still inside `run`, which waits for this lock before it returns.
            unsafe { libc::pthread_kill(thread, INTERRUPT) };
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<libc::pthread_t>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Over<'a>(&'a Interruptible);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.thread() = None;
    }
}

/// A child process that is not waited for yet, so that its number is not another's.
#[derive(Debug)]
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Forks. `None` in the child, which has to end by [`exit`].
    ///
    /// # Errors
    /// More than one thread runs: the child would have the locks that others hold and nobody to
    /// release them. Or the system has no room for another process.
    pub(crate) fn fork() -> io::Result<Option<Self>> {
        check_single_thread()?;
        // SAFETY: this is the only thread, so the child can go on like any process.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(None),
            pid => Ok(Some(Self(pid))),
        }
    }

    pub(crate) fn interrupt(&self) {
        self.signal(INTERRUPT);
    }

    pub(crate) fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes plain numbers; the number is our child's until it is waited for.
        unsafe { libc::kill(self.0, signal) };
    }

    /// Its exit status, if it has ended: `Some(None)` if a signal ended it. Not to be called again
    /// after it gave one.
    pub(crate) fn try_wait(&self) -> Option<Option<libc::c_int>> {
        let mut status = 0;
        // SAFETY: the pointer is to a live, writable integer.
        match unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } {
            0 => None,
            pid if pid == self.0 && libc::WIFEXITED(status) => {
                Some(Some(libc::WEXITSTATUS(status)))
            }
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => None,
            _ => Some(None),
        }
    }
}

/// Undoes in a child process what its parent does with the signals that end a process.
pub(crate) fn default_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the default action is always valid.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ends this process at once: no destructor runs, which would undo what the parent still uses.
pub(crate) fn exit(status: libc::c_int) -> ! {
    // SAFETY: _exit takes a plain number and does not return.
    unsafe { libc::_exit(status) }
}

/// Closes a descriptor of the parent in a child process that will end by [`exit`].
pub(crate) fn close_inherited(descriptor: RawFd) {
    // SAFETY: what owns the descriptor is the parent's; nothing in this process uses it any more.
    unsafe { libc::close(descriptor) };
}

/// Checks that nobody else runs in this process, where the system tells.
pub(crate) fn check_single_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(threads) if threads > 1 => Err(io::Error::other(format!(
            "a process with {threads} threads cannot be forked safely"
        ))),
        _ => Ok(()),
    }
}
