//! Injected failures: which calls fail, and with which errors.

use std::io;
use std::time::Duration;

use crate::testing::simulation::ledger::Justification;
use crate::testing::simulation::network::Network;
use crate::testing::simulation::network::action::Action;
use crate::testing::simulation::network::stuck::{STICKS_FOR, Stuck};

/// A call that the system can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// `accept(2)`
    Accept,
    /// Registering a connection, as with `epoll_ctl(2)`.
    Register,
    /// `connect(2)`
    Connect,
    /// Checking the outcome of a connect.
    Connected,
    /// `read(2)`
    Read,
    /// `write(2)`
    Write,
    /// `shutdown(2)`
    Finish,
    /// `recvfrom(2)`
    Receive,
    /// `sendto(2)`
    Send,
}

impl Call {
    /// Returns the `errno` values that the call can fail with.
    #[must_use]
    pub fn errors(self) -> &'static [i32] {
        match self {
            Self::Accept => ACCEPT_ERRORS,
            Self::Register => REGISTER_ERRORS,
            Self::Connect => CONNECT_ERRORS,
            Self::Connected => CONNECTED_ERRORS,
            Self::Read => READ_ERRORS,
            Self::Write => WRITE_ERRORS,
            Self::Finish => FINISH_ERRORS,
            Self::Receive => RECEIVE_ERRORS,
            Self::Send => SEND_ERRORS,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Register => "register",
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Read => "read",
            Self::Write => "write",
            Self::Finish => "finish",
            Self::Receive => "receive",
            Self::Send => "send",
        }
    }
}

// EAGAIN and EINTR come first where they are possible. They only mean "not now".
const ACCEPT_ERRORS: &[i32] = &[
    libc::EAGAIN,
    libc::EINTR,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::ECONNABORTED,
    libc::EPROTO,
    libc::EPERM,
    libc::ENETDOWN,
    libc::EHOSTUNREACH,
    libc::ETIMEDOUT,
    libc::EBADF,
    libc::EINVAL,
];
const REGISTER_ERRORS: &[i32] = &[libc::ENOSPC, libc::ENOMEM, libc::EPERM];
const CONNECT_ERRORS: &[i32] = &[
    libc::ECONNREFUSED,
    libc::ETIMEDOUT,
    libc::ENETUNREACH,
    libc::EADDRNOTAVAIL,
    libc::EACCES,
    libc::EMFILE,
    libc::ENOBUFS,
];
const CONNECTED_ERRORS: &[i32] = &[
    libc::EAGAIN,
    libc::ECONNREFUSED,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ECONNRESET,
];
const READ_ERRORS: &[i32] = &[
    libc::EAGAIN,
    libc::EINTR,
    libc::ECONNRESET,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ENOMEM,
    libc::EIO,
    libc::ENOTCONN,
];
const WRITE_ERRORS: &[i32] = &[
    libc::EAGAIN,
    libc::EINTR,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::EPIPE,
    libc::ECONNRESET,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::EIO,
];
const FINISH_ERRORS: &[i32] = &[libc::ENOTCONN, libc::ENOBUFS];
const RECEIVE_ERRORS: &[i32] = &[
    libc::EAGAIN,
    libc::EINTR,
    libc::ECONNREFUSED,
    libc::ENOMEM,
    libc::ENOBUFS,
    libc::EBADF,
];
const SEND_ERRORS: &[i32] = &[
    libc::EAGAIN,
    libc::EINTR,
    libc::EPERM,
    libc::ENOBUFS,
    libc::EMSGSIZE,
    libc::ECONNREFUSED,
    libc::ENETUNREACH,
    libc::EINVAL,
];

/// Which call must fail, and the calls that were made.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) failing: Option<(usize, i32)>,
    pub(super) sticking: Option<(usize, i32)>,
    /// Which call must move one byte only.
    pub(super) shortened: Option<usize>,
    pub(super) stuck: Option<Stuck>,
    /// How many calls to accept or receive have failed in a row, and since when.
    pub(super) fruitless: u32,
    pub(super) fruitless_since: Duration,
    /// The outbound session whose socket the current call is on, and the one of those calls.
    pub(super) outbound: Option<usize>,
    pub(super) fruitless_of: Option<usize>,
    pub(super) records: bool,
    pub(super) calls: Vec<Call>,
    count: usize,
}

impl Plan {
    fn count(&mut self, call: Call) -> Option<i32> {
        if self.records {
            self.calls.push(call);
        }
        self.count += 1;
        let (number, error) = self.failing?;
        (number + 1 == self.count).then_some(error)
    }

    /// Begins a stuck period if this is the chosen call.
    fn stick(&mut self, call: Call, now: Duration) {
        let begins = |(number, _): &(usize, i32)| *number + 1 == self.count;
        if let Some((_, error)) = self.sticking.filter(begins) {
            let (from, until) = (now, now + STICKS_FOR);
            self.stuck = Some(Stuck {
                call,
                error,
                from,
                until,
            });
        }
    }

    fn is_stuck(&self, call: Call, now: Duration) -> Option<i32> {
        let stuck = self.stuck.as_ref()?;
        let is_now = stuck.call == call && (stuck.from..stuck.until).contains(&now);
        is_now.then_some(stuck.error)
    }

    /// Returns whether the last call must move one byte only.
    pub(super) fn is_short(&self) -> bool {
        self.shortened
            .is_some_and(|number| number + 1 == self.count)
    }

    /// Records that something was accepted or received.
    pub(super) fn note_success(&mut self) {
        self.fruitless = 0;
    }
}

/// The longest delay, in microseconds, before readiness that a call denied is announced again.
const DENIED_MOST: usize = 5_000;

const LACK: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

