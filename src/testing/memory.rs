//! One session in memory, driven by a test.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, mem};

use crate::address::{Address, Credentials, Ecn, PacketInfo, Peer};
use crate::config::Config;
use crate::error::{CloseReason, DeliveryError};
use crate::session::{Buffer, Clock, Context, Driver, End, Ended, Protocol, REPEAT, Session};
use crate::waker::{Mailbox, Waker, Wakers};

/// A session in memory whose peer is the test, which sends input, takes output and lets time pass.
///
/// ```
/// use serveloop::protocols::Hello;
/// use serveloop::testing::MemorySession;
/// use std::time::Duration;
///
/// let mut session = MemorySession::new(Hello::new(Duration::from_secs(1)));
/// assert_eq!(session.sent(), b"Welcome!");
/// session.receive(b"Michael");
/// assert_eq!(session.sent(), b"");
/// session.advance(Duration::from_secs(1));
/// assert_eq!(session.sent(), b"Hello,Michael");
/// session.receive_eof();
/// assert!(session.reason().is_some());
/// ```
pub struct MemorySession<P> {
    session: Session<P>,
    config: Config,
    clock: Clock,
    socket: Socket,
    incoming: VecDeque<Vec<u8>>,
    eof: bool,
    sent: Vec<u8>,
    /// The datagrams that were sent, if this is a session of datagrams.
    datagrams: Option<Vec<(Ecn, Vec<u8>)>>,
    /// What the session is told of the headers of datagrams.
    packet: Option<PacketInfo>,
    scratch: Option<Box<Buffer>>,
    /// How many bytes of output the peer takes at a time, and how many more it takes for now.
    step: usize,
    window: usize,
    end: Option<End>,
}

thread_local! {
    /// The id of the next session whose peer is not given. A test has a thread of its own, so its
    /// sessions have the same ids in each run.
    static NEXT_ID: Cell<u64> = const { Cell::new(1) };
}

impl<P: Protocol> MemorySession<P> {
    /// Opens a session with the default limits and a TCP peer that was accepted by listener 0. Its
    /// [id](crate::Peer::id) is counted from 1 in each thread.
    #[must_use]
    pub fn new(protocol: P) -> Self {
        Self::with_config(protocol, Config::default())
    }

    /// Opens a session like [`new`](Self::new), with the limits in `config`.
    ///
    /// # Panics
    /// Panics if the configuration is invalid.
    #[must_use]
    pub fn with_config(protocol: P, config: Config) -> Self {
        let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let id = NEXT_ID.replace(NEXT_ID.get() + 1);
        let peer = Peer::new(address, Some(0)).with_id(id);
        Self::with_peer(protocol, config, peer)
    }

    /// Opens a session with the limits in `config` and the given peer.
    ///
    /// # Panics
    /// Panics if the configuration is invalid.
    #[must_use]
    pub fn with_peer(protocol: P, config: Config, peer: Peer) -> Self {
        Self::with_socket(protocol, config, peer, None, None)
    }

