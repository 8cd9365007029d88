//! The wait for the peer's end after ours: closing at once while input is on its way would have
//! the system send a reset, which can destroy the last reply before the peer has read it.

use crate::clock::Tick;
use crate::config::Config;

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

    /// Input came and was thrown away. False if that was enough.
    pub(crate) fn hear(&mut self, count: usize, now: Tick, config: &Config) -> bool {
        self.heard = now;
        let left = self.bytes_left.checked_sub(count);
        self.bytes_left = left.unwrap_or(0);
        left.is_some() && now < self.since.after(config.linger_limit)
    }

    /// When to close, if nothing more is heard.
    pub(crate) fn end(&self, config: &Config, draining: bool) -> Tick {
        let Some(quiet) = config.linger_timeout else {
            return self.since;
        };
        let quiet = if draining {
            quiet.min(config.linger_draining)
        } else {
            quiet
        };
        self.heard
            .after(quiet)
            .min(self.since.after(config.linger_limit))
    }
}
