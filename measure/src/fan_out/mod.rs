//! A load in which one client publishes and all others are sent what it says.

mod member;
mod room;

pub use self::room::Room;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serveloop::protocols::counted;
use serveloop::{Address, Config, Limits, Peer, Reactor};

use crate::fan_out::member::{LEAST, Member, Shared};
use crate::load::{Latency, Pace, Scenario, Terms};

/// The longest wait of a turn, which bounds how late the end and silence are noticed.
const STEP: Duration = Duration::from_millis(20);
/// The most connections being opened at a time.
const OPENING_MOST: usize = 64;
/// How long nothing may arrive before what is missing counts as lost.
const QUIET: Duration = Duration::from_secs(1);
/// How often something is published while not all have joined.
const PROBING: Duration = Duration::from_millis(20);
/// Room for more than the messages under way, in bytes.
const ROOM: usize = 1 << 20;

type Nobody = fn(&Peer) -> Option<Member>;

/// What became of messages on their way to subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Messages that never came, each counted for every subscriber that missed it.
    pub lost: u64,
    /// Messages that came after a later one, or twice.
    pub reordered: u64,
}

/// A publisher and its subscribers.
///
/// A closed load publishes the next message when all subscribers have had the one that is `depth` before
/// it, an open one at its rate. What counts are deliveries: one message for one subscriber.
#[derive(Debug)]
pub struct FanOut<'a> {
    reactor: Reactor<Nobody>,
    shared: Rc<Shared>,
    scenario: Scenario,
    addresses: Vec<Address>,
    terms: Terms<'a>,
    opened: usize,
}

impl<'a> FanOut<'a> {
    /// The least size of a message, which has a number and a moment.
    pub const SIZE_LEAST: usize = LEAST;

    /// Prepares the load. No connection is opened yet.
    ///
    /// # Errors
    /// Fails if the messages are too short for what they have to say, or if the system has no descriptor
    /// for the poller.
    pub fn new(
        room: &Room,
        scenario: &Scenario,
        addresses: Vec<Address>,
        terms: Terms<'a>,
    ) -> io::Result<Self> {
        let shared = Shared::new(room, scenario)?;
        let under_way = scenario.size.saturating_mul(2 * scenario.depth) + ROOM;
        let usual = Config::trusted();
        let config = Config {
            max_connections: scenario.connections + OPENING_MOST,
            max_buffered: usual.max_buffered.max(under_way.saturating_mul(4)),
            connect_timeout: Some(terms.patience),
            limits: Limits {
                max_output: under_way,
                high_water: under_way / 2,
                low_water: under_way / 4,
                write_timeout: None,
                linger_timeout: None,
                ..usual.limits
            },
            ..usual
        };
        Ok(Self {
            reactor: Reactor::new((|_| None) as Nobody, config)?,
            shared: Rc::new(shared),
            scenario: *scenario,
            addresses,
            terms,
            opened: 0,
        })
    }

