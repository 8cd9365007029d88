//! quinn's state machine as a client, over a bad link in virtual time.

use std::time::Duration;

use serveloop_quic_echo::{Settings, Validation};

use crate::support::link::{Badness, Run};
use crate::support::{server, wordy_server};

const GOOD: Badness = Badness {
    lost: 0,
    doubled: 0,
    damaged: 0,
    congested: 0,
    delay: Duration::from_millis(10),
    jitter: Duration::ZERO,
};

const BAD: Badness = Badness {
    lost: 5,
    doubled: 5,
    damaged: 2,
    congested: 0,
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(3),
};

fn settings(seed: u64) -> Settings {
    Settings {
        seed: Some([seed as u8; 32]),
        ..Settings::default()
    }
}

/// Returns how many seeds are to be tried: `usual`, or what `SERVELOOP_SEEDS` says.
fn seeds(usual: u64) -> u64 {
    let asked = std::env::var("SERVELOOP_SEEDS").ok();
    asked.map_or(usual, |text| {
        text.parse().expect("SERVELOOP_SEEDS is a number")
    })
}

fn echo(seed: u64, size: usize, badness: Badness, settings: &Settings) -> Run {
    let mut run = Run::new(server(settings), seed, size, badness);
    run.finish();
    assert_eq!(run.echoed(), size, "seed {seed}: {:?}", run.lost());
    let reason = run.session.reason().unwrap();
    assert!(!reason.is_error(), "seed {seed}: {reason}");
    run
}

#[test]
fn a_good_link_needs_one_session_and_few_round_trips() {
    let run = echo(1, 10_000, GOOD, &settings(1));
    assert_eq!(run.sessions, 1);
    // The handshake and the echo take two round trips of 20 ms, and the farewell a little longer.
    assert!(
        run.elapsed() < Duration::from_millis(500),
        "{:?}",
        run.elapsed()
    );
    // No datagram is longer than every path takes.
    assert_eq!(run.deeds().longest, 1_200);
}

#[test]
fn streams_survive_loss_doubles_damage_and_reordering() {
    let mut damaged = 0;
    for seed in 0..seeds(12) {
        let run = echo(seed, 100_000, BAD, &settings(seed));
        let deeds = run.deeds();
        damaged += deeds.damaged;
        let all = [deeds.lost, deeds.doubled, deeds.reordered];
        assert!(all.iter().all(|count| *count > 0), "seed {seed}: {deeds:?}");
    }
    assert!(damaged > 0);
}

#[test]
fn a_terrible_link_is_slow_and_loses_nothing() {
    let terrible = Badness {
        lost: 10,
        doubled: 20,
        jitter: Duration::from_millis(50),
        ..BAD
    };
    for seed in 1_000_000..1_000_000 + seeds(4) {
        // Time enough for eight attempts, each of which may wait twice as long as the one before.
        let patient = Settings {
            idle_timeout: Duration::from_secs(300),
            ..settings(seed)
        };
        echo(seed, 20_000, terrible, &patient);
    }
}

#[test]
fn sixteen_mib_cross_a_lossy_link() {
    let lossy = Badness {
        lost: 1,
        damaged: 0,
        ..BAD
    };
    let run = echo(8, 16 << 20, lossy, &settings(8));
    assert!(run.deeds().lost > 200, "{:?}", run.deeds());
}

/// Each end validates that its marks arrive, and stops to mark if they do not.
#[test]
fn both_ends_mark_what_they_send_as_long_as_the_other_reports_marks() {
    for seed in 0..seeds(5) {
        let run = echo(seed, 300_000, GOOD, &settings(seed));
        let marked = run.deeds().marked;
        assert!(marked.iter().all(|count| *count > 100), "{marked:?}");
        assert_eq!(run.congestion_events(), 0, "seed {seed}");
    }

    // Without the option the server reports none, and its own are reported by the client.
    let mut run = Run::new(server(&settings(1)), 1, 300_000, GOOD);
    run.is_told = false;
    run.finish();
    let [client, server] = run.deeds().marked;
    assert_eq!(client, 0);
    assert!(server > 100, "{server}");
}

