//! The session of one peer: an endpoint of QUIC with the connections that the peer has made.

use std::fmt;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, Event, Incoming, VarInt,
};
use serveloop::net::Ecn;
use serveloop::{Deadline, Protocol, ProtocolError, Transport};

use crate::streams::Streams;
use crate::{EchoServer, Validation};

/// How many times what it has sent a peer gets until its path is validated (RFC 9000, section 8.1).
const UNVALIDATED_FACTOR: u64 = 3;

/// What a connection without data takes, about: two state machines with their keys and buffers.
const CONNECTION_SIZE: usize = 16 * 1024;

/// The protocol of all datagrams of one peer. Made by [`EchoServer::session`].
pub struct EchoSession {
    server: EchoServer,
    endpoint: Endpoint,
    links: Vec<Link>,
    /// Which connection sends next.
    turn: usize,
    /// When a connection wants to be called.
    deadline: Option<Instant>,
    /// How many bytes the peer has sent, and how many its connections have answered.
    received: u64,
    answered: u64,
    is_confirmed: bool,
    /// The server shuts down, and takes no more connections.
    is_ending: bool,
    output: Vec<u8>,
}

/// A connection with its streams.
struct Link {
    handle: ConnectionHandle,
    connection: Connection,
    streams: Streams,
}

impl EchoSession {
    pub(crate) fn new(server: &EchoServer) -> Self {
        Self {
            endpoint: server.endpoint(),
            server: server.clone(),
            links: Vec::new(),
            turn: 0,
            deadline: None,
            received: 0,
            answered: 0,
            is_confirmed: false,
            is_ending: false,
            output: Vec::new(),
        }
    }

    /// Returns how many connections the peer has, with those that are closing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// Decides about a new connection.
    fn meet(&mut self, incoming: Incoming, transport: &mut Transport<'_>) {
        let is_unknown = !incoming.remote_address_validated() && incoming.may_retry();
        let wants_retry =
            transport.is_one_shot() || self.server.validation() == Validation::ByRetry;
        self.output.clear();
        transport.set_ecn(Ecn::NotEct);
        let size = if is_unknown && wants_retry && !self.is_ending {
            let retry = self.endpoint.retry(incoming, &mut self.output);
            retry.map_or(0, |transmit| transmit.size)
        } else if transport.is_one_shot()
            || self.is_ending
            || self.links.len() >= self.server.max_connections()
        {
            self.endpoint.refuse(incoming, &mut self.output).size
        } else {
            return self.accept(incoming, transport);
        };
        transport.write_datagram(&self.output[..size]);
    }

    fn accept(&mut self, incoming: Incoming, transport: &mut Transport<'_>) {
        if incoming.remote_address_validated() {
            self.confirm(transport);
        }
        let now = transport.now();
        match self.endpoint.accept(incoming, now, &mut self.output, None) {
            Ok((handle, connection)) => self.links.push(Link {
                handle,
                connection,
                streams: Streams::default(),
            }),
            Err(error) => {
                if let Some(response) = error.response {
                    transport.set_ecn(Ecn::NotEct);
                    transport.write_datagram(&self.output[..response.size]);
                }
            }
        }
    }

    fn confirm(&mut self, transport: &mut Transport<'_>) {
        self.is_confirmed = true;
        transport.confirm_address();
    }

    /// Brings everything up to date after an event: what connections tell each other and the streams,
    /// what is to be sent, and when to be called again.
    fn settle(&mut self, transport: &mut Transport<'_>) {
        for link in &mut self.links {
            let is_connected = link.attend(&mut self.endpoint);
            if is_connected && !self.is_confirmed {
                self.is_confirmed = true;
                transport.confirm_address();
            }
        }
        self.send(transport);

        // Sending may have been the last thing that a connection did.
        for link in &mut self.links {
            link.attend(&mut self.endpoint);
        }
        self.links.retain(|link| !link.connection.is_drained());
        let deadlines = self.links.iter_mut();
        self.deadline = deadlines
            .filter_map(|link| link.connection.poll_timeout())
            .min();

        let streams: usize = self.links.iter().map(|link| link.streams.held()).sum();
        transport.charge(self.links.len() * CONNECTION_SIZE + streams);
        if self.links.is_empty() && !transport.is_one_shot() {
            transport.close();
        }
    }

