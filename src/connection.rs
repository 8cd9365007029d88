//! One stream connection on the loop: moves bytes between its socket and its session.

use std::io::{self, ErrorKind};

use crate::clock::Tick;
use crate::error::{CloseReason, Deadline};
use crate::flags::Flags;
use crate::net::{Event, Net};
use crate::protocol::Protocol;
use crate::session::Session;
use crate::transport::Context;
use crate::turn::{REPEAT, Turn};

/// The socket may have something to read.
const READABLE: Flags = Flags::bit(0);
/// The socket may have room to write.
const WRITABLE: Flags = Flags::bit(1);
/// The peer has ended its stream, so a short read does not mean that nothing is left.
const HANGUP: Flags = Flags::bit(2);
/// An event announced that the socket has failed.
const ERROR: Flags = Flags::bit(3);
/// Waits in the ready queue.
const QUEUED: Flags = Flags::bit(4);
/// An outbound connection that does not stand yet.
const CONNECTING: Flags = Flags::bit(5);
/// A deadline may have come.
const DUE: Flags = Flags::bit(6);
/// The session's waker was used.
const WOKEN: Flags = Flags::bit(7);
/// The session is to be told of the shutdown once it has taken what had arrived.
const DRAINING: Flags = Flags::bit(8);
/// The session has ended; we wait for the peer's end.
const LINGERING: Flags = Flags::bit(9);
/// Close with a reset.
const ABORT: Flags = Flags::bit(10);
/// A deadline may have become earlier.
const RETIME: Flags = Flags::bit(11);
/// The connection is to be reaped.
const ENDED: Flags = Flags::bit(12);

/// The system had no memory to send; a deadline, not an event, says when to try again.
const RETRY: Flags = Flags::bit(13);

/// What is seen to before reading.
const BEFORE: Flags = ERROR.or(CONNECTING).or(WOKEN).or(LINGERING).or(ENDED);
/// What is seen to between reading and writing.
const AFTER: Flags = DUE.or(DRAINING);

/// How many turns a connection may still take input after the shutdown began.
const DRAINING_TURNS: u8 = 16;

/// What a connection needs after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// An event or a deadline.
    Wait,
    /// Another turn: its budget was spent before its work.
    Again,
    /// To be reaped.
    Reap,
}

#[derive(Debug)]
pub(crate) struct Connection<S, P> {
    session: Session<P>,
    linger: Option<Box<Linger>>,
    stream: S,
    generation: u32,
    flags: Flags,
    turns_left: u8,
}

/// The wait for the peer's end after ours.
#[derive(Debug)]
struct Linger {
    since: Tick,
    heard: Tick,
    bytes_left: usize,
}

impl<S, P: Protocol> Connection<S, P> {
    /// A connection that stands.
    pub(crate) fn accepted(stream: S, session: Session<P>, generation: u32) -> Self {
        let flags = WRITABLE | RETIME;
        Self {
            session,
            linger: None,
            stream,
            generation,
            flags,
            turns_left: DRAINING_TURNS,
        }
    }

    /// A connection that was begun and does not stand yet.
    pub(crate) fn connecting(stream: S, session: Session<P>, generation: u32) -> Self {
        let mut connection = Self::accepted(stream, session, generation);
        connection.flags = CONNECTING | RETIME;
        connection
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Tells the session that the connection stands; what it says at once is sent in the next turn.
    pub(crate) fn open(&mut self, context: &Context<'_>) -> Next {
        self.session.handle_open(context);
        self.next_turn()
    }

    /// Notes an event. True if the connection is to be queued for it.
    #[inline]
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        if event.readable {
            self.flags.set(READABLE);
        }
        if event.writable {
            self.flags.set(WRITABLE);
        }
        if event.closed {
            self.flags.set(HANGUP | READABLE);
        }
        if event.error {
            self.flags.set(ERROR | READABLE);
        }
        self.queue()
    }

    pub(crate) fn note_woken(&mut self) -> bool {
        self.flags.set(WOKEN);
        self.queue()
    }

    /// A deadline may have come. Before anybody is cut off, one look at whether they moved.
    pub(crate) fn note_due(&mut self) -> bool {
        self.flags.set(DUE | READABLE | WRITABLE);
        self.queue()
    }

    /// The server is shutting down. What has arrived already is still served.
    pub(crate) fn note_shutdown(&mut self) -> bool {
        self.flags.set(DRAINING | READABLE | RETIME);
        self.queue()
    }

    /// True if it was not in the ready queue and now has to be put there.
    #[inline]
    pub(crate) fn queue(&mut self) -> bool {
        if self.flags.any(QUEUED | ENDED) {
            return false;
        }
        self.flags.set(QUEUED);
        true
    }

