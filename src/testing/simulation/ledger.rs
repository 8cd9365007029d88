//! The ledger of a simulation: what each client sent and received, what its protocol saw, and which
//! faults excuse missing bytes.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::session::Ended;
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::outbound::OutboundRecord;
use crate::testing::simulation::random::Random;

/// A bug in the event loop or in the blocking driver that is re-enacted on purpose, to check that the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slip {
    /// The memory of a connection that panicked is never subtracted from the total.
    KeepsAccount,
    /// A protocol is asked for its deadline after `connection_lost`.
    AsksAfterEnd,
    /// A report that a datagram did not arrive ends the session of its peer.
    EndsByReport,
    /// The blocking driver sets the time that a read may wait once and for all.
    KeepsReadTimeout,
    /// The blocking driver takes a read that timed out for a connection that the system gave up.
    TakesTimeoutForFailure,
    /// The blocking driver does not look for wakes while output waits.
    IsDeafWhileSending,
    /// The blocking driver waits for input alone while output waits.
    NeverWaitsForRoom,
    /// The blocking driver looks again and again at a connection that has hung up.
    SpinsOnHangUp,
    /// The blocking driver never tells its session of the shutdown.
    NeverTellsOfShutdown,
    /// The blocking driver forgets that it has told its session of the shutdown.
    TellsOfShutdownTwice,
    /// The blocking driver closes as soon as it has ended its side.
    LingersBriefly,
}

/// The ledger, shared by the network, the witness of each protocol, and the simulation, which
/// judges it.
pub(super) type SharedLedger = Rc<RefCell<Ledger>>;

/// The number of a session's account, once it is known.
pub(super) type Number = Rc<Cell<Option<usize>>>;

/// Something that happened to a connection and excuses it from being complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Justification {
    /// The client reset the connection.
    Reset,
    /// The client stopped for good.
    Vanished,
    /// The client was slower than the deadlines allow, or may have been kept waiting that long.
    Slow,
    /// The clock jumped.
    Jump,
    /// The named call failed.
    Failed(&'static str),
    /// The server closed it before it was registered.
    Refused,
    /// The server was shut down.
    Shutdown,
    /// The client ended its stream without the end mark of its layer.
    Truncated,
    /// Other connections hold memory.
    Crowded,
}

/// Where a stream is watched: on the wire, or inside the layer that the connection goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Wire,
    Inside,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(in crate::testing) config: Config,
    pub(super) accounts: Vec<ConnectionRecord>,
    /// The time since the run began.
    pub(in crate::testing) now: Duration,
    /// The first violation found.
    pub(super) violation: Option<String>,
    numbers: HashMap<Address, usize>,
    /// Outbound sessions that the loop has not connected yet.
    pub(super) connecting: VecDeque<Number>,
    /// Outbound sessions of datagrams, and the one that begins now.
    pub(super) outbound: Vec<OutboundRecord>,
    pub(super) opened: Option<usize>,
    /// Whether an outbound connection could not even be begun.
    pub(super) lost_connects: bool,
    /// Whether listeners may be closed, because the server was told to shut down or an error made
    /// them unusable.
    pub(super) may_close: bool,
    /// When the shutdown was requested, and when it ends what is still open.
    pub(super) asked: Option<Duration>,
    pub(super) drained: Option<Duration>,
    /// The blocking driver serves, which is never late for other connections' sake.
    pub(super) is_blocking: bool,
    /// A connection is being refused because the system has no room to serve it.
    pub(super) is_refusing: bool,
    /// How many sessions began, and how many were told that they ended.
    pub(super) sessions: u64,
    pub(super) lost: u64,
    /// The same of the protocols inside layers, and the account of the one that is called.
    pub(super) sessions_inside: u64,
    pub(super) lost_inside: u64,
    pub(super) calling: Option<usize>,
    /// Whether a protocol has consumed anything since the network last checked. One that is shown a
    /// message per turn, and answers none, makes progress without a call.
    pub(super) has_told: bool,
    /// How long protocols have computed since the network last checked, and the source and rate of
    /// such delays.
    pub(super) computed: Duration,
    pub(super) computing: Option<(Random, u16)>,
    /// The deadline that each open session last returned.
    pub(super) deadlines: HashMap<u64, Instant>,
    /// The bug that is re-enacted, and how many bytes it has left in the account.
    pub(super) slip: Option<Slip>,
    pub(super) slipped: usize,
    /// Peers whose session of datagrams has ended by a deadline, with what waited for them.
    pub(super) timed_out: Vec<Address>,
}

