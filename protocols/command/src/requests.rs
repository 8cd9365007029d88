//! One connection: takes requests and sends replies, running one program at a time.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use serveloop::service::JobError;
use serveloop::{Ended, Peer, Protocol, ProtocolError, Transport};

use crate::job::Job;
use crate::outcome::{Outcome, Report};
use crate::pool::Pending;
use crate::reply::Reply;
use crate::service::Service;
use crate::wire::{READY, Wire};

/// The most requests of one connection that wait. One more is refused and is the last.
const WAITING_MOST: usize = 16;

/// The bytes that a waiting request takes in addition to its own: its place in the queue, and the
/// allocator's overhead.
const REQUEST_SIZE: usize = 48;

/// The most bytes of a request that are kept for the log.
const SHOWN_MOST: usize = 512;

/// The protocol of one connection: its requests, answered in their order. [`Commands`] makes it.
///
/// [`Commands`]: crate::Commands
#[derive(Debug)]
pub struct Requests {
    service: Arc<Service>,
    peer: Peer,
    waiting: VecDeque<Box<[u8]>>,
    work: Work,
    /// When to stop the program of a client whose stream has ended.
    stop_at: Option<Instant>,
    /// When to reset the idle deadline again while a program runs.
    beat_at: Option<Instant>,
    /// A request that cannot be taken, and why. Its reply is the last one. Input after it is read
    /// and dropped, so that the end of the stream is noticed.
    refused: Option<(Vec<u8>, Outcome)>,
    /// Whether no more requests are taken.
    is_last: bool,
    /// Whether the client's stream has ended.
    is_ended: bool,
}

#[derive(Debug)]
enum Work {
    Idle,
    Running(Arc<Job>, Pending),
    /// The client has been told the length of this reply and has to send `ready`.
    Announced(Reply),
    Sending(Reply),
}

impl Requests {
    pub(crate) fn new(service: &Arc<Service>, peer: &Peer) -> Self {
        Self {
            service: Arc::clone(service),
            peer: peer.clone(),
            waiting: VecDeque::new(),
            work: Work::Idle,
            stop_at: None,
            beat_at: None,
            refused: None,
            is_last: false,
            is_ended: false,
        }
    }

