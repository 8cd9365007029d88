//! The state of a session's connection, apart from the protocol.

use std::sync::Arc;
use std::time::Duration;

use crate::address::Peer;
use crate::config::{Config, Limits};
use crate::error::{CloseReason, Deadline};
use crate::session::buffer::Buffer;
use crate::session::clock::{Clock, Tick};
use crate::session::cuts::Cuts;
use crate::session::ended::{End, Traffic};
use crate::session::expected::Expected;
use crate::session::flags::Flags;
use crate::session::outbox::{Outbox, Own};
use crate::session::pace::Pace;
use crate::session::queue::Queue;
use crate::session::tap::OwnTap;
use crate::session::turn::Turn;

/// The protocol has paused its input.
pub(super) const PAUSED: Flags = Flags::bit(0);
/// Output has reached the high mark and not yet fallen to the low one.
pub(super) const FULL: Flags = Flags::bit(1);
/// No more input is taken and no more output written; waiting output is still sent.
pub(super) const CLOSING: Flags = Flags::bit(2);
/// Waiting output is not sent either. Implies `CLOSING`.
pub(super) const ABORTED: Flags = Flags::bit(3);
/// Unread bytes are to be shown again without new input, as soon as nothing blocks them.
pub(super) const PENDING: Flags = Flags::bit(4);
/// Unread bytes are the beginning of a message, and the peer owes the rest.
pub(super) const INCOMPLETE: Flags = Flags::bit(5);
/// No message has been complete yet.
pub(super) const FIRST: Flags = Flags::bit(6);
/// The peer ended its stream.
pub(super) const EOF: Flags = Flags::bit(7);
/// The protocol has been told of the end of the stream.
pub(super) const EOF_TOLD: Flags = Flags::bit(8);
/// The protocol was asked to finish.
pub(super) const SHUTDOWN: Flags = Flags::bit(9);
/// The protocol wrote something, possibly an empty datagram.
pub(super) const WROTE: Flags = Flags::bit(10);
/// A deadline may have become earlier.
pub(super) const RETIME: Flags = Flags::bit(11);
/// The socket did not take all output.
pub(super) const STALLED: Flags = Flags::bit(12);
/// The protocol was told that the connection is lost.
pub(super) const LOST: Flags = Flags::bit(13);
/// Nothing is shown before as many unread bytes are there as the protocol has said.
pub(super) const EXPECTS: Flags = Flags::bit(14);
/// Our side of the stream ends when all output is sent; input goes on.
pub(super) const FINISHED: Flags = Flags::bit(15);
/// The protocol has more to send once output has fallen to the low mark.
pub(super) const WANTED: Flags = Flags::bit(16);

/// The protocol has charged memory of its own.
pub(super) const CHARGED: Flags = Flags::bit(17);
/// The protocol is called again in the next turn, and shown nothing before that.
pub(super) const AGAIN: Flags = Flags::bit(18);
/// The session is inside a layer: deadlines for idle peers and for waiting output are the business
/// of the session outside.
pub(super) const NESTED: Flags = Flags::bit(19);
/// A layer's unit, or a preface, may be kept in addition to `max_frame`.
pub(super) const UNIT_ROOM: Flags = Flags::bit(20);
/// Some of the peer's bytes wait to be read while deadlines are handled.
pub(super) const WAITS: Flags = Flags::bit(21);
/// The protocol panicked when it was told of the loss, after which no deadline is handled.
pub(super) const PANICKED: Flags = WAITS;
/// The peer is another one than before, and the driver does not know it yet.
pub(super) const REPLACED: Flags = Flags::bit(22);

/// A rate limit made the peer wait.
pub(super) const RATE_LIMITED: Flags = Flags::bit(23);

/// The protocol has changed the limits, and the session outside does not know it yet.
pub(super) const RELIMITED: Flags = Flags::bit(24);