/// The range of a protocol's computing time, in milliseconds. A shorter time would make no
/// difference.
const COMPUTES_LEAST: usize = 20;
const COMPUTES_MOST: usize = 500;

impl Ledger {
    /// Records the end of a session of datagrams.
    pub(super) fn note_peer_lost(&mut self, ended: &Ended<'_>) {
        let (peer, reason) = (ended.peer(), ended.reason());
        match reason {
            CloseReason::TimedOut(_) => self.timed_out.push(peer.address().clone()),
            CloseReason::Io(error) if is_report(error) => {
                self.object(format!("{peer}: a report ended the session: {reason}"));
            }
            _ => {}
        }
    }

    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Returns the shortest time after which the configuration ends a connection.
    pub(super) fn shortest_deadline(&self) -> Duration {
        let limits = &self.config.limits;
        let deadlines = [
            limits.handshake_timeout,
            limits.first_message_timeout,
            limits.message_timeout,
            limits.idle_timeout,
            limits.write_timeout,
        ];
        deadlines
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::MAX)
    }

    pub(super) fn open(&mut self, account: ConnectionRecord) -> usize {
        let number = self.accounts.len();
        self.numbers.insert(account.address.clone(), number);
        self.accounts.push(account);
        number
    }

    /// Counts a session, and returns its number.
    pub(super) fn note_session(&mut self, place: Place) -> u64 {
        let count = self.sessions_at(place);
        *count += 1;
        *count
    }

    pub(super) fn sessions_at(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Wire => &mut self.sessions,
            Place::Inside => &mut self.sessions_inside,
        }
    }

    /// Draws how long a protocol's method computes.
    pub(super) fn compute(&mut self) {
        let Some((random, rate)) = &mut self.computing else {
            return;
        };
        if random.chance(*rate) {
            let millis = random.between(COMPUTES_LEAST, COMPUTES_MOST);
            self.computed += Duration::from_millis(millis as u64);
        }
    }

    /// Returns the account number of the client at an address.
    pub(super) fn number(&self, address: &Address) -> Option<usize> {
        self.numbers.get(address).copied()
    }

    pub(super) fn object(&mut self, problem: String) {
        self.violation.get_or_insert(problem);
    }

    /// Records a violation that concerns one client.
    pub(super) fn object_to(&mut self, number: usize, problem: &str) {
        let address = &self.accounts[number].address;
        let problem = format!("client {number} ({address}): {problem}");
        self.object(problem);
    }

    /// Records that the protocol was told of a deadline. What it says now is not waited for.
    pub(super) fn note_deadline_passed(&mut self, number: usize, deadline: Deadline) {
        let account = &mut self.accounts[number];
        account.is_told = true;
        let since = (account.moved, account.wrote);
        let reason = CloseReason::TimedOut(deadline);
        if let Some(problem) = account.early(&reason, since, self.now, &self.config) {
            self.object_to(number, &problem);
        }
    }

    /// Records that the protocol was told its connection ended.
    pub(super) fn note_lost(&mut self, number: usize, reason: &CloseReason) {
        let account = &self.accounts[number];
        let since = match account.layered {
            Some(_) => account.before,
            None => (account.moved, account.wrote),
        };
        let problem = account
            .early(reason, since, self.now, &self.config)
            .filter(|_| !account.is_told)
            .or_else(|| {
                account
                    .late(reason, self.now, &self.config)
                    .filter(|_| self.is_blocking)
            })
            .or_else(|| self.early_drain(reason));
        if let Some(problem) = problem {
            self.object_to(number, &problem);
        }
        if let Some(problem) = self.accounts[number].mistaken(reason) {
            self.object_to(number, &problem);
        }

        // Clients that proxies name are counted only when their names have arrived.
        let is_crowd = self.accounts.len() > self.config.max_per_peer;
        let account = &mut self.accounts[number];
        if is_crowd && matches!(reason, CloseReason::Refused) {
            account.justification(Justification::Refused);
        }
        account.end = Some(End::of(reason));
    }

    /// Describes the connections that are still open and the progress of each.
    pub(super) fn open_ones(&self) -> String {
        let open = self.accounts.iter().filter(|it| it.end.is_none());
        let lines = open.map(|it| {
            format!(
                "\n  {}: {} of {} bytes were read, {} taken by the protocol, {} of {} written, {} received; {:?}",
                it.address,
                it.read,
                it.sends().len(),
                it.told,
                it.written,
                it.exchange.expects.len(),
                it.received,
                it.justifications
            )
        });
        lines.collect()
    }

    /// Checks the outcome of every client.
    ///
    /// # Errors
    /// Returns the first violation.
    pub(super) fn judge(&self) -> Result<(), String> {
        if let Some(problem) = &self.violation {
            return Err(problem.clone());
        }

        let is_troubled =
            self.lost_connects || self.accounts.iter().any(ConnectionRecord::is_troubled);
        for (number, account) in self.accounts.iter().enumerate() {
            account.judge(is_troubled).map_err(|problem| {
                let address = &account.address;
                format!("client {number} ({address}): {problem}")
            })?;
        }
        Ok(())
    }
}