    /// Serves the connection once: at most one read and one write.
    #[inline]
    pub(crate) fn drive<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>, id: usize) -> Next {
        self.flags.clear(QUEUED);
        let context = turn.context(id);
        self.session.lend(turn.output);
        if !self.flags.any(BEFORE) || self.prepare(turn, &context) {
            self.receive(turn, &context);
            if self.flags.any(AFTER) {
                self.attend(&context);
            }
            self.send(turn, &context);
        }
        self.session.reclaim(turn.output, &context);
        if self.session.is_closing() {
            return self.finish(turn);
        }
        self.next_turn()
    }

    /// When the connection is to be looked at though nothing happens, if that may have become
    /// earlier.
    #[inline]
    pub(crate) fn earlier_deadline<N>(&mut self, turn: &Turn<'_, N>, id: usize) -> Option<Tick> {
        if !self.flags.any(RETIME | DUE) && !self.session.deadline_changed() {
            return None;
        }
        self.deadline(turn, id)
    }

    /// Ends the session for `reason`, whatever it was doing.
    #[cold]
    pub(crate) fn end<N>(&mut self, reason: CloseReason, turn: &mut Turn<'_, N>) {
        self.session.fail(reason);
        self.lose(turn);
        self.flags.set(ENDED);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.flags.any(ENDED)
    }

    /// Gives the socket back. The protocol is dropped with the same care as it is called.
    pub(crate) fn dismantle<N: Net<Stream = S>>(self, turn: &mut Turn<'_, N>) {
        let Self {
            session,
            stream,
            flags,
            ..
        } = self;
        turn.drop_guarded(session);
        turn.net.close(stream, flags.any(ABORT));
    }

    #[inline]
    fn next_turn(&self) -> Next {
        let reads = self.flags.any(READABLE) && self.session.wants_input();
        let writes = self.flags.any(WRITABLE) && !self.session.output().is_empty();
        let ends = self.session.is_closing() && self.session.output().is_empty();
        if reads || writes || ends || self.session.has_more() || self.flags.any(DRAINING) {
            Next::Again
        } else {
            Next::Wait
        }
    }

    #[inline]
    fn receive<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>, context: &Context<'_>) {
        if self.session.has_more() {
            return self.session.handle_more(context);
        }
        if !self.flags.any(READABLE) || !self.session.wants_input() {
            return;
        }
        let room = &mut turn.input[..turn.config.read_per_turn];
        match turn.net.read(&mut self.stream, room) {
            Ok(0) => {
                self.flags.clear(READABLE);
                self.session.handle_eof(context);
            }
            Ok(count) => {
                if count < room.len() && !self.flags.any(HANGUP) {
                    self.flags.clear(READABLE);
                }
                turn.statistics.bytes_read += count as u64;
                self.session.handle_data(&turn.input[..count], context);
            }
            Err(error) => self.fail_or_wait(error, READABLE),
        }
    }

    #[inline]
    fn send<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>, context: &Context<'_>) {
        let output = self.session.output();
        if output.is_empty() || !self.flags.any(WRITABLE) {
            return;
        }
        let output = &output[..output.len().min(turn.config.write_per_turn)];
        match turn.net.write(&mut self.stream, output) {
            Ok(count) if count > 0 => {
                if count < output.len() {
                    self.flags.clear(WRITABLE);
                }
                turn.statistics.bytes_written += count as u64;
                self.session.output_sent(count, context);
            }
            Err(error) if !out_of_memory(&error) => self.fail_or_wait(error, WRITABLE),
            _ => {
                self.flags.clear(WRITABLE);
                self.flags.set(RETRY | RETIME);
            }
        }
    }

    #[cold]
    fn fail_or_wait(&mut self, error: io::Error, readiness: Flags) {
        match error.kind() {
            ErrorKind::WouldBlock => self.flags.clear(readiness),
            ErrorKind::Interrupted => {}
            _ => self.session.fail(CloseReason::Io(error)),
        }
    }

    /// What comes before reading. False if there is nothing to read or write this time.
    #[cold]
    fn prepare<N: Net<Stream = S>>(
        &mut self,
        turn: &mut Turn<'_, N>,
        context: &Context<'_>,
    ) -> bool {
        if self.flags.any(LINGERING | ENDED) {
            return false;
        }
        if self.flags.any(CONNECTING) && !self.connect(turn, context) {
            return false;
        }
        if self.flags.take(ERROR) && !self.session.wants_input() {
            if let Some(error) = turn.net.error(&mut self.stream) {
                self.session.fail(CloseReason::Io(error));
            }
        }
        if self.flags.take(WOKEN) {
            self.session.handle_woken(context);
        }
        true
    }

    /// Looks whether an outbound connection stands now. False if not.
    fn connect<N: Net<Stream = S>>(
        &mut self,
        turn: &mut Turn<'_, N>,
        context: &Context<'_>,
    ) -> bool {
        let gone = turn.draining || self.flags.any(DRAINING);
        match turn.net.connected(&mut self.stream) {
            Ok(()) => {
                self.flags.clear(CONNECTING);
                self.flags.set(WRITABLE | RETIME);
                self.session.handle_open(context);
                return true;
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.session.fail(CloseReason::ConnectFailed(error));
            }
            Err(_) if gone => self.session.fail(CloseReason::Shutdown),
            Err(_) if self.flags.take(DUE) => {
                let due = turn
                    .config
                    .connect_timeout
                    .map(|timeout| self.session.began().after(timeout));
                if due.is_some_and(|at| at <= turn.now()) {
                    self.session.fail(CloseReason::TimedOut(Deadline::Connect));
                }
                self.flags.set(RETIME);
            }
            Err(_) => {}
        }
        false
    }

    /// What comes between reading and writing: deadlines, and the news of a shutdown.
    #[cold]
    fn attend(&mut self, context: &Context<'_>) {
        if self.flags.any(DRAINING) {
            self.turns_left = self.turns_left.saturating_sub(1);
            let dry = !self.flags.any(READABLE) || !self.session.wants_input();
            if (dry && !self.session.has_more()) || self.turns_left == 0 {
                self.flags.clear(DRAINING);
                self.session.handle_shutdown(context);
            }
        }
        if !self.flags.any(DUE) {
            return;
        }
        // Nobody is cut off while more of what they sent waits to be read.
        if self.flags.any(READABLE) && self.session.wants_input() {
            self.session.handle_own_timeout(context);
        } else {
            self.session.handle_timeout(context);
        }
    }

    /// The session is closing: ends the connection once everything is sent.
    #[cold]
    fn finish<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>) -> Next {
        if self.flags.any(LINGERING | ENDED) {
            return self.linger(turn);
        }
        if self.session.is_aborted() {
            self.lose(turn);
            return self.reap();
        }
        if !self.session.output().is_empty() {
            return self.next_turn();
        }
        self.lose(turn);
        let lingers = turn.config.linger_timeout.is_some() && !self.session.is_eof();
        if !lingers || turn.net.finish(&mut self.stream).is_err() {
            return self.reap();
        }
        let now = turn.now();
        let bytes_left = turn.config.linger_bytes;
        self.linger = Some(Box::new(Linger {
            since: now,
            heard: now,
            bytes_left,
        }));
        self.flags.set(LINGERING | READABLE | RETIME);
        self.linger(turn)
    }

    /// Throws away what the peer still sends, until it ends its side or has had its time.
    fn linger<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>) -> Next {
        if !self.flags.any(READABLE) || self.flags.any(ENDED) {
            return Next::Wait;
        }
        let end = self.linger_end(turn);
        let Some(linger) = &mut self.linger else {
            return self.reap();
        };
        let now = turn.clock.tick();
        let spent = now >= linger.since.after(turn.config.linger_limit);
        match turn.net.read(
            &mut self.stream,
            &mut turn.input[..turn.config.read_per_turn],
        ) {
            Ok(count) if count > 0 && count <= linger.bytes_left && !spent => {
                linger.bytes_left -= count;
                linger.heard = now;
                Next::Again
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Next::Again,
            Err(error) if error.kind() == ErrorKind::WouldBlock && now < end => {
                self.flags.clear(READABLE);
                Next::Wait
            }
            _ => self.reap(),
        }
    }

    fn linger_end<N>(&self, turn: &Turn<'_, N>) -> Tick {
        let Some(linger) = &self.linger else {
            return turn.now();
        };
        let quiet = match turn.config.linger_timeout {
            Some(timeout) if turn.draining => timeout.min(turn.config.linger_draining),
            Some(timeout) => timeout,
            None => return turn.now(),
        };
        linger
            .heard
            .after(quiet)
            .min(linger.since.after(turn.config.linger_limit))
    }

    fn lose<N>(&mut self, turn: &mut Turn<'_, N>) {
        if turn.lose(&mut self.session) {
            self.flags.set(ABORT);
        }
    }

    fn reap(&mut self) -> Next {
        self.flags.set(ENDED);
        Next::Reap
    }

    #[cold]
    fn deadline<N>(&mut self, turn: &Turn<'_, N>, id: usize) -> Option<Tick> {
        let now = turn.now();
        let was_due = self.flags.take(DUE);
        self.flags.clear(RETIME);
        let at = if self.flags.any(LINGERING) {
            Some(self.linger_end(turn))
        } else if self.flags.any(CONNECTING) {
            turn.config
                .connect_timeout
                .map(|timeout| self.session.began().after(timeout))
        } else {
            let deadline = self.session.deadline(&turn.context(id));
            let retry = self
                .flags
                .take(RETRY)
                .then(|| now.after(turn.config.accept_pause));
            let ends = self.session.is_closing() && self.session.output().is_empty();
            deadline
                .into_iter()
                .chain(retry)
                .chain(ends.then_some(now))
                .min()
        };
        at.map(|at| {
            if was_due {
                at.max(now.after(REPEAT))
            } else {
                at
            }
        })
    }
}

fn out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
