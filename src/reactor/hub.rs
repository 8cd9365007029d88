//! What the reactor lends to a connection or responder while serving it, and what all of them share:
//! counters, log limits, limits per peer and the account of memory.

use std::cell::Cell;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use crate::LOG_TARGET;
use crate::address::{Address, Credentials, PacketInfo, Peer};
use crate::config::{Config, Limits};
use crate::error::counted;
use crate::net::{Net, Sockets};
use crate::reactor::accept::PeerLimit;
use crate::reactor::datagram::ReplyLimit;
use crate::reactor::log_limit::LogLimit;
use crate::reactor::numbers::Numbers;
use crate::reactor::token::NOBODY;
use crate::service::monitor::{Desk, Served};
use crate::session::{
    Admitted, Buffer, Clock, Context, DATAGRAM_MOST, Driver, End, Input, Protocol, Session, Tick,
    catch,
};
use crate::statistics::Statistics;
use crate::sys::Explained;
use crate::waker::{Mailbox, Waker, Wakers};

/// What a loop knows while it serves, and what serving does not change.
pub(crate) struct Env {
    pub(crate) config: Config,
    pub(super) clock: Clock,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) sockets: Numbers,
    /// Where a monitor asks, if there is one.
    pub(crate) desk: Option<Arc<Desk>>,
    /// The limits of each listener, at the place of its number, if they are not those of `config`.
    listener_limits: Vec<Option<Arc<Limits>>>,
    /// How many times a connection may be read from in one turn, and how many bytes each time.
    pub(super) reads: usize,
    pub(super) read_size: usize,
    /// The header of the datagram that a session is shown now, where the system was asked for it.
    pub(super) packet: Cell<Option<PacketInfo>>,
}

impl Env {
    pub(super) fn new(
        config: Config,
        now: Instant,
        mailbox: Arc<Mailbox>,
        sockets: Box<dyn Sockets>,
    ) -> Self {
        let (reads, read_size) = config.reads_per_turn();
        Self {
            config,
            clock: Clock::new(now),
            mailbox,
            sockets: Numbers::new(sockets),
            desk: None,
            listener_limits: Vec::new(),
            reads,
            read_size,
            packet: Cell::new(None),
        }
    }

    /// Sets the limits of the connections of the next listener.
    pub(super) fn push_listener_limits(&mut self, limits: Limits) {
        let own = (limits != self.config.limits).then(|| Arc::new(limits));
        self.listener_limits.push(own);
    }

    /// Returns whether there is a listener with this number.
    pub(super) fn has_listener(&self, number: u16) -> bool {
        usize::from(number) < self.listener_limits.len()
    }

    /// Returns the limits of a listener, if they are not those of the server.
    pub(super) fn limits_of(&self, listener: Option<usize>) -> Option<&Arc<Limits>> {
        self.listener_limits.get(listener?)?.as_ref()
    }

    /// Returns what a session for `peer` is made of: the protocol, and the limits of the listener.
    pub(super) fn admit<P>(&self, protocol: P, peer: Peer) -> Admitted<P> {
        let listener = peer.listener();
        let limits = listener.and_then(|number| self.listener_limits.get(number)?.clone());
        Admitted {
            protocol,
            peer,
            limits,
        }
    }

    /// Returns a buffer for reading: a stream's bytes or one datagram.
    pub(super) fn input(&self) -> Input {
        Input::new(self.read_size.max(DATAGRAM_MOST + 1))
    }
}

/// Puts shares of memory in order, each with its slot: the largest first, and of two equal ones that of the
/// lower slot. Leaves out slots that hold nothing.
pub(super) fn largest_first(shares: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut shares: Vec<_> = shares.filter(|(share, _)| *share > 0).collect();
    shares.sort_unstable_by_key(|(share, slot)| (Reverse(*share), *slot));
    shares
}

impl Env {
    /// Returns how many bytes may be held before some connections have to end: 95 % of `max_buffered`.
    pub(super) fn crowded_at(&self) -> usize {
        self.config.max_buffered - self.config.max_buffered / 20
    }
}

impl Wakers for Env {
    fn waker(&self, id: usize) -> Waker {
        self.mailbox.waker(id)
    }
}

impl Driver for Env {
    fn local_address(&self, id: usize) -> Option<Address> {
        self.sockets.local_address(id)
    }

    fn credentials(&self, id: usize) -> Option<Credentials> {
        self.sockets.credentials(id)
    }

    fn packet_info(&self, _: usize) -> Option<PacketInfo> {
        self.packet.get()
    }
}

