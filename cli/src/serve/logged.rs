//! A protocol whose connections are logged, also at the default level.

use std::fmt::Arguments;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use log::Level;
use serveloop::{CloseReason, Peer, Protocol, ProtocolError, Transport};

use super::budget::Budget;
use super::tokens;

/// What the lines about connections are filtered by, wherever this file stands.
const TARGET: &str = "serveloop::connections";

/// Logs the beginning and the end of a connection with the peer's address, and leaves the rest to
/// the protocol. Datagrams are not logged: each would be a connection.
#[derive(Debug)]
pub(crate) struct Logged<P> {
    peer: Peer,
    diary: Diary,
    protocol: P,
}

impl<P: Protocol> Logged<P> {
    pub(crate) fn new(peer: &Peer, diary: &Diary, protocol: P) -> Self {
        Self {
            peer: peer.clone(),
            diary: diary.clone(),
            protocol,
        }
    }
}

impl<P: Protocol> Protocol for Logged<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if !self.peer.is_datagram() {
            self.diary.note(format_args!("{}: accepted", self.peer));
        }
        self.protocol.connection_made(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.protocol.data_received(data, transport)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.protocol.eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.protocol.resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.protocol.handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.protocol.woken(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.protocol.shutdown_requested(transport);
    }

    fn connection_lost(&mut self, reason: &CloseReason) {
        self.protocol.connection_lost(reason);
        if !self.peer.is_datagram() {
            self.diary.note(format_args!("{}: {reason}", self.peer));
        }
    }
}

/// Where the connections of one server are noted, however many loops or threads serve them. A
/// process that serves one of them has a copy, and takes its lines from the budget of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diary(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book(Budget);

impl Diary {
    /// Logs a line, if there is room for it this second.
    pub(crate) fn note(&self, line: Arguments<'_>) {
        // Who asks for every connection, with -v, gets every one.
        if log::log_enabled!(target: TARGET, Level::Debug) {
            return log::info!(target: TARGET, "{line}");
        }
        // The budget is whole whenever a panic may come.
        let spent = {
            let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            book.spend()
        };
        if let Some(left_out) = spent {
            tell_left_out(left_out);
            log::info!(target: TARGET, "{line}");
        }
    }
}

impl Book {
    /// As [`Budget::spend`], of the budget that all processes share if they do.
    fn spend(&mut self) -> Option<u64> {
        match tokens::shared() {
            Some(tokens) => tokens.spend().then(|| tokens.take_left_out()),
            None => self.0.spend(Instant::now()),
        }
    }
}

impl Drop for Book {
    /// No further second comes, and the last one's silence must not look as if nothing happened.
    fn drop(&mut self) {
        let shared = tokens::shared().map_or(0, tokens::Tokens::take_left_out);
        tell_left_out(shared + self.0.left_out());
    }
}

fn tell_left_out(count: u64) {
    if count > 0 {
        log::info!(target: TARGET, "(and {count} more)");
    }
}
