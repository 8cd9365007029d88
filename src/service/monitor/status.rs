//! What a monitor tells: the state of a server, and of its connections.

use std::time::Duration;

use crate::address::{Address, Peer};
use crate::service::monitor::Histogram;
use crate::session::{Protocol, Session, Tick};
use crate::statistics::Statistics;

/// The state of a server at a moment: the sum of all of its loops.
///
/// Counters and gauges of a loop are read at one moment, so in each snapshot `accepted + connected` of
/// the statistics is exactly `open` plus all connections that have ended
/// ([`closed`](Statistics::closed)) or go on in another process (`handed_over`), whatever goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The counters.
    pub statistics: Statistics,
    /// How many connections are open: their protocol exists, and was not told of the end.
    pub open: usize,
    /// How many bytes of memory connections hold, as `max_buffered` counts them.
    pub buffered: usize,
    /// How many sockets accept clients or datagrams.
    pub listeners: usize,
    /// How many loops serve, or have served.
    pub loops: usize,
    /// How many of them did not answer in time. Of those it is what they published last.
    pub unanswered: usize,
    /// How much later than asked for a loop began a turn, four times a second. The shortest wait of
    /// the system counts too, which is up to a millisecond.
    pub loop_lag: Histogram,
    /// How long the turns of the loops took, without waiting.
    pub turn_time: Histogram,
    /// How old the oldest part is. Zero if every loop has answered.
    pub age: Duration,
}

impl Snapshot {
    /// Returns how many sessions of [datagrams](crate::Config::sessions) are open.
    #[must_use]
    pub fn datagram_sessions(&self) -> usize {
        let Statistics {
            datagram_sessions: begun,
            datagram_sessions_ended: ended,
            ..
        } = self.statistics;
        usize::try_from(begun.saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// Adds what another loop has told.
    pub(super) fn add(&mut self, other: &Self) {
        self.statistics.add(&other.statistics);
        self.open += other.open;
        self.buffered = self.buffered.saturating_add(other.buffered);
        self.listeners += other.listeners;
        self.loops += other.loops;
        self.unanswered += other.unanswered;
        self.loop_lag.add(&other.loop_lag);
        self.turn_time.add(&other.turn_time);
        self.age = self.age.max(other.age);
    }
}

/// What is known of one open connection. `None` means that this model does not know it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The peer, with the connection's [id](Peer::id) and its [listener](Peer::listener).
    pub peer: Peer,
    /// The address on this machine.
    pub local_address: Option<Address>,
    /// How long ago the connection was accepted, or the attempt to connect began.
    pub age: Duration,
    /// How long ago a byte last moved.
    pub idle: Option<Duration>,
    /// How many bytes came from the peer.
    pub received: Option<u64>,
    /// How many bytes the system took for the peer.
    pub sent: Option<u64>,
    /// How many bytes of memory the connection holds beyond an idle one.
    pub held: Option<usize>,
    /// What it does.
    pub state: ConnectionState,
}

impl ConnectionStatus {
    pub(crate) fn new(peer: Peer, age: Duration, state: ConnectionState) -> Self {
        Self {
            peer,
            local_address: None,
            age,
            idle: None,
            received: None,
            sent: None,
            held: None,
            state,
        }
    }

    /// Returns what a loop knows of a session.
    pub(crate) fn of<P: Protocol>(session: &Session<P>, now: Tick) -> Self {
        let (received, sent, moved) = session.traffic();
        let (stalled, paused) = session.waits_for();
        let state = match () {
            () if session.is_closing() => ConnectionState::Closing,
            () if session.was_asked_to_finish() => ConnectionState::Finishing,
            () if session.is_opening() => ConnectionState::Handshake,
            () if stalled => ConnectionState::Stalled,
            () if paused => ConnectionState::Paused,
            () => ConnectionState::Open,
        };
        let age = now.since(session.began());
        Self {
            idle: Some(now.since(moved)),
            received: Some(received),
            sent: Some(sent),
            held: Some(session.held().saturating_add(session.posted())),
            ..Self::new(session.peer().clone(), age, state)
        }
    }

    /// Returns the number of the connection, by which it can be [ended](super::Monitor::end).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.peer.id()
    }

    /// Returns how many bytes went in both directions, as far as that is known.
    #[must_use]
    pub fn traffic(&self) -> u64 {
        let directions = [self.received, self.sent];
        directions.into_iter().flatten().sum()
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// An outbound connection is being established.
    Connecting,
    /// An accepted connection waits for a process that serves it.
    Queued,
    /// A layer such as TLS is in its handshake.
    Handshake,
    /// It waits for the peer's next message, or serves one.
    Open,
    /// Its protocol takes no input for now.
    Paused,
    /// Output waits because the peer takes none.
    Stalled,
    /// It was asked to finish.
    Finishing,
    /// It ends as soon as its output is sent.
    Closing,
}

impl ConnectionState {
    /// Returns the state as one word, such as `open`.
    ///
    /// ```
    /// use serveloop::service::monitor::ConnectionState;
    ///
    /// assert_eq!(ConnectionState::Stalled.name(), "stalled");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Queued => "queued",
            Self::Handshake => "handshake",
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Stalled => "stalled",
            Self::Finishing => "finishing",
            Self::Closing => "closing",
        }
    }
}

/// The connections that a [list](super::Monitor::list) has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The connections, in the order of the query.
    pub connections: Vec<ConnectionStatus>,
    /// How many connections the query fits, of which only some may be listed.
    pub found: usize,
    /// How many loops did not answer in time. Of those it is what they listed last, if they ever did.
    pub unanswered: usize,
    /// How old the oldest part is. Zero if every loop has answered.
    pub age: Duration,
}
