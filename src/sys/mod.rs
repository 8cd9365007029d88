//! Calls into the C library that no dependency offers. This is the one room with unsafe code.
#![expect(
    unsafe_code,
    reason = "calls into the C library that no dependency wraps"
)]

pub(crate) mod bytes;
mod descriptors;
mod groups;
mod interruptible;
mod passed;
mod socket_file;

pub(crate) use self::descriptors::{DescriptorLimit, Explained, spare_descriptors};
pub(crate) use self::groups::{
    interface_number, interface_with, join_source, only_own_groups, send_by,
};
pub(crate) use self::interruptible::{INTERRUPT_AGAIN, INTERRUPTS_MOST, Interruptible};
pub(crate) use self::passed::{
    copy_descriptor, is_listening, monotonic_micros, monotonic_nanos, remove_variables,
    take_descriptor,
};
pub(crate) use self::socket_file::{bind_as, group_number};

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{SockAddr, SockRef, Socket};

use crate::address::Credentials;

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{FromRawFd, OwnedFd};

/// Returns the soft and the hard limit on this process's descriptors.
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

/// Raises the soft limit on descriptors to the hard limit.
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

/// Returns the effective user of this process, whose permissions count.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Waits until one of the descriptors is ready, for up to `timeout`, rounded up to a millisecond. A
/// signal ends the wait with `Interrupted`.
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

/// Describes what poll(2) is to wait for on one descriptor. Without a descriptor the entry is
/// ignored.
pub(crate) fn wait_for(descriptor: Option<BorrowedFd<'_>>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd: descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd()),
        events,
        revents: 0,
    }
}

/// Returns whether something can be read from a descriptor now.
pub(crate) fn has_input(descriptor: BorrowedFd<'_>) -> bool {
    let mut waits = [wait_for(Some(descriptor), libc::POLLIN)];
    poll(&mut waits, Some(Duration::ZERO)).is_ok() && waits[0].revents != 0
}

/// Makes the allocator give the system what it keeps for later, also between blocks that are in use.
/// Allocators other than glibc's do it by themselves, or not at all.
pub(crate) fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a plain number, and touches only what is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The flag for every send. A write to a peer that is gone fails with an error, and never raises
/// SIGPIPE, which would end a process that neither ignores nor catches it.
pub(crate) const QUIETLY: libc::c_int = libc::MSG_NOSIGNAL;

/// Sends as much as a socket takes, like write(2), but without SIGPIPE. A signal handler may call
/// it.
pub(crate) fn send(socket: impl AsFd, data: &[u8]) -> io::Result<usize> {
    SockRef::from(&socket).send_with_flags(data, QUIETLY)
}

/// Sends everything through a blocking socket.
pub(crate) fn send_all(socket: impl AsFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match send(&socket, data) {
            Ok(count) => data = &data[count..],
            // Some system call filters interrupt every call; do not keep the processor busy.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends as much as a blocking socket takes without waiting for its peer.
pub(crate) fn send_at_once(stream: &Socket, data: &[u8]) -> io::Result<usize> {
    stream.send_with_flags(data, libc::MSG_DONTWAIT | QUIETLY)
}

/// Receives what a blocking socket has, and fails with `WouldBlock` if that is nothing.
pub(crate) fn receive_at_once(stream: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe one live, writable slice.
    let received = unsafe {
        let (socket, room) = (stream.as_raw_fd(), buffer.as_mut_ptr().cast());
        libc::recv(socket, room, buffer.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Turns on a socket option that is one integer.
pub(crate) fn enable(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, level, option, &on)
}

/// Sets a socket option to a value that is all plain numbers.
fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the pointer and the length describe one live, initialised value.
    let outcome = unsafe {
        let (socket, value) = (socket.as_raw_fd(), ptr::from_ref(value).cast());
        libc::setsockopt(socket, level, option, value, length)
    };

    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A received datagram: its length, the length of its control messages, and its sender.
pub(crate) struct Message {
    pub(crate) count: usize,
    pub(crate) control: usize,
    pub(crate) from: SockAddr,
}

/// Receives one datagram into `data`, and its control messages into `control`, as `flags` say.
pub(crate) fn receive_message(
    socket: BorrowedFd<'_>,
    data: &mut [u8],
    control: &mut [u8],
    flags: libc::c_int,
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
        // SAFETY: the length is live and gives the size of the name; data and control are live and
        // writable, and the message holds their lengths.
        let count = unsafe {
            message.msg_namelen = *length;
            let count = libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags);
            *length = message.msg_namelen;
            count
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    };

    // SAFETY: the call wrote a name of this length, or none and the length 0.
    let (count, from) = unsafe { SockAddr::try_init(receive)? };
    Ok(Message {
        count,
        control: message.msg_controllen as usize,
        from,
    })
}

/// Creates a counter in the system that is readable while it is not zero. A read takes all of it,
/// and a write of eight bytes adds to it. Neither blocks.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes plain numbers.
    match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new, and nothing else owns it.
        descriptor => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
    }
}

/// Returns whether the system had no memory for a moment, which is not the connection's fault.
pub(crate) fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Returns how many bytes a stream socket holds that the other side has not taken yet, or 0 if the
/// system does not tell.
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

/// Returns the local address of a socket. A number that is not a socket's is an error.
pub(crate) fn local_address(socket: RawFd) -> io::Result<SockAddr> {
    // SAFETY: getsockname writes an address of at most the given length, and its length.
    let told = unsafe {
        SockAddr::try_init(|storage, length| {
            match libc::getsockname(socket, storage.cast(), length) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    };
    told.map(|((), address)| address)
}

/// Returns who is at the other end of a Unix stream.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn peer_credentials(socket: RawFd) -> io::Result<Credentials> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to a live, writable ucred and its length.
    let told = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if told != 0 {
        return Err(io::Error::last_os_error());
    }
    // A process that cannot be seen from here has the number 0.
    let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid != 0);
    Ok(Credentials::new(peer.uid, peer.gid, pid))
}

/// Returns who is at the other end of a Unix stream.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn peer_credentials(socket: RawFd) -> io::Result<Credentials> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the pointers are to live, writable numbers.
    match unsafe { libc::getpeereid(socket, &raw mut uid, &raw mut gid) } {
        0 => Ok(Credentials::new(uid, gid, None)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The signal that interrupts a blocking system call of another thread or process. It is ignored by
/// default, so it does no harm where no call is waiting for it.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// Whether an interrupt came that has not been looked at yet.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether this process is a child of a server process.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process is a child that was asked to end.
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// Lets [`INTERRUPT`] end blocking system calls of this thread, of the threads it starts, and of
/// the processes it forks, even if the process was started with the signal blocked.
pub(crate) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn note(_: libc::c_int) {
        note_interrupted();
    }
    catch(INTERRUPT, note)?;

    // SAFETY: all zeroes are a valid set, which is live for the calls; the former set is not
    // requested.
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

/// Makes the system reserve a child's process id until it is waited for. Where SIGCHLD is ignored,
/// which some programs pass on to what they start, another process may get the id at once.
pub(crate) fn keep_children() -> io::Result<()> {
    let mut action = action_of(libc::SIGCHLD)?;
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    } else if action.sa_flags & libc::SA_NOCLDWAIT == 0 {
        return Ok(());
    }
    action.sa_flags &= !libc::SA_NOCLDWAIT;

    // SAFETY: the action came from the system, with the default or the same handler.
    match unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns what this process does about a signal.
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

/// Records an interrupt, as the signal does.
pub(crate) fn note_interrupted() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Returns whether an interrupt came since the last call.
pub(crate) fn take_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) && INTERRUPTED.swap(false, Ordering::SeqCst)
}

/// Makes the signals that ask a process to end finish only a child's own session, where the parent
/// would finish all of them. A terminal and a service manager send them to both.
fn catch_end_in_child() {
    extern "C" fn note(_: libc::c_int) {
        ASKED_TO_END.store(true, Ordering::SeqCst);
        note_interrupted();
    }

    for signal in [libc::SIGTERM, libc::SIGINT] {
        // A signal that the parent ignores would otherwise finish only its children.
        if action_of(signal).is_ok_and(|action| action.sa_sigaction != libc::SIG_IGN) {
            // The signals exist and can be caught. If that fails, the parent can still end the
            // child.
            let _ = catch(signal, note);
        }
    }
}

/// Returns whether this process is a child that was asked to end.
pub(crate) fn is_asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::SeqCst)
}

