//! The calls of a thread that blocks in them: the world goes on until what it waits for is there.

use std::time::{Duration, Instant};

use crate::models::Interrupt;
use crate::sys::INTERRUPT_AGAIN;
use crate::testing::simulation::ledger::{Justification, Slip};
use crate::testing::simulation::network::action::Action;
use crate::testing::simulation::network::{Call, Network, Wakeup};
use crate::testing::simulation::wire::Broken;

/// How soon other threads do what the session may be waiting for.
const BESIDE_WITHIN: usize = 20_000;

/// How much too early or too late a read may time out, in microseconds: a tick of the system's.
const TICK: usize = 4_000;

/// How often in a row a thread may block although a shutdown of which it has not heard is requested.
const UNHEARD_MOST: u32 = 3;

/// How often the driver may read the clock without a call that could move something.
const READINGS_MOST: u32 = 100_000;

/// How many calls may block in a session that must end, until it is wrong, and until it is hopeless.
const AFTER_END_MOST: u32 = 50;
const AFTER_END_HOPELESS: u32 = 10_000;

/// Longer than any client takes, and all of them one after the other.
const TIME_MOST: Duration = Duration::from_secs(48 * 3_600);

/// How the blocking driver gets on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    readings: u32,
    unheard: u32,
    /// How many calls have blocked in a session that must end.
    after_end: u32,
}

/// What a thread waits for.
pub(in crate::testing::simulation) struct Blocked<'a> {
    pub(in crate::testing::simulation) wire: usize,
    /// What poll(2) is to report of the wire; `None` is not to look at it.
    pub(in crate::testing::simulation) events: Option<libc::c_short>,
    pub(in crate::testing::simulation) timeout: Option<Duration>,
    /// What wakes the session, if a waker exists, and whether it ends this wait.
    pub(in crate::testing::simulation) bell: Option<&'a Wakeup>,
    pub(in crate::testing::simulation) interrupt: &'a Interrupt,
    pub(in crate::testing::simulation) call: BlockingCall,
}

/// The call in which a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing::simulation) enum BlockingCall {
    /// A read hears neither wakes nor the shutdown's descriptor.
    Read,
    Poll,
    /// A poll that does not look at the descriptor for wakes, by mistake.
    DeafPoll,
}

/// Whether the model begins or has ended to refuse a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing::simulation) enum Refusing {
    Begins,
    Ends,
}

/// What ended the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing::simulation) enum Unblocked {
    Ready,
    TimedOut,
    Interrupted,
}

impl Network {
    /// Returns the wire that was accepted last, which the model is about to serve.
    pub(in crate::testing::simulation) fn accepted(&self) -> usize {
        self.accepted
    }

    /// Notes that a connection is refused until further notice, whose protocol hears of nothing.
    pub(in crate::testing::simulation) fn note_refusing(&self, refusing: Refusing) {
        self.ledger.borrow_mut().is_refusing = refusing == Refusing::Begins;
    }

    /// Begins to serve a wire in the blocking driver. Returns false if the system does not let it.
    pub(in crate::testing::simulation) fn begin_blocking(&mut self, wire: usize) -> bool {
        if self.inject(Call::Register, Some(wire)).is_err() {
            return false;
        }

        self.pace = Pace::default();
        let it = &mut self.wires[wire];
        it.is_blocking = true;
        it.broken_since = self.elapsed;
        true
    }

    /// Plans the shutdown for a time at which the server may be anywhere, and sometimes a second
    /// request, which ends everything at once.
    pub(in crate::testing::simulation) fn plan_shutdown(&mut self) {
        let most = self.random.pick(&[300_000, 20_000_000, 600_000_000]);
        let at = Duration::from_micros(self.random.below(most) as u64);
        self.timeline.plan(at, Action::Shutdown);

        if self.random.below(4) == 0 {
            let later = Duration::from_micros(self.random.below(12_000_000) as u64);
            self.timeline.plan(at + later, Action::Shutdown);
        }
    }

    /// Requests the shutdown. After the second time everything is to end.
    pub(in crate::testing::simulation) fn request_shutdown(&mut self) {
        self.requests += 1;
        self.shutdown_news = true;
        let now = self.elapsed;
        let asked = *self.shutdown.get_or_insert(now);

        let mut ledger = self.ledger.borrow_mut();
        ledger.may_close = true;
        ledger.asked = Some(asked);
        let timeout = ledger.config.drain_timeout;
        let drained = timeout.map(|timeout| asked.saturating_add(timeout));
        let at_once = (self.requests > 1).then_some(now);
        let ends = [ledger.drained, drained, at_once];
        ledger.drained = ends.into_iter().flatten().min();

        // A session that is being served hears of it before the loop does.
        let is_blocking = ledger.is_blocking;
        for wire in self.wires.iter().filter(|it| is_blocking && !it.is_done) {
            ledger.accounts[wire.number].justification(Justification::Shutdown);
        }
    }

    pub(in crate::testing::simulation) fn is_shutdown(&self) -> bool {
        self.requests > 0
    }

