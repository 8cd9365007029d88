//! A protocol behaves inside a layer that changes nothing as it does without one, whatever it and
//! its peer do.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::layer::Layered;
use serveloop::testing::{Identity, MemorySession};
use serveloop::{
    CloseReason, Config, Ended, Limits, Peer, Protocol, ProtocolError, Result, Transport, Waker,
};

use crate::support::{cases, millis, panic_quietly};

/// After this many calls, a protocol does nothing more.
const DEEDS_MOST: usize = 60;

/// What the protocol does in one call.
#[derive(Clone, Debug)]
enum Deed {
    Nothing,
    Write(usize),
    WriteSome(usize),
    Pause,
    Resume,
    Again,
    Wake,
    Charge(usize),
    /// A deadline, in milliseconds before or after now.
    Deadline(i64),
    NoDeadline,
    /// Limits of its own: the high mark, and all deadlines in milliseconds.
    Limits(usize, u64),
    Close,
    Finish,
    Abort,
    Error,
    Panic,
}

/// What the peer, the clock or the server does.
#[derive(Clone, Debug)]
enum Step {
    Receive(usize),
    Eof,
    Advance(u64),
    Wake,
    Shutdown,
    StopTaking,
    Take(usize),
    TakeInSteps(usize),
    Fail,
}

fn deed() -> impl Strategy<Value = Deed> {
    let often = prop_oneof![
        4 => Just(Deed::Nothing),
        6 => (0..70_usize).prop_map(Deed::Write),
        4 => (0..70_usize).prop_map(Deed::WriteSome),
        2 => Just(Deed::Pause),
        4 => Just(Deed::Resume),
        3 => Just(Deed::Again),
        2 => Just(Deed::Wake),
        2 => prop_oneof![Just(0), 0..3_000_usize].prop_map(Deed::Charge),
        3 => (-5..60_i64).prop_map(Deed::Deadline),
        2 => Just(Deed::NoDeadline),
        2 => (1..64_usize, 20..90_u64).prop_map(|(high, ms)| Deed::Limits(high, ms)),
    ];
    let ends = prop_oneof![
        Just(Deed::Close),
        Just(Deed::Finish),
        Just(Deed::Abort),
        Just(Deed::Error),
        Just(Deed::Panic),
    ];
    prop_oneof![14 => often, 1 => ends]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1..60_usize).prop_map(Step::Receive),
        1 => Just(Step::Receive(1_400)),
        1 => Just(Step::Eof),
        4 => (0..80_u64).prop_map(Step::Advance),
        2 => Just(Step::Wake),
        1 => Just(Step::Shutdown),
        2 => Just(Step::StopTaking),
        4 => (1..80_usize).prop_map(Step::Take),
        2 => (1..20_usize).prop_map(Step::TakeInSteps),
        1 => Just(Step::Fail),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let timeout = || prop_oneof![Just(None), (20..90_u64).prop_map(|ms| Some(millis(ms)))];
    let timeouts = (timeout(), timeout(), timeout(), timeout());
    (timeouts, 2..64_usize, 0..64_usize, 0..64_usize, 1..4_usize).prop_map(
        |((first, message, idle, write), high, low, more, messages)| Config {
            messages_per_turn: messages,
            limits: Limits {
                first_message_timeout: first,
                message_timeout: message,
                idle_timeout: idle,
                write_timeout: write,
                high_water: high,
                low_water: low % high,
                max_output: high + more,
                max_frame: 64,
                ..Limits::default()
            },
            ..Config::default()
        },
    )
}

/// What a protocol was told, and what it saw then.
#[derive(Debug, Default)]
struct Trace {
    calls: Vec<String>,
    waker: Option<Waker>,
}

/// A protocol that does one deed after the other, and begins anew after the last.
struct Scripted {
    trace: Rc<RefCell<Trace>>,
    script: Vec<(Deed, u8)>,
    began: Option<Instant>,
    next: usize,
    due: Option<Instant>,
}

impl Scripted {
    fn new(script: Vec<(Deed, u8)>, trace: &Rc<RefCell<Trace>>) -> Self {
        Self {
            trace: Rc::clone(trace),
            script,
            began: None,
            next: 0,
            due: None,
        }
    }

