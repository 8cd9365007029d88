//! What the reactor lends a connection or a responder while it is served.

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use crate::LOG_TARGET;
use crate::address::Peer;
use crate::config::Config;
use crate::error::CloseReason;
use crate::reactor::accept::PeerLimit;
use crate::reactor::datagram::ReplyLimit;
use crate::reactor::log_limit::LogLimit;
use crate::session::{Buffer, Clock, Context, Input, Protocol, Session, Tick, catch};
use crate::statistics::Statistics;
use crate::waker::{Mailbox, Wakers};

/// The longest datagram, in bytes: what fits into UDP, and a limit for Unix sockets, which take more.
pub(super) const DATAGRAM_MOST: usize = 65_536;

/// What the reactor owns for its turns, whoever is served.
pub(super) struct Kit {
    pub(crate) config: Config,
    pub(super) clock: Clock,
    pub(super) mailbox: Arc<Mailbox>,
    pub(crate) statistics: Statistics,
    pub(super) log_limit: LogLimit,
    pub(crate) failures: Vec<(Peer, Box<CloseReason>)>,
    pub(super) peer_limit: PeerLimit,
    pub(crate) reply_limit: ReplyLimit,
    /// Bytes that the buffers of all connections hold.
    pub(super) held: usize,
    reads: usize,
    read_size: usize,
    input: Input,
    output: Option<Box<Buffer>>,
}

impl Kit {
    pub(super) fn new(config: Config, now: Instant, mailbox: Arc<Mailbox>) -> Self {
        let (reads, read_size) = config.reads_per_turn();
        Self {
            reads,
            read_size,
            input: Input::new(read_size.max(DATAGRAM_MOST + 1)),
            output: Some(Box::default()),
            config,
            clock: Clock::new(now),
            mailbox,
            statistics: Statistics::default(),
            log_limit: LogLimit::default(),
            failures: Vec::new(),
            peer_limit: PeerLimit::default(),
            reply_limit: ReplyLimit::default(),
            held: 0,
        }
    }

    pub(super) fn lend<'a, N>(&'a mut self, net: &'a mut N, draining: bool) -> Turn<'a, N> {
        Turn {
            net,
            config: &self.config,
            clock: &self.clock,
            wakers: &self.mailbox,
            statistics: &mut self.statistics,
            log_limit: &mut self.log_limit,
            reads: self.reads,
            read_size: self.read_size,
            input: &mut self.input,
            output: &mut self.output,
            failures: &mut self.failures,
            peer_limit: &mut self.peer_limit,
            reply_limit: &mut self.reply_limit,
            held: &mut self.held,
            draining,
        }
    }
}

pub(crate) struct Turn<'a, N> {
    pub(crate) net: &'a mut N,
    pub(crate) config: &'a Config,
    pub(super) clock: &'a Clock,
    pub(super) wakers: &'a dyn Wakers,
    pub(crate) statistics: &'a mut Statistics,
    pub(super) log_limit: &'a mut LogLimit,
    /// How often a connection may be read from, and how many bytes each time.
    pub(super) reads: usize,
    pub(super) read_size: usize,
    /// The one buffer that everything is read into.
    pub(crate) input: &'a mut [u8],
    /// The one buffer that sessions write into while they are served.
    pub(super) output: &'a mut Option<Box<Buffer>>,
    /// Ends that the factory is to hear of.
    pub(crate) failures: &'a mut Vec<(Peer, Box<CloseReason>)>,
    pub(super) peer_limit: &'a mut PeerLimit,
    pub(crate) reply_limit: &'a mut ReplyLimit,
    /// Bytes that the buffers of all connections hold.
    pub(super) held: &'a mut usize,
    pub(crate) draining: bool,
}

impl<'a, N> Turn<'a, N> {
    #[inline]
    pub(super) fn context(&self, id: usize) -> Context<'a> {
        Context {
            clock: self.clock,
            config: self.config,
            wakers: self.wakers,
            id,
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.tick()
    }

    /// Whether connections hold so much together that some have to end.
    pub(super) fn is_crowded(&self) -> bool {
        *self.held > self.config.max_buffered - self.config.max_buffered / 20
    }

    /// Whether enough of them have ended.
    pub(super) fn is_relieved(&self) -> bool {
        *self.held < self.config.max_buffered - self.config.max_buffered / 10
    }

    /// Drops what holds a user's protocol, whose `Drop` may panic.
    pub(crate) fn drop_caught<T>(&mut self, value: T) {
        if catch(|| drop(value)).is_none() {
            self.statistics.panics += 1;
            self.warn(
                "drop",
                format_args!("a protocol panicked while it was dropped"),
            );
        }
    }

    /// Logs a warning that peers can cause, at most once a second for each `cause`.
    pub(crate) fn warn(&mut self, cause: &'static str, message: fmt::Arguments<'_>) {
        if !self.log_limit.warn(cause, self.clock.tick(), message) {
            log::debug!(target: LOG_TARGET, "{message}");
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add_counts(&mut self, counted: &Statistics) {
        self.statistics.add(counted);
        if counted.datagrams_amplified > 0 {
            self.warn_amplified(format_args!("a reply"));
        }
    }

    /// Says why a reply did not leave.
    #[cold]
    pub(super) fn warn_amplified(&mut self, whose: fmt::Arguments<'_>) {
        self.warn(
            "amplified",
            format_args!("{whose} was dropped: longer than reply_factor (--reply-factor) allows"),
        );
    }

    /// A connection has ended that had come in.
    pub(crate) fn leave(&mut self, peer: &Peer) {
        self.peer_limit.leave(peer, self.config);
    }

    /// Whether a thread or a process could be made for the peer; if not, that is logged.
    pub(crate) fn check_spawned(&mut self, peer: &Peer, spawned: io::Result<()>) -> bool {
        if let Err(error) = &spawned {
            self.warn(
                "spawn",
                format_args!("{peer}: no thread or process: {error}"),
            );
        }
        spawned.is_ok()
    }

    /// Tells a protocol that its connection is lost, and counts why. Returns whether the peer should
    /// see a reset rather than an orderly end.
    pub(super) fn lose<P: Protocol>(&mut self, session: &mut Session<P>) -> bool {
        let Some(reason) = session.handle_lost() else {
            return false;
        };
        self.statistics.panics += u64::from(session.has_panicked_last());
        let hard = reason.is_hard();
        self.statistics.count_close(&reason);
        if reason.is_error() {
            self.failures.push((session.peer().clone(), reason));
        } else {
            log::debug!(target: LOG_TARGET, event = "ended"; "{}: {reason}", session.peer());
        }
        hard
    }
}
