//! One connection without its socket: the order of calls, unread bytes, limits, deadlines and the
//! end.
//!
//! A [`Session`] is the only caller of a [`Protocol`], through the [`Transport`] that it lends.
//! This room holds what every way of serving must do alike. Bytes and moments are passed in; it
//! knows no socket, thread or clock.
//!
//! The calls and unread bytes are in this file, the time stamps, deadlines and output in `state`, what a
//! driver needs besides that in `driver`, and what comes before and after a session in `lifecycle`.
//!
//! This room imports the values (`address`, `config`, `error`, `statistics`, `waker`) and nothing
//! else.

mod actions;
mod admitted;
mod buffer;
mod catch;
mod clock;
mod cuts;
mod datagram;
mod end_line;
mod ended;
mod expected;
mod expecting;
mod flags;
mod handing;
mod in_place;
mod lending;
mod lifecycle;
mod nested;
mod outbox;
mod pace;
mod pacing;
mod posting;
mod protocol;
mod queue;
#[cfg(feature = "testing")]
mod scripted;
mod sending;
mod shown;
mod state;
mod tap;
mod tapping;
mod ticket;
mod transport;
mod turn;
mod unwind;

pub use self::actions::{Actions, OpenConnection};
pub(crate) use self::actions::{Announced, Connect, Ending, Leaving, Listing, Requests};
pub(crate) use self::admitted::Admitted;
pub use self::buffer::Buffer;
pub(crate) use self::buffer::Input;
pub(crate) use self::catch::catch;
pub use self::clock::{Clock, Tick};
pub(crate) use self::clock::{REPEAT, nanos};
pub(crate) use self::end_line::log_end;
pub(crate) use self::ended::Traffic;
pub use self::ended::{End, Ended};
pub(crate) use self::flags::Flags;
pub(crate) use self::lifecycle::{Drain, LOOK_AGAIN, Linger};
pub(crate) use self::nested::EndInside;
pub use self::outbox::{Outbox, Post, PostError};
pub use self::protocol::{Factory, Protocol, Refusal};
pub(crate) use self::queue::SLICES_MOST;
pub(crate) use self::shown::LENT_LEAST;
pub(crate) use self::tap::Tap;
pub(crate) use self::ticket::Ticket;
pub use self::transport::{Context, Driver, Transport};
pub(crate) use self::unwind::{take, take_datagram, take_either};

mod driver;

use crate::address::Peer;
use crate::error::{CloseReason, Deadline, ProtocolError};
use crate::session::state::{
    ABORTED, AGAIN, BLOCKED, CLOSING, EOF, EOF_TOLD, EXPECTS, FINISHED, FIRST, INCOMPLETE, LOST,
    PENDING, RETIME, SHUTDOWN, State, WAITS,
};
use crate::session::unwind::Caught;

/// The longest datagram, in bytes. UDP cannot carry more; Unix sockets could, and are limited to it.
pub(crate) const DATAGRAM_MOST: usize = 65_536;

/// Bytes allowed in addition to `max_frame` for the header or delimiter of an incomplete message.
const HEADER_ROOM: usize = 1024;

/// The longest unit of a layer, or the longest preface, in bytes. `max_frame` limits the messages
/// inside or after it.
const UNIT_MOST: usize = 64 * 1024;

