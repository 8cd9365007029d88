//! The requests and connections of an upstream, and what is to be done for them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::service::dialer::Dial;
use crate::service::upstream::reply::{Asker, Told};
use crate::service::upstream::{Backoff, UpstreamError, UpstreamLimits};
use crate::session::Outbox;
use crate::waker::Waker;

pub(super) struct State<A> {
    limits: UpstreamLimits,
    waiting: VecDeque<Waiting<A>>,
    /// How many bytes of requests wait.
    bytes: usize,
    next_request: u64,
    connections: BTreeMap<u64, Connection<A>>,
    next_connection: u64,
    backoff: Backoff,
    retry: Retry,
    is_closed: bool,
}

/// A request that was not written.
struct Waiting<A> {
    number: u64,
    data: Vec<u8>,
    request: Request<A>,
}

struct Request<A> {
    asker: Option<Asker<A>>,
    /// When it was asked, as soon as the loop has said what time it is.
    asked: Option<Instant>,
}

/// A connection, from when it is asked for until its link is dropped.
struct Connection<A> {
    /// While it is being established.
    dial: Option<Dial>,
    /// When it can be used.
    contact: Option<Contact>,
    in_flight: VecDeque<Request<A>>,
    idle_since: Option<Instant>,
    /// We are closing it.
    is_over: bool,
    /// It is being aborted, because it has not answered in time.
    is_given_up: bool,
}

/// How a connection's session is reached.
pub(super) struct Contact {
    pub(super) waker: Waker,
    pub(super) outbox: Outbox,
}

/// Whether connecting again has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Nothing has failed since a connection was ready.
    Never,
    /// A connection was lost, and the delay begins when the loop says what time it is.
    Soon,
    At(Instant),
    /// The delay is over. One connection is tried at a time.
    Now,
}

/// What the loop is to do.
pub(super) struct Work<A> {
    pub(super) told: Told<A>,
    /// The numbers of connections to be opened.
    pub(super) dials: Vec<u64>,
    /// When there is more to do.
    pub(super) next: Option<Instant>,
}

impl<A> Request<A> {
    /// Returns when the request has taken too long.
    fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        self.asked?.checked_add(timeout?)
    }

    fn is_late(&self, timeout: Option<Duration>, now: Instant) -> bool {
        self.deadline(timeout).is_some_and(|at| at <= now)
    }
}

impl<A> Connection<A> {
    fn new() -> Self {
        Self {
            dial: None,
            contact: None,
            in_flight: VecDeque::new(),
            idle_since: None,
            is_over: false,
            is_given_up: false,
        }
    }

    fn is_ready(&self) -> bool {
        self.contact.is_some() && !self.is_over && !self.is_given_up
    }

    fn has_room(&self, most: usize) -> bool {
        self.is_ready() && self.in_flight.len() < most.max(1)
    }

    /// Closes the connection after what is in its output.
    fn close(&mut self) {
        self.is_over = true;
        self.dial = None;
        if let Some(contact) = &self.contact {
            contact.outbox.close();
        }
    }

    /// Ends the connection, and answers what is in flight behind a request that has taken too long: what
    /// still comes could not be told from the answer to another request.
    fn give_up(&mut self, told: &mut Told<A>) {
        self.is_given_up = true;
        if let Some(contact) = &self.contact {
            contact.outbox.abort();
        }
        for request in self.in_flight.drain(..) {
            told.push(request.asker, Err(UpstreamError::Lost));
        }
    }
}

impl<A> State<A> {
    pub(super) fn new(limits: UpstreamLimits) -> Self {
        let (first, most) = (limits.first_delay, limits.max_delay);
        let backoff = match limits.seed {
            Some(seed) => Backoff::with_seed(first, most, seed),
            None => Backoff::new(first, most),
        };
        Self {
            limits,
            waiting: VecDeque::new(),
            bytes: 0,
            next_request: 0,
            connections: BTreeMap::new(),
            next_connection: 0,
            backoff,
            retry: Retry::Never,
            is_closed: false,
        }
    }

