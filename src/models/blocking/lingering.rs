//! What comes after our end of a connection: the peer's end is awaited.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::thread;

use socket2::Socket;

use crate::config::Config;
use crate::models::blocking::{WAIT_LEAST, pause_if_interrupted, read_clock};
use crate::models::interrupt::Interrupt;
use crate::reactor::{LOOK_AGAIN, Linger};
use crate::session::{Clock, Input, Tick};
use crate::shutdown::ShutdownHandle;
use crate::sys;

/// A connection whose session has ended, and been counted.
pub(super) struct Lingering<'a> {
    pub(super) stream: &'a Socket,
    pub(super) config: &'a Config,
    pub(super) handle: &'a ShutdownHandle,
    pub(super) interrupt: &'a Interrupt,
    pub(super) clock: Clock,
    pub(super) input: Input,
    /// Ends a drain that takes too long, where nobody else does.
    pub(super) drained: Option<Tick>,
}

impl Lingering<'_> {
    /// Waits for the peer's end after ours.
    pub(super) fn linger(mut self) {
        if self.config.linger_timeout.is_none() || self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut linger = Linger::new(self.clock.tick(), self.config);
        while !self.is_ended() {
            let draining = self.interrupt.is_told() || self.handle.is_rung();
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
                read_clock(&mut self.clock);
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
        read_clock(&mut self.clock);
        match received {
            Ok(count) => linger.hear(count, self.clock.tick()),
            Err(error) => {
                pause_if_interrupted(&error);
                return is_passing(&error);
            }
        }
        !matches!(received, Ok(0))
    }

    fn is_ended(&self) -> bool {
        let late = self.drained.is_some_and(|at| at <= self.clock.tick());
        late || self.interrupt.is_ended()
    }
}

/// Whether a blocked call ended for a signal or a deadline alone.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}
