//! A socket that was open when this process began.
#![expect(
    unsafe_code,
    reason = "that nothing else in this process owns a descriptor is beyond what the compiler can check"
)]

use std::ffi::OsString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, io};

use serveloop::service::activation::Inherited;

/// The highest standard descriptor.
const STANDARD_MOST: RawFd = 2;

/// Takes over the bound socket with this number, and keeps it from programs that this process starts.
/// A standard descriptor stays open, and a copy of it is taken.
///
/// The command itself opens no bound socket before it has taken those of its options, so such a socket
/// was passed by its parent.
///
/// # Errors
/// The number is not that of an open descriptor, or it is no socket that can be served.
pub(crate) fn take_socket(number: RawFd) -> io::Result<Inherited> {
    // SAFETY: fcntl takes plain numbers, and fails if the descriptor is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, STANDARD_MOST + 1) };
    if copy == -1 {
        let error = io::Error::last_os_error();
        let problem = format!("descriptor {number} is not open: {error}");
        return Err(io::Error::new(error.kind(), problem));
    }
    // SAFETY: the copy is new, and nothing else owns it.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };

    let socket = Inherited::new(copy, "");
    if socket.address().is_none() {
        let shown = socket.to_string();
        let what = shown.split_once(' ').map_or("", |(_, what)| what);
        let problem = format!("descriptor {number} {what}: it cannot be served");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if number > STANDARD_MOST {
        // SAFETY: a bound socket is the parent's, so nothing in this process owns it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(socket)
}

/// Takes over a descriptor that the parent left open for this process, and keeps it from programs that
/// this process starts. It gets another number.
///
/// The caller makes sure that the parent left this one for it, and takes it once.
///
/// # Errors
/// The number is not that of an open descriptor, or is that of a standard one.
pub(crate) fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= STANDARD_MOST {
        let problem = format!("descriptor {number} is a standard one");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // SAFETY: fcntl takes plain numbers, and fails if the descriptor is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, STANDARD_MOST + 1) };
    if copy == -1 {
        let error = io::Error::last_os_error();
        let problem = format!("descriptor {number} is not open: {error}");
        return Err(io::Error::new(error.kind(), problem));
    }
    // SAFETY: the parent left the descriptor for the caller, and the copy is new.
    let [taken, copy] = [number, copy].map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    drop(taken);
    Ok(copy)
}

/// Takes a variable out of the environment. Call this while there is one thread.
pub(crate) fn take_variable(name: &str) -> Option<OsString> {
    let value = env::var_os(name)?;
    // SAFETY: this is the only thread.
    unsafe { env::remove_var(name) };
    Some(value)
}

/// Leaves these descriptors open in the program that `command` starts, with the numbers that they have
/// here. It ignores SIGHUP, SIGUSR1 and SIGUSR2 until it catches them, so that none ends it.
pub(crate) fn pass_on(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let prepare = move || {
        for descriptor in &descriptors {
            // SAFETY: fcntl takes plain numbers. The descriptor is open.
            if unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
            // SAFETY: the action is the system's own.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls that are safe in a signal handler:
    // it neither allocates nor takes a lock, whatever other threads were doing. An error of the system
    // is a plain number. The descriptors live as long as the command.
    unsafe { command.pre_exec(prepare) };
}
