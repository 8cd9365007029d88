//! One connection: requests in, replies out, one program at a time.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use serveloop::{CloseReason, Peer, Protocol, ProtocolError, Transport};

use super::job::Job;
use super::outcome::{Outcome, Report};
use super::reply::Reply;
use super::service::Service;
use super::wire::{READY, Wire};

/// So many requests of one connection wait; one more is the last.
const WAITING_MOST: usize = 16;

/// A line of the log shows no more of a request than this.
const SHOWN_MOST: usize = 512;

/// The requests of one connection, answered in their order.
#[derive(Debug)]
pub(super) struct Commands {
    service: Arc<Service>,
    peer: Peer,
    waiting: VecDeque<Box<[u8]>>,
    work: Work,
    /// When a program is stopped that may be for nobody.
    stop_at: Option<Instant>,
    beat_at: Option<Instant>,
    /// A request that cannot be taken, and why: its reply is the last one. What comes after it is
    /// read and dropped, so that the end of the stream is seen.
    refused: Option<(Vec<u8>, Outcome)>,
    /// No more requests come.
    is_last: bool,
    /// The client's stream has ended.
    is_ended: bool,
}

#[derive(Debug)]
enum Work {
    Idle,
    Running(Arc<Job>),
    /// The client knows the length of this reply and has to say that it is ready.
    Announced(Reply),
    Sending(Reply),
}

impl Commands {
    pub(super) fn new(service: &Arc<Service>, peer: &Peer) -> Self {
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

    /// Takes the next request. With many waiting it goes on reading: who is not read from cannot be
    /// seen to go.
    fn take_request(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let one_by_one = self.service.wire == Wire::Ready;
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
        match self.service.wire.cut(data, self.service.max_request) {
            Ok(None) => Ok(0),
            Ok(Some(frame)) if self.waiting.len() == WAITING_MOST => {
                let outcome = Outcome::Flooded(WAITING_MOST);
                self.refused = Some((shown(frame.payload).to_vec(), outcome));
                Ok(data.len())
            }
            Ok(Some(frame)) => {
                // The line end that a person types after ready is no request.
                if !one_by_one || !frame.payload.is_empty() {
                    self.waiting.push_back(frame.payload.into());
                    self.go_on(transport);
                }
                Ok(frame.taken)
            }
            Err(ProtocolError::TooLong { length, limit }) => {
                // Where the next request begins is not known, or not worth the wait.
                let beginning = self.service.wire.beginning(data, limit);
                let outcome = Outcome::TooLong(length, limit);
                self.refused = Some((shown(beginning).to_vec(), outcome));
                self.go_on(transport);
                Ok(data.len())
            }
            Err(error) => Err(error),
        }
    }

    /// The client has to say that it is ready for the reply, and nothing else.
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

    /// Does everything that can be done without waiting for a program or for the client.
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
            Ok(()) => {
                let now = transport.now();
                self.stop_at = self.is_ended.then(|| now + self.service.grace);
                self.beat_at = self.service.beat.map(|beat| now + beat);
                self.work = Work::Running(job);
            }
            Err(outcome) => self.refuse(&job.request(), outcome, transport),
        }
    }

    fn refuse(&mut self, request: &[u8], outcome: Outcome, transport: &mut Transport<'_>) {
        let report = Report::refused(outcome);
        self.service.note(&self.peer, request, &report);
        self.answer(report, transport);
    }

    fn answer(&mut self, report: Report, transport: &mut Transport<'_>) {
        let reply = Reply::new(report);
        let header = self.service.wire.header(reply.len());
        self.work = if self.service.wire == Wire::Ready {
            transport.write(&header);
            // The client may have said it before it was asked.
            transport.resume_reading();
            Work::Announced(reply)
        } else {
            Work::Sending(reply.after(&header))
        };
    }
}

