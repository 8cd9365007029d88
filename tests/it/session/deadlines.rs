//! Deadlines in virtual time: at their moment, not a nanosecond before, and only while they run.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::testing::MemorySession;
use serveloop::{Address, CloseReason, Config, Deadline, Limits, Peer, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{millis, seconds, timeless};

const NANO: Duration = Duration::from_nanos(1);

/// Lets all but a nanosecond of `time` pass, during which nothing may happen.
#[track_caller]
fn nearly(session: &mut MemorySession<Probe>, time: Duration) {
    session.advance(time - NANO);
    assert!(session.reason().is_none(), "{:?}", session.reason());
}

#[track_caller]
fn times_out(session: &mut MemorySession<Probe>, after: Duration, expected: Deadline) {
    nearly(session, after);
    session.advance(NANO);
    match session.reason() {
        Some(CloseReason::TimedOut(deadline)) => assert_eq!(*deadline, expected),
        reason => panic!("{reason:?}"),
    }
}

/// Takes lines of three bytes.
fn lines(log: &Log) -> Probe {
    Probe::new(log).data(|data, _| Ok(if data.len() < 3 { 0 } else { 3 }))
}

fn only(config: impl FnOnce(&mut Config)) -> Config {
    let mut all = timeless();
    config(&mut all);
    all
}

#[test]
fn the_first_message_has_its_time_from_the_beginning() {
    let config = only(|config| config.limits.first_message_timeout = Some(seconds(10)));
    let log = Log::default();
    let mut silent = MemorySession::with_config(lines(&log), config.clone());
    times_out(&mut silent, seconds(10), Deadline::FirstMessage);
    // Trickling bytes postpones nothing.
    let mut slow = MemorySession::with_config(lines(&log), config.clone());
    for _ in 0..2 {
        nearly(&mut slow, seconds(4));
        slow.receive(b"x");
    }
    times_out(&mut slow, seconds(2) + NANO * 2, Deadline::FirstMessage);
    let mut fast = MemorySession::with_config(lines(&log), config);
    nearly(&mut fast, seconds(10));
    fast.receive(b"abc");
    nearly(&mut fast, seconds(1_000));
}

/// We spoke first: the other side owes us nothing yet.
#[test]
fn an_outbound_session_has_no_first_message_deadline() {
    let config = only(|config| config.limits.first_message_timeout = Some(seconds(10)));
    let peer = Peer::new("tcp://127.0.0.1:9".parse::<Address>().unwrap(), None);
    let mut session = MemorySession::with_peer(lines(&Log::default()), config, peer);
    nearly(&mut session, seconds(1_000));
}

#[test]
fn a_later_message_has_its_time_from_its_first_byte() {
    let config = only(|config| config.limits.message_timeout = Some(seconds(30)));
    let mut session = MemorySession::with_config(lines(&Log::default()), config);
    session.receive(b"abc");
    nearly(&mut session, seconds(500));
    session.receive(b"d");
    nearly(&mut session, seconds(20));
    session.receive(b"e");
    nearly(&mut session, seconds(10));
    session.receive(b"fg");
    // The rest of this segment began a message of its own.
    times_out(&mut session, seconds(30), Deadline::Message);
}

#[test]
fn one_message_after_the_other_is_never_late() {
    let config = only(|config| config.limits.message_timeout = Some(seconds(30)));
    let mut session = MemorySession::with_config(lines(&Log::default()), config);
    session.receive(b"abcd");
    for _ in 0..10 {
        nearly(&mut session, seconds(29));
        session.receive(b"efg");
    }
    nearly(&mut session, seconds(30));
    session.receive(b"hi");
    nearly(&mut session, seconds(1_000));
}

#[test]
fn the_idle_deadline_moves_with_every_byte_in_and_out() {
    let config = only(|config| config.limits.idle_timeout = Some(seconds(60)));
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write(b"12");
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, config);
    nearly(&mut session, seconds(60));
    session.stop_taking();
    session.receive(b"in");
    nearly(&mut session, seconds(60));
    session.take(1);
    nearly(&mut session, seconds(60));
    session.take(1);
    times_out(&mut session, seconds(60), Deadline::Idle);
}

#[test]
fn output_that_nobody_takes_is_a_stall() {
    let config = only(|config| config.limits.write_timeout = Some(seconds(30)));
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        transport.write(b"12");
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, config);
    session.stop_taking();
    session.receive(b"x");
    nearly(&mut session, seconds(30));
    session.take(1);
    nearly(&mut session, seconds(20));
    // That the peer goes on sending is no progress.
    session.receive(b"x");
    session.advance(NANO);
    times_out(&mut session, seconds(10), Deadline::Write);
}

