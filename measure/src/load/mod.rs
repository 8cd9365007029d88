//! The load generator: many clients on one loop.

mod client;
#[cfg_attr(not(feature = "tls"), path = "uncounted.rs")]
mod counted;
pub(crate) mod exchange;
mod line;
mod pattern;
mod scenario;
mod schedule;
#[cfg_attr(not(feature = "tls"), path = "unsecured.rs")]
mod secured;
mod silence;
mod stage;
pub(crate) mod tally;
#[cfg(feature = "tls")]
mod tickets;

pub use self::exchange::{Exchange, Width};
pub use self::scenario::{Audience, Pace, Scenario, Shape, Waiting};
pub use self::secured::Secured;
pub use self::stage::Stage;
pub use self::tally::{Handshakes, Latency, Moment};
#[cfg(feature = "tls")]
pub use self::tickets::Tickets;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use serveloop::protocols::counted;
use serveloop::{Address, CloseReason, Config, Limits, Peer, Reactor, Waker};

use self::client::{Client, Course};
use self::counted::secure;
use self::exchange::Talk;
use self::line::Line;
use self::pattern::Pattern;
use self::schedule::Schedule;
use self::silence::Silence;
use self::tally::Tally;

/// The most connections being opened at a time, which is less than any server's queue holds.
const OPENING_MOST: usize = 64;
/// How many connections may still be closing while new ones open.
const SLACK: usize = 64;
const READ_BUFFER: usize = 256 * 1024;
/// The longest wait of a turn, which bounds how late the end and silence are noticed.
const STEP: Duration = Duration::from_millis(20);
/// How long connections may take to close in order.
const ENDING: Duration = Duration::from_secs(1);
/// The fraction of the patience within which a connection must be established.
const CONNECTING: f64 = 0.9;
/// The resolution of the system's timers. The loop spins for the last stretch before a message is
/// due.
const COARSE: Duration = Duration::from_millis(2);
/// What TLS adds to a message at most, in bytes, if each is a record of its own.
const RECORD_EXTRA: usize = 64;
/// The most bytes of a message in a record of TLS.
const RECORD_MOST: usize = 16 * 1024;
/// Room for the messages of a TLS handshake, among them a chain of certificates.
const HANDSHAKE_MOST: usize = 64 * 1024;

/// Room for what is sent besides messages.
const OPENING_ROOM: usize = 16 * 1024;

/// How many slices a measurement is cut into, for charts over time.
const SLICES: u32 = 20;

/// The patience with a server, unless the program says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// The factory for incoming connections. There is no listener, so it never makes anything.
type Nobody = fn(&Peer) -> Option<Line>;

/// Says whether a measurement is to end before its time.
pub trait Interrupt: fmt::Debug {
    /// Is called in every turn of the generator.
    ///
    /// # Errors
    /// An error ends the measurement, which returns it.
    fn check(&self) -> io::Result<()>;
}

/// What a load asks of the program that runs it. By default a server has 20 seconds, nothing
/// interrupts the load, and reasons are told as the library tells them.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// How long a server may send nothing before it counts as failed.
    pub patience: Duration,
    /// Whether to go on.
    pub interrupt: &'a dyn Interrupt,
    /// Explains why a connection ended.
    pub explain: fn(&CloseReason) -> String,
    /// TLS for all connections, if they use it.
    pub secured: Option<&'a Secured>,
    /// What is exchanged in place of an echo. The size of the scenario is not used then.
    pub exchange: Option<&'a Exchange>,
}

/// Never ends a measurement before its time.
#[derive(Clone, Copy, Debug)]
pub struct Uninterrupted;

/// Connections to a server, and what they send.
#[derive(Debug)]
pub struct Load<'a> {
    reactor: Reactor<Nobody>,
    course: Rc<Course>,
    scenario: Scenario,
    /// All addresses that the server listens at.
    addresses: Vec<Address>,
    opened: usize,
    /// The wakers of active clients, ordered by their place.
    wakers: Vec<Waker>,
    /// How many messages of the schedule clients have been woken for.
    woken: u64,
    silence: Silence,
    /// When nothing more was sent.
    stopped: Option<Instant>,
    interrupt: &'a dyn Interrupt,
    /// The slices of the last measurement.
    timeline: Vec<Moment>,
}

