//! A link in virtual time that loses, doubles, delays, reorders and damages datagrams, with quinn's
//! state machine of a client at one end and a session in memory at the other.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serveloop::net::{Ecn, PacketInfo};
use serveloop::testing::MemorySession;
use serveloop_quic_echo::quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, EndpointConfig,
    Event, ReadError, StreamId, TransportConfig, VarInt, WriteError,
};
use serveloop_quic_echo::{ALPN, EchoServer, EchoSession};

use crate::support::{byte_at, client_of};

const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 4_433);

/// How bad a link is: shares of 100 datagrams, and times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Badness {
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) damaged: u32,
    /// Of those whose sender reacts to that, the share that a router marks.
    pub(crate) congested: u32,
    pub(crate) delay: Duration,
    /// Datagrams that are sent within this time may change places.
    pub(crate) jitter: Duration,
}

/// What a link did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) damaged: usize,
    pub(crate) reordered: usize,
    pub(crate) longest: usize,
    pub(crate) congested: usize,
    /// How many datagrams in a row, up to the last one, had a mark of their sender: the client's, and the
    /// server's.
    pub(crate) marked: [usize; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Client,
    Server,
}

struct Link {
    rng: Rng,
    badness: Badness,
    /// What is on its way, by when it arrives.
    queue: BTreeMap<(Instant, u64), (To, Ecn, Vec<u8>)>,
    sent: u64,
    deeds: Deeds,
}

impl Link {
    fn send(&mut self, now: Instant, to: To, mut ecn: Ecn, data: Vec<u8>) {
        let Badness {
            lost,
            doubled,
            damaged,
            congested,
            ..
        } = self.badness;
        self.deeds.longest = self.deeds.longest.max(data.len());
        let marked = &mut self.deeds.marked[usize::from(to == To::Client)];
        *marked = match ecn {
            Ecn::NotEct => 0,
            _ => *marked + 1,
        };
        if ecn == Ecn::Ect0 && congested > 0 && self.draw(congested) {
            self.deeds.congested += 1;
            ecn = Ecn::Ce;
        }
        if self.draw(lost) {
            self.deeds.lost += 1;
            return;
        }
        if self.draw(doubled) {
            self.deeds.doubled += 1;
            self.carry(now, to, ecn, data.clone());
        }

        // Not in a handshake, in which a changed bit may end the attempt: QUIC leaves that to UDP's
        // checksum.
        let is_of_handshake = data[0] & 0x80 != 0;
        let mut data = data;
        if self.draw(damaged) && !is_of_handshake {
            self.deeds.damaged += 1;
            let place = self.rng.usize(..data.len());
            match self.rng.bool() {
                true => data[place] ^= 1 << self.rng.u32(..8),
                false => data.truncate(place),
            }
        }
        self.carry(now, to, ecn, data);
    }

    fn carry(&mut self, now: Instant, to: To, ecn: Ecn, data: Vec<u8>) {
        let jitter = self.badness.jitter.mul_f64(self.rng.f64());
        let at = now + self.badness.delay + jitter;
        let overtaken = self.queue.range((at, u64::MAX)..);
        self.deeds.reordered += usize::from(
            overtaken
                .map(|(_, (other, ..))| *other)
                .any(|other| other == to),
        );
        self.sent += 1;
        self.queue.insert((at, self.sent), (to, ecn, data));
    }

    fn draw(&mut self, share: u32) -> bool {
        self.rng.u32(..100) < share
    }
}

/// A client that sends a number of bytes on one stream, and checks the echo.
struct Client {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    stream: Option<StreamId>,
    size: usize,
    written: usize,
    read: usize,
    is_done: bool,
    /// The client keeps the connection after its echo.
    stays: bool,
    lost: Option<String>,
}

