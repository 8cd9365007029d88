//! The simulated network: what an operating system does for an event loop, driven by a seed.

mod action;
mod blocked;
mod calls;
mod clients;
mod datagrams;
mod events;
mod far_ends;
mod outbound;
mod stuck;
mod trouble;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::net::Sockets;
use crate::shutdown::ShutdownHandle;
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::faults::Faults;
use crate::testing::simulation::ledger::Slip;
use crate::testing::simulation::ledger::{Justification, SharedLedger};
use crate::testing::simulation::network::action::Action;
use crate::testing::simulation::network::datagrams::DatagramQueue;
use crate::testing::simulation::network::events::Progress;
use crate::testing::simulation::network::outbound::OutboundSockets;
use crate::testing::simulation::random::{Random, mix};
use crate::testing::simulation::timeline::Timeline;
use crate::testing::simulation::wire::{Segment, Wire};
use crate::testing::simulation::within::MakeFarEnd;
use crate::waker::Wake;

pub use trouble::Call;

pub(super) use blocked::{Blocked, BlockingCall, Refusing, Unblocked};

pub(crate) use datagrams::Question;

/// A network that exists only in memory, with its clients, clock and faults.
///
/// A [`Simulation`](crate::testing::Simulation) creates it. It keeps the contract of
/// [`Net`](crate::net::Net) but in the least convenient way allowed. An event comes once for each
/// change and as late as it may, each call can fail in every way that a system call may, and a
/// socket that is closed with unread input resets its connection.
pub struct Network {
    random: Random,
    faults: Faults,
    ledger: SharedLedger,
    timeline: Timeline<Action>,
    origin: Instant,
    elapsed: Duration,
    /// How long protocols have computed in total.
    computed: Duration,
    wires: Vec<Wire>,
    /// The local address of each wire, once the loop has it.
    local_addresses: LocalAddresses,
    listener: Option<Listener>,
    datagram_queue: DatagramQueue,
    outbound: OutboundSockets,
    /// The peers that the server can connect to.
    remotes: Vec<(Address, Rc<Exchange>)>,
    /// Makes the clients' ends of connections that go through a layer.
    far_ends: Option<MakeFarEnd>,
    /// Wires with an event due, and the tokens of closed ones.
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
    /// The wire that was accepted last.
    accepted: usize,
    /// When the shutdown was requested, how often, and whether the loop is yet to hear of that.
    shutdown: Option<Duration>,
    requests: usize,
    shutdown_news: bool,
    /// How far the blocking driver has come, if it serves.
    pace: blocked::Pace,
    /// The number of the last connection or datagram.
    last_id: u64,
    is_stalled: bool,
    has_rested: bool,
    trace: u64,
}

/// The listening socket.
#[derive(Debug)]
struct Listener {
    token: usize,
    address: Address,
    backlog: VecDeque<usize>,
    is_changed: bool,
}

/// Where the loop's ends of the wires are. Shared with those who ask while the network is in use.
#[derive(Clone, Debug, Default)]
struct LocalAddresses(Rc<RefCell<BTreeMap<usize, Address>>>);

impl LocalAddresses {
    fn note(&self, wire: usize, address: Address) {
        self.0.borrow_mut().insert(wire, address);
    }
}

impl Sockets for LocalAddresses {
    fn local_address(&self, number: i32) -> Option<Address> {
        let wire = usize::try_from(number).ok()?;
        self.0.borrow().get(&wire).cloned()
    }
}

#[derive(Debug, Default)]
pub(super) struct Wakeup(AtomicBool);

impl Wakeup {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Returns whether it was set, and resets it.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Arc<Wakeup> {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A socket of the simulated network.
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
            local_addresses: LocalAddresses::default(),
            listener: None,
            datagram_queue: DatagramQueue::default(),
            outbound: OutboundSockets::default(),
            remotes: Vec::new(),
            far_ends: None,
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
            accepted: 0,
            shutdown: None,
            requests: 0,
            shutdown_news: false,
            pace: blocked::Pace::default(),
            last_id: 0,
            is_stalled: false,
            has_rested: false,
            trace: 0,
        }
    }

    /// Lets all connections go through a layer, of which `make` makes the clients' ends.
    pub(super) fn set_far_ends(&mut self, make: MakeFarEnd) {
        self.far_ends = Some(make);
    }

    /// Returns how many inbound connections were closed before they were registered.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns how many sockets the loop still has open.
    pub(super) fn open(&self) -> usize {
        self.open
            + usize::from(self.listener.is_some())
            + usize::from(self.datagram_queue.is_open())
    }

    /// Returns whether the loop waits without a timeout although nothing can happen any more.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns a hash of the run. It differs if anything went differently.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Returns the recorded calls in the order in which they were made.
    pub(super) fn calls(&self) -> &[Call] {
        &self.trouble.calls
    }

    /// Records every call that can be made to fail, for
    /// [`Report::calls`](crate::testing::Report::calls).
    pub fn record_calls(&mut self) {
        self.trouble.records = true;
    }

    /// Makes call number `call`, counted from 0, fail with the `errno` value `error`.
    pub fn fail(&mut self, call: usize, error: i32) {
        self.trouble.failing = Some((call, error));
    }

    /// Makes every call of that kind fail for two seconds of simulated time, starting with call
    /// number `call`. Waiting clients keep waiting.
    pub fn fail_for_long(&mut self, call: usize, error: i32) {
        self.trouble.sticking = Some((call, error));
    }

    /// Makes call number `call`, counted from 0, move one byte only if it is a read or a write.
    pub fn shorten(&mut self, call: usize) {
        self.trouble.shortened = Some(call);
    }

    /// Re-enacts a bug in the event loop, which no network could cause.
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

    /// Sends a segment to the client, after everything that was sent before.
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
