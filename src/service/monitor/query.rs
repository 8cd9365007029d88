//! Which connections are listed or ended, and in which order.

use std::cmp::Reverse;
use std::time::Duration;

use crate::address::NetworkList;
use crate::service::monitor::{ConnectionState, ConnectionStatus};

/// Selects connections: by default all, in the order in which they came.
///
/// ```
/// use serveloop::service::monitor::{Order, Query};
/// use std::time::Duration;
///
/// // The ten busiest clients of a network that have been here for a minute.
/// let query = Query::default()
///     .from("192.0.2.0/24".parse()?)
///     .older_than(Duration::from_secs(60))
///     .by(Order::Traffic)
///     .first(10);
/// # let _ = query;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Query {
    peers: Option<NetworkList>,
    listener: Option<u16>,
    state: Option<ConnectionState>,
    age: Duration,
    idle: Duration,
    order: Order,
    most: Option<usize>,
}

/// The order of listed connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The oldest first.
    #[default]
    Age,
    /// The one whose last byte is longest ago first.
    Idle,
    /// The one with the most bytes in both directions first.
    Traffic,
    /// The one that holds the most memory first.
    Held,
}

impl Query {
    /// Selects peers in `networks`, by the address of the client that a trusted proxy has named if
    /// there is one.
    #[must_use]
    pub fn from(mut self, networks: NetworkList) -> Self {
        self.peers = Some(networks);
        self
    }

    /// Selects connections that the listener with this number has accepted.
    #[must_use]
    pub fn of_listener(mut self, number: u16) -> Self {
        self.listener = Some(number);
        self
    }

    /// Selects connections in this state.
    #[must_use]
    pub fn in_state(mut self, state: ConnectionState) -> Self {
        self.state = Some(state);
        self
    }

    /// Selects connections that are at least so old.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Selects connections of which no byte has moved for so long. One of which that is not known is
    /// not selected, unless the duration is zero.
    #[must_use]
    pub fn idle_for(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sorts the connections.
    #[must_use]
    pub fn by(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Limits the number of connections, to the first ones of the order.
    #[must_use]
    pub fn first(mut self, most: usize) -> Self {
        self.most = Some(most);
        self
    }

    fn fits(&self, connection: &ConnectionStatus) -> bool {
        let peer = &connection.peer;
        let is_from = |peers: &NetworkList| peers.contains(peer.address());
        let listener = self.listener.map(usize::from);

        self.peers.as_ref().is_none_or(is_from)
            && (listener.is_none() || peer.listener() == listener)
            && self.state.is_none_or(|state| state == connection.state)
            && connection.age >= self.age
            && (self.idle.is_zero() || connection.idle.is_some_and(|idle| idle >= self.idle))
    }

    /// Returns the connections that fit, in order, and how many fit.
    pub(super) fn select<'a>(
        &self,
        all: impl Iterator<Item = &'a ConnectionStatus>,
    ) -> (Vec<ConnectionStatus>, usize) {
        let mut chosen: Vec<_> = all.filter(|connection| self.fits(connection)).collect();
        let found = chosen.len();
        chosen.sort_by_cached_key(|connection| {
            let rank = match self.order {
                Order::Age => 0,
                Order::Idle => connection.idle.map_or(0, |idle| idle.as_nanos()),
                Order::Traffic => connection.traffic().into(),
                Order::Held => connection.held.unwrap_or_default() as u128,
            };
            (Reverse(rank), connection.id())
        });
        chosen.truncate(self.most.unwrap_or(usize::MAX));
        (chosen.into_iter().cloned().collect(), found)
    }
}
