//! Lingering on a blocking socket: after we close our side, wait for the peer to close too.

use std::io::{self, ErrorKind};

use crate::config::Limits;
use crate::models::blocking::{BlockingStream, TRY_AGAIN, WAIT_LEAST};
use crate::models::interrupt::Interrupt;
use crate::session::{Clock, Input, LOOK_AGAIN, Linger, Tick};

/// A connection whose session has ended and has been counted.
pub(super) struct Lingering<'a, S> {
    pub(super) stream: S,
    pub(super) limits: Limits,
    pub(super) interrupt: &'a Interrupt,
    pub(super) clock: Clock,
    pub(super) input: Input,
    /// When the drain times out, if this session keeps that deadline itself.
    pub(super) drained: Option<Tick>,
}

impl<S: BlockingStream> Lingering<'_, S> {
    /// Closes our side and discards input until the peer closes or a deadline passes.
    pub(super) fn linger(mut self) {
        if self.stream.finish().is_err() {
            return;
        }

        let mut linger = Linger::new(self.clock.tick(), &self.limits);
        while !self.is_ended() {
            let draining = self.interrupt.is_told() || self.stream.is_shutdown();
            if draining {
                self.interrupt.note_told();
            }
            if linger.reads() {
                let until = linger.deadline(self.clock.tick(), &self.limits, draining);
                if !self.discard(&mut linger, until) {
                    return;
                }
            } else {
                self.stream.sleep(LOOK_AGAIN);
                self.now();
            }

            let unsent = || self.stream.unsent();
            if linger.is_over(unsent, self.clock.tick(), &self.limits, draining) {
                return;
            }
        }
    }

    /// Discards input that arrives before `until`. Returns false if nothing more can come.
    fn discard(&mut self, linger: &mut Linger, until: Tick) -> bool {
        let timeout = until.since(self.clock.tick()).max(WAIT_LEAST);
        if self.stream.set_read_timeout(Some(timeout)).is_err() {
            return false;
        }

        let received = self.stream.read(&mut self.input);
        self.now();
        match received {
            Ok(count) => linger.hear(count, self.clock.tick()),
            Err(error) => {
                if error.kind() == ErrorKind::Interrupted {
                    self.stream.sleep(TRY_AGAIN);
                }
                return is_passing(&error);
            }
        }
        !matches!(received, Ok(0))
    }

    fn now(&mut self) {
        self.clock.set(self.stream.now());
    }

    fn is_ended(&self) -> bool {
        let late = self.drained.is_some_and(|at| at <= self.clock.tick());
        late || self.interrupt.is_ended()
    }
}

/// Returns whether a blocking call failed only because of a signal or of the socket's timeout. The
/// system reports the latter as `WouldBlock`; `TimedOut` is a connection that it gave up.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_read_may_time_out_but_no_connection() {
        let (mut stream, _peer) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(WAIT_LEAST)).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert!(is_passing(&error), "{error:?}");

        for number in [libc::ETIMEDOUT, libc::ECONNRESET, libc::EHOSTUNREACH] {
            assert!(!is_passing(&io::Error::from_raw_os_error(number)));
        }
        assert!(is_passing(&io::Error::from_raw_os_error(libc::EINTR)));
    }
}