/// A layer sends what the session inside has written, which was within `max_output`.
pub(super) const EXPANDING: Flags = Flags::bit(25);
/// The connection is ended for a reason that allows one attempt to send an end mark. Implies
/// `ABORTED`.
pub(super) const DISMISSED: Flags = Flags::bit(26);
/// There was such a mark to send.
pub(super) const MARKED: Flags = Flags::bit(27);
/// The connection has limits of its own, or a tap.
pub(super) const LIMITED: Flags = Flags::bit(30);
/// A layer's handshake has not ended. It has a deadline of its own, and no part of it is a message.
pub(super) const OPENING: Flags = Flags::bit(29);
/// The session of a datagram is shown the further datagrams of its peer too. It shares a flag with
/// `REPLACED`, because only the peer of a stream is replaced.
pub(super) const LASTING: Flags = REPLACED;
/// The protocol knows that the peer of a lasting session receives what is sent to its address. It
/// shares a flag with `MARKED`, because only streams have end marks.
pub(super) const CONFIRMED: Flags = MARKED;

/// The protocol has said why the connection ends, and what it said is still to be sent.
pub(super) const FAREWELL: Flags = Flags::bit(28);

/// Output waits behind the buffer, or a source is to make some.
pub(super) const QUEUED: Flags = Flags::bit(31);

/// How long what a protocol says at the end, because of a deadline or an error, may take to be sent.
const FAREWELL_MOST: Duration = Duration::from_secs(5);

/// The flags with which writing does nothing.
pub(super) const MUTE: Flags = CLOSING.or(FINISHED);

/// The flags that keep input from being shown: the protocol's wish, waiting output, a call that
/// comes first, or the end.
pub(super) const BLOCKED: Flags = PAUSED.or(FULL).or(CLOSING).or(AGAIN);

/// The flags of a session that does more than wait for the next message. A session has unread bytes
/// only with one of these.
pub(super) const BUSY: Flags = CLOSING
    .or(FINISHED)
    .or(PENDING)
    .or(INCOMPLETE)
    .or(CHARGED)
    .or(AGAIN)
    .or(REPLACED)
    .or(OPENING)
    .or(QUEUED);

/// The part of a session that a [`Transport`](crate::Transport) acts on.
#[derive(Debug)]
pub(super) struct State {
    pub(super) peer: Peer,
    pub(super) output: Option<Box<Buffer>>,
    pub(super) extra: Option<Box<Extra>>,
    /// When the session was made.
    pub(super) began: Tick,
    /// When a byte last moved.
    pub(super) activity: Tick,
    /// When the wait for the rest of a message began.
    pub(super) message: Tick,
    /// When the peer last took output, or when output began to wait.
    pub(super) progress: Tick,
    /// How many bytes came from the peer, and how many bytes of output the system took.
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) flags: Flags,
    /// How many bytes the protocol keeps itself. A `u32`, because every idle connection stores it.
    pub(super) charged: u32,
}

/// What few sessions have at a time. It costs the others one pointer.
#[derive(Debug, Default)]
pub(super) struct Extra {
    cause: Option<Box<Cause>>,
    /// The limits of this connection, in place of those of the configuration.
    limits: Option<Arc<Limits>>,
    /// The output behind the buffer, while there is some.
    pub(super) queue: Option<Box<Queue>>,
    /// Where others post data, if the protocol has asked for it.
    pub(super) outbox: Option<Own>,
    /// The outbox of the session inside a layer.
    pub(super) shown: Option<Outbox>,
    pub(super) turn: Turn,
    /// What the protocol has said about its input.
    pub(super) expected: Option<Box<Expected>>,
    /// Where the output of a datagram's session is cut into several datagrams.
    pub(super) cuts: Option<Box<Cuts>>,
    /// Is shown what the protocol writes.
    pub(super) tap: Option<OwnTap>,
    /// How fast the peer is, where that is limited.
    pub(super) pace: Option<Box<Pace>>,
    /// The last `write_some` had no room for all of its data.
    pub(super) owes: bool,
    /// The protocol has closed the connection with output that it had no room for.
    pub(super) is_cut_short: bool,
    /// More than `max_output` bytes waited before the call that goes on.
    is_over: bool,
}

/// Why a connection ends.
#[derive(Debug)]
struct Cause {
    reason: CloseReason,
    /// How many bytes of output were dropped.
    unsent: usize,
}

impl From<CloseReason> for Box<Cause> {
    fn from(reason: CloseReason) -> Self {
        Self::new(Cause { reason, unsent: 0 })
    }
}

