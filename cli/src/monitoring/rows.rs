//! Connections as an answer lists them. They are written straight from what the monitor tells, since there
//! may be very many.

use std::fmt::Display;

use serde::{Serialize, Serializer};
use serveloop::Address;
use serveloop::service::monitor::ConnectionStatus;

/// The answer to `ls`.
#[derive(Serialize)]
pub(super) struct List<'a> {
    pub(super) age: f64,
    pub(super) connections: Vec<Row<'a>>,
    pub(super) found: usize,
    pub(super) unanswered: usize,
}

/// One connection.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    age: f64,
    held: Option<usize>,
    id: u64,
    idle: Option<f64>,
    listener: Option<usize>,
    listening: Option<&'a str>,
    local: Option<Shown<&'a Address>>,
    peer: Shown<&'a Address>,
    received: Option<u64>,
    sent: Option<u64>,
    state: &'static str,
    via: Option<Shown<&'a Address>>,
}

/// A value that is written as it is displayed.
struct Shown<T>(T);

impl<'a> Row<'a> {
    /// Describes a connection of a server that listens on `uris`, by their numbers.
    pub(super) fn new(status: &'a ConnectionStatus, uris: &'a [String]) -> Self {
        let peer = &status.peer;
        let listener = peer.listener();
        Self {
            age: status.age.as_secs_f64(),
            held: status.held,
            id: status.id(),
            idle: status.idle.map(|idle| idle.as_secs_f64()),
            listener,
            listening: listener
                .and_then(|number| uris.get(number))
                .map(String::as_str),
            local: status.local_address.as_ref().map(Shown),
            peer: Shown(peer.address()),
            received: status.received,
            sent: status.sent,
            state: status.state.name(),
            via: peer.via().map(Shown),
        }
    }
}

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
