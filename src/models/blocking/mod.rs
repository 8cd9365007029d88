//! The blocking driver: one connection per thread, around the same session that the event loop
//! uses.
//!
//! It reads with plain blocking calls and waits to write only if the peer is slow.

mod datagram;
mod lingering;
mod socket;
mod stream;

pub(super) use self::datagram::answer;
pub(super) use self::socket::BlockingSocket;
pub(crate) use self::stream::BlockingStream;

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::config::Config;
use crate::error::{CloseReason, Deadline};
use crate::models::blocking::lingering::{Lingering, is_passing};
use crate::models::interrupt::Interrupt;
use crate::reactor::NOBODY;
use crate::session::{
    Admitted, Clock, Context, Drain, Driver, End, Input, Protocol, Session, Tick, catch,
};
use crate::statistics::Statistics;
use crate::sys;

/// The shortest wait. The system treats a timeout of zero as no timeout.
const WAIT_LEAST: Duration = Duration::from_millis(1);

/// How long to pause after an interrupted call. Some system-call filters interrupt every call.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// The end of a session, if it ended with an error.
pub(crate) type Failure = Option<End>;

/// What comes after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Other work, or the next wait.
    GoOn,
    /// A read that does the waiting.
    Read,
    /// A read that does not wait.
    ReadAtOnce,
}

/// Serves one session on a blocking stream until it ends. A thread runs one at a time.
pub(crate) struct Blocking<'a, S, P> {
    stream: S,
    session: Session<P>,
    config: &'a Config,
    interrupt: &'a Interrupt,
    statistics: &'a mut Statistics,
    clock: Clock,
    input: Input,
    read_timeout: Option<Duration>,
    /// The socket accepted everything in the last write.
    writable: bool,
    /// The last read emptied the socket.
    dry: bool,
    /// The peer has hung up. Polling the socket again would report that at once, every time.
    hung_up: bool,
    /// Our side of the stream is closed.
    finished: bool,
    /// What is left of the drain, while one is on.
    drain: Option<Drain>,
    /// The drain is the whole server's, which waits for a first message.
    waits_for_first: bool,
    /// When the drain times out, once the session knows of the shutdown.
    drained: Option<Tick>,
}

impl<'a, S: BlockingStream, P: Protocol> Blocking<'a, S, P> {
    pub(crate) fn new(
        mut stream: S,
        admitted: Admitted<P>,
        (config, interrupt): (&'a Config, &'a Interrupt),
        statistics: &'a mut Statistics,
    ) -> Self {
        let clock = Clock::new(stream.now());
        interrupt.begin(clock.now());
        Self {
            stream,
            session: admitted.begin(clock.tick()),
            config,
            interrupt,
            statistics,
            clock,
            input: Input::new(config.reads_per_turn().1),
            read_timeout: None,
            writable: true,
            dry: false,
            hung_up: false,
            finished: false,
            drain: None,
            waits_for_first: false,
            drained: None,
        }
    }

    /// Serves the session to its end. Returns the failure if it ended with an error.
    pub(crate) fn serve(self) -> Failure {
        self.serve_and(|_, failure| failure)
    }

    /// Serves the session to its end. Calls `tell` with the counts and the failure before it
    /// lingers for the peer's close.
    pub(crate) fn serve_and<T>(mut self, tell: impl FnOnce(&mut Statistics, Failure) -> T) -> T {
        self.call(Session::handle_open);
        while !self.session.is_over() {
            self.attend();
            self.send();
            self.end_output();
            if self.session.has_more() {
                self.now();
                self.call(Session::handle_more);
            } else if !self.session.is_over() {
                self.interrupt.note_traffic(self.session.traffic());
                match self.wait() {
                    Next::GoOn => {}
                    Next::Read => self.receive(),
                    Next::ReadAtOnce => self.receive_at_once(),
                }
            }

            if self.session.take_replaced() && !self.interrupt.reseat(self.session.peer()) {
                // What a layer's handshake has to say goes before its end mark.
                self.send();
                self.dismiss(CloseReason::Refused);
            }

            let held = self.session.held() + self.session.posted();
            if !self.interrupt.note_held(held, self.config.max_buffered) {
                self.dismiss(CloseReason::Shed);
            }
        }
        self.end(tell)
    }

    /// Handles what is due between reads and writes: wakes, the server's shutdown and deadlines.
    fn attend(&mut self) {
        if self.stream.take_woken() {
            self.call(Session::handle_woken);
        }

        if self.interrupt.is_aborted() {
            return self.session.fail(CloseReason::Aborted);
        }
        if self.is_ended() {
            let reason = CloseReason::TimedOut(Deadline::Drain);
            if self.stream.requests() > 1 {
                return self.session.fail(reason);
            }
            // What was written since the last attempt has one too, before the end mark.
            self.send();
            return self.dismiss(reason);
        }

        let is_asked = self.interrupt.is_asked();
        if !self.is_told() && (is_asked || self.stream.hears_shutdown()) {
            self.interrupt.note_told();
            // The last reading may be from before the request, for example before a long call.
            self.now();
            let timeout = self.config.drain_timeout;
            self.drained = timeout.map(|timeout| self.clock.tick().after(timeout));
            self.drain = Some(Drain::new());
            self.waits_for_first = !is_asked;
        }

        if self.drain.is_some() {
            self.drain();
        }

        let waits = !self.dry;
        self.call(|session, context| session.handle_deadlines(context, waits));
    }

