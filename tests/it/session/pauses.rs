//! Pausing and backpressure: nothing is lost, nothing is told too early, nothing grows without end.

use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Limits, Peer, Transport, Waker};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::support::probe::{Log, Probe};
use crate::support::{millis, timeless};

/// Small marks, so that tests can name every byte.
fn small() -> Config {
    Config {
        limits: Limits {
            high_water: 100,
            low_water: 40,
            max_output: 250,
            max_reply: 250,
            ..timeless().limits
        },
        ..timeless()
    }
}

/// A probe that is resumed by its waker, which the test gets too.
fn resumable(log: &Log, probe: impl FnOnce(Probe) -> Probe) -> (MemorySession<Probe>, Waker) {
    let shared: Arc<Mutex<Option<Waker>>> = Arc::default();
    let cell = Arc::clone(&shared);
    let base = Probe::new(log)
        .made(move |transport| {
            *cell.lock().unwrap() = Some(transport.waker());
            Ok(())
        })
        .woken(|transport| transport.resume_reading());
    let session = MemorySession::with_config(probe(base), timeless());
    let waker = shared.lock().unwrap().clone().unwrap();
    (session, waker)
}

#[test]
fn a_pause_keeps_what_comes_and_the_end_of_the_stream() {
    let log = Log::default();
    let (mut session, waker) = resumable(&log, |probe| {
        probe.data(|data, transport| {
            if data[0] == b'p' {
                transport.pause_reading();
            }
            Ok(1)
        })
    });
    session.receive(b"apb");
    session.receive(b"cd");
    session.receive_eof();
    assert_eq!(log.entries(), ["made", "data apb", "data pb"]);
    waker.wake();
    session.run();
    let entries = log.entries();
    let later = [
        "woken",
        "data b",
        "data cd",
        "data d",
        "eof ",
        "lost closed by the peer",
    ];
    assert_eq!(entries[3..], later, "{entries:?}");
}

#[test]
fn what_was_refused_is_shown_again_without_new_input() {
    let log = Log::default();
    let paused_once = log.clone();
    let (mut session, waker) = resumable(&log, |probe| {
        probe.data(move |data, transport| {
            if paused_once.count("data") == 1 {
                transport.pause_reading();
                return Ok(0);
            }
            Ok(data.len())
        })
    });
    session.receive(b"again");
    session.run();
    assert_eq!(log.count("data"), 1);
    waker.wake();
    session.run();
    assert_eq!(log.entries()[2..], ["woken", "data again"]);
}

/// "Not now" is not "incomplete": the end of the stream finds nothing truncated.
#[test]
fn the_end_of_the_stream_waits_behind_a_pause() {
    let log = Log::default();
    let (mut session, waker) = resumable(&log, |probe| {
        let mut again = false;
        probe.data(move |data, transport| {
            if std::mem::replace(&mut again, true) {
                return Ok(data.len());
            }
            transport.pause_reading();
            Ok(0)
        })
    });
    session.receive(b"request");
    session.receive_eof();
    assert_eq!(log.count("eof"), 0);
    waker.wake();
    session.run();
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

#[test]
fn a_pause_that_ends_in_the_same_call_is_none() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|_, transport| {
        transport.pause_reading();
        assert!(transport.is_paused());
        transport.resume_reading();
        Ok(1)
    });
    let mut session = MemorySession::new(probe);
    session.receive(b"ab");
    session.receive_eof();
    assert_eq!(log.entries()[1..3], ["data ab", "data b"]);
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

/// A paused session is told of everything but its input.
#[test]
fn a_shutdown_reaches_a_paused_session() {
    let log = Log::default();
    let (mut session, _) = resumable(&log, |probe| {
        probe.data(|data, transport| {
            transport.pause_reading();
            Ok(data.len())
        })
    });
    session.receive(b"x");
    session.shutdown();
    assert!(matches!(session.reason(), Some(CloseReason::Shutdown)));
}