/// A router that marks in place of dropping slows both ends down, and nothing is lost.
#[test]
fn marks_of_a_router_are_reported() {
    let congested = Badness {
        congested: 5,
        ..GOOD
    };
    for seed in 0..seeds(5) {
        let run = echo(seed, 300_000, congested, &settings(seed));
        assert!(run.deeds().congested > 0);
        assert!(run.congestion_events() > 0, "seed {seed}");
        let marked = run.deeds().marked;
        assert!(marked.iter().all(|count| *count > 100), "{marked:?}");
    }
}

#[test]
fn a_retry_costs_a_session_that_ends_at_once() {
    let by_retry = Settings {
        validation: Validation::ByRetry,
        ..settings(3)
    };
    let run = echo(3, 10_000, GOOD, &by_retry);
    assert_eq!(run.sessions, 2);

    for seed in 2_000_000..2_000_000 + seeds(4) {
        echo(seed, 50_000, BAD, &by_retry);
    }
}

#[test]
fn a_long_handshake_is_completed() {
    let mut run = Run::new(wordy_server(&settings(4)), 4, 10_000, GOOD);
    run.finish();
    assert_eq!(run.echoed(), 10_000, "{:?}", run.lost());
}

#[test]
fn a_socket_without_room_stops_the_echo_and_then_goes_on() {
    // So much is on its way that the transport is full before the window of congestion is.
    let long = Badness {
        delay: Duration::from_millis(100),
        ..GOOD
    };
    let mut run = Run::new(server(&settings(5)), 5, 3 << 20, long);
    run.pass(Duration::from_millis(2_000));
    let before = run.echoed();
    assert!(before > 0 && before < 2 << 20, "{before}");

    run.session.stop_taking();
    run.pass(Duration::from_millis(2_000));
    let waiting = run.session.waiting();
    assert!(waiting >= 64 * 1024, "only {waiting} bytes wait");
    assert!(waiting < 64 * 1024 + 1_200, "{waiting} bytes wait");

    // More is made as soon as there is room. This much is lost, besides.
    run.session.take_in_steps(usize::MAX);
    let resumed = run.session.take_datagrams();
    assert!(resumed.iter().map(Vec::len).sum::<usize>() > waiting);
    run.finish();
    assert_eq!(run.echoed(), 3 << 20, "{:?}", run.lost());
}

#[test]
fn a_shutdown_tells_the_client() {
    let mut run = Run::new(server(&settings(6)), 6, 4 << 20, GOOD);
    run.pass(Duration::from_millis(200));
    run.session.shutdown();
    // Who has not heard it yet can still ask.
    assert!(run.session.reason().is_none());

    run.finish();
    let lost = run.lost().unwrap();
    assert!(lost.contains("the server shuts down"), "{lost}");
}

/// The session stays until its connection is drained, and tells again who goes on.
#[test]
fn a_farewell_that_is_lost_is_said_again() {
    let mut run = Run::new(server(&settings(8)), 8, 4 << 20, GOOD);
    run.pass(Duration::from_millis(200));
    run.session.shutdown();
    let lost = run.session.take_datagrams();
    assert!(!lost.is_empty(), "nothing was said");
    assert!(run.session.reason().is_none());

    run.finish();
    let told = run.lost().unwrap();
    assert!(told.contains("the server shuts down"), "{told}");
    run.pass(Duration::from_secs(5));
    let reason = run.session.reason().expect("it is drained by now");
    assert!(!reason.is_error(), "{reason}");
}

#[test]
fn a_client_that_falls_silent_is_forgotten() {
    let silent = Badness { lost: 100, ..GOOD };
    let mut run = Run::new(server(&settings(7)), 7, 4 << 20, GOOD);
    run.pass(Duration::from_millis(200));
    assert_eq!(run.session.protocol().connections(), 1);

    run.become_bad(silent);
    run.pass(Duration::from_secs(29));
    assert!(run.session.reason().is_none());
    run.pass(Duration::from_secs(3));
    let reason = run.session.reason().unwrap();
    assert!(!reason.is_error(), "{reason}");
}