/// What serving leaves behind: counters, log limits, failures to report, and limits used up.
pub(crate) struct Effects {
    pub(crate) statistics: Statistics,
    pub(super) log_limit: LogLimit,
    /// Failures that the factory is to be told about.
    pub(crate) failures: Vec<End>,
    pub(super) peer_limit: PeerLimit,
    pub(crate) reply_limit: ReplyLimit,
    /// How many handshakes of layers may still go on in this turn.
    pub(super) handshakes: usize,
    /// How many connections on the loop have begun and not ended.
    pub(crate) live: usize,
    /// How many bytes the connection that is served has written in this round.
    pub(super) written: usize,
    /// How many outbound connections there are.
    pub(super) outbound: usize,
    /// How many bytes all connections hold together.
    pub(super) held: usize,
    /// How many bytes the sessions of datagrams hold together.
    pub(super) held_by_sessions: usize,
    /// Too much may be held. What is to end is decided at the end of the turn.
    pub(super) is_crowded: bool,
    /// The buffer that sessions write into while they are served.
    pub(super) output: Option<Box<Buffer>>,
}

impl Effects {
    pub(super) fn new() -> Self {
        Self {
            statistics: Statistics::default(),
            log_limit: LogLimit::default(),
            failures: Vec::new(),
            peer_limit: PeerLimit::default(),
            reply_limit: ReplyLimit::default(),
            handshakes: 0,
            live: 0,
            written: 0,
            outbound: 0,
            held: 0,
            held_by_sessions: 0,
            is_crowded: false,
            output: Some(Box::default()),
        }
    }

    /// Notes that `count` bytes were read from a stream.
    #[inline]
    pub(super) fn note_read(&mut self, count: usize) {
        let read = &mut self.statistics.bytes_read;
        *read = read.wrapping_add(count as u64);
    }

    /// Notes that a socket took `count` bytes of the connection that is served.
    #[inline]
    pub(super) fn note_written(&mut self, count: usize) {
        self.written = self.written.wrapping_add(count);
        let written = &mut self.statistics.bytes_written;
        *written = written.wrapping_add(count as u64);
    }
}

/// The network, what the loop knows, and what serving leaves behind, as lent to what is served.
pub(crate) struct Hub<'a, N> {
    pub(crate) net: &'a mut N,
    pub(crate) env: &'a Env,
    pub(crate) effects: &'a mut Effects,
    /// The buffer that everything is read into.
    pub(crate) input: &'a mut [u8],
    /// Whether the server is shutting down.
    pub(crate) draining: bool,
}

impl Effects {
    /// Returns how many bytes all connections and sessions hold together, with what was posted for them.
    pub(super) fn held_with(&self, env: &Env) -> usize {
        self.held_besides_posts()
            .saturating_add(env.mailbox.posted())
    }

    #[inline]
    pub(super) fn held_besides_posts(&self) -> usize {
        self.held.saturating_add(self.held_by_sessions)
    }
}

impl<'a, N> Hub<'a, N> {
    pub(super) fn new(
        net: &'a mut N,
        env: &'a Env,
        effects: &'a mut Effects,
        input: &'a mut [u8],
        draining: bool,
    ) -> Self {
        Self {
            net,
            env,
            effects,
            input,
            draining,
        }
    }

    #[inline]
    pub(super) fn context(&self, id: usize) -> Context<'a> {
        Context {
            clock: &self.env.clock,
            config: &self.env.config,
            driver: self.env,
            id,
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.env.clock.tick()
    }

    pub(crate) fn instant(&self) -> Instant {
        self.env.clock.now()
    }

    /// Tells the monitor, if there is one, which connection keeps the loop from turning, or that none
    /// does any more.
    pub(crate) fn tell_monitor(&self, served: Option<Served>) {
        let Some(desk) = &self.env.desk else {
            return;
        };
        let (statistics, open) = (self.effects.statistics, self.effects.live);
        desk.set_served(served, |part, count| {
            part.statistics = statistics;
            part.open = open + count;
        });
    }

    /// Returns the address of an accepted stream on this machine, if there is a monitor that wants to
    /// know.
    pub(crate) fn local_address(&self, stream: &N::Stream) -> Option<Address>
    where
        N: Net,
    {
        let number = self.env.desk.as_ref().map(|_| self.net.number(stream))?;
        self.env.sockets.of_number(number)
    }

    /// Returns how many bytes all connections and sessions hold together, with what was posted for them.
    pub(super) fn held(&self) -> usize {
        self.effects.held_with(self.env)
    }

    /// Returns whether connections hold more than 95 % of `max_buffered`, so that some have to end.
    pub(super) fn is_crowded(&self) -> bool {
        self.held() > self.env.crowded_at()
    }