#[test]
fn waiting_output_stops_the_input_from_the_high_mark_to_the_low() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write(&[b'.'; 60]);
        assert_eq!(transport.is_full(), transport.waiting() >= 100);
        Ok(data.len().min(1))
    });
    let mut session = MemorySession::with_config(probe, small());
    session.stop_taking();
    session.receive(b"abc");
    session.receive(b"d");
    assert_eq!(log.entries(), ["made", "data abc", "data bc"]);
    session.take(79);
    assert_eq!((session.waiting(), log.count("resume")), (41, 0));
    session.take(1);
    let entries = log.entries();
    assert_eq!(entries[3..5], ["resume", "data c"], "{entries:?}");
    assert_eq!(session.waiting(), 100);
    session.take(usize::MAX / 2);
    assert_eq!(log.entries().last().unwrap(), "data d");
    assert_eq!(session.sent().len(), 240);
}

#[test]
fn the_end_of_the_stream_waits_for_full_output_too() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write(&[b'.'; 150]);
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, small());
    session.stop_taking();
    session.receive(b"a");
    session.receive_eof();
    assert_eq!(log.entries(), ["made", "data a"]);
    session.take(110);
    assert_eq!(log.entries()[2..], ["resume", "eof "]);
    assert!(session.reason().is_none(), "what is owed is sent first");
    session.take(40);
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
    assert_eq!(session.sent().len(), 150);
}

/// A reply of any length in a bounded memory: the producer's pattern.
#[test]
fn a_producer_sends_more_than_fits_in_the_output() {
    const TOTAL: usize = 10_000;
    fn produce(left: &mut usize, transport: &mut Transport<'_>) {
        while *left > 0 && !transport.is_full() {
            let count = (*left).min(33);
            transport.write(&[b'.'; 33][..count]);
            *left -= count;
        }
        if *left == 0 {
            transport.close();
        }
    }
    let left = Arc::new(Mutex::new(TOTAL));
    let more = Arc::clone(&left);
    let probe = Probe::new(&Log::default())
        .made(move |transport| {
            produce(&mut left.lock().unwrap(), transport);
            Ok(())
        })
        .resume(move |transport| produce(&mut more.lock().unwrap(), transport));
    let mut session = MemorySession::with_config(probe, small());
    session.take_in_steps(7);
    assert_eq!(session.sent().len(), TOTAL);
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
}

#[test]
fn more_output_than_allowed_ends_the_session() {
    let flood = |count: usize| {
        let probe = Probe::new(&Log::default()).data(move |data, transport| {
            for _ in 0..count {
                transport.write(b".");
            }
            Ok(data.len())
        });
        let mut session = MemorySession::with_config(probe, small());
        session.stop_taking();
        session.receive(b"x");
        session
    };
    let most = flood(250);
    assert_eq!((most.waiting(), most.reason().is_none()), (250, true));
    let more = flood(251);
    assert!(matches!(more.reason(), Some(CloseReason::Overflow)));
    assert_eq!(more.waiting(), 0);
}

#[test]
fn one_write_beyond_the_limit_is_dropped_whole() {
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        transport.write(&[0; 251]);
        assert!(transport.is_closing());
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, small());
    session.receive(b"x");
    assert!(matches!(session.reason(), Some(CloseReason::Overflow)));
    assert_eq!(session.sent(), b"");
}

/// A pause of its own and full output at once: each must end before input is shown.
#[test]
fn a_pause_and_full_output_end_independently() {
    let log = Log::default();
    let shared: Arc<Mutex<Option<Waker>>> = Arc::default();
    let cell = Arc::clone(&shared);
    let probe = Probe::new(&log)
        .data(move |_, transport| {
            *cell.lock().unwrap() = Some(transport.waker());
            transport.write(&[0; 100]);
            transport.pause_reading();
            Ok(1)
        })
        .woken(|transport| transport.resume_reading());
    let mut session = MemorySession::with_config(probe, small());
    session.stop_taking();
    session.receive(b"ab");
    let waker = shared.lock().unwrap().clone().unwrap();
    session.take(100);
    assert_eq!(log.entries()[2..], ["resume"]);
    waker.wake();
    session.run();
    assert_eq!(log.entries()[3..], ["woken", "data b"]);
    // The other way round: resumed while the output is still full.
    waker.wake();
    session.run();
    session.receive(b"c");
    assert_eq!(log.entries()[5..], ["woken"]);
    session.take(100);
    assert_eq!(log.entries()[6..], ["resume", "data c"]);
}

