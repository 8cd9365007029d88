//! The few things that only the C library offers: the one module with unsafe code.
#![expect(
    unsafe_code,
    reason = "calls into the C library that no dependency wraps"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockAddr, SockRef, Socket};

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{FromRawFd, OwnedFd};

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

/// What poll is to wait for on one descriptor, if there is one.
pub(crate) fn wait_for(descriptor: Option<BorrowedFd<'_>>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd: descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd()),
        events,
        revents: 0,
    }
}

/// Whether something can be read from a descriptor now.
pub(crate) fn has_input(descriptor: BorrowedFd<'_>) -> bool {
    let mut waits = [wait_for(Some(descriptor), libc::POLLIN)];
    poll(&mut waits, Some(Duration::ZERO)).is_ok() && waits[0].revents != 0
}

/// The flag of every send: a peer that is gone is an error of this call alone, and never SIGPIPE,
/// which would end a process that neither ignores nor catches it.
pub(crate) const QUIETLY: libc::c_int = libc::MSG_NOSIGNAL;

/// Sends what a socket takes, as write(2) does, without SIGPIPE. A signal handler may call it.
pub(crate) fn send(socket: impl AsFd, data: &[u8]) -> io::Result<usize> {
    SockRef::from(&socket).send_with_flags(data, QUIETLY)
}