impl Network {
    /// Fails the call if the plan or chance says so.
    pub(super) fn inject(&mut self, call: Call, wire: Option<usize>) -> io::Result<()> {
        self.absorb();
        let planned = self.trouble.count(call);
        self.trouble.stick(call, self.elapsed);
        if let Some(error) = self.trouble.is_stuck(call, self.elapsed) {
            if call != Call::Accept || self.has_line() {
                return self.stay_stuck(call, wire, error);
            }
        }

        let Some(error) = planned.or_else(|| self.draw(call)) else {
            return Ok(());
        };
        self.note(7, usize::try_from(error).unwrap_or(0));
        // Running into the same shortage again is not progress.
        self.progress.has_moved |= !LACK.contains(&error);
        self.apply_fault(call, wire, error);
        Err(io::Error::from_raw_os_error(error))
    }

    /// Fails a call on the socket of an outbound session if the plan or chance says so.
    pub(super) fn inject_into(&mut self, outbound: usize, call: Call) -> io::Result<()> {
        self.trouble.outbound = Some(outbound);
        let outcome = self.inject(call, None);
        self.trouble.outbound = None;
        outcome
    }

    /// Draws how long it takes until what a call denied is announced.
    pub(super) fn denied(&mut self) -> Duration {
        Duration::from_micros(self.random.below(DENIED_MOST) as u64)
    }

    fn draw(&mut self, call: Call) -> Option<i32> {
        let Self { random, faults, .. } = self;
        let blocks = !matches!(call, Call::Register | Call::Connect | Call::Finish);
        if blocks && random.chance(faults.interrupted) && call != Call::Connected {
            return Some(libc::EINTR);
        }
        if blocks && random.chance(faults.would_block) {
            return Some(libc::EAGAIN);
        }

        match call {
            Call::Accept => self.draw_for_accept(),
            Call::Register => random
                .chance(faults.register_errors)
                .then(|| random.pick(&[libc::ENOSPC, libc::ENOMEM])),
            Call::Read => random
                .chance(faults.read_errors)
                .then(|| random.pick(&call.errors()[2..])),
            Call::Write if random.chance(faults.out_of_memory) => {
                Some(random.pick(&[libc::ENOBUFS, libc::ENOMEM]))
            }
            Call::Write => random
                .chance(faults.write_errors)
                .then(|| random.pick(&call.errors()[4..])),
            Call::Finish => random
                .chance(faults.finish_errors)
                .then_some(libc::ENOTCONN),
            Call::Connect => random
                .chance(faults.connect_errors / 4)
                .then(|| random.pick(call.errors())),
            Call::Connected => None,
            Call::Receive => random
                .chance(faults.datagram_errors)
                .then(|| random.pick(&[libc::ECONNREFUSED, libc::ENOMEM])),
            Call::Send => random
                .chance(faults.datagram_errors)
                .then(|| random.pick(&call.errors()[2..])),
        }
    }

    fn draw_for_accept(&mut self) -> Option<i32> {
        let listener = self.listener.as_ref()?;
        if listener.backlog.is_empty() {
            return None;
        }

        if self.open >= self.descriptors {
            return Some(libc::EMFILE);
        }

        let errors = &Call::Accept.errors()[3..12];
        self.random
            .chance(self.faults.accept_errors)
            .then(|| self.random.pick(errors))
    }

    /// Plans the event that tells that a datagram socket has room again.
    pub(super) fn plan_room(&mut self) {
        let again = self.elapsed + self.denied();
        self.timeline.plan(again, Action::AnnouncePost);
    }

    /// Applies the consequences of a failure to the wire or listener it concerns.
    fn apply_fault(&mut self, call: Call, wire: Option<usize>, error: i32) {
        let denied = self.denied();
        let again = self.elapsed + denied;
        let outbound = self.trouble.outbound;

        match (call, wire) {
            (Call::Accept, _) if error == libc::EAGAIN => {
                self.timeline.plan(again, Action::AnnounceDoor);
            }
            (Call::Accept, _) => self.suffer_accept(error),
            (Call::Receive, _) if error == libc::EAGAIN => {
                let announce = outbound.map_or(Action::AnnouncePost, Action::AnnounceOutbound);
                self.timeline.plan(again, announce);
            }
            (Call::Receive, _) if error == libc::EBADF && outbound.is_none() => {
                self.ledger.borrow_mut().may_close = true;
            }
            (_, Some(wire)) if error == libc::EAGAIN => {
                self.wires[wire].is_starved |= call == Call::Write;
                self.wires[wire].denied_until = again;
                self.announce_later(wire, denied);
            }
            (Call::Write, Some(wire)) if [libc::ENOBUFS, libc::ENOMEM].contains(&error) => {
                let pause = self.ledger.borrow().config.accept_pause;
                self.hold_up(wire, pause);
            }
            (_, Some(wire)) if error != libc::EINTR => {
                self.justification(self.wires[wire].number, Justification::Failed(call.name()));
            }
            _ => {}
        }
    }

    fn suffer_accept(&mut self, error: i32) {
        match error {
            libc::EBADF | libc::EINVAL => self.ledger.borrow_mut().may_close = true,
            libc::EINTR => {}
            error if LACK.contains(&error) => {}
            _ => self.lose_first_in_line(),
        }
    }

    /// Drops the client that would have been accepted.
    fn lose_first_in_line(&mut self) {
        let taken = self
            .listener
            .as_mut()
            .and_then(|listener| listener.backlog.pop_front());
        if let Some(wire) = taken {
            self.justification(self.wires[wire].number, Justification::Failed("accept"));
            self.wires[wire].is_closed = true;
            self.cut(wire);
        }
    }
}