    /// Adds a request. Returns its number, and the waker of a connection that has room for it.
    pub(super) fn put(
        &mut self,
        data: Vec<u8>,
        asker: Option<Asker<A>>,
    ) -> Result<(u64, Option<Waker>), UpstreamError> {
        if self.is_closed {
            return Err(UpstreamError::Closed);
        }
        let bytes = self.bytes.saturating_add(data.len());
        let is_first = self.waiting.is_empty();
        let fits =
            self.waiting.len() < self.limits.max_waiting && bytes <= self.limits.max_waiting_bytes;
        if !fits && !is_first {
            return Err(UpstreamError::Full);
        }

        let number = self.next_request;
        self.next_request += 1;
        self.bytes = bytes;
        let request = Request { asker, asked: None };
        self.waiting.push_back(Waiting {
            number,
            data,
            request,
        });

        let most = self.limits.max_in_flight;
        let free = self.connections.values().filter(|it| it.has_room(most));
        let freest = free.min_by_key(|it| it.in_flight.len());
        let waker = freest.and_then(|it| Some(it.contact.as_ref()?.waker.clone()));
        Ok((number, waker))
    }

    /// Drops a request that was not written.
    pub(super) fn cancel(&mut self, number: u64) -> Option<(Vec<u8>, Option<Asker<A>>)> {
        let place = self.waiting.binary_search_by_key(&number, |it| it.number);
        let dropped = self.waiting.remove(place.ok()?)?;
        self.bytes -= dropped.data.len();
        Some((dropped.data, dropped.request.asker))
    }

    /// Takes a request for a connection to write.
    pub(super) fn take(&mut self, number: u64) -> Option<Vec<u8>> {
        let connection = self.connections.get_mut(&number)?;
        if !connection.has_room(self.limits.max_in_flight) {
            return None;
        }
        let Waiting { data, request, .. } = self.waiting.pop_front()?;
        self.bytes -= data.len();
        connection.idle_since = None;
        connection.in_flight.push_back(request);
        Some(data)
    }

    /// Answers the first request in flight. Returns also whether the loop has something to do for it.
    pub(super) fn answer(&mut self, number: u64, answer: A) -> Option<(Told<A>, bool)> {
        let connection = self.connections.get_mut(&number)?;
        let request = connection.in_flight.pop_front()?;
        let mut told = Told::new();
        told.push(request.asker, Ok(answer));

        let is_idle = connection.in_flight.is_empty() && self.waiting.is_empty();
        let is_extra = self.connections.len() > self.limits.min_connections;
        Some((told, is_idle && (is_extra || self.is_closed)))
    }

    /// Notes that a connection can be used.
    pub(super) fn set_ready(&mut self, number: u64, contact: Contact) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return contact.outbox.close();
        };
        connection.dial = None;
        if connection.is_given_up {
            // The abort is on its way to the session already.
            return;
        }
        connection.contact = Some(contact);
        if connection.is_over {
            return connection.close();
        }
        self.backoff.reset();
        self.retry = Retry::Never;
    }

    /// Keeps the right to cancel a connection that is being established.
    pub(super) fn keep(&mut self, number: u64, dial: Dial) {
        let connection = self.connections.get_mut(&number);
        match connection.filter(|it| it.contact.is_none()) {
            Some(connection) => connection.dial = Some(dial),
            // Established or lost meanwhile.
            None => dial.detach(),
        }
    }

    /// Removes a connection whose link was dropped.
    pub(super) fn lose(&mut self, number: u64) -> Told<A> {
        let mut told = Told::new();
        let Some(connection) = self.connections.remove(&number) else {
            return told;
        };
        for request in connection.in_flight {
            told.push(request.asker, Err(UpstreamError::Lost));
        }
        if let Some(dial) = connection.dial {
            dial.detach();
        }
        if !connection.is_over {
            self.retry = Retry::Soon;
        }
        told
    }

    /// Refuses further requests, and answers those that wait.
    pub(super) fn close(&mut self) -> Told<A> {
        self.is_closed = true;
        self.bytes = 0;
        let mut told = Told::new();
        for waiting in self.waiting.drain(..) {
            told.push(waiting.request.asker, Err(UpstreamError::Closed));
        }
        told
    }

    pub(super) fn ready(&self) -> usize {
        let ready = self.connections.values().filter(|it| it.is_ready());
        ready.count()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.connections.values().map(|it| it.in_flight.len()).sum()
    }

    pub(super) fn in_flight_of(&self, number: u64) -> usize {
        self.connections
            .get(&number)
            .map_or(0, |it| it.in_flight.len())
    }
}