    /// Does the next deed, and notes what was told and seen. Returns how the deed divides data.
    fn act(&mut self, told: &str, transport: &mut Transport<'_>) -> Result<u8> {
        let began = *self.began.get_or_insert(transport.now());
        let (mut deed, share) = self.script[self.next % self.script.len()].clone();
        // What writes whenever it may, or is called again without end, would never come to rest.
        if self.next > DEEDS_MOST {
            deed = Deed::Nothing;
        }
        self.next += 1;

        let mut seen = format!("{:?} {told}: {}", transport.now() - began, look(transport));
        let outcome = self.perform(&deed, transport, &mut seen);
        self.trace
            .borrow_mut()
            .calls
            .push(format!("{seen}, {deed:?}: {}", look(transport)));
        if matches!(deed, Deed::Panic) {
            panic_quietly();
        }
        outcome.map(|()| share)
    }

    fn perform(&mut self, deed: &Deed, to: &mut Transport<'_>, seen: &mut String) -> Result {
        let bytes = |count: usize| -> Vec<u8> { (0..count).map(|at| (at + count) as u8).collect() };
        match *deed {
            Deed::Nothing | Deed::Panic => {}
            Deed::Write(count) => to.write(&bytes(count)),
            Deed::WriteSome(count) => {
                let taken = to.write_some(&bytes(count));
                seen.push_str(&format!(", {taken} taken"));
            }
            Deed::Pause => to.pause_reading(),
            Deed::Resume => to.resume_reading(),
            Deed::Again => to.call_again(),
            Deed::Wake => self.trace.borrow_mut().waker = Some(to.waker()),
            Deed::Charge(bytes) => to.charge(bytes),
            Deed::Deadline(by) => {
                let far = to.now() + millis(1_000);
                self.due = far.checked_sub(millis((1_000 - by) as u64));
            }
            Deed::NoDeadline => self.due = None,
            Deed::Limits(high, ms) => to.set_limits(limits(high, ms))?,
            Deed::Close => to.close(),
            Deed::Finish => to.finish(),
            Deed::Abort => to.abort(),
            Deed::Error => return Err(ProtocolError::malformed("as scripted")),
        }
        Ok(())
    }

    fn tell(&mut self, told: &str, transport: &mut Transport<'_>) {
        let _ = self.act(told, transport);
    }
}

fn limits(high_water: usize, ms: u64) -> Arc<Limits> {
    Arc::new(Limits {
        high_water,
        low_water: high_water / 2,
        max_output: high_water * 2,
        max_frame: high_water,
        first_message_timeout: Some(millis(ms)),
        message_timeout: Some(millis(ms / 2)),
        idle_timeout: Some(millis(ms)).filter(|_| high_water % 2 == 0),
        write_timeout: Some(millis(ms)),
        ..Limits::default()
    })
}

fn look(transport: &Transport<'_>) -> String {
    let marks = [
        ("paused", transport.is_paused()),
        ("full", transport.is_full()),
        ("closing", transport.is_closing()),
    ];
    let marks = marks
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name));
    format!(
        "{} waiting {:?}",
        transport.waiting(),
        marks.collect::<Vec<_>>()
    )
}

