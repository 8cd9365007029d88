//! `serve --model`: the same dialogues and the same ends, however connections are served.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use rustix::io::Errno;

use crate::signals::shutdown::TOGETHER;
use crate::support::outside::skip;
use crate::support::served::{Outcome, PATIENCE, Served, number_of};
use crate::support::sockets::{Datagrams, Directory};

const MODELS: [&[&str]; 5] = [
    &["--model", "event-loop"],
    &["--workers", "2"],
    &["--model", "sequential"],
    &["--model", "threaded"],
    &["--model", "forking"],
];

/// Less than the default time that a drain may take: a server that needs less was not waiting for its end.
const PROMPT: Duration = Duration::from_secs(8);

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

#[track_caller]
fn serve(model: &[&str], arguments: &[&str]) -> Served {
    Served::new(&[arguments, model].concat())
}

#[test]
fn streams_are_served_the_same_in_every_model() {
    for model in MODELS {
        let directory = Directory::new();
        let unix = directory.uri("unix", "socket");
        for at in ["tcp://127.0.0.1:0", "tcp://[::1]:0", &unix] {
            let echo = serve(model, &["echo", "--listen", at]);
            let mut client = echo.connect();
            client.send("good ");
            client.send("morning");
            client.expect("good morning");
            client.finish();
            client.expect_end();
            echo.signal(Signal::TERM);
            assert_eq!(echo.exit_code(), Some(0), "{model:?}");

            let hello = serve(model, &["hello", "--delay", "20ms", "--listen", at]);
            let mut client = hello.connect();
            client.expect("Welcome!");
            client.send("bob\n");
            client.expect("Hello,bob");
            client.send("exit\n");
            client.expect_end();
            drop(client);
            hello.signal(Signal::TERM);
            assert_eq!(hello.exit_code(), Some(0), "{model:?}");

            let discard = serve(model, &["discard", "--listen", at]);
            let mut client = discard.connect();
            client.send("good morning");
            client.finish();
            client.expect_end();
            discard.signal(Signal::TERM);
            let (status, log) = discard.end();
            assert_eq!(status.code(), Some(0), "{model:?}");
            let expected = "accepted 1, bytes_read 12, bytes_written 0, closed_by_peer 1";
            let summary = log.last().expect("a summary");
            assert!(summary.ends_with(expected), "{model:?} {summary}");
            assert!(!directory.path("socket").exists(), "{model:?}");
        }
    }
}

#[test]
fn datagrams_are_served_the_same_in_every_model() {
    for model in MODELS {
        let directory = Directory::new();
        let unixgram = directory.uri("unixgram", "socket");
        for at in ["udp://127.0.0.1:0", "udp://[::1]:0", &unixgram] {
            let echo = serve(model, &["echo", "--listen", at]);
            let client = Datagrams::connect(echo.uri(0), &directory);
            for text in ["ping", "", "pong"] {
                client.send(text);
                client.expect(text);
            }
            let _ = fs::remove_file(directory.path("client"));
            echo.signal(Signal::TERM);
            assert_eq!(echo.exit_code(), Some(0), "{model:?}");

            let hello = serve(model, &["hello", "--delay", "0", "--listen", at]);
            let client = Datagrams::connect(hello.uri(0), &directory);
            client.send("bob");
            client.expect("Hello,bob");
            let _ = fs::remove_file(directory.path("client"));
            hello.signal(Signal::TERM);
            assert_eq!(hello.exit_code(), Some(0), "{model:?}");
            assert!(!directory.path("socket").exists(), "{model:?}");
        }
    }
}

/// A transfer that the signal comes into: whatever the server says it has read comes back.
#[test]
fn what_was_received_in_a_transfer_is_answered() {
    for model in MODELS {
        let served = serve(model, &[&["echo"][..], &TCP].concat());
        let crowd = if model.contains(&"sequential") { 1 } else { 20 };
        let mut clients: Vec<_> = (0..crowd).map(|_| served.connect()).collect();
        for client in &mut clients {
            client.send("begin");
            client.expect("begin");
        }
        let piece = "0123456789".repeat(3_000);
        for client in &mut clients {
            client.send(&piece);
        }
        let began = Instant::now();
        served.signal(Signal::TERM);
        for mut client in clients {
            client.expect(&piece);
            client.expect_end();
        }
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{model:?}");
        assert!(began.elapsed() < PROMPT, "{model:?}");
        let bytes = crowd * (piece.len() + 5);
        let expected = format!(
            "accepted {crowd}, bytes_read {bytes}, bytes_written {bytes}, closed_by_shutdown {crowd}"
        );
        let summary = log.last().expect("a summary");
        assert!(summary.ends_with(&expected), "{model:?} {summary}");
    }
}

#[test]
fn the_end_of_the_drain_cuts_off_who_is_owed_a_reply() {
    for model in MODELS {
        let hello = ["hello", "--delay", "30s", "--drain-timeout", "200ms"];
        let served = serve(model, &[&hello[..], &TCP].concat());
        let mut client = served.connect();
        client.expect("Welcome!");
        client.send("bob");
        let began = Instant::now();
        served.signal(Signal::TERM);
        client.expect_cut();
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{model:?}");
        assert!(began.elapsed() < PROMPT, "{model:?}");
        let summary = log.last().expect("a summary");
        assert!(
            summary.contains("closed_timeout_drain 1"),
            "{model:?} {summary}"
        );
    }
}

