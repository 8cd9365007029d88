//! Peers that send faster than a rate limit allows.

use std::io::Write;
use std::time::{Duration, Instant};

use serveloop::layer::{Layered, RateLimit, RateLimited};
use serveloop::protocols::Echo;
use serveloop::testing::{Exchange, Identity, MemorySession, Simulation, SplitChecker};
use serveloop::{CloseReason, Config, Deadline, Limits, Peer, ProtocolError};

use crate::support::model_protocols::{Any, frame, shout};
use crate::support::model_server::{End, Model, ModelServer, finish, read_to};
use crate::support::probe::{Log, Probe};
use crate::support::{expect, millis, noise, seconds, timeless};

const TEN_BYTES: RateLimit = RateLimit::new().with_bytes(10);
const TWO_MESSAGES: RateLimit = RateLimit::new().with_messages(2);

fn limited(limit: RateLimit) -> MemorySession<RateLimited<Echo>> {
    MemorySession::with_config(RateLimited::new(Echo, limit), timeless())
}

fn limited_frames(limit: RateLimit) -> MemorySession<RateLimited<Any>> {
    MemorySession::with_config(RateLimited::new(shout(), limit), timeless())
}

#[test]
fn bytes_are_shown_at_the_rate_after_a_burst() {
    let all = noise(64);
    let mut session = limited(TEN_BYTES);
    session.receive(&all);

    let mut shown = session.sent();
    assert_eq!(shown.len(), 10, "a burst is what a second gives");
    for step in 1..=54 {
        session.advance(millis(100));
        shown.extend(session.sent());
        assert_eq!(shown.len(), 10 + step);
    }
    assert_eq!(shown, all);
    assert_eq!(session.deadline(), None, "nobody waits any more");
}

#[test]
fn unused_rate_is_saved_up_to_a_burst_and_no_further() {
    let mut session = limited(TEN_BYTES.with_burst(seconds(3)));
    session.receive(&noise(25));
    assert_eq!(session.sent().len(), 25);
    session.advance(seconds(1));
    session.receive(&noise(40));
    assert_eq!(session.sent().len(), 5 + 10);
    session.advance(seconds(60));
    assert_eq!(session.sent().len(), 25);

    session.receive(&noise(40));
    assert_eq!(session.sent().len(), 30);
}

#[test]
fn a_burst_is_at_least_one_byte_and_one_message() {
    let limit = TEN_BYTES.with_messages(10).with_burst(Duration::ZERO);
    let mut session = limited(limit);
    session.receive(b"abc");
    assert_eq!(session.sent(), b"a");
    session.advance(millis(99));
    assert_eq!(session.sent(), b"");
    session.advance(millis(1));
    assert_eq!(session.sent(), b"b");
    session.advance(seconds(1));
    assert_eq!(session.sent(), b"c");
}

#[test]
fn a_peer_within_its_rate_never_waits() {
    let mut session = limited(TEN_BYTES.with_messages(5));
    for _ in 0..100 {
        session.receive(b"ab");
        assert_eq!(session.sent(), b"ab");
        assert_eq!(session.deadline(), None);
        session.advance(millis(200));
    }
}

#[test]
fn messages_are_shown_at_the_rate_whatever_their_length() {
    let mut session = limited_frames(TWO_MESSAGES);
    session.receive(&["a", "", "ccc", "dd"].map(frame).concat());
    assert_eq!(session.sent(), ["A", ""].map(frame).concat());
    session.advance(millis(499));
    assert_eq!(session.sent(), b"");
    session.advance(millis(1));
    assert_eq!(session.sent(), frame("CCC"));
    session.advance(millis(500));
    assert_eq!(session.sent(), frame("DD"));
}

#[test]
fn an_incomplete_message_counts_once() {
    let mut session = limited_frames(TWO_MESSAGES);
    for byte in frame("slowly") {
        session.receive(&[byte]);
    }
    session.receive(&["b", "c"].map(frame).concat());
    assert_eq!(session.sent(), ["SLOWLY", "B"].map(frame).concat());
}

#[test]
fn a_message_that_is_longer_than_a_burst_arrives() {
    let mut session = limited_frames(RateLimit::new().with_bytes(3));
    session.receive(&frame("long"));
    session.advance(millis(1_666));
    assert_eq!(session.sent(), b"");
    session.advance(millis(1));
    assert_eq!(session.sent(), frame("LONG"));
}