impl Protocol for Scripted {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.act("made", transport).map(drop)
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let share = self.act(&format!("data {data:?}"), transport)?;
        Ok(match share % 4 {
            0 => 0,
            1 => 1,
            2 => data.len().div_ceil(2),
            _ => data.len(),
        })
    }

    fn eof_received(&mut self, unread: &[u8], transport: &mut Transport<'_>) -> Result {
        self.act(&format!("eof {unread:?}"), transport).map(drop)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.tell("resume", transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.due = None;
        self.tell("timeout", transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.tell("woken", transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.tell("shutdown", transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.trace.borrow_mut().calls.push(account(ended));
    }
}

fn account(ended: &Ended<'_>) -> String {
    format!(
        "lost: {} after {:?}, {} received, {} sent, {} unsent",
        ended.reason(),
        ended.duration(),
        ended.received(),
        ended.sent(),
        ended.unsent()
    )
}

/// Performs the steps and returns what the protocol, the peer and the driver saw after each.
fn run<P: Protocol>(
    wrap: impl FnOnce(Scripted) -> P,
    script: &[(Deed, u8)],
    steps: &[Step],
    (config, is_outbound): (&Config, bool),
) -> Vec<String> {
    let trace = Rc::default();
    let protocol = wrap(Scripted::new(script.to_vec(), &trace));
    let address = "tcp://192.0.2.1:4711".parse().unwrap();
    let peer = Peer::new(address, (!is_outbound).then_some(0));
    let mut session = MemorySession::with_peer(protocol, config.clone(), peer);
    let began = session.now();

    let mut seen = Vec::new();
    for step in [&Step::Advance(0)].into_iter().chain(steps) {
        perform(&mut session, step, &trace);
        let due = session
            .deadline()
            .map(|due| due.saturating_duration_since(began));
        let Trace { calls, .. } = &mut *trace.borrow_mut();
        seen.push(format!("{step:?}"));
        seen.append(calls);
        seen.push(format!(
            "{:?} sent, {} waiting, {} held, due {due:?}, finished {}, {:?}",
            session.sent(),
            session.waiting(),
            session.held(),
            session.is_finished(),
            session.ended().map(|ended| account(&ended)),
        ));
    }
    seen
}

fn perform<P: Protocol>(session: &mut MemorySession<P>, step: &Step, trace: &Rc<RefCell<Trace>>) {
    match *step {
        Step::Receive(count) => {
            let data: Vec<u8> = (0..count).map(|at| (at * 7 + count) as u8).collect();
            session.receive(&data);
        }
        Step::Eof => session.receive_eof(),
        Step::Advance(ms) => session.advance(Duration::from_millis(ms)),
        Step::Wake => {
            if let Some(waker) = &trace.borrow().waker {
                waker.wake();
            }
            session.run();
        }
        Step::Shutdown => session.shutdown(),
        Step::StopTaking => session.stop_taking(),
        Step::Take(count) => session.take(count),
        Step::TakeInSteps(step) => session.take_in_steps(step),
        Step::Fail => session.fail(CloseReason::Panicked),
    }
}

/// Runs a session of one datagram, and returns what the protocol and the driver saw.
fn run_datagram<P: Protocol>(
    wrap: impl FnOnce(Scripted) -> P,
    script: &[(Deed, u8)],
    length: usize,
    config: &Config,
) -> Vec<String> {
    let trace = Rc::default();
    let protocol = wrap(Scripted::new(script.to_vec(), &trace));
    let clock = Clock::new(Instant::now());
    let mailbox = Mailbox::new(Box::new(|| ()));
    let context = Context::new(&clock, config, &mailbox, 0);
    let peer = Peer::new("udp://192.0.2.1:4711".parse().unwrap(), Some(0));
    let mut session = Session::new(protocol, peer, clock.tick());

    let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
    session.handle_datagram(&data, &context);
    let reply = format!("{:?} {}", session.output(), session.has_replied());
    let end = session
        .handle_lost(&context)
        .map(|end| account(&end.ended()));

    let mut seen = std::mem::take(&mut trace.borrow_mut().calls);
    seen.push(format!("{reply}, {end:?}"));
    seen
}

/// Fails where two traces part.
fn alike(plain: &[String], inside: &[String]) -> std::result::Result<(), TestCaseError> {
    let parted = plain
        .iter()
        .zip(inside)
        .position(|(one, other)| one != other);
    let at = parted.unwrap_or(plain.len().min(inside.len()));
    let (one, other) = (plain.get(at), inside.get(at));
    prop_assert_eq!(one, other, "after {:#?}", &plain[..at]);
    Ok(())
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_layer_that_changes_nothing_changes_nothing(
        script in vec((deed(), any::<u8>()), 1..12),
        steps in vec(step(), 0..24),
        config in config(),
        is_outbound in any::<bool>(),
    ) {
        let config = (&config, is_outbound);
        let plain = run(|protocol| protocol, &script, &steps, config);
        let inside = run(|protocol| Layered::around(Identity, protocol), &script, &steps, config);
        alike(&plain, &inside)?;
        let twice = |protocol| Layered::around(Identity, Layered::around(Identity, protocol));
        alike(&plain, &run(twice, &script, &steps, config))?;
    }

    #[test]
    fn nor_does_it_change_a_datagram(
        script in vec((deed(), any::<u8>()), 1..12),
        length in 0..40_usize,
        config in config(),
    ) {
        // The calls that a datagram may ask for are counted inside a layer and outside.
        let config = Config { messages_per_turn: DEEDS_MOST + 2, ..config };
        let plain = run_datagram(|protocol| protocol, &script, length, &config);
        let layered = |protocol| Layered::around(Identity, protocol);
        alike(&plain, &run_datagram(layered, &script, length, &config))?;
    }
}