    /// Returns how often the shutdown was requested.
    pub(in crate::testing::simulation) fn requests(&self) -> usize {
        self.requests
    }

    /// Notes a reading of the clock. Ends a driver that does nothing else.
    pub(in crate::testing::simulation) fn note_reading(&mut self, interrupt: &Interrupt) {
        self.pace.readings += 1;
        if self.pace.readings > READINGS_MOST {
            self.object("the blocking driver spins: it only reads the clock");
        }
        self.end_drain(interrupt);
    }

    /// Begins a call: lets happen what has come due, and objects to a driver that spins.
    pub(in crate::testing::simulation) fn begin_call(&mut self) {
        self.check_turn();
        self.progress.begin_call();
        self.pace.readings = 0;
        self.note(10, 0);
        self.elapsed += Duration::from_micros(1);
        self.catch_up();
    }

    /// Lets happen what came due while the protocol computed.
    pub(in crate::testing::simulation) fn catch_up(&mut self) {
        self.absorb();
        self.happen();
    }

    /// Lets time pass, whatever happens. The driver pauses after calls that were interrupted or found no memory.
    /// If it reads few bytes at a time, all pauses together may be longer than a deadline.
    pub(in crate::testing::simulation) fn sleep(&mut self, duration: Duration) {
        self.absorb();
        for wire in 0..self.wires.len() {
            self.hold_up(wire, duration);
        }
        let end = self.elapsed.saturating_add(duration);
        while let Some(next) = self.timeline.next().filter(|next| *next < end) {
            self.elapsed = self.elapsed.max(next);
            self.happen();
        }
        self.elapsed = end;
        self.progress.has_waited = true;
        self.happen();
    }

    /// Returns what poll(2) would report of a wire.
    pub(in crate::testing::simulation) fn polled(
        &self,
        wire: usize,
        events: libc::c_short,
    ) -> libc::c_short {
        let it = &self.wires[wire];
        let broken = it.broken != Broken::No;
        // The end of a stream is one of two, but a Unix socket that was closed has hung up. It is not
        // reset after that.
        let is_closed = it.has_gaps && it.habits.resets_at.is_none();
        let is_closed = is_closed && it.has_all(&self.ledger.borrow());
        let both_ended = it.up.end_arrived && (it.down.ended || is_closed);

        let input = it.up.waiting() > 0 || it.up.end_arrived || broken;
        let output = it.down.room() > 0 || broken;
        let facts = [
            (input, events & libc::POLLIN),
            (output, events & libc::POLLOUT),
            (it.broken == Broken::Untold, libc::POLLERR),
            (broken || both_ended, libc::POLLHUP),
        ];
        let holding = facts.iter().filter(|(holds, _)| *holds);
        holding.fold(0, |all, (_, event)| all | event)
    }

    /// Runs the world until what the thread waits for is there. `beside` is what other threads do,
    /// such as to wake the session.
    pub(in crate::testing::simulation) fn block(
        &mut self,
        blocked: &Blocked<'_>,
        beside: &mut dyn FnMut(Instant),
    ) -> Unblocked {
        self.check_wait(blocked.timeout);
        self.check_told(blocked);
        if self.random.chance(self.faults.clock_jumps) {
            self.jump();
            self.happen();
        }

        let began = self.elapsed;
        let end = self.end_of(blocked);
        let mut beside_at = blocked.bell.map(|_| began + self.soon());

        loop {
            self.end_drain(blocked.interrupt);
            if self.is_ready(blocked, end) {
                return Unblocked::Ready;
            }
            if end.is_some_and(|end| end <= self.elapsed) {
                return Unblocked::TimedOut;
            }

            self.check_patience(blocked);
            let signal = self.next_signal(blocked.interrupt, began);
            let denied = Some(self.wires[blocked.wire].denied_until);
            let denied = denied.filter(|at| *at > self.elapsed);
            let next = [self.timeline.next(), end, signal, beside_at, denied];
            let Some(next) = next.into_iter().flatten().min() else {
                return self.stall(blocked.interrupt);
            };

            self.progress.has_waited |= next > self.elapsed;
            self.elapsed = self.elapsed.max(next);
            self.happen();
            if beside_at.take_if(|at| *at <= self.elapsed).is_some() {
                beside(self.origin + self.elapsed);
            }
            if signal.is_some_and(|at| at <= self.elapsed) && !self.is_ready(blocked, end) {
                self.end_drain(blocked.interrupt);
                return Unblocked::Interrupted;
            }
        }
    }

    /// Returns when the wait times out. A read may do so a little early or late.
    fn end_of(&mut self, blocked: &Blocked<'_>) -> Option<Duration> {
        let mut timeout = blocked.timeout?;
        if blocked.call == BlockingCall::Read && self.random.chance(self.faults.delayed_events) {
            let shift = Duration::from_micros(self.random.below(TICK) as u64);
            timeout = match self.random.below(2) {
                0 => timeout.saturating_sub(shift),
                _ => timeout.saturating_add(shift),
            };
        }
        Some(self.elapsed.saturating_add(timeout))
    }