#[test]
fn answers_do_not_depend_on_the_rate_or_the_cut() {
    let messages = ["one", "", "three"].map(frame);
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    for limit in [TEN_BYTES, TWO_MESSAGES, TEN_BYTES.with_messages(1)] {
        SplitChecker::new(|| RateLimited::new(shout(), limit)).check(&messages);
        SplitChecker::new(|| RateLimited::new(Layered::around(Identity, shout()), limit))
            .stream()
            .check(&messages);
        SplitChecker::new(|| Layered::around(Identity, RateLimited::new(shout(), limit)))
            .stream()
            .check(&messages);
    }
}

#[test]
fn the_end_of_the_stream_waits_behind_what_came_before() {
    let mut session = limited(TEN_BYTES);
    session.receive(&noise(25));
    session.receive_eof();
    session.advance(millis(1_499));
    assert!(session.reason().is_none());
    session.advance(millis(1));
    assert_eq!(session.sent(), noise(25));
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

/// A peer that waits owes nothing. A peer that does not send owes as always.
#[test]
fn deadlines_do_not_blame_a_peer_that_waits() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(seconds(2)),
            message_timeout: Some(seconds(2)),
            idle_timeout: Some(seconds(2)),
            ..timeless().limits
        },
        ..timeless()
    };
    let limit = RateLimit::new().with_bytes(1);
    let mut session = MemorySession::with_config(RateLimited::new(shout(), limit), config);
    session.receive(&[frame("first"), frame("second"), frame("x")[..2].to_vec()].concat());
    session.advance(seconds(18));
    assert_eq!(session.sent(), ["FIRST", "SECOND"].map(frame).concat());
    assert!(session.reason().is_none());

    session.advance(seconds(4));
    let reason = session.reason().unwrap();
    assert!(
        matches!(reason, CloseReason::TimedOut(Deadline::Message)),
        "{reason}"
    );
}

/// The wait is none of the protocol's pauses, and none of these ends the wait.
#[test]
fn the_pauses_of_the_protocol_are_its_own() {
    let log = Log::default();
    let probe = Probe::new(&log)
        .data(|data, _| Ok(data.len()))
        .woken(|transport| {
            if transport.is_paused() {
                transport.resume_reading();
            } else {
                transport.pause_reading();
            }
        })
        .made(|transport| {
            transport.waker().wake();
            Ok(())
        });
    let mut session = MemorySession::with_config(RateLimited::new(probe, TEN_BYTES), timeless());
    // The wake at the beginning has paused it.
    session.receive(b"0123456789ab");
    session.advance(seconds(10));
    assert_eq!(log.count("data"), 0, "{:?}", log.entries());
}

#[test]
fn a_pause_during_the_wait_outlasts_it() {
    let log = Log::default();
    let alarm = Instant::now() + seconds(3_600);
    let probe = Probe::new(&log)
        .data(|data, transport| {
            // Later, while the peer waits.
            transport.waker().wake();
            Ok(data.len())
        })
        .woken(|transport| {
            assert!(!transport.is_paused(), "the wait is no pause");
            transport.pause_reading();
        })
        .poll(move || Some(alarm))
        .timeout(|transport| transport.resume_reading());
    let mut session = MemorySession::with_config(RateLimited::new(probe, TEN_BYTES), timeless());
    session.receive(b"0123456789ab");
    assert_eq!(log.count("woken"), 1);
    session.advance(seconds(60));
    assert_eq!(log.count("data"), 1, "{:?}", log.entries());
}

#[test]
fn what_was_read_is_shown_before_the_news_of_a_shutdown() {
    let log = Log::default();
    let probe = Probe::new(&log)
        .data(|data, _| Ok(data.len().min(4)))
        .shutdown(|transport| transport.close());
    let mut session = MemorySession::with_config(RateLimited::new(probe, TEN_BYTES), timeless());
    session.receive(b"0123456789abcdef");
    session.shutdown();
    assert_eq!(
        log.entries()[1..],
        [
            "data 0123456789",
            "data 456789",
            "data 89",
            "data abcdef",
            "data ef",
            "shutdown",
            "lost closed by the server's shutdown"
        ],
    );
}

