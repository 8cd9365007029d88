//! Where the records of connections are kept: a bounded store, which evicts whole connections.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::service::recorder::event::{Chunk, Happening, Moment, push};
use crate::service::recorder::head::Head;
use crate::session::{Tap, Transport, nanos};
use crate::waker::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// What a record costs besides its bytes: its entry, the lock, and the protocol's handle.
const ENTRY: usize = 256;

/// A single connection has at most this share of the store, so that it does not evict all others.
const SHARE: usize = 4;

/// The most bytes of the record of a single connection, which becomes a block of the file.
const EACH_MOST: usize = 1 << 30;

/// The records of all connections that one recorder has.
#[derive(Debug)]
pub(super) struct Store {
    max_bytes: usize,
    /// The most bytes of a single connection.
    max_each: usize,
    content: bool,
    index: Mutex<Index>,
    /// How many bytes all records hold.
    held: AtomicUsize,
    /// The place of the next event among all.
    order: AtomicU64,
    /// When the record began, from which times are counted.
    origin: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct Index {
    /// The number of the next connection.
    next: u64,
    /// The connections that are open, oldest first.
    open: BTreeMap<u64, Arc<Log>>,
    /// The connections that have ended, in the order of their ends.
    ended: VecDeque<Arc<Log>>,
    evicted: u64,
}

/// The record of one connection.
#[derive(Debug)]
struct Log {
    number: u64,
    events: Mutex<Events>,
}

#[derive(Debug)]
struct Events {
    bytes: Vec<u8>,
    stage: Stage,
    opened: Instant,
    at: Instant,
    order: u64,
    /// What the protocol wanted of its connection after the last call: closing, finished, paused.
    wants: [bool; 3],
    /// Its own deadline after that.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Recorded,
    /// Too long: only the end is still recorded.
    Cut,
    /// Over, or evicted.
    Over,
}

impl Store {
    pub(super) fn new(max_bytes: usize, content: bool, origin: Option<Instant>) -> Self {
        Self {
            max_bytes,
            max_each: (max_bytes / SHARE).min(EACH_MOST),
            content,
            index: Mutex::default(),
            held: AtomicUsize::new(0),
            order: AtomicU64::new(0),
            origin: origin.map(OnceLock::from).unwrap_or_default(),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    /// Returns how many bytes the records hold.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns how many connections are recorded, and how many were evicted.
    pub(super) fn counts(&self) -> (usize, u64) {
        let index = self.index();
        (index.open.len() + index.ended.len(), index.evicted)
    }

    /// Begins the record of a connection that has just been made.
    pub(super) fn open(self: &Arc<Self>, transport: &Transport<'_>) -> Logger {
        let now = transport.now();
        let origin = *self.origin.get_or_init(|| now);
        let mut bytes = Vec::new();
        Head::of(transport, now.saturating_duration_since(origin)).push(&mut bytes);

        let mut index = self.index();
        let number = index.next;
        index.next += 1;
        let events = Events {
            bytes,
            stage: Stage::Recorded,
            opened: now,
            at: now,
            order: 0,
            wants: [false; 3],
            due: None,
        };
        let size = ENTRY + events.bytes.capacity();
        let log = Arc::new(Log {
            number,
            events: Mutex::new(events),
        });
        index.open.insert(number, Arc::clone(&log));
        drop(index);

        self.grow(size);
        Logger {
            store: Arc::clone(self),
            log,
        }
    }

    /// Adds to what the records hold, and evicts connections if that is too much.
    fn grow(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.max_bytes {
            self.evict();
        }
    }

    fn shrink(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Evicts connections until there is room: first the one that ended first, then the oldest.
    #[cold]
    fn evict(&self) {
        while self.held() > self.max_bytes {
            let mut index = self.index();
            let ended = index.ended.pop_front();
            let log = ended.or_else(|| index.open.pop_first().map(|(_, log)| log));
            let Some(log) = log else {
                return;
            };
            index.evicted += 1;
            drop(index);

            let mut events = log.events();
            events.stage = Stage::Over;
            let size = ENTRY + std::mem::take(&mut events.bytes).capacity();
            drop(events);
            self.shrink(size);
        }
    }

    /// Notes that a connection has ended, if its record is still there.
    fn end(&self, log: &Arc<Log>) {
        let mut index = self.index();
        if let Some(log) = index.open.remove(&log.number) {
            index.ended.push_back(log);
        }
    }

    /// Returns whether the content of what was read and written is recorded, and not only its length.
    pub(super) fn has_content(&self) -> bool {
        self.content
    }

    /// Calls `write` with the record of each connection, in the order in which they were opened. Returns how
    /// many there are, and how many were evicted.
    pub(super) fn each<E>(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(u64, u64), E> {
        let index = self.index();
        let mut logs: Vec<_> = index.open.values().chain(&index.ended).cloned().collect();
        let evicted = index.evicted;
        drop(index);

        logs.sort_by_key(|log| log.number);
        let mut count = 0;
        for log in logs {
            // The events that come meanwhile wait for the copy, not for the disk.
            let bytes = log.events().bytes.clone();
            if !bytes.is_empty() {
                write(&bytes)?;
                count += 1;
            }
        }
        Ok((count, evicted))
    }
}

impl Log {
    fn events(&self) -> MutexGuard<'_, Events> {
        lock(&self.events)
    }
}

/// Writes the record of one connection.
#[derive(Debug)]
pub(super) struct Logger {
    store: Arc<Store>,
    log: Arc<Log>,
}

impl Logger {
    /// Records a call of the protocol that is about to be made.
    pub(super) fn call(&self, what: &Happening<'_>, transport: &Transport<'_>) {
        let waiting = transport.waiting() as u64;
        self.push(what, Some((transport.now(), waiting)));
    }

    /// Records what the protocol wants of its connection after a call, if that has changed.
    pub(super) fn note_wants(&self, transport: &Transport<'_>, due: Option<Instant>) {
        let wants = [
            transport.is_closing(),
            transport.is_finishing(),
            transport.is_paused(),
        ];
        let mut events = self.log.events();
        let is_due_changed = events.due != due;
        let are_wants_changed = events.wants != wants;
        let opened = events.opened;
        (events.due, events.wants) = (due, wants);
        drop(events);

        if is_due_changed {
            let after = due.map(|due| due.saturating_duration_since(opened));
            self.push(&Happening::Due(after), None);
        }
        if are_wants_changed {
            let [closing, finished, paused] = wants;
            let changed = Happening::Changed {
                closing,
                finished,
                paused,
            };
            self.push(&changed, None);
        }
    }

    /// Records something that the protocol has done.
    pub(super) fn note(&self, what: &Happening<'_>) {
        self.push(what, None);
    }

    /// Records the end of the connection, at `now`.
    pub(super) fn lost(&self, what: &Happening<'_>, now: Instant) {
        self.push(what, Some((now, 0)));
        let mut events = self.log.events();
        let before = events.bytes.capacity();
        events.bytes.shrink_to_fit();
        let less = before - events.bytes.capacity();
        drop(events);
        self.store.shrink(less);
        self.store.end(&self.log);
    }

    fn push(&self, what: &Happening<'_>, moment: Option<(Instant, u64)>) {
        let store = &self.store;
        let mut events = self.log.events();
        let before = events.bytes.capacity();
        let is_end = matches!(what, Happening::ConnectionLost(_));
        match events.stage {
            Stage::Recorded if is_end || events.has_room(what, store) => {
                events.push(what, moment, store);
            }
            Stage::Recorded => {
                events.push(&Happening::Cut, None, store);
                events.stage = Stage::Cut;
            }
            Stage::Cut if is_end => events.push(what, moment, store),
            Stage::Cut | Stage::Over => {}
        }
        if is_end {
            events.stage = Stage::Over;
        }

        let more = events.bytes.capacity() - before;
        drop(events);
        if more > 0 {
            store.grow(more);
        }
    }
}

impl Events {
    fn has_room(&self, what: &Happening<'_>, store: &Store) -> bool {
        let length = match what {
            Happening::DataReceived(data)
            | Happening::EofReceived(data)
            | Happening::Posted(data)
            | Happening::Wrote(data)
                if store.content =>
            {
                data.length as usize
            }
            _ => 0,
        };
        self.bytes.len().saturating_add(length) <= store.max_each
    }

    fn push(&mut self, what: &Happening<'_>, moment: Option<(Instant, u64)>, store: &Store) {
        let moment = moment.map_or(Moment::default(), |(now, waiting)| {
            let order = store.order.fetch_add(1, Ordering::Relaxed);
            let moment = Moment {
                nanos: nanos(now.saturating_duration_since(self.at)),
                order: order.saturating_sub(self.order),
                waiting,
            };
            self.order = order;
            self.at = self.at.max(now);
            moment
        });
        push(&mut self.bytes, what, moment, store.content);
    }
}

impl Tap for Logger {
    fn wrote(&self, data: &[u8]) {
        self.note(&Happening::Wrote(Chunk::of(data)));
    }
}

impl Drop for Logger {
    /// A protocol may be dropped without having been told of the end.
    fn drop(&mut self) {
        self.store.end(&self.log);
    }
}

/// Returns the time at which a connection ended that began at `began` and lasted so long.
pub(super) fn end_of(began: Instant, duration: Duration) -> Instant {
    began.checked_add(duration).unwrap_or(began)
}
