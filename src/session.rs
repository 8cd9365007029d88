//! The rules that every driver shares: order of calls, unread bytes, limits, deadlines, the end.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::address::Peer;
use crate::buffer::Buffer;
use crate::clock::Tick;
use crate::error::{CloseReason, Deadline, ProtocolError};
use crate::protocol::Protocol;
use crate::transport::{
    ABORTED, BLOCKED, CLOSING, Context, EOF, EOF_TOLD, FIRST, FULL, INCOMPLETE, LOST, Link, OPENED,
    PANICKED, PAUSED, PENDING, RETIME, SHUTDOWN, STALLED, Transport, WROTE,
};

/// The longest header of a length prefix: room beside `max_frame` for an incomplete message.
const HEADER_ROOM: usize = 8;

/// The size above which a lent output buffer is not kept for the next lender.
const SCRATCH_MOST: usize = 256 * 1024;

/// One connection's protocol and everything that does not depend on how its bytes travel.
///
/// The only caller of a [`Protocol`]. A driver (the event loop, a thread, a test) moves bytes between
/// a socket and a session, and tells it the time; a session knows of no socket, thread or clock.
///
/// - **A driver asks**: [`wants_input`](Self::wants_input), [`has_more`](Self::has_more),
///   [`is_closing`](Self::is_closing), [`is_aborted`](Self::is_aborted), [`output`](Self::output),
///   [`deadline`](Self::deadline), [`peer`](Self::peer).
/// - **A driver tells**: [`handle_open`](Self::handle_open), [`handle_data`](Self::handle_data),
///   [`handle_more`](Self::handle_more), [`handle_eof`](Self::handle_eof),
///   [`handle_timeout`](Self::handle_timeout), [`handle_woken`](Self::handle_woken),
///   [`handle_shutdown`](Self::handle_shutdown), [`handle_datagram`](Self::handle_datagram),
///   [`output_sent`](Self::output_sent), [`fail`](Self::fail),
///   [`handle_lost`](Self::handle_lost), which is last.
#[derive(Debug)]
pub struct Session<P> {
    link: Link,
    unread: Option<Box<Buffer>>,
    protocol: P,
}

impl<P: Protocol> Session<P> {
    /// A session that begins at `now`. The first-message deadline runs for peers that came in by a
    /// listener, not for those that we connected to.
    #[must_use]
    pub fn new(protocol: P, peer: Peer, now: Tick) -> Self {
        Self {
            link: Link::new(peer, now),
            unread: None,
            protocol,
        }
    }