#[test]
fn an_error_of_the_protocol_ends_the_connection_at_once() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|_, _| Err(ProtocolError::malformed("no")));
    let mut session = MemorySession::with_config(RateLimited::new(probe, TEN_BYTES), timeless());
    session.receive(&noise(50));
    assert!(matches!(session.reason(), Some(CloseReason::Protocol(_))));
}

#[test]
fn without_a_limit_nothing_waits() {
    assert!(RateLimit::default().is_unlimited());
    assert!(!TWO_MESSAGES.is_unlimited());
    assert!(TEN_BYTES.with_bytes(0).is_unlimited());
    let mut session = limited(RateLimit::new());
    session.receive(&noise(100_000));
    assert_eq!(session.sent().len(), 100_000);
}

#[test]
fn a_limit_is_small() {
    assert!(size_of::<RateLimited<Echo>>() <= 112);
}

#[test]
fn rates_beyond_every_machine_are_allowed() {
    for per_second in [1_000_000_007, u64::MAX] {
        let limit = RateLimit::new().with_bytes(per_second);
        for burst in [Duration::ZERO, seconds(1), Duration::MAX] {
            let mut session = limited(limit.with_messages(per_second).with_burst(burst));
            session.receive(&noise(1_000));
            session.advance(seconds(1));
            assert_eq!(session.sent().len(), 1_000, "{per_second} {burst:?}");
        }
    }
}

#[test]
fn a_hostile_network_loses_no_byte_of_a_limited_peer() {
    let limit = RateLimit::new().with_bytes(40).with_messages(20);
    Simulation::new(move || move |_: &Peer| Some(RateLimited::new(Echo, limit)))
        .client(Exchange::new(noise(100), noise(100)))
        .client(Exchange::new("short", "short"))
        .run(0..200);
}

/// The bytes take as long as the rate says, all of them arrive, and the wait is counted.
#[test]
fn a_peer_waits_in_every_model_and_is_counted() {
    const RATE: u64 = 100_000;
    let limit = RateLimit::new().with_bytes(RATE).with_burst(millis(50));
    for model in Model::ALL {
        let factory = move |_: &Peer| Some(RateLimited::new(Echo, limit));
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), factory);
        let all = noise(25_000);

        let begin = Instant::now();
        let mut client = server.client();
        client.write_all(&all).unwrap();
        finish(&client);
        let (echoed, _) = read_to(&mut client);
        assert!(echoed == all, "{model:?}: {} bytes", echoed.len());
        assert!(begin.elapsed() >= millis(200), "{model:?}");

        let statistics = server.end();
        assert_eq!(statistics.rate_limited, 1, "{model:?} {statistics:?}");
    }
}

/// A wait ends with the server, but not before what has arrived was shown.
#[test]
fn a_shutdown_ends_the_wait_in_every_model() {
    let limit = TEN_BYTES.with_messages(1);
    for model in Model::ALL {
        let factory = move |_: &Peer| Some(RateLimited::new(Echo, limit));
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), factory);
        let mut client = server.client();
        client.write_all(&noise(3_000)).unwrap();
        expect(&mut client, &noise(10));
        server.handle.shutdown();
        let (rest, end) = read_to(&mut client);
        assert!(
            rest == noise(3_000)[10..],
            "{model:?}: {} bytes",
            rest.len()
        );
        assert_eq!(end, End::Eof, "{model:?}");

        let statistics = server.end();
        assert_eq!(statistics.closed_by_shutdown, 1, "{model:?}");
    }
}

#[test]
fn datagrams_are_shown_whole() {
    let peer = Peer::new("udp://127.0.0.1:9".parse().unwrap(), Some(0));
    let mut session = MemorySession::with_peer(RateLimited::new(Echo, TEN_BYTES), timeless(), peer);
    session.receive(&noise(1_000));
    assert_eq!(session.sent().len(), 1_000);
}

/// The rest of a long message is usually read as fast as it comes.
#[test]
fn a_long_message_comes_no_faster() {
    let large = Config {
        limits: Limits {
            max_frame: 8 << 20,
            ..timeless().limits
        },
        ..timeless()
    };
    let limit = RateLimit::new().with_bytes(1_000);
    let mut session = MemorySession::with_config(RateLimited::new(shout(), limit), large);
    session.receive(&4_000_000_u32.to_be_bytes());
    for _ in 0..40 {
        session.receive(&[0; 100_000]);
    }
    assert!(session.held() < 300_000, "{} bytes", session.held());
}
