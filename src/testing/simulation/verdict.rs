//! Whether what a client got is right, and what excuses it if it is not.

use crate::testing::simulation::exchange::Fate;
use crate::testing::simulation::ledger::{ConnectionRecord, Justification};

impl ConnectionRecord {
    /// Returns whether anything happened to the connection.
    pub(super) fn is_troubled(&self) -> bool {
        !self.justifications.is_empty()
    }

    /// Checks the outcome of one client, in a run in which something happened to any connection if
    /// `is_troubled`.
    ///
    /// # Errors
    /// Returns what is wrong.
    pub(super) fn judge(&self, is_troubled: bool) -> Result<(), String> {
        let due = self.exchange.expects.len();
        let received = self.received;
        let may_be_cut = self.may_be_cut(is_troubled);
        let is_free = may_be_cut || self.is_troubled();
        if let Some(end) = self.end.as_ref().filter(|end| end.late && !is_free) {
            return Err(format!(
                "it was never late, but the protocol was told: {}",
                end.text
            ));
        }

        let is_cut = self.layered.as_ref().is_some_and(|layered| layered.is_cut);
        if is_cut && !may_be_cut && !self.is_excused() {
            let end = self.end.as_ref().map_or("nothing", |end| &end.text);
            return Err(format!(
                "the server's end mark is missing; the protocol was told: {end}; what happened to it: {:?}",
                self.justifications
            ));
        }

        let got = &self.answer[..received.min(self.answer.len())];
        let fate = self.fate(may_be_cut);
        if let Some(is_right) = self.exchange.verdict(got, fate) {
            let got = got.escape_ascii();
            let problem = || Err(format!("the judge objects to \"{got}\", with {fate:?}"));
            return if is_right { Ok(()) } else { problem() };
        }

        let is_whole = match self.exchange.has_choice() {
            true => self.exchange.is_answered(got),
            false => received == due,
        };
        if is_whole || may_be_cut || self.is_excused() {
            return Ok(());
        }
        let end = self.end.as_ref().map_or("nothing", |end| &end.text);
        Err(format!(
            "got {received} of {due} bytes; the protocol was told: {end}; what happened to it: {:?}",
            self.justifications
        ))
    }

    /// Notes more of what the server says from byte `from` on, and returns whether that is right.
    pub(super) fn admit(&mut self, from: usize, data: &[u8]) -> bool {
        if self.exchange.has_choice() {
            self.answer.extend_from_slice(data);
            return self.exchange.admits(&self.answer);
        }
        self.exchange.expects.get(from..from + data.len()) == Some(data)
    }

    /// Returns whether the server may end the connection early: always, or because of what happened to the
    /// other side of a proxy.
    fn may_be_cut(&self, is_troubled: bool) -> bool {
        self.exchange.may_be_cut || (self.exchange.is_relayed && is_troubled)
    }

    /// Returns what happened, for the exchange's own judge.
    fn fate(&self, may_be_cut: bool) -> Fate {
        let any = |is: fn(&Justification) -> bool| self.justifications.iter().any(is);
        let is_shed = self.end.as_ref().is_some_and(|end| end.shed);
        Fate {
            cut: may_be_cut
                || is_shed
                || any(|it| {
                    matches!(
                        it,
                        Justification::Reset
                            | Justification::Vanished
                            | Justification::Failed(_)
                            | Justification::Refused
                            | Justification::Truncated
                    )
                }),
            late: any(|it| matches!(it, Justification::Slow | Justification::Jump)),
            shutdown: any(|it| *it == Justification::Shutdown),
            deadline: self.end.as_ref().and_then(|end| end.deadline),
        }
    }

    /// Returns whether the recorded events explain how the connection ended.
    fn is_excused(&self) -> bool {
        self.justifications
            .iter()
            .any(|justification| match justification {
                Justification::Reset
                | Justification::Vanished
                | Justification::Failed(_)
                | Justification::Refused => true,
                // The client may also be too slow after we close, to take what was sent before.
                Justification::Slow | Justification::Jump => self
                    .end
                    .as_ref()
                    .is_some_and(|end| end.late || end.in_order || end.drained),
                Justification::Truncated => self
                    .end
                    .as_ref()
                    .is_some_and(|end| end.truncated || end.in_order),
                Justification::Crowded => self
                    .end
                    .as_ref()
                    .is_some_and(|end| end.shed || end.in_order),
                Justification::Shutdown => self
                    .end
                    .as_ref()
                    .is_none_or(|end| end.drained || end.in_order),
            })
    }
}