    /// Returns whether enough of them have ended: the rest holds less than 90 % of `max_buffered`.
    pub(super) fn is_relieved(&self) -> bool {
        self.held() < self.env.config.max_buffered - self.env.config.max_buffered / 10
    }

    /// Returns whether `part` is at least half of what is held.
    pub(super) fn is_mostly(&self, part: usize) -> bool {
        part >= self.held().saturating_sub(part)
    }

    /// Drops a value that holds a user's protocol, whose `Drop` may panic.
    pub(crate) fn drop_caught<T>(&mut self, value: T) {
        if catch(|| drop(value)).is_none() {
            self.effects.statistics.panics += 1;
            self.warn(
                "drop",
                format_args!("a protocol panicked while it was dropped"),
            );
        }
    }

    /// Logs a warning that peers can provoke, at most once a second for each `cause`, and at debug
    /// level otherwise.
    pub(crate) fn warn(&mut self, cause: &'static str, message: fmt::Arguments<'_>) {
        let now = self.now();
        if !self.effects.log_limit.warn(cause, None, now, message) {
            log::debug!(target: LOG_TARGET, "{message}");
        }
    }

    /// Works like [`warn`](Self::warn), for a line about one peer.
    pub(crate) fn warn_of(
        &mut self,
        peer: &Peer,
        cause: &'static str,
        message: fmt::Arguments<'_>,
    ) {
        let (now, id) = (self.now(), peer.id());
        if !self.effects.log_limit.warn(cause, Some(peer), now, message) {
            log::debug!(target: LOG_TARGET, id = id; "{message}");
        }
    }

    /// Adds counters that were kept elsewhere.
    pub(crate) fn add_counts(&mut self, counted: &Statistics) {
        self.effects.statistics.add(counted);
        if counted.datagrams_amplified > 0 {
            self.warn_amplified(None, format_args!("a reply"));
        }
    }

    /// Warns that a reply was dropped because it is too long.
    #[cold]
    pub(super) fn warn_amplified(&mut self, peer: Option<&Peer>, reply: fmt::Arguments<'_>) {
        let cause = "amplified";
        let why = "was dropped: longer than reply_factor (--reply-factor) allows";
        match peer {
            Some(peer) => self.warn_of(peer, cause, format_args!("{reply} {why}")),
            None => self.warn(cause, format_args!("{reply} {why}")),
        }
    }

    /// Counts an inbound connection of the peer as ended.
    pub(crate) fn leave(&mut self, peer: &Peer) {
        self.effects.peer_limit.leave(peer, &self.env.config);
    }

    /// Counts an inbound connection for the client that its peer has named, and no longer for the
    /// peer. Returns false if the client has too many; the connection then counts for it until it
    /// ends.
    pub(crate) fn reseat(&mut self, peer: &Peer) -> bool {
        if let Some(before) = peer.before() {
            self.leave(&before);
        }
        let limit = &mut self.effects.peer_limit;
        let has_room = limit.has_room(peer, &self.env.config);
        limit.enter(peer, &self.env.config);
        if !has_room {
            self.warn_crowding(peer);
        }
        has_room
    }

    /// Warns that a connection was refused because its peer has as many as it may have.
    #[cold]
    pub(crate) fn warn_crowding(&mut self, peer: &Peer) {
        let open = counted(
            self.env.config.max_per_peer,
            "connection from this peer is open",
            "connections from this peer are open",
        );
        self.warn_of(
            peer,
            "refused per peer",
            format_args!("{peer}: refused: {open}"),
        );
    }

    /// Returns whether a thread or process was started for the peer, and logs the failure if not.
    pub(crate) fn check_spawned(&mut self, peer: &Peer, spawned: io::Result<()>) -> bool {
        let Err(error) = spawned else {
            return true;
        };
        let (now, id) = (self.now(), peer.id());
        let error = Explained(&error);
        let message = format!("{peer}: cannot start a thread or process: {error}");
        let log_limit = &mut self.effects.log_limit;
        if !log_limit.warn("spawn", Some(peer), now, format_args!("{message}")) {
            // A line said that the connection was accepted, so one says what became of it.
            log::debug!(target: LOG_TARGET, event = "refused", id = id, peer:% = peer; "{message}");
        }
        false
    }

    /// Tells a protocol that its connection is lost, and counts the reason. Returns whether the
    /// peer should see a reset rather than an orderly close.
    pub(super) fn lose<P: Protocol>(&mut self, session: &mut Session<P>) -> bool {
        let context = self.context(NOBODY);
        let Some(end) = session.conclude(&context, &mut self.effects.statistics) else {
            return false;
        };

        let hard = end.reason().is_hard();
        if end.reason().is_error() {
            self.effects.failures.push(end);
        }
        hard
    }
}
