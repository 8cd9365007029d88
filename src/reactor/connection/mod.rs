//! One stream connection on the loop: moves bytes between its socket and its session.

mod attempts;
mod delivery;
mod ending;
mod expected;

pub(super) use self::attempts::Attempts;
use self::attempts::Progress;
pub(super) use self::delivery::Delivery;

use std::io::{self, ErrorKind, IoSlice};

use crate::address::Talk;
use crate::error::{CloseReason, Deadline};
use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{
    AFTER, AWAITED, BEFORE, CONNECTING, DEFERRED, DRAINING, DUE, ENDED, ERROR, FINISHED, HANDSHAKE,
    HANGUP, LINGERING, Next, QUEUED, READABLE, RETIME, RETRY, Readiness, SOON, STIRRED, WOKEN,
    WRITABLE,
};
use crate::reactor::token::SLOT_MASK;
use crate::session::{
    Context, Drain, Flags, LENT_LEAST, Linger, Protocol, REPEAT, SLICES_MOST, Session, Tick,
};
use crate::sys;

#[derive(Debug)]
pub(super) struct Connection<S, P> {
    session: Session<P>,
    aside: Option<Box<Aside<S>>>,
    stream: S,
    generation: u32,
    pub(super) readiness: Readiness,
    drain: Drain,
    /// The last turn in which an event had it served at once.
    turn: u16,
}

/// State that few connections have at a time, and then only one of the three.
#[derive(Debug)]
enum Aside<S> {
    /// What it takes to establish the connection.
    Attempts(Attempts<S>),
    /// How many bytes were added to the total of all connections, and will be subtracted.
    Held(usize),
    Linger(Linger),
}

impl<S, P: Protocol> Connection<S, P> {
    /// Wraps an established connection.
    pub(super) fn accepted(stream: S, session: Session<P>, generation: u32) -> Self {
        let news = WRITABLE | RETIME | HANGUP.when(session.has_gaps());
        Self {
            session,
            aside: None,
            stream,
            generation,
            readiness: Readiness::new(news),
            drain: Drain::new(),
            turn: 0,
        }
    }

    /// Wraps a connection that is still being established.
    pub(super) fn connecting(stream: S, session: Session<P>, generation: u32) -> Self {
        let mut connection = Self::accepted(stream, session, generation);
        connection.readiness.clear(WRITABLE);
        connection.readiness.set(CONNECTING);
        connection
    }

    /// Adds what a connection needs while it is being established, unless that is nothing but a
    /// deadline.
    pub(super) fn set_attempts(&mut self, attempts: Attempts<S>) {
        self.aside = Some(Box::new(Aside::Attempts(attempts)));
    }

