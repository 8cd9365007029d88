//! A protocol whose connections are logged, also at the default level.

use std::time::Instant;

use serveloop::{CloseReason, Peer, Protocol, ProtocolError, Transport};

/// Logs the beginning and the end of a connection with the peer's address, and leaves the rest to
/// the protocol. Datagrams are not logged: each would be a connection.
#[derive(Debug)]
pub(crate) struct Logged<P> {
    peer: Peer,
    protocol: P,
}

impl<P: Protocol> Logged<P> {
    pub(crate) fn new(peer: &Peer, protocol: P) -> Self {
        Self {
            peer: peer.clone(),
            protocol,
        }
    }
}

impl<P: Protocol> Protocol for Logged<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if !self.peer.is_datagram() {
            log::info!("{}: accepted", self.peer);
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
            log::info!("{}: {reason}", self.peer);
        }
    }
}
