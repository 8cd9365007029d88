//! The order of calls, and the end that is told exactly once, however a session ends.

mod datagram;
mod deadlines;
mod drivers;
mod ended;
mod expected;
mod farewells;
mod half_close;
mod limits;
mod owed;
mod pace;
mod panics_abort;
mod pauses;
mod sending;
mod undelivered;

use std::io;
use std::sync::{Arc, Mutex};

use serveloop::testing::MemorySession;
use serveloop::{Address, CloseReason, Config, Limits, Peer, ProtocolError, Transport, Waker};

use crate::support::probe::{Log, Probe};
use crate::support::{millis, panic_quietly, seconds, timeless};

type Outcome = Result<(), ProtocolError>;

fn fails(_: &mut Transport<'_>) -> Outcome {
    Err(ProtocolError::malformed("on purpose"))
}

/// Runs a session to its end and checks that the end was told once, last, and as `expected`.
#[track_caller]
fn ends(
    expected: &str,
    probe: impl FnOnce(Probe) -> Probe,
    events: impl FnOnce(&mut MemorySession<Probe>),
) {
    let log = Log::default();
    let mut session = MemorySession::with_config(probe(Probe::new(&log)), timeless());
    events(&mut session);
    session.run();
    // Whatever comes afterwards has no effect.
    session.receive(b"late");
    session.receive_eof();
    session.shutdown();
    session.fail(CloseReason::Panicked);
    session.advance(seconds(3_600));
    let entries = log.entries();
    let last = entries.last().map(String::as_str);
    assert_eq!(
        last,
        Some(format!("lost {expected}").as_str()),
        "{entries:?}"
    );
    assert_eq!(log.count("lost"), 1, "{entries:?}");
    assert_eq!(session.reason().unwrap().to_string(), expected);
}

#[test]
fn calls_come_in_their_order() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write(data);
        Ok(data.len().min(2))
    });
    let mut session = MemorySession::new(probe);
    session.receive(b"abc");
    session.receive(b"d");
    session.receive_eof();
    assert_eq!(
        log.entries(),
        [
            "made",
            "data abc",
            "data c",
            "data d",
            "eof ",
            "lost closed by the peer"
        ]
    );
    assert_eq!(session.sent(), b"abccd");
}

#[test]
fn unread_bytes_are_shown_again_with_what_follows() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, _| Ok(if data.len() < 3 { 0 } else { 3 }));
    let mut session = MemorySession::new(probe);
    for piece in [&b"ab"[..], b"cdefg", b"hi"] {
        session.receive(piece);
    }
    let shown = [
        "made",
        "data ab",
        "data abcdefg",
        "data defg",
        "data g",
        "data ghi",
    ];
    assert_eq!(log.entries(), shown);
}

#[test]
fn closing_ends_it_once() {
    ends(
        "closed",
        |probe| {
            probe.made(|transport| {
                transport.close();
                transport.close();
                Ok(())
            })
        },
        |_| (),
    );
    ends(
        "closed",
        |probe| {
            probe.data(|data, transport| {
                transport.write(b"bye");
                transport.close();
                transport.write(b"not sent");
                Ok(data.len())
            })
        },
        |session| {
            session.receive(b"x");
            assert_eq!(session.sent(), b"bye");
        },
    );
}

#[test]
fn aborting_ends_it_once_and_sends_nothing_more() {
    ends(
        "aborted",
        |probe| {
            probe.data(|data, transport| {
                transport.write(b"never sent");
                transport.abort();
                transport.close();
                Ok(data.len())
            })
        },
        |session| {
            session.receive(b"x");
            assert_eq!(session.sent(), b"");
        },
    );
}

#[test]
fn the_peers_end_is_the_sessions_unless_something_was_unread() {
    ends(
        "closed by the peer",
        |probe| probe,
        MemorySession::receive_eof,
    );
    let truncated = "protocol error: truncated: the stream ended 2 bytes into a message";
    ends(
        truncated,
        |probe| probe.data(|_, _| Ok(0)),
        |session| {
            session.receive(b"ab");
            session.receive_eof();
        },
    );
}

#[test]
fn an_error_in_a_callback_ends_it_once_after_what_was_written() {
    let expected = "protocol error: malformed: on purpose";
    ends(expected, |probe| probe.made(fails), |_| ());
    ends(
        expected,
        |probe| probe.eof(|_, transport| fails(transport)),
        MemorySession::receive_eof,
    );
    ends(
        expected,
        |probe| {
            probe.data(|_, transport| {
                transport.write(b"sorry");
                fails(transport).map(|()| 0)
            })
        },
        |session| {
            session.receive(b"x");
            assert_eq!(session.sent(), b"sorry");
        },
    );
}