#[test]
fn a_second_signal_ends_every_model() {
    for model in MODELS {
        let served = serve(model, &[&["hello", "--delay", "30s"][..], &TCP].concat());
        let mut client = served.connect();
        client.expect("Welcome!");
        client.send("bob");
        let began = Instant::now();
        served.signal(Signal::TERM);
        if !model.contains(&"sequential") {
            served.logged("shutting down");
        }
        thread::sleep(TOGETHER);
        served.signal(Signal::INT);
        client.expect_cut();
        let code = served.exit_code();
        // Two signals at once may come in any order.
        assert!(matches!(code, Some(130 | 143)), "{model:?} {code:?}");
        assert!(began.elapsed() < PROMPT, "{model:?}");
    }
}

/// A terminal sends its signal to the children too, and so do service managers.
#[test]
fn a_signal_for_the_whole_family_drains() {
    let served = serve(
        &["--model", "forking"],
        &["hello", "--delay", "300ms", TCP[0], TCP[1]],
    );
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("bob");
    let id = served.process_id();
    let path = format!("/proc/{id}/task/{id}/children");
    let Ok(children) = fs::read_to_string(path) else {
        return skip("list of children in /proc");
    };
    let child = children.trim().parse().ok().and_then(Pid::from_raw);
    kill_process(child.expect("one child"), Signal::INT).expect("it still runs");
    served.signal(Signal::INT);
    client.expect("Hello,bob");
    client.expect_end();
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    let summary = log.last().expect("a summary");
    assert!(summary.ends_with("closed_by_shutdown 1"), "{summary}");
}

/// One at a time means that the others wait, not that they are refused.
#[test]
fn a_sequential_server_takes_one_after_the_other() {
    let served = serve(&["--model", "sequential"], &["echo", TCP[0], TCP[1]]);
    let mut first = served.connect();
    first.send("first");
    first.expect("first");
    let mut second = served.connect();
    second.send("second");
    let waiting = thread::spawn(move || second.expect("second"));
    first.send("still first");
    first.expect("still first");
    assert!(!waiting.is_finished());
    drop(first);
    let began = Instant::now();
    waiting.join().expect("the second is served");
    assert!(began.elapsed() < PATIENCE);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn workers_are_for_the_event_loop() {
    for model in ["sequential", "threaded", "forking"] {
        let outcome = Outcome::new(&["serve", "echo", "--model", model, "--workers", "2"]);
        assert_eq!(outcome.code, Some(2), "{model}");
        assert_eq!(outcome.stdout, "", "{model}");
        let expected = "error: --workers is only for --model event-loop";
        assert_eq!(outcome.stderr.trim_end(), expected, "{model}");
    }
    let outcome = Outcome::new(&["serve", "echo", "--workers", "0"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--workers"), "{}", outcome.stderr);
}

/// Workers share their port among themselves, and the system would let other servers join that share it too.
#[test]
fn workers_take_no_share_in_the_port_of_another_server() {
    let others: [&[&str]; 3] = [&[], &["--reuse-port", "true"], &["--workers", "2"]];
    for scheme in ["tcp", "udp"] {
        for other in others {
            let at = format!("{scheme}://127.0.0.1:0");
            let held = serve(other, &["echo", "--listen", &at]);
            let uri = held.uri(0);
            let outcome = Outcome::new(&["serve", "echo", "--workers", "2", "--listen", uri]);
            assert_eq!(outcome.code, Some(1), "{other:?} {}", outcome.stderr);
            assert_eq!(outcome.stdout, "", "{other:?}");
            let said = outcome.stderr;
            assert!(said.starts_with("serveloop: "), "{other:?} {said}");
            assert!(said.contains(uri), "{other:?} {said}");
            assert!(
                said.contains(&number_of(Errno::ADDRINUSE)),
                "{other:?} {said}"
            );
        }
    }
}

/// The counterpart: a server that asks to share the port does.
#[test]
fn workers_share_a_port_when_asked() {
    let share = ["--workers", "2", "--reuse-port", "true"];
    let first = serve(&share, &["echo", TCP[0], TCP[1]]);
    let second = serve(&share, &["echo", "--listen", first.uri(0)]);
    assert_eq!(second.uri(0), first.uri(0));
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));
    let mut client = second.connect();
    client.send("left to the second");
    client.expect("left to the second");
}

/// Looking whether a port is free must not take it.
#[test]
fn workers_take_a_port_that_is_free() {
    let first = serve(&[], &["echo", TCP[0], TCP[1]]);
    let uri = first.uri(0).to_owned();
    let mut client = first.connect();
    client.send("begin");
    client.expect("begin");
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code(), Some(0));
    let second = serve(&["--workers", "2"], &["echo", "--listen", &uri]);
    assert_eq!(second.uri(0), uri);
}