/// What the loop does.
impl<A> State<A> {
    /// Does what time and news require, and returns what is left for the loop.
    pub(super) fn run(&mut self, now: Instant) -> Work<A> {
        self.note_time(now);
        let mut told = Told::new();
        self.expire(now, &mut told);
        let idle = if self.is_closed {
            self.close_idle();
            None
        } else {
            self.retire(now)
        };

        let dials = self.dials(now);
        let retry = match self.retry {
            Retry::At(at) if self.wanted() > self.live() => Some(at),
            _ => None,
        };
        let next = [idle, retry, self.next_deadline()];
        Work {
            told,
            dials,
            next: next.into_iter().flatten().min(),
        }
    }

    /// Notes when requests were asked.
    fn note_time(&mut self, now: Instant) {
        let waiting = self.waiting.iter_mut().map(|it| &mut it.request);
        let fresh = waiting.rev().take_while(|it| it.asked.is_none());
        fresh.for_each(|it| it.asked = Some(now));

        for connection in self.connections.values_mut() {
            let in_flight = connection.in_flight.iter_mut().rev();
            let fresh = in_flight.take_while(|it| it.asked.is_none());
            fresh.for_each(|it| it.asked = Some(now));
        }
    }

    /// Answers requests that have taken too long, and ends connections that have not answered.
    fn expire(&mut self, now: Instant, told: &mut Told<A>) {
        let timeout = self.limits.request_timeout;
        let late = self.waiting.iter().map(|it| &it.request);
        let late = late.take_while(|it| it.is_late(timeout, now)).count();
        for waiting in self.waiting.drain(..late) {
            self.bytes -= waiting.data.len();
            told.push(waiting.request.asker, Err(UpstreamError::TimedOut));
        }

        for connection in self.connections.values_mut() {
            let late = connection.in_flight.iter();
            let late = late.take_while(|it| it.is_late(timeout, now)).count();
            for request in connection.in_flight.drain(..late) {
                told.push(request.asker, Err(UpstreamError::TimedOut));
            }
            if late > 0 {
                connection.give_up(told);
            }
        }
    }

    /// Closes connections that are not needed. Returns when another one may not be needed any more.
    fn retire(&mut self, now: Instant) -> Option<Instant> {
        let mut extra = self.live().saturating_sub(self.limits.min_connections);
        let timeout = self.limits.idle_timeout?;
        if !self.waiting.is_empty() {
            return None;
        }

        let mut next = None;
        for connection in self.connections.values_mut() {
            if extra == 0 || !connection.is_ready() || !connection.in_flight.is_empty() {
                continue;
            }
            extra -= 1;
            let at = connection
                .idle_since
                .get_or_insert(now)
                .checked_add(timeout);
            if at.is_some_and(|at| at <= now) {
                connection.close();
            } else {
                next = next.into_iter().chain(at).min();
            }
        }
        next
    }

    /// Closes the connections of a closed upstream that have nothing left to do.
    fn close_idle(&mut self) {
        let open = self.connections.values_mut().filter(|it| !it.is_over);
        open.filter(|it| it.in_flight.is_empty())
            .for_each(Connection::close);
    }

    /// Adds the connections that are to be opened now, and returns their numbers.
    fn dials(&mut self, now: Instant) -> Vec<u64> {
        match self.retry {
            Retry::Soon => {
                let at = now.checked_add(self.backoff.next_delay());
                self.retry = at.map_or(Retry::Soon, Retry::At);
            }
            Retry::At(at) if at <= now => self.retry = Retry::Now,
            _ => {}
        }

        let missing = self.wanted().saturating_sub(self.live());
        let count = match self.retry {
            Retry::Never => missing,
            // One at a time finds out whether the peer is there again.
            Retry::Now => missing.min(usize::from(self.live() == self.ready())),
            Retry::Soon | Retry::At(_) => 0,
        };

        let first = self.next_connection;
        self.next_connection += count as u64;
        let numbers: Vec<u64> = (first..self.next_connection).collect();
        for number in &numbers {
            self.connections.insert(*number, Connection::new());
        }
        numbers
    }