impl Client {
    fn new(now: Instant, seed: u64, size: usize) -> Self {
        let mut transport = TransportConfig::default();
        transport
            .mtu_discovery_config(None)
            .max_idle_timeout(Some(VarInt::from_u32(300_000).into()));
        let mut random = [0; 32];
        Rng::with_seed(seed).fill(&mut random);
        let config = Arc::new(EndpointConfig::default());
        let mut endpoint = Endpoint::new(config, None, false, Some(random));
        let config = client_of(ALPN, transport);
        let (handle, connection) = endpoint
            .connect(now, config, SERVER.into(), "localhost")
            .unwrap();
        Self {
            endpoint,
            handle,
            connection,
            stream: None,
            size,
            written: 0,
            read: 0,
            is_done: false,
            stays: false,
            lost: None,
        }
    }

    fn receive(&mut self, now: Instant, ecn: Ecn, data: &[u8]) {
        let mut output = Vec::new();
        let ecn = EcnCodepoint::from_bits(ecn.bits());
        let event = self
            .endpoint
            .handle(now, SERVER.into(), None, ecn, data.into(), &mut output);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
    }

    /// Does what can be done now, and returns the datagrams to send.
    fn act(&mut self, now: Instant) -> Vec<(Ecn, Vec<u8>)> {
        let due = self.connection.poll_timeout();
        if due.is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.attend();
        self.exchange(now);

        let mut datagrams = Vec::new();
        let mut output = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(now, 1, &mut output) {
            let ecn = Ecn::from_bits(transmit.ecn.map_or(0, |ecn| ecn as u8));
            datagrams.push((ecn, std::mem::take(&mut output)));
        }
        self.attend();
        datagrams
    }

    fn attend(&mut self) {
        loop {
            while let Some(event) = self.connection.poll() {
                match event {
                    Event::Connected => self.stream = self.connection.streams().open(Dir::Bi),
                    // A reset that answers a late packet is not why.
                    Event::ConnectionLost { reason } => {
                        self.lost.get_or_insert_with(|| reason.to_string());
                    }
                    _ => {}
                }
            }
            let Some(event) = self.connection.poll_endpoint_events() else {
                return;
            };
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
    }

    /// Writes and reads what the stream has room for.
    fn exchange(&mut self, now: Instant) {
        let Some(id) = self.stream.filter(|_| !self.is_done && self.lost.is_none()) else {
            return;
        };
        while self.written < self.size {
            let end = self.size.min(self.written + 16 * 1024);
            let data: Vec<_> = (self.written..end).map(byte_at).collect();
            match self.connection.send_stream(id).write(&data) {
                Ok(count) => self.written += count,
                Err(WriteError::Blocked) => break,
                Err(error) => panic!("{error}"),
            }
            if self.written == self.size {
                self.connection.send_stream(id).finish().unwrap();
            }
        }

        let mut stream = self.connection.recv_stream(id);
        let mut chunks = stream.read(true).unwrap();
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    for byte in &chunk.bytes {
                        assert_eq!(*byte, byte_at(self.read), "byte {}", self.read);
                        self.read += 1;
                    }
                }
                Ok(None) => {
                    assert_eq!(self.read, self.size, "the echo ended early");
                    self.is_done = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let _ = chunks.finalize();
        if self.is_done && !self.stays {
            let reason = b"done"[..].into();
            self.connection.close(now, VarInt::from_u32(7), reason);
        }
    }
}

/// Returns the datagram with which a client begins.
pub(crate) fn first_datagram() -> Vec<u8> {
    let now = Instant::now();
    Client::new(now, 1, 0).act(now).remove(0).1
}

/// Runs a client over a socket until its connection is lost, and returns why.
pub(crate) fn lose_over(socket: &UdpSocket) -> String {
    let mut client = Client {
        stays: true,
        ..Client::new(Instant::now(), 1, 100)
    };
    let mut buffer = [0; 2_000];
    loop {
        for (_, datagram) in client.act(Instant::now()) {
            socket.send(&datagram).unwrap();
        }
        if let Some(lost) = client.lost {
            return lost;
        }

        let timeout = client.connection.poll_timeout();
        let wait = timeout.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        socket.set_read_timeout(wait).unwrap();
        if let Ok(count) = socket.recv(&mut buffer) {
            client.receive(Instant::now(), Ecn::NotEct, &buffer[..count]);
        }
    }
}

/// Both ends and the link between them.
pub(crate) struct Run {
    server: EchoServer,
    pub(crate) session: MemorySession<EchoSession>,
    client: Client,
    link: Link,
    began: Instant,
    /// How many sessions the peer has had.
    pub(crate) sessions: usize,
    /// Whether the server is told the headers of packets.
    pub(crate) is_told: bool,
}

impl Run {
    pub(crate) fn new(server: EchoServer, seed: u64, size: usize, badness: Badness) -> Self {
        let session = MemorySession::datagrams(server.session());
        let began = session.now();
        Self {
            server,
            client: Client::new(began, seed, size),
            session,
            link: Link {
                rng: Rng::with_seed(seed),
                badness,
                queue: BTreeMap::new(),
                sent: 0,
                deeds: Deeds::default(),
            },
            began,
            sessions: 1,
            is_told: true,
        }
    }

