//! Whether what a shutdown and deadlines ask for came in time.

use std::time::Duration;

use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::testing::simulation::ledger::{ConnectionRecord, Justification, Ledger, Number};

/// How soon a session is told of the shutdown if nothing keeps the driver but pauses for lack of memory.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// How late a blocking driver may act on a deadline: it may compute, and pause for lack of memory.
const LATE_MOST: Duration = Duration::from_secs(2);

impl Ledger {
    /// Objects if the drain has ended a session that was not told of the shutdown, although it was open
    /// for long enough and nothing has kept the blocking driver.
    pub(super) fn check_told(&mut self, number: &Number, reason: &CloseReason) {
        let is_drained = matches!(reason, CloseReason::TimedOut(Deadline::Drain));
        let computes = self.computing.as_ref().is_none_or(|(_, rate)| *rate > 0);
        let Some(number) = number.get().filter(|_| is_drained && self.is_blocking) else {
            return;
        };

        let account = &self.accounts[number];
        let since = account.began.max(self.asked.unwrap_or(Duration::MAX));
        let was_kept = computes || account.justifications.contains(&Justification::Jump);
        if !was_kept && self.now.saturating_sub(since) > TOLD_WITHIN {
            self.object_to(number, "it was never told of the shutdown");
        }
    }

    /// Returns a problem if the drain was over before its time.
    pub(super) fn early_drain(&self, reason: &CloseReason) -> Option<String> {
        let CloseReason::TimedOut(Deadline::Drain) = reason else {
            return None;
        };
        let early = self.drained.is_none_or(|at| self.now < at);
        early.then(|| format!("{reason}, but it ends only at {:?}", self.drained))
    }
}

impl ConnectionRecord {
    /// Returns a problem if the session timed out long after the last moment from which its deadline
    /// can have counted, and nothing has kept the driver.
    pub(super) fn late(
        &self,
        reason: &CloseReason,
        now: Duration,
        config: &Config,
    ) -> Option<String> {
        let CloseReason::TimedOut(deadline) = reason else {
            return None;
        };
        let limits = &config.limits;
        let timeout = match deadline {
            Deadline::FirstMessage => limits.first_message_timeout,
            Deadline::Message => limits.message_timeout,
            Deadline::Idle => limits.idle_timeout,
            Deadline::Write => limits.write_timeout,
            Deadline::Connect | Deadline::Handshake | Deadline::Drain => None,
        };

        let moments = [self.began, self.moved, self.wrote, self.called];
        let since = moments.into_iter().max().unwrap_or_default();
        let late = now.saturating_sub(since).saturating_sub(timeout?);
        let was_kept = self.justifications.contains(&Justification::Jump);
        (late > LATE_MOST && !was_kept).then(|| format!("{reason}, but {late:?} too late"))
    }
}
