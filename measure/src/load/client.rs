//! One connection of the load, as a protocol.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use serveloop::{CloseReason, Deadline, Ended, Protocol, ProtocolError, Transport, Waker};

use crate::load::exchange::{Read, Replies, Talk};
use crate::load::pattern::{Pattern, Place};
use crate::load::schedule::Schedule;
use crate::load::secured::Secured;
use crate::load::stage::Stage;
use crate::load::tally::Tally;

/// The first bytes of what a server sends that expects TLS and gets something else.
const TLS_ALERT: [u8; 2] = [21, 3];

/// Sends messages and checks what comes back. The first message of every connection is a visit: it
/// shows that the server echoes, and makes sure that the connection has been used before the
/// server's memory is read.
#[derive(Debug)]
pub(crate) struct Client {
    course: Rc<Course>,
    number: usize,
    /// Its place among the clients that send after the visit, if it is one of them.
    rank: Option<u64>,
    outgoing: Place,
    incoming: Place,
    /// How many bytes of the current message have come back.
    partial: usize,
    /// What replies have to be that are no echo.
    replies: Option<Box<Replies>>,
    /// Whether the connection has been established, with TLS if it has that.
    is_established: bool,
    /// Messages sent, including the visit.
    sent: u64,
    answered: u64,
    /// When each message in flight was sent, indexed by its number modulo the depth. With churn,
    /// when the connection was started.
    moments: Box<[Instant]>,
}

/// The settings and state that all clients of a load share.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) pattern: Pattern,
    /// The size of a message that is sent, in bytes.
    pub(crate) size: usize,
    /// What is exchanged, if it is no echo.
    pub(crate) talk: Option<Talk>,
    /// How many messages are sent and not answered, without visits. It is counted if `talk` is there.
    pub(crate) owed: Cell<u64>,
    /// The most messages in flight on each connection.
    pub(crate) depth: usize,
    /// Whether each connection ends with its first message.
    pub(crate) churn: bool,
    /// How many connections send after the visit.
    pub(crate) active: usize,
    /// Of as many connections one is active: the active ones are spread out, so that the neighbours
    /// of each are idle.
    pub(crate) stride: usize,
    /// Messages that may still be sent after the visits, or with churn, connections that may still
    /// be made.
    pub(crate) budget: Cell<u64>,
    /// When messages are to be sent in an open loop. It is set once all connections are
    /// established.
    pub(crate) schedule: Cell<Option<Schedule>>,
    /// When the run ended. From then on nothing is sent or counted, except messages that are still
    /// missing.
    pub(crate) over: Cell<Option<Instant>>,
    pub(crate) tally: RefCell<Tally>,
    /// Wakes the active clients, which then look for something to send. Each has its client's
    /// place among them.
    pub(crate) wakers: RefCell<Vec<(u64, Waker)>>,
    /// TLS for all connections.
    pub(crate) secured: Option<Secured>,
    /// Explains why a connection ended.
    pub(crate) explain: fn(&CloseReason) -> String,
    /// Returns the current time. The loop reads the clock only once per turn, which is too coarse
    /// to time messages.
    pub(crate) time: fn(&Transport<'_>) -> Instant,
}

impl Course {
    /// Returns the place of connection `number` among the active ones, if it is active.
    fn rank(&self, number: usize) -> Option<u64> {
        let (rank, rest) = (number / self.stride, number % self.stride);
        (rest == 0 && rank < self.active).then_some(rank as u64)
    }

    /// Returns whether a connection does nothing but begin and end.
    fn is_bare(&self) -> bool {
        self.size == 0
    }

    /// Explains why a connection ended that came as far as `stage`.
    fn explain(&self, reason: &CloseReason, stage: Stage) -> String {
        let secured = self.secured.as_ref();
        let explained = secured.and_then(|secured| secured.explain(reason, stage));
        explained.unwrap_or_else(|| (self.explain)(reason))
    }
}

impl Client {
    /// Returns a client whose connection starts now.
    pub(crate) fn new(course: &Rc<Course>, number: usize, now: Instant) -> Self {
        Self {
            course: Rc::clone(course),
            number,
            rank: course.rank(number),
            outgoing: course.pattern.begin(number),
            incoming: course.pattern.begin(number),
            partial: 0,
            replies: course
                .talk
                .as_ref()
                .map(|talk| Box::new(Replies::new(talk))),
            is_established: false,
            sent: 0,
            answered: 0,
            moments: vec![now; course.depth].into(),
        }
    }

    /// Returns how far its connection came.
    fn stage(&self) -> Stage {
        match (self.is_established, self.answered) {
            (false, _) if self.course.secured.is_some() => Stage::Handshake,
            (_, 0) => Stage::Open,
            _ => Stage::Answered,
        }
    }