    /// Takes input that has already arrived, then asks the session to finish.
    #[cold]
    fn drain(&mut self) {
        let context = context(&self.clock, self.config, &self.stream);
        if self.waits_for_first && self.session.is_fresh(&context) {
            return;
        }
        let dry = !self.session.wants_input() || !self.stream.has_input();
        let session = &self.session;
        if self
            .drain
            .as_mut()
            .is_some_and(|drain| drain.is_over(dry, session))
        {
            self.drain = None;
            self.call(Session::handle_shutdown);
        }
    }

    fn is_told(&self) -> bool {
        self.interrupt.is_told()
    }

    fn is_ended(&self) -> bool {
        let late = self.drained.is_some_and(|at| at <= self.clock.tick());
        late || self.interrupt.is_ended()
    }

    /// Sends as much as the socket accepts at once, which is everything unless the peer is slow.
    fn send(&mut self) {
        let output = self.session.output();
        if output.is_empty() || !self.writable || self.session.is_aborted() {
            return;
        }

        let output = &output[..output.len().min(self.config.write_per_turn)];
        let length = output.len();
        let sent = self.stream.send(output);
        self.now();

        match sent {
            Ok(count) => {
                self.writable = count == length;
                self.statistics.bytes_written += count as u64;
                self.call(|session, context| session.output_sent(count, context));
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.writable = false,
                ErrorKind::Interrupted => self.pause_if_interrupted(&error),
                _ if sys::is_out_of_memory(&error) => self.stream.sleep(self.config.accept_pause),
                _ => self.session.fail(CloseReason::Io(error)),
            },
        }

        if !self.session.output().is_empty() {
            self.call(|session, context| session.note_stalled(context));
        }
    }

    /// Reads once, and waits no longer than the next deadline.
    fn receive(&mut self) {
        let timeout = self.until_deadline();
        if timeout != self.read_timeout {
            self.read_timeout = timeout;
            // A socket that refuses the option fails with the read.
            let _ = self.stream.set_read_timeout(timeout);
        }

        self.read(S::read);
    }

    /// Reads what the last wait has announced. If nothing is there after all, the read must not do the
    /// waiting, because it hears no wakes.
    fn receive_at_once(&mut self) {
        self.read(S::read_at_once);
    }

    /// Reads into the input buffer, or the rest of a long message into the session's memory.
    fn read(&mut self, read: fn(&mut S, &mut [u8]) -> io::Result<usize>) {
        let mut most = self.input.len();
        if !self.session.expects() {
            let received = read(&mut self.stream, &mut self.input);
            return self.handle_received(received, most, Self::take);
        }

        let received = self.session.read_expected(most, |room| {
            most = room.len();
            read(&mut self.stream, room)
        });
        self.handle_received(received, most, Self::take_expected);
    }

    /// Handles the outcome of a read of up to `most` bytes, which `take` passes on.
    fn handle_received(
        &mut self,
        received: io::Result<usize>,
        most: usize,
        take: fn(&mut Self, usize),
    ) {
        self.now();
        let gaps = self.session.has_gaps();
        self.dry = !matches!(received, Ok(count) if count == most || (gaps && count > 0));

        match received {
            Ok(0) => self.call(Session::handle_eof),
            Ok(count) => {
                self.statistics.bytes_read += count as u64;
                take(self, count);
            }
            Err(error) if is_passing(&error) => self.pause_if_interrupted(&error),
            Err(error) => self.session.fail(CloseReason::Io(error)),
        }
    }

    fn take(&mut self, count: usize) {
        let context = context(&self.clock, self.config, &self.stream);
        self.session.handle_data(&self.input[..count], &context);
        self.check_bell();
    }

    fn take_expected(&mut self, count: usize) {
        self.call(|session, context| session.handle_expected(count, context));
    }

    /// Fails the session if its protocol requested a waker that could not be made.
    fn check_bell(&mut self) {
        if let Some(error) = self.stream.take_waker_failure() {
            self.session.fail(CloseReason::Io(error));
        }
    }

