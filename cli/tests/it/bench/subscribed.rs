//! `serveloop bench --subscribe`: one publishes, and all others are sent everything.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{bench, measured, results};
use crate::support::served::{Outcome, Served};

#[test]
fn every_room_of_ours_delivers_everything_in_order() {
    for protocol in [
        &[][..],
        &["--protocol", "websocket"],
        &["--protocol", "resp"],
    ] {
        let models = ["--compare", "event-loop,workers=2,threaded"];
        let load = ["--subscribe", "--connections", "5", "--depth", "3"];
        let results = results(&[&load[..], &models, protocol].concat());
        assert_eq!(results.len(), 3);
        for result in &results {
            assert_eq!(result["subscribe"], true);
            assert!(measured(result, "/per_second/median") > 0.0, "{protocol:?}");
            assert!(measured(result, "/latency_microseconds/p50/median") > 0.0);
            assert!(measured(result, "/server_microseconds_per_message/median") > 0.0);
            let lost = &result["measured"]["deliveries"];
            assert_eq!((&lost["lost"], &lost["reordered"]), (&0.into(), &0.into()));
        }
    }
}

#[test]
fn a_rate_counts_for_each_subscriber() {
    let load = [
        "--subscribe",
        "--connections",
        "4",
        "--rate",
        "100",
        "--size",
        "100",
    ];
    let outcome = Outcome::new(
        &[
            &["bench", "--rounds", "1", "--duration", "500ms"],
            &load[..],
            &["--compare", "event-loop"],
        ]
        .concat(),
    );
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stdout.contains("deliveries/s"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome
            .stdout
            .contains("4 connections, chat, one to all, 100 B, 100 messages/s"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("0 deliveries lost, 0 out of order"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn running_servers_are_asked_too() {
    for (protocol, options) in [("chat", &[][..]), ("resp", &["--protocol", "resp"])] {
        let server = Served::new(&[protocol, "--listen", "tcp://127.0.0.1:0"]);
        let load = [
            "--subscribe",
            "--connections",
            "3",
            "--target",
            server.uri(0),
        ];
        let results = results(&[&load[..], options].concat());
        assert_eq!(results[0]["protocol"], protocol);
        assert!(measured(&results[0], "/per_second/median") > 0.0);
    }
    // A server without a room sends nothing to others.
    let echo = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let load = ["--subscribe", "--connections", "2", "--timeout", "300ms"];
    let outcome = bench(&[&load[..], &["--target", echo.uri(0)]].concat());
    assert_eq!(outcome.code, Some(1));
    let expected = "2 subscribers have been sent nothing after 300ms";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}

/// The first client is the publisher.
fn tell_others(all: &[TcpStream], lines: &str) {
    for mut other in all.iter().skip(1) {
        // It may have left.
        let _ = other.write_all(lines.as_bytes());
    }
}

/// A room that has each line go through `change` before all others get what that returns.
fn room(change: impl Fn(usize, String) -> Vec<String> + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", listener.local_addr().expect("its address"));
    let all: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (all, change) = (Arc::clone(&all), change.clone());
            let reader = BufReader::new(stream.try_clone().expect("a descriptor"));
            all.lock().expect("no panic").push(stream);
            thread::spawn(move || {
                for (number, line) in reader.lines().map_while(Result::ok).enumerate() {
                    let lines = change(number, line).concat();
                    tell_others(&all.lock().expect("no panic"), &lines);
                }
            });
        }
    });
    uri
}

#[test]
fn what_is_lost_or_out_of_order_is_counted() {
    let target = |uri: &str| {
        let load = ["--subscribe", "--connections", "2", "--rate", "500"];
        let method = ["--rounds", "1", "--duration", "200ms", "--timeout", "3s"];
        Outcome::new(&[&["bench", "--target", uri], &load[..], &method].concat())
    };

    let whole = room(|_, line| vec![line + "\n"]);
    assert_eq!(target(&whole).code, Some(0));

    let losing = room(|number, line| match number % 20 {
        19 => Vec::new(),
        _ => vec![line + "\n"],
    });
    let outcome = target(&losing);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains(" deliveries were lost, and 0 out of order"),
        "{}",
        outcome.stderr
    );
    assert!(
        !outcome.stderr.contains(": 0 deliveries"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stdout.contains("deliveries lost"),
        "{}",
        outcome.stdout
    );

    let twice = room(|number, line| match number % 20 {
        19 => vec![line.clone() + "\n", line + "\n"],
        _ => vec![line + "\n"],
    });
    let outcome = target(&twice);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains(": 0 deliveries were lost, and"),
        "{}",
        outcome.stderr
    );

    let changing = room(|number, line| match number {
        30.. => vec![line.replace("abc", "abd").replace("bcd", "bce") + "\n"],
        _ => vec![line + "\n"],
    });
    let outcome = target(&changing);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("a message arrived changed"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn what_makes_no_sense_for_subscribers_is_refused() {
    for (arguments, part) in [
        (&["--churn"][..], "--subscribe cannot be used with --churn"),
        (&["--idle", "3"], "--subscribe cannot be used with --idle"),
        (
            &["--size", "20"],
            "--size: expected 43 or more with --subscribe",
        ),
        (&["--protocol", "http"], "--subscribe is for chat"),
        (&["--protocol", "echo"], "--subscribe is for chat"),
        (
            &["--send", "x", "--until", "y"],
            "--subscribe cannot be used with --send",
        ),
        (&["--until", "y"], "--subscribe cannot be used with --until"),
        (
            &["--length-prefix", "u8"],
            "--subscribe cannot be used with --length-prefix",
        ),
        (&["--any-reply"], "--any-reply needs"),
        (&["--path", "/"], "--path needs"),
        (
            &["--target", "tls://127.0.0.1:9"],
            "--subscribe is for servers without TLS",
        ),
    ] {
        let outcome = Outcome::new(&[&["bench", "--subscribe"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(part),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
    let forking = [
        "--subscribe",
        "--connections",
        "1",
        "--compare",
        "forking,sequential",
    ];
    let results = results(&forking);
    assert_eq!(
        results[0]["skipped"],
        "processes do not share their clients"
    );
    assert_eq!(results[1]["skipped"], "serves one connection at a time");
}
