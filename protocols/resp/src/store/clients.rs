//! The clients that are connected, as others see them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serveloop::{Transport, Waker};

use crate::reply::Version;

/// One client. What changes with every request is written without a lock, by its own connection
/// alone.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) address: String,
    pub(super) local_address: String,
    began: i64,
    active: AtomicI64,
    /// The number of the last command in the table.
    command: AtomicUsize,
    requests: AtomicU64,
    ended: AtomicBool,
    waker: Waker,
    subscriptions: Subscriptions,
    /// How many commands of a transaction are queued; negative without one.
    queued: AtomicI64,
    /// How many keys it watches.
    watched: AtomicUsize,
    named: Mutex<Named>,
}

/// How many commands are queued if there is no transaction, as `CLIENT LIST` shows it.
const NO_TRANSACTION: i64 = -1;

/// How many channels and patterns a client listens to.
#[derive(Debug, Default)]
struct Subscriptions {
    channels: AtomicUsize,
    patterns: AtomicUsize,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    pub(super) name: Vec<u8>,
    pub(super) library: Vec<u8>,
    pub(super) library_version: Vec<u8>,
    pub(super) version: Version,
}

impl Named {
    /// Returns how many bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        let texts = [&self.name, &self.library, &self.library_version];
        texts.iter().map(|text| text.capacity()).sum()
    }
}

impl Client {
    /// Notes a request. Its connection is the only one to write these.
    #[inline]
    pub(super) fn note(&self, command: usize, now: i64) {
        self.active.store(now, Ordering::Relaxed);
        self.command.store(command, Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        self.requests.store(requests + 1, Ordering::Relaxed);
    }

    /// Has the connection ended by its own thread.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn note_subscriptions(&self, channels: usize, patterns: usize) {
        self.subscriptions
            .channels
            .store(channels, Ordering::Relaxed);
        self.subscriptions
            .patterns
            .store(patterns, Ordering::Relaxed);
    }

    /// Notes how many commands are queued, if a transaction has begun, and how many keys are watched.
    pub(super) fn note_transaction(&self, queued: Option<usize>, watched: usize) {
        let queued = queued.map_or(NO_TRANSACTION, |queued| queued as i64);
        self.queued.store(queued, Ordering::Relaxed);
        self.watched.store(watched, Ordering::Relaxed);
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watched.load(Ordering::Relaxed) > 0
    }

    pub(super) fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the type that `CLIENT LIST TYPE` knows the client by.
    pub(super) fn kind(&self) -> &'static str {
        if self.is_subscriber() {
            "pubsub"
        } else {
            "normal"
        }
    }

    pub(super) fn is_subscriber(&self) -> bool {
        let Subscriptions { channels, patterns } = &self.subscriptions;
        channels.load(Ordering::Relaxed) + patterns.load(Ordering::Relaxed) > 0
    }

    /// Writes the line of `CLIENT LIST`, without its end.
    pub(super) fn describe(
        &self,
        now: i64,
        name_of: impl Fn(usize) -> &'static str,
        text: &mut Vec<u8>,
    ) {
        let seconds = |since: i64| (now - since).max(0) / 1_000;
        let named = self.named().clone();
        let queued = self.queued.load(Ordering::Relaxed);
        let flags = match (self.is_subscriber(), queued != NO_TRANSACTION) {
            (false, false) => "N",
            (false, true) => "x",
            (true, false) => "P",
            (true, true) => "Px",
        };
        let command = name_of(self.command.load(Ordering::Relaxed));

        let mut head = String::new();
        let mut tail = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            head,
            "id={} addr={} laddr={} name=",
            self.id, self.address, self.local_address
        );
        let _ = write!(
            tail,
            " age={} idle={} flags={flags} db=0 sub={} psub={} ssub=0 multi={queued} watch={} cmd={command} user=default resp={} lib-name=",
            seconds(self.began),
            seconds(self.active.load(Ordering::Relaxed)),
            self.subscriptions.channels.load(Ordering::Relaxed),
            self.subscriptions.patterns.load(Ordering::Relaxed),
            self.watched.load(Ordering::Relaxed),
            named.version.number(),
        );
        for part in [
            head.as_bytes(),
            &named.name,
            tail.as_bytes(),
            &named.library,
            b" lib-ver=",
            &named.library_version,
        ] {
            text.extend_from_slice(part);
        }
    }
}

/// All clients by their numbers, and how many requests those that have left had made.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    connections: AtomicU64,
    earlier_requests: AtomicU64,
}

impl Clients {
    /// Adds the client of a connection.
    pub(super) fn join(&self, transport: &Transport<'_>, now: i64) -> Arc<Client> {
        let shown = |address: &serveloop::Address| match address.socket_addr() {
            Some(address) => address.to_string(),
            None => address.to_string(),
        };
        let client = Arc::new(Client {
            id: transport.id(),
            address: shown(transport.peer().address()),
            local_address: transport
                .local_address()
                .as_ref()
                .map(shown)
                .unwrap_or_default(),
            began: now,
            active: AtomicI64::new(now),
            command: AtomicUsize::new(usize::MAX),
            requests: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            waker: transport.waker(),
            subscriptions: Subscriptions::default(),
            queued: AtomicI64::new(NO_TRANSACTION),
            watched: AtomicUsize::new(0),
            named: Mutex::default(),
        });
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connected().insert(client.id, Arc::clone(&client));
        client
    }

    pub(super) fn leave(&self, client: &Client) {
        self.connected().remove(&client.id);
        let requests = client.requests.load(Ordering::Relaxed);
        self.earlier_requests.fetch_add(requests, Ordering::Relaxed);
    }

    /// Returns all clients, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.connected().values().cloned().collect()
    }

    /// Returns how many connections there have been.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns how many requests there have been.
    pub(super) fn requests(&self) -> u64 {
        let connected = self.connected();
        let requests = connected
            .values()
            .map(|client| client.requests.load(Ordering::Relaxed));
        self.earlier_requests.load(Ordering::Relaxed) + requests.sum::<u64>()
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
