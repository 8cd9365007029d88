//! One connection of a fan-out: the publisher, or a subscriber.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{io, process};

use serveloop::{CloseReason, Ended, Protocol, ProtocolError, Transport, Waker};

use crate::fan_out::Deliveries;
use crate::fan_out::room::Room;
use crate::load::Scenario;
use crate::load::tally::Tally;

/// What a message begins with, before the number of this process.
const MARK: u8 = b'@';
/// The digits of a number in a message.
const DIGITS: usize = 16;
/// How long a mark with the number of the process is.
const MARKER: usize = 9;
/// The least size of a message: the mark, its number, the moment, and two spaces.
pub(super) const LEAST: usize = MARKER + 2 * (1 + DIGITS);
/// How often a silent client shows that it is there.
const BEAT: Duration = Duration::from_secs(10);

/// What all members share.
#[derive(Debug)]
pub(super) struct Shared {
    room: Room,
    marker: Vec<u8>,
    /// What follows the numbers.
    padding: Vec<u8>,
    subscribers: usize,
    start: Instant,
    /// How many connections are ready.
    pub(super) established: Cell<usize>,
    /// How many subscribers have had something.
    pub(super) heard: Cell<usize>,
    /// How many messages may have been published by now.
    pub(super) allowed: Cell<u64>,
    pub(super) published: Cell<u64>,
    /// Every subscriber is past the messages before this one.
    pub(super) oldest: Cell<u64>,
    pub(super) publisher: RefCell<Option<Waker>>,
    pub(super) told: RefCell<Told>,
    /// Why the run is invalid, if it is.
    pub(super) failure: RefCell<Option<String>>,
}

/// What has arrived.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) tally: Tally,
    /// How many deliveries there were from the beginning.
    pub(super) total: u64,
    deliveries: Deliveries,
    /// For each message from the oldest on, how many subscribers are past it.
    past: VecDeque<usize>,
}

