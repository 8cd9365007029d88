//! One connection: requests in, replies out, one program at a time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serveloop::{CloseReason, Peer, Protocol, ProtocolError, Transport};

use super::allowed::Allowed;
use super::job::Job;
use super::outcome::{Outcome, Report};
use super::pool::Pool;
use super::shown::Shown;
use super::wire::{READY, Wire};
use super::words;
use crate::logged::Diary;

/// So many requests of one connection wait; more are not read.
const WAITING_MOST: usize = 16;

/// How long a process that serves one connection waits for a program that it killed.
const REAPING_MOST: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) wire: Wire,
    pub(super) allowed: Vec<Allowed>,
    pub(super) pool: Arc<Pool>,
    pub(super) diary: Diary,
    /// In bytes.
    pub(super) max_request: usize,
    /// How long a program may go on when the client's stream has ended.
    pub(super) grace: Duration,
    /// How often to say that the connection is not idle: a program runs for it.
    pub(super) beat: Option<Duration>,
    /// Whether the process ends with the connection, and has to see to the end of the program.
    pub(super) waits_for_end: bool,
}

/// The requests of one connection, answered in their order.
#[derive(Debug)]
pub(super) struct Commands {
    service: Arc<Service>,
    peer: Peer,
    waiting: VecDeque<Vec<u8>>,
    work: Work,
    /// When a program is stopped that may be for nobody.
    stop_at: Option<Instant>,
    beat_at: Option<Instant>,
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
    Announced(Vec<u8>),
    Sending {
        reply: Vec<u8>,
        sent: usize,
    },
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
            is_last: false,
            is_ended: false,
        }
    }

    /// Takes the next request, if there is room for it.
    fn take_request(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let one_by_one = self.service.wire == Wire::Ready;
        let most = if one_by_one { 1 } else { WAITING_MOST };
        let idle = matches!(self.work, Work::Idle);
        if self.is_last || self.waiting.len() >= most || (one_by_one && !idle) {
            transport.pause_reading();
            return Ok(0);
        }
        match self.service.wire.cut(data, self.service.max_request) {
            Ok(None) => Ok(0),
            Ok(Some(frame)) => {
                // The line end that a person types after ready is no request.
                if !one_by_one || !frame.payload.is_empty() {
                    self.waiting.push_back(frame.payload.to_vec());
                    self.go_on(transport)?;
                }
                Ok(frame.taken)
            }
            // The replies before this one come first.
            Err(_) if !idle => {
                transport.pause_reading();
                Ok(0)
            }
            Err(error) => {
                self.refuse_long(&error, transport)?;
                Err(error)
            }
        }
    }

    /// What follows cannot be told from requests, so the connection ends.
    fn refuse_long(
        &mut self,
        error: &ProtocolError,
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if let ProtocolError::TooLong { length, limit } = error {
            let report = Report::refused(Outcome::TooLong(*length, *limit));
            let reply = report.into_reply();
            transport.write(&self.service.wire.header(reply.len())?);
            transport.write(&reply);
        }
        Ok(())
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
            return Err(ProtocolError::malformed(
                "expected ready after the reply's length",
            ));
        }
        if let Work::Announced(reply) = std::mem::replace(&mut self.work, Work::Idle) {
            self.work = Work::Sending { reply, sent: 0 };
        }
        self.go_on(transport)?;
        Ok(READY.len())
    }

    /// Does everything that can be done without waiting for a program or for the client.
    fn go_on(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        loop {
            if !self.pour(transport) {
                return Ok(());
            }
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            self.begin(&request, transport)?;
        }
        if self.is_last {
            transport.close();
        } else {
            transport.resume_reading();
        }
        Ok(())
    }

    /// Sends what the client can take of the reply. False if the connection is still busy.
    fn pour(&mut self, transport: &mut Transport<'_>) -> bool {
        if let Work::Sending { reply, sent } = &mut self.work {
            *sent += transport.write_some(&reply[*sent..]);
            if *sent == reply.len() {
                self.work = Work::Idle;
            }
        }
        matches!(self.work, Work::Idle)
    }

    fn begin(
        &mut self,
        request: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let submitted = self.choose(request).and_then(|(program, words)| {
            let job = Job::new(program, words, transport.waker());
            self.service.pool.submit(job)
        });
        match submitted {
            Ok(job) => {
                let now = transport.now();
                self.stop_at = self.is_ended.then(|| now + self.service.grace);
                self.beat_at = self.service.beat.map(|beat| now + beat);
                self.work = Work::Running(job);
                Ok(())
            }
            Err(outcome) => {
                let report = Report::refused(outcome);
                self.note(&Shown(request), &report);
                self.answer(report, transport)
            }
        }
    }

    /// The program that a request names, and its words.
    fn choose(&self, request: &[u8]) -> Result<(PathBuf, Vec<OsString>), Outcome> {
        let words = words::split(request).map_err(Outcome::Malformed)?;
        let mut allowed = self.service.allowed.iter();
        match allowed.find(|allowed| allowed.is_called(&words[0])) {
            Some(allowed) => Ok((allowed.path().to_owned(), words)),
            None => Err(Outcome::NotAllowed(words[0].as_bytes().to_vec())),
        }
    }

    fn answer(
        &mut self,
        report: Report,
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let reply = report.into_reply();
        let header = self.service.wire.header(reply.len())?;
        self.work = if self.service.wire == Wire::Ready {
            transport.write(&header);
            // The client may have said it before it was asked.
            transport.resume_reading();
            Work::Announced(reply)
        } else {
            let reply = [header, reply].concat();
            Work::Sending { reply, sent: 0 }
        };
        Ok(())
    }

    /// The program that ran for this connection has ended.
    fn finish_program(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let Work::Running(job) = &self.work else {
            return Ok(());
        };
        let Some(report) = job.take_report() else {
            return Ok(());
        };
        let words = job.words.join(std::ffi::OsStr::new(" "));
        self.note(&Shown(words.as_bytes()), &report);
        self.stop_at = None;
        self.beat_at = None;
        self.answer(report, transport)?;
        self.go_on(transport)
    }

    fn note(&self, request: &Shown<'_>, report: &Report) {
        let Self { peer, service, .. } = self;
        let bytes = report.output.len();
        service.diary.note(format_args!(
            "{peer}: {request}: {}, {bytes} bytes of output, {} ms",
            report.outcome,
            report.took.as_millis()
        ));
    }

    /// What can go wrong where no error can be returned ends the connection all the same.
    fn or_abort(outcome: Result<(), ProtocolError>, transport: &mut Transport<'_>) {
        if outcome.is_err() {
            transport.abort();
        }
    }
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
        let sends = matches!(self.work, Work::Sending { .. });
        if self.service.wire == Wire::Ready && !sends {
            transport.close();
            return Ok(());
        }
        self.is_last = true;
        self.is_ended = true;
        self.stop_at = Some(transport.now() + self.service.grace);
        self.go_on(transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        let outcome = self.go_on(transport);
        Self::or_abort(outcome, transport);
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

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let outcome = self.finish_program(transport);
        Self::or_abort(outcome, transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.is_last = true;
        let outcome = self.go_on(transport);
        Self::or_abort(outcome, transport);
    }

    fn connection_lost(&mut self, _reason: &CloseReason) {
        let Work::Running(job) = &self.work else {
            return;
        };
        self.service.pool.cancel(job);
        let words = job.words.join(std::ffi::OsStr::new(" "));
        let (peer, request) = (&self.peer, Shown(words.as_bytes()));
        let diary = &self.service.diary;
        diary.note(format_args!(
            "{peer}: {request}: killed, nobody waits for it"
        ));
        if self.service.waits_for_end {
            job.wait(REAPING_MOST);
        }
    }
}
