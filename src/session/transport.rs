//! A protocol's view of its connection.

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use crate::address::{Address, Credentials, PacketInfo, Peer};
use crate::config::{Config, ConfigError, Limits};
use crate::error::{CloseReason, ProtocolError};
use crate::session::clock::Clock;
use crate::session::shown::Shown;
use crate::session::state::{
    AGAIN, CLOSING, FINISHED, FULL, LIMITED, MUTE, PAUSED, QUEUED, RATE_LIMITED, RELIMITED, State,
    WANTED, WROTE,
};
use crate::waker::{Mailbox, Waker, Wakers};

/// What a driver lends to a session for one call.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The driver's time.
    pub clock: &'a Clock,
    /// The limits in force.
    pub config: &'a Config,
    /// Answers what the session asks the driver.
    pub driver: &'a dyn Driver,
    /// The driver's number for the session; a waker carries it.
    pub id: usize,
}

/// What a session may ask its driver: a waker, and what the system knows of its socket.
///
/// An `Arc<Mailbox>` is a driver that knows no socket.
///
/// ```
/// use serveloop::driver::{Driver, Mailbox, Wakers};
/// use serveloop::{Address, Waker};
/// use std::net::{TcpListener, TcpStream};
/// use std::sync::Arc;
///
/// /// The driver of one stream.
/// struct Single(TcpStream, Arc<Mailbox>);
///
/// impl Wakers for Single {
///     fn waker(&self, id: usize) -> Waker {
///         self.1.waker(id)
///     }
/// }
///
/// impl Driver for Single {
///     fn local_address(&self, _: usize) -> Option<Address> {
///         self.0.local_addr().ok().map(Address::Tcp)
///     }
/// }
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = TcpStream::connect(listener.local_addr()?)?;
/// let driver = Single(stream, Mailbox::new(Box::new(|| ())));
/// assert!(driver.local_address(0).is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Driver: Wakers {
    /// Returns the local address of the socket of the session that the driver knows as `id`. `None`
    /// if it has no stream of its own, or the system does not tell.
    fn local_address(&self, id: usize) -> Option<Address> {
        let _ = id;
        None
    }

    /// Returns the credentials of the peer of the session that the driver knows as `id`. Called only
    /// for a peer of a Unix stream.
    fn credentials(&self, id: usize) -> Option<Credentials> {
        let _ = id;
        None
    }

    /// Returns what the header of the datagram says that the session with this `id` is shown now. `None`
    /// if none is shown, or the system was not asked.
    fn packet_info(&self, id: usize) -> Option<PacketInfo> {
        let _ = id;
        None
    }
}

impl Driver for Arc<Mailbox> {}

