//! `serve greet`: nine bytes and the end for every client, whatever it sent.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::served::{MODELS, PATIENCE, Served};
use crate::support::sockets::{Datagrams, Directory, Stream};

#[test]
fn every_client_is_greeted_in_every_model() {
    for model in MODELS {
        let directory = Directory::new();
        for at in ["tcp://127.0.0.1:0", &directory.uri("unix", "socket")] {
            let served = Served::new(&[&["greet", "--listen", at], model].concat());
            for _ in 0..3 {
                let mut client = served.connect();
                client.expect("connected");
                client.expect_end();
            }
            served.signal(Signal::TERM);
            assert_eq!(served.exit_code(), Some(0), "{model:?}");
        }
    }
}

/// Closing over unread input makes the system send a reset, which can overtake the greeting.
#[test]
fn the_greeting_reaches_who_is_not_listened_to() {
    let served = Served::new(&["greet", "--listen", "tcp://127.0.0.1:0"]);
    for _ in 0..100 {
        let mut client = served.connect();
        client.send_bytes(&[b'x'; 4_096]);
        let found = client.receive_rest();
        assert_eq!(found, b"connected");
    }
}

/// Clients that neither read nor leave: the others do not wait for them.
#[test]
fn slow_clients_do_not_hold_up_others() {
    for model in [["--model", "threaded"], ["--model", "forking"]] {
        let arguments = ["greet", "--listen", "tcp://127.0.0.1:0", model[0], model[1]];
        let served = Served::new(&arguments);
        let mut slow: Vec<_> = (0..20).map(|_| served.connect()).collect();
        for client in &mut slow {
            client.expect("connected");
        }
        let mut quick = served.connect();
        quick.expect("connected");
        quick.expect_end();
        slow.iter_mut().for_each(Stream::expect_end);
    }
}

#[test]
fn processes_leave_nothing_behind() {
    let served = Served::new(&[
        "greet",
        "--model",
        "forking",
        "--listen",
        "tcp://127.0.0.1:0",
    ]);
    for _ in 0..100 {
        let mut client = served.connect();
        client.expect("connected");
        client.expect_end();
    }
    let children = format!("/proc/{0}/task/{0}/children", served.process_id());
    if !Path::new(&children).exists() {
        return skip("/proc");
    }
    let left = || fs::read_to_string(&children).expect("a process");
    // The last ones are still on their way out; a zombie would never go away.
    let end = Instant::now() + PATIENCE;
    while !left().is_empty() {
        assert!(Instant::now() < end, "left: {}", left());
        thread::yield_now();
    }
}

#[test]
fn datagrams_are_greeted() {
    for model in MODELS {
        let directory = Directory::new();
        for at in ["udp://127.0.0.1:0", &directory.uri("unixgram", "socket")] {
            let served = Served::new(&[&["greet", "--listen", at], model].concat());
            let client = Datagrams::connect(served.uri(0), &directory);
            for text in ["anything", ""] {
                client.send(text);
                client.expect("connected");
            }
            served.signal(Signal::TERM);
            assert_eq!(served.exit_code(), Some(0), "{model:?}");
        }
    }
}

/// The limit is logged twice: when the server starts, and when a reply is dropped.
#[test]
fn dropped_replies_are_no_secret() {
    let at = ["--listen", "udp://127.0.0.1:0", "--limit-loopback", "true"];
    let directory = Directory::new();
    let served = Served::new(&[&["greet"], &at[..]].concat());
    served.logged("other machines' datagrams are dropped");
    let client = Datagrams::connect(served.uri(0), &directory);
    client.send("short");
    let line = served.logged("the reply was dropped");
    assert!(line.contains("--reply-factor"), "{line}");
    client.send("123456789");
    client.expect("connected");
    let served = Served::new(&[&["greet", "--reply-factor", "9"], &at[..]].concat());
    let client = Datagrams::connect(served.uri(0), &directory);
    client.send("1");
    client.expect("connected");
    served.signal(Signal::TERM);
    let (_, log) = served.end();
    assert!(!log.iter().any(|line| line.contains("dropped")), "{log:?}");
}