    fn soon(&mut self) -> Duration {
        Duration::from_micros(self.random.below(BESIDE_WITHIN) as u64)
    }

    fn is_ready(&self, blocked: &Blocked<'_>, end: Option<Duration>) -> bool {
        let it = &self.wires[blocked.wire];
        let is_denied = it.denied_until > self.elapsed && end.is_none_or(|end| end > self.elapsed);
        let events = blocked.events.filter(|_| !is_denied);
        if events.is_some_and(|events| self.polled(blocked.wire, events) != 0) {
            return true;
        }

        let is_woken = blocked.bell.is_some_and(Wakeup::is_set);
        let is_asked = self.is_shutdown() && !blocked.interrupt.is_told();
        match blocked.call {
            BlockingCall::Read => false,
            BlockingCall::Poll => is_woken || is_asked,
            BlockingCall::DeafPoll => is_asked,
        }
    }

    /// Returns when the server interrupts the thread next: because of a shutdown of which the session
    /// does not know, or when it must end. A signal that comes between two calls has no effect.
    fn next_signal(&self, interrupt: &Interrupt, began: Duration) -> Option<Duration> {
        let asked = self.shutdown?;
        let first = match interrupt.is_told() {
            false => asked,
            true => self.drained()?,
        };
        if first > began {
            return Some(first);
        }

        let again = INTERRUPT_AGAIN.as_micros();
        let count = (began - first).as_micros() / again + 1;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Some(first.saturating_add(INTERRUPT_AGAIN.saturating_mul(count)))
    }

    fn drained(&self) -> Option<Duration> {
        self.ledger.borrow().drained
    }

    /// Ends the session, as the server does when the drain is over. It also ends one with which
    /// something is wrong, so that the run comes to an end.
    fn end_drain(&self, interrupt: &Interrupt) {
        let is_over = self.drained().is_some_and(|at| at <= self.elapsed);
        if is_over || self.ledger.borrow().violation.is_some() {
            interrupt.end();
        }
    }

    /// Objects to a thread that blocks although the session must end, or does not know of the shutdown.
    fn check_told(&mut self, blocked: &Blocked<'_>) {
        self.pace.after_end += u32::from(blocked.interrupt.is_ended());
        if self.pace.after_end > AFTER_END_MOST {
            self.object("a thread goes on blocking although its session must end");
        }
        let count = self.pace.after_end;
        assert!(count < AFTER_END_HOPELESS, "the blocking driver never ends");

        if !self.is_shutdown() || blocked.interrupt.is_told() {
            self.pace.unheard = 0;
            return;
        }
        self.pace.unheard += 1;
        if self.pace.unheard > UNHEARD_MOST {
            self.object("a thread goes on blocking although a shutdown is requested");
        }
    }

    /// Objects to a thread that lets time pass although its session was woken, or without end.
    fn check_patience(&self, blocked: &Blocked<'_>) {
        let number = self.wires[blocked.wire].number;
        let is_over = self.ledger.borrow().accounts[number].end.is_some();
        let problem = if !is_over && blocked.bell.is_some_and(Wakeup::is_set) {
            "a thread blocks although its session was woken"
        } else if self.elapsed > TIME_MOST {
            "there is no end"
        } else {
            return;
        };
        self.object(problem);
    }

    fn stall(&self, interrupt: &Interrupt) -> Unblocked {
        let mut ledger = self.ledger.borrow_mut();
        let open = ledger.open_ones();
        ledger.object(format!("a stall: a thread waits for nothing{open}"));
        interrupt.end();
        Unblocked::Interrupted
    }

    /// Draws whether a signal ends a wait.
    pub(in crate::testing::simulation) fn is_interrupted(&mut self) -> bool {
        self.random.chance(self.faults.interrupted_waits)
    }

    /// Draws how much memory other connections hold while this wire is served.
    pub(in crate::testing::simulation) fn held_by_others(&mut self, wire: usize) -> usize {
        if !self.random.chance(self.faults.small_limits / 8) {
            return 0;
        }
        let most = self.ledger.borrow().config.max_buffered;
        self.justification(self.wires[wire].number, Justification::Crowded);
        self.random.below(most)
    }

    /// Returns whether the process has a descriptor left for the waker of the wire that is served.
    pub(in crate::testing::simulation) fn has_descriptor(&self) -> bool {
        self.open < self.descriptors
    }

    pub(in crate::testing::simulation) fn note_no_waker(&self, wire: usize) {
        self.justification(self.wires[wire].number, Justification::Failed("eventfd"));
    }

    /// Returns the bug that is re-enacted.
    pub(in crate::testing::simulation) fn slipping(&self) -> Option<Slip> {
        self.ledger.borrow().slip
    }

    pub(in crate::testing::simulation) fn object(&self, problem: &str) {
        self.ledger.borrow_mut().object(problem.to_owned());
    }
}
