//! Looking into a server while it runs: counters, gauges and histograms, and its connections, which can
//! be ended.
//!
//! A [`Monitor`] is for other threads: a page for Prometheus ([`metrics`](crate::service::metrics)), an
//! administrator's console, a test. Nothing that it does holds up a loop. It leaves a request and ends
//! the loop's wait, and the loop answers between two turns, in slices of 100 to 1,000 connections. A loop
//! that does not answer in time, because a handler blocks it, is told of with what it published last,
//! which is at most a quarter of a second older than the trouble.
//!
//! What a monitor costs: nothing for a message, some ten instructions for a turn, and four turns a
//! second for a loop that is idle. A server without a [monitor](crate::Server::monitor) pays nothing.
//!
//! # What each model knows
//!
//! | | one loop, workers | threading | sequential | forking |
//! |---|---|---|---|---|
//! | counters of connections, `open` | exact | exact | exact | exact |
//! | `bytes_read`, `bytes_written` | exact | of a connection: when it has ended | exact | of a connection: when it has ended |
//! | `buffered` | exact | exact | exact | of what the loop holds |
//! | `loop_lag`, `turn_time` | of all loops | of the loop that accepts | a turn lasts as long as its connection | of the loop that accepts |
//! | id, peer, listener, local address, age | yes | yes | yes | yes |
//! | idle, received, sent, held | yes | yes | yes | no |
//! | state | yes | `Open` or `Finishing` | `Open` or `Finishing` | `Queued`, `Open` or `Finishing` |
//! | [`end`](Monitor::end) | as a shutdown does | as a shutdown does, within `drain_timeout` | as with threading | as with threading |
//! | [`abort`](Monitor::abort) | yes | when its handler returns | when its handler returns | kills the process |
//!
//! Outbound connections are on the loop in every model. A connection that only waits for its peer to close,
//! after its protocol was told of the end, is not open any more, and not listed; if it has a thread or a
//! process, it counts as open until that ends. In the sequential model the loop stands still while it serves a
//! connection; whoever asks meanwhile gets the answer without it.

mod desk;
mod histogram;
mod query;
mod status;

pub(crate) use self::desk::{Desk, Pass, Progress, Served, Stage};
pub use self::histogram::Histogram;
pub use self::query::{Order, Query};
pub use self::status::{ConnectionState, ConnectionStatus, Listing, Snapshot};

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::desk::EndOrder;
use crate::session::Ending;
use crate::waker::Mailbox;
use crate::waker::sync::{Mutex, lock};

/// How long a caller waits for a loop unless it says otherwise.
const PATIENCE: Duration = Duration::from_millis(250);

/// How many times its patience a caller waits for all slices of a list.
const SLICES_PATIENCE: u32 = 20;

/// Looks into a server while it runs: see the [module](self). Made by
/// [`Server::monitor`](crate::Server::monitor).
///
/// All clones are the same, but for their patience. Any thread may use one, also before the server runs
/// and after its end. On the thread of a loop, for example in a handler, it does not wait: of this
/// loop it tells what was published last.
///
/// ```
/// use serveloop::service::monitor::Query;
/// use serveloop::{Config, Server, protocols::Echo};
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use std::thread;
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// let (monitor, handle) = (server.monitor(), server.shutdown_handle());
/// let address = server.addresses()[0].socket_addr().ok_or("an IP address")?;
/// let serving = thread::spawn(|| server.serve_forever(|_| Some(Echo)));
///
/// let mut client = TcpStream::connect(address)?;
/// client.write_all(b"hello")?;
/// client.read_exact(&mut [0; 5])?;
///
/// let snapshot = monitor.snapshot();
/// assert_eq!((snapshot.statistics.accepted, snapshot.open), (1, 1));
///
/// let listing = monitor.list(&Query::default());
/// assert_eq!(listing.connections[0].received, Some(5));
///
/// monitor.end(listing.connections[0].id())?;
/// assert_eq!(client.read(&mut [0; 5])?, 0);
///
/// handle.shutdown();
/// serving.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Monitor {
    desks: Arc<Mutex<Vec<Arc<Desk>>>>,
    patience: Duration,
}

impl Monitor {
    pub(crate) fn new() -> Self {
        Self {
            desks: Arc::default(),
            patience: PATIENCE,
        }
    }

    /// Adds a loop, which is woken through `mailbox`. Returns its desk.
    pub(crate) fn register(&self, mailbox: &Arc<Mailbox>) -> Arc<Desk> {
        let desk = Desk::new(mailbox);
        lock(&self.desks).push(Arc::clone(&desk));
        desk
    }

