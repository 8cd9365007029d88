//! The least rate of a peer, in virtual time: who is ended, when, and who is not measured.

use std::sync::Arc;
use std::time::Duration;

use serveloop::layer::Layered;
use serveloop::testing::{Identity, MemorySession};
use serveloop::{CloseReason, Config, Deadline, Limits, Protocol, Result, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{millis, seconds, timeless};

/// At least a hundred bytes in ten seconds.
fn config() -> Config {
    Config {
        limits: Limits {
            min_bytes_per_second: 10,
            ..timeless().limits
        },
        ..timeless()
    }
}

/// Takes lines, and answers none.
fn lines() -> Probe {
    Probe::new(&Log::default()).data(|data, _| {
        let end = data.iter().position(|byte| *byte == b'\n');
        Ok(end.map_or(0, |end| end + 1))
    })
}

fn session() -> MemorySession<Probe> {
    let mut session = MemorySession::with_config(lines(), config());
    session.receive(b"first\n");
    session
}

/// Lets the peer send `count` bytes of a line in each of a number of seconds.
fn trickle<P: Protocol>(session: &mut MemorySession<P>, count: usize, time: u64) {
    for _ in 0..time {
        session.receive(&vec![b'x'; count]);
        session.advance(seconds(1));
    }
}

#[track_caller]
fn is_open<P: Protocol>(session: &MemorySession<P>) {
    assert!(session.reason().is_none(), "{:?}", session.reason());
}

#[track_caller]
fn is_late<P: Protocol>(session: &MemorySession<P>, expected: Deadline) {
    match session.reason() {
        Some(CloseReason::TimedOut(deadline)) => assert_eq!(*deadline, expected),
        reason => panic!("{reason:?}"),
    }
}

#[test]
fn a_message_that_comes_too_slowly_ends_its_connection() {
    let mut session = session();
    trickle(&mut session, 9, 9);
    session.advance(millis(999));
    is_open(&session);
    session.advance(millis(1));
    is_late(&session, Deadline::Message);
}

#[test]
fn one_that_comes_fast_enough_may_take_for_ever() {
    let mut session = session();
    trickle(&mut session, 12, 1_000);
    is_open(&session);
    session.receive(b"\n");
    is_open(&session);
}

#[test]
fn a_fast_beginning_makes_up_for_nothing_later() {
    let mut session = session();
    session.receive(b"x");
    session.advance(millis(1));
    session.receive(&[b'x'; 10_000]);
    trickle(&mut session, 1, 10);
    is_open(&session);
    trickle(&mut session, 1, 10);
    is_late(&session, Deadline::Message);
}

#[test]
fn a_first_message_is_measured_too() {
    let mut session = MemorySession::with_config(
        lines(),
        Config {
            limits: Limits {
                first_message_timeout: Some(seconds(1_000)),
                ..config().limits
            },
            ..config()
        },
    );
    session.advance(seconds(500));
    is_open(&session);
    trickle(&mut session, 1, 10);
    is_late(&session, Deadline::FirstMessage);
}

#[test]
fn a_peer_that_owes_nothing_may_be_silent() {
    let mut session = session();
    session.advance(seconds(1_000));
    session.receive(b"second\n");
    session.advance(seconds(1_000));
    is_open(&session);
}

#[test]
fn each_message_is_measured_by_itself() {
    let mut session = session();
    for _ in 0..100 {
        trickle(&mut session, 1, 9);
        session.receive(b"\n");
    }
    is_open(&session);
    trickle(&mut session, 1, 10);
    is_late(&session, Deadline::Message);
}

#[test]
fn what_a_protocol_does_not_take_is_not_measured() {
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        if data.ends_with(b"?") {
            transport.pause_reading();
        }
        Ok(0)
    });
    let mut session = MemorySession::with_config(probe, config());
    session.receive(b"abc?");
    session.advance(seconds(1_000));
    is_open(&session);
}

/// Answers each byte with a thousand.
fn talker() -> Probe {
    Probe::new(&Log::default()).data(|data, transport| {
        transport.write(&vec![b'x'; data.len() * 1_000]);
        Ok(data.len())
    })
}

#[test]
fn a_peer_that_reads_too_slowly_is_ended() {
    let mut session = MemorySession::with_config(talker(), config());
    session.stop_taking();
    session.receive(b"...");
    for _ in 0..9 {
        session.advance(seconds(1));
        session.take(9);
    }
    session.advance(millis(999));
    is_open(&session);
    session.advance(millis(1));
    is_late(&session, Deadline::Write);
}

#[test]
fn one_that_reads_fast_enough_is_not() {
    let mut session = MemorySession::with_config(talker(), config());
    session.stop_taking();
    session.receive(b"...");
    for _ in 0..100 {
        session.advance(seconds(1));
        session.take(12);
    }
    is_open(&session);
    session.take(usize::MAX);
    session.advance(seconds(1_000));
    is_open(&session);
}

#[test]
fn each_wait_for_the_peer_is_measured_by_itself() {
    let mut session = MemorySession::with_config(talker(), config());
    for _ in 0..20 {
        session.stop_taking();
        session.receive(b".");
        session.advance(seconds(9));
        session.take(usize::MAX);
    }
    is_open(&session);
    session.stop_taking();
    session.receive(b".");
    session.advance(seconds(10));
    is_late(&session, Deadline::Write);
}

/// Says what it has against its peer.
struct Polite;

impl Protocol for Polite {
    fn data_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(0)
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        transport.write(deadline.to_string().as_bytes());
    }
}

#[test]
fn a_protocol_may_say_why() {
    let mut session = MemorySession::with_config(Polite, config());
    trickle(&mut session, 1, 10);
    assert_eq!(session.sent(), b"a message was not completed in time");
    is_late(&session, Deadline::Message);
}

#[test]
fn messages_inside_a_layer_are_measured() {
    let layered = Layered::around(Identity, lines());
    let mut session = MemorySession::with_config(layered, config());
    session.receive(b"first\n");
    trickle(&mut session, 12, 50);
    is_open(&session);
    trickle(&mut session, 1, 20);
    is_late(&session, Deadline::Message);
}

#[test]
fn a_connection_may_have_a_rate_of_its_own() {
    let probe = Probe::new(&Log::default())
        .made(|transport| {
            let limits = Limits {
                min_bytes_per_second: 1_000,
                min_rate_grace: seconds(1),
                ..transport.limits().clone()
            };
            transport.set_limits(Arc::new(limits)).unwrap();
            Ok(())
        })
        .data(|_, _| Ok(0));
    let mut session = MemorySession::with_config(probe, config());
    trickle(&mut session, 900, 1);
    is_late(&session, Deadline::Message);
}

#[test]
fn without_a_rate_nobody_is_too_slow() {
    let mut session = MemorySession::with_config(lines(), timeless());
    trickle(&mut session, 1, 1_000);
    is_open(&session);
    assert_eq!(Limits::default().min_bytes_per_second, 0);
}

#[test]
fn averages_are_over_some_time() {
    let limits = Limits {
        min_rate_grace: Duration::ZERO,
        ..Limits::default()
    };
    let problem = limits.validate().unwrap_err().to_string();
    assert_eq!(problem, "min_rate_grace must be more than 0, not 0ns");
}
