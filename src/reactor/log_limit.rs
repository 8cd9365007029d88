//! Log lines that a peer can provoke, at most one a second for each cause.

use std::fmt;
use std::time::Duration;

use crate::LOG_TARGET;
use crate::address::Peer;
use crate::session::Tick;

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct LogLimit {
    causes: Vec<Cause>,
}

#[derive(Debug)]
struct Cause {
    name: &'static str,
    quiet_until: Tick,
    left_out: u64,
}

impl LogLimit {
    /// Logs a warning, about the connection of this `peer` if it is about one. Returns false if another one of the same cause came less than a second ago:
    /// this one is then counted for the next line, and the caller may log it at a lower level.
    pub(super) fn warn(
        &mut self,
        name: &'static str,
        peer: Option<&Peer>,
        now: Tick,
        message: fmt::Arguments<'_>,
    ) -> bool {
        match self.admit(name, now) {
            None => return false,
            Some(0) => log(peer, message),
            Some(left_out) => log(
                peer,
                format_args!("{message} (and {left_out} more like it)"),
            ),
        }
        true
    }

    /// Returns whether a line of this cause may be logged now, and then how many were left out before
    /// it. Counts this one as left out if not.
    pub(super) fn admit(&mut self, name: &'static str, now: Tick) -> Option<u64> {
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
            return None;
        }
        cause.quiet_until = now.after(INTERVAL);
        Some(std::mem::take(&mut cause.left_out))
    }
}

fn log(peer: Option<&Peer>, message: fmt::Arguments<'_>) {
    let Some(peer) = peer else {
        return log::warn!(target: LOG_TARGET, "{message}");
    };
    let id = peer.id();
    match peer.listener() {
        Some(listener) => log::warn!(
            target: LOG_TARGET, id = id, peer:% = peer, listener = listener;
            "{message}"
        ),
        None => log::warn!(target: LOG_TARGET, id = id, peer:% = peer; "{message}"),
    }
}

impl Drop for LogLimit {
    /// Reports what was left out since the last line of each cause, since no further line will.
    fn drop(&mut self) {
        for cause in &self.causes {
            let (left_out, name) = (cause.left_out, cause.name);
            if left_out > 0 {
                log::warn!(target: LOG_TARGET, "{name}: {left_out} more like the last one");
            }
        }
    }
}
