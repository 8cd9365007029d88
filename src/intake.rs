//! What comes in by a socket, connections or datagrams: whether any waits, and what a failure to take
//! one concerns: that one alone, the system, or the socket.

use std::io;

use crate::clock::Tick;
use crate::turn::Turn;

#[derive(Debug)]
pub(crate) struct Intake {
    readable: bool,
    paused_until: Option<Tick>,
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self {
            readable: true,
            paused_until: None,
        }
    }

    pub(crate) fn note_readable(&mut self) {
        self.readable = true;
    }

    /// Whether something may wait that can be taken now.
    pub(crate) fn is_ready(&self) -> bool {
        self.readable && self.paused_until.is_none()
    }

    /// When a pause ends.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.paused_until
    }

    /// Ends a pause whose time has come. No event tells that descriptors are free again, so the
    /// socket counts as readable all the while.
    pub(crate) fn expire(&mut self, now: Tick) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    /// Takes note of a failure, and says what it concerns.
    pub(crate) fn note_error<N>(&mut self, error: &io::Error, turn: &Turn<'_, N>) -> Consequence {
        let consequence = consequence(error);
        match consequence {
            Consequence::Wait => self.readable = false,
            Consequence::Pause => {
                self.paused_until = Some(turn.now().after(turn.config.accept_pause));
            }
            Consequence::Skip | Consequence::Fail => {}
        }
        consequence
    }
}

#[derive(Clone, Copy, Debug)]
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
fn consequence(error: &io::Error) -> Consequence {
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