/// Blocks all signals, and returns the set that was blocked before.
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
    // SAFETY: the set came from the system, and the former set is not requested.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

/// Sets the handler of a signal. `handler` must only do what is safe in a signal handler.
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

/// A child process that has not been waited for, so that no other process has its id.
#[derive(Debug)]
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Forks. Returns `None` in the child, which has to end with [`exit`].
    ///
    /// # Errors
    /// More than one thread runs: the child would inherit the locks that other threads hold, and
    /// could never take them. Or the system has no room for another process.
    pub(crate) fn fork() -> io::Result<Option<Self>> {
        check_single_thread()?;

        let before = block_signals();
        // SAFETY: this is the only thread, so the child can go on like any process.
        let outcome = match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // Until here signals are blocked; the parent's handlers would act on what both
                // share.
                catch_end_in_child();
                IS_CHILD.store(true, Ordering::SeqCst);
                Ok(None)
            }
            pid => Ok(Some(Self(pid))),
        };

        unblock_signals(&before);
        outcome
    }

    /// Ends the blocking system call that the child is in, if any.
    pub(crate) fn interrupt(&self) {
        self.signal(INTERRUPT);
    }

    /// Asks the child to end, which it does like the server in a shutdown.
    pub(crate) fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Ends the child at once.
    pub(crate) fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes plain numbers, and the id is our child's until it is waited for.
        unsafe { libc::kill(self.0, signal) };
    }

    /// Returns whether the child has ended, by itself or by a signal. Must not be called again
    /// after that.
    pub(crate) fn has_ended(&self) -> bool {
        // SAFETY: no status is requested, and the id is our child's until it is waited for.
        match unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => false,
            -1 => io::Error::last_os_error().kind() != io::ErrorKind::Interrupted,
            _ => true,
        }
    }

    /// Waits until the child has ended, however long that takes. Must not be called after it has
    /// ended.
    pub(crate) fn wait(&self) {
        loop {
            // SAFETY: no status is requested, and the id is our child's until it is waited for.
            let waited = unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
            let interrupted = || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if waited != -1 || !interrupted() {
                return;
            }
        }
    }
}

/// Returns whether a server forked this process to serve one connection.
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::SeqCst)
}

/// Ends this process at once. No destructor runs, since it would undo what the parent still uses.
pub(crate) fn exit(status: libc::c_int) -> ! {
    // SAFETY: _exit takes a plain number and does not return.
    unsafe { libc::_exit(status) }
}

/// Returns an error if more than one thread runs in this process, where the system tells.
pub(crate) fn check_single_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(threads) if threads > 1 => Err(io::Error::other(format!(
            "a process with {threads} threads cannot be forked safely"
        ))),
        _ => Ok(()),
    }
}