    /// Sends what the connections have to send, a datagram of each in turn, while there is room.
    fn send(&mut self, transport: &mut Transport<'_>) {
        let mut silent = 0;
        while silent < self.links.len() && !transport.is_full() {
            self.turn = (self.turn + 1) % self.links.len();
            self.output.clear();
            let connection = &mut self.links[self.turn].connection;
            match connection.poll_transmit(transport.now(), 1, &mut self.output) {
                Some(transmit) => {
                    silent = 0;
                    let ecn = transmit.ecn.map_or(0, |ecn| ecn as u8);
                    transport.set_ecn(Ecn::from_bits(ecn));
                    self.write(transmit.size, transport);
                }
                None => silent += 1,
            }
        }
    }

    /// Sends the first `size` bytes of the output.
    fn write(&mut self, size: usize, transport: &mut Transport<'_>) {
        self.answered += size as u64;
        // The state machine keeps the same rule, with what it understood. If it sends more, a packet
        // has validated the path that did not complete the handshake.
        if !self.is_confirmed && self.answered > self.received * UNVALIDATED_FACTOR {
            self.confirm(transport);
        }
        transport.write_datagram(&self.output[..size]);
    }

    /// Closes all connections, which the peer is told with the code 0 and a reason.
    fn close_all(&mut self, reason: &'static str, transport: &mut Transport<'_>) {
        let now = transport.now();
        for link in &mut self.links {
            let reason = Bytes::from_static(reason.as_bytes());
            link.connection.close(now, VarInt::from_u32(0), reason);
            link.streams.clear();
        }
        self.settle(transport);
    }
}

impl Link {
    /// Passes on what the connection has to say, and returns whether its handshake is complete now.
    fn attend(&mut self, endpoint: &mut Endpoint) -> bool {
        let mut is_connected = false;
        loop {
            while let Some(event) = self.connection.poll() {
                match event {
                    Event::Stream(event) => self.streams.handle(&event, &mut self.connection),
                    Event::Connected => is_connected = true,
                    Event::ConnectionLost { .. } => self.streams.clear(),
                    Event::HandshakeDataReady
                    | Event::DatagramReceived
                    | Event::DatagramsUnblocked => {}
                }
            }

            let Some(event) = self.connection.poll_endpoint_events() else {
                return is_connected;
            };
            if let Some(answer) = endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
    }
}

impl Protocol for EchoSession {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let address = transport.peer().address();
        match address.is_datagram() && address.socket_addr().is_some() {
            true => Ok(()),
            false => Err("QUIC needs UDP".into()),
        }
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Some(peer) = transport.peer().address().socket_addr() else {
            return Err("QUIC needs UDP".into());
        };
        self.received += data.len() as u64;

        let now = transport.now();
        self.output.clear();
        let datagram = BytesMut::from(data);
        let ecn = transport.packet_info().map_or(0, |it| it.ecn.bits());
        let ecn = EcnCodepoint::from_bits(ecn);
        let event = self
            .endpoint
            .handle(now, peer, None, ecn, datagram, &mut self.output);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => self.meet(incoming, transport),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = self.links.iter_mut().find(|link| link.handle == handle) {
                    link.connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(transmit)) => {
                transport.set_ecn(Ecn::NotEct);
                transport.write_datagram(&self.output[..transmit.size]);
            }
            None => {}
        }

        self.settle(transport);
        Ok(data.len())
    }

    /// Refuses the bytes of a stream, which [`connection_made`](Self::connection_made) does already.
    fn data_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<usize, ProtocolError> {
        Err("QUIC needs UDP".into())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let now = transport.now();
        for link in &mut self.links {
            link.connection.handle_timeout(now);
        }
        self.settle(transport);
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.settle(transport);
    }

    fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
        self.close_all("timed out", transport);
    }

    /// Closes the connections. The session ends when they are drained, so that a peer that has not
    /// got the CONNECTION_CLOSE is told again. Those that were closed before are not waited for.
    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_ending = true;
        self.links.retain(|link| !link.connection.is_closed());
        self.close_all("the server shuts down", transport);
    }
}

impl fmt::Debug for EchoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchoSession")
            .field("connections", &self.links.len())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
