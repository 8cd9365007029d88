//! How signals end the server.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::served::{MODELS, Served};
use crate::support::sockets::{Directory, Stream, socket_addr};

/// Less than the time that a drain may take: a server that needs less was not waiting for its end.
const PROMPT: Duration = Duration::from_secs(8);

/// Signals that come this soon after the first are the same request; and a little more.
pub(crate) const TOGETHER: Duration = Duration::from_millis(550);

#[track_caller]
fn serve(arguments: &[&str]) -> Served {
    let listen = ["--listen", "tcp://127.0.0.1:0"];
    Served::new(&[arguments, &listen].concat())
}

#[test]
fn each_signal_drains() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let served = serve(&["echo"]);
        let mut client = served.connect();
        client.send("hello");
        client.expect("hello");
        let began = Instant::now();
        served.signal(signal);
        client.expect_end();
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(began.elapsed() < PROMPT);
        let summary = log.last().unwrap();
        let expected = "accepted 1, bytes_read 5, bytes_written 5, closed_by_shutdown 1";
        assert!(summary.ends_with(expected), "{summary}");
    }
}

#[test]
fn a_server_without_clients_ends_at_once() {
    let directory = Directory::new();
    let served = serve(&["discard", "--listen", &directory.uri("unix", "socket")]);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn what_had_arrived_is_answered_first() {
    let served = serve(&["hello", "--delay", "200ms"]);
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("bob");
    served.signal(Signal::TERM);
    client.expect("Hello,bob");
    client.expect_end();
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn nothing_more_is_accepted() {
    let served = serve(&["hello", "--delay", "30s"]);
    let mut owed = served.connect();
    owed.expect("Welcome!");
    owed.send("bob");
    let mut idle = served.connect();
    idle.expect("Welcome!");
    served.signal(Signal::TERM);
    // The listener goes before the clients are told.
    idle.expect_end();
    let error = TcpStream::connect(socket_addr(served.uri(0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_second_signal_ends_everything() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let served = serve(&["hello", "--delay", "30s"]);
        let mut client = served.connect();
        client.expect("Welcome!");
        client.send("bob");
        let began = Instant::now();
        served.signal(signal);
        served.logged("shutting down");
        thread::sleep(TOGETHER);
        served.signal(signal);
        client.expect_cut();
        assert_eq!(served.exit_code(), Some(code));
        assert!(began.elapsed() < PROMPT);
    }
}

/// A process that forks to serve must not have other threads.
#[test]
fn signals_need_no_thread() {
    let served = serve(&["echo"]);
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", served.process_id())) else {
        return skip("/proc");
    };
    assert_eq!(threads.count(), 1);
}

/// What was served is counted, though the process only waits for its client to close when it is
/// ended.
#[test]
fn a_process_that_only_lingers_has_reported_when_it_is_ended() {
    let served = serve(&["echo", "--model", "forking", "--linger-draining", "50s"]);
    let mut client = served.connect();
    client.send("hello");
    client.expect("hello");
    served.signal(Signal::TERM);
    // It does not close in turn.
    client.expect_end();
    thread::sleep(TOGETHER);
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(143));
    let summary = log.last().expect("a summary");
    let expected = "accepted 1, bytes_read 5, bytes_written 5, closed_by_shutdown 1";
    assert!(summary.ends_with(expected), "{summary}");
}

/// Until the delay is over, new clients are served, in every model.
#[test]
fn a_delayed_drain_serves_until_it_begins() {
    for model in MODELS {
        let delay = [&["echo", "--drain-delay", "1s"], model].concat();
        let served = serve(&delay);
        let uri = served.uri(0).to_owned();
        served.signal(Signal::TERM);
        served.logged("serving goes on for --drain-delay");
        let asked = Instant::now();
        served.signal(Signal::TERM);
        for _ in 0..3 {
            assert!(Stream::connect(&uri).echoes(), "{model:?}");
        }
        served.logged("shutting down");
        let waited = asked.elapsed();
        assert!(waited > Duration::from_millis(800), "{model:?} {waited:?}");
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn a_later_signal_ends_a_delayed_drain_at_once() {
    for model in MODELS {
        let delay = [&["echo", "--drain-delay", "1h"], model].concat();
        let served = serve(&delay);
        let mut client = served.connect();
        assert!(client.echoes());
        served.signal(Signal::INT);
        thread::sleep(TOGETHER);
        assert!(client.echoes(), "{model:?}");
        served.signal(Signal::TERM);
        client.expect_cut();
        assert_eq!(served.exit_code(), Some(143), "{model:?}");
    }
}

/// Without a delay that has begun, an alarm is as harmless as before.
#[test]
fn an_alarm_of_others_begins_no_drain() {
    let served = serve(&["echo", "--drain-delay", "1h"]);
    served.signal(Signal::ALARM);
    assert!(served.connect().echoes());
    served.signal(Signal::TERM);
    thread::sleep(TOGETHER);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(143));
}

#[test]
fn statistics_are_written_on_request() {
    for model in MODELS {
        let served = serve(&[&["echo"], model].concat());
        let mut client = served.connect();
        assert!(client.echoes());
        if model.contains(&"sequential") {
            // The only loop is busy with the client.
            drop(client);
            served.logged("closed by the peer");
            served.signal(Signal::USR1);
            served.logged("SIGUSR1: open 0, accepted 1, ");
        } else {
            served.signal(Signal::USR1);
            served.logged("SIGUSR1: open 1, accepted 1, ");
            drop(client);
        }
        served.signal(Signal::USR1);
        let line = served.logged("SIGUSR1: open ");
        assert!(line.contains("accepted 1, bytes_read "), "{model:?} {line}");
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}
