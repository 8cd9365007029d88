//! Accept and receive readiness of one socket, and its errors: skip this connection or datagram,
//! pause, or give the socket up.

use std::io;

use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::session::Tick;

/// How many attempts in a row may fail before the socket has to pause, whatever the errors are. An
/// attempt that fails may still have taken a connection or datagram off the queue, so the next one
/// follows at once; a permanent error would keep the loop busy that way.
const FRUITLESS_MOST: u8 = 16;

/// The state of one socket that connections or datagrams arrive at.
#[derive(Debug)]
pub(super) struct Source {
    readable: bool,
    paused_until: Option<Tick>,
    /// How many attempts failed since something was taken or the queue was empty.
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

    /// Returns whether something may be waiting that can be taken now.
    pub(super) fn is_ready(&self) -> bool {
        self.readable && self.paused_until.is_none()
    }

    /// Returns when a pause ends.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.paused_until
    }

    /// Ends a pause whose time is over. No event announces that descriptors are free again, so the
    /// socket counts as readable throughout.
    pub(super) fn expire(&mut self, now: Tick) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    /// Resets the count of failed attempts after something was taken.
    pub(super) fn note_taken(&mut self) {
        self.fruitless = 0;
    }

    /// Records a failure and returns its consequence. Too many failures in a row pause the socket
    /// even if each would be skipped.
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
                // The turn may have begun long ago; a pause counted from there would be over at
                // once.
                let now = hub.env.clock.tick_of(hub.net.now());
                self.paused_until = Some(now.after(hub.env.config.accept_pause));
            }
            Consequence::Skip | Consequence::Fail => {}
        }

        consequence
    }
}

/// What a failure means for the socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Consequence {
    /// Nothing is waiting.
    Wait,
    /// One connection or datagram was lost; the next may be fine.
    Skip,
    /// The system has no descriptor or memory left, or permits nothing to be taken.
    Pause,
    /// The socket can no longer be used.
    Fail,
}

/// Classifies an error. See accept(2) on Linux, which also reports pending network errors of the
/// new connection, and accept(2) in POSIX. A datagram socket may have the errors of what it sent
/// before.
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
            | libc::ECONNRESET
            | libc::EMSGSIZE
            | libc::EACCES,
        ) => Consequence::Skip,
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => Consequence::Fail,
        _ => Consequence::Pause,
    }
}
