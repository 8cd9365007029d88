//! The wait for the peer to close after us. If we closed while input is unread or on its way, the
//! system would send a reset and drop what the peer has not taken yet, such as the last reply.

use std::io::ErrorKind;
use std::time::Duration;

use crate::config::Config;
use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{Next, READABLE, RETIME, Readiness, SOON};
use crate::session::Tick;

/// How soon to check again whether the peer has taken everything, which no event announces.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The end of our stream counts as one byte until the peer has acknowledged it.
const OUR_END: usize = 1;

/// The state of one wait.
#[derive(Debug)]
pub(crate) struct Linger {
    since: Tick,
    heard: Tick,
    bytes_left: usize,
}

impl Linger {
    pub(crate) fn new(now: Tick, config: &Config) -> Self {
        Self {
            since: now,
            heard: now,
            bytes_left: config.linger_bytes,
        }
    }

    /// Moves times that were noted at `from`, the start of a long turn, to its end `to`.
    pub(super) fn catch_up(&mut self, from: Tick, to: Tick) {
        for stamp in [&mut self.since, &mut self.heard] {
            if *stamp == from {
                *stamp = to;
            }
        }
    }

    /// Discards what the peer still sends, until the peer closes its side or its time is over.
    pub(super) fn drive<N: Net>(
        &mut self,
        stream: &mut N::Stream,
        readiness: &mut Readiness,
        hub: &mut Hub<'_, N>,
    ) -> Next {
        let now = hub.now();

        if self.reads() && readiness.any(READABLE) {
            let room = &mut hub.input[..hub.env.read_size];
            match hub.net.read(stream, room) {
                Ok(count) if count > 0 => {
                    self.hear(count, now);
                    return Next::Again;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    readiness.clear(READABLE);
                    readiness.set(SOON | RETIME);
                    return Next::Wait;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => readiness.clear(READABLE),
                _ => return Next::Reap,
            }
        }

        let unsent = hub.net.unsent(stream);
        if self.is_over(unsent, now, &hub.env.config, hub.draining) {
            return Next::Reap;
        }

        readiness.set(RETIME);
        Next::Wait
    }

    /// Returns whether to go on discarding input. After too much of it, it is left unread.
    pub(crate) fn reads(&self) -> bool {
        self.bytes_left > 0
    }

    /// Records that input arrived and was discarded.
    pub(crate) fn hear(&mut self, count: usize, now: Tick) {
        self.heard = now;
        self.bytes_left = self.bytes_left.saturating_sub(count);
    }

    /// Returns whether to close. The peer must have taken all of our `unsent` bytes, and have been
    /// quiet for long enough or sent too much. After `linger_limit` the wait ends in any case.
    pub(crate) fn is_over(
        &self,
        unsent: usize,
        now: Tick,
        config: &Config,
        draining: bool,
    ) -> bool {
        let enough = !self.reads() || now >= self.quiet_end(config, draining);
        (enough && unsent <= OUR_END) || now >= self.since.after(config.linger_limit)
    }

    /// Returns when to check again, if nothing arrives before.
    pub(crate) fn deadline(&self, now: Tick, config: &Config, draining: bool) -> Tick {
        let quiet_end = self.quiet_end(config, draining);
        let waits = !self.reads() || now >= quiet_end;
        let next = if waits {
            now.after(LOOK_AGAIN)
        } else {
            quiet_end
        };
        next.min(self.since.after(config.linger_limit))
    }

    fn quiet_end(&self, config: &Config, draining: bool) -> Tick {
        let quiet = config.linger_timeout.unwrap_or_default();
        let most = if draining {
            config.linger_draining
        } else {
            quiet
        };
        self.heard.after(quiet.min(most))
    }
}
