//! What comes after our end of a connection: the peer's end is awaited.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::thread;

use crate::models::blocking::{Blocking, WAIT_LEAST};
use crate::reactor::{LOOK_AGAIN, Linger};
use crate::session::{Protocol, Tick};
use crate::sys;

impl<P: Protocol> Blocking<'_, P> {
    /// Waits for the peer's end after ours.
    pub(super) fn linger(&mut self) {
        if self.config.linger_timeout.is_none() || self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut linger = Linger::new(self.clock.tick(), self.config);
        while !self.is_ended() {
            let draining = self.is_told() || self.handle.is_rung();
            if draining {
                self.interrupt.note_told();
            }
            if linger.reads() {
                let until = linger.deadline(self.clock.tick(), self.config, draining);
                if !self.discard(&mut linger, until) {
                    return;
                }
            } else {
                thread::sleep(LOOK_AGAIN);
                self.now();
            }
            let unsent = sys::unsent(self.stream.as_fd());
            if linger.is_over(unsent, self.clock.tick(), self.config, draining) {
                return;
            }
        }
    }

    /// Throws input away, if any comes before `until`. False at the end of the stream.
    fn discard(&mut self, linger: &mut Linger, until: Tick) -> bool {
        let timeout = until.since(self.clock.tick()).max(WAIT_LEAST);
        if self.stream.set_read_timeout(Some(timeout)).is_err() {
            return false;
        }
        let mut stream = self.stream;
        let received = stream.read(&mut self.input);
        self.now();
        match received {
            Ok(count) => linger.hear(count, self.clock.tick()),
            Err(error) => return is_passing(&error),
        }
        !matches!(received, Ok(0))
    }
}

/// Whether a blocked call ended for a signal or a deadline alone.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}
