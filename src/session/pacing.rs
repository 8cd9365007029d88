//! The least rate at which a peer has to send what it has begun, and to take what it is owed.

use crate::config::Config;
use crate::error::Deadline;
use crate::session::clock::Tick;
use crate::session::pace::{Rate, Window};
use crate::session::state::{BLOCKED, EOF, INCOMPLETE, OPENING, PENDING, STALLED, State};

impl State {
    /// Returns when the rates are to be looked at. Begins to measure what was not measured before.
    pub(super) fn pace_deadline(&mut self, now: Tick, config: &Config) -> Option<Tick> {
        let rate = self.least_rate(config)?;
        self.measure(now);
        self.extra.as_ref()?.pace.as_ref()?.deadline(rate)
    }

    /// Returns the deadline that the peer has missed because it is too slow. Input is not judged while
    /// some of it waits to be read (`waits`).
    pub(super) fn check_pace(
        &mut self,
        now: Tick,
        config: &Config,
        waits: bool,
    ) -> Option<Deadline> {
        let rate = self.least_rate(config)?;
        self.measure(now);

        let (received, sent) = (self.received, self.sent);
        let of_message = match self.is_first(config) {
            true => Deadline::FirstMessage,
            false => Deadline::Message,
        };
        let pace = self.extra.as_mut()?.pace.as_mut()?;
        let incoming = pace.incoming.as_mut().filter(|_| !waits);
        if incoming.is_some_and(|window| !window.judge(received, now, rate)) {
            return Some(of_message);
        }
        let outgoing = pace.outgoing.as_mut();
        let is_slow = outgoing.is_some_and(|window| !window.judge(sent, now, rate));
        is_slow.then_some(Deadline::Write)
    }

    fn least_rate(&self, config: &Config) -> Option<Rate> {
        let limits = self.limits(config);
        let rate = Rate {
            bytes_per_second: limits.min_bytes_per_second,
            grace: limits.min_rate_grace,
        };
        (rate.bytes_per_second > 0).then_some(rate)
    }

    /// Begins and ends windows as the peer owes something or not.
    fn measure(&mut self, now: Tick) {
        let blocked = self.flags.any(BLOCKED | PENDING | EOF | OPENING);
        let sends = self.flags.any(INCOMPLETE) && !blocked;
        let takes = self.flags.any(STALLED);
        let is_measured = self.extra.as_ref().is_some_and(|it| it.pace.is_some());
        if !sends && !takes && !is_measured {
            return;
        }

        let (received, sent, message) = (self.received, self.sent, self.message);
        let place = &mut self.extra().pace;
        if !sends && !takes {
            *place = None;
            return;
        }
        let pace = place.get_or_insert_default();
        let incoming = pace.incoming.filter(|it| it.message == message);
        let new = || Window::new(now, received, message);
        pace.incoming = sends.then(|| incoming.unwrap_or_else(new));
        let new = || Window::new(now, sent, message);
        pace.outgoing = takes.then(|| pace.outgoing.unwrap_or_else(new));
    }
}