impl State {
    pub(super) fn new(peer: Peer, now: Tick) -> Self {
        let flags = if peer.listener().is_some() {
            FIRST
        } else {
            Flags::NONE
        };

        Self {
            peer,
            output: None,
            extra: None,
            began: now,
            activity: now,
            message: now,
            progress: now,
            received: 0,
            sent: 0,
            flags,
            charged: 0,
        }
    }

    /// Returns the limits in force: the connection's own, or those of the configuration.
    #[inline]
    pub(super) fn limits<'a>(&'a self, config: &'a Config) -> &'a Limits {
        match &self.extra {
            None => &config.limits,
            Some(extra) => extra.limits.as_deref().unwrap_or(&config.limits),
        }
    }

    /// Returns how many bytes of memory are held besides the buffers: what is queued, what the protocol has
    /// claimed of its input, and what it charged.
    pub(super) fn held_beside_buffers(&self) -> usize {
        self.queue()
            .map_or(0, Queue::held)
            .saturating_add(self.claimed())
            .saturating_add(self.charged as usize)
    }

    /// Returns the limits that are the connection's own.
    pub(super) fn own_limits(&self) -> Option<Arc<Limits>> {
        self.extra.as_ref().and_then(|extra| extra.limits.clone())
    }

    /// Replaces the limits from now on. Deadlines count from the same moments as before.
    pub(super) fn set_limits(&mut self, limits: Arc<Limits>) {
        let extra = self.extra();
        if let Some(outbox) = &extra.outbox {
            outbox.0.set_most(limits.max_posted);
        }
        extra.limits = Some(limits);
        self.flags.set(LIMITED | RETIME);
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_with(Box::default)
    }

    /// Returns whether there is no end, no session inside a layer with an outbox, and no limits but those of
    /// the listener, which are `usual`.
    pub(super) fn is_plain(&self, usual: Option<&Arc<Limits>>) -> bool {
        self.extra.as_ref().is_none_or(|extra| {
            let own = extra.limits.as_ref();
            let has_own = own.is_some_and(|own| !usual.is_some_and(|it| Arc::ptr_eq(own, it)));
            extra.shown.is_none() && !has_own && extra.cause.is_none()
        })
    }

    fn cause(&mut self) -> Option<&mut Cause> {
        self.extra
            .as_mut()
            .and_then(|extra| extra.cause.as_deref_mut())
    }

    /// Takes the reason for the end, and how many bytes of output were dropped.
    pub(super) fn take_cause(&mut self) -> Option<(CloseReason, usize)> {
        let cause = self.extra.as_mut().and_then(|extra| extra.cause.take());
        cause.map(|cause| (cause.reason, cause.unsent))
    }