    /// Returns how many connections there are, without those that are being closed.
    fn live(&self) -> usize {
        self.connections.values().filter(|it| !it.is_over).count()
    }

    /// Returns how many connections there should be.
    fn wanted(&self) -> usize {
        if self.is_closed {
            return 0;
        }
        let most = self.limits.max_in_flight.max(1);
        let least = self.limits.min_connections;
        let has_room = self.connections.values().any(|it| it.has_room(most));
        let for_requests = match has_room || self.waiting.is_empty() {
            true => 0,
            false => self.ready() + self.waiting.len().div_ceil(most),
        };
        for_requests
            .min(self.limits.max_connections.max(1))
            .max(least)
    }

    /// Returns when the first request has taken too long.
    fn next_deadline(&self) -> Option<Instant> {
        let timeout = self.limits.request_timeout;
        let waiting = self.waiting.front().map(|it| &it.request);
        let in_flight = self
            .connections
            .values()
            .filter_map(|it| it.in_flight.front());
        let first = waiting.into_iter().chain(in_flight);
        first.filter_map(|it| it.deadline(timeout)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::address::Peer;
    use crate::config::Config;
    use crate::error::Result;
    use crate::session::{Clock, Context, Protocol, Session, Transport};
    use crate::waker::Mailbox;
    use crate::waker::sync::{Mutex, lock};

    type Outcome = Arc<Mutex<Option<std::result::Result<&'static str, UpstreamError>>>>;

    /// Keeps how its session is reached.
    struct Kept(Arc<Mutex<Option<Contact>>>);

    impl Protocol for Kept {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
            *lock(&self.0) = Some(Contact {
                waker: transport.waker(),
                outbox: transport.outbox(),
            });
            Ok(())
        }

        fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
            Ok(data.len())
        }
    }

    fn contact() -> Contact {
        let (clock, config) = (Clock::new(Instant::now()), Config::default());
        let mailbox = Mailbox::new(Box::new(|| ()));
        let context = Context::new(&clock, &config, &mailbox, 0);
        let peer = Peer::new("tcp://192.0.2.1:5".parse().unwrap(), None);
        let kept = Arc::default();
        let mut session = Session::new(Kept(Arc::clone(&kept)), peer, clock.tick());
        session.handle_open(&context);
        let contact = lock(&kept).take();
        contact.expect("the session has begun")
    }

    /// Puts a request, has connection 0 write it, and returns where its answer comes.
    fn asked(state: &mut State<&'static str>, now: Instant) -> Outcome {
        let (asker, outcome) = Asker::new(|| ());
        state.put(b"?".to_vec(), Some(asker)).unwrap();
        assert!(state.take(0).is_some());
        state.run(now).told.deliver();
        outcome
    }

    #[test]
    fn the_answer_to_a_late_request_is_given_to_no_other() {
        let mut state = State::new(UpstreamLimits {
            max_in_flight: 2,
            seed: Some(1),
            ..UpstreamLimits::default()
        });
        let began = Instant::now();
        assert_eq!(state.run(began).dials, [0]);
        state.set_ready(0, contact());
        let late = asked(&mut state, began);
        let next = asked(&mut state, began + Duration::from_secs(1));

        state.run(began + Duration::from_secs(10)).told.deliver();
        assert!(state.answer(0, "an answer to the late request").is_none());
        assert_eq!(lock(&late).take(), Some(Err(UpstreamError::TimedOut)));
        assert_eq!(lock(&next).take(), Some(Err(UpstreamError::Lost)));

        // Its protocol may say that it is ready before it hears of the abort.
        state.set_ready(0, contact());
        assert_eq!((state.ready(), state.in_flight()), (0, 0));
        state.put(b"?".to_vec(), None).unwrap();
        assert!(state.take(0).is_none());

        state.lose(0).deliver();
        assert_eq!((lock(&late).take(), lock(&next).take()), (None, None));
    }
}
