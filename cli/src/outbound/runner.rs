//! A wrapper around a protocol in a race, which records that its connection is established.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use serveloop::{CloseReason, Protocol, ProtocolError, Transport};

/// Whether a connection has been established.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer(Rc<Cell<bool>>);

impl Answer {
    pub(super) fn has_come(&self) -> bool {
        self.0.get()
    }
}

/// A protocol, and the flag that is set once its connection is established.
#[derive(Debug)]
pub(super) struct Runner<P> {
    protocol: P,
    answer: Answer,
}

impl<P> Runner<P> {
    pub(super) fn new(protocol: P, answer: Answer) -> Self {
        Self { protocol, answer }
    }
}

impl<P: Protocol> Protocol for Runner<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.answer.0.set(true);
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
    }
}