/// One connection's protocol and all state that does not depend on how its bytes travel.
///
/// A session is the only caller of its [`Protocol`]. A driver (the event loop, a thread, a test)
/// moves bytes between a socket and the session, and passes it the time. The session knows no
/// socket, thread or clock.
///
/// - **A driver asks**: [`wants_input`](Self::wants_input), [`has_more`](Self::has_more),
///   [`is_closing`](Self::is_closing), [`is_aborted`](Self::is_aborted),
///   [`is_finished`](Self::is_finished), [`is_eof`](Self::is_eof), [`output`](Self::output),
///   [`has_replied`](Self::has_replied), [`deadline`](Self::deadline), [`held`](Self::held),
///   [`deadline_changed`](Self::deadline_changed), [`peer`](Self::peer).
/// - **A driver tells**: [`handle_open`](Self::handle_open), [`handle_data`](Self::handle_data),
///   [`handle_more`](Self::handle_more), [`handle_eof`](Self::handle_eof),
///   [`handle_timeout`](Self::handle_timeout), [`handle_woken`](Self::handle_woken),
///   [`handle_shutdown`](Self::handle_shutdown), [`handle_datagram`](Self::handle_datagram),
///   [`handle_read`](Self::handle_read) and [`handle_written`](Self::handle_written),
///   [`output_sent`](Self::output_sent), [`note_stalled`](Self::note_stalled) or
///   [`lend`](Self::lend) and [`reclaim`](Self::reclaim), [`fail`](Self::fail),
///   [`dismiss`](Self::dismiss),
///   [`handle_lost`](Self::handle_lost), which is last.
///
/// ```
/// use serveloop::driver::{Clock, Context, Mailbox, Session};
/// use serveloop::{Address, Config, Peer, protocols::Echo};
/// use std::time::Instant;
///
/// let (clock, config) = (Clock::new(Instant::now()), Config::default());
/// let mailbox = Mailbox::new(Box::new(|| ()));
/// let context = &Context::new(&clock, &config, &mailbox, 0);
///
/// let peer = Peer::new("tcp://192.0.2.1:5000".parse::<Address>()?, Some(0));
/// let mut session = Session::new(Echo, peer, clock.tick());
/// session.handle_open(context);
/// session.handle_data(b"hello", context);
/// assert_eq!(session.output(), b"hello");
///
/// session.output_sent(5, context);
/// session.handle_eof(context);
/// assert!(session.is_closing() && session.output().is_empty());
/// let end = session.handle_lost(context).unwrap();
/// assert!(!end.reason().is_error());
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Debug)]
pub struct Session<P> {
    state: State,
    unread: Option<Box<Buffer>>,
    protocol: Caught<P>,
}

impl<P: Protocol> Session<P> {
    /// Creates a session that begins at `now`. The first-message deadline applies to peers that a
    /// listener accepted, not to connections that this process opened.
    #[must_use]
    pub fn new(protocol: P, peer: Peer, now: Tick) -> Self {
        Self {
            state: State::new(peer, now),
            unread: None,
            protocol: Caught(protocol),
        }
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.state.peer
    }