    /// Notes that `bytes` more bytes came back. Returns how many messages they completed.
    #[inline]
    fn complete(&mut self, bytes: usize) -> u64 {
        self.partial += bytes;
        let mut complete = 0;
        while self.partial >= self.course.size {
            self.partial -= self.course.size;
            complete += 1;
        }
        complete
    }

    /// Handles the return of the first message.
    #[cold]
    fn settle(&mut self, now: Instant, transport: &mut Transport<'_>) {
        self.answered = 1;
        let mut tally = self.course.tally.borrow_mut();
        if !self.course.churn {
            tally.settled += 1;
            return;
        }
        transport.close();
        drop(tally);
        self.count_connection(now);
    }

    /// Counts a connection that has served its purpose, and has another one take its place.
    fn count_connection(&self, now: Instant) {
        if self.course.over.get().is_some() {
            return;
        }
        let mut tally = self.course.tally.borrow_mut();
        tally.record(now.saturating_duration_since(self.moments[0]));
        let budget = self.course.budget.get();
        tally.reopen += usize::from(budget > 0);
        self.course.budget.set(budget.saturating_sub(1));
    }

    /// Handles data that is no echo. Returns how much of it is done with.
    fn replies_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let (Some(replies), Some(talk)) = (&mut self.replies, &self.course.talk) else {
            return Ok(data.len());
        };
        let requests = self.sent - self.answered;
        let read = replies.read(data, requests, talk).map_err(|wrong| {
            let alert = if self.answered == 0 {
                alert(data)
            } else {
                None
            };
            let wrong = alert.map_or(wrong, str::to_owned);
            // As it is, since the library would escape what is quoted a second time.
            let number = self.number + 1;
            let mut tally = self.course.tally.borrow_mut();
            tally.fail(|| format!("connection {number}: {wrong}"));
            ProtocolError::malformed("a wrong reply")
        })?;