/// Each way to have a callback called, with that callback panicking.
#[test]
fn a_panic_in_a_callback_ends_it_once() {
    let expected = "the protocol panicked";
    ends(expected, |probe| probe.made(|_| panic_quietly()), |_| ());
    ends(
        expected,
        |probe| probe.data(|_, _| panic_quietly()),
        |session| session.receive(b"x"),
    );
    ends(
        expected,
        |probe| probe.eof(|_, _| panic_quietly()),
        MemorySession::receive_eof,
    );
    ends(
        expected,
        |probe| probe.shutdown(|_| panic_quietly()),
        MemorySession::shutdown,
    );
    ends(
        expected,
        |probe| probe.poll(|| panic_quietly()),
        |session| session.advance(seconds(1)),
    );
    ends(
        expected,
        |probe| {
            let shared = Arc::new(Mutex::new(None));
            let cell = Arc::clone(&shared);
            probe
                .made(move |transport| {
                    *shared.lock().unwrap() = Some(transport.now() + seconds(1));
                    Ok(())
                })
                .poll(move || *cell.lock().unwrap())
                .timeout(|_| panic_quietly())
        },
        |session| session.advance(seconds(1)),
    );
    ends(
        expected,
        |probe| {
            probe
                .data(|data, transport| {
                    transport.write(&[0; 65_536]);
                    Ok(data.len())
                })
                .resume(|_| panic_quietly())
        },
        |session| session.receive(b"x"),
    );
    ends(
        expected,
        |probe| {
            probe
                .data(|data, transport| {
                    transport.waker().wake();
                    Ok(data.len())
                })
                .woken(|_| panic_quietly())
        },
        |session| session.receive(b"x"),
    );
}

#[test]
fn a_panic_in_connection_lost_changes_nothing() {
    ends(
        "closed by the peer",
        |probe| probe.lost(|| panic_quietly()),
        MemorySession::receive_eof,
    );
}

/// A panic's payload may itself panic when it is dropped.
#[test]
fn a_panics_payload_is_dropped_with_care() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic_quietly();
        }
    }
    ends(
        "the protocol panicked",
        |probe| probe.data(|_, _| std::panic::resume_unwind(Box::new(Grenade))),
        |session| session.receive(b"x"),
    );
}

#[test]
fn taking_more_than_there_is_counts_as_a_panic() {
    ends(
        "the protocol panicked",
        |probe| probe.data(|data, _| Ok(data.len() + 1)),
        |session| {
            session.receive(b"x");
        },
    );
}

#[test]
fn a_failure_of_the_connection_ends_it_once() {
    let expected = "connection failed: connection reset by peer";
    ends(
        expected,
        |probe| probe,
        |session| {
            let error = io::Error::other("connection reset by peer");
            session.fail(CloseReason::Io(error));
        },
    );
}

#[test]
fn nothing_is_shown_after_a_close() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|_, transport| {
        transport.write(b"bye");
        transport.close();
        Ok(1)
    });
    let mut session = MemorySession::new(probe);
    session.stop_taking();
    session.receive(b"abc");
    session.receive_eof();
    session.shutdown();
    assert_eq!(log.entries(), ["made", "data abc"]);
    session.take(99);
    assert_eq!(log.entries().last().unwrap(), "lost closed");
}

#[test]
fn an_error_outweighs_the_close_before_it() {
    let closes_first = |probe: Probe| {
        probe.data(|_, transport| {
            transport.close();
            Err(ProtocolError::malformed("on purpose"))
        })
    };
    ends(
        "protocol error: malformed: on purpose",
        closes_first,
        |session| session.receive(b"x"),
    );
}

#[test]
fn a_shutdown_closes_unless_the_protocol_says_otherwise() {
    ends(
        "closed by the server's shutdown",
        |probe| probe,
        MemorySession::shutdown,
    );

    let log = Log::default();
    let probe = Probe::new(&log)
        .shutdown(|transport| transport.write(b"one moment"))
        .data(|data, transport| {
            transport.close();
            Ok(data.len())
        });
    let mut session = MemorySession::new(probe);
    session.shutdown();
    assert!(session.reason().is_none());
    assert_eq!(session.sent(), b"one moment");
    session.receive(b"done");
    assert!(matches!(session.reason(), Some(CloseReason::Shutdown)));
}

