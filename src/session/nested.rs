//! A session inside another one: the output that both share, and what each tells the other.
//!
//! A [layer](crate::layer) transforms bytes between the two. The outer session belongs to a driver
//! and its protocol is the layer; the inner one belongs to the layer and holds the protocol that
//! users write. The outer session alone has deadlines for idle peers and for waiting output, and
//! it is the one that is counted. The inner one has deadlines for messages.

use std::mem;
use std::time::Instant;

use crate::address::Address;
use crate::error::{CloseReason, Deadline, ProtocolError};
use crate::session::state::{
    ABORTED, AGAIN, BLOCKED, CHARGED, CLOSING, DISMISSED, EOF_TOLD, EXPANDING, EXPECTS, FAREWELL,
    FINISHED, FIRST, FULL, INCOMPLETE, LOST, MUTE, NESTED, OPENING, PAUSED, PENDING, QUEUED,
    RATE_LIMITED, RELIMITED, REPLACED, RETIME, UNIT_ROOM, WAITS, WANTED, WROTE,
};
use crate::session::{Context, Ended, Flags, Protocol, Session, Transport};

/// The flags of either session that have to be passed on to the other.
const TOLD: Flags = CLOSING
    .or(FINISHED)
    .or(PAUSED)
    .or(FULL)
    .or(WANTED)
    .or(AGAIN)
    .or(PENDING)
    .or(INCOMPLETE)
    .or(CHARGED)
    .or(REPLACED)
    .or(RELIMITED)
    .or(QUEUED)
    .or(RETIME);

impl<P: Protocol> Session<P> {
    /// Creates the session inside a layer. Its first-message deadline begins now.
    pub(crate) fn nested(protocol: P, outer: &Transport<'_>) -> Self {
        let now = outer.context.clock.tick();
        let mut session = Self::new(protocol, outer.peer().clone(), now);
        session.state.flags.set(NESTED);
        if let Some(limits) = outer.state.own_limits() {
            session.state.set_limits(limits);
        }
        session
    }