#[test]
fn output_that_was_taken_is_no_stall() {
    let config = only(|config| config.limits.write_timeout = Some(seconds(30)));
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        transport.write(b"12");
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, config);
    session.stop_taking();
    session.receive(b"x");
    nearly(&mut session, seconds(30));
    session.take(2);
    nearly(&mut session, seconds(100));
    // A new stall has its own beginning.
    session.receive(b"x");
    times_out(&mut session, seconds(30), Deadline::Write);
}

#[test]
fn a_close_does_not_wait_for_ever_for_its_output_to_be_taken() {
    let config = only(|config| config.limits.write_timeout = Some(seconds(30)));
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        transport.write(b"bye");
        transport.close();
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, config);
    session.stop_taking();
    session.receive(b"x");
    times_out(&mut session, seconds(30), Deadline::Write);
}

/// A session that its own protocol keeps from reading is not the peer's fault.
#[test]
fn no_deadline_of_the_peers_runs_during_a_pause() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(seconds(10)),
            message_timeout: Some(seconds(30)),
            idle_timeout: Some(seconds(60)),
            ..timeless().limits
        },
        ..timeless()
    };
    let shared = Arc::new(Mutex::new(None));
    let cell = Arc::clone(&shared);
    let probe = lines(&Log::default())
        .made(move |transport| {
            *cell.lock().unwrap() = Some(transport.waker());
            transport.pause_reading();
            Ok(())
        })
        .woken(|transport| {
            if transport.is_paused() {
                transport.resume_reading();
            } else {
                transport.pause_reading();
            }
        });
    let mut session = MemorySession::with_config(probe, config);
    let waker = shared.lock().unwrap().take().unwrap();
    let toggle = |session: &mut MemorySession<Probe>| {
        waker.wake();
        session.run();
    };
    nearly(&mut session, seconds(1_000));
    toggle(&mut session);
    // All that the peer owes, it owes from now on.
    nearly(&mut session, seconds(10));
    session.receive(b"abcd");
    toggle(&mut session);
    nearly(&mut session, seconds(1_000));
    toggle(&mut session);
    times_out(&mut session, seconds(30), Deadline::Message);
}

#[test]
fn full_output_stops_the_message_deadline() {
    let config = Config {
        limits: Limits {
            high_water: 10,
            low_water: 5,
            message_timeout: Some(seconds(30)),
            ..timeless().limits
        },
        ..timeless()
    };
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        if data.len() < 3 {
            return Ok(0);
        }
        transport.write(&[0; 10]);
        Ok(3)
    });
    let mut session = MemorySession::with_config(probe, config);
    session.stop_taking();
    session.receive(b"abcd");
    nearly(&mut session, seconds(1_000));
    session.take(10);
    times_out(&mut session, seconds(30), Deadline::Message);
}

#[test]
fn the_end_of_the_stream_leaves_no_message_owed() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(seconds(10)),
            message_timeout: Some(seconds(30)),
            ..timeless().limits
        },
        ..timeless()
    };
    let probe = Probe::new(&Log::default())
        .data(|_, _| Ok(0))
        .eof(|_, _| Ok(()));
    let mut session = MemorySession::with_config(probe, config);
    session.receive(b"x");
    session.receive_eof();
    nearly(&mut session, seconds(1_000));
}

