//! One connection: requests in, replies out, one program at a time.

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

/// So many requests of one connection wait; one more is the last.
const WAITING_MOST: usize = 16;

/// What a request that waits takes besides its own bytes: its place, and what an allocator adds.
const REQUEST_SIZE: usize = 48;

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
                self.refused = Some((shown(frame.message).to_vec(), outcome));
                Ok(data.len())
            }
            Ok(Some(frame)) => {
                // The line end that a person types after ready is no request.
                if !one_by_one || !frame.message.is_empty() {
                    self.waiting.push_back(frame.message.into());
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

    /// Says how much memory this connection takes. Output counts nine tenths of its size: so a program
    /// that writes is stopped, as all output together is as much as is allowed, before connections have
    /// to end for it.
    fn account(&self, transport: &mut Transport<'_>) {
        transport.charge(self.kept());
    }

    /// How many bytes there are that the client has us keep.
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
        let taken = if matches!(self.work, Work::Announced(_)) {
            self.hear_ready(data, transport)
        } else {
            self.take_request(data, transport)
        };
        self.account(transport);
        taken
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