impl Interrupt for Uninterrupted {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            interrupt: &Uninterrupted,
            explain: CloseReason::to_string,
            secured: None,
            exchange: None,
        }
    }
}

impl<'a> Load<'a> {
    /// Prepares the load. No connection is opened yet.
    ///
    /// # Errors
    /// Fails if the system has no descriptor for the poller.
    pub fn new(scenario: &Scenario, addresses: Vec<Address>, terms: Terms<'a>) -> io::Result<Self> {
        let talk = terms.exchange.map(Talk::new);
        let (pattern, size) = match terms.exchange.map(Exchange::request) {
            Some(request) => (Pattern::repeating(request), request.len()),
            None => (Pattern::new(scenario.size, scenario.shape), scenario.size),
        };
        let course = Course {
            pattern,
            size,
            talk,
            owed: Cell::new(0),
            depth: scenario.depth,
            churn: scenario.pace == Pace::Churn,
            active: scenario.connections,
            stride: scenario.total() / scenario.connections.max(1),
            budget: Cell::new(u64::MAX),
            schedule: Cell::new(None),
            over: Cell::new(None),
            tally: RefCell::new(Tally::new()),
            wakers: RefCell::default(),
            secured: terms.secured.cloned(),
            explain: terms.explain,
            time: |_| Instant::now(),
        };

        let config = config(scenario, size, &terms);
        Ok(Self {
            reactor: Reactor::new((|_| None) as Nobody, config)?,
            course: Rc::new(course),
            scenario: *scenario,
            addresses,
            opened: 0,
            wakers: Vec::new(),
            woken: 0,
            silence: Silence::new(terms.patience + scenario.pace.distance()),
            stopped: None,
            interrupt: terms.interrupt,
            timeline: Vec::new(),
        })
    }

    /// Opens connections until `connections` are open, and waits until each has been used once.
    ///
    /// # Errors
    /// Fails if a connection fails, if nothing comes back in time, or after a signal.
    pub fn settle(&mut self, connections: usize) -> io::Result<()> {
        self.silence.forget();
        loop {
            let settled = self.course.tally.borrow().settled;
            if settled >= connections {
                return Ok(());
            }

            while self.opened < connections && self.opened - settled < self.opening_most() {
                self.open();
            }

            self.turn(STEP)?;
            self.check_silence(settled as u64, "sent back the first message")?;
        }
    }

    /// With churn whose connections are to resume sessions, makes connections until there is a session
    /// for each that the load begins with, if the server offers as many. Otherwise does nothing.
    ///
    /// # Errors
    /// The same as for [`run`](Self::run).
    pub fn gather_tickets(&mut self) -> io::Result<()> {
        let wanted = self.scenario.connections;
        let usable = |load: &Self| load.course.secured.as_ref()?.opening_most();
        let Some(mut before) = usable(self).filter(|_| self.comes_and_goes()) else {
            return Ok(());
        };

        self.exchange_messages(1)?;
        while let Some(now) = usable(self).filter(|now| *now < wanted) {
            if now <= before {
                // The server replaces sessions at most, so each connection needs a full handshake.
                return self.exchange_messages(wanted as u64).map(drop);
            }
            before = now;
            self.exchange_messages(now as u64)?;
        }
        Ok(())
    }

    /// Starts all active clients, with a total of `budget` messages to send, or with churn,
    /// connections to make. It may be called again when all of these have come back.
    pub fn begin(&mut self, budget: u64) {
        self.course.budget.set(budget);
        let mut wakers = mem::take(&mut *self.course.wakers.borrow_mut());
        wakers.sort_by_key(|(rank, _)| *rank);
        self.wakers
            .extend(wakers.into_iter().map(|(_, waker)| waker));
        self.silence.forget();

        let connections = self.scenario.connections as u64;
        match self.scenario.pace {
            Pace::Closed => self.wakers.iter().for_each(Waker::wake),
            Pace::Open(rate) => {
                let schedule = Schedule::new(Instant::now(), rate, connections);
                self.course.schedule.set(Some(schedule));
            }
            Pace::Churn => {
                let first = budget.min(connections);
                self.course.budget.set(budget - first);
                (0..first).for_each(|_| self.open());
            }
        }
    }