/// A protocol whose timeout is set and cleared by closures through a shared cell.
fn timed(
    log: &Log,
    made: Option<Duration>,
    mut timeout: impl FnMut(&mut Transport<'_>) -> Option<Instant> + Send + 'static,
) -> Probe {
    let due = Arc::new(Mutex::new(None));
    let (set, moved) = (Arc::clone(&due), Arc::clone(&due));
    Probe::new(log)
        .made(move |transport| {
            *set.lock().unwrap() = made.map(|after| transport.now() + after);
            Ok(())
        })
        .timeout(move |transport| {
            let next = timeout(transport);
            *moved.lock().unwrap() = next;
        })
        .poll(move || *due.lock().unwrap())
}

#[test]
fn a_protocols_timeout_comes_at_its_moment_as_often_as_it_is_moved() {
    let log = Log::default();
    let probe = timed(&log, Some(seconds(1)), |transport| {
        transport.write(b"tick");
        Some(transport.now() + seconds(1))
    });
    let mut session = MemorySession::with_config(probe, timeless());
    nearly(&mut session, seconds(1));
    assert_eq!(log.count("timeout"), 0);
    session.advance(NANO);
    assert_eq!(log.count("timeout"), 1);
    // No drift: each is a second after the last, however much time passes in one piece.
    session.advance(seconds(99));
    assert_eq!(log.count("timeout"), 100);
    assert_eq!(session.sent(), b"tick".repeat(100));
}

#[test]
fn a_protocols_timeout_closes_by_default_and_runs_while_paused() {
    let log = Log::default();
    let probe = Probe::new(&log);
    let due = Arc::new(Mutex::new(None));
    let set = Arc::clone(&due);
    let probe = probe
        .made(move |transport| {
            transport.pause_reading();
            *set.lock().unwrap() = Some(transport.now() + seconds(5));
            Ok(())
        })
        .poll(move || *due.lock().unwrap());
    let mut session = MemorySession::with_config(probe, timeless());
    nearly(&mut session, seconds(5));
    session.advance(NANO);
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
}

#[test]
fn a_timeout_that_lies_in_the_past_is_now() {
    let log = Log::default();
    let probe = timed(&log, Some(Duration::ZERO), |_| None);
    let mut session = MemorySession::with_config(probe, timeless());
    session.advance(Duration::ZERO);
    assert_eq!(log.count("timeout"), 1);
}

#[test]
fn a_timeout_that_never_moves_is_acted_on_about_once_a_millisecond() {
    let log = Log::default();
    let due = Arc::new(Mutex::new(None));
    let set = Arc::clone(&due);
    let probe = Probe::new(&log)
        .made(move |transport| {
            *set.lock().unwrap() = Some(transport.now() + millis(5));
            Ok(())
        })
        .timeout(|_| ())
        .poll(move || *due.lock().unwrap());
    let mut session = MemorySession::with_config(probe, timeless());
    session.advance(millis(5));
    assert_eq!(log.count("timeout"), 1);
    session.advance(millis(100));
    let calls = log.count("timeout");
    assert!((99..=103).contains(&calls), "{calls} calls in 100 ms");
    assert!(session.reason().is_none());
}

#[test]
fn durations_without_end_are_never_over() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(Duration::MAX),
            message_timeout: Some(Duration::MAX),
            idle_timeout: Some(Duration::MAX),
            write_timeout: Some(Duration::MAX),
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut session = MemorySession::with_config(lines(&Log::default()), config);
    session.receive(b"abcd");
    nearly(&mut session, seconds(100 * 365 * 86_400));
}

#[test]
fn the_earliest_of_several_deadlines_counts() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(seconds(10)),
            idle_timeout: Some(seconds(3)),
            ..timeless().limits
        },
        ..timeless()
    };
    let mut session = MemorySession::with_config(lines(&Log::default()), config);
    assert_eq!(session.deadline(), Some(session.now() + seconds(3)));
    times_out(&mut session, seconds(3), Deadline::Idle);
    assert_eq!(session.deadline(), None);
}

/// What a driver relies on to leave its timers alone.
#[test]
fn a_deadline_changes_only_when_something_may_have_made_it_earlier() {
    let (clock, config) = (Clock::new(Instant::now()), Config::default());
    let wakers = Mailbox::new(Box::new(|| ()));
    let context = Context {
        clock: &clock,
        config: &config,
        driver: &wakers,
        id: 0,
    };
    let peer = Peer::new("tcp://127.0.0.1:1".parse().unwrap(), Some(0));
    let probe = Probe::new(&Log::default());
    let mut session = Session::new(probe, peer, clock.tick());
    session.handle_open(&context);
    assert!(session.deadline_changed());
    assert!(session.deadline(&context).is_some());
    assert!(!session.deadline_changed());
    session.handle_data(b"a message", &context);
    assert!(!session.deadline_changed());
    session.fail(CloseReason::Aborted);
    assert!(session.deadline_changed());
}

/// A protocol's own timer is often as long as `idle_timeout`, by default or by design.
#[test]
fn an_orderly_end_in_a_timer_goes_before_a_deadline_of_the_same_moment() {
    for own in [seconds(59), seconds(60)] {
        let log = Log::default();
        let due = Arc::new(Mutex::new(None));
        let (asked, set) = (Arc::clone(&due), Arc::clone(&due));
        let probe = Probe::new(&log)
            .poll(move || *asked.lock().unwrap())
            .data(move |data, transport| {
                *set.lock().unwrap() = Some(transport.now() + own);
                Ok(data.len())
            })
            .timeout(|transport| {
                transport.write(b"bye");
                transport.close();
            });

        let mut session = MemorySession::with_config(probe, Config::default());
        session.receive(b"hello");
        session.advance(seconds(60));
        assert_eq!(session.sent(), b"bye", "{own:?}");
        assert!(
            matches!(session.reason(), Some(CloseReason::Closed)),
            "{own:?}"
        );
    }
}