/// How a connection ended, as reported to its protocol.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) text: String,
    pub(super) deadline: Option<Deadline>,
    pub(super) in_order: bool,
    pub(super) late: bool,
    pub(super) drained: bool,
    pub(super) truncated: bool,
    pub(super) shed: bool,
}

impl End {
    fn of(reason: &CloseReason) -> Self {
        Self {
            text: reason.to_string(),
            deadline: match reason {
                CloseReason::TimedOut(deadline) => Some(*deadline),
                _ => None,
            },
            in_order: matches!(
                reason,
                CloseReason::Closed | CloseReason::PeerClosed | CloseReason::Protocol(_)
            ),
            late: matches!(reason, CloseReason::TimedOut(_)),
            truncated: matches!(reason, CloseReason::Truncated),
            drained: matches!(
                reason,
                CloseReason::Shutdown | CloseReason::TimedOut(Deadline::Drain)
            ),
            shed: matches!(reason, CloseReason::Shed),
        }
    }
}

/// The account of one client.
#[derive(Debug)]
pub(super) struct ConnectionRecord {
    pub(in crate::testing) address: Address,
    pub(super) exchange: Rc<Exchange>,
    /// What is known of a connection through a layer.
    pub(super) layered: Option<LayeredRecord>,
    pub(super) justifications: Vec<Justification>,
    /// The bytes that the loop read, the protocol consumed, the loop wrote, and the client
    /// received. Those that the client received are plain.
    pub(super) read: usize,
    pub(super) told: usize,
    pub(super) written: usize,
    pub(super) received: usize,
    /// What the server has sent, if there are several right answers. Inside a layer, it is what the
    /// client has received.
    pub(super) answer: Vec<u8>,
    /// When the connection was accepted, when a byte last moved, and when output last moved.
    pub(super) began: Duration,
    pub(super) moved: Duration,
    pub(super) wrote: Duration,
    /// The last two as they were before the last write, which may be the end mark of a layer.
    before: (Duration, Duration),
    /// When its protocol was called last.
    pub(super) called: Duration,
    /// The protocol was told that a deadline has passed.
    is_told: bool,
    pub(super) end: Option<End>,
}