    /// Waits until there is something to do, and returns what it is.
    ///
    /// Returns at once if the read itself can do the waiting. It cannot if the protocol wants no
    /// input now, output waits for the peer, or a waker exists.
    fn wait(&mut self) -> Next {
        let reads = self.session.wants_input();
        let sends = !self.session.output().is_empty();
        if sends && self.writable {
            return Next::GoOn;
        }
        if reads && !sends && !self.stream.has_waker() {
            return Next::Read;
        }

        let timeout = self.until_deadline();
        let idle = !reads && !sends;
        let input = if reads { libc::POLLIN } else { 0 };
        let output = if sends { libc::POLLOUT } else { 0 };
        let events = (!idle || !self.hung_up).then_some(input | output);

        let outcome = self.stream.wait(events, timeout);
        self.now();
        let ready = match outcome {
            Ok(ready) => ready,
            Err(error) => {
                self.pause_if_interrupted(&error);
                if error.kind() != ErrorKind::Interrupted {
                    self.session.fail(CloseReason::Io(error));
                }
                return Next::GoOn;
            }
        };

        if idle && ready != 0 {
            self.hang_up();
        }
        if sends {
            self.writable = ready & !libc::POLLIN != 0;
        }
        self.dry = !reads || ready & !libc::POLLOUT == 0;
        if self.dry {
            Next::GoOn
        } else {
            Next::ReadAtOnce
        }
    }

    /// Notes that the connection failed, or that the peer closed it, while the protocol wanted no
    /// input. After a clean close, the input already received still counts.
    #[cold]
    fn hang_up(&mut self) {
        self.hung_up = true;
        if let Some(error) = self.stream.take_error() {
            self.session.fail(CloseReason::Io(error));
        }
    }

    /// Closes our side of the stream once the protocol has finished and all output is sent.
    fn end_output(&mut self) {
        let ends = self.session.is_finished() && !self.session.has_output();
        if ends && !self.finished {
            self.finished = true;
            // If the socket has failed, the next read returns the reason.
            let _ = self.stream.finish();
        }
    }

    fn dismiss(&mut self, reason: CloseReason) {
        self.call(|session, context| session.dismiss(reason, context));
    }

    /// Makes the one attempt to send the end mark of a dismissed session.
    fn send_mark(&mut self) {
        let mark = self.session.output();
        if mark.is_empty() || !self.writable {
            return;
        }
        if let Ok(count) = self.stream.send(mark) {
            self.statistics.bytes_written += count as u64;
            self.call(|session, context| session.output_sent(count, context));
        }
    }

    fn end<T>(mut self, tell: impl FnOnce(&mut Statistics, Failure) -> T) -> T {
        self.send_mark();
        let limits = self.session.limits(self.config);
        let linger = self.session.lingers(self.config).then(|| limits.clone());
        let is_marked = self.session.is_end_marked();
        let context = context(&self.clock, self.config, &self.stream);
        let Some(end) = self.session.conclude(&context, self.statistics) else {
            return tell(self.statistics, None);
        };
        let reason = end.reason();
        let is_error = reason.is_error();
        self.interrupt.note_held(0, self.config.max_buffered);
        if linger.is_none() && !is_marked && reason.is_hard() {
            self.stream.reset();
        }

        let failure = is_error.then_some(end);
        let (session, statistics) = (self.session, self.statistics);
        statistics.panics += u64::from(catch(|| drop(session)).is_none());
        let told = tell(statistics, failure);

        if let Some(limits) = linger {
            let lingering = Lingering {
                stream: self.stream,
                limits,
                interrupt: self.interrupt,
                clock: self.clock,
                input: self.input,
                drained: self.drained,
            };
            lingering.linger();
        }
        told
    }

    /// Returns how long the next wait may take. Reads the clock after it has asked the protocol, which
    /// may have taken a while.
    fn until_deadline(&mut self) -> Option<Duration> {
        let context = context(&self.clock, self.config, &self.stream);
        let deadline = self.session.deadline(&context);
        let waits = self.drain.is_some() && self.waits_for_first;
        let fresh = waits.then(|| self.session.fresh_until(self.config));
        self.now();
        let until = self.drained.into_iter().chain(fresh.flatten());
        let at = deadline.into_iter().chain(until).min();
        at.map(|at| at.since(self.clock.tick()).max(WAIT_LEAST))
    }

    fn now(&mut self) {
        self.clock.set(self.stream.now());
    }

    /// Pauses after an interrupted call, so that retrying it does not become a busy loop.
    fn pause_if_interrupted(&mut self, error: &io::Error) {
        if error.kind() == ErrorKind::Interrupted {
            self.stream.sleep(TRY_AGAIN);
        }
    }

    fn call(&mut self, event: impl FnOnce(&mut Session<P>, &Context<'_>)) {
        let context = context(&self.clock, self.config, &self.stream);
        event(&mut self.session, &context);
        self.check_bell();
    }
}

/// Returns the context of the only session, whose id is never used.
fn context<'a>(clock: &'a Clock, config: &'a Config, driver: &'a dyn Driver) -> Context<'a> {
    Context {
        clock,
        config,
        driver,
        id: NOBODY,
    }
}
