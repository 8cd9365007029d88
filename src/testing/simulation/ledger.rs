//! The account of every byte: what each client sent and got, what the protocol was told, and what
//! may excuse that something is missing.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::random::Random;

/// A fault of the loop itself that is re-enacted, to see whether it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slip {
    /// What a connection kept that ended by a panic is never subtracted from what all keep.
    KeepsAccount,
    /// A protocol is asked for its deadline after it was told of its end.
    AsksAfterEnd,
}

/// Kept by the network and by the witness of each protocol; read by the simulation at the end.
pub(super) type SharedLedger = Rc<RefCell<Ledger>>;

/// The number of a session's account, known once there is one.
pub(super) type Number = Rc<Cell<Option<usize>>>;

/// Something that the network did to a connection, after which it need not be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Justification {
    /// The client reset it.
    Reset,
    /// The client stopped for good.
    Vanished,
    /// The client took longer than deadlines allow.
    Slow,
    /// Time jumped.
    Jump,
    /// A call failed, by this name.
    Failed(&'static str),
    /// It was closed before it was registered.
    Refused,
    /// The server was shut down.
    Shutdown,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(in crate::testing) config: Config,
    pub(super) accounts: Vec<ConnectionRecord>,
    /// The time since the beginning.
    pub(in crate::testing) now: Duration,
    /// The first thing that must not be.
    pub(super) violation: Option<String>,
    numbers: HashMap<Address, usize>,
    /// Outbound sessions whose connections the loop has not asked for yet.
    pub(super) connecting: VecDeque<Number>,
    /// Whether listeners may be closed: the server was told to end, or they were made to fail.
    pub(super) may_close: bool,
    /// Sessions that began, and those that were told of their end.
    pub(super) sessions: u64,
    pub(super) lost: u64,
    /// How long protocols have computed since the network last looked, and what decides for how long
    /// they do.
    pub(super) computed: Duration,
    pub(super) computing: Option<(Random, u16)>,
    /// What each open session said when it was last asked for its deadline.
    pub(super) deadlines: HashMap<u64, Instant>,
    /// The loop's own fault that is re-enacted, and what it has left behind.
    pub(super) slip: Option<Slip>,
    pub(super) slipped: usize,
}

/// The longest that a protocol computes, in milliseconds. Shorter than the least is no different from
/// not at all.
const COMPUTES_LEAST: usize = 20;
const COMPUTES_MOST: usize = 500;

impl Ledger {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    pub(super) fn open(&mut self, account: ConnectionRecord) -> usize {
        let number = self.accounts.len();
        self.numbers.insert(account.address.clone(), number);
        self.accounts.push(account);
        number
    }

    /// A protocol's method runs, and may take its time.
    pub(super) fn compute(&mut self) {
        let Some((random, rate)) = &mut self.computing else {
            return;
        };
        if random.chance(*rate) {
            let millis = random.between(COMPUTES_LEAST, COMPUTES_MOST);
            self.computed += Duration::from_millis(millis as u64);
        }
    }

    /// The account of the client at an address.
    pub(super) fn number(&self, address: &Address) -> Option<usize> {
        self.numbers.get(address).copied()
    }

    pub(super) fn object(&mut self, problem: String) {
        self.violation.get_or_insert(problem);
    }

    /// Objects to something about one client.
    pub(super) fn object_to(&mut self, number: usize, problem: &str) {
        let address = &self.accounts[number].address;
        let problem = format!("client {number} ({address}): {problem}");
        self.object(problem);
    }

    /// Notes that the protocol was told the end.
    pub(super) fn note_lost(&mut self, number: usize, reason: &CloseReason) {
        let account = &self.accounts[number];
        if let Some(problem) = account.early(reason, self.now, &self.config) {
            self.object_to(number, &problem);
        }
        let account = &mut self.accounts[number];
        account.end = Some(End::of(reason));
    }

    /// The connections that are still open, and how far each has come.
    pub(super) fn open_ones(&self) -> String {
        let open = self.accounts.iter().filter(|it| it.end.is_none());
        let lines = open.map(|it| {
            format!(
                "\n  {}: {} of {} bytes were read, {} taken by the protocol, {} of {} written, {} received; {:?}",
                it.address,
                it.read,
                it.exchange.sends.len(),
                it.told,
                it.written,
                it.exchange.expects.len(),
                it.received,
                it.justifications
            )
        });
        lines.collect()
    }

