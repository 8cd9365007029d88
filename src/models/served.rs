//! A child process that serves a connection or answers a datagram, as its parent knows it.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::address::{Address, Peer};
use crate::models::report;
use crate::service::monitor::{ConnectionState, ConnectionStatus};
use crate::session::Ending;
use crate::sys::Child;

/// A connection or datagram that a child process serves.
pub(super) struct Served {
    pub(super) child: Child,
    pub(super) peer: Peer,
    pub(super) began: Instant,
    pub(super) local_address: Option<Address>,
    /// A monitor has asked it to finish.
    pub(super) is_asked: bool,
    /// The stream on which the child reports its counts before it ends.
    pub(super) report: UnixStream,
    pub(super) heard: Vec<u8>,
    /// True for a connection, false for a datagram.
    pub(super) stream: bool,
}

/// How much of a child's report has been read.
pub(super) enum Heard {
    All,
    Part,
    /// The read was interrupted and must be retried.
    Interrupted,
}

impl Served {
    /// Returns whether the child's session knows of the shutdown.
    pub(super) fn is_told(&self) -> bool {
        report::is_told(&self.heard)
    }

    /// Returns what is known of a connection.
    pub(super) fn status(&self, now: Instant) -> ConnectionStatus {
        let state = match self.is_asked || self.is_told() {
            true => ConnectionState::Finishing,
            false => ConnectionState::Open,
        };
        let age = now.saturating_duration_since(self.began);
        let mut status = ConnectionStatus::new(self.peer.clone(), age, state);
        status.local_address.clone_from(&self.local_address);
        status
    }

    /// Tells the child to end its session.
    pub(super) fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Orderly => {
                self.is_asked = true;
                self.child.terminate();
            }
            Ending::Abort => self.child.kill(),
        }
    }

    /// Reads from the child's report without blocking. Treats any failure other than an
    /// interruption as the end of the report.
    pub(super) fn hear(&mut self) -> Heard {
        let mut piece = [0; 1_024];

        loop {
            match self.report.read(&mut piece) {
                Ok(0) => return Heard::All,
                Ok(count) => self.heard.extend_from_slice(&piece[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Heard::Part,
                    // Some system-call filters interrupt every call.
                    io::ErrorKind::Interrupted => return Heard::Interrupted,
                    _ => return Heard::All,
                },
            }
        }
    }
}
