//! What a failure of accept(2) or recvfrom(2) concerns: the one connection or datagram, the system,
//! or the socket that they come in by.

use std::io;

pub(crate) enum Consequence {
    /// Nothing waits.
    Wait,
    /// One connection or datagram was lost, for a reason of its own.
    Skip,
    /// The system has no descriptor or memory left.
    Pause,
    /// The socket is of no use any more.
    Fail,
}

/// See the errors of accept(2) on Linux, which passes pending network errors of the new connection
/// on, and of accept(2) in POSIX.
pub(crate) fn consequence(error: &io::Error) -> Consequence {
    if error.kind() == io::ErrorKind::WouldBlock {
        return Consequence::Wait;
    }
    match error.raw_os_error() {
        Some(
            libc::ECONNABORTED
            | libc::EINTR
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
            | libc::ECONNREFUSED
            | libc::ECONNRESET,
        ) => Consequence::Skip,
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => Consequence::Fail,
        _ => Consequence::Pause,
    }
}
