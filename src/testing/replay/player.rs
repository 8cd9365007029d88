//! One recorded connection, run through a protocol again.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::CloseReason;
use crate::layer::{Event, Observe, Observed};
use crate::service::recorder::{
    Happening, PROTOCOL, RecordedConnection, RecordedEnd, RecordedEvent, code_of, deadline_of_code,
};
use crate::session::{Clock, Context, Post, Protocol, REPEAT, Session, Tick};
use crate::testing::memory::{Socket, context};
use crate::testing::replay::Difference;
use crate::testing::replay::comparison::{Comparison, Output};
use crate::testing::replay::script::{Calls, Step};

/// The most calls that a protocol may ask for in one step, or deadlines that may pass.
const CALLS_MOST: usize = 100_000;

#[derive(Clone, Default)]
struct Counted(Rc<RefCell<Calls>>);

impl Observe for Counted {
    fn observe(&mut self, event: Event<'_>) {
        self.0.borrow_mut().observe(&event);
    }
}

/// A session that is given what a recorded one was given.
pub(super) struct Player<'a, P: Protocol> {
    recorded: &'a RecordedConnection,
    session: Session<Observed<P, Counted>>,
    config: Config,
    clock: Clock,
    base: Instant,
    socket: Socket,
    calls: Counted,
    output: Arc<Output>,
    comparison: Comparison,
    /// The session is a single datagram.
    is_single: bool,
    /// All calls so far were those that were recorded.
    is_identical: bool,
    is_over: bool,
    pub(super) difference: Option<Difference>,
    /// The reason for the end.
    pub(super) reason: Option<String>,
}

impl<'a, P: Protocol> Player<'a, P> {
    /// Creates a session for `protocol` whose peer is the recorded one, and whose time begins at `base`.
    pub(super) fn new(recorded: &'a RecordedConnection, protocol: P, base: Instant) -> Self {
        let calls = Counted::default();
        let output = Arc::<Output>::default();
        let clock = Clock::new(base);
        let protocol = Observed::new(protocol, calls.clone());
        let mut session = Session::new(protocol, recorded.peer().clone(), clock.tick());
        session.set_tap(Arc::clone(&output) as _);

        // A datagram alone is a session with an end; a peer's session has many datagrams, and none.
        let has_end = |event: RecordedEvent<'_>| matches!(event.what, Happening::EofReceived(_));
        let is_datagram = recorded.peer().is_datagram();
        let is_single = is_datagram && recorded.events().any(has_end);
        if is_datagram && !is_single {
            session.make_lasting();
        }

        let local = recorded.local_address().cloned();
        Self {
            recorded,
            session,
            config: recorded.config(),
            clock,
            base,
            socket: Socket::new(local, recorded.credentials()),
            calls,
            output,
            comparison: Comparison::default(),
            is_single,
            is_identical: true,
            is_over: false,
            difference: None,
            reason: None,
        }
    }

    /// Takes a step, unless the connection is over here, and compares what comes of it.
    pub(super) fn step(&mut self, step: &Step<'_>) {
        if self.is_over {
            return;
        }
        if self.is_single {
            return self.datagram_step(step);
        }
        if !self.is_identical && !self.pass_deadlines(step) {
            return;
        }

        self.set_time(step.cause.at);
        let before = self.calls.0.borrow().made.len();
        self.session.discard_posts();
        self.take_output(step.cause.waiting);
        if let Happening::ConnectionLost(end) = step.cause.what {
            return self.finish(end, step);
        }

        self.tell(&step.cause.what);
        self.follow(step, before);
        self.compare(step);
        self.is_identical &= self.has_called(step, before) && self.due() == step.due;
    }

    /// Tells the session what happened to it.
    fn tell(&mut self, what: &Happening<'_>) {
        match what {
            Happening::ConnectionMade => self.call(Session::handle_open),
            Happening::DataReceived(chunk) => {
                let data = chunk.bytes.unwrap_or_default();
                if self.recorded.peer().is_datagram() {
                    self.call(|session, context| {
                        session.handle_peer_datagram(data, context);
                    });
                } else {
                    self.call(|session, context| session.handle_data(data, context));
                }
            }
            Happening::EofReceived(chunk) => {
                let data = chunk.bytes.unwrap_or_default();
                if !data.is_empty() {
                    self.call(|session, context| session.handle_data(data, context));
                }
                self.call(Session::handle_eof);
            }
            Happening::DatagramUndelivered(failure) => {
                let error = failure.error();
                self.call(|session, context| session.handle_undelivered(&error, context));
            }
            Happening::HandleTimeout => self.call(Session::handle_own_timeout),
            Happening::Woken { .. } => self.call(Session::handle_woken_alone),
            Happening::Posted(chunk) => {
                let data = chunk.bytes.unwrap_or_default();
                let post = Post::new(data.into(), Weak::new());
                self.call(|session, context| session.handle_post(&post, context));
            }
            Happening::ShutdownRequested => self.call(Session::handle_shutdown),
            Happening::DeadlinePassed(deadline) => {
                self.call(|session, context| session.handle_deadline(*deadline, context));
            }
            // The peer has taken output just now, and the session has noticed.
            _ => {}
        }
    }