    /// Runs the load for `duration`.
    ///
    /// # Errors
    /// Fails if a connection fails, if nothing comes back in time, or after a signal.
    pub fn run(&mut self, duration: Duration) -> io::Result<()> {
        self.run_until(Instant::now() + duration)
    }

    fn run_until(&mut self, end: Instant) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }

            let pause = self.pause(now).min(end - now);
            self.turn(pause)?;
            self.check_silence(self.messages(), "sent back a message")?;
        }
    }

    /// Exchanges `count` messages on all active connections together, none of which is under way
    /// before or afterwards. With churn, it makes as many connections. Opens what is not open yet.
    ///
    /// # Errors
    /// The same as for [`run`](Self::run).
    pub fn exchange_messages(&mut self, count: u64) -> io::Result<Duration> {
        if self.scenario.pace != Pace::Churn {
            self.settle(self.scenario.total())?;
        }

        self.reset();
        let start = Instant::now();
        self.begin(count);
        self.run_messages(count)?;
        Ok(start.elapsed())
    }

    /// Exchanges messages for `duration`, and then waits for those that are under way. Returns how
    /// long that took. The connections are open, and nothing is under way on them.
    ///
    /// # Errors
    /// The same as for [`run`](Self::run).
    pub fn exchange(&mut self, duration: Duration) -> io::Result<Duration> {
        self.reset();
        let start = Instant::now();
        self.begin(u64::MAX);
        self.run(duration)?;
        let sent = u64::MAX - self.course.budget.replace(0);
        self.run_messages(sent)?;
        Ok(start.elapsed())
    }

    /// Counts messages for `duration`, and then until at least one has come back. Returns how long
    /// that took. [`timeline`](Self::timeline) has the slices of that time.
    ///
    /// # Errors
    /// The same as for [`run`](Self::run).
    pub fn measure(&mut self, duration: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        self.reset();
        self.timeline.clear();
        for number in 1..=SLICES {
            self.run_until(start + duration * number / SLICES)?;
            let seconds = start.elapsed().as_secs_f64();
            let moment = self.course.tally.borrow_mut().end_slice(seconds);
            self.timeline.push(moment);
        }

        self.run_messages(1)?;
        Ok(start.elapsed())
    }

    /// Runs the load until `count` messages have come back.
    ///
    /// # Errors
    /// The same as for [`run`](Self::run).
    fn run_messages(&mut self, count: u64) -> io::Result<()> {
        while self.messages() < count {
            let pause = self.pause(Instant::now());
            self.turn(pause)?;
            self.check_silence(self.messages(), "sent back a message")?;
        }
        Ok(())
    }

    /// Sends no more, and waits for the replies to what was sent, so that none of them is missing. Does
    /// nothing if messages are echoed, since every byte of an echo is compared.
    ///
    /// # Errors
    /// Fails if a reply is missing or wrong, or after a signal.
    pub fn await_replies(&mut self) -> io::Result<()> {
        if self.course.talk.is_none() {
            return Ok(());
        }
        self.stopped = Some(Instant::now());
        self.course.budget.set(0);
        self.silence.forget();
        loop {
            let owed = self.course.owed.get();
            if owed == 0 {
                return Ok(());
            }
            self.turn(STEP)?;
            let quiet = self.silence.is_over(owed);
            if quiet {
                let patience = humantime::format_duration(self.silence.patience);
                let owed = counted(owed, "reply is", "replies are");
                let text = format!("{owed} missing after {patience}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }

    /// Returns how long the messages took that have come back since the count was last reset.
    #[must_use]
    pub fn latency(&self) -> Latency {
        self.course.tally.borrow().latency()
    }

    /// Returns what came back in each slice of the last [measurement](Self::measure), in order.
    #[must_use]
    pub fn timeline(&self) -> &[Moment] {
        &self.timeline
    }

    /// Returns how many TLS handshakes were completed since the count was last reset, or `None` for
    /// a load without TLS.
    #[must_use]
    pub fn handshakes(&self) -> Option<Handshakes> {
        self.course.secured.as_ref()?;
        Some(self.course.tally.borrow().handshakes)
    }

    fn reset(&self) {
        self.course.tally.borrow_mut().reset();
    }

    /// Returns whether each message has a connection of its own.
    pub(crate) fn comes_and_goes(&self) -> bool {
        self.scenario.pace == Pace::Churn
    }

    /// Returns how many messages have come back since the count was last reset.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.course.tally.borrow().messages
    }

    /// Ends the load and returns how long messages took. In an open loop, this includes messages
    /// that were due and are still missing.
    ///
    /// # Errors
    /// Fails if the poller fails, or after a signal.
    pub fn finish(&mut self) -> io::Result<Latency> {
        let now = Instant::now();
        self.course.over.set(Some(self.stopped.unwrap_or(now)));
        self.reactor.shutdown();

        while !self.reactor.is_finished() && now.elapsed() < ENDING {
            self.interrupt.check()?;
            self.reactor.turn(Some(STEP))?;
        }
        Ok(self.course.tally.borrow().latency())
    }

    /// Fails if there has been no progress for too long.
    fn check_silence(&mut self, progress: u64, what: &str) -> io::Result<()> {
        if !self.silence.is_over(progress) {
            return Ok(());
        }
        let patience = humantime::format_duration(self.silence.patience);
        let text = match &self.course.talk {
            None => format!("no server {what} for {patience}: it must send back what it receives"),
            Some(talk) => format!("no request was answered for {patience}: {}", talk.silence()),
        };
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    fn open(&mut self) {
        let address = &self.addresses[self.opened % self.addresses.len()];
        let client = Client::new(&self.course, self.opened, Instant::now());
        let line = match &self.course.secured {
            None => Line::Plain(client),
            Some(secured) => Line::Secured(Box::new(secure(secured, client, &self.course))),
        };
        self.reactor.connect(address.clone(), line);
        self.opened += 1;
    }

    /// Returns how many connections may be being opened at a time.
    fn opening_most(&self) -> usize {
        let secured = self.course.secured.as_ref();
        let usable = secured.and_then(Secured::opening_most);
        usable.map_or(OPENING_MOST, |usable| usable.min(OPENING_MOST))
    }

    fn turn(&mut self, most: Duration) -> io::Result<()> {
        self.interrupt.check()?;
        let most = match self.scenario.waiting {
            Waiting::Sleep => most,
            Waiting::Spin => Duration::ZERO,
        };
        self.reactor.turn(Some(most))?;

        let mut tally = self.course.tally.borrow_mut();
        if let Some(failure) = tally.failure.take() {
            return Err(io::Error::other(failure));
        }
        let reopen = mem::take(&mut tally.reopen);
        drop(tally);
        (0..reopen).for_each(|_| self.open());
        Ok(())
    }

    /// Wakes the clients whose messages are due. Returns how long the loop may sleep before the
    /// next message is due.
    fn pause(&mut self, now: Instant) -> Duration {
        let Some(schedule) = self.course.schedule.get() else {
            return STEP;
        };
        let (due, connections) = (schedule.due(now), self.wakers.len() as u64);

        // A client that is woken sends all that is due, so waking each client once is enough.
        self.woken = self.woken.max(due.saturating_sub(connections));
        while self.woken < due {
            let place = usize::try_from(self.woken % connections).unwrap_or(0);
            self.wakers[place].wake();
            self.woken += 1;
        }

        let next = schedule.moment(due).saturating_duration_since(now);
        next.saturating_sub(COARSE).min(STEP)
    }
}

fn config(scenario: &Scenario, size: usize, terms: &Terms<'_>) -> Config {
    // Twice the most bytes in flight, so that our own output never stops us from reading.
    let output = match terms.secured {
        None => 2 * size * scenario.depth + 1,
        Some(_) => {
            let records = size.div_ceil(RECORD_MOST) + 1;
            2 * (size + records * RECORD_EXTRA) * scenario.depth + HANDSHAKE_MOST
        }
    } + terms.exchange.map_or(0, |_| OPENING_ROOM);
    let connecting = Some(terms.patience.mul_f64(CONNECTING));

    let usual = Config::default();
    Config {
        max_connections: scenario.total() + SLACK,
        read_per_turn: READ_BUFFER,
        write_per_turn: output,
        // The plan limits what is in flight on all connections.
        max_buffered: usual
            .max_buffered
            .max(output.saturating_mul(2 * scenario.total())),
        // Earlier than the silence check, whose error says less.
        connect_timeout: connecting,
        limits: Limits {
            high_water: output,
            low_water: output / 2,
            max_output: output,
            handshake_timeout: connecting,
            first_message_timeout: None,
            message_timeout: None,
            idle_timeout: None,
            write_timeout: None,
            linger_timeout: None,
            ..usual.limits
        },
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, JoinHandle};

    use serveloop::protocols::{Discard, Echo};
    use serveloop::{Protocol, Server, ShutdownHandle, Statistics};

    use super::*;

    struct Served {
        addresses: Vec<Address>,
        handle: ShutdownHandle,
        thread: JoinHandle<io::Result<Statistics>>,
    }

    impl Served {
        fn new<P: Protocol + Send + 'static>(protocol: fn() -> P) -> Self {
            let any = "tcp://127.0.0.1:0".parse().unwrap();
            let server = Server::bind(&[any], Config::default()).unwrap();
            Self {
                addresses: server.addresses().to_vec(),
                handle: server.shutdown_handle(),
                thread: thread::spawn(move || server.serve_forever(move |_| Some(protocol()))),
            }
        }

        fn load(&self, scenario: &Scenario, terms: Terms<'static>) -> Load<'static> {
            Load::new(scenario, self.addresses.clone(), terms).unwrap()
        }

        fn end(self) -> Statistics {
            self.handle.shutdown();
            self.thread.join().unwrap().unwrap()
        }
    }

    fn scenario(connections: usize, idle: usize) -> Scenario {
        Scenario {
            connections,
            idle,
            depth: 3,
            ..Scenario::default()
        }
    }

    #[test]
    fn an_exchange_leaves_nothing_under_way() {
        let server = Served::new(|| Echo);
        for waiting in [Waiting::Sleep, Waiting::Spin] {
            let scenario = Scenario {
                waiting,
                ..scenario(5, 7)
            };
            let mut load = server.load(&scenario, Terms::default());
            for count in [1, 1_000, 4] {
                load.exchange_messages(count).unwrap();
                assert_eq!(load.messages(), count);
                assert!(load.latency().p50 > 0.0);
            }

            for _ in 0..2 {
                load.exchange(Duration::from_millis(10)).unwrap();
                let count = load.messages();
                assert!(count > 0);
                load.run(Duration::from_millis(5)).unwrap();
                assert_eq!(load.messages(), count);
            }
            load.finish().unwrap();
        }
        assert_eq!(server.end().accepted, 24);
    }

    #[test]
    fn churn_makes_as_many_connections_as_it_is_asked_for() {
        let server = Served::new(|| Echo);
        let scenario = Scenario {
            pace: Pace::Churn,
            depth: 1,
            ..scenario(4, 0)
        };
        let mut load = server.load(&scenario, Terms::default());
        load.exchange_messages(50).unwrap();
        assert_eq!(load.messages(), 50);
        load.finish().unwrap();
        assert_eq!(server.end().accepted, 50);
    }

    #[test]
    fn a_server_that_says_nothing_has_failed() {
        let server = Served::new(|| Discard);
        let terms = Terms {
            patience: Duration::from_millis(100),
            ..Terms::default()
        };
        let error = server.load(&scenario(2, 0), terms).settle(2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("for 100ms"), "{error}");
        server.end();
    }

    #[test]
    fn an_interrupt_ends_the_load() {
        #[derive(Debug)]
        struct Now;

        impl Interrupt for Now {
            fn check(&self) -> io::Result<()> {
                Err(io::ErrorKind::Interrupted.into())
            }
        }

        let server = Served::new(|| Echo);
        let terms = Terms {
            interrupt: &Now,
            ..Terms::default()
        };
        let error = server.load(&scenario(1, 0), terms).settle(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        server.end();
    }
}
