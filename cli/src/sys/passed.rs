//! A socket that was open when this process began.
#![expect(
    unsafe_code,
    reason = "that nothing else in this process owns a descriptor is beyond what the compiler can check"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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
