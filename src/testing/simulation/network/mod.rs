//! The simulated network: what an operating system does for a loop, as a seed decides.

mod calls;
mod clients;
mod datagrams;
mod events;
mod stuck;
mod trouble;

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::shutdown::ShutdownHandle;
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::faults::Faults;
use crate::testing::simulation::ledger::Slip;
use crate::testing::simulation::ledger::{Justification, SharedLedger};
use crate::testing::simulation::network::clients::Action;
use crate::testing::simulation::network::datagrams::DatagramQueue;
use crate::testing::simulation::network::events::Progress;
use crate::testing::simulation::random::{Random, mix};
use crate::testing::simulation::timeline::Timeline;
use crate::testing::simulation::wire::{Segment, Wire};
use crate::waker::Wake;

pub use trouble::Call;

pub(crate) use datagrams::Question;

/// A network that exists in memory only, with its clients, its clock and its faults.
///
/// Made by a [`Simulation`](crate::testing::Simulation). It keeps the contract of [`Net`](crate::net::Net) to the
/// letter, at its worst: an event comes once for each change and as late as it may, each call can
/// fail in every way that the system's may, and what is closed with unread input is reset.
pub struct Network {
    random: Random,
    faults: Faults,
    ledger: SharedLedger,
    timeline: Timeline<Action>,
    origin: Instant,
    elapsed: Duration,
    /// For how long protocols have computed.
    computed: Duration,
    wires: Vec<Wire>,
    listener: Option<Listener>,
    datagram_queue: DatagramQueue,
    /// Whom the server can connect to.
    remotes: Vec<(Address, Rc<Exchange>)>,
    /// Wires that have changed, and the tokens of some that are closed.
    changed: Vec<usize>,
    gone: Vec<usize>,
    descriptors: usize,
    open: usize,
    bell: Arc<Wakeup>,
    bell_token: usize,
    watched: Option<(ShutdownHandle, usize)>,
    progress: Progress,
    trouble: trouble::Plan,
    refused: u64,
    is_stalled: bool,
    has_rested: bool,
    trace: u64,
}

/// Where connections come in.
#[derive(Debug)]
struct Listener {
    token: usize,
    backlog: VecDeque<usize>,
    is_changed: bool,
}

#[derive(Debug, Default)]
struct Wakeup(AtomicBool);

impl Wake for Arc<Wakeup> {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a loop knows one of the network's sockets by.
#[derive(Debug, PartialEq, Eq)]
pub struct Handle(usize);

impl Network {
    pub(super) fn new(
        random: Random,
        faults: Faults,
        origin: Instant,
        ledger: &SharedLedger,
    ) -> Self {
        Self {
            random,
            faults,
            ledger: Rc::clone(ledger),
            timeline: Timeline::new(),
            origin,
            elapsed: Duration::ZERO,
            computed: Duration::ZERO,
            wires: Vec::new(),
            listener: None,
            datagram_queue: DatagramQueue::default(),
            remotes: Vec::new(),
            changed: Vec::new(),
            gone: Vec::new(),
            descriptors: usize::MAX,
            open: 0,
            bell: Arc::default(),
            bell_token: 0,
            watched: None,
            progress: Progress::default(),
            trouble: trouble::Plan::default(),
            refused: 0,
            is_stalled: false,
            has_rested: false,
            trace: 0,
        }
    }

    /// How many connections were closed before they were registered.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// How many sockets the loop has not given back.
    pub(super) fn open(&self) -> usize {
        self.open
            + usize::from(self.listener.is_some())
            + usize::from(self.datagram_queue.is_open())
    }

    /// Whether the loop waited without end though nothing was going to happen.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// A number that differs if anything went differently.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Which calls can be made to fail, in the order in which they were made.
    pub(super) fn calls(&self) -> &[Call] {
        &self.trouble.calls
    }

    /// Notes every call that can be made to fail, for the [`Report`](crate::testing::Report).
    pub fn record_calls(&mut self) {
        self.trouble.records = true;
    }

    /// Has the call with that number, counted from 0, fail with the system's number of an error.
    pub fn fail(&mut self, call: usize, error: i32) {
        self.trouble.failing = Some((call, error));
    }

    /// The same with every such call from that one on, for two seconds. Who waits goes on waiting.
    pub fn fail_for_long(&mut self, call: usize, error: i32) {
        self.trouble.sticking = Some((call, error));
    }

    /// Re-enacts a fault of the loop itself, which no network could have caused.
    pub fn slip(&mut self, slip: Slip) {
        self.ledger.borrow_mut().slip = Some(slip);
    }

    fn note(&mut self, what: u64, detail: usize) {
        self.trace = mix(self.trace ^ what.rotate_left(48) ^ detail as u64);
    }

    fn justification(&self, number: usize, justification: Justification) {
        self.ledger.borrow_mut().accounts[number].justification(justification);
    }

    fn latency(&mut self, wire: usize) -> Duration {
        let most = self.wires[wire].habits.latency.as_micros();
        Duration::from_micros(self.random.below(usize::try_from(most).unwrap_or(0) + 1) as u64)
    }

    /// Sends something to the client, behind all that was sent before.
    fn send_down(&mut self, wire: usize, segment: Segment) {
        let at = self.elapsed + self.latency(wire);
        let flow = &mut self.wires[wire].down;
        flow.horizon = flow.horizon.max(at);
        self.timeline
            .plan(flow.horizon, Action::ToClient(wire, segment));
    }
}

impl AsMut<Self> for Network {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("elapsed", &self.elapsed)
            .field("wires", &self.wires.len())
            .finish_non_exhaustive()
    }
}