    /// The fields of a connection and their sizes in bytes.
    #[cfg(test)]
    pub(super) fn ledger() -> Vec<(&'static str, usize)> {
        let mut fields = Session::<P>::ledger();
        fields.extend([
            ("aside", size_of::<Option<Box<Aside<S>>>>()),
            ("stream", size_of::<S>()),
            ("generation", size_of::<u32>()),
            ("readiness", size_of::<Readiness>()),
            ("drain", size_of::<Drain>()),
            ("turn", size_of::<u16>()),
        ]);
        fields
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns whether this is the first event of the connection in a turn. A poller may report several,
    /// and a connection has one share of a turn. One that was last served exactly 65,536 turns ago waits
    /// for the next turn.
    #[inline]
    pub(super) fn is_new_in(&mut self, turn: u16) -> bool {
        std::mem::replace(&mut self.turn, turn) != turn
    }

    pub(super) fn session(&self) -> &Session<P> {
        &self.session
    }

    /// Tells the session that the connection is established, or what another process has handed over.
    /// Its first output is sent in the next turn.
    pub(super) fn open<N>(
        &mut self,
        talk: Option<&Talk>,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Next {
        match talk {
            None => self.session.handle_open(context),
            Some(talk) => self.session.take_over(talk, context),
        }
        self.note_handshake();
        self.next_turn(hub)
    }

    /// Notes whether a layer is in its handshake, so that no connection without one is asked for it.
    fn note_handshake(&mut self) {
        self.readiness.clear(HANDSHAKE);
        self.readiness
            .set(HANDSHAKE.when(self.session.is_opening()));
    }

    /// Serves the connection: one round, or several if it sends a lot.
    #[inline]
    pub(super) fn drive<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Next {
        match self.round(hub, context, None) {
            Next::More => self.drive_on(hub, context),
            next => next,
        }
    }

    /// Works like [`drive`](Self::drive), in a function of its own: the other is a part of its one
    /// caller.
    #[inline(never)]
    pub(super) fn drive_again<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Next {
        self.drive(hub, context)
    }

    #[cold]
    fn drive_on<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Next {
        let most = hub.env.config.write_per_turn;
        // What the first round has written was all there was, and may have been the whole share.
        let mut left = most.saturating_sub(hub.effects.written);
        for _ in 1..hub.env.reads {
            if left == 0 {
                break;
            }
            match self.round(hub, context, Some(left)) {
                Next::More => left = left.saturating_sub(hub.effects.written),
                next => return next,
            }
        }
        Next::Again
    }

    /// Reads at most once, and writes at most once, up to `write_most` bytes, or up to the turn's share.
    #[inline]
    fn round<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
        write_most: Option<usize>,
    ) -> Next {
        self.readiness.clear(QUEUED);
        hub.effects.written = 0;
        let goes_on = !self.readiness.any(BEFORE) || self.prepare(hub, context);

        self.session.lend(&mut hub.effects.output);
        if goes_on {
            self.receive(hub, context, write_most);
            if self.readiness.any(AFTER) {
                self.attend(hub, context);
            }
            self.send(hub, context, write_most);
        }

        let is_empty = self
            .session
            .reclaim_buffer(&mut hub.effects.output, context);
        if is_empty && !self.readiness.any(STIRRED) && self.session.rests() {
            return Next::Rest;
        }
        self.conclude_round(hub, context)
    }

    /// Decides what comes after a round of a connection that does not just wait for the next message.
    fn conclude_round<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Next {
        if self.rests() {
            return Next::Wait;
        }
        if self.session.is_queued() {
            self.session.note_queue(context);
        }
        self.settle(hub)
    }

    /// Returns the connection's deadline if its protocol has one, for a connection that rests.
    #[inline]
    pub(super) fn own_deadline<N>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Option<Tick> {
        if !self.session.has_own_deadline() {
            return None;
        }
        self.deadline(hub, context)
    }

    /// Returns the connection's deadline, if it may have become earlier.
    #[inline]
    pub(super) fn earlier_deadline<N>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Option<Tick> {
        if !self.readiness.any(RETIME | DUE | CONNECTING) && !self.session.deadline_changed() {
            return None;
        }
        self.deadline(hub, context)
    }

    /// Moves times that were noted at `from`, the start of a long turn, to its end `to`.
    pub(super) fn catch_up(&mut self, from: Tick, to: Tick) {
        self.session.catch_up(from, to);
        if let Some(Aside::Linger(linger)) = self.aside.as_deref_mut() {
            linger.catch_up(from, to);
        }
    }

    /// Returns whether there is nothing to do until the next event or deadline, as is usual.
    #[inline]
    fn rests(&self) -> bool {
        !self.readiness.any(READABLE | DRAINING) && self.session.is_quiet()
    }

    /// Does what is left after a round: finishes a closing session or decides on the next turn.
    #[cold]
    fn settle<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) -> Next {
        if self.session.take_replaced() && !hub.reseat(self.session.peer()) {
            self.dismiss(CloseReason::Refused, hub);
        }

        if self.session.is_closing() {
            return self.finish(hub);
        }
        self.note_handshake();
        if self.owes_end() && !self.session.has_output() {
            self.readiness.set(FINISHED);
            // If the socket has failed, the next read reports the reason.
            let _ = hub.net.finish(&mut self.stream);
        }
        self.next_turn(hub)
    }

    /// Returns whether the socket has failed and no read will report it, since the protocol takes
    /// no input now.
    fn is_failed_unread(&self) -> bool {
        self.readiness.any(ERROR) && !self.session.wants_input()
    }