#[test]
fn wakes_from_anywhere_are_calls_and_several_at_once_are_one() {
    let log = Log::default();
    let shared: Arc<Mutex<Option<Waker>>> = Arc::default();
    let cell = Arc::clone(&shared);
    let probe = Probe::new(&log)
        .made(move |transport| {
            *cell.lock().unwrap() = Some(transport.waker());
            Ok(())
        })
        .woken(|transport| transport.write(b"awake"));
    let mut session = MemorySession::new(probe);
    let waker = shared.lock().unwrap().take().unwrap();
    let threads =
        [waker.clone(), waker.clone()].map(|waker| std::thread::spawn(move || waker.wake()));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    session.run();
    assert_eq!(session.sent(), b"awake");
    waker.wake();
    session.run();
    assert_eq!(session.sent(), b"awake");
    session.receive_eof();
    waker.wake();
    session.run();
    assert_eq!(log.count("woken"), 2);
}

#[test]
fn one_turn_shows_no_more_messages_than_its_budget() {
    let config = Config {
        messages_per_turn: 4,
        ..Config::default()
    };
    let log = Log::default();
    let woken = log.clone();
    let probe = Probe::new(&log).data(move |_, transport| {
        if woken.count("data") == 1 {
            transport.waker().wake();
        }
        Ok(1)
    });
    let mut session = MemorySession::with_config(probe, config);
    session.receive(b"0123456789");
    let entries = log.entries();
    // What else waits for the session has its chance after four messages, not after ten.
    assert_eq!(entries[5], "woken", "{entries:?}");
    assert_eq!(log.count("data"), 10);
}

#[test]
fn what_stays_incomplete_may_not_grow_beyond_the_longest_message() {
    let config = || Config {
        limits: Limits {
            max_frame: 100,
            ..Limits::default()
        },
        ..Config::default()
    };
    let hoard = || Probe::new(&Log::default()).data(|_, _| Ok(0));
    let mut session = MemorySession::with_config(hoard(), config());
    session.receive(&[0; 100]);
    session.receive(&[0; 1024]);
    assert!(
        session.reason().is_none(),
        "header and delimiter have their room"
    );
    session.receive(&[0]);
    let too_long = |reason: Option<&CloseReason>| {
        matches!(
            reason,
            Some(CloseReason::Protocol(ProtocolError::TooLong {
                length: 1125,
                limit: 100
            }))
        )
    };
    assert!(too_long(session.reason()), "{:?}", session.reason());

    let mut at_once = MemorySession::with_config(hoard(), config());
    at_once.receive(&[0; 1125]);
    assert!(too_long(at_once.reason()), "{:?}", at_once.reason());
}

#[test]
fn the_peer_and_the_limits_can_be_seen() {
    let address: Address = "unix:///tmp/peer".parse().unwrap();
    let peer = Peer::new(address, Some(7));
    let expected = peer.clone();
    let probe = Probe::new(&Log::default()).made(move |transport| {
        assert_eq!(transport.peer(), &expected);
        assert_eq!(transport.config().limits.max_line, 77);
        assert!(!transport.is_closing() && !transport.is_full() && !transport.is_paused());
        transport.write(b"seen");
        assert_eq!(transport.waiting(), 4);
        Ok(())
    });
    let config = Config {
        limits: Limits {
            max_line: 77,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut session = MemorySession::with_peer(probe, config, peer);
    assert_eq!(session.sent(), b"seen");
    session.advance(millis(1));
    assert!(session.reason().is_none());
}

/// Every method must be passed on: one that was forgotten would fall back to its default.
#[test]
fn a_boxed_protocol_is_called_like_itself() {
    let log = Log::default();
    let due = Arc::new(Mutex::new(None));
    let set = Arc::clone(&due);
    let clear = Arc::clone(&due);
    let probe = Probe::new(&log)
        .made(move |transport| {
            *set.lock().unwrap() = Some(transport.now() + seconds(1));
            Ok(())
        })
        .data(|data, transport| {
            transport.write(&[0; 65_536]);
            transport.waker().wake();
            Ok(data.len())
        })
        .eof(|_, _| Ok(()))
        .poll(move || *due.lock().unwrap())
        .timeout(move |_| *clear.lock().unwrap() = None)
        .shutdown(|transport| transport.close());
    let boxed: Box<dyn serveloop::Protocol> = Box::new(probe);
    let mut session = MemorySession::new(boxed);
    session.receive(b"x");
    session.advance(seconds(1));
    session.receive_eof();
    session.shutdown();
    assert_eq!(
        log.entries(),
        [
            "made",
            "data x",
            "resume",
            "woken",
            "timeout",
            "eof ",
            "shutdown",
            "lost closed by the peer"
        ]
    );
}
