//! Calls that fail for some time, whatever a loop does: trying again at once is in vain.

use std::io;
use std::time::Duration;

use crate::testing::simulation::network::{Call, Network};

/// How often in a row, without time passing, a loop may try again what only fails: each try may have
/// concerned one connection or datagram alone.
const FRUITLESS_MOST: u32 = 17;

/// Calls of one kind that all fail for some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    pub(super) call: Call,
    pub(super) error: i32,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// Errors that may stay, whatever a loop does.
const STUCK_ERRORS: &[i32] = &[
    libc::EPERM,
    libc::EPROTO,
    libc::ECONNABORTED,
    libc::EOPNOTSUPP,
    libc::EINTR,
    libc::EMFILE,
    libc::EACCES,
];

/// For how long the calls fail that a test has chosen.
pub(super) const STICKS_FOR: Duration = Duration::from_secs(2);

impl Network {
    /// Whether a client waits to be accepted.
    pub(super) fn has_line(&self) -> bool {
        self.listener
            .as_ref()
            .is_some_and(|listener| !listener.backlog.is_empty())
    }

    /// Fails a call like all of its kind, without harm to anybody but that they wait.
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

    /// Trying is no progress, however often.
    fn note_fruitless(&mut self, call: Call) {
        let passed = self.elapsed - self.trouble.fruitless_since;
        if self.trouble.fruitless == 0 || passed >= Duration::from_millis(1) {
            self.trouble.fruitless_since = self.elapsed;
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

    /// Draws whether, when and how the server is kept from accepting or receiving.
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