impl Shared {
    pub(super) fn new(room: &Room, scenario: &Scenario) -> io::Result<Self> {
        let Some(rest) = scenario.size.checked_sub(LEAST) else {
            let problem = format!("a message for all has at least {LEAST} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        let mut padding: Vec<u8> = (b'a'..=b'z').cycle().take(rest).collect();
        if let Some(first) = padding.first_mut() {
            *first = b' ';
        }
        Ok(Self {
            room: room.clone(),
            marker: format!("{}{:08x}", char::from(MARK), process::id()).into_bytes(),
            padding,
            subscribers: scenario.connections,
            start: Instant::now(),
            established: Cell::new(0),
            heard: Cell::new(0),
            allowed: Cell::new(0),
            published: Cell::new(0),
            oldest: Cell::new(0),
            publisher: RefCell::default(),
            told: RefCell::new(Told {
                tally: Tally::new(),
                total: 0,
                deliveries: Deliveries::default(),
                past: VecDeque::new(),
            }),
            failure: RefCell::default(),
        })
    }

    /// Returns whether all that was published has arrived everywhere.
    pub(super) fn is_complete(&self) -> bool {
        self.oldest.get() == self.published.get()
    }

    /// Returns what became of all messages, of which none is under way any more.
    pub(super) fn deliveries(&self) -> Deliveries {
        let told = self.told.borrow();
        let mut deliveries = told.deliveries;
        let missing = self.published.get() - self.oldest.get();
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        let subscribers = self.subscribers as u64;
        deliveries.lost += (0..missing)
            .map(|place| subscribers - told.past.get(place).map_or(0, |past| *past as u64))
            .sum::<u64>();
        deliveries
    }

    fn text(&self, number: u64) -> Vec<u8> {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let numbers = format!(" {number:016x} {nanos:016x}");
        [&self.marker[..], numbers.as_bytes(), &self.padding].concat()
    }

    /// Parses a message. Returns its number, and when it was published.
    fn parse(&self, text: &[u8]) -> Option<(u64, Duration)> {
        let numbers = text.get(MARKER..LEAST)?;
        let numbers = str::from_utf8(numbers).ok()?;
        let number = |from: usize| {
            let digits = numbers.get(from..from + DIGITS)?;
            u64::from_str_radix(digits, 16).ok()
        };
        let is_whole = numbers.starts_with(' ') && text[LEAST..] == self.padding;
        let (number, nanos) = (number(1)?, number(2 + DIGITS)?);
        is_whole.then_some((number, Duration::from_nanos(nanos)))
    }

    fn fail(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
    }
}

impl Told {
    /// Forgets what was counted for the figures.
    pub(super) fn reset(&mut self) {
        self.tally.reset();
    }
}

#[derive(Debug)]
pub(super) struct Member {
    shared: Rc<Shared>,
    /// The publisher is number 0.
    number: usize,
    /// The number of the message that comes next, once one has come.
    next: Option<u64>,
    is_ready: bool,
    beat: Option<Instant>,
    explain: fn(&CloseReason) -> String,
}

impl Member {
    pub(super) fn new(
        shared: &Rc<Shared>,
        number: usize,
        explain: fn(&CloseReason) -> String,
    ) -> Self {
        Self {
            shared: Rc::clone(shared),
            number,
            next: None,
            is_ready: false,
            beat: None,
            explain,
        }
    }

    fn is_publisher(&self) -> bool {
        self.number == 0
    }

    /// Takes note that the server knows this member.
    fn ready(&mut self, transport: &Transport<'_>) {
        self.is_ready = true;
        let shared = &self.shared;
        shared.established.set(shared.established.get() + 1);
        if self.is_publisher() {
            *shared.publisher.borrow_mut() = Some(transport.waker());
        }
        let sign = shared.room.sign_of_life();
        self.beat = sign.map(|_| transport.now() + BEAT);
    }

    /// Publishes what is allowed and finds room.
    fn publish(&self, transport: &mut Transport<'_>) {
        let shared = &self.shared;
        while shared.published.get() < shared.allowed.get() && !transport.is_full() {
            let number = shared.published.get();
            shared.published.set(number + 1);
            transport.write(&shared.room.publishing(&shared.text(number)));
        }
    }

    /// Takes all messages out of what has arrived. Returns how much of it is done with.
    fn take(&mut self, data: &[u8]) -> Result<usize, ProtocolError> {
        let size = LEAST + self.shared.padding.len();
        let now = self.shared.start.elapsed();
        let mut taken = 0;
        while let Some(at) = data[taken..].iter().position(|byte| *byte == MARK) {
            let rest = &data[taken + at..];
            let known = rest.len().min(MARKER);
            if rest[..known] != self.shared.marker[..known] {
                taken += at + 1;
                continue;
            }
            let Some(text) = rest.get(..size) else {
                return Ok(taken + at);
            };
            let Some((number, since)) = self.shared.parse(text) else {
                let problem = format!("subscriber {}: a message arrived changed", self.number);
                self.shared.fail(problem);
                return Err(ProtocolError::malformed("a message arrived changed"));
            };
            self.count(number, now.saturating_sub(since));
            taken += at + size;
        }
        Ok(data.len())
    }

    /// Counts a delivery.
    fn count(&mut self, number: u64, time: Duration) {
        let shared = &self.shared;
        let mut told = shared.told.borrow_mut();
        told.tally.record(time);
        told.total += 1;

        let next = self.next.unwrap_or_else(|| {
            shared.heard.set(shared.heard.get() + 1);
            number
        });
        if number < next {
            told.deliveries.reordered += 1;
            // It was taken for a lost one.
            told.deliveries.lost = told.deliveries.lost.saturating_sub(1);
            return;
        }
        told.deliveries.lost += number - next;

        // What came before the first one was not for this subscriber.
        let from = self
            .next
            .unwrap_or(shared.oldest.get())
            .max(shared.oldest.get());
        self.next = Some(number + 1);
        for message in from..=number {
            let place = usize::try_from(message - shared.oldest.get()).unwrap_or(0);
            if told.past.len() <= place {
                told.past.resize(place + 1, 0);
            }
            told.past[place] += 1;
        }
        while told.past.front() == Some(&shared.subscribers) {
            told.past.pop_front();
            shared.oldest.set(shared.oldest.get() + 1);
        }
    }
}

impl Protocol for Member {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let opening = self.shared.room.opening(self.is_publisher());
        transport.write(&opening.map_err(ProtocolError::malformed)?);
        if let Ok(Some(0)) = self.shared.room.opened(b"") {
            self.ready(transport);
        }
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if !self.is_ready {
            let opened = self.shared.room.opened(data);
            let opened = opened.map_err(ProtocolError::malformed)?;
            if opened.is_some() {
                self.ready(transport);
            }
            return Ok(opened.unwrap_or(0));
        }
        match self.is_publisher() {
            true => Ok(data.len()),
            false => self.take(data),
        }
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        if self.is_publisher() && self.is_ready {
            self.publish(transport);
        }
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.publish(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.beat
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        if let Some(sign) = self.shared.room.sign_of_life() {
            transport.write(&sign);
        }
        self.beat = Some(transport.now() + BEAT);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let why = (self.explain)(ended.reason());
        let who = match self.number {
            0 => "the publisher".to_owned(),
            number => format!("subscriber {number}"),
        };
        self.shared.fail(format!("{who}: {why}"));
    }
}