    /// Lets the session do what it has left to do, at the times at which the recorded one did it.
    fn follow(&mut self, step: &Step<'_>, before: usize) {
        for _ in 0..CALLS_MOST {
            if self.session.is_closing() || !self.session.has_more() {
                return;
            }
            let made = self.calls.0.borrow().made.len() - before;
            match step.times.get(made) {
                Some(next) => {
                    let (at, waiting) = (next.at, next.waiting);
                    self.set_time(at);
                    self.session.discard_posts();
                    self.take_output(waiting);
                }
                // The next recorded event comes before the rest.
                None if self.is_identical && self.has_called(step, before) => return,
                None => {}
            }
            self.call(Session::handle_more);
        }
    }

    /// Returns whether the calls from number `before` on are those of the step.
    fn has_called(&self, step: &Step<'_>, before: usize) -> bool {
        self.calls.0.borrow().made[before..] == step.calls
    }

    /// Returns the protocol's own deadline, as a time after the connection was opened.
    fn due(&mut self) -> Option<Duration> {
        let context = context(&self.config, &self.clock, &self.socket);
        let due = self.session.own_deadline(&context);
        due.map(|due| due.since(Tick::ZERO))
    }

    /// Lets the deadlines of a protocol that is another one now pass at their own times, up to the
    /// step. Returns false if it says something then.
    fn pass_deadlines(&mut self, step: &Step<'_>) -> bool {
        for _ in 0..CALLS_MOST {
            let now = self.clock.now().saturating_duration_since(self.base);
            let due = self.due().map(|due| due.max(now + REPEAT));
            let Some(due) = due.filter(|due| *due < step.cause.at) else {
                break;
            };
            self.set_time(due);
            self.call(Session::handle_own_timeout);
            for _ in 0..CALLS_MOST {
                if self.session.is_closing() || !self.session.has_more() {
                    break;
                }
                self.call(Session::handle_more);
            }

            if !self.comparison.advance(&self.output) || self.comparison.has_more() {
                self.differ_in_output(step);
                return false;
            }
        }
        true
    }

    /// Lets the peer take output until as much waits as did in the recorded session.
    fn take_output(&mut self, waiting: u64) {
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        // What a source makes while the peer takes output was recorded with the last step.
        while self.comparison.lacks() && !self.session.output().is_empty() {
            self.take(usize::MAX);
            self.comparison.advance(&self.output);
        }
        // The session may resume the protocol, which writes more.
        let mut surplus = self.session.waiting().saturating_sub(waiting);
        while surplus > 0 && !self.session.output().is_empty() {
            surplus -= self.take(surplus);
        }
    }

    /// Lets the peer take up to `most` bytes, and returns how many it took.
    fn take(&mut self, most: usize) -> usize {
        let count = self.session.output().len().min(most);
        self.call(|session, context| session.output_sent(count, context));
        count
    }

    fn compare(&mut self, step: &Step<'_>) {
        self.comparison.expect(&step.wrote);
        if !self.comparison.advance(&self.output) {
            return self.differ_in_output(step);
        }
        if step.is_cut {
            self.is_over = true;
            return;
        }

        let ends = step.closing || step.failure.is_some();
        if ends != self.session.is_closing() {
            return self.differ_in_end(step, ends);
        }
        let is_making = self.session.is_queued();
        if !is_making && !self.comparison.is_even() {
            return self.differ_in_output(step);
        }
        if step.finished != self.session.is_finished() {
            let said = |ends| match ends {
                true => "our side of the stream ends",
                false => "our side of the stream stays open",
            };
            let got = said(self.session.is_finished());
            self.differ(step, None, said(step.finished), got);
        }
    }

    fn differ_in_output(&mut self, step: &Step<'_>) {
        let (expected, got) = self.comparison.show();
        self.differ(step, Some(self.comparison.offset()), &expected, &got);
    }

