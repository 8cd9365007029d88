//! Signals in bulk, at bad moments, and a process that is stopped for a while.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::project::scenarios::{Subject, TCP, can, echoes, expect, run_by, size};
use crate::support::served::{Served, serveloop};
use crate::support::sockets::Directory;

#[test]
fn being_stopped_and_continued_has_no_effect_on_a_transfer() {
    let subject = Subject::new(&["echo"]);
    let bytes: Vec<u8> = (0..=250).cycle().take(4 << 20).collect();
    let mut client = subject.client();
    let mut writer = client.try_clone().expect("a socket");
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&bytes).expect("an open connection");
            writer.shutdown(Shutdown::Write).expect("a connection");
        });
        scope.spawn(|| {
            expect(&mut client, &bytes);
            assert_eq!(client.read(&mut [0]).expect("an end"), 0);
        });
        for _ in 0..200 {
            subject.served.signal(Signal::STOP);
            subject.served.signal(Signal::CONT);
            // These need no handler.
            subject.served.signal(Signal::WINCH);
            subject.served.signal(Signal::PIPE);
        }
    });
    drop((client, writer));
    assert_eq!(subject.end().number("closed_by_peer"), 1);
}

/// Time goes on while the process is stopped. Data that arrived meanwhile counts before deadlines do.
#[test]
fn what_came_while_the_process_stood_still_is_read_before_anybody_is_late() {
    const STILL: Duration = Duration::from_millis(700);
    let subject = Subject::new(&["echo", "--idle-timeout", "400ms"]);
    let mut talker = subject.client();
    let mut silent = subject.client();
    echoes(&mut talker, b"before");
    echoes(&mut silent, b"before");
    subject.served.signal(Signal::STOP);
    talker.write_all(b"meanwhile").expect("the system's buffer");
    thread::sleep(STILL);
    subject.served.signal(Signal::CONT);
    expect(&mut talker, b"meanwhile");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    drop((talker, silent));
    let counts = subject.end();
    assert!(counts.number("closed_timeout_idle") >= 1, "{counts:?}");
    assert_eq!(counts.number("bytes_written"), 21, "{counts:?}");
}

#[test]
fn a_crowd_in_mid_transfer_loses_nothing_by_a_shutdown() {
    let subject = Subject::new(&["echo", "-q"]);
    let piece: Vec<u8> = (0..=250).cycle().take(20_000).collect();
    let mut crowd: Vec<_> = (0..size(1_000, 200)).map(|_| subject.client()).collect();
    for client in &mut crowd {
        echoes(client, b"begin");
        client.write_all(&piece).expect("an open connection");
    }
    subject.served.signal(Signal::TERM);
    for client in &mut crowd {
        expect(client, &piece);
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    }
    let (status, _) = subject.served.end();
    assert_eq!(status.code(), Some(0));
}

/// Whenever the signal comes, the process ends, by it or in order, and leaves no socket's file.
#[test]
fn a_signal_during_the_start_ends_it() {
    for delay in 0..20 {
        let directory = Directory::new();
        let unix = directory.uri("unix", "socket");
        let served = Served::spawn_unheard(serveloop(&["serve", "echo", "--listen", &unix]));
        thread::sleep(Duration::from_micros(250 * delay));
        served.signal(Signal::TERM);
        // Standard output may have the line, or not.
        let status = served.status();
        let is_in_order = status.code() == Some(0);
        let is_by_signal = status.signal() == Some(Signal::TERM.as_raw());
        assert!(is_in_order || is_by_signal, "{status:?}");
        assert!(!directory.path("socket").exists(), "{status:?}");
    }
}

/// Wrappers, `timeout` and process groups send a signal twice. That is one request: replies that are
/// owed are sent.
#[test]
fn signals_at_once_are_one() {
    for _ in 0..5 {
        let subject = Subject::new(&["hello", "--delay", "100ms"]);
        let mut client = subject.client();
        expect(&mut client, b"Welcome!");
        client.write_all(b"bob").expect("an open connection");
        subject.served.signal(Signal::TERM);
        subject.served.signal(Signal::TERM);
        subject.served.signal(Signal::INT);
        expect(&mut client, b"Hello,bob");
        let (status, _) = subject.served.end();
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_shutdown_while_accepting_pauses_is_orderly() {
    let few = ["prlimit", "--nofile=16:16"];
    if !can(few[0], &[few[1], "true"]) {
        return;
    }
    let pause = ["--accept-pause", "60s", "--reserved-descriptors", "0"];
    let command = run_by(&few, &[&["echo"][..], &pause, &TCP].concat());
    let subject = Subject::of(Served::spawn(command));
    let mut clients: Vec<_> = (0..16).map(|_| subject.client()).collect();
    subject.served.logged("cannot accept for now");
    echoes(&mut clients[0], b"inside");
    subject.served.signal(Signal::TERM);
    assert_eq!(clients[0].read(&mut [0]).expect("an end"), 0);
    let (status, log) = subject.served.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
}