impl ConnectionRecord {
    pub(super) fn new(address: Address, exchange: Rc<Exchange>) -> Self {
        Self {
            address,
            exchange,
            layered: None,
            justifications: Vec::new(),
            read: 0,
            told: 0,
            written: 0,
            received: 0,
            answer: Vec::new(),
            began: Duration::ZERO,
            moved: Duration::ZERO,
            wrote: Duration::ZERO,
            before: (Duration::ZERO, Duration::ZERO),
            called: Duration::ZERO,
            is_told: false,
            end: None,
        }
    }

    /// Returns what the client has sent on the wire. Without a layer, it is what the client will
    /// send.
    pub(super) fn sends(&self) -> &[u8] {
        match &self.layered {
            Some(layered) => &layered.sends,
            None => &self.exchange.sends,
        }
    }

    /// Returns what the client sends at that place, how much of it has come so far, and how much
    /// the protocol there has consumed.
    pub(super) fn stream(&self, place: Place) -> (&[u8], usize, usize) {
        match &self.layered {
            Some(layered) if place == Place::Inside => {
                (&self.exchange.sends, layered.said, layered.told)
            }
            _ => (self.sends(), self.read, self.told),
        }
    }

    pub(super) fn note_told(&mut self, place: Place, count: usize) {
        match &mut self.layered {
            Some(layered) if place == Place::Inside => layered.told += count,
            _ => self.told += count,
        }
    }

    pub(super) fn justification(&mut self, justification: Justification) {
        if !self.justifications.contains(&justification) {
            self.justifications.push(justification);
        }
    }

    pub(super) fn note_written(&mut self, now: Duration) {
        if now > self.wrote {
            self.before = (self.moved, self.wrote);
        }
        (self.moved, self.wrote) = (now, now);
    }

    /// Returns a problem if the session timed out before its deadline, where bytes last moved, and output
    /// did, at these times.
    fn early(
        &self,
        reason: &CloseReason,
        (moved, wrote): (Duration, Duration),
        now: Duration,
        config: &Config,
    ) -> Option<String> {
        let CloseReason::TimedOut(deadline) = reason else {
            return None;
        };
        let (since, timeout) = match deadline {
            Deadline::FirstMessage => (self.began, config.limits.first_message_timeout),
            Deadline::Message => (self.began, config.limits.message_timeout),
            Deadline::Idle => (moved, config.limits.idle_timeout),
            Deadline::Write => (wrote, config.limits.write_timeout),
            Deadline::Connect | Deadline::Handshake | Deadline::Drain => return None,
        };

        let passed = now - since;
        let early = timeout.is_none_or(|timeout| passed < timeout);
        early.then(|| format!("{reason}, but only {passed:?} had passed"))
    }

    /// Returns a problem if a truncated stream is taken for one that ended, or the reverse.
    fn mistaken(&self, reason: &CloseReason) -> Option<String> {
        let layered = self.layered.as_ref()?;
        let may_lack_mark = self.justifications.iter().any(|it| {
            matches!(
                it,
                Justification::Truncated | Justification::Reset | Justification::Failed(_)
            )
        });

        let is_wrong = match reason {
            CloseReason::Truncated => !may_lack_mark,
            CloseReason::PeerClosed => {
                !layered.is_finished && self.read > self.exchange.preface.len()
            }
            _ => false,
        };
        let had = if layered.is_finished {
            "has"
        } else {
            "has not"
        };
        is_wrong.then(|| format!("{reason}, but the client {had} sent its end mark"))
    }
}

/// What is known of a connection through a layer, besides what its wire carries.
#[derive(Debug, Default)]
pub(super) struct LayeredRecord {
    /// The bytes that the client has for the wire so far.
    pub(super) sends: Vec<u8>,
    /// How many plain bytes the client has said, and how many the protocol inside has consumed.
    pub(super) said: usize,
    pub(super) told: usize,
    /// Whether the client has said the end mark.
    pub(super) is_finished: bool,
    /// Whether the client was told that the server's stream had none.
    pub(super) is_cut: bool,
}

/// Returns whether an error is what the network reports of a datagram.
fn is_report(error: &io::Error) -> bool {
    let reports = [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EMSGSIZE];
    error.raw_os_error().is_some_and(|it| reports.contains(&it))
}
