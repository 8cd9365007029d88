//! A key-value store that clients of Redis can use: strings with deadlines, counters, and scans.
//!
//! ```
//! use serveloop::testing::MemorySession;
//! use serveloop_resp::Resp;
//! use serveloop_resp::store::{Settings, Store};
//!
//! let store = Store::new(Settings::default());
//! let mut session = MemorySession::new(Resp::new(store.connection()));
//! session.receive(b"set greeting hello ex 10\r\nget greeting\r\n");
//! assert_eq!(session.sent(), b"+OK\r\n$5\r\nhello\r\n");
//! ```
//!
//! All connections of a server share one store, whatever thread serves them: it is behind one lock,
//! which a command holds while it runs. A process that serves only one connection cannot share it.
//!
//! Names, replies and errors of commands are those of Redis 7. There is one database and one type of
//! value, so nothing is ever of the wrong type. Nothing is kept on disk.
//!
//! # Transactions
//! `MULTI` queues commands and `EXEC` holds the lock while it runs all of them, so nothing of another connection
//! happens in between, on whatever thread. What is queued, and what is watched, takes at most
//! [`max_transaction`](Settings::max_transaction) each. One command's error is its part of the reply, and so is
//! an error for a part that does not fit in `max_reply`.
//!
//! Room for a transaction is made before its first command, and none of its keys is evicted while it runs. It may
//! exceed [`max_memory`](Settings::max_memory), by `max_transaction` at most; what needs memory after it makes
//! room for that too, or is refused, as in Redis also when it is only to be queued.
//!
//! # Channels
//! A client that listens to channels and does not keep up is disconnected, as in Redis, when `max_posted`
//! bytes wait for it: 512 KiB unless it is set, where Redis has 32 MiB. A burst that one client publishes at
//! once has to fit, however promptly the others read. While it listens, its `idle_timeout` is at least an
//! hour, and what it is sent counts.
//!
//! # Time
//! Deadlines follow the clock of the connections, which is virtual in tests. Its place among the years
//! is taken from the system's clock once, when the store is made.
//!
//! A key whose deadline has passed cannot be found any more. Its memory is freed when it is looked for,
//! little by little by other commands, and by [`Store::handle_timeout`] if the server calls it.

mod channels;
mod clients;
mod commands;
mod connection;
mod decimal;
mod entry;
mod glob;
mod index;
mod keyspace;
mod ongoing;
mod service;
mod settings;
mod transaction;
mod watched;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::channels::Channels;
use self::clients::Clients;
use self::keyspace::Keyspace;

pub use self::connection::Connection;
pub use self::settings::{Eviction, Settings};

/// At most as many keys are freed by one call, because their deadline has passed.
const EXPIRED_PER_COMMAND: usize = 4;
const EXPIRED_PER_TURN: usize = 1_000;

/// Until there are no more keys to free, this much time is between two calls, so that deadlines close
/// to each other do not wake the server one by one.
const PAUSE: Duration = Duration::from_millis(100);

/// The soonest deadline if there is none.
const NONE: i64 = i64::MAX;

/// What all connections of a server share.
#[derive(Debug)]
pub struct Store {
    keyspace: Mutex<Keyspace>,
    clients: Clients,
    channels: Channels,
    began: Instant,
    /// Milliseconds since 1970 at that moment.
    began_unix: i64,
    /// Milliseconds since 1970 when keys are to be freed, so that it can be asked without the lock.
    soonest: AtomicI64,
    max_transaction: usize,
}

impl Store {
    /// Creates an empty store.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let (unix, began) = (unix.unwrap_or_default(), Instant::now());
        // A millisecond begins at both.
        let into = Duration::from_nanos(u64::from(unix.subsec_nanos() % 1_000_000));
        Arc::new(Self {
            max_transaction: settings.max_transaction,
            keyspace: Mutex::new(Keyspace::new(settings)),
            clients: Clients::default(),
            channels: Channels::new(),
            began: began.checked_sub(into).unwrap_or(began),
            began_unix: milliseconds(unix),
            soonest: AtomicI64::new(NONE),
        })
    }

    /// Creates the service for a connection: `Resp::new(store.connection())`.
    #[must_use]
    pub fn connection(self: &Arc<Self>) -> Connection {
        Connection::new(Arc::clone(self))
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) should be called, or `None` while no key
    /// expires.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let soonest = self.soonest.load(Ordering::Relaxed);
        let after = u64::try_from(soonest.saturating_sub(self.began_unix)).unwrap_or(0);
        // A deadline has passed one millisecond later.
        let due = || self.began.checked_add(Duration::from_millis(after + 1));
        (soonest != NONE).then(due).flatten()
    }

    /// Frees up to 1,000 keys whose deadline has passed at `now`.
    pub fn handle_timeout(&self, now: Instant) {
        let mut keyspace = self.locked_at(self.unix(now));
        let next = keyspace.expire(EXPIRED_PER_TURN);
        let pause = keyspace.now().saturating_add(milliseconds(PAUSE));
        let is_more = next.is_some_and(|at| at < keyspace.now());
        let next = next.map_or(NONE, |at| if is_more { at } else { at.max(pause) });
        self.soonest.store(next, Ordering::Relaxed);
    }

    /// Returns the keys for one command, at a time in milliseconds since 1970.
    #[inline]
    fn keyspace_at(&self, now: i64) -> MutexGuard<'_, Keyspace> {
        let mut keyspace = self.keyspace.lock().unwrap_or_else(PoisonError::into_inner);
        keyspace.set_now(now);
        if keyspace.is_due() {
            keyspace.expire(EXPIRED_PER_COMMAND);
        }
        keyspace
    }

    /// Returns the keys at a time, without freeing any.
    fn locked_at(&self, now: i64) -> MutexGuard<'_, Keyspace> {
        let mut keyspace = self.locked();
        keyspace.set_now(now);
        keyspace
    }

    // Only `keyspace_at` has it inlined.
    #[inline(never)]
    fn locked(&self) -> MutexGuard<'_, Keyspace> {
        self.keyspace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes when a key that a command has changed is to be freed.
    #[inline]
    fn note_deadline(&self, keyspace: &Keyspace) {
        let soonest = keyspace.soonest().unwrap_or(NONE);
        if soonest < self.soonest.load(Ordering::Relaxed) {
            self.soonest.store(soonest, Ordering::Relaxed);
        }
    }

    /// Returns a time in milliseconds since 1970.
    #[inline]
    fn unix(&self, now: Instant) -> i64 {
        self.began_unix + milliseconds(now.saturating_duration_since(self.began))
    }
}

#[inline]
fn milliseconds(duration: Duration) -> i64 {
    duration.as_secs() as i64 * 1_000 + i64::from(duration.subsec_millis())
}