/// Sends everything by a blocking socket.
pub(crate) fn send_all(socket: impl AsFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match send(&socket, data) {
            Ok(count) => data = &data[count..],
            // Some filters of system calls interrupt each.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends what a blocking socket takes without waiting for its peer.
pub(crate) fn send_at_once(stream: &Socket, data: &[u8]) -> io::Result<usize> {
    stream.send_with_flags(data, libc::MSG_DONTWAIT | QUIETLY)
}

/// Turns an option of a socket on that is one integer.
pub(crate) fn enable(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer and the length describe one live, initialised integer.
    let outcome = unsafe {
        let (socket, on) = (socket.as_raw_fd(), (&raw const on).cast());
        libc::setsockopt(socket, level, option, on, length)
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A datagram that was received: how long it is, the length of its control messages, its sender.
pub(crate) struct Message {
    pub(crate) count: usize,
    pub(crate) control: usize,
    pub(crate) from: SockAddr,
}

/// Receives one datagram into `data`, and its control messages into `control`.
pub(crate) fn receive_message(
    socket: BorrowedFd<'_>,
    data: &mut [u8],
    control: &mut [u8],
) -> io::Result<Message> {
    let mut part = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeroes are a valid msghdr, without any part.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() as _;
    let receive = |name: *mut _, length: *mut libc::socklen_t| {
        message.msg_name = name as *mut libc::c_void;
        // SAFETY: the length is live, and says how much room the name has; data and control are
        // live and writable, and the message tells their lengths.
        let count = unsafe {
            message.msg_namelen = *length;
            let count = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
            *length = message.msg_namelen;
            count
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    };
    // SAFETY: the call wrote a name of this length, or none of length 0.
    let (count, from) = unsafe { SockAddr::try_init(receive)? };
    Ok(Message {
        count,
        control: message.msg_controllen as usize,
        from,
    })
}

/// A counter of the system's that is readable while it is not zero: a read takes all of it, a write
/// of eight bytes adds to it. Neither blocks.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes plain numbers.
    match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new, and nobody else's.
        descriptor => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
    }
}

/// Whether the system had no memory for a moment, which says nothing about the connection.
pub(crate) fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// How many bytes a stream socket holds that the other side has not taken yet; 0 if the system does
/// not tell.
pub(crate) fn unsent(descriptor: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one integer, to a live, writable one.
    let told = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if told == 0 {
        usize::try_from(count).unwrap_or(0)
    } else {
        0
    }
}

/// The signal that ends a blocking system call of another thread or process. By default it is
/// ignored, so that it does no harm where nobody waits for it.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// An interrupt came that nobody has looked at yet.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// This process is a child of a server's.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// This process is a child that was asked to end.
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// Has [`INTERRUPT`] end blocking system calls of this thread, of those that it starts, and of the
/// processes that it forks, though whoever started this process keeps the signal back.
pub(crate) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn note(_: libc::c_int) {
        note_interrupted();
    }
    catch(INTERRUPT, note)?;

    // SAFETY: all zeroes are a valid set, which is live for the calls; no former set is asked for.
    let failed = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, INTERRUPT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    match failed {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Has the system keep a child's number until it is waited for. Where SIGCHLD is ignored, as some
/// programs leave it to those that they start, the number is free for another process at once.
pub(crate) fn keep_children() -> io::Result<()> {
    let mut action = action_of(libc::SIGCHLD)?;
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    } else if action.sa_flags & libc::SA_NOCLDWAIT == 0 {
        return Ok(());
    }
    action.sa_flags &= !libc::SA_NOCLDWAIT;

    // SAFETY: the action is what the system said, with the default or the same handler.
    match unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What this process does about a signal.
fn action_of(signal: libc::c_int) -> io::Result<libc::sigaction> {
    // SAFETY: all zeroes are a valid sigaction, which is live for the call; no new one is set.
    unsafe {
        let mut action = std::mem::zeroed();
        match libc::sigaction(signal, std::ptr::null(), &raw mut action) {
            0 => Ok(action),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Notes that somebody wants to be noticed, as an interrupt does.
pub(crate) fn note_interrupted() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether an interrupt came since the last call.
pub(crate) fn take_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) && INTERRUPTED.swap(false, Ordering::SeqCst)
}

/// Has the signals that ask a process to end finish a child's one session, where the parent would
/// finish all: a terminal and a service manager send them to both.
fn catch_end_in_child() {
    extern "C" fn note(_: libc::c_int) {
        ASKED_TO_END.store(true, Ordering::SeqCst);
        note_interrupted();
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // What the parent ignores would otherwise finish its children alone.
        if action_of(signal).is_ok_and(|action| action.sa_sigaction != libc::SIG_IGN) {
            // The signals exist and can be caught; a child that cannot still is its parent's to end.
            let _ = catch(signal, note);
        }
    }
}

/// Whether this process is a child that was asked to end.
pub(crate) fn is_asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::SeqCst)
}

/// Keeps all signals back, and returns which were before.
fn block_signals() -> libc::sigset_t {
    // SAFETY: all zeroes are a valid set, and both are live for the calls, which cannot fail then.
    unsafe {
        let (mut all, mut before) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn unblock_signals(before: &libc::sigset_t) {
    // SAFETY: the set came from the system, and no former set is asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

/// `handler` must do nothing but what is safe in a signal handler.
fn catch(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: all zeroes are a valid sigaction: no flags, so that calls are not restarted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the action is initialised, and its handler only stores to atomics.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A thread while it does what others may interrupt.
#[derive(Debug, Default)]
pub(crate) struct Interruptible {
    /// As a number, since some systems have a pointer for it, which could not be shared.
    thread: Mutex<Option<usize>>,
}

impl Interruptible {
    /// Does `work`, during which this thread can be interrupted.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: pthread_self has no arguments and cannot fail.
        *self.thread() = Some(unsafe { libc::pthread_self() } as usize);
        let _over = Over(self);
        work()
    }

    /// Ends the blocking system call that the thread is in, if it is in one.
    pub(crate) fn interrupt(&self) {
        if let Some(thread) = *self.thread() {
            // SAFETY: the thread is still inside `run`, which waits for this lock before it returns.
            unsafe { libc::pthread_kill(thread as libc::pthread_t, INTERRUPT) };
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<usize>> {
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
        let before = block_signals();
        // SAFETY: this is the only thread, so the child can go on like any process.
        let outcome = match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // Before that a signal would be handled as the parent handles it, on what they share.
                catch_end_in_child();
                IS_CHILD.store(true, Ordering::SeqCst);
                Ok(None)
            }
            pid => Ok(Some(Self(pid))),
        };
        unblock_signals(&before);
        outcome
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

    /// Whether it has ended, by itself or by a signal. Not to be called again after it has.
    pub(crate) fn has_ended(&self) -> bool {
        // SAFETY: no status is asked for, and the number is our child's until it is waited for.
        match unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => false,
            -1 => io::Error::last_os_error().kind() != io::ErrorKind::Interrupted,
            _ => true,
        }
    }

    /// Waits for its end, however long that takes. Not to be called after it has ended.
    pub(crate) fn wait(&self) {
        loop {
            // SAFETY: no status is asked for, and the number is our child's until it is waited for.
            let waited = unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
            let interrupted = || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if waited != -1 || !interrupted() {
                return;
            }
        }
    }
}

/// Whether a server forked this process off to serve one connection.
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::SeqCst)
}

/// Ends this process at once: no destructor runs, which would undo what the parent still uses.
pub(crate) fn exit(status: libc::c_int) -> ! {
    // SAFETY: _exit takes a plain number and does not return.
    unsafe { libc::_exit(status) }
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