    /// Looks at what has become of every client.
    ///
    /// # Errors
    /// What must not be.
    pub(super) fn judge(&self) -> Result<(), String> {
        if let Some(problem) = &self.violation {
            return Err(problem.clone());
        }
        for (number, account) in self.accounts.iter().enumerate() {
            account.judge().map_err(|problem| {
                let address = &account.address;
                format!("client {number} ({address}): {problem}")
            })?;
        }
        Ok(())
    }
}

/// How a connection ended, as its protocol was told.
#[derive(Clone, Debug)]
pub(super) struct End {
    text: String,
    in_order: bool,
    late: bool,
    drained: bool,
}

impl End {
    fn of(reason: &CloseReason) -> Self {
        Self {
            text: reason.to_string(),
            in_order: matches!(
                reason,
                CloseReason::Closed | CloseReason::PeerClosed | CloseReason::Protocol(_)
            ),
            late: matches!(reason, CloseReason::TimedOut(_)),
            drained: matches!(
                reason,
                CloseReason::Shutdown | CloseReason::TimedOut(Deadline::Drain)
            ),
        }
    }
}

/// One client's account.
#[derive(Debug)]
pub(super) struct ConnectionRecord {
    pub(in crate::testing) address: Address,
    pub(super) exchange: Rc<Exchange>,
    pub(super) justifications: Vec<Justification>,
    /// Bytes that the loop read, those that the protocol took, those that the loop wrote, and those
    /// that the client took.
    pub(super) read: usize,
    pub(super) told: usize,
    pub(super) written: usize,
    pub(super) received: usize,
    /// When it was accepted, when a byte last moved, and when output last moved.
    pub(super) began: Duration,
    pub(super) moved: Duration,
    pub(super) wrote: Duration,
    pub(super) end: Option<End>,
}

impl ConnectionRecord {
    pub(super) fn new(address: Address, exchange: Rc<Exchange>) -> Self {
        Self {
            address,
            exchange,
            justifications: Vec::new(),
            read: 0,
            told: 0,
            written: 0,
            received: 0,
            began: Duration::ZERO,
            moved: Duration::ZERO,
            wrote: Duration::ZERO,
            end: None,
        }
    }

    pub(super) fn justification(&mut self, justification: Justification) {
        if !self.justifications.contains(&justification) {
            self.justifications.push(justification);
        }
    }

    /// What is wrong with a deadline that has passed, if it has not.
    fn early(&self, reason: &CloseReason, now: Duration, config: &Config) -> Option<String> {
        let CloseReason::TimedOut(deadline) = reason else {
            return None;
        };
        let (since, timeout) = match deadline {
            Deadline::FirstMessage => (self.began, config.first_message_timeout),
            Deadline::Message => (self.began, config.message_timeout),
            Deadline::Idle => (self.moved, config.idle_timeout),
            Deadline::Write => (self.wrote, config.write_timeout),
            Deadline::Connect | Deadline::Drain => return None,
        };
        let passed = now - since;
        let early = timeout.is_none_or(|timeout| passed < timeout);
        early.then(|| format!("{reason}, but only {passed:?} had passed"))
    }

    fn judge(&self) -> Result<(), String> {
        let due = self.exchange.expects.len();
        let received = self.received;
        let is_free = self.exchange.may_be_cut || !self.justifications.is_empty();
        if let Some(end) = self.end.as_ref().filter(|end| end.late && !is_free) {
            return Err(format!(
                "it was never late, but the protocol was told: {}",
                end.text
            ));
        }
        if received == due || self.exchange.may_be_cut || self.is_excused() {
            return Ok(());
        }
        let end = self.end.as_ref().map_or("nothing", |end| &end.text);
        Err(format!(
            "got {received} of {due} bytes; the protocol was told: {end}; what happened to it: {:?}",
            self.justifications
        ))
    }

    /// Whether what happened to the connection explains how it ended.
    fn is_excused(&self) -> bool {
        self.justifications
            .iter()
            .any(|justification| match justification {
                Justification::Reset
                | Justification::Vanished
                | Justification::Failed(_)
                | Justification::Refused => true,
                // A client can be late after our end too, in taking what was sent before.
                Justification::Slow | Justification::Jump => self
                    .end
                    .as_ref()
                    .is_some_and(|end| end.late || end.in_order || end.drained),
                Justification::Shutdown => self
                    .end
                    .as_ref()
                    .is_none_or(|end| end.drained || end.in_order),
            })
    }
}