/// What is kept of a request that is only to be logged.
fn shown(request: &[u8]) -> &[u8] {
    &request[..request.len().min(SHOWN_MOST)]
}

impl Protocol for Commands {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if matches!(self.work, Work::Announced(_)) {
            self.hear_ready(data, transport)
        } else {
            self.take_request(data, transport)
        }
    }

    /// What was asked before is answered, though over TCP a client that is gone looks just like one
    /// that has no further request. In the `ready` form nobody is left to say it.
    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if !unread.is_empty() {
            return Err(ProtocolError::Truncated {
                unread: unread.len(),
            });
        }
        let sends = matches!(self.work, Work::Sending(_));
        if self.service.wire == Wire::Ready && !sends {
            transport.close();
            return Ok(());
        }
        self.is_last = true;
        self.is_ended = true;
        self.stop_at = Some(transport.now() + self.service.grace);
        self.go_on(transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.go_on(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.work {
            Work::Running(_) => self.stop_at.into_iter().chain(self.beat_at).min(),
            _ => None,
        }
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let Work::Running(job) = &self.work else {
            return;
        };
        let now = transport.now();
        if self.stop_at.is_some_and(|at| at <= now) {
            self.stop_at = None;
            self.service.pool.cancel(job);
        }
        if self.beat_at.is_some_and(|at| at <= now) {
            self.beat_at = self.service.beat.map(|beat| now + beat);
            // A pause that ends starts the idle deadline anew.
            transport.pause_reading();
            transport.resume_reading();
        }
    }

    /// The program that runs for this connection has written more, or ended, or another wake came late.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        let Work::Running(job) = &self.work else {
            return;
        };
        if let Some(report) = job.take_report() {
            self.service.note(&self.peer, &job.request(), &report);
            self.answer(report, transport);
            self.go_on(transport);
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_last = true;
        self.go_on(transport);
    }

    fn connection_lost(&mut self, _reason: &CloseReason) {
        let Work::Running(job) = &self.work else {
            return;
        };
        let report = job.take_report().unwrap_or_else(|| job.abandoned());
        self.service.pool.cancel(job);
        self.service.note(&self.peer, &job.request(), &report);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serveloop::Config;
    use serveloop::testing::{MemorySession, SplitChecker};

    use super::*;
    use crate::protocols::CommandOptions;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: CommandOptions,
    }

    /// No program is allowed, so that none is needed to see what becomes of requests.
    fn session(wire: &str) -> Commands {
        let typed = Typed::parse_from(["command", "--max-request", "20", "--wire", wire]);
        let service = Arc::new(typed.options.service(&Config::default()));
        let address = "tcp://127.0.0.1:1".parse().unwrap();
        Commands::new(&service, &Peer::new(address, Some(0)))
    }

    #[test]
    fn framed_requests_can_be_cut_anywhere() {
        let requests: [&[u8]; 4] = [
            b"\0\0\0\x05rm -r",
            b"\0\0\0\0",
            b"\0\0\0\x03'ls",
            b"\0\0\0\x02\0s",
        ];
        SplitChecker::new(|| session("framed")).check(&requests);
        let long = [requests[0], b"\0\0\0\x15"];
        SplitChecker::new(|| session("framed")).check(&long);
        let mut memory = MemorySession::new(session("framed"));
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
        let mut memory = MemorySession::new(session("struct"));
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
            let mut memory = MemorySession::new(session("ready"));
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
            let mut memory = MemorySession::new(session("ready"));
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
        let mut memory = MemorySession::new(session("struct"));
        memory.receive(long);
        let expected = [&[49, 0, 0, 0], text.as_bytes()].concat();
        assert_eq!(memory.sent(), expected);
        assert!(memory.reason().is_some());

        let mut memory = MemorySession::new(session("ready"));
        memory.receive(long);
        memory.receive(READY);
        assert_eq!(memory.sent(), format!("49{text}").as_bytes());
        assert!(memory.reason().is_some());
    }
}