    /// Calls the session with the output of the one outside, so that marks and limits hold for
    /// both together. Returns how many bytes waited before: what follows them in the output
    /// afterwards is this session's.
    #[inline]
    pub(crate) fn call_inside(
        &mut self,
        outer: &mut Transport<'_>,
        event: impl FnOnce(&mut Self, &Context<'_>),
    ) -> usize {
        outer.settle();
        let before = outer.waiting();
        mem::swap(&mut self.state.output, &mut outer.state.output);
        event(self, outer.context);
        if self.state.flags.any(QUEUED) {
            self.state.flatten(outer.context.config);
        }
        mem::swap(&mut self.state.output, &mut outer.state.output);

        outer
            .state
            .flags
            .set(WROTE.when(self.state.flags.any(WROTE)));
        before
    }

    /// Lets output that became longer in the layer stop the peer's input only if the protocol
    /// inside has filled it: what [`Transport::write_some`] sent never does. `was_full` is how it
    /// was before.
    pub(crate) fn relieve(&self, outer: &mut Transport<'_>, was_full: bool) {
        if !was_full && !self.state.flags.any(FULL) {
            outer.state.flags.clear(FULL);
        }
    }

    /// Returns whether anything has to be passed on between this session and the one outside,
    /// which is rare.
    #[inline]
    pub(crate) fn is_coupled(&self, outer: &Transport<'_>) -> bool {
        self.state.flags.any(TOLD) || outer.state.flags.any(PAUSED.or(FULL).or(CHARGED))
    }

    /// Passes pauses, full output and work that is left on to the session outside, which acts on
    /// them. Charges it with what is kept here, and with the `held` bytes of the layer.
    pub(crate) fn couple(&mut self, outer: &mut Transport<'_>, held: usize) {
        let now = outer.context.clock.tick();
        let inner = &mut self.state;

        if inner.flags.any(PAUSED) {
            outer.state.flags.set(PAUSED);
        } else {
            outer.state.unblock(PAUSED, now);
        }

        let full = inner.flags.any(FULL) || outer.state.flags.any(FULL);
        inner.flags.set(FULL.when(full));
        outer.state.flags.set(FULL.when(full));
        outer.state.flags.set(WANTED.when(inner.flags.any(WANTED)));
        let waited = inner.flags.any(RATE_LIMITED);
        outer.state.flags.set(RATE_LIMITED.when(waited));

        if inner.flags.take(REPLACED) {
            outer.state.peer = inner.peer.clone();
            outer.state.flags.set(REPLACED);
        }

        if inner.flags.take(RELIMITED) {
            if let Some(limits) = inner.own_limits() {
                outer.state.set_limits(limits);
                outer.state.flags.set(RELIMITED);
            }
        }

        let unread = self.unread.as_ref().map_or(0, |unread| unread.held());
        let kept = unread.saturating_add(self.state.held_beside_buffers());
        outer.charge(kept.saturating_add(held));
        self.state.show_outbox(outer.state);
        // A source that has nothing for now makes room when it is woken, and not before.
        if self.has_more() || outer.is_full_and_empty() && !self.is_queued() {
            outer.call_again();
        }
    }

    /// Returns whether the peer owes its first message.
    pub(crate) fn owes_first(&self) -> bool {
        self.protocol.0.owes_first(self.state.flags.any(FIRST))
    }

    /// Tells the protocol inside that the output has fallen to the low mark.
    pub(crate) fn handle_resumed(&mut self, context: &Context<'_>) {
        let wanted = self.state.flags.take(WANTED);
        self.state.flatten(context.config);
        let low_water = self.state.limits(context.config).low_water;
        if self.state.flags.any(WANTED) || self.is_queued() && self.state.waiting() > low_water {
            // A source may have nothing for now, and the protocol still waits for room behind it.
            self.state.flags.set(WANTED.when(wanted));
            return;
        }
        self.state.end_wait_for_room(context.clock.tick());
        self.tell(context, P::resume_writing);
        self.take_posts(context);
    }

    /// Handles the end of a datagram: what is unread is shown now, since there is no other turn.
    pub(crate) fn handle_datagram_end(&mut self, context: &Context<'_>) {
        let unread = self.unread.take();
        let unread = unread.as_ref().map_or(&[][..], |unread| unread.as_slice());
        let is_more = self.take_more();
        let calls = context.config.messages_per_turn;
        self.end_datagram(unread, is_more, calls, context);
    }

    /// Returns the session's deadline as an instant, for the protocol outside to report.
    pub(crate) fn due(&mut self, context: &Context<'_>) -> Option<Instant> {
        let at = self.deadline(context)?;
        context.clock.instant_of(at)
    }

    /// Tells the protocol inside why the connection of the session outside has ended.
    pub(crate) fn handle_lost_outside(&mut self, ended: &Ended<'_>) {
        if self.state.flags.any(LOST) {
            return;
        }
        self.state.flags.set(LOST | CLOSING);
        self.state.drop_queue();
        self.state.drop_posts();
        (self.state.output, self.unread) = (None, None);
        self.protocol.lose(&mut self.state, ended);
    }

    /// Lets the protocol say that a deadline of the session outside has passed.
    pub(crate) fn handle_deadline_outside(&mut self, deadline: Deadline, context: &Context<'_>) {
        self.protocol
            .tell(&mut self.state, context, |protocol, transport| {
                protocol.deadline_passed(deadline, transport);
            });
    }

    /// Has a layer in this session write its end mark.
    pub(crate) fn handle_end_mark(&mut self, context: &Context<'_>) {
        self.tell(context, P::write_end_mark);
    }

    /// Ends the session for `reason` when all that it has written was handed to the layer.
    pub(crate) fn close_behind(&mut self, reason: CloseReason) {
        self.state.close_for(reason);
    }

    /// Takes the reason for which this session is closing, and whether waiting output is dropped.
    pub(crate) fn take_end(&mut self) -> Option<EndInside> {
        // What is still queued goes to the layer first.
        if !self.is_closing() || self.is_queued() {
            return None;
        }
        let (reason, unsent) = self.state.take_cause()?;
        Some(EndInside {
            reason,
            unsent,
            at_once: self.state.flags.any(ABORTED),
            is_dismissal: self.state.flags.any(DISMISSED),
            is_farewell: self.state.flags.any(FAREWELL),
            is_cut_short: self.was_cut_short(),
        })
    }
}

/// Why a session inside a layer ends, on its way to the session outside.
pub(crate) struct EndInside {
    reason: CloseReason,
    /// How many bytes of output it dropped.
    unsent: usize,
    /// Whether waiting output is dropped.
    at_once: bool,
    /// Whether there is an attempt to send an end mark.
    is_dismissal: bool,
    /// Whether the protocol has said why it ends.
    is_farewell: bool,
    /// Whether the protocol had output for which there was no room.
    is_cut_short: bool,
}

impl EndInside {
    /// Returns whether a layer is to write its end mark.
    pub(crate) fn has_mark(&self) -> bool {
        !self.at_once || self.is_dismissal
    }
}

/// What a layer needs of the transport of the session outside.
impl<'a> Transport<'a> {
    /// Lets the session keep the unit of a layer, or a preface, in addition to `max_frame`.
    pub(crate) fn make_unit_room(&mut self) {
        self.state.flags.set(UNIT_ROOM);
    }

    /// Takes back what `make_unit_room` allowed.
    pub(crate) fn end_unit_room(&mut self) {
        self.state.flags.clear(UNIT_ROOM);
    }

    /// Stops the deadlines of messages while a layer's handshake goes on.
    pub(crate) fn begin_opening(&mut self) {
        self.state.flags.set(OPENING | RETIME);
    }

    /// Lets them run again, from now on.
    pub(crate) fn end_opening(&mut self) {
        self.state.flags.clear(OPENING);
        self.state.flags.set(RETIME);
    }

    /// Shows unread bytes once more, to a protocol that has not seen them.
    pub(crate) fn show_again(&mut self) {
        let flags = &mut self.state.flags;
        flags.clear(EXPECTS);
        flags.set(PENDING.when(flags.any(INCOMPLETE)));
    }

