//! Log lines that a peer can cause, at most one a second for each cause.

use std::fmt;
use std::time::Duration;

use crate::clock::Tick;

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Throttle {
    causes: Vec<Cause>,
}

#[derive(Debug)]
struct Cause {
    name: &'static str,
    quiet_until: Tick,
    left_out: u64,
}

impl Throttle {
    /// Logs a warning, or counts it for the next one of the same cause.
    pub(crate) fn warn(&mut self, name: &'static str, now: Tick, message: fmt::Arguments<'_>) {
        let index = self
            .causes
            .iter()
            .position(|cause| cause.name == name)
            .unwrap_or_else(|| {
                self.causes.push(Cause {
                    name,
                    quiet_until: Tick::ZERO,
                    left_out: 0,
                });
                self.causes.len() - 1
            });
        let cause = &mut self.causes[index];
        if now < cause.quiet_until {
            cause.left_out += 1;
            return;
        }
        cause.quiet_until = now.after(INTERVAL);
        match std::mem::take(&mut cause.left_out) {
            0 => log::warn!("{message}"),
            left_out => log::warn!("{message} (and {left_out} more like it)"),
        }
    }
}
