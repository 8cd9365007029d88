//! What the log says at each level, and that it does not have to be read.

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::served::{Served, serveloop};
use crate::support::sockets::clogged;

/// Serves one client of `protocol` and returns the whole log.
fn log_of(protocol: &str, prepare: impl FnOnce(&mut Command)) -> Vec<String> {
    let mut command = serveloop(&["serve", protocol, "--listen", "tcp://127.0.0.1:0"]);
    prepare(&mut command);
    let served = Served::spawn(command);
    let mut client = served.connect();
    client.send("secret");
    client.finish();
    if protocol == "echo" {
        client.expect("secret");
        client.expect_end();
    } else {
        client.expect("Welcome!");
    }
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    assert!(!log.iter().any(|line| line.contains("secret")), "{log:?}");
    log
}

fn mentions_connections(log: &[String]) -> bool {
    log.iter().any(|line| line.contains(": accepted"))
}

#[test]
fn who_wants_warnings_hears_of_no_connection() {
    let log = log_of("echo", |command| {
        command.env("RUST_LOG", "warn");
    });
    assert_eq!(log, [""; 0]);
}

#[test]
fn verbose_logs_connections() {
    assert!(mentions_connections(&log_of("echo", |command| {
        command.arg("-v");
    })));
}

#[test]
fn the_environment_chooses_the_level_too() {
    assert!(mentions_connections(&log_of("echo", |command| {
        command.env("RUST_LOG", "debug");
    })));
}

#[test]
fn quiet_silences_whatever_the_environment_says() {
    let log = log_of("hello", |command| {
        command.arg("-q").env("RUST_LOG", "debug");
    });
    assert_eq!(log, [""; 0]);
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let (ours, theirs) = clogged();
    let mut command = serveloop(&["serve", "hello", "--listen", "tcp://127.0.0.1:0", "-vv"]);
    command.stderr(theirs);
    let served = Served::spawn(command);
    greet(&served);
    greet(&served);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    drop(ours);
}

#[test]
fn a_log_that_is_full_for_a_while_says_how_much_is_missing() {
    let (mut ours, theirs) = clogged();
    let mut command = serveloop(&["serve", "hello", "--listen", "tcp://127.0.0.1:0"]);
    command.stderr(theirs);
    let served = Served::spawn(command);
    greet(&served);
    ours.set_nonblocking(true).unwrap();
    let mut filling = vec![0; 1 << 20];
    while ours.read(&mut filling).is_ok() {}
    ours.set_nonblocking(false).unwrap();
    greet(&served);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    let mut log = String::new();
    ours.read_to_string(&mut log).unwrap();
    let first = log.lines().next().unwrap();
    assert!(first.ends_with("log lines were dropped)"), "{log}");
    assert!(log.contains("shutting down"), "{log}");
}

#[test]
fn a_log_whose_reader_is_gone_holds_up_nobody() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = serveloop(&["serve", "hello", "--listen", "tcp://127.0.0.1:0", "-v"]);
    command.stderr(Stdio::from(writer));
    let served = Served::spawn(command);
    greet(&served);
    greet(&served);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

/// Half of a crowd's lines come at its end, within a moment.
fn log_of_a_crowd(arguments: &[&str]) -> Vec<String> {
    let listen = ["hello", "--listen", "tcp://127.0.0.1:0"];
    let served = Served::new(&[&listen[..], arguments].concat());
    let mut crowd: Vec<_> = (0..CROWD).map(|_| served.connect()).collect();
    for client in &mut crowd {
        client.expect("Welcome!");
    }
    served.signal(Signal::TERM);
    for client in &mut crowd {
        client.expect_end();
    }
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    let summary = log.last().expect("a summary");
    assert!(summary.contains(&format!("accepted {CROWD}")), "{summary}");
    log
}

const CROWD: usize = 150;

fn left_out(line: &str) -> Option<usize> {
    let (_, count) = line.split_once('(')?;
    let count = count.strip_suffix(" lines about connections were left out)")?;
    count.parse().ok()
}

#[test]
fn a_flood_of_connections_is_no_flood_of_lines() {
    for arguments in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let log = log_of_a_crowd(arguments);
        let written = log.iter().filter(|line| line.contains("serveloop] tcp://"));
        let counts: Vec<_> = log.iter().filter_map(|line| left_out(line)).collect();
        let told = written.count();
        assert!(!counts.is_empty(), "{arguments:?} {log:?}");
        let all = told + counts.iter().sum::<usize>();
        assert_eq!(all, 2 * CROWD, "{arguments:?} {log:?}");
    }
}

#[test]
fn who_asks_for_every_connection_gets_it() {
    let log = log_of_a_crowd(&["-v"]);
    let written = log.iter().filter(|line| line.contains("serveloop] tcp://"));
    assert_eq!(written.count(), 2 * CROWD);
    assert_eq!(log.iter().find_map(|line| left_out(line)), None);
}

#[track_caller]
fn greet(served: &Served) {
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("exit");
    client.expect_end();
}
