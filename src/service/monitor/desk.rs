//! The desk between callers and one loop: callers leave requests there, and the loop its answers.
//!
//! A caller asks, ends the loop's wait and waits for an answer until a deadline. A loop looks at its desk
//! only when its wait was ended, and four times a second to leave what it counts, so it costs nothing
//! for a message. The lock is held for no longer than it takes to copy a few numbers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::address::{Address, Peer};
use crate::service::monitor::{ConnectionState, ConnectionStatus, Snapshot};
use crate::session::Ending;
use crate::sys::{INTERRUPT_AGAIN, INTERRUPTS_MOST};
use crate::waker::Mailbox;
use crate::waker::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, lock, wait_while};

/// The most orders that wait for a loop that does not answer.
const ORDERS_MOST: usize = 1_000;

/// The desk of one loop.
pub(crate) struct Desk {
    inner: Mutex<Inner>,
    answered: Condvar,
    /// Ends the loop's wait.
    mailbox: Weak<Mailbox>,
}

#[derive(Default)]
struct Inner {
    /// The thread that runs the loop, which cannot wait for itself.
    thread: Option<ThreadId>,
    life: Life,
    /// What the loop published last.
    part: Snapshot,
    /// How many answers were asked for, and how many of these requests the last one came after.
    asked: u64,
    told: u64,
    /// The same for passes over all connections.
    passes_asked: u64,
    passes_done: u64,
    /// Grows with each slice of a pass.
    slices: u64,
    orders: Vec<Arc<EndOrder>>,
    listed: Arc<[ConnectionStatus]>,
    listed_at: Option<Instant>,
    /// The connection that keeps the loop from turning.
    served: Option<Served>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    /// The loop has not begun.
    #[default]
    New,
    /// It turns, and published something at this time.
    Turning(Instant),
    Over,
}

/// Connections to be ended, by their ids.
pub(crate) struct EndOrder {
    ids: HashMap<u64, Ending>,
    found: AtomicUsize,
}

/// One pass over the connections of a loop, in slices: it lists all of them, and ends some.
pub(crate) struct Pass {
    number: u64,
    orders: Vec<Arc<EndOrder>>,
    list: Vec<ConnectionStatus>,
    /// The slot where the next slice begins.
    pub(crate) cursor: usize,
    /// Which of them come next.
    pub(crate) stage: Stage,
}

/// The parts of a loop that have connections, in the order of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Streams,
    /// The sessions of datagrams.
    Datagrams,
    Model,
}

/// A connection that the loop's own thread serves. Whoever asks meanwhile looks at this.
pub(crate) struct Served {
    pub(crate) peer: Peer,
    pub(crate) local_address: Option<Address>,
    pub(crate) began: Instant,
    pub(crate) progress: Arc<dyn Progress>,
}

/// How far a connection has come that another thread serves.
pub(crate) trait Progress: Send + Sync {
    /// Returns `status` with what is known of the connection now.
    fn fill(&self, status: ConnectionStatus, now: Instant) -> ConnectionStatus;

    /// Ends the connection. Returns false if its thread does not know of it yet, and this has to be
    /// repeated.
    fn end_by(&self, ending: Ending) -> bool;
}

/// What a desk has told: whether that is an answer, and how old it is if not.
pub(super) struct Told<T> {
    pub(super) what: T,
    pub(super) is_answer: bool,
    pub(super) age: Duration,
}

impl EndOrder {
    pub(super) fn new(ids: HashMap<u64, Ending>) -> Arc<Self> {
        let found = AtomicUsize::new(0);
        Arc::new(Self { ids, found })
    }

    /// Returns how many of the connections were there.
    pub(super) fn found(&self) -> usize {
        self.found.load(Ordering::Relaxed)
    }

    fn take(&self, id: u64) -> Option<Ending> {
        let ending = self.ids.get(&id).copied()?;
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(ending)
    }
}

impl Pass {
    /// Lists a connection that cannot be ended now.
    pub(crate) fn list(&mut self, status: ConnectionStatus) {
        self.list.push(status);
    }

    /// Returns the next `most` slots, which the pass looks at now.
    pub(crate) fn next(&mut self, most: usize) -> Range<usize> {
        let slots = self.cursor..self.cursor.saturating_add(most);
        self.cursor = slots.end;
        slots
    }