        let Read {
            taken,
            complete,
            has_opened,
            answer,
        } = read;
        if self.answered == 0 && complete == 0 && !has_opened {
            talk.keep(data);
        }
        if !answer.is_empty() {
            transport.write(&answer);
        }
        if has_opened {
            let began = self.moments[0];
            self.send(1, began, transport);
        }
        self.answered(complete, transport);
        Ok(taken)
    }

    /// Handles the return of messages.
    #[inline]
    fn answered(&mut self, complete: u64, transport: &mut Transport<'_>) {
        let now = (self.course.time)(transport);
        if self.answered == 0 {
            if complete > 0 {
                self.settle(now, transport);
            }
        } else if self.course.over.get().is_none() {
            self.account(complete, now);
            self.advance(now, transport);
        }
    }

    #[inline]
    fn account(&mut self, complete: u64, now: Instant) {
        let mut tally = self.course.tally.borrow_mut();
        for _ in 0..complete {
            let since = self.since(self.answered);
            self.answered += 1;
            tally.record(now.saturating_duration_since(since));
        }
        if self.course.talk.is_some() {
            let owed = self.course.owed.get();
            self.course.owed.set(owed.saturating_sub(complete));
        }
    }

    /// Returns the moment from which a message is timed.
    #[inline]
    fn since(&self, message: u64) -> Instant {
        match self.course.schedule.get().zip(self.rank) {
            // The schedule does not include the visit.
            Some((schedule, rank)) => schedule.intended(rank, message - 1),
            None => self.moments[self.slot(message)],
        }
    }

    #[inline]
    fn slot(&self, message: u64) -> usize {
        match self.course.depth {
            1 => 0,
            depth => usize::try_from(message % depth as u64).unwrap_or(0),
        }
    }

    /// Sends the messages that are due, as far as the depth and the budget allow.
    #[inline]
    fn advance(&mut self, now: Instant, transport: &mut Transport<'_>) {
        let mut count = self.course.depth as u64 - (self.sent - self.answered);
        if let Some((schedule, rank)) = self.course.schedule.get().zip(self.rank) {
            let due = schedule.due_of(rank, now) + 1;
            count = count.min(due.saturating_sub(self.sent));
        }
        let budget = self.course.budget.get();
        count = count.min(budget);
        self.course.budget.set(budget - count);
        if self.course.talk.is_some() {
            self.course.owed.set(self.course.owed.get() + count);
        }
        self.send(count, now, transport);
    }

    #[inline]
    fn send(&mut self, count: u64, now: Instant, transport: &mut Transport<'_>) {
        for message in self.sent..self.sent + count {
            let slot = self.slot(message);
            self.moments[slot] = now;
        }
        self.sent += count;

        // The count is at most the depth, which is a `usize`.
        let mut rest = usize::try_from(count).unwrap_or(0) * self.course.size;
        while rest > 0 {
            let piece = self.course.pattern.take(&mut self.outgoing, rest);
            transport.write(piece);
            rest -= piece.len();
        }
    }

    /// Returns why the loss of this connection makes the run invalid.
    fn failure(&self, reason: &CloseReason) -> String {
        let stage = self.stage();
        let (number, why) = (self.number + 1, self.course.explain(reason, stage));
        match reason {
            CloseReason::ConnectFailed(_) | CloseReason::TimedOut(Deadline::Connect) => why,
            CloseReason::PeerClosed | CloseReason::Io(_) if stage == Stage::Open => format!(
                "connection {number}: {why} before its first reply: the server may limit its connections"
            ),
            _ => format!("connection {number}: {why}"),
        }
    }

    /// Records how long the messages have been missing that were due by the end.
    fn account_missing(&mut self, over: Instant) {
        let Some((schedule, rank)) = self.course.schedule.get().zip(self.rank) else {
            return;
        };
        let due = schedule.due_of(rank, over) + 1;
        let mut tally = self.course.tally.borrow_mut();
        for message in self.answered..due {
            tally.record_time(over.saturating_duration_since(self.since(message)));
        }
        self.answered = self.answered.max(due);
    }
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if let Some(rank) = self.rank.filter(|_| !self.course.churn) {
            let mut wakers = self.course.wakers.borrow_mut();
            wakers.push((rank, transport.waker()));
        }
        self.is_established = true;
        let opening = self.course.talk.as_ref().and_then(Talk::opening);
        if let Some(opening) = opening {
            transport.write(opening);
            return Ok(());
        }

        let began = self.moments[0];
        self.send(1, began, transport);
        if self.course.is_bare() {
            // The server's end shows that it has seen ours.
            transport.finish();
        }
        Ok(())
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if self.replies.is_some() {
            return self.replies_received(data, transport);
        }
        let matches = self.course.pattern.matches(&mut self.incoming, data);
        if !matches || self.course.is_bare() {
            let is_first = self.answered == 0 && self.partial == 0;
            let alert = is_first.then(|| alert(data)).flatten();
            let problem = alert.unwrap_or("the echo differs from what was sent");
            return Err(ProtocolError::malformed(problem));
        }

        let complete = self.complete(data.len());
        self.answered(complete, transport);
        Ok(data.len())
    }

    /// Called when the load begins or a message is due.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        let now = (self.course.time)(transport);
        self.advance(now, transport);
    }

    /// Called when the load is over.
    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        if let Some(over) = self.course.over.get() {
            self.account_missing(over);
        }

        transport.close();
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let reason = ended.reason();
        let is_end = matches!(
            reason,
            CloseReason::Closed | CloseReason::PeerClosed | CloseReason::Truncated
        );
        if self.course.is_bare() && self.sent > 0 && is_end {
            return self.count_connection(Instant::now());
        }
        let expected = self.course.over.get().is_some()
            || (matches!(reason, CloseReason::Closed) && self.course.churn);
        if !expected {
            let mut tally = self.course.tally.borrow_mut();
            tally.fail(|| self.failure(reason));
        }
    }
}