    /// Opens all connections, and publishes until every subscriber has had something.
    ///
    /// # Errors
    /// Fails if a connection fails, if a subscriber gets nothing in time, or after a signal.
    pub fn settle(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let mut probed = begun;
        // The publisher comes first, and is one more.
        let total = self.scenario.connections + 1;
        while self.shared.heard.get() < self.scenario.connections {
            let established = self.shared.established.get();
            while self.opened < total && self.opened - established < OPENING_MOST {
                self.open();
            }
            if established == total && probed.elapsed() >= PROBING {
                probed = Instant::now();
                self.shared.allowed.set(self.shared.allowed.get() + 1);
                self.wake();
            }
            self.turn(STEP)?;
            if begun.elapsed() > self.terms.patience {
                let missing = self.scenario.connections - self.shared.heard.get();
                let missing = counted(missing, "subscriber has", "subscribers have");
                let patience = humantime::format_duration(self.terms.patience);
                let problem = format!("{missing} been sent nothing after {patience}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
        }
        self.await_quiet(PROBING)
    }

    /// Publishes for `duration`.
    ///
    /// # Errors
    /// Fails if a connection fails, if nothing arrives in time, or after a signal.
    pub fn run(&mut self, duration: Duration) -> io::Result<()> {
        let start = Instant::now();
        let already = self.shared.published.get();
        let mut progress = (0, start);
        loop {
            let now = Instant::now();
            let elapsed = now - start;
            if elapsed >= duration {
                return Ok(());
            }
            self.allow(already, elapsed);
            self.turn(self.pause().min(duration - elapsed))?;

            let count = self.shared.told.borrow().total;
            if count != progress.0 {
                progress = (count, now);
            } else if now - progress.1 > self.terms.patience {
                return Err(self.silence());
            }
        }
    }

    fn silence(&self) -> io::Error {
        let patience = humantime::format_duration(self.terms.patience);
        let problem = format!("nothing that was published arrived for {patience}");
        io::Error::new(io::ErrorKind::TimedOut, problem)
    }

    /// Counts deliveries for `duration`, and then until there was at least one. Returns how long that took.
    ///
    /// # Errors
    /// The same as for [`run`](Self::run).
    pub fn measure(&mut self, duration: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        self.shared.told.borrow_mut().reset();
        self.run(duration)?;
        while self.deliveries() == 0 {
            if start.elapsed() > duration + self.terms.patience {
                return Err(self.silence());
            }
            self.run(STEP)?;
        }
        Ok(start.elapsed())
    }

    /// Publishes no more, waits for what is under way, and counts what is missing as lost.
    ///
    /// # Errors
    /// Fails if a connection fails, or after a signal.
    pub fn finish(&mut self) -> io::Result<Deliveries> {
        self.shared.allowed.set(self.shared.published.get());
        self.await_quiet(QUIET)?;
        Ok(self.shared.deliveries())
    }

    /// Returns how many deliveries have been made since the count was last reset.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.shared.told.borrow().tally.messages
    }

    /// Returns how long they took.
    #[must_use]
    pub fn latency(&self) -> Latency {
        self.shared.told.borrow().tally.latency()
    }

    /// Waits until all that was published has arrived, or nothing has for `quiet`.
    fn await_quiet(&mut self, quiet: Duration) -> io::Result<()> {
        let mut progress = (u64::MAX, Instant::now());
        while !self.shared.is_complete() {
            let count = self.shared.told.borrow().total;
            if count != progress.0 {
                progress = (count, Instant::now());
            } else if progress.1.elapsed() > quiet {
                return Ok(());
            }
            self.turn(STEP.min(quiet))?;
        }
        Ok(())
    }

    /// Lets the publisher go on as far as the pace says.
    fn allow(&self, already: u64, elapsed: Duration) {
        let allowed = match self.scenario.pace {
            Pace::Open(rate) => {
                let due = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
                already + u64::try_from(due).unwrap_or(u64::MAX)
            }
            Pace::Closed | Pace::Churn => self.shared.oldest.get() + self.scenario.depth as u64,
        };
        if allowed > self.shared.allowed.get() {
            self.shared.allowed.set(allowed);
            self.wake();
        }
    }

    /// Returns how long the loop may sleep.
    fn pause(&self) -> Duration {
        match self.scenario.pace {
            Pace::Open(rate) => {
                STEP.min(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX))
            }
            Pace::Closed | Pace::Churn => STEP,
        }
    }

    fn wake(&self) {
        if let Some(publisher) = &*self.shared.publisher.borrow() {
            publisher.wake();
        }
    }

    fn open(&mut self) {
        let address = self.addresses[self.opened % self.addresses.len()].clone();
        let member = Member::new(&self.shared, self.opened, self.terms.explain);
        self.reactor.connect(address, member);
        self.opened += 1;
    }

    fn turn(&mut self, most: Duration) -> io::Result<()> {
        self.terms.interrupt.check()?;
        self.reactor.turn(Some(most))?;
        match self.shared.failure.take() {
            Some(failure) => Err(io::Error::other(failure)),
            None => Ok(()),
        }
    }
}
