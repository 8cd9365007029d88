//! Limits on connections: those of the configuration, and those of the system.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use serveloop::protocols::{Discard, Echo};
use serveloop::{Config, Limits, Peer, Protocol, Reactor, Server};

use crate::support::scripted::{Script, Scripted};
use crate::support::{Serving, client, echoes, expect, millis, read_to_end, seconds, timeless};

#[test]
fn one_connection_too_many_is_refused_at_once_and_counted() {
    const MOST: usize = 5;
    let config = Config {
        max_connections: MOST,
        ..Config::default()
    };
    let serving = Serving::tcp(config, |_: &Peer| Some(Echo));
    let mut inside: Vec<_> = (0..MOST).map(|_| serving.client()).collect();
    inside
        .iter_mut()
        .for_each(|stream| echoes(stream, b"hello"));
    for refused in 1..=3 {
        assert_eq!(read_to_end(&mut serving.client()), b"");
        let statistics = serving.wait(|it| it.refused_max_connections == refused);
        assert_eq!(statistics.accepted, MOST as u64);
    }
    inside.pop();
    serving.wait(|statistics| statistics.closed() == 1);
    inside.push(serving.client());
    inside
        .iter_mut()
        .for_each(|stream| echoes(stream, b"hello"));
    drop(inside);
    let statistics = serving.end();
    assert_eq!(statistics.accepted, MOST as u64 + 1);
    assert_eq!(statistics.refused_max_connections, 3);
}

#[test]
fn a_factory_refuses_whom_it_likes() {
    let mut count = 0;
    let serving = Serving::tcp(Config::default(), move |_: &Peer| {
        count += 1;
        (count % 2 == 0).then_some(Echo)
    });
    for _ in 0..10 {
        assert_eq!(read_to_end(&mut serving.client()), b"");
        echoes(&mut serving.client(), b"hello");
    }
    let statistics = serving.end();
    assert_eq!(
        (statistics.accepted, statistics.refused_by_factory),
        (10, 10)
    );
}

#[test]
fn a_burst_beyond_one_turns_accepts_is_served_without_another_event() {
    const BURST: usize = 100;
    let config = Config {
        accepts_per_turn: 1,
        ..Config::default()
    };
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], config).unwrap();
    let mut streams: Vec<_> = (0..BURST).map(|_| client(&server.addresses()[0])).collect();
    let serving = Serving::with(server, |_: &Peer| Some(Echo));
    for stream in &mut streams {
        echoes(stream, b"hello");
    }
    drop(streams);
    assert_eq!(serving.end().accepted, BURST as u64);
}

#[test]
fn thousands_of_messages_in_one_piece_need_no_other_event() {
    let config = Config {
        messages_per_turn: 3,
        ..Config::default()
    };
    let serving = Serving::tcp(config, |_: &Peer| {
        Some(
            crate::support::probe::Probe::new(&crate::support::probe::Log::default()).data(
                |data, transport| {
                    transport.write(&data[..1]);
                    Ok(1)
                },
            ),
        )
    });
    let mut stream = serving.client();
    echoes(&mut stream, &[b'm'; 3_000]);
    drop(stream);
    serving.end();
}

/// How many bytes one turn reads from a peer that sends without end.
fn read_in_a_turn<P: Protocol>(read_per_turn: usize, protocol: fn() -> P) -> u64 {
    let config = Config {
        read_per_turn,
        limits: Limits {
            idle_timeout: Some(seconds(1)),
            ..timeless().limits
        },
        ..timeless()
    };
    let script = Script::default();
    script.flood();
    let factory = |_: &Peer| Some(protocol());
    let mut reactor = Reactor::with_net(Scripted::new(&script), factory, config).unwrap();
    let at = "tcp://127.0.0.1:1".parse().unwrap();
    reactor.listen(&at).unwrap();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.statistics().bytes_read, 0);
    // No event reports the flood, but before a client is cut off the loop looks at it once.
    reactor.turn(None).unwrap();
    let look = reactor.statistics().bytes_read;
    assert!(look > 0 && look <= 128 << 10, "{look}");
    reactor.turn(None).unwrap();
    reactor.statistics().bytes_read - look
}

#[test]
fn a_turn_reads_from_one_peer_up_to_its_budget() {
    for budget in [1_000, 64 << 10, 128 << 10, 256 << 10] {
        assert_eq!(read_in_a_turn(budget, || Discard), budget as u64);
    }
    // In equal parts, which may make a few bytes more.
    assert_eq!(read_in_a_turn((128 << 10) + 1, || Discard), (128 << 10) + 2);
}

#[test]
fn from_a_peer_that_takes_nothing_no_more_is_read() {
    assert_eq!(read_in_a_turn(256 << 10, || Echo), 0);
}

/// Set in the process that may use up its descriptors.
const CHILD: &str = "SERVELOOP_TEST_DESCRIPTORS";

/// Runs the test of that name in a separate process with this many descriptors. True in that
/// process.
fn in_a_child(name: &str, descriptors: u32) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let outcome = Command::new("sh")
        .args([
            "-c",
            r#"ulimit -n "$0" && exec "$@""#,
            &descriptors.to_string(),
        ])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&outcome.stdout);
    let errors = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}");
    false
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on_by_itself() {
    let name = "reactor::limits::without_descriptors_accepting_pauses_and_goes_on_by_itself";
    if !in_a_child(name, 64) {
        return;
    }
    let config = Config {
        reserved_descriptors: 0,
        ..Config::default()
    };
    let serving = Serving::tcp(config, |_: &Peer| Some(Echo));
    let mut established = serving.client();
    echoes(&mut established, b"hello");
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    // The one descriptor that is left goes to the client's own end.
    hoard.pop();
    let mut waiting = serving.client();
    waiting.write_all(b"let me in").unwrap();
    waiting.set_read_timeout(Some(millis(450))).unwrap();
    let error = waiting.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    echoes(&mut established, b"still there?");
    let before = serving.wait(|statistics| statistics.accept_exhausted > 0);
    assert!(
        (2..=7).contains(&before.accept_exhausted),
        "a pause of 100 ms each: {before:?}"
    );
    assert!(before.turns < 40, "{before:?}");
    // No event reports that descriptors are free again, and no other client connects.
    let begin = Instant::now();
    hoard.clear();
    waiting.set_read_timeout(Some(seconds(5))).unwrap();
    expect(&mut waiting, b"let me in");
    let took = begin.elapsed();
    assert!(took < millis(400), "{took:?}");
    drop((established, waiting));
    let statistics = serving.end();
    assert_eq!(statistics.accepted, 2, "{statistics:?}");
}

#[test]
fn connections_leave_the_reserved_descriptors_free() {
    let name = "reactor::limits::connections_leave_the_reserved_descriptors_free";
    if !in_a_child(name, 100) {
        return;
    }
    let config = Config {
        reserved_descriptors: 90,
        ..Config::default()
    };
    let serving = Serving::tcp(config, |_: &Peer| Some(Echo));
    let mut inside: Vec<_> = (0..10).map(|_| serving.client()).collect();
    inside
        .iter_mut()
        .for_each(|stream| echoes(stream, b"hello"));
    assert_eq!(read_to_end(&mut serving.client()), b"");
    assert_eq!(
        serving
            .wait(|it| it.refused_max_connections == 1)
            .accept_exhausted,
        0
    );
    drop(inside);
    serving.end();
}