    /// Returns what the link has done.
    pub(crate) fn deeds(&self) -> Deeds {
        self.link.deeds
    }

    /// Returns how often the client has slowed down.
    pub(crate) fn congestion_events(&self) -> u64 {
        self.client.connection.stats().path.congestion_events
    }

    /// Changes how bad the link is from now on.
    pub(crate) fn become_bad(&mut self, badness: Badness) {
        self.link.badness = badness;
    }

    /// Returns how many bytes the client has got back.
    pub(crate) fn echoed(&self) -> usize {
        self.client.read
    }

    /// Returns why the client has lost its connection.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.client.lost.as_deref()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.session.now() - self.began
    }

    /// Goes on until the client has its echo, and both ends have forgotten the connection.
    pub(crate) fn finish(&mut self) {
        while !self.client.connection.is_drained() || self.session.reason().is_none() {
            assert!(self.elapsed() < Duration::from_secs(3_600), "no end");
            self.step();
        }
    }

    /// Goes on for a time.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.session.now() + time;
        while self.session.now() < end {
            self.step();
        }
    }

    /// Goes on to the next moment at which something happens.
    fn step(&mut self) {
        let now = self.session.now();
        for (ecn, datagram) in self.client.act(now) {
            self.link.send(now, To::Server, ecn, datagram);
        }
        for (ecn, datagram) in self.session.take_marked_datagrams() {
            self.link.send(now, To::Client, ecn, datagram);
        }

        let arrival = self.link.queue.keys().next().map(|(at, _)| *at);
        let of_client = self.client.connection.poll_timeout();
        let next = [arrival, of_client, self.session.deadline()];
        let Some(next) = next.into_iter().flatten().min() else {
            // Everybody waits: a link that stays silent for a while.
            return self.session.advance(Duration::from_millis(10));
        };
        let wait = next.saturating_duration_since(now);
        self.session.advance(wait.max(Duration::from_micros(1)));

        let now = self.session.now();
        while let Some(entry) = self
            .link
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            match entry.remove() {
                (To::Client, ecn, data) => self.client.receive(now, ecn, &data),
                (To::Server, ecn, data) => self.deliver(ecn, &data),
            }
        }
    }

    /// Shows the server a datagram, in a new session if there is none.
    fn deliver(&mut self, ecn: Ecn, data: &[u8]) {
        if let Some(reason) = self.session.reason() {
            assert!(!reason.is_error(), "{reason}");
            if self.client.is_done {
                return;
            }
            let now = self.session.now();
            self.session = MemorySession::datagrams(self.server.session());
            self.session
                .advance(now.saturating_duration_since(self.session.now()));
            self.sessions += 1;
        }
        let packet = self.is_told.then(|| PacketInfo::new(ecn, 60));
        self.session.set_packet_info(packet);
        self.session.receive_datagram(data);
    }
}