impl<'a> Context<'a> {
    /// Puts together what the driver lends. It borrows the clock, so a driver makes a new one after
    /// it has set the clock.
    #[must_use]
    pub fn new(clock: &'a Clock, config: &'a Config, driver: &'a dyn Driver, id: usize) -> Self {
        Self {
            clock,
            config,
            driver,
            id,
        }
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A protocol's view of its connection, for the duration of one call.
///
/// No method blocks or fails. Output waits in memory until the socket takes it, and
/// [`connection_lost`](crate::Protocol::connection_lost) reports a failure.
pub struct Transport<'a> {
    pub(super) state: &'a mut State,
    pub(super) context: &'a Context<'a>,
    /// What the protocol is shown, if that can be sent from where it is.
    pub(super) shown: Option<Shown<'a>>,
}

impl<'a> Transport<'a> {
    #[inline]
    pub(super) fn new(state: &'a mut State, context: &'a Context<'a>) -> Self {
        Self {
            state,
            context,
            shown: None,
        }
    }
}

impl Transport<'_> {
    /// Returns the same transport with a shorter lifetime.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Transport<'_> {
        self.settle();
        Transport::new(self.state, self.context)
    }

    /// Sends `data` after everything written before. For a datagram, the data becomes part of the
    /// one reply. Written data is sent together at the end of the turn.
    ///
    /// While `high_water` bytes or more wait, the peer's input is not read. One call of the protocol may
    /// write more, up to [`max_reply`](Limits::max_reply) and the server's
    /// [`max_buffered`](Config::max_buffered). The connection is ended with
    /// [`CloseReason::Overflow`] if there is more than that, or if a call writes although more than
    /// [`max_output`](Limits::max_output) bytes waited before it. After [`close`](Self::close) or
    /// [`finish`](Self::finish), writing does nothing.
    ///
    /// The data is copied. See [`write_shared`](Self::write_shared), [`write_static`](Self::write_static)
    /// and [`write_owned`](Self::write_owned) for long data, and [`send`](Self::send) for data that is
    /// made or read while there is room.
    #[inline]
    pub fn write(&mut self, data: &[u8]) {
        if self.state.flags.any(MUTE.or(LIMITED).or(QUEUED)) || self.shown.is_some() {
            return self.write_unusual(data);
        }
        self.write_below(self.context.config.limits.high_water, data);
    }

    /// Writes nothing, or from where the data is, or with the limits or the tap of this connection, or
    /// behind what is queued.
    #[cold]
    fn write_unusual(&mut self, data: &[u8]) {
        if self.state.flags.any(MUTE) {
            return;
        }
        self.state.note_written(data);
        if self.shown.is_some() && self.lend_out(data) {
            return;
        }
        if self.state.flags.any(QUEUED) {
            self.state.flags.set(WROTE);
            return self.write_beyond_mark(data);
        }
        self.write_below(self.limits().high_water, data);
    }

    #[inline]
    fn write_below(&mut self, high_water: usize, data: &[u8]) {
        self.state.flags.set(WROTE);
        let output = self.state.output.get_or_insert_with(Box::default);
        if output.len().wrapping_add(data.len()) >= high_water {
            return self.write_beyond_mark(data);
        }
        output.push(data);
    }

    /// Sends as much of `data` as fits below `high_water`, and returns how many bytes that is. If
    /// it is not all, [`resume_writing`](crate::Protocol::resume_writing) is called when waiting
    /// output has fallen to `low_water`.
    ///
    /// Unlike [`write`](Self::write), this never stops the peer's input. A relay needs that,
    /// because its peer may not accept output before it has sent its own. After
    /// [`close`](Self::close) or [`finish`](Self::finish), all data is taken and nothing is sent.
    pub fn write_some(&mut self, data: &[u8]) -> usize {
        self.settle();
        if self.state.flags.any(MUTE) {
            return data.len();
        }

        self.state.flags.set(WROTE);
        let high_water = self.limits().high_water;
        let room = high_water.saturating_sub(self.state.waiting());
        if data.len() > room {
            self.state.flags.set(WANTED);
            self.state.extra().owes = true;
        } else if let Some(extra) = &mut self.state.extra {
            extra.owes = false;
        }

        let data = &data[..data.len().min(room)];
        self.state.note_written(data);
        self.state.append(data);
        data.len()
    }

    #[cold]
    fn write_beyond_mark(&mut self, data: &[u8]) {
        if self.makes_room(data.len()) {
            self.state.append(data);
        }
    }

    /// Ends the connection when all written data is sent, and shows no more input. The peer sees
    /// the end of the stream. What [`write_some`](Self::write_some) had no room for is lost:
    /// [`Statistics::cut_short`](crate::Statistics::cut_short) counts that, and debug builds log it.
    pub fn close(&mut self) {
        self.state.close();
    }

    /// Ends only our side of the stream, when all written data is sent. The peer sees the end of
    /// the stream. Its input is still shown, until it ends its side too.
    pub fn finish(&mut self) {
        self.state.flags.set(FINISHED);
    }

    /// Ends the connection at once and drops output that was not sent yet. The peer of a TCP
    /// connection sees a reset.
    pub fn abort(&mut self) {
        self.settle();
        self.state.fail(CloseReason::Aborted);
    }

    /// Stops showing input, and the end of the stream, until
    /// [`resume_reading`](Self::resume_reading). Nothing is lost: unread bytes are kept, and the
    /// peer is slowed down.
    pub fn pause_reading(&mut self) {
        self.state.flags.set(PAUSED);
    }

    /// Shows input again, beginning with the unread bytes, without waiting for more.
    pub fn resume_reading(&mut self) {
        self.state.unblock(PAUSED, self.context.clock.tick());
    }

    /// Returns whether [`pause_reading`](Self::pause_reading) has paused reading.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.flags.any(PAUSED)
    }

    /// Notes that a rate limit makes the peer wait. The connection is counted for it at its end.
    pub(crate) fn note_rate_limited(&mut self) {
        self.state.flags.set(RATE_LIMITED);
    }

    /// Has [`woken`](crate::Protocol::woken) called in the next turn, before any more input is
    /// shown. A protocol with much to do does a part of it per call, so that other connections
    /// have their turns in between. A datagram has one turn: there it is called at once, up to
    /// [`messages_per_turn`](crate::Config::messages_per_turn) times.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Answers each byte with a countdown from its value, one number per turn.
    /// struct Countdown(u8);
    ///
    /// impl Protocol for Countdown {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         self.0 = data[0];
    ///         transport.call_again();
    ///         Ok(1)
    ///     }
    ///
    ///     fn woken(&mut self, transport: &mut Transport<'_>) {
    ///         transport.write(&[self.0]);
    ///         if self.0 > 0 {
    ///             self.0 -= 1;
    ///             transport.call_again();
    ///         }
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Countdown(0));
    /// session.receive(&[2, 1]);
    /// assert_eq!(session.sent(), [2, 1, 0, 1, 0]);
    /// ```
    pub fn call_again(&mut self) {
        self.state.flags.set(AGAIN);
    }

    /// Returns whether the protocol may take another message in this call, and counts it if so. False
    /// if that was true [`messages_per_turn`](crate::Config::messages_per_turn) times since the
    /// driver read its clock, which it does once per turn, or if no more input is to be shown: the
    /// output is full, reading is paused, a call was asked for, or the connection is closing.
    ///
    /// Taking one message per call is simpler, and as fair. A protocol of many short messages saves
    /// the calls with a loop around the rest of its data. A connection that has asked needs about 100
    /// bytes more.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Answers each byte.
    /// struct Bytes;
    ///
    /// impl Protocol for Bytes {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         let mut taken = 0;
    ///         loop {
    ///             transport.write(&data[taken..=taken]);
    ///             taken += 1;
    ///             if taken == data.len() || !transport.has_turn() {
    ///                 return Ok(taken);
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Bytes);
    /// session.receive(b"abc");
    /// assert_eq!(session.sent(), b"abc");
    /// ```
    pub fn has_turn(&mut self) -> bool {
        if self.is_blocked() {
            return false;
        }
        let now = self.context.clock.tick();
        let most = self.context.config.messages_per_turn;
        self.state.extra().turn.take(now, most)
    }

    /// Returns whether a producer should stop until
    /// [`resume_writing`](crate::Protocol::resume_writing), because too much output waits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state.flags.any(FULL)
    }

    /// Returns whether the connection is about to end: closed, aborted, or failed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.state.flags.any(CLOSING)
    }

    /// Reports that the protocol itself keeps `bytes` bytes of memory for this connection, for
    /// example in a queue or a cache. They count like unread input and waiting output towards
    /// [`max_buffered`](crate::Config::max_buffered). The connection that keeps the most is the
    /// first to be [shed](crate::CloseReason::Shed).
    ///
    /// Each call sets the whole amount and replaces the one before, so that nothing is added twice
    /// or forgotten. Call it whenever the amount changes, with 0 when nothing is kept any more. The
    /// amount starts at 0 and ends with the connection. It takes effect at the end of the turn; on
    /// a thread or in a process that serves only this connection, at the end of the call. More than
    /// 4 GiB counts as 4 GiB. For a datagram, whose session ends at once, this does nothing.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, ProtocolError, Transport};
    ///
    /// /// Keeps what comes for others that will ask for it.
    /// #[derive(Default)]
    /// struct Shelf(Vec<Vec<u8>>, usize);
    ///
    /// impl Protocol for Shelf {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize, ProtocolError> {
    ///         self.0.push(data.to_vec());
    ///         self.1 += data.len();
    ///         transport.charge(self.1);
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Shelf::default());
    /// session.receive(b"good");
    /// session.receive(b"morning");
    /// assert_eq!(session.held(), 11);
    /// session.receive_eof();
    /// assert_eq!(session.held(), 0);
    /// ```
    pub fn charge(&mut self, bytes: usize) {
        self.state.charge(bytes);
    }

    /// Returns how many bytes of output wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.waiting() + self.lent()
    }

    /// Returns the driver's time, which is read once per turn. It is virtual in tests.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.context.clock.now()
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.state.peer
    }

    /// Returns the connection's number, which no other connection of the process has: the same as
    /// [`Peer::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.state.peer.id()
    }

    /// Returns the address on this machine that the connection uses: of an accepted one, the address
    /// that the peer connected to, also if the listener is bound to all addresses. The system is
    /// asked anew in each call. `None` for a datagram, and if the system does not tell, for example
    /// on some systems after the peer has reset the connection.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::net::Credentials;
    /// use serveloop::{Config, Peer, Protocol, Result, Transport};
    ///
    /// /// Serves its own user only.
    /// struct Private(u32);
    ///
    /// impl Protocol for Private {
    ///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
    ///         let is_owner = transport.credentials().is_some_and(|peer| peer.uid == self.0);
    ///         match transport.local_address() {
    ///             Some(address) if is_owner => transport.write(format!("welcome at {address}").as_bytes()),
    ///             _ => transport.abort(),
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let peer = Peer::new("unix:///run/client.sock".parse()?, Some(0));
    /// let local = "unix:///run/private.sock".parse()?;
    /// let user = Credentials::new(1000, 1000, None);
    /// let mut session = MemorySession::with_socket(Private(1000), Config::default(), peer, Some(local), Some(user));
    /// assert_eq!(session.sent(), b"welcome at unix:///run/private.sock");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn local_address(&self) -> Option<Address> {
        self.context.driver.local_address(self.context.id)
    }

    /// Returns who the peer of a Unix stream is, as the system knows it. The system is asked anew
    /// in each call. `None` for all other peers.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        match self.state.peer.address() {
            Address::Unix(_) => self.context.driver.credentials(self.context.id),
            _ => None,
        }
    }

    /// Returns the configuration of the server.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.context.config
    }

    /// Returns the limits of this connection: its own if it has any
    /// ([`set_limits`](Self::set_limits)), otherwise those of its listener.
    #[must_use]
    #[inline]
    pub fn limits(&self) -> &Limits {
        self.state.limits(self.context.config)
    }

    /// Gives this connection limits of its own from now on. Deadlines that run go on from when they
    /// began. Input and output that are there already stay, also if they are more than the new
    /// limits allow.
    ///
    /// Connections share limits through the `Arc`, so a program makes each kind once. A connection
    /// with limits of its own needs about 64 bytes more.
    ///
    /// # Errors
    /// Returns an error, and changes nothing, if the limits are not
    /// [consistent](Limits::validate), or if `max_output` is more than the server's
    /// [`max_buffered`](Config::max_buffered).
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Limits, Protocol, Result, Transport};
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// /// Who has said the password may be silent for as long as they like.
    /// struct Guarded(Arc<Limits>);
    ///
    /// impl Protocol for Guarded {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         if data == b"password" {
    ///             transport.set_limits(Arc::clone(&self.0))?;
    ///         }
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let patient = Arc::new(Limits { idle_timeout: None, ..Limits::default() });
    /// let mut session = MemorySession::new(Guarded(patient));
    /// session.receive(b"password");
    /// session.advance(Duration::from_secs(3_600));
    /// assert!(!session.is_finished());
    /// ```
    pub fn set_limits(&mut self, limits: Arc<Limits>) -> Result<(), ConfigError> {
        limits.validate()?;
        limits.fit(self.context.config.max_buffered)?;
        self.state.set_limits(limits);
        self.state.flags.set(RELIMITED);
        Ok(())
    }

    /// Returns a handle with which other threads, connections or processes have
    /// [`woken`](crate::Protocol::woken) called on this session. A datagram's session ends at once,
    /// so its waker does nothing.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.context.driver.waker(self.context.id)
    }
}

impl From<ConfigError> for ProtocolError {
    /// Lets a protocol use `?` with [`Transport::set_limits`].
    fn from(error: ConfigError) -> Self {
        Self::Other(error.into())
    }
}

impl io::Write for Transport<'_> {
    /// Works like [`Transport::write`]: never fails and always takes all of `data`.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Transport::write(self, data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("link", &self.state)
            .finish_non_exhaustive()
    }
}