    /// Returns the protocol.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol.0
    }

    /// Returns whether the driver should read from the peer.
    #[must_use]
    #[inline]
    pub fn wants_input(&self) -> bool {
        !self.state.flags.any(BLOCKED | EOF | PENDING)
    }

    /// Returns whether [`handle_more`](Self::handle_more) has work to do without new input.
    #[must_use]
    #[inline]
    pub fn has_more(&self) -> bool {
        let flags = self.state.flags;
        flags.any(PENDING) && !flags.any(BLOCKED) || flags.any(AGAIN) && !flags.any(CLOSING)
    }

    /// Returns whether the driver is to end the connection when all output is sent.
    #[must_use]
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.state.flags.any(CLOSING)
    }

    /// Returns whether the driver is to end the connection at once and drop unsent output. Only after
    /// [`dismiss`](Self::dismiss) is there any, for which it makes one attempt.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.state.flags.any(ABORTED)
    }

    /// Returns whether the driver is to end our side of the stream when all output is sent, while
    /// the peer's side stays open.
    #[must_use]
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.state.flags.any(FINISHED)
    }

    /// Returns the output that is to be sent next, or nothing if none can be sent now. There may be
    /// more behind it ([`output_slices`](Self::output_slices)).
    #[must_use]
    #[inline]
    pub fn output(&self) -> &[u8] {
        match &self.state.output {
            Some(output) if !output.is_empty() => output.as_slice(),
            _ => self.state.queue_front(),
        }
    }

    /// Tells the protocol that the connection is established.
    pub fn handle_open(&mut self, context: &Context<'_>) {
        self.state.flags.set(RETIME);
        self.state.activity = context.clock.tick();
        self.state.message = context.clock.tick();
        self.protocol
            .call(&mut self.state, context, Protocol::connection_made);
    }

    /// Handles bytes that arrived: shows them to the protocol and keeps those that it does not
    /// take.
    #[inline]
    pub fn handle_data(&mut self, data: &[u8], context: &Context<'_>) {
        self.handle_data_by(data, context, take);
    }

    /// Works like `handle_data`, by one of the two methods for data.
    #[inline]
    fn handle_data_by(
        &mut self,
        data: &[u8],
        context: &Context<'_>,
        take: impl Fn(&mut P, &[u8], &mut Transport<'_>) -> Result<usize, ProtocolError>,
    ) {
        self.state.activity = context.clock.tick();
        self.state.received = self.state.received.wrapping_add(data.len() as u64);
        if self.unread.is_some() {
            self.keep(data);
            return self.show_unread(context);
        }

        let taken = self.show_by(data, context.config.messages_per_turn, context, take);
        self.keep_rest(data, taken, context);
    }

    /// Calls the protocol again if it asked for that. Shows unread bytes, or the end of the stream,
    /// again after a pause has ended or a turn has passed.
    pub fn handle_more(&mut self, context: &Context<'_>) {
        if self.state.flags.take(AGAIN) {
            // The deadlines for the peer's input did not run until now.
            self.state.flags.set(RETIME);
            self.tell(context, P::woken);
            self.state.drop_claimed();
            if !self.state.flags.any(PENDING) {
                return;
            }
        }

        self.state.end_pending();
        self.show_unread(context);
        if self.state.flags.any(EOF) {
            self.tell_eof(context);
        }
    }

    /// Handles the end of the peer's stream.
    pub fn handle_eof(&mut self, context: &Context<'_>) {
        self.state.flags.set(EOF);
        self.tell_eof(context);
    }

    /// Handles deadlines that may have passed: the protocol's own and the configured ones. The
    /// driver should try to read and write first, so that a peer that did move is not cut off.
    pub fn handle_timeout(&mut self, context: &Context<'_>) {
        self.handle_deadlines(context, false);
    }

    /// Works like `handle_timeout`, but if some of the peer's bytes wait to be read (`waits`), the
    /// peer is not blamed for silence.
    pub(crate) fn handle_deadlines(&mut self, context: &Context<'_>, waits: bool) {
        let now = context.clock.tick();
        if self.protocol_deadline(context).is_some_and(|at| at <= now) {
            self.state.flags.set(WAITS.when(waits));
            self.tell(context, P::handle_timeout);
            self.state.flags.clear(WAITS);
            // An end that the protocol has just said is not made one by a deadline that passed as well.
            if self.is_closing() {
                return;
            }
        }
        let limit = self.state.limit(context.config, waits);
        let passed = limit.filter(|(at, _)| *at <= now);
        let passed = passed.map(|(_, deadline)| deadline);
        let pace = || self.state.check_pace(now, context.config, waits);
        if let Some(deadline) = passed.or_else(pace) {
            self.time_out(deadline, context);
        }
    }

    /// Tells the protocol that a waker of this session was used.
    pub fn handle_woken(&mut self, context: &Context<'_>) {
        // The wake may be for a source that had nothing before, or for what was posted.
        self.state.refill(context.config);
        self.take_posts(context);
        self.tell(context, P::woken);
    }

    /// Tells the protocol that the server is shutting down.
    pub fn handle_shutdown(&mut self, context: &Context<'_>) {
        self.state.flags.set(SHUTDOWN);
        self.tell(context, P::shutdown_requested);
    }

    /// Notes that the peer took the first `count` bytes of the output.
    #[inline]
    pub fn output_sent(&mut self, count: usize, context: &Context<'_>) {
        if !self.is_queued() {
            return self.buffer_sent(count, context);
        }
        let (now, config) = (context.clock.tick(), context.config);
        if self.state.queue_sent(count, now, config) {
            self.resume(context);
        }
    }

    #[cold]
    pub(super) fn resume(&mut self, context: &Context<'_>) {
        self.tell(context, P::resume_writing);
        self.take_posts(context);
    }

    /// Ends the connection for `reason`. Drops waiting output, unless the reason is a protocol
    /// error.
    pub fn fail(&mut self, reason: CloseReason) {
        self.state.fail(reason);
    }

    /// Tells the protocol that the connection is over, and returns how it ended. Returns `None` on
    /// later calls.
    pub fn handle_lost(&mut self, context: &Context<'_>) -> Option<End> {
        if self.state.flags.any(LOST) {
            return None;
        }
        self.unread = None;
        self.state.charge(0);

        let end = self.state.end(context.clock);
        self.protocol.lose(&mut self.state, &end.ended());
        Some(end)
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) should be called, or `None` for never.
    pub fn deadline(&mut self, context: &Context<'_>) -> Option<Tick> {
        self.state.flags.clear(RETIME);
        let limit = self.state.limit(context.config, false).map(|(at, _)| at);
        let pace = self
            .state
            .pace_deadline(context.clock.tick(), context.config);
        let own = self.protocol_deadline(context);
        limit.into_iter().chain(pace).chain(own).min()
    }

    /// Returns whether [`deadline`](Self::deadline) may be earlier than when it was last queried.
    /// Activity alone makes it later, which a driver notices when the old deadline passes.
    #[inline]
    pub fn deadline_changed(&mut self) -> bool {
        self.state.flags.any(RETIME | CLOSING)
            || self.protocol.poll_timeout(&mut self.state).is_some()
            || self.is_closing()
    }

    /// Lends the driver's shared output buffer for a turn, so that an idle session owns none.
    #[inline]
    pub fn lend(&mut self, scratch: &mut Option<Box<Buffer>>) {
        self.state.lend(scratch);
    }

    /// Takes the lent buffer back. Remaining output moves to the session's own buffer of just the
    /// size that it needs.
    #[inline]
    pub fn reclaim(&mut self, scratch: &mut Option<Box<Buffer>>, context: &Context<'_>) {
        let _ = self.reclaim_buffer(scratch, context);
        if self.is_queued() {
            self.note_queue(context);
        }
    }

    /// Works like `reclaim`, if the driver notes by itself that queued output waits. Returns whether no
    /// output waits in a buffer of the session's own.
    #[inline]
    pub(crate) fn reclaim_buffer(
        &mut self,
        scratch: &mut Option<Box<Buffer>>,
        context: &Context<'_>,
    ) -> bool {
        self.state.reclaim(scratch, context.clock)
    }

    /// Notes that the driver begins to wait for the peer to take output, which starts
    /// `write_timeout`. [`reclaim`](Self::reclaim) does this by itself.
    pub fn note_stalled(&mut self, context: &Context<'_>) {
        self.state.note_stalled(context.clock.tick());
    }

    /// Keeps what is left after the first `taken` bytes of `data`.
    #[inline]
    fn keep_rest(&mut self, data: &[u8], taken: usize, context: &Context<'_>) {
        if taken < data.len() {
            self.keep(&data[taken..]);
            self.check_length(data.len() - taken, context);
            self.settle_expected();
        }
    }

    #[cold]
    fn keep(&mut self, rest: &[u8]) {
        if !self.is_closing() {
            let unread = || Box::new(Buffer::unread());
            self.unread.get_or_insert_with(unread).push(rest);
        }
    }

    #[cold]
    fn show_unread(&mut self, context: &Context<'_>) {
        let Some(mut unread) = self.unread.take() else {
            return;
        };
        let is_shown = self.show_expected(&mut unread, context);
        if !unread.is_empty() && !self.is_closing() {
            self.check_length(unread.len(), context);
            self.unread = Some(unread);
            if is_shown {
                self.settle_expected();
            }
        }
    }

    fn check_length(&mut self, unread: usize, context: &Context<'_>) {
        let limit = self.state.limits(context.config).max_frame;
        let room = self.state.room_beyond_frame();
        if self.state.flags.any(INCOMPLETE) && unread > limit.saturating_add(room) {
            let length = unread as u64;
            let error = ProtocolError::TooLong { length, limit };
            self.protocol.reject(&mut self.state, context, error);
        }
    }

    /// Shows `data` to the protocol until all of it is taken, the message is incomplete, the input
    /// is blocked, or `most` calls were made, each by one of the two methods for data. Returns how many
    /// bytes were taken.
    #[inline]
    fn show_by(
        &mut self,
        data: &[u8],
        most: usize,
        context: &Context<'_>,
        take: impl Fn(&mut P, &[u8], &mut Transport<'_>) -> Result<usize, ProtocolError>,
    ) -> usize {
        let Self {
            protocol, state, ..
        } = self;
        let mut taken = 0;

        let outcome = catch(|| {
            let mut left = most;
            loop {
                if state.flags.any(BLOCKED.or(EXPECTS)) {
                    return Ok(true);
                }
                let transport = &mut Transport::new(state, context);
                let count = take(&mut protocol.0, &data[taken..], transport)?;
                taken += count;
                if taken == data.len() {
                    return Ok(false);
                }
                if count == 0 {
                    return Ok(state.flags.any(BLOCKED));
                }
                left = left.saturating_sub(1);
                if left == 0 {
                    return Ok(true);
                }
            }
        });

        match outcome {
            Some(Ok(false)) if taken == data.len() => state.flags.clear(FIRST | INCOMPLETE),
            Some(Ok(pending)) => self.left_over(taken, pending, context),
            Some(Err(error)) => self.protocol.reject(&mut self.state, context, error),
            None => self.fail(CloseReason::Panicked),
        }
        taken
    }

    #[cold]
    fn left_over(&mut self, taken: usize, pending: bool, context: &Context<'_>) {
        // What is expected is shown when it is there.
        let waits = self.state.is_waiting(pending);
        let pending = pending && !waits;
        let flags = &mut self.state.flags;
        if taken > 0 {
            flags.clear(FIRST | INCOMPLETE);
        }

        if pending {
            flags.clear(INCOMPLETE);
            flags.set(PENDING);
        } else if !flags.any(INCOMPLETE) {
            self.state
                .begin_message(context.clock.tick(), context.config);
        }
    }

    fn tell_eof(&mut self, context: &Context<'_>) {
        if self.state.flags.any(EOF_TOLD) {
            return;
        }
        if self.state.flags.any(BLOCKED | PENDING) {
            self.state.flags.set(PENDING);
            return;
        }

        self.state.flags.set(EOF_TOLD);
        self.state.flags.clear(FIRST | INCOMPLETE | EXPECTS);
        let kept = self.unread.take();
        let unread = kept.as_ref().map_or(&[][..], |unread| unread.as_slice());

        let end = |protocol: &mut P, transport: &mut Transport<'_>| {
            protocol.eof_received(unread, transport)
        };
        self.protocol.call(&mut self.state, context, end);

        // A protocol that took the connection over is yet to see all of it.
        if !self.state.flags.any(EOF_TOLD | CLOSING) {
            self.unread = kept;
        }
    }

    fn tell(&mut self, context: &Context<'_>, event: fn(&mut P, &mut Transport<'_>)) {
        self.protocol.tell(&mut self.state, context, event);
    }

    #[cold]
    fn time_out(&mut self, deadline: Deadline, context: &Context<'_>) {
        let reason = CloseReason::TimedOut(deadline);
        match deadline {
            // The peer takes nothing, so it would not take an end mark.
            Deadline::Write => self.fail(reason),
            _ if self.protocol.take_leave(&mut self.state, context, deadline) => {}
            _ => self.dismiss(reason, context),
        }
    }

    fn protocol_deadline(&mut self, context: &Context<'_>) -> Option<Tick> {
        if self.is_closing() {
            return None;
        }
        let at = self.protocol.poll_timeout(&mut self.state);
        at.map(|at| context.clock.tick_of(at))
    }
}
