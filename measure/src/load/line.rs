//! A connection of a load: a client, or one in TLS.

use std::time::Instant;

use serveloop::driver::Tick;
use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::load::client::Client;
use crate::load::counted::SecuredClient;

/// Hands all calls on. Those for data do not go through a table, since they are what is measured.
#[derive(Debug)]
pub(crate) enum Line {
    Plain(Client),
    Secured(Box<SecuredClient>),
}

impl Line {
    fn protocol_mut(&mut self) -> &mut dyn Protocol {
        match self {
            Self::Plain(client) => client,
            Self::Secured(client) => client,
        }
    }
}

impl Protocol for Line {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.protocol_mut().connection_made(transport)
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        match self {
            Self::Plain(client) => client.data_received(data, transport),
            Self::Secured(client) => client.data_received(data, transport),
        }
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.protocol_mut().eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.protocol_mut().resume_writing(transport);
    }

    #[inline]
    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Plain(client) => client.poll_timeout(),
            Self::Secured(client) => client.poll_timeout(),
        }
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.protocol_mut().handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.protocol_mut().woken(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.protocol_mut().shutdown_requested(transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.protocol_mut().connection_lost(ended);
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.protocol_mut().catch_up(from, to);
    }
}