    /// Decides what the connection needs next.
    #[cold]
    fn next_turn<N>(&mut self, hub: &mut Hub<'_, N>) -> Next {
        if self.readiness.any(CONNECTING) {
            return Next::Wait;
        }
        if self.hold(hub) {
            return Next::Crowded;
        }
        if self.readiness.take(DEFERRED) {
            return Next::Again;
        }

        let reads = self.readiness.any(READABLE) && self.session.wants_input();
        let writes = self.readiness.any(WRITABLE) && !self.session.output().is_empty();
        let ends = self.session.is_closing() || self.owes_end();
        let sent = !self.session.has_output();
        let drains = self.readiness.any(DRAINING) && !self.readiness.any(SOON);
        let again = writes || ends && sent || self.session.has_more() || drains;
        let again = again || self.is_failed_unread();

        // A deadline is acted on once a turn.
        let more = reads && sent && !self.readiness.any(DUE);

        match (again, reads) {
            (false, true) if more => Next::More,
            (false, false) => Next::Wait,
            _ => Next::Again,
        }
    }

    /// Reads once and passes the input on, or lets the session go on with what it has.
    #[inline]
    fn receive<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
        write_most: Option<usize>,
    ) {
        if !self.readiness.any(READABLE) || !self.session.reads_freely() {
            return self.receive_rest(hub, context);
        }

        let room = &mut hub.input[..hub.env.read_size];
        match hub.net.read(&mut self.stream, room) {
            Ok(0) => {
                self.readiness.clear(READABLE);
                self.session.handle_eof(context);
            }
            Ok(count) => {
                if count < room.len() && !self.readiness.any(HANGUP) {
                    self.readiness.clear(READABLE);
                }
                hub.effects.note_read(count);
                if count >= LENT_LEAST {
                    return self.pass_on(count, hub, context, write_most);
                }
                self.session.handle_data(&hub.input[..count], context);
            }
            Err(error) => self.fail_or_wait(error, READABLE),
        }
    }

    /// Passes on long input, of which the protocol may send a part back as it is, without a copy.
    #[cold]
    fn pass_on<N: Net<Stream = S>>(
        &mut self,
        count: usize,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
        most: Option<usize>,
    ) {
        let most = most.unwrap_or(hub.env.config.write_per_turn);
        let lent = self.session.handle_in_place(&hub.input[..count], context);
        if lent.is_empty() {
            return;
        }

        let output = &hub.input[lent];
        let mut sent = 0;
        // More than the turn's share is divided where all output is.
        if self.readiness.any(WRITABLE) && output.len() <= most {
            match hub.net.write(&mut self.stream, output) {
                Ok(count) if count > 0 => {
                    sent = count;
                    if count < output.len() {
                        self.readiness.clear(WRITABLE);
                    }
                    hub.effects.note_written(count);
                }
                outcome => self.note_unwritten(outcome),
            }
        }
        self.session.sent_in_place(sent, &output[sent..], context);
    }

    /// Writes up to `most` bytes of the session's output. It has two callers, of which each is the whole
    /// cost of a message: a call would add a twentieth.
    #[inline(always)]
    fn send<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
        most: Option<usize>,
    ) {
        if self.session.is_queued() {
            let most = most.unwrap_or(hub.env.config.write_per_turn);
            return self.send_queue(hub, context, most);
        }
        let output = self.session.buffered();
        if output.is_empty() || !self.readiness.any(WRITABLE) {
            return;
        }

        let most = most.unwrap_or(hub.env.config.write_per_turn);
        let output = &output[..output.len().min(most)];
        let length = output.len();
        match hub.net.write(&mut self.stream, output) {
            Ok(count) if count > 0 => {
                self.note_written(count, length, hub);
                self.session.buffer_sent(count, context);
            }
            outcome => self.note_unwritten(outcome),
        }
    }

    /// Writes up to `most` bytes of output that is in several places.
    #[cold]
    fn send_queue<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
        most: usize,
    ) {
        let mut left = most;
        while left > 0 && self.readiness.any(WRITABLE) && !self.session.is_aborted() {
            let mut slices = [IoSlice::new(&[]); SLICES_MOST];
            let (count, length) = self.session.output_slices(&mut slices, left);
            if length == 0 {
                return;
            }

            match hub.net.write_vectored(&mut self.stream, &slices[..count]) {
                Ok(count) if count > 0 => {
                    left -= count;
                    self.note_written(count, length, hub);
                    self.session.output_sent(count, context);
                }
                outcome => return self.note_unwritten(outcome),
            }
        }
    }

    /// Notes that the socket took `count` of `length` bytes.
    #[inline]
    fn note_written<N>(&mut self, count: usize, length: usize, hub: &mut Hub<'_, N>) {
        if count < length {
            self.readiness.clear(WRITABLE);
        }
        hub.effects.note_written(count);
    }

    /// Notes that the socket took nothing.
    #[cold]
    fn note_unwritten(&mut self, outcome: io::Result<usize>) {
        match outcome {
            Err(error) if !sys::is_out_of_memory(&error) => self.fail_or_wait(error, WRITABLE),
            _ => {
                self.readiness.clear(WRITABLE);
                self.readiness.set(RETRY | RETIME);
            }
        }
    }

    /// Returns whether our side of the stream still has to be ended while the peer's goes on.
    fn owes_end(&self) -> bool {
        self.session.is_finished() && !self.readiness.any(FINISHED)
    }

    /// Ends the session with a socket's error, unless the call only has to be tried again later.
    #[cold]
    fn fail_or_wait(&mut self, error: io::Error, readiness: Flags) {
        match error.kind() {
            ErrorKind::WouldBlock if readiness == READABLE => {
                self.readiness.clear(READABLE | ERROR)
            }
            ErrorKind::WouldBlock => self.readiness.clear(readiness),
            ErrorKind::Interrupted => {
                self.readiness.clear(readiness);
                self.readiness.set(SOON | RETIME);
            }
            _ => self.session.fail(CloseReason::Io(error)),
        }
    }

    /// Does what comes before reading. Returns false if there is nothing to read or write this
    /// time.
    #[cold]
    fn prepare<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>, context: &Context<'_>) -> bool {
        self.release(hub);
        if self.readiness.any(LINGERING | ENDED) {
            return false;
        }

        self.session.lend(&mut hub.effects.output);
        if self.readiness.any(CONNECTING) && !self.connect(hub, context) {
            return false;
        }

        if self.is_failed_unread() {
            self.readiness.clear(ERROR);
            if let Some(error) = hub.net.error(&mut self.stream) {
                self.session.fail(CloseReason::Io(error));
            }
        }

        if self.readiness.take(WOKEN) {
            self.session.handle_woken(context);
        }
        !self.is_deferred(hub)
    }

    /// Returns whether a handshake has to wait for another turn, because the others of this one have
    /// taken long enough. A deadline and a shutdown do not wait.
    fn is_deferred<N>(&mut self, hub: &mut Hub<'_, N>) -> bool {
        if !self.readiness.any(HANDSHAKE) || self.readiness.any(DUE | DRAINING) {
            return false;
        }
        if !self.readiness.any(READABLE) || !self.session.wants_input() {
            return false;
        }

        let is_last = hub.effects.handshakes == 0;
        hub.effects.handshakes = hub.effects.handshakes.saturating_sub(1);
        self.readiness.set(DEFERRED.when(is_last));
        is_last
    }

    /// Checks whether an outbound connection is established. Returns false if not.
    fn connect<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>, context: &Context<'_>) -> bool {
        let gone = hub.draining || self.readiness.any(DRAINING);
        let now = hub.now();

        let progress = match self.aside.as_deref_mut() {
            Some(Aside::Attempts(attempts)) => {
                let with = (&mut *hub.net, &hub.env.config, now, context.id);
                attempts.check(&mut self.stream, with)
            }
            _ => Progress::of(hub.net.connected(&mut self.stream)),
        };

        let reason = match progress {
            Progress::Established => {
                self.end_attempts(hub, context);
                self.readiness.clear(CONNECTING);
                self.readiness.set(WRITABLE | RETIME);
                self.session.handle_open(context);
                return true;
            }
            Progress::Failed(error) => CloseReason::ConnectFailed(error),
            Progress::Cancelled => CloseReason::Aborted,
            Progress::Waits if gone => CloseReason::Shutdown,
            Progress::Waits => {
                let was_due = self.readiness.take(DUE);
                self.readiness.set(RETIME);
                let until = self.connect_deadline(hub);
                if !was_due || until.is_none_or(|until| until > now) {
                    return false;
                }
                CloseReason::TimedOut(Deadline::Connect)
            }
        };

        self.end_attempts(hub, context);
        self.session.fail(reason);
        false
    }

    /// Returns when the attempt to connect is over.
    fn connect_deadline<N>(&self, hub: &Hub<'_, N>) -> Option<Tick> {
        if let Some(Aside::Attempts(attempts)) = self.aside.as_deref() {
            return attempts.until();
        }
        let timeout = hub.env.config.connect_timeout?;
        Some(self.session.began().after(timeout))
    }

    /// Ends the attempt to connect: the socket that the connection has now is its only one.
    fn end_attempts<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>, context: &Context<'_>) {
        let Some(aside) = self.aside.take() else {
            return;
        };
        let Aside::Attempts(attempts) = *aside else {
            self.aside = Some(aside);
            return;
        };

        let number = hub.net.number(&self.stream);
        hub.env.sockets.note(context.id & SLOT_MASK, number);
        self.session.set_address(attempts.address().clone());
        // Events of the other sockets may have been noted, and some of this one's forgotten.
        self.readiness.clear(ERROR);
        self.readiness.set(READABLE);
        attempts.close(hub.net);
    }

    /// Does what comes between reading and writing: deadlines and the news of a shutdown.
    #[cold]
    fn attend<N>(&mut self, hub: &Hub<'_, N>, context: &Context<'_>) {
        // A connection that is ended by itself does not wait.
        let is_fresh = hub.draining && self.session.is_fresh(context);
        if self.readiness.any(AWAITED) && !is_fresh {
            self.readiness.clear(AWAITED);
            self.readiness.set(DRAINING);
        }

        if self.readiness.any(DRAINING) && !self.readiness.any(SOON) {
            let dry = !self.readiness.any(READABLE) || !self.session.wants_input();
            if self.drain.is_over(dry, &self.session) {
                self.readiness.clear(DRAINING);
                if is_fresh {
                    self.readiness.set(AWAITED | RETIME);
                } else {
                    self.session.handle_shutdown(context);
                }
            }
        }

        if self.readiness.any(DUE) {
            let waits = self.readiness.any(READABLE | SOON) && self.session.wants_input();
            self.session.handle_deadlines(context, waits);
        }
    }

    /// Returns when the connection has to be served if no event comes before.
    #[cold]
    fn deadline<N>(&mut self, hub: &mut Hub<'_, N>, context: &Context<'_>) -> Option<Tick> {
        let now = hub.now();
        let was_due = self.readiness.take(DUE);
        self.readiness.clear(RETIME);
        let soon = self.readiness.any(SOON).then(|| now.after(REPEAT));

        let at = if let Some(Aside::Linger(linger)) = self.aside.as_deref() {
            Some(linger.deadline(now, self.session.limits(&hub.env.config), hub.draining))
        } else if let Some(Aside::Attempts(attempts)) = self.aside.as_deref() {
            attempts.deadline()
        } else if self.readiness.any(CONNECTING) {
            self.connect_deadline(hub)
        } else {
            let deadline = self.session.deadline(context);
            let retry = self
                .readiness
                .take(RETRY)
                .then(|| now.after(hub.env.config.accept_pause));
            let ends = self.session.is_closing() && !self.session.has_output();
            let fresh = self.readiness.any(AWAITED);
            let fresh = fresh.then(|| self.session.fresh_until(&hub.env.config));
            if self.session.is_aborted() {
                // The protocol panicked when asked for its deadline: what the session held is gone.
                self.hold(hub);
            }
            deadline
                .into_iter()
                .chain(retry)
                .chain(ends.then_some(now))
                .chain(fresh.flatten())
                .min()
        };

        at.into_iter().chain(soon).min().map(|at| {
            if was_due {
                at.max(now.after(REPEAT))
            } else {
                at
            }
        })
    }
}