    /// Tells of the end of the stream once more, after the bytes that are unread, to a protocol that
    /// has not seen either.
    pub(crate) fn show_end_again(&mut self) {
        let flags = &mut self.state.flags;
        let was_told = flags.take(EOF_TOLD);
        flags.set(PENDING.when(was_told));
    }

    /// Returns whether nothing can be shown now: the protocol's input is paused, a call that it
    /// asked for comes first, its output is full, or the connection is closing.
    pub(crate) fn is_blocked(&self) -> bool {
        self.state.flags.any(BLOCKED)
    }

    /// Returns whether the peer owes its first message, and has a deadline for it.
    pub(crate) fn awaits_first(&self) -> bool {
        self.state.is_first(self.context.config)
    }

    /// Makes `client` the address of the session's peer. The driver learns of it after the call.
    pub(crate) fn replace_peer(&mut self, client: Address) {
        let is_known = !self.state.flags.any(REPLACED);
        self.state.peer.stand_for(client, is_known);
        self.state.flags.set(REPLACED);
    }

    pub(crate) fn context(&self) -> &'a Context<'a> {
        self.context
    }

    /// Returns whether the session waits for room in its output, and there is none to be sent: a
    /// layer made nothing of it.
    fn is_full_and_empty(&self) -> bool {
        self.state.flags.any(FULL.or(WANTED)) && self.waiting() == 0
    }

    /// Ends the wait for room if nothing is to be sent, because then no driver does. Returns
    /// whether there was one.
    pub(crate) fn resume_if_empty(&mut self) -> bool {
        let resumes = self.is_full_and_empty();
        if resumes {
            self.state.end_wait_for_room(self.context.clock.tick());
        }
        resumes
    }

    /// Replaces the output after the first `count` bytes, which a session inside has written, by what
    /// `send` writes for it. What a layer adds never ends the connection, because the session inside
    /// could not know of it: its own bytes were within `max_output`. The memory of `plain` holds them
    /// meanwhile.
    pub(crate) fn send_through(
        &mut self,
        count: usize,
        plain: &mut Vec<u8>,
        send: impl FnOnce(&[u8], &mut Self) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        self.settle();
        let Some(output) = self.state.output.as_mut() else {
            return Ok(());
        };
        plain.clear();
        output.split_off(count, plain);
        self.expand(|wire| send(plain, wire))
    }

    /// Lets a layer write what is not the protocol's, such as its end mark, beyond `max_output`.
    pub(crate) fn expand<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        self.state.flags.set(EXPANDING);
        let written = write(self);
        self.state.flags.clear(EXPANDING);
        written
    }

    /// Sends up to `most` bytes that `fill` writes, like [`write`](Self::write) but in place.
    pub(crate) fn write_with(&mut self, most: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        if self.state.flags.any(MUTE) {
            return;
        }
        self.settle();
        self.state.flags.set(WROTE);
        let output = self.state.output.get_or_insert_with(Box::default);
        let before = output.len();
        output.push_with(most, fill);

        let waiting = output.len();
        self.note_passed(before);
        let limits = self.state.limits(self.context.config);
        let is_limited = !self.state.flags.any(EXPANDING);
        if is_limited && waiting > limits.max_output {
            self.state.fail(CloseReason::Overflow);
        } else if waiting >= limits.high_water {
            self.state.flags.set(FULL);
        }
    }

    /// Ends our side of the stream if `finishes`, when all written data is sent.
    pub(crate) fn finish_if(&mut self, finishes: bool) {
        self.state.flags.set(FINISHED.when(finishes));
    }

    /// Ends the connection for the reason that a session inside gave.
    pub(crate) fn end(&mut self, end: EndInside) {
        if end.is_cut_short {
            self.state.extra().is_cut_short = true;
        }
        if end.is_dismissal {
            self.state.dismiss(end.reason);
        } else if end.at_once {
            self.state.end_at_once(end.reason);
        } else if end.is_farewell {
            let now = self.context.clock.tick();
            self.state.take_leave(end.reason, now);
        } else if end.reason.is_error() {
            self.state.fail(end.reason);
        } else {
            self.state.close_for(end.reason);
        }
        self.state.note_unsent(end.unsent);
    }

    /// Ends the connection for `reason`. See [`State::fail`](crate::session::state::State::fail) for what happens to the output.
    pub(crate) fn fail(&mut self, reason: CloseReason) {
        self.state.fail(reason);
    }

    /// Ends the connection for `reason` at once. There is one attempt to send the output, which is of
    /// a layer alone: no protocol has written any yet.
    pub(crate) fn dismiss(&mut self, reason: CloseReason) {
        self.state.dismiss(reason);
    }

    /// Ends the connection for `reason` when all output is sent.
    pub(crate) fn close_for(&mut self, reason: CloseReason) {
        self.state.close_for(reason);
    }

    /// Returns whether a call that was asked for with [`call_again`](Self::call_again) is still to
    /// come.
    pub(crate) fn is_called_again(&self) -> bool {
        self.state.flags.any(AGAIN)
    }

    /// Returns whether some of the peer's bytes wait to be read, during `handle_timeout`.
    pub(crate) fn has_input(&self) -> bool {
        self.state.flags.any(WAITS)
    }
}