    /// Opens a session like [`with_peer`](Self::with_peer), whose socket has the given
    /// [local address](crate::Transport::local_address) and
    /// [credentials](crate::Transport::credentials). Sessions opened otherwise have neither.
    ///
    /// # Panics
    /// Panics if the configuration is invalid.
    #[must_use]
    pub fn with_socket(
        protocol: P,
        config: Config,
        peer: Peer,
        local_address: Option<Address>,
        credentials: Option<Credentials>,
    ) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }

        let socket = Socket::new(local_address, credentials);
        let mut this = Self::unopened(protocol, config, peer, socket);
        this.call(Session::handle_open);
        this.run();
        this
    }

    /// Opens a session of all datagrams of a peer, as a server does whose sockets have
    /// [sessions](Config::sessions), with the default limits and a UDP peer. The amplification of what
    /// a peer sends is not limited here.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::testing::MemorySession;
    ///
    /// let mut session = MemorySession::datagrams(Echo);
    /// session.receive_datagram(b"one");
    /// session.receive_datagram(b"two");
    /// assert_eq!(session.take_datagrams(), [b"one", b"two"]);
    /// ```
    #[must_use]
    pub fn datagrams(protocol: P) -> Self {
        let address = Address::Udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 5_000)));
        let id = NEXT_ID.replace(NEXT_ID.get() + 1);
        let peer = Peer::new(address, Some(0)).with_id(id);
        let socket = Socket::new(None, None);
        let mut this = Self::unopened(protocol, Config::default(), peer, socket);
        this.datagrams = Some(Vec::new());
        this.session.make_lasting();
        this.call(Session::handle_open);
        this.run();
        this
    }

    fn unopened(protocol: P, config: Config, peer: Peer, socket: Socket) -> Self {
        let clock = Clock::new(Instant::now());
        Self {
            session: Session::new(protocol, peer, clock.tick()),
            config,
            clock,
            socket,
            incoming: VecDeque::new(),
            eof: false,
            sent: Vec::new(),
            datagrams: None,
            packet: None,
            scratch: None,
            step: usize::MAX,
            window: usize::MAX,
            end: None,
        }
    }

    /// Sends a datagram from the peer, which may be empty. A session that takes no input now does not
    /// get it, as on a network. Does nothing unless the session was made by
    /// [`datagrams`](Self::datagrams).
    pub fn receive_datagram(&mut self, data: &[u8]) {
        if self.datagrams.is_none() || self.end.is_some() {
            return;
        }
        self.session.lend(&mut self.scratch);
        self.socket.packet = self.packet;
        self.call(|session, context| {
            session.handle_peer_datagram(data, context);
        });
        self.socket.packet = None;
        self.run();
    }

    /// Sets what the session is told of the headers of the datagrams that it receives from now on, by
    /// [`Transport::packet_info`](crate::Transport::packet_info). By default it is told nothing, as by a
    /// listener without that option.
    pub fn set_packet_info(&mut self, packet: Option<PacketInfo>) {
        self.packet = packet;
    }

    /// Tells the session that a datagram which it has sent did not arrive. Does nothing unless the session
    /// was made by [`datagrams`](Self::datagrams).
    pub fn fail_datagram(&mut self, error: DeliveryError) {
        if self.datagrams.is_none() || self.end.is_some() {
            return;
        }
        self.session.lend(&mut self.scratch);
        self.call(|session, context| session.handle_undelivered(&error, context));
        self.run();
    }

    /// Returns the datagrams that were sent to the peer since the last call.
    pub fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        let marked = self.take_marked_datagrams();
        marked.into_iter().map(|(_, data)| data).collect()
    }

    /// Returns the datagrams that were sent to the peer since the last call, with the marks that the
    /// protocol has [set](crate::Transport::set_ecn).
    pub fn take_marked_datagrams(&mut self) -> Vec<(Ecn, Vec<u8>)> {
        self.datagrams.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Sends `data` from the peer as one piece. If the session does not read now, the piece is kept
    /// until it does. Empty data is ignored.
    pub fn receive(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.incoming.push_back(data.to_vec());
        }
        self.run();
    }

    /// Ends the peer's side of the stream.
    pub fn receive_eof(&mut self) {
        self.eof = true;
        self.run();
    }

    /// Tells the session that the server is shutting down.
    pub fn shutdown(&mut self) {
        self.call(Session::handle_shutdown);
        self.run();
    }

    /// Advances the clock by `by`. Each deadline on the way is handled at its own time.
    pub fn advance(&mut self, by: Duration) {
        let end = self.clock.now() + by;
        while let Some(due) = self.deadline().filter(|due| *due <= end) {
            let now = self.clock.now();
            self.clock.set(due.max(now));
            self.call(Session::handle_timeout);
            self.run();

            let now = self.clock.now();
            if self.deadline().is_some_and(|next| next <= now) {
                // As on the event loop, a deadline that did not move repeats after a short delay.
                if now + REPEAT > end {
                    break;
                }
                self.clock.set(now + REPEAT);
            }
        }

        self.clock.set(end);
    }

    /// Returns when the session would next act without the peer, or `None` if it has no deadline or
    /// has ended.
    pub fn deadline(&mut self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let context = context(&self.config, &self.clock, &self.socket);
        let at = self.session.deadline(&context)?;
        self.clock.now().checked_add(at.since(self.clock.tick()))
    }

    /// Returns the current virtual time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the bytes that the peer received since the last call.
    pub fn sent(&mut self) -> Vec<u8> {
        mem::take(&mut self.sent)
    }

    /// Returns how many bytes of output wait for the peer to take them.
    pub fn waiting(&self) -> usize {
        self.session.waiting()
    }

    /// Returns how many bytes of memory the session holds: unread input, waiting output, what the
    /// protocol [charged](crate::Transport::charge), and what was [posted](crate::service::Outbox) for
    /// it. On an event loop this is the connection's
    /// share of [`max_buffered`](Config::max_buffered). Here a session that holds more than 95 % of
    /// that limit ends.
    pub fn held(&self) -> usize {
        self.session.held() + self.socket.mailbox.posted()
    }

    /// Returns whether the peer has seen the end of the session's output: after
    /// [`finish`](crate::Transport::finish), when the session may still read, or after the session
    /// has ended in order. A session that was aborted, or that failed, has no such end: its peer sees a
    /// reset.
    pub fn is_finished(&self) -> bool {
        match &self.end {
            Some(end) => !end.reason().is_hard() && !matches!(end.reason(), CloseReason::Io(_)),
            None => self.session.is_finished() && !self.session.has_output(),
        }
    }

    /// Stops the peer from taking output, until [`take`](Self::take) or
    /// [`take_in_steps`](Self::take_in_steps).
    pub fn stop_taking(&mut self) {
        self.window = 0;
    }

    /// Lets the peer take up to `count` more bytes of output.
    pub fn take(&mut self, count: usize) {
        self.window = self.window.saturating_add(count);
        self.run();
    }

    /// Lets the peer take all output, at most `step` bytes at a time. A `step` of 0 counts as 1.
    pub fn take_in_steps(&mut self, step: usize) {
        self.step = step.max(1);
        self.window = usize::MAX;
        self.run();
    }

    /// Fails the connection with `reason`.
    pub fn fail(&mut self, reason: CloseReason) {
        self.session.fail(reason);
        self.run();
    }

    /// Returns how the session ended, or `None` while it is open.
    pub fn reason(&self) -> Option<&CloseReason> {
        self.end.as_ref().map(End::reason)
    }

    /// Returns how the session ended, with its byte counts and times, or `None` while it is open.
    pub fn ended(&self) -> Option<Ended<'_>> {
        self.end.as_ref().map(End::ended)
    }

    /// Returns the protocol for inspection.
    pub fn protocol(&self) -> &P {
        self.session.protocol()
    }

    /// Runs the session until it needs time to pass or the peer to act. Wakes are noticed here, so
    /// a test that uses a [`Waker`](crate::Waker) must call this.
    ///
    /// # Panics
    /// Panics if the session does not come to rest.
    pub fn run(&mut self) {
        for _ in 0..10_000_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the session does not come to rest");
    }

    /// Runs one turn of a driver. Returns false if there was nothing to do.
    fn turn(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        self.session.lend(&mut self.scratch);
        let woken = self.socket.mailbox.take().count() > 0;
        if woken {
            self.call(Session::handle_woken);
        }

        let moved = self.read() | self.write() | woken;
        let now = context(&self.config, &self.clock, &self.socket);
        self.session.reclaim(&mut self.scratch, &now);

        let most = self.config.max_buffered;
        if self.held() > most - most / 20 {
            self.call(|session, context| session.dismiss(CloseReason::Shed, context));
            self.write();
        }

        if self.session.is_over() {
            let context = context(&self.config, &self.clock, &self.socket);
            self.end = self.session.handle_lost(&context);
        }
        moved
    }

    fn read(&mut self) -> bool {
        if self.session.has_more() {
            self.call(Session::handle_more);
        } else if !self.session.wants_input() {
            return false;
        } else if let Some(data) = self.incoming.pop_front() {
            self.call(|session, context| session.handle_data(&data, context));
        } else if mem::take(&mut self.eof) {
            self.call(Session::handle_eof);
        } else {
            return false;
        }
        true
    }

    fn write(&mut self) -> bool {
        if self.datagrams.is_some() {
            return self.write_datagram();
        }
        let count = self.session.output().len().min(self.step).min(self.window);
        if count == 0 {
            return false;
        }

        self.sent.extend_from_slice(&self.session.output()[..count]);
        if self.window != usize::MAX {
            self.window -= count;
        }
        self.call(|session, context| session.output_sent(count, context));
        true
    }

    fn write_datagram(&mut self) -> bool {
        let (Some(datagrams), Some(next)) = (&mut self.datagrams, self.session.next_datagram())
        else {
            return false;
        };
        if self.window == 0 {
            self.session.cut();
            return false;
        }

        let length = next.len();
        datagrams.push((self.session.next_ecn(), next.to_vec()));
        self.call(|session, context| session.datagram_sent(length, context));
        true
    }

    fn call(&mut self, event: impl FnOnce(&mut Session<P>, &Context<'_>)) {
        event(
            &mut self.session,
            &context(&self.config, &self.clock, &self.socket),
        );
    }
}

/// What the test says of the session's socket.
pub(in crate::testing) struct Socket {
    mailbox: Arc<Mailbox>,
    local_address: Option<Address>,
    credentials: Option<Credentials>,
    packet: Option<PacketInfo>,
}

impl Socket {
    pub(in crate::testing) fn new(
        local_address: Option<Address>,
        credentials: Option<Credentials>,
    ) -> Self {
        Self {
            mailbox: Mailbox::silent(),
            local_address,
            credentials,
            packet: None,
        }
    }
}

impl Wakers for Socket {
    fn waker(&self, id: usize) -> Waker {
        self.mailbox.waker(id)
    }
}

impl Driver for Socket {
    fn local_address(&self, _: usize) -> Option<Address> {
        self.local_address.clone()
    }

    fn credentials(&self, _: usize) -> Option<Credentials> {
        self.credentials
    }

    fn packet_info(&self, _: usize) -> Option<PacketInfo> {
        self.packet
    }
}

pub(in crate::testing) fn context<'a>(
    config: &'a Config,
    clock: &'a Clock,
    driver: &'a Socket,
) -> Context<'a> {
    Context {
        clock,
        config,
        driver,
        id: 0,
    }
}

impl<P> fmt::Debug for MemorySession<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySession")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