    fn differ_in_end(&mut self, step: &Step<'_>, ends: bool) {
        let open = "the connection stays open";
        let wrote = |text: String| match self.comparison.is_even() {
            true => text,
            false => format!("{text}; output {}", self.comparison.show().1),
        };
        let (expected, got) = match (ends, &step.failure) {
            (true, Some(end)) => (end.reason.to_owned(), wrote(open.to_owned())),
            (true, None) => ("the connection ends".to_owned(), wrote(open.to_owned())),
            (false, _) => {
                let reason = self.lose();
                (open.to_owned(), reason)
            }
        };
        self.differ(step, None, &expected, &got);
    }

    /// Ends the session as the recorded one has ended.
    fn finish(&mut self, end: RecordedEnd<'_>, step: &Step<'_>) {
        let is_making = self.session.is_queued();
        if !self.comparison.advance(&self.output) || !is_making && !self.comparison.is_even() {
            return self.differ_in_output(step);
        }
        if !self.session.is_closing() {
            self.session.fail(reason_of(&end));
            self.lose();
            return;
        }

        let context = context(&self.config, &self.clock, &self.socket);
        let lost = self.session.handle_lost(&context);
        let Some(lost) = lost else {
            return;
        };
        let text = lost.reason().to_string();
        self.is_over = true;
        self.reason = Some(text.clone());
        let code = code_of(lost.reason());
        let is_protocol = code == PROTOCOL;
        if is_own(end.code) && (code != end.code || is_protocol && text != end.reason) {
            self.differ(step, None, end.reason, &text);
        }
    }

    /// Ends the session, for the reason that there is, and returns that.
    fn lose(&mut self) -> String {
        self.is_over = true;
        let context = context(&self.config, &self.clock, &self.socket);
        let end = self.session.handle_lost(&context);
        let text = end.map(|end| end.reason().to_string()).unwrap_or_default();
        self.reason = Some(text.clone());
        text
    }

    fn differ(&mut self, step: &Step<'_>, offset: Option<u64>, expected: &str, got: &str) {
        self.is_over = true;
        let peer = self.recorded.peer().clone();
        let at = self.clock.now().saturating_duration_since(self.base);
        self.difference = Some(Difference::new(peer, step, at, offset, expected, got));
        if self.reason.is_none() && self.session.is_closing() {
            self.lose();
        }
    }

    /// A datagram's session has one turn, in which everything happens.
    fn datagram_step(&mut self, step: &Step<'_>) {
        self.set_time(step.cause.at);
        match &step.cause.what {
            Happening::DataReceived(chunk) if self.calls.0.borrow().made.is_empty() => {
                let data = chunk.bytes.unwrap_or_default();
                self.call(|session, context| session.handle_datagram(data, context));
            }
            Happening::ConnectionLost(end) => return self.finish_datagram(end, step),
            _ => {}
        }
        self.comparison.expect(&step.wrote);
        if !self.comparison.advance(&self.output) {
            self.differ_in_output(step);
        }
    }

    fn finish_datagram(&mut self, end: &RecordedEnd<'_>, step: &Step<'_>) {
        if !self.comparison.advance(&self.output) || !self.comparison.is_even() {
            return self.differ_in_output(step);
        }
        let text = self.lose();
        if is_own(end.code) && text != end.reason {
            self.differ(step, None, end.reason, &text);
        }
    }

    fn set_time(&mut self, at: Duration) {
        if let Some(now) = self.base.checked_add(at) {
            self.clock.set(now);
        }
    }

    fn call(&mut self, event: impl FnOnce(&mut Session<Observed<P, Counted>>, &Context<'_>)) {
        let context = context(&self.config, &self.clock, &self.socket);
        event(&mut self.session, &context);
    }
}

/// Returns whether a reason is the doing of the protocol and its peer, and not of the network or the
/// server.
fn is_own(code: u8) -> bool {
    let own = [
        CloseReason::Closed,
        CloseReason::PeerClosed,
        CloseReason::Aborted,
        CloseReason::Shutdown,
        CloseReason::Overflow,
        CloseReason::Panicked,
    ];
    code == PROTOCOL || own.iter().any(|reason| code_of(reason) == code)
}

/// Returns the reason for an end that came from outside.
fn reason_of(end: &RecordedEnd<'_>) -> CloseReason {
    let others = [
        CloseReason::Closed,
        CloseReason::PeerClosed,
        CloseReason::Shutdown,
        CloseReason::Truncated,
        CloseReason::Refused,
        CloseReason::Overflow,
        CloseReason::Lagging,
        CloseReason::Shed,
    ];
    if let Some(deadline) = deadline_of_code(end.code) {
        return CloseReason::TimedOut(deadline);
    }
    let known = others
        .into_iter()
        .find(|reason| code_of(reason) == end.code);
    let io = CloseReason::Io(std::io::Error::other(end.reason));
    match known {
        Some(reason) => reason,
        None if code_of(&io) == end.code => io,
        None => CloseReason::Aborted,
    }
}
