//! One connection: takes requests and sends replies, running one program at a time.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use serveloop::{CloseReason, Peer, Protocol, ProtocolError, Transport};

use crate::protocols::command::job::Job;
use crate::protocols::command::outcome::{Outcome, Report};
use crate::protocols::command::reply::Reply;
use crate::protocols::command::service::Service;
use crate::protocols::command::wire::{READY, Wire};

/// The most requests of one connection that wait. One more is refused and is the last.
const WAITING_MOST: usize = 16;

/// The bytes that a waiting request takes in addition to its own: its place in the queue, and the
/// allocator's overhead.
const REQUEST_SIZE: usize = 48;

/// The most bytes of a request that are kept for the log.
const SHOWN_MOST: usize = 512;

/// The requests of one connection, answered in their order.
#[derive(Debug)]
pub(super) struct Commands {
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
    Running(Arc<Job>),
    /// The client has been told the length of this reply and has to send `ready`.
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

    /// Takes the next request. Keeps reading even when many wait, because otherwise the end of the
    /// stream would go unnoticed.
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
                let beginning = self.service.wire.beginning(data, limit);
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
            Ok(()) => {
                let now = transport.now();
                self.stop_at = self.is_ended.then(|| now + self.service.grace);
                self.beat_at = self.service.beat.map(|beat| now + beat);
                self.work = Work::Running(job);
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
            Work::Running(job) => (job.kept(), job.collected()),
            Work::Announced(reply) | Work::Sending(reply) => (0, reply.kept()),
        };

        waiting.sum::<usize>() + refused + work + (output - output / 10)
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
            // The client may have sent `ready` already.
            transport.resume_reading();
            Work::Announced(reply)
        } else {
            Work::Sending(reply.after(&header))
        };
    }
}

/// Returns the part of a request that is kept for the log.
fn shown(request: &[u8]) -> &[u8] {
    &request[..request.len().min(SHOWN_MOST)]
}

impl Protocol for Commands {
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
    /// for by now never will be.
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
        self.account(transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.go_on(transport);
        self.account(transport);
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
            // The end of a pause restarts the idle deadline.
            transport.pause_reading();
            transport.resume_reading();
        }
    }

    /// Called when the running program has written more or has ended, and for wakes that come late.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        let Work::Running(job) = &self.work else {
            return;
        };

        if let Some(report) = job.take_report() {
            self.service.note(&self.peer, &job.request(), &report);
            self.answer(report, transport);
            self.go_on(transport);
        }
        self.account(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_last = true;
        self.go_on(transport);
        self.account(transport);
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
