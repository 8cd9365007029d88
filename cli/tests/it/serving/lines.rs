//! What the log says of connections: one line for each event, under one name.

use std::process::Command;

use rustix::process::Signal;
use socket2::SockRef;

use crate::support::served::{MODELS, Served};
use crate::support::sockets::{Stream, socket_addr};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

const PROTOCOLS: [&[&str]; 12] = [
    &["echo"],
    &["discard"],
    &["hello"],
    &["greet"],
    &["print"],
    &["timestamp"],
    &["dispatch"],
    &["operator"],
    &["command", "--allow", "true"],
    &["memcached"],
    &["resp"],
    &["websocket"],
];

/// Whether a line comes from the one name that everything here is logged under, and is no other's.
fn has_the_name(line: &str) -> bool {
    let head = line.split(']').next().unwrap_or_default();
    head.ends_with(" serveloop")
}

fn lines_about<'a>(log: &'a [String], name: &str) -> Vec<&'a String> {
    let about = format!("{name}: ");
    log.iter().filter(|line| line.contains(&about)).collect()
}

/// Serves one client that comes and goes in order. Returns its name and the log.
fn come_and_go(arguments: &[&str]) -> (String, Vec<String>) {
    let served = Served::new(&[arguments, &TCP].concat());
    let mut client = served.connect();
    let name = client.name();
    client.finish();
    client.receive_rest();
    served.signal(Signal::TERM);
    (name, served.status_and_log())
}

#[test]
fn every_protocol_logs_who_comes_and_goes_once() {
    for protocol in PROTOCOLS {
        for level in [&[][..], &["-v"]] {
            let (name, log) = come_and_go(&[protocol, level].concat());
            let lines = lines_about(&log, &name);
            assert_eq!(lines.len(), 2, "{protocol:?} {log:?}");
            assert!(
                lines[0].contains("accepted") && lines[1].contains("closed"),
                "{lines:?}"
            );
            assert!(log.iter().all(|line| has_the_name(line)), "{log:?}");
        }
    }
}

#[test]
fn every_model_logs_who_comes_and_goes_once() {
    for model in MODELS {
        for level in [&[][..], &["-v"]] {
            let (name, log) = come_and_go(&[&["echo"], model, level].concat());
            assert_eq!(lines_about(&log, &name).len(), 2, "{model:?} {log:?}");
            assert!(log.iter().all(|line| has_the_name(line)), "{log:?}");
        }
    }
}

/// At any level, and whether it is the first of its kind in that second or not.
#[test]
fn a_bad_end_is_one_line() {
    for model in MODELS {
        for level in [&[][..], &["-v"]] {
            let frame = ["--max-line", "10", "hello", "--framing", "line"];
            let served = Served::new(&[&frame[2..], &frame[..2], &TCP, model, level].concat());
            let mut names = Vec::new();
            for _ in 0..3 {
                let mut client = served.connect();
                client.expect("Welcome!");
                client.send("this is more than a line\n");
                client.receive_rest();
                names.push(client.name());
            }
            served.signal(Signal::TERM);
            let log = served.status_and_log();
            for name in names {
                let lines = lines_about(&log, &name);
                assert_eq!(lines.len(), 2, "{model:?} {level:?} {log:?}");
                assert!(lines[1].contains("message too long"), "{lines:?}");
            }
        }
    }
}

/// A load balancer looks after a server by connecting and resetting, every second.
#[test]
fn resets_are_no_warnings_and_end_what_was_accepted() {
    for model in MODELS {
        for protocol in [&["echo"][..], &["hello"], &["discard"]] {
            let served = Served::new(&[protocol, &TCP, model].concat());
            let mut names = Vec::new();
            for _ in 0..5 {
                let client = std::net::TcpStream::connect(socket_addr(served.uri(0)));
                let client = client.expect("a listener");
                names.push(format!("tcp://{}", client.local_addr().expect("a port")));
                let now = Some(std::time::Duration::ZERO);
                SockRef::from(&client).set_linger(now).expect("a socket");
            }
            let mut last = served.connect();
            last.send("exit");
            last.finish();
            last.receive_rest();
            served.signal(Signal::TERM);
            let log = served.status_and_log();
            let loud = log.iter().any(|line| line.contains("WARN"));
            assert!(!loud, "{model:?} {protocol:?} {log:?}");
            for name in names {
                let lines = lines_about(&log, &name);
                let ends = lines.iter().filter(|line| !line.ends_with(": accepted"));
                assert_eq!(
                    lines.len(),
                    2 * ends.count(),
                    "{model:?} {protocol:?} {log:?}"
                );
            }
        }
    }
}

#[test]
fn resets_are_counted_and_seen_by_who_asks() {
    for model in MODELS {
        let served = Served::new(&[&["echo"][..], &TCP, model, &["-v"]].concat());
        let mut client = served.connect();
        let name = client.name();
        assert!(client.echoes());
        client.reset();
        served.logged(&format!("{name}: connection failed"));
        served.signal(Signal::TERM);
        let log = served.status_and_log();
        let summary = log.last().expect("a summary");
        assert!(summary.contains("closed_io 1"), "{model:?} {summary}");
        assert!(lines_about(&log, &name).is_empty(), "{model:?} {log:?}");
    }
}

/// Port scanners and browsers connect and say nothing, or leave in the middle of a word.
#[test]
fn who_says_nothing_or_half_is_no_news() {
    for model in MODELS {
        let options = ["--first-message-timeout", "100ms", "--framing", "line"];
        let served = Served::new(&[&["timestamp"][..], &options, &TCP, model].concat());
        served.connect().receive_rest();
        let mut half = served.connect();
        half.send("half a li");
        drop(half);
        let mut last = Stream::connect(served.uri(0));
        last.send("a line\n");
        last.receive_line();
        drop(last);
        served.signal(Signal::TERM);
        let log = served.status_and_log();
        assert!(
            !log.iter().any(|line| line.contains("WARN")),
            "{model:?} {log:?}"
        );
        let summary = log.last().expect("a summary");
        assert!(
            summary.contains("closed_timeout_first_message 1"),
            "{model:?} {summary}"
        );
    }
}

#[test]
fn the_name_is_what_lines_are_filtered_by() {
    for (filter, shown) in [("serveloop=debug", true), ("other=debug", false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serveloop"));
        command
            .args(["serve", "echo"])
            .args(TCP)
            .env("RUST_LOG", filter)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let served = Served::spawn(command);
        let client = served.connect();
        let name = client.name();
        drop(client);
        if shown {
            served.logged(&format!("DEBUG serveloop] {name}: accepted"));
        }
        served.signal(Signal::TERM);
        let log = served.status_and_log();
        let expected = if shown {
            "DEBUG serveloop] "
        } else {
            "INFO  serveloop] "
        };
        assert!(
            log.iter().any(|line| line.contains(expected)),
            "{filter} {log:?}"
        );
    }
}