    /// Takes the next request. Keeps reading even when many wait, because otherwise the end of the
    /// stream would go unnoticed.
    fn take_request(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let one_by_one = self.service.settings.wire == Wire::Ready;
        let idle = matches!(self.work, Work::Idle);
        if self.refused.is_some() {
            return Ok(data.len());
        }
        if self.is_last || (one_by_one && !idle) {
            transport.pause_reading();
            return Ok(0);
        }

        let line = data.split(|byte| *byte == b'\n').next().unwrap_or(data);
        if let Some(foreign) = self.service.foreign(line) {
            return Err(self.service.alarm.raise(&self.peer, foreign));
        }

        match self
            .service
            .settings
            .wire
            .cut(data, self.service.settings.max_request)
        {
            Ok(None) => Ok(0),
            Ok(Some(frame)) if self.waiting.len() == WAITING_MOST => {
                let outcome = Outcome::Flooded(WAITING_MOST);
                self.refused = Some((shown(frame.message).to_vec(), outcome));
                Ok(data.len())
            }
            Ok(Some(frame)) => {
                // A person who types `ready` ends the line, and that line end is not a request.
                if !one_by_one || !frame.message.is_empty() {
                    self.waiting.push_back(frame.message.into());
                    self.go_on(transport);
                }
                Ok(frame.taken)
            }
            Err(ProtocolError::TooLong { length, limit }) => {
                // The next request's beginning is unknown, or not worth waiting for.
                let beginning = self.service.settings.wire.beginning(data, limit);
                let outcome = Outcome::TooLong(length, limit);
                self.refused = Some((shown(beginning).to_vec(), outcome));
                self.go_on(transport);
                Ok(data.len())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes `ready`, the only input that is valid while a reply is announced.
    fn hear_ready(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if READY.starts_with(data) && data.len() < READY.len() {
            return Ok(0);
        }
        if !data.starts_with(READY) {
            let problem = "expected ready after the reply's length";
            return Err(ProtocolError::malformed(problem));
        }

        self.work = match mem::replace(&mut self.work, Work::Idle) {
            Work::Announced(reply) => Work::Sending(reply),
            work => work,
        };
        self.go_on(transport);
        Ok(READY.len())
    }

    /// Makes all progress that needs no wait for a program or for the client.
    fn go_on(&mut self, transport: &mut Transport<'_>) {
        loop {
            self.pour(transport);
            if !matches!(self.work, Work::Idle) {
                return;
            }
            if let Some(request) = self.waiting.pop_front() {
                self.begin(request, transport);
            } else if let Some((request, outcome)) = self.refused.take() {
                self.is_last = true;
                self.refuse(&request, outcome, transport);
            } else {
                break;
            }
        }
        // An idle connection keeps no memory.
        self.waiting = VecDeque::new();

        if self.is_last {
            transport.close();
        } else {
            transport.resume_reading();
        }
    }

    /// Sends what the client can take of the reply.
    fn pour(&mut self, transport: &mut Transport<'_>) {
        if let Work::Sending(reply) = &mut self.work
            && reply.pour(transport)
        {
            self.work = Work::Idle;
        }
    }

    fn begin(&mut self, request: Box<[u8]>, transport: &mut Transport<'_>) {
        let program = match self.service.choose(&request) {
            Ok(program) => program,
            Err(outcome) => return self.refuse(&request, outcome, transport),
        };

        let job = Arc::new(Job::new(program, request, transport.waker()));
        match self.service.pool.submit(&job) {
            Ok(pending) => {
                let now = transport.now();
                self.stop_at = self
                    .is_ended
                    .then(|| now + self.service.settings.grace_after_eof);
                self.beat_at = self.service.beat.map(|beat| now + beat);
                self.work = Work::Running(job, pending);
            }
            Err(outcome) => self.refuse(&job.request(), outcome, transport),
        }
    }

    /// Charges the connection for its memory. Output counts for nine tenths of its size, so that
    /// when all output together reaches its limit, programs that write are stopped before
    /// connections have to be closed.
    fn account(&self, transport: &mut Transport<'_>) {
        transport.charge(self.kept());
    }

    /// Returns the bytes that are kept for the client.
    fn kept(&self) -> usize {
        let waiting = self
            .waiting
            .iter()
            .map(|request| REQUEST_SIZE + request.len());
        let refused = self
            .refused
            .as_ref()
            .map_or(0, |(request, _)| request.len());

        let (work, output) = match &self.work {
            Work::Idle => (0, 0),
            Work::Running(job, _) => (job.kept(), job.collected()),
            Work::Announced(reply) | Work::Sending(reply) => (0, reply.kept()),
        };

        waiting.sum::<usize>() + refused + work + (output - output / 10)
    }

    /// Answers with the report of the program, if there is one.
    fn take_report(&mut self, transport: &mut Transport<'_>) {
        let Work::Running(job, pending) = &mut self.work else {
            return;
        };

        if let Some(result) = pending.take() {
            let report = report(result);
            self.service.note(&self.peer, &job.request(), &report);
            self.answer(report, transport);
            self.go_on(transport);
        }
        self.account(transport);
    }

    fn refuse(&mut self, request: &[u8], outcome: Outcome, transport: &mut Transport<'_>) {
        let report = Report::refused(outcome);
        self.service.note(&self.peer, request, &report);
        self.answer(report, transport);
    }

    fn answer(&mut self, report: Report, transport: &mut Transport<'_>) {
        let reply = Reply::new(report);
        let header = self.service.settings.wire.header(reply.len());

        self.work = if self.service.settings.wire == Wire::Ready {
            transport.write(&header);
            // The client may have sent `ready` already.
            transport.resume_reading();
            Work::Announced(reply)
        } else {
            Work::Sending(reply.after(&header))
        };
    }
}

/// Returns the report of a program that has ended, or that never began.
fn report(result: Result<Report, JobError>) -> Report {
    result.unwrap_or_else(|error| {
        Report::refused(match error {
            JobError::Cancelled => Outcome::Stopped,
            error => Outcome::NotStarted(error.to_string()),
        })
    })
}

/// Returns the part of a request that is kept for the log.
fn shown(request: &[u8]) -> &[u8] {
    &request[..request.len().min(SHOWN_MOST)]
}

impl Protocol for Requests {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let taken = if matches!(self.work, Work::Announced(_)) {
            self.hear_ready(data, transport)
        } else {
            self.take_request(data, transport)
        };

        self.account(transport);
        taken
    }

    /// Answers the requests that came before the end, although over TCP a client that is gone looks
    /// the same as one that has no further request. In the `ready` format a reply that is not asked
    /// for by now never will be. Half a request is dropped, and those before it are complete.
    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let truncated = (!unread.is_empty()).then_some(ProtocolError::Truncated {
            unread: unread.len(),
        });

        // Nothing waits while the connection is idle.
        let owes = match self.service.settings.wire {
            Wire::Ready => matches!(self.work, Work::Sending(_)),
            Wire::Framed | Wire::Struct => !matches!(self.work, Work::Idle),
        };
        match truncated {
            Some(truncated) if !owes => return Err(truncated),
            // The connection ends in order, after the replies.
            Some(truncated) => self.service.note_end(&self.peer, &truncated),
            None if !owes => {
                transport.close();
                return Ok(());
            }
            None => {}
        }

        self.is_last = true;
        self.is_ended = true;
        self.stop_at = Some(transport.now() + self.service.settings.grace_after_eof);
        self.go_on(transport);
        self.account(transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.go_on(transport);
        self.account(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.work {
            Work::Running(..) => self.stop_at.into_iter().chain(self.beat_at).min(),
            _ => None,
        }
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let Work::Running(job, pending) = &mut self.work else {
            return;
        };

        let now = transport.now();
        if self.stop_at.is_some_and(|at| at <= now) {
            self.stop_at = None;
            if pending.cancel() {
                return self.take_report(transport);
            }
            job.cancel();
        }
        if self.beat_at.is_some_and(|at| at <= now) {
            self.beat_at = self.service.beat.map(|beat| now + beat);
            // The end of a pause restarts the idle deadline.
            transport.pause_reading();
            transport.resume_reading();
        }
    }

    /// Called when the running program has written more or has ended, and for wakes that come late.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.take_report(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_last = true;
        self.go_on(transport);
        self.account(transport);
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        let Work::Running(job, pending) = &mut self.work else {
            return;
        };

        let report = pending.take().map_or_else(|| job.abandoned(), report);
        pending.cancel();
        job.cancel();
        self.service.note(&self.peer, &job.request(), &report);
    }
}

#[cfg(test)]
mod tests {
    use serveloop::testing::{MemorySession, SplitChecker};
    use serveloop::{CloseReason, Config};

    use super::*;
    use crate::settings::Settings;

    /// Makes a connection for which no program is allowed, so that these tests need none.
    fn session(wire: Wire) -> Requests {
        let settings = Settings {
            wire,
            max_request: 20,
            ..Settings::default()
        };
        let service = Arc::new(Service::new(settings, &Config::default()));
        let address = "tcp://127.0.0.1:1".parse().unwrap();
        Requests::new(&service, &Peer::new(address, Some(0)))
    }

    #[test]
    fn framed_requests_can_be_cut_anywhere() {
        let requests: [&[u8]; 4] = [
            b"\0\0\0\x05rm -r",
            b"\0\0\0\0",
            b"\0\0\0\x03'ls",
            b"\0\0\0\x02\0s",
        ];
        SplitChecker::new(|| session(Wire::Framed)).check(&requests);

        let long = [requests[0], b"\0\0\0\x15"];
        SplitChecker::new(|| session(Wire::Framed)).check(&long);

        let mut memory = MemorySession::new(session(Wire::Framed));
        memory.receive(&requests.concat());
        let sent = String::from_utf8(memory.sent()).unwrap();
        let expected = "\0\0\0\u{14}[not allowed: \"rm\"]\n\
                        \0\0\0\u{23}[bad request: no program is named]\n\
                        \0\0\0\u{31}[bad request: the quote at byte 0 is not closed]\n\
                        \0\0\0\u{1d}[bad request: NUL at byte 0]\n";
        assert_eq!(sent, expected);
    }

    #[test]
    fn raw_pieces_and_lines_are_requests() {
        let mut memory = MemorySession::new(session(Wire::Struct));
        memory.receive(b"a");
        assert_eq!(memory.sent(), b"\x13\0\0\0[not allowed: \"a\"]\n");

        memory.receive(b"a\nb\r\nc");
        let sent = memory.sent();
        for (reply, name) in sent.chunks(23).zip(["a", "b", "c"]) {
            let expected = format!("\x13\0\0\0[not allowed: \"{name}\"]\n");
            assert_eq!(reply, expected.as_bytes());
        }
        assert_eq!(sent.len(), 3 * 23);
    }

    #[test]
    fn ready_can_be_cut_anywhere() {
        for cut in 0..=READY.len() {
            let mut memory = MemorySession::new(session(Wire::Ready));
            for _ in 0..2 {
                memory.receive(b"rm\n");
                assert_eq!(memory.sent(), b"20");
                memory.receive(&READY[..cut]);
                memory.receive(&READY[cut..]);
                assert_eq!(memory.sent(), b"[not allowed: \"rm\"]\n");
                memory.receive(b"\r\n");
                assert_eq!(memory.sent(), b"");
            }
        }
    }

    #[test]
    fn anything_but_ready_breaks_the_protocol() {
        for word in [&b"Ready"[..], b"r3", b"read!", b"\n", b"rm"] {
            let mut memory = MemorySession::new(session(Wire::Ready));
            memory.receive(b"rm");
            memory.receive(word);
            let reason = memory.reason().expect("it has ended");
            assert!(matches!(reason, CloseReason::Protocol(_)), "{reason}");
            assert_eq!(memory.sent(), b"20");
        }
    }

    #[test]
    fn what_is_too_long_gets_the_last_reply() {
        let text = "[request too long: 21 bytes, at most 20 allowed]\n";
        let long = b"123456789012345678901";
        let mut memory = MemorySession::new(session(Wire::Struct));
        memory.receive(long);
        let expected = [&[49, 0, 0, 0], text.as_bytes()].concat();
        assert_eq!(memory.sent(), expected);
        assert!(memory.reason().is_some());

        let mut memory = MemorySession::new(session(Wire::Ready));
        memory.receive(long);
        memory.receive(READY);
        assert_eq!(memory.sent(), format!("49{text}").as_bytes());
        assert!(memory.reason().is_some());
    }
}
