//! What a service manager passes to a process: descriptors, and variables that describe them.

use std::env;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::sys::check_single_thread;

/// Takes over a descriptor that the parent left open for this process, and keeps it from programs
/// that this process starts.
///
/// The caller makes sure that nothing else in this process owns the descriptor: that it was there
/// before `main`, and is taken once.
///
/// # Errors
/// The number is not that of an open descriptor.
pub(crate) fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes plain numbers, and fails if the descriptor is not open.
    let changed = unsafe {
        match libc::fcntl(number, libc::F_GETFD) {
            -1 => -1,
            flags => libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC),
        }
    };
    if changed == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the caller says that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns a copy of a descriptor, which no program inherits that this process starts.
///
/// The caller makes sure that the number is that of the descriptor which it means: that it is not closed
/// meanwhile.
///
/// # Errors
/// The number is not that of an open descriptor, or the process has none left.
pub(crate) fn copy_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    const ABOVE_STANDARD: libc::c_int = 3;
    // SAFETY: fcntl takes plain numbers, and fails if the descriptor is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, ABOVE_STANDARD) };
    if copy == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the copy is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Removes variables from the environment, so that programs that this process starts do not see
/// them. Does nothing and returns false if other threads run, which may be reading the environment.
pub(crate) fn remove_variables(names: &[&str]) -> bool {
    if check_single_thread().is_err() {
        return false;
    }
    for name in names {
        // SAFETY: this is the only thread.
        unsafe { env::remove_var(name) };
    }
    true
}

/// Returns whether a socket accepts connections, and false where the system does not tell.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> bool {
    let mut accepts: libc::c_int = 0;
    let mut length = size_of_val(&accepts) as libc::socklen_t;
    // SAFETY: the pointers are to a live, writable integer and its length.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut accepts).cast(),
            &raw mut length,
        )
    };
    told == 0 && accepts != 0
}

/// Returns the time of the system's monotonic clock in microseconds, which other processes read
/// too.
pub(crate) fn monotonic_micros() -> u64 {
    monotonic_nanos() / 1_000
}

/// Returns the time of the system's monotonic clock in nanoseconds. An `Instant` is read from the same
/// clock on Linux, but takes three times as many instructions to be subtracted from another.
#[inline]
pub(crate) fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live, writable time. Every system has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    // Neither is negative.
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}
