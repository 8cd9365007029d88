//! Calls that keep failing for some time, so that an immediate retry is useless.

use std::io;
use std::time::Duration;

use crate::testing::simulation::network::{Call, Network};

/// How often in a row, without time passing, a loop may retry a call that only fails. Each failure
/// might have concerned only one connection or datagram.
const FRUITLESS_MOST: u32 = 17;

/// A period in which all calls of one kind fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    pub(super) call: Call,
    pub(super) error: i32,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// Errors that may persist whatever the loop does.
const STUCK_ERRORS: &[i32] = &[
    libc::EPERM,
    libc::EPROTO,
    libc::ECONNABORTED,
    libc::EOPNOTSUPP,
    libc::EINTR,
    libc::EMFILE,
    libc::EACCES,
];

/// How long calls fail that a test made to fail for long.
pub(super) const STICKS_FOR: Duration = Duration::from_secs(2);

impl Network {
    /// Returns whether a client waits to be accepted.
    pub(super) fn has_line(&self) -> bool {
        self.listener
            .as_ref()
            .is_some_and(|listener| !listener.backlog.is_empty())
    }

    /// Fails a call as part of a stuck period. The only harm is that clients wait.
    pub(super) fn stay_stuck(
        &mut self,
        call: Call,
        wire: Option<usize>,
        error: i32,
    ) -> io::Result<()> {
        self.note(9, usize::try_from(error).unwrap_or(0));

        if matches!(call, Call::Accept | Call::Receive) {
            self.note_fruitless(call);
        }

        if let Some(wire) = wire {
            let most = self.ledger.borrow().config.accept_pause;
            self.hold_up(wire, most);
        }

        Err(io::Error::from_raw_os_error(error))
    }

    /// Counts a useless retry. Retries are not progress, and too many of them are a violation.
    fn note_fruitless(&mut self, call: Call) {
        let passed = self.elapsed - self.trouble.fruitless_since;
        let is_other = self.trouble.fruitless_of != self.trouble.outbound;
        if self.trouble.fruitless == 0 || is_other || passed >= Duration::from_millis(1) {
            self.trouble.fruitless_since = self.elapsed;
            self.trouble.fruitless_of = self.trouble.outbound;
            self.trouble.fruitless = 0;
        }

        self.trouble.fruitless += 1;
        self.progress.has_moved |= self.trouble.fruitless < FRUITLESS_MOST;
        if self.trouble.fruitless > FRUITLESS_MOST {
            let name = call.name();
            let problem = format!("{name} is tried again at once, though it only fails");
            self.ledger.borrow_mut().object(problem);
        }
    }

    /// Draws whether, when and how accepting or receiving gets stuck.
    pub(in crate::testing::simulation) fn draw_stuck(&mut self) {
        if !self.random.chance(self.faults.stuck_calls) {
            return;
        }

        let from = Duration::from_millis(self.random.below(200) as u64);
        let lasts = Duration::from_millis(self.random.between(100, 3_000) as u64);
        self.trouble.stuck = Some(Stuck {
            call: self.random.pick(&[Call::Accept, Call::Receive]),
            error: self.random.pick(STUCK_ERRORS),
            from,
            until: from + lasts,
        });
    }
}