    /// Sets how many bytes the protocol keeps itself.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.charged = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.flags.clear(CHARGED);
        self.flags.set(CHARGED.when(bytes > 0));
    }

    /// Moves times noted as `from` to `to`, close to when the events really happened. The driver
    /// read the clock before work that took long.
    pub(super) fn catch_up(&mut self, from: Tick, to: Tick) {
        let stamps = [
            &mut self.began,
            &mut self.activity,
            &mut self.message,
            &mut self.progress,
        ];
        for stamp in stamps.into_iter().filter(|stamp| **stamp == from) {
            *stamp = to;
        }
    }

    pub(super) fn close(&mut self) {
        // Inside a layer, what is queued waits for room too, and is sent.
        let waits = self.flags.any(NESTED) && self.flags.any(QUEUED);
        let owes = self.extra.as_ref().is_some_and(|extra| extra.owes);
        if owes && !waits && !self.flags.any(CLOSING) {
            self.note_cut_short();
        }
        let reason = if self.flags.any(EOF_TOLD) {
            CloseReason::PeerClosed
        } else if self.flags.any(SHUTDOWN) {
            CloseReason::Shutdown
        } else {
            CloseReason::Closed
        };
        self.close_for(reason);
    }

    /// Ends the connection when all output is sent, for `reason` unless there is one already.
    pub(super) fn close_for(&mut self, reason: CloseReason) {
        self.extra().cause.get_or_insert_with(|| reason.into());
        self.flags.set(CLOSING);
    }

    /// Ends the connection after a failure, which replaces an orderly reason given before. Waiting
    /// output is sent after a protocol error, and dropped after any other failure. The reason for
    /// which output was dropped is never replaced.
    pub(super) fn fail(&mut self, reason: CloseReason) {
        if self.flags.any(ABORTED) {
            return;
        }

        let keeps = matches!(reason, CloseReason::Protocol(_));
        self.blame(reason);
        if !keeps {
            self.drop_output();
        }
    }

    /// Ends the connection like [`fail`](Self::fail), but keeps the output, with what the protocol has
    /// said about the end. The peer has some time to take it.
    pub(super) fn take_leave(&mut self, reason: CloseReason, now: Tick) {
        if self.flags.any(ABORTED) {
            return;
        }
        self.blame(reason);
        self.message = now;
        self.flags.set(FAREWELL | RETIME);
    }

    /// Makes `reason` the reason for the end, unless there is an error already.
    fn blame(&mut self, reason: CloseReason) {
        match &mut self.extra().cause {
            Some(cause) if cause.reason.is_error() => {}
            Some(cause) => cause.reason = reason,
            none => *none = Some(reason.into()),
        }
        self.flags.set(CLOSING);
    }

    /// Returns how many bytes of output wait in the buffer.
    pub(super) fn buffered(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
    }

    /// Returns how many bytes of output wait.
    pub(super) fn waiting(&self) -> usize {
        self.buffered() + self.queue().map_or(0, Queue::waiting)
    }

    /// Returns how many parts the output has behind the buffer, of which some may be sources, and how many
    /// bytes wait. Whatever is written makes it larger.
    pub(super) fn output_behind(&self) -> (usize, usize) {
        (self.queue().map_or(0, Queue::parts), self.waiting())
    }

    /// Notes, before a call of the protocol, whether too much output waits for any more.
    #[inline]
    pub(super) fn note_over(&mut self, config: &Config) {
        if self.flags.any(FULL) {
            self.note_full(config);
        }
    }

    #[cold]
    fn note_full(&mut self, config: &Config) {
        self.extra().is_over = self.waiting() > self.limits(config).max_output;
    }

    /// Returns whether too much output waited for any more before the call that goes on.
    pub(super) fn is_over(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_over)
    }

    /// Counts output of a closing connection as dropped.
    pub(super) fn note_unsent(&mut self, count: usize) {
        if let Some(cause) = self.cause() {
            cause.unsent = cause.unsent.saturating_add(count);
        }
    }

    fn drop_output(&mut self) {
        self.flags.set(ABORTED);
        self.drop_waiting();
    }

    /// Drops the output, and counts it as dropped.
    fn drop_waiting(&mut self) {
        let waiting = self.waiting();
        self.output = None;
        if let Some(extra) = &mut self.extra {
            extra.cuts = None;
        }
        self.drop_queue();
        self.note_unsent(waiting);
    }

    /// Ends everything, and returns how.
    pub(super) fn end(&mut self, clock: &Clock) -> End {
        self.flags.set(LOST);
        self.close_for(CloseReason::Closed);
        self.drop_waiting();
        let posted = self.drop_posts();
        self.note_unsent(posted);

        let (reason, unsent) = self.take_cause().expect("just set");
        let traffic = Traffic {
            received: self.received,
            sent: self.sent,
            unsent: unsent as u64,
            began: clock.instant_of(self.began).unwrap_or_else(|| clock.now()),
            duration: clock.tick().since(self.began),
        };
        End::new(self.peer.clone(), reason, traffic)
    }

    /// Ends the connection after a failure and drops waiting output, whatever the reason is.
    pub(super) fn end_at_once(&mut self, reason: CloseReason) {
        self.fail(reason);
        self.drop_output();
    }

    /// Accepts input again. The time that the peer has for what it owes begins now.
    pub(super) fn unblock(&mut self, flag: Flags, now: Tick) {
        if self.flags.take(flag) {
            self.message = now;
            self.activity = now;
            self.flags.set(RETIME);
            if self.flags.any(INCOMPLETE | EOF) {
                self.flags.set(PENDING);
            }
        }
    }

    /// Notes that unread bytes are shown again, so that deadlines for the peer's input run again.
    pub(super) fn end_pending(&mut self) {
        self.flags.clear(PENDING);
        self.flags.set(RETIME);
    }

    /// Ends the connection like [`fail`](Self::fail), but keeps the output, for one attempt to send it.
    pub(super) fn dismiss(&mut self, reason: CloseReason) {
        let was_aborted = self.flags.any(ABORTED);
        let output = self.output.take();
        self.end_at_once(reason);
        if was_aborted {
            return;
        }

        let has_mark = output.as_ref().is_some_and(|output| !output.is_empty());
        self.flags.set(DISMISSED | MARKED.when(has_mark));
        self.output = output;
    }

    /// Returns the earliest of the configured deadlines that run now. Those for the peer's input do
    /// not run while some of it waits to be read (`waits`).
    pub(super) fn limit(&self, config: &Config, waits: bool) -> Option<(Tick, Deadline)> {
        if self.flags.any(FAREWELL) {
            return Some((self.message.after(FAREWELL_MOST), Deadline::Write));
        }

        let owed = !waits && !self.flags.any(BLOCKED | PENDING | EOF | OPENING);
        let first = owed && self.is_first(config);
        let begun = owed && self.flags.any(INCOMPLETE) && !first;
        // A pause says nothing any more about a connection that is closing.
        let paused = self.flags.any(PAUSED) && !self.flags.any(CLOSING);
        let idle = !waits && !paused && !self.flags.any(NESTED);
        let stalled = self.flags.any(STALLED);

        let limits = self.limits(config);
        let deadlines = [
            (
                first,
                self.message,
                limits.first_message_timeout,
                Deadline::FirstMessage,
            ),
            (
                begun,
                self.message,
                limits.message_timeout,
                Deadline::Message,
            ),
            (idle, self.activity, limits.idle_timeout, Deadline::Idle),
            (
                stalled,
                self.progress,
                limits.write_timeout,
                Deadline::Write,
            ),
        ];
        let running = deadlines.into_iter().filter(|(runs, ..)| *runs);
        running
            .filter_map(|(_, since, timeout, deadline)| Some((since.after(timeout?), deadline)))
            .min_by_key(|(at, _)| *at)
    }

    /// Notes that the peer owes the rest of a message from now on. The first one's time runs since the
    /// connection was made.
    pub(super) fn begin_message(&mut self, now: Tick, config: &Config) {
        if !self.is_first(config) {
            self.message = now;
        }
        self.flags.set(INCOMPLETE | RETIME);
    }

    /// Returns whether the peer owes its first message, and has a deadline of its own for it. Without one,
    /// the first message has that of any other.
    pub(super) fn is_first(&self, config: &Config) -> bool {
        self.flags.any(FIRST) && self.limits(config).first_message_timeout.is_some()
    }

    /// Notes that the peer took output, all of which was in the buffer. Returns true if the protocol can
    /// write again after it was full.
    #[inline]
    pub(super) fn buffer_sent(&mut self, count: usize, now: Tick, config: &Config) -> bool {
        let Some(output) = &mut self.output else {
            return false;
        };
        output.consume(count);
        self.activity = now;
        self.sent = self.sent.wrapping_add(count as u64);
        self.flags.any(FULL | STALLED | WANTED) && self.output_moved(now, config)
    }

    #[cold]
    pub(super) fn output_moved(&mut self, now: Tick, config: &Config) -> bool {
        self.progress = now;
        let low_water = self.limits(config).low_water;
        let waiting = self.waiting();
        if !self.has_sendable() {
            self.flags.clear(STALLED);
        }

        let resumes = waiting <= low_water && self.flags.any(FULL | WANTED);
        if resumes {
            self.end_wait_for_room(now);
        }
        resumes
    }

    /// Lets the protocol write again, and the peer's input be shown.
    pub(super) fn end_wait_for_room(&mut self, now: Tick) {
        self.flags.clear(WANTED);
        if let Some(extra) = &mut self.extra {
            (extra.is_over, extra.owes) = (false, false);
        }
        self.unblock(FULL, now);
    }

    pub(super) fn note_stalled(&mut self, now: Tick) {
        if !self.flags.any(STALLED) {
            self.flags.set(STALLED | RETIME);
            self.progress = now;
            // What is measured of an earlier wait is over.
            if let Some(pace) = self.extra.as_mut().and_then(|it| it.pace.as_mut()) {
                pace.outgoing = None;
            }
        }
    }
}
