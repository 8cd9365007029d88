//! How a connection ended: what its protocol and the factory are told, and what a driver keeps.

use std::time::{Duration, Instant};

use crate::address::Peer;
use crate::error::CloseReason;

/// How a connection ended, as [`connection_lost`](crate::Protocol::connection_lost) and
/// [`handle_error`](crate::Factory::handle_error) are told.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop::{CloseReason, Ended, Protocol, Result, Transport};
///
/// #[derive(Default)]
/// struct Shout(Option<String>);
///
/// impl Protocol for Shout {
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         transport.write(&data.to_ascii_uppercase());
///         Ok(data.len())
///     }
///
///     fn connection_lost(&mut self, ended: &Ended<'_>) {
///         let (peer, reason) = (ended.peer(), ended.reason());
///         self.0 = Some(format!("{peer}: {reason}, {} of {} bytes sent", ended.sent(), ended.sent() + ended.unsent()));
///     }
/// }
///
/// let mut session = MemorySession::new(Shout::default());
/// session.receive(b"hello");
/// session.stop_taking();
/// session.receive(b"world!");
/// session.fail(CloseReason::Aborted);
/// let said = session.protocol().0.as_deref();
/// assert_eq!(said, Some("tcp://127.0.0.1:1: aborted, 5 of 11 bytes sent"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    peer: &'a Peer,
    reason: &'a CloseReason,
    pub(super) traffic: Traffic,
}

/// What passed over a connection, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) unsent: u64,
    pub(crate) began: Instant,
    pub(crate) duration: Duration,
}

impl<'a> Ended<'a> {
    /// Creates the end of a connection that began at `began`, ended at once, and on which nothing
    /// was received or sent. Tests of [`handle_error`](crate::Factory::handle_error) need it;
    /// protocols are tested in a `testing::MemorySession`.
    ///
    /// ```
    /// use serveloop::{CloseReason, Ended, Peer};
    /// use std::time::Instant;
    ///
    /// let peer = Peer::new("tcp://192.0.2.1:4711".parse()?, Some(0));
    /// let ended = Ended::new(&peer, &CloseReason::Overflow, Instant::now());
    /// assert!(ended.reason().is_error());
    /// assert_eq!(ended.received(), 0);
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    #[must_use]
    pub fn new(peer: &'a Peer, reason: &'a CloseReason, began: Instant) -> Self {
        let traffic = Traffic::until(began, began);
        Self {
            peer,
            reason,
            traffic,
        }
    }

    /// Returns why the connection ended.
    #[must_use]
    pub fn reason(&self) -> &'a CloseReason {
        self.reason
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// Returns how many bytes were read from the peer, whether or not the protocol took them.
    ///
    /// This and the other counts are 0 if the connection was served by a process that was killed,
    /// or by a thread whose protocol hung and that was given up at the end of a shutdown.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.traffic.received
    }

    /// Returns how many bytes of output were handed to the system. A failed connection may have
    /// lost some of them on the way to the peer.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.traffic.sent
    }

    /// Returns how many bytes of output were dropped because the connection ended before the system
    /// took them.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.traffic.unsent
    }

    /// Returns when the connection was accepted, or when the attempt to connect began. For a
    /// datagram, returns when it was received.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.traffic.began
    }

    /// Returns how long the connection lasted, from [`began`](Self::began) to its end. The time in
    /// which the loop then waits for the peer to close too (`linger_timeout`) is not part of it.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.traffic.duration
    }
}

/// How a session ended, as its driver keeps it.
#[derive(Debug)]
pub struct End {
    peer: Peer,
    reason: CloseReason,
    pub(crate) traffic: Traffic,
}

impl End {
    pub(crate) fn new(peer: Peer, reason: CloseReason, traffic: Traffic) -> Self {
        Self {
            peer,
            reason,
            traffic,
        }
    }

    /// Returns what the protocol was told.
    #[must_use]
    pub fn ended(&self) -> Ended<'_> {
        Ended {
            peer: &self.peer,
            reason: &self.reason,
            traffic: self.traffic,
        }
    }

    /// Returns why the session ended.
    #[must_use]
    pub fn reason(&self) -> &CloseReason {
        &self.reason
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Traffic {
    /// No bytes, on a connection that lasted from `began` to `ended`.
    pub(crate) fn until(began: Instant, ended: Instant) -> Self {
        Self {
            received: 0,
            sent: 0,
            unsent: 0,
            began,
            duration: ended.saturating_duration_since(began),
        }
    }
}