    /// Lists a connection. Returns how it is to be ended, if at all.
    pub(crate) fn visit(&mut self, status: ConnectionStatus) -> Option<Ending> {
        let id = status.id();
        self.list.push(status);
        // Each order counts what it has found.
        let endings = self.orders.iter().filter_map(|order| order.take(id));
        endings.fold(None, |_, ending| Some(ending))
    }
}

impl Served {
    fn status(&self, now: Instant) -> ConnectionStatus {
        let age = now.saturating_duration_since(self.began);
        let status = ConnectionStatus::new(self.peer.clone(), age, ConnectionState::Open);
        let status = self.progress.fill(status, now);
        ConnectionStatus {
            local_address: self.local_address.clone(),
            ..status
        }
    }
}

/// The side of the callers.
impl Desk {
    /// Creates the desk of a loop that has not begun.
    pub(super) fn new(mailbox: &Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            answered: Condvar::new(),
            mailbox: Arc::downgrade(mailbox),
        })
    }

    /// Asks for the loop's counters. Returns the number of the request.
    pub(super) fn ask(&self) -> u64 {
        let mut inner = self.inner();
        inner.asked += 1;
        let number = inner.asked;
        self.ring(inner);
        number
    }

    /// Waits until `until` for the answer to a request.
    pub(super) fn answer(&self, number: u64, until: Instant) -> Told<Snapshot> {
        let patience = until.saturating_duration_since(Instant::now());
        let own = thread::current().id();
        let inner = wait_while(&self.inner, &self.answered, Some(patience), |inner| {
            inner.told < number && inner.is_worth_waiting_for(own)
        });

        let now = Instant::now();
        let mut part = inner.part;
        if let Some(served) = &inner.served {
            let status = served.status(now);
            let counters = &mut part.statistics;
            counters.bytes_read += status.received.unwrap_or_default();
            counters.bytes_written += status.sent.unwrap_or_default();
            part.buffered += status.held.unwrap_or_default();
        }
        inner.told(part, inner.told >= number, inner.published_at(), now)
    }

    /// Asks for a pass over all connections, which does what `order` says. Returns its number, or `None`
    /// if the loop is over. An order that comes while too many wait for a loop is dropped.
    pub(super) fn ask_for_pass(&self, order: Option<&Arc<EndOrder>>) -> Option<u64> {
        let mut inner = self.inner();
        if inner.life == Life::Over {
            return None;
        }
        inner.passes_asked += 1;
        if inner.orders.len() < ORDERS_MOST {
            inner.orders.extend(order.cloned());
        }
        let number = inner.passes_asked;
        self.ring(inner);
        Some(number)
    }

    /// Waits for the end of a pass: up to `patience` for each slice, and until `until` for all.
    pub(super) fn listed(
        &self,
        number: u64,
        patience: Duration,
        until: Instant,
    ) -> Told<Arc<[ConnectionStatus]>> {
        let own = thread::current().id();
        let mut seen = self.inner().slices;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let patience = Some(patience.min(left));
            let inner = wait_while(&self.inner, &self.answered, patience, |inner| {
                let is_done = inner.passes_done >= number || inner.slices != seen;
                !is_done && inner.is_worth_waiting_for(own)
            });

            let now = Instant::now();
            let is_done = inner.passes_done >= number;
            if !is_done && inner.slices != seen && now < until {
                seen = inner.slices;
                continue;
            }
            return match &inner.served {
                Some(served) if !is_done => Told {
                    what: [served.status(now)].into(),
                    is_answer: true,
                    age: Duration::ZERO,
                },
                _ => inner.told(Arc::clone(&inner.listed), is_done, inner.listed_at, now),
            };
        }
    }

    /// Ends the connection that keeps the loop from turning, if `order` says so.
    pub(super) fn end_served(&self, order: &EndOrder) {
        let served = || {
            let inner = self.inner();
            let served = inner.served.as_ref()?;
            Some((served.peer.id(), Arc::clone(&served.progress)))
        };
        let Some((id, progress)) = served() else {
            return;
        };
        let Some(ending) = order.take(id) else {
            return;
        };

        for _ in 0..INTERRUPTS_MOST {
            let is_same = served().is_some_and(|(now, _)| now == id);
            if !is_same || progress.end_by(ending) {
                return;
            }
            thread::sleep(INTERRUPT_AGAIN);
        }
    }

    /// Ends the loop's wait, after the lock is given back.
    fn ring(&self, inner: MutexGuard<'_, Inner>) {
        // One that begins just now has to look, too.
        let is_over = inner.life == Life::Over;
        drop(inner);
        let mailbox = (!is_over).then(|| self.mailbox.upgrade()).flatten();
        if let Some(mailbox) = mailbox {
            mailbox.ring();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// Returns whether a thread that waits for the loop may get an answer.
    fn is_worth_waiting_for(&self, own: ThreadId) -> bool {
        let is_turning = matches!(self.life, Life::Turning(_));
        is_turning && self.served.is_none() && self.thread != Some(own)
    }

    fn published_at(&self) -> Option<Instant> {
        match self.life {
            Life::Turning(at) => Some(at),
            Life::New | Life::Over => None,
        }
    }

    /// Returns what was published at `at`. A loop that does not turn has nothing new to tell.
    fn told<T>(&self, what: T, is_done: bool, at: Option<Instant>, now: Instant) -> Told<T> {
        let is_turning = matches!(self.life, Life::Turning(_)) && self.served.is_none();
        let is_answer = is_done || !is_turning;
        let age = match at {
            Some(at) if !is_answer => now.saturating_duration_since(at),
            _ => Duration::ZERO,
        };
        Told {
            what,
            is_answer,
            age,
        }
    }
}

/// The side of the loop.
impl Desk {
    /// Publishes what the loop counts, which answers all requests so far.
    pub(crate) fn publish(&self, part: Snapshot, now: Instant) {
        let mut inner = self.inner();
        inner.thread = Some(thread::current().id());
        inner.life = Life::Turning(now);
        inner.part = part;
        inner.told = inner.asked;
        drop(inner);
        self.answered.notify_all();
    }

    /// Returns whether an answer to a request is due, and the next pass if one is.
    pub(crate) fn requests(&self, has_pass: bool) -> (bool, Option<Pass>) {
        let mut inner = self.inner();
        let is_asked = inner.asked > inner.told;
        let begins = !has_pass && inner.passes_asked > inner.passes_done;
        let pass = begins.then(|| Pass {
            number: inner.passes_asked,
            orders: std::mem::take(&mut inner.orders),
            list: Vec::new(),
            cursor: 0,
            stage: Stage::Streams,
        });
        (is_asked, pass)
    }

    /// Notes that a slice of a pass is done, and has the loop turn again for the next one.
    pub(crate) fn note_slice(&self) {
        let mut inner = self.inner();
        inner.slices += 1;
        self.ring(inner);
        self.answered.notify_all();
    }

    /// Publishes what a pass has listed. Returns whether another pass was asked for meanwhile.
    pub(crate) fn finish(&self, pass: Pass, now: Instant) {
        let list = pass.list.into();
        let mut inner = self.inner();
        inner.passes_done = pass.number;
        let before = std::mem::replace(&mut inner.listed, list);
        inner.listed_at = Some(now);
        if inner.passes_asked > inner.passes_done {
            self.ring(inner);
        } else {
            drop(inner);
        }
        drop(before);
        self.answered.notify_all();
    }

    /// Publishes that the loop's own thread serves a connection from now on, or none any more. `count`
    /// is told how many.
    pub(crate) fn set_served(
        &self,
        served: Option<Served>,
        count: impl FnOnce(&mut Snapshot, usize),
    ) {
        let mut inner = self.inner();
        count(&mut inner.part, usize::from(served.is_some()));
        inner.served = served;
        drop(inner);
        self.answered.notify_all();
    }

    /// Publishes the last counts of a loop that ends.
    pub(crate) fn close(&self, part: Snapshot) {
        let mut inner = self.inner();
        inner.life = Life::Over;
        inner.part = part;
        inner.listed = Arc::default();
        inner.orders.clear();
        drop(inner);
        self.answered.notify_all();
    }
}