    /// Sets how long this monitor waits for a loop to answer, 250 ms by default. For a list it waits
    /// so long for each slice of at most 1,000 connections, and 20 times so long for all.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Returns the counters, gauges and histograms of all loops.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let until = Instant::now() + self.patience.min(FOREVER);
        // All are asked before the first answer is waited for.
        let asked: Vec<_> = self.desks().into_iter().map(|it| (it.ask(), it)).collect();

        let mut sum = Snapshot::default();
        for (number, desk) in asked {
            let told = desk.answer(number, until);
            sum.add(&Snapshot {
                loops: 1,
                unanswered: usize::from(!told.is_answer),
                age: told.age,
                ..told.what
            });
        }
        sum
    }

    /// Returns the open connections that `query` selects.
    ///
    /// A list of many is made while the server goes on: a connection that begins or ends meanwhile may
    /// be there or not.
    #[must_use]
    pub fn list(&self, query: &Query) -> Listing {
        self.pass(query, None)
    }

    /// Ends a connection in order, as a shutdown of the server does: what has arrived is still shown,
    /// then its protocol is asked to finish
    /// ([`shutdown_requested`](crate::Protocol::shutdown_requested)), and the reason is
    /// [`Shutdown`](crate::CloseReason::Shutdown). Returns when the server knows of it. A protocol that
    /// goes on is not ended by this on a loop.
    ///
    /// # Errors
    /// No open connection has this id, or a loop did not answer, so that it may yet have.
    pub fn end(&self, id: u64) -> Result<(), EndError> {
        self.end_by(id, Ending::Orderly)
    }

    /// Ends a connection at once, and drops what it is owed: the reason is
    /// [`Aborted`](crate::CloseReason::Aborted), or [`Process`](crate::CloseReason::Process) where it
    /// had a process.
    ///
    /// # Errors
    /// Fails like [`end`](Self::end).
    pub fn abort(&self, id: u64) -> Result<(), EndError> {
        self.end_by(id, Ending::Abort)
    }

    /// Ends the connections that `query` selects, in order, as [`end`](Self::end) does. Returns how many
    /// were told. Loops that do not answer end theirs later.
    pub fn end_all(&self, query: &Query) -> usize {
        let listed = self.list(query).connections;
        let ids = listed.iter().map(ConnectionStatus::id);
        let ids: HashMap<_, _> = ids.map(|id| (id, Ending::Orderly)).collect();
        if ids.is_empty() {
            return 0;
        }
        let order = EndOrder::new(ids);
        self.pass(&Query::default().first(0), Some(&order));
        order.found()
    }

    fn end_by(&self, id: u64, ending: Ending) -> Result<(), EndError> {
        let order = EndOrder::new([(id, ending)].into());
        let listing = self.pass(&Query::default().first(0), Some(&order));
        match order.found() {
            0 if listing.unanswered > 0 => Err(EndError::Unanswered),
            0 => Err(EndError::Unknown),
            _ => Ok(()),
        }
    }

    /// Asks all loops for their connections, and returns those that `query` selects.
    fn pass(&self, query: &Query, order: Option<&Arc<EndOrder>>) -> Listing {
        let now = Instant::now();
        let patience = self.patience.min(FOREVER);
        let until = now + patience.saturating_mul(SLICES_PATIENCE).min(FOREVER);
        let asked = self.desks().into_iter();
        let asked = asked.map(|desk| (desk.ask_for_pass(order), desk));

        let (mut lists, mut listing) = (Vec::new(), Listing::default());
        for (number, desk) in asked.collect::<Vec<_>>() {
            let Some(number) = number else {
                continue;
            };
            let told = desk.listed(number, patience, until);
            if let Some(order) = order {
                desk.end_served(order);
            }
            listing.unanswered += usize::from(!told.is_answer);
            listing.age = listing.age.max(told.age);
            lists.push(told.what);
        }

        let all = lists.iter().flat_map(|list| list.iter());
        (listing.connections, listing.found) = query.select(all);
        listing
    }

    fn desks(&self) -> Vec<Arc<Desk>> {
        lock(&self.desks).clone()
    }
}

/// A wait that no caller lives to see the end of, and that can be added to any time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// Why a connection was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndError {
    /// No open connection has this id.
    Unknown,
    /// A loop did not answer in time. If it has the connection, it ends it as soon as it goes on.
    Unanswered,
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no open connection has this id",
            Self::Unanswered => "a loop does not answer, and may yet end the connection",
        })
    }
}

impl Error for EndError {}