    /// The other side.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.link.peer
    }

    /// The protocol, to look at.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Whether the driver should read from the peer.
    #[must_use]
    #[inline]
    pub fn wants_input(&self) -> bool {
        !self.link.flags.any(BLOCKED | EOF | PENDING)
    }

    /// Whether [`handle_more`](Self::handle_more) has something to do without new input.
    #[must_use]
    #[inline]
    pub fn has_more(&self) -> bool {
        self.link.flags.any(PENDING) && !self.link.flags.any(BLOCKED)
    }

    /// Whether the connection is to be finished when all output is sent.
    #[must_use]
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.link.flags.any(CLOSING)
    }

    /// Whether the connection is to be ended at once, dropping what the peer did not get yet.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.link.flags.any(ABORTED)
    }

    /// Whether the end of the peer's stream was seen.
    #[must_use]
    pub fn is_eof(&self) -> bool {
        self.link.flags.any(EOF)
    }

    /// Whether the protocol wrote anything, if only an empty datagram.
    #[must_use]
    pub fn has_replied(&self) -> bool {
        self.link.flags.any(WROTE)
    }

    /// When the session was made, as long as it is not open.
    pub(crate) fn began(&self) -> Tick {
        self.link.activity
    }

    /// What is to be sent.
    #[must_use]
    #[inline]
    pub fn output(&self) -> &[u8] {
        self.link
            .output
            .as_ref()
            .map_or(&[], |output| output.as_slice())
    }

    /// The connection stands.
    pub fn handle_open(&mut self, context: &Context<'_>) {
        self.link.flags.set(OPENED | RETIME);
        self.link.activity = context.clock.tick();
        self.link.message = context.clock.tick();
        self.call(context, Protocol::connection_made);
    }

    /// Bytes came. The session shows them to the protocol and keeps what it leaves.
    #[inline]
    pub fn handle_data(&mut self, data: &[u8], context: &Context<'_>) {
        self.link.activity = context.clock.tick();
        if self.unread.is_some() {
            return self.handle_continuation(data, context);
        }
        let taken = self.show(data, context);
        if taken < data.len() && !self.is_closing() {
            self.keep(&data[taken..], context);
        }
    }

    /// Shows unread bytes, or the end of the stream, again: a pause has ended or a turn has passed.
    pub fn handle_more(&mut self, context: &Context<'_>) {
        self.link.flags.clear(PENDING);
        self.show_unread(context);
        if self.link.flags.any(EOF) {
            self.tell_eof(context);
        }
    }

    /// The peer ended its stream.
    pub fn handle_eof(&mut self, context: &Context<'_>) {
        self.link.flags.set(EOF);
        self.tell_eof(context);
    }

    /// A deadline may have come: the protocol's own, or one of the limits. The driver should have
    /// tried to read and write before, so that nobody is cut off who did move.
    pub fn handle_timeout(&mut self, context: &Context<'_>) {
        self.handle_own_timeout(context);
        let now = context.clock.tick();
        if let Some((_, deadline)) = self.limit(context).filter(|(at, _)| *at <= now) {
            self.fail(CloseReason::TimedOut(deadline));
        }
    }

    /// The protocol's own deadline may have come, which runs whatever the peer does.
    pub(crate) fn handle_own_timeout(&mut self, context: &Context<'_>) {
        let now = context.clock.tick();
        if self.protocol_deadline(context).is_some_and(|at| at <= now) {
            self.call(context, |protocol, transport| {
                protocol.handle_timeout(transport);
                Ok(())
            });
        }
    }

    /// A waker of this session was used.
    pub fn handle_woken(&mut self, context: &Context<'_>) {
        self.call(context, |protocol, transport| {
            protocol.woken(transport);
            Ok(())
        });
    }

    /// The server is shutting down.
    pub fn handle_shutdown(&mut self, context: &Context<'_>) {
        self.link.flags.set(SHUTDOWN);
        self.call(context, |protocol, transport| {
            protocol.shutdown_requested(transport);
            Ok(())
        });
    }

    /// Runs a whole session on one datagram: its output is the reply, if it
    /// [`has_replied`](Self::has_replied). What remains is [`handle_lost`](Self::handle_lost).
    pub fn handle_datagram(&mut self, data: &[u8], context: &Context<'_>) {
        self.handle_open(context);
        let mut rest = data;
        while !self.link.flags.any(CLOSING) {
            let mut taken = 0;
            self.call(context, |protocol, transport| {
                taken = take(protocol, rest, transport)?;
                Ok(())
            });
            rest = &rest[taken..];
            if taken == 0 || rest.is_empty() {
                break;
            }
        }
        self.link.flags.set(EOF | EOF_TOLD);
        self.call(context, |protocol, transport| {
            protocol.eof_received(rest, transport)
        });
        self.link.close();
    }

    /// The peer took the first `count` bytes of the output.
    #[inline]
    pub fn output_sent(&mut self, count: usize, context: &Context<'_>) {
        let Some(output) = &mut self.link.output else {
            return;
        };
        output.consume(count);
        self.link.activity = context.clock.tick();
        if self.link.flags.any(FULL | STALLED) {
            self.output_moved(context);
        }
    }

    /// The connection cannot go on; `reason` says why. Output that waits is dropped, unless the
    /// reason is a protocol error.
    pub fn fail(&mut self, reason: CloseReason) {
        self.link.fail(reason);
    }

    /// The connection is over. Tells the protocol and gives the reason back, once; `None` after that.
    pub fn handle_lost(&mut self) -> Option<Box<CloseReason>> {
        if self.link.flags.any(LOST) {
            return None;
        }
        self.link.flags.set(LOST | CLOSING);
        self.link.output = None;
        self.unread = None;
        let reason = self
            .link
            .reason
            .take()
            .unwrap_or_else(|| Box::new(CloseReason::Closed));
        let Self { protocol, .. } = self;
        if guard(|| protocol.connection_lost(&reason)).is_none() {
            self.link.flags.set(PANICKED);
        }
        Some(reason)
    }

    /// Whether the protocol panicked in `connection_lost`, which changes nothing about the end.
    pub(crate) fn has_panicked_last(&self) -> bool {
        self.link.flags.any(PANICKED)
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called, if at all.
    pub fn deadline(&mut self, context: &Context<'_>) -> Option<Tick> {
        self.link.flags.clear(RETIME);
        let limit = self.limit(context).map(|(at, _)| at);
        limit
            .into_iter()
            .chain(self.protocol_deadline(context))
            .min()
    }

    /// Whether [`deadline`](Self::deadline) may have become earlier than when it was last asked.
    /// Mere activity moves it later, which a driver finds out when the old one has come.
    #[inline]
    pub fn deadline_changed(&mut self) -> bool {
        if self.link.flags.any(RETIME) {
            return true;
        }
        let Self { protocol, link, .. } = self;
        match guard(|| protocol.poll_timeout()) {
            Some(timeout) => timeout.is_some(),
            None => {
                link.fail(CloseReason::Panicked);
                true
            }
        }
    }

    /// Lends the driver's one output buffer for a turn, so that an idle session owns none.
    #[inline]
    pub fn lend(&mut self, scratch: &mut Option<Box<Buffer>>) {
        if self.link.output.is_none() {
            self.link.output = scratch.take();
        }
    }

    /// Gives the lent buffer back. Output that is left over moves to a buffer of its own, of just
    /// the size it needs; one that has become empty is freed.
    #[inline]
    pub fn reclaim(&mut self, scratch: &mut Option<Box<Buffer>>, context: &Context<'_>) {
        match &self.link.output {
            Some(output) if output.is_empty() && scratch.is_none() => {
                *scratch = self.link.output.take();
            }
            None if scratch.is_some() => {}
            _ => self.settle_output(scratch, context),
        }
    }

    #[cold]
    fn settle_output(&mut self, scratch: &mut Option<Box<Buffer>>, context: &Context<'_>) {
        let Some(mut output) = self.link.output.take() else {
            *scratch = Some(Box::default());
            return;
        };
        if !output.is_empty() {
            if !self.link.flags.any(STALLED) {
                self.link.flags.set(STALLED | RETIME);
                self.link.progress = context.clock.tick();
            }
            if scratch.is_some() {
                self.link.output = Some(output);
                return;
            }
            let mut own = Box::<Buffer>::default();
            own.push(output.as_slice());
            self.link.output = Some(own);
            output.clear();
        }
        if scratch.is_none() {
            *scratch = Some(if output.capacity() <= SCRATCH_MOST {
                output
            } else {
                Box::default()
            });
        }
    }

    #[cold]
    fn output_moved(&mut self, context: &Context<'_>) {
        let now = context.clock.tick();
        self.link.progress = now;
        let waiting = self.output().len();
        if waiting == 0 {
            self.link.flags.clear(STALLED);
        }
        if waiting <= context.config.low_water && self.link.flags.any(FULL) {
            self.link.unblock(FULL, now);
            if !self.is_closing() {
                self.call(context, |protocol, transport| {
                    protocol.resume_writing(transport);
                    Ok(())
                });
            }
        }
    }

    #[cold]
    fn handle_continuation(&mut self, data: &[u8], context: &Context<'_>) {
        self.unread.get_or_insert_default().push(data);
        self.show_unread(context);
    }

    fn show_unread(&mut self, context: &Context<'_>) {
        let Some(mut unread) = self.unread.take() else {
            return;
        };
        let taken = self.show(unread.as_slice(), context);
        unread.consume(taken);
        if !unread.is_empty() && !self.is_closing() {
            self.check_length(unread.len(), context);
            self.unread = Some(unread);
        }
    }

    #[cold]
    fn keep(&mut self, rest: &[u8], context: &Context<'_>) {
        self.unread.get_or_insert_default().push(rest);
        self.check_length(rest.len(), context);
    }

    fn check_length(&mut self, unread: usize, context: &Context<'_>) {
        let limit = context.config.max_frame;
        if self.link.flags.any(INCOMPLETE) && unread > limit.saturating_add(HEADER_ROOM) {
            let error = ProtocolError::TooLong {
                length: unread as u64,
                limit,
            };
            self.fail(CloseReason::Protocol(error));
        }
    }

    /// Shows `data` to the protocol until it is all taken, incomplete, blocked, or the turn's calls
    /// are spent. Returns how much was taken.
    #[inline]
    fn show(&mut self, data: &[u8], context: &Context<'_>) -> usize {
        let Self { protocol, link, .. } = self;
        let mut taken = 0;
        let outcome = guard(|| {
            for _ in 0..context.config.messages_per_turn {
                if link.flags.any(BLOCKED) {
                    return Ok(true);
                }
                let count = take(protocol, &data[taken..], &mut Transport { link, context })?;
                taken += count;
                if taken == data.len() {
                    return Ok(false);
                }
                if count == 0 {
                    return Ok(link.flags.any(BLOCKED));
                }
            }
            Ok(true)
        });
        match outcome {
            Some(Ok(false)) if taken == data.len() => link.flags.clear(FIRST | INCOMPLETE),
            Some(Ok(pending)) => self.left_over(taken, pending, context),
            Some(Err(error)) => self.fail(CloseReason::Protocol(error)),
            None => self.fail(CloseReason::Panicked),
        }
        taken
    }

    #[cold]
    fn left_over(&mut self, taken: usize, pending: bool, context: &Context<'_>) {
        let flags = &mut self.link.flags;
        if taken > 0 {
            flags.clear(FIRST | INCOMPLETE);
        }
        if pending {
            flags.set(PENDING);
        } else if !flags.any(INCOMPLETE) {
            if !flags.any(FIRST) {
                self.link.message = context.clock.tick();
            }
            flags.set(INCOMPLETE | RETIME);
        }
    }

    fn tell_eof(&mut self, context: &Context<'_>) {
        if self.link.flags.any(EOF_TOLD) {
            return;
        }
        if self.link.flags.any(BLOCKED | PENDING) {
            self.link.flags.set(PENDING);
            return;
        }
        self.link.flags.set(EOF_TOLD);
        self.link.flags.clear(FIRST | INCOMPLETE);
        let unread = self.unread.take();
        let unread = unread.as_ref().map_or(&[][..], |unread| unread.as_slice());
        self.call(context, |protocol, transport| {
            protocol.eof_received(unread, transport)
        });
    }

    /// The earliest of the built-in deadlines that run now.
    fn limit(&self, context: &Context<'_>) -> Option<(Tick, Deadline)> {
        let Link {
            flags,
            activity,
            message,
            progress,
            ..
        } = &self.link;
        let config = context.config;
        let owed = !flags.any(BLOCKED | PENDING | EOF);
        let runs = [
            (
                owed && flags.any(FIRST),
                *message,
                config.first_message_timeout,
                Deadline::FirstMessage,
            ),
            (
                owed && flags.any(INCOMPLETE) && !flags.any(FIRST),
                *message,
                config.message_timeout,
                Deadline::Message,
            ),
            (
                !flags.any(PAUSED),
                *activity,
                config.idle_timeout,
                Deadline::Idle,
            ),
            (
                flags.any(STALLED),
                *progress,
                config.write_timeout,
                Deadline::Write,
            ),
        ];
        runs.into_iter()
            .filter(|(runs, ..)| *runs)
            .filter_map(|(_, since, timeout, deadline)| Some((since.after(timeout?), deadline)))
            .min_by_key(|(at, _)| *at)
    }

    fn protocol_deadline(&mut self, context: &Context<'_>) -> Option<Tick> {
        if self.link.flags.any(CLOSING) {
            return None;
        }
        let Self { protocol, link, .. } = self;
        let Some(timeout) = guard(|| protocol.poll_timeout()) else {
            link.fail(CloseReason::Panicked);
            return None;
        };
        timeout.map(|at| context.clock.tick_of(at))
    }

    /// Calls the protocol; what it returns or throws ends at most this connection.
    fn call(
        &mut self,
        context: &Context<'_>,
        method: impl FnOnce(&mut P, &mut Transport<'_>) -> Result<(), ProtocolError>,
    ) {
        if self.link.flags.any(CLOSING) {
            return;
        }
        let Self { protocol, link, .. } = self;
        match guard(|| method(protocol, &mut Transport { link, context })) {
            Some(Ok(())) => {}
            Some(Err(error)) => self.fail(CloseReason::Protocol(error)),
            None => self.fail(CloseReason::Panicked),
        }
    }
}

#[inline]
fn take<P: Protocol>(
    protocol: &mut P,
    data: &[u8],
    transport: &mut Transport<'_>,
) -> Result<usize, ProtocolError> {
    let count = protocol.data_received(data, transport)?;
    assert!(
        count <= data.len(),
        "a protocol took {count} of {} bytes",
        data.len()
    );
    Ok(count)
}

/// Runs user code; `None` if it panicked. The panic's payload is dropped with the same care.
#[inline]
pub(crate) fn guard<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                mem::forget(payload);
            }
            None
        }
    }
}
