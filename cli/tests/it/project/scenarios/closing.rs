//! Connections that end badly: before they begin, in mid transfer, in the wrong order.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use crate::project::scenarios::{Subject, can, echoes, expect, reset, size};
use crate::support::served::PATIENCE;

/// More than all buffers between two processes take, so that something waits at either end.
const MUCH: usize = 8 << 20;

#[test]
fn who_is_gone_before_being_accepted_is_no_error() {
    let subject = Subject::new(&["echo"]);
    let mut steady = subject.client();
    echoes(&mut steady, b"before");
    subject.served.signal(Signal::STOP);
    for number in 0..50 {
        let mut client = subject.client();
        if number % 2 == 0 {
            client.write_all(b"hello").expect("the system's queue");
        }
        reset(client);
    }
    subject.served.signal(Signal::CONT);
    echoes(&mut steady, b"after");
    subject.serves();
    drop(steady);
    let counts = subject.end();
    let all = counts.number("accepted") + counts.number("accept_aborted");
    assert_eq!(all, 52, "{counts:?}");
    assert_eq!(counts.number("bytes_written"), 23, "{counts:?}");
}

/// A reset while the reply waits, at once or after an end of the client's side.
#[test]
fn a_reset_with_output_waiting_frees_everything() {
    let subject = Subject::new(&["echo"]);
    let mut steady = subject.client();
    echoes(&mut steady, b"before");
    let before = subject.memory();
    let block = vec![b'.'; 256 << 10];
    let tries = size(1_000, 100);
    for number in 0..tries {
        let client = subject.client();
        client.set_nonblocking(true).expect("a socket");
        let mut sent = 0;
        while sent < MUCH {
            match (&client).write(&block) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if number % 2 == 0 {
            client.shutdown(Shutdown::Write).expect("a connection");
        }
        reset(client);
        if number % 10 == 0 {
            echoes(&mut steady, b"meanwhile");
        }
    }
    let baseline = subject.descriptors + 1;
    subject.wait("rid of all", |subject| {
        subject.open_descriptors() == baseline
    });
    let cpu = subject.cpu_time();
    echoes(&mut steady, b"after");
    assert!(subject.cpu_time() - cpu < PATIENCE / 100, "it spins");
    let grown = subject.memory().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more than before");
    drop(steady);
    let counts = subject.end();
    assert_eq!(counts.number("accepted"), tries as u64 + 1);
    // A client's end of its side may be seen before its reset arrives.
    assert!(counts.number("closed_io") >= tries as u64 / 2, "{counts:?}");
}

/// Closing with unread input makes the system send a reset, which would destroy the reply.
#[test]
fn the_last_reply_arrives_though_more_input_follows_a_thousand_times() {
    let hello = ["hello", "--framing", "line", "--delay", "0"];
    let subject = Subject::new(&[&hello[..], &["--linger-bytes", "2MiB"]].concat());
    let much = [b"bob\nexit\n".as_slice(), &vec![b'.'; 1 << 20]].concat();
    for _ in 0..1_000 {
        let mut client = subject.client();
        let mut writer = client.try_clone().expect("a socket");
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&much).expect("a server that still reads");
                writer.shutdown(Shutdown::Write).expect("a connection");
            });
            expect(&mut client, b"Welcome!\nHello,bob\n");
            assert_eq!(client.read(&mut [0]).expect("an end, not a reset"), 0);
        });
    }
    let counts = subject.end();
    assert_eq!(counts.number("closed_by_protocol"), 1_000, "{counts:?}");
}

/// A process that is killed in mid transfer: its system says so for it.
#[test]
fn a_peer_that_is_killed_is_gone() {
    if !can("bash", &["-c", "true"]) {
        return;
    }
    let subject = Subject::new(&["echo"]);
    let port = subject.addr().port();
    let flood = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; exec cat /dev/zero >&3");
    let mut peer = Command::new("bash")
        .args(["-c", &flood])
        .stdin(Stdio::null())
        .spawn()
        .expect("a shell");
    let alone = subject.descriptors;
    subject.wait("connected", |subject| subject.open_descriptors() > alone);
    subject.serves();
    peer.kill().expect("our child");
    peer.wait().expect("our child");
    subject.wait("rid of it", |subject| subject.open_descriptors() == alone);
    subject.serves();
    let counts = subject.end();
    let ends = counts.number("closed_io") + counts.number("closed_by_peer");
    assert_eq!(ends, 3, "{counts:?}");
}
