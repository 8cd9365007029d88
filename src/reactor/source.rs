//! What comes in by a socket, connections or datagrams: whether any waits, and what a failure to take
//! one concerns: that one alone, the system, or the socket.

use std::io;

use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::session::Tick;

/// How many tries in a row may fail before the socket has to pause, whatever the errors are. Each may
/// have taken a connection or a datagram away, and then the next is better tried at once; an error that
/// stays would otherwise keep the loop busy without end.
const FRUITLESS_MOST: u8 = 16;

#[derive(Debug)]
pub(super) struct Source {
    readable: bool,
    paused_until: Option<Tick>,
    /// How many tries failed since something was taken or nothing waited.
    fruitless: u8,
}

impl Source {
    pub(super) fn new() -> Self {
        Self {
            readable: true,
            paused_until: None,
            fruitless: 0,
        }
    }

    pub(super) fn note_readable(&mut self) {
        self.readable = true;
    }

    /// Whether something may wait that can be taken now.
    pub(super) fn is_ready(&self) -> bool {
        self.readable && self.paused_until.is_none()
    }

    /// When a pause ends.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.paused_until
    }

    /// Ends a pause whose time has come. No event tells that descriptors are free again, so the
    /// socket counts as readable all the while.
    pub(super) fn expire(&mut self, now: Tick) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    /// Something was taken.
    pub(super) fn note_taken(&mut self) {
        self.fruitless = 0;
    }

    /// Takes note of a failure, and says what it concerns: the whole system too when the same socket
    /// only fails.
    pub(super) fn note_error<N: Net>(
        &mut self,
        error: &io::Error,
        hub: &mut Hub<'_, N>,
    ) -> Consequence {
        self.fruitless = self.fruitless.saturating_add(1);
        let consequence = match consequence(error) {
            Consequence::Skip if self.fruitless > FRUITLESS_MOST => Consequence::Pause,
            consequence => consequence,
        };
        match consequence {
            Consequence::Wait => {
                self.readable = false;
                self.fruitless = 0;
            }
            Consequence::Pause => {
                // The turn may have begun long ago, and then the pause would be over at once.
                let now = hub.env.clock.tick_of(hub.net.now());
                self.paused_until = Some(now.after(hub.env.config.accept_pause));
            }
            Consequence::Skip | Consequence::Fail => {}
        }
        consequence
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Consequence {
    /// Nothing waits.
    Wait,
    /// One connection or datagram was lost, for a reason of its own.
    Skip,
    /// The system has no descriptor or memory left, or does not let anything be taken.
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