/// Returns what is wrong if `data` is what a server sends that expects TLS.
fn alert(data: &[u8]) -> Option<&'static str> {
    data.starts_with(&TLS_ALERT)
        .then_some("the server answers with an alert of TLS, which tls:// speaks")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serveloop::testing::MemorySession;

    use super::*;
    use crate::load::scenario::Shape;

    const MILLI: Duration = Duration::from_millis(1);

    fn course(size: usize, depth: usize) -> Rc<Course> {
        Rc::new(Course {
            pattern: Pattern::new(size, Shape::Plain),
            size,
            talk: None,
            owed: Cell::new(0),
            depth,
            churn: false,
            active: 1,
            stride: 1,
            budget: Cell::new(u64::MAX),
            schedule: Cell::new(None),
            over: Cell::new(None),
            tally: RefCell::new(Tally::new()),
            wakers: RefCell::default(),
            secured: None,
            explain: CloseReason::to_string,
            time: |transport| transport.now(),
        })
    }

    /// Returns a client whose visit is over.
    fn settled(course: &Rc<Course>) -> MemorySession<Client> {
        let mut session = MemorySession::new(Client::new(course, 0, Instant::now()));
        let visit = session.sent();
        assert_eq!(visit.len(), course.size);
        session.receive(&visit);
        assert_eq!(course.tally.borrow().settled, 1);
        assert!(session.sent().is_empty());
        session
    }

    fn wake(course: &Course, session: &mut MemorySession<Client>) {
        course.wakers.borrow()[0].1.wake();
        session.run();
    }

    #[test]
    fn so_many_messages_as_the_depth_says_are_under_way() {
        let course = course(10, 3);
        let mut session = settled(&course);
        wake(&course, &mut session);
        let under_way = session.sent();
        assert_eq!(under_way.len(), 30);

        session.advance(MILLI);
        session.receive(&under_way[..25]);
        assert_eq!(course.tally.borrow().messages, 2);
        assert_eq!(session.sent().len(), 20);

        session.advance(MILLI);
        session.receive(&under_way[25..]);
        let tally = course.tally.borrow();
        assert_eq!(tally.messages, 3);
        assert!((tally.latency().p50 - 1_000.0).abs() < 2.0);
        assert!((tally.latency().max - 2_000.0).abs() < 3.0);
    }

    #[test]
    fn active_connections_are_spread_out() {
        let active = |active, stride, total| {
            let mut course = Rc::into_inner(course(10, 1)).unwrap();
            (course.active, course.stride) = (active, stride);
            let ranks = (0..total).map(|number| course.rank(number));
            ranks
                .map(|rank| rank.map_or("-".to_owned(), |rank| rank.to_string()))
                .collect::<String>()
        };
        assert_eq!(active(3, 1, 3), "012");
        assert_eq!(active(2, 3, 7), "0--1---");
    }

    #[test]
    fn a_wrong_byte_fails_the_run() {
        let course = course(10, 1);
        let mut session = settled(&course);
        wake(&course, &mut session);
        let mut echo = session.sent();
        echo[9] ^= 1;
        session.receive(&echo);
        let failure = course.tally.borrow().failure.clone().unwrap();
        assert!(
            failure.contains("the echo differs from what was sent"),
            "{failure}"
        );
    }

    #[test]
    fn an_early_end_fails_the_run() {
        let course = course(10, 1);
        let mut session = settled(&course);
        session.receive_eof();
        let failure = course.tally.borrow().failure.clone().unwrap();
        assert_eq!(failure, "connection 1: closed by the peer");
    }

    #[test]
    fn a_budget_ends_the_sending() {
        let course = course(10, 4);
        let mut session = settled(&course);
        course.budget.set(6);
        wake(&course, &mut session);
        let echo = session.sent();
        assert_eq!(echo.len(), 40);
        session.receive(&echo);

        let echo = session.sent();
        assert_eq!(echo.len(), 20);
        session.receive(&echo);
        assert!(session.sent().is_empty());
        assert_eq!(course.tally.borrow().messages, 6);
    }

    /// The server answers within a millisecond, except for one stall of 100 ms in a second. One
    /// message in ten of 1,000 waits, though only one is in flight when the stall begins.
    #[test]
    fn a_stall_is_counted_for_every_message_that_it_delays() {
        let course = course(10, 1);
        let mut session = settled(&course);
        let schedule = Schedule::new(session.now(), 1_000, 1);
        course.schedule.set(Some(schedule));

        let mut owed = Vec::new();

        for millis in 0..1_000 {
            wake(&course, &mut session);
            owed.extend(session.sent());
            session.advance(MILLI / 2);
            let stalled = (500..600).contains(&millis);
            while !stalled && !owed.is_empty() {
                session.receive(&owed);
                owed = session.sent();
            }
            session.advance(MILLI / 2);
        }
        let tally = course.tally.borrow();
        assert_eq!(tally.messages, 1_000);
        let latency = tally.latency();
        assert!((latency.p50 - 500.0).abs() < 5.0, "{latency:?}");
        assert!(latency.p99 > 85_000.0, "{latency:?}");
        assert!((latency.max - 100_500.0).abs() < 200.0, "{latency:?}");
    }

    #[test]
    fn messages_that_never_came_back_are_counted_at_the_end() {
        let course = course(10, 1);
        let mut session = settled(&course);
        course
            .schedule
            .set(Some(Schedule::new(session.now(), 1_000, 1)));
        wake(&course, &mut session);
        session.advance(Duration::from_millis(99));
        course.over.set(Some(session.now()));
        session.shutdown();

        let tally = course.tally.borrow();
        assert_eq!(tally.messages, 0);
        let latency = tally.latency();
        assert!((latency.max - 99_000.0).abs() < 100.0, "{latency:?}");
        assert!((latency.p50 - 49_000.0).abs() < 1_100.0, "{latency:?}");
    }
}
