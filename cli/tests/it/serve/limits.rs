//! Limits that are given as options are in force.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::served::{Outcome, PATIENCE, Served};
use crate::support::sockets::Stream;

/// Runs a server on a TCP port of its own.
#[track_caller]
fn serve(arguments: &[&str]) -> Served {
    let listen = ["--listen", "tcp://127.0.0.1:0"];
    Served::new(&[arguments, &listen].concat())
}

#[test]
fn one_connection_too_many_is_closed() {
    let served = serve(&["echo", "--max-connections", "1"]);
    let mut first = served.connect();
    first.send("first");
    first.expect("first");
    served.connect().expect_cut();
    served.logged("refused: 1 connection is open");
    first.send("still served");
    first.expect("still served");
}

#[test]
fn an_idle_connection_is_closed() {
    let served = serve(&["echo", "--idle-timeout", "100ms"]);
    let began = Instant::now();
    let mut client = served.connect();
    client.send("once");
    client.expect("once");
    client.expect_end();
    assert!(began.elapsed() >= Duration::from_millis(100));
    served.signal(Signal::TERM);
    served.logged("closed_timeout_idle 1");
}

/// A listener's own limits come before those for all.
#[test]
fn a_listener_has_limits_of_its_own() {
    let (hasty, patient) = (
        "tcp://127.0.0.1:0?idle-timeout=300ms&max-line=8",
        "tcp://127.0.0.1:0?idle-timeout=0&max-line=14",
    );
    let listens = ["--listen", hasty, "--listen", patient];
    let hello = [
        "hello",
        "--framing",
        "line",
        "--delay",
        "0",
        "--idle-timeout",
        "30s",
    ];
    let served = Served::new(&[&hello[..], &listens].concat());
    let mut cut = Stream::connect(served.uri(0));
    cut.expect("Welcome!\n");
    cut.expect_end();

    let mut kept = Stream::connect(served.uri(1));
    kept.expect("Welcome!\n");
    kept.send("12345678\n");
    kept.expect("Hello,12345678\n");
    kept.send("123456789012345\n");
    kept.expect_end();
    served.logged("message too long");
}

#[test]
fn a_listeners_limits_are_checked() {
    for (listen, said) in [
        (
            "tcp://127.0.0.1:0?idle-timeout=soon",
            "idle-timeout: expected a duration",
        ),
        (
            "tcp://127.0.0.1:0?idle-timout=1s",
            "the nearest is idle-timeout",
        ),
        (
            "tcp://127.0.0.1:0?low-water=1MiB",
            "low_water must be less than high_water",
        ),
    ] {
        let refused = Outcome::new(&["serve", "echo", "--listen", listen]);
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("tcp://127.0.0.1:0?"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn options_may_stand_before_the_protocol() {
    let served = serve(&["--first-message-timeout", "50ms", "echo"]);
    served.connect().expect_end();
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    let served = serve(&["hello", "--framing", "line", "--max-line", "8"]);
    let mut client = served.connect();
    client.expect("Welcome!\n");
    client.send("much too long\n");
    client.expect_end();
    served.logged("message too long");
}

#[test]
fn a_drain_has_an_end() {
    let served = serve(&["hello", "--delay", "30s", "--drain-timeout", "50ms"]);
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("bob");
    served.signal(Signal::TERM);
    client.expect_cut();
    served.logged("closed_timeout_drain 1");
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn one_peers_connections_are_limited_in_every_model() {
    for model in ["event-loop", "threaded", "forking"] {
        let limits = ["--max-per-peer", "1", "--limit-loopback", "true"];
        let served = serve(&[&["echo", "--model", model], &limits[..]].concat());
        let mut first = served.connect();
        first.send("first");
        first.expect("first");
        served.connect().expect_cut();
        served.logged("refused: 1 connection from this peer is open");
        first.finish();
        first.expect_end();
        drop(first);
        // Its place is free when its end was noticed.
        let began = Instant::now();
        while !served.connect().echoes() {
            assert!(began.elapsed() < PATIENCE, "{model}");
        }
    }
}

#[test]
fn all_connections_together_keep_no_more_than_allowed() {
    for model in ["event-loop", "threaded", "forking"] {
        let budget = ["--max-buffered", "128KiB", "--max-output", "64KiB"];
        let lines = ["hello", "--framing", "line", "--max-line", "1MiB"];
        let model = ["--model", model];
        let served = serve(&[&lines[..], &budget[..], &model[..]].concat());
        let mut client = served.connect();
        // A line that is never complete.
        client.send_if_wanted(&"x".repeat(1 << 20));
        served.logged("ended to keep buffers within their limit");
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn a_client_that_sends_too_fast_waits_in_every_model() {
    let rate = ["--max-bytes-per-second", "20KiB", "--rate-burst", "10ms"];
    for model in ["event-loop", "sequential", "threaded", "forking"] {
        let served = serve(&[&["echo", "--model", model], &rate[..]].concat());
        let began = Instant::now();
        let mut client = served.connect();
        client.send(&"x".repeat(6 << 10));
        client.expect(&"x".repeat(6 << 10));
        assert!(began.elapsed() >= Duration::from_millis(290), "{model}");

        client.finish();
        client.expect_end();
        served.signal(Signal::TERM);
        served.logged("rate_limited 1");
    }
}

#[test]
fn messages_are_limited_whatever_their_length() {
    let rate = ["--max-messages-per-second", "20", "--rate-burst", "0"];
    let lines = ["hello", "--framing", "line", "--delay", "0"];
    let served = serve(&[&lines[..], &rate[..]].concat());
    let began = Instant::now();
    let mut client = served.connect();
    client.send("a\nb\nc\nexit\n");
    client.expect("Welcome!\nHello,a\nHello,b\nHello,c\n");
    client.expect_end();
    assert!(began.elapsed() >= Duration::from_millis(150));
}

/// What an option makes larger than the limit around it takes that along.
#[test]
fn limits_that_nobody_gave_make_room() {
    for option in [
        "--max-frame=512MiB",
        "--max-line=512MiB",
        "--high-water=512MiB",
        "--high-water=1KiB",
        "--max-output=512MiB",
        "--max-output=1KiB",
        "--max-buffered=16KiB",
    ] {
        let served = serve(&["echo", option]);
        assert!(served.connect().echoes(), "{option}");
    }
}

#[test]
fn a_longer_line_finds_room() {
    let line = "x".repeat(3 << 20);
    let served = serve(&[
        "hello",
        "--framing",
        "line",
        "--delay",
        "0",
        "--max-line",
        "4MiB",
    ]);
    let mut client = served.connect();
    client.expect("Welcome!\n");
    client.send(&line);
    client.send("\n");
    client.expect("Hello,xxx");
}

#[test]
fn a_longer_request_finds_room() {
    let served = serve(&["command", "--allow", "echo", "--max-request", "4MiB"]);
    // Blanks between words are none of the program's.
    let request = format!("echo {}hi", " ".repeat(3 << 20));
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    let mut client = served.connect();
    client.send_bytes(&length);
    client.send(&request);
    client.expect("\0\0\0\x03hi\n");
}