/// A relay's peer may take nothing before it has got rid of its own, so its input is read.
#[test]
fn writing_what_fits_stops_no_input_and_is_resumed() {
    let log = Log::default();
    let probe = Probe::new(&log)
        .data(|data, transport| {
            let room = 100 - transport.waiting();
            assert_eq!(transport.write_some(&[b'a'; 70]), room.min(70));
            assert_eq!(transport.write_some(&[b'b'; 70]), room.saturating_sub(70));
            assert!(!transport.is_full());
            Ok(data.len())
        })
        .resume(|transport| transport.write(b"d"));
    let mut session = MemorySession::with_config(probe, small());
    session.stop_taking();
    session.receive(b"x");
    assert_eq!(session.waiting(), 100);
    session.receive(b"y");
    assert_eq!(log.entries(), ["made", "data x", "data y"]);
    session.take(59);
    assert_eq!((session.waiting(), log.count("resume")), (41, 0));
    session.take(1);
    assert_eq!(log.entries()[3..], ["resume"]);
    session.take(usize::MAX / 2);
    assert_eq!(log.count("resume"), 1, "it had room for everything since");
    assert!(session.sent().ends_with(b"bd"));
}

/// A protocol that takes several messages per call takes as many in a turn as it takes calls, and no more.
#[test]
fn a_loop_inside_a_call_has_as_many_messages_as_a_turn_has_calls() {
    for (takes, most) in [(1, 64), (4, 128), (100, 128)] {
        let shown = Arc::new(Mutex::new(0));
        let count = Arc::clone(&shown);
        let probe = Probe::new(&Log::default()).data(move |data, transport| {
            let mut taken = 1;
            while taken < data.len().min(takes) && transport.has_turn() {
                taken += 1;
            }
            *count.lock().unwrap() += taken;
            Ok(taken)
        });

        let (mut clock, config) = (Clock::new(Instant::now()), timeless());
        let mailbox = Mailbox::new(Box::new(|| ()));
        let peer = Peer::new("tcp://192.0.2.1:1".parse().unwrap(), Some(0));
        let mut session = Session::new(probe, peer, clock.tick());
        for turn in 1..4 {
            clock.set(clock.now() + millis(1));
            let context = Context::new(&clock, &config, &mailbox, 0);
            if turn == 1 {
                session.handle_open(&context);
                session.handle_data(&[0; 1_000], &context);
            } else {
                session.handle_more(&context);
            }
            assert_eq!(*shown.lock().unwrap(), turn * most, "{takes}");
            assert!(session.has_more());
        }
    }
}

/// No more is taken once the output is full, reading is paused, or the connection is closing.
#[test]
fn a_loop_inside_a_call_ends_where_input_is_not_shown() {
    type Act = fn(&mut Transport<'_>);
    let acts: [Act; 4] = [
        |transport| transport.write(&[0; 200]),
        |transport| transport.pause_reading(),
        |transport| transport.close(),
        |transport| transport.call_again(),
    ];
    for act in acts {
        let probe = Probe::new(&Log::default()).data(move |data, transport| {
            assert!(transport.has_turn());
            act(transport);
            assert!(!transport.has_turn());
            Ok(data.len())
        });
        let mut session = MemorySession::with_config(probe, small());
        session.receive(b"x");
        assert!(!matches!(session.reason(), Some(CloseReason::Panicked)));
    }
}
