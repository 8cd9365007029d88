//! Many clients at once, and some that take more than their share.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::project::scenarios::{Subject, echoes, expect, patient, size, visit};

#[test]
fn one_who_floods_holds_up_nobody() {
    let subject = Subject::new(&["echo"]);
    let mut quiet: Vec<_> = (0..100).map(|_| subject.client()).collect();
    let flooding = subject.client();
    let mut draining = flooding.try_clone().expect("a socket");
    let is_over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let block = [b'.'; 64 << 10];
            let mut sent = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                sent += (&flooding).write(&block).expect("a connection") as u64;
            }
            flooding.shutdown(Shutdown::Write).expect("a connection");
            sent
        });
        let drain = scope.spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            let mut received = 0_u64;
            loop {
                match draining.read(&mut buffer).expect("an orderly end") {
                    0 => return received,
                    count => received += count as u64,
                }
            }
        });
        for round in 0..10 {
            for client in &mut quiet {
                echoes(client, format!("round {round}").as_bytes());
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let sent = flood.join().expect("a flood");
        assert_eq!(drain.join().expect("an echo"), sent);
        sent
    });
    assert!(sent > 1 << 20, "{sent} bytes are no flood");
    drop((quiet, flooding));
    assert_eq!(subject.end().number("closed_by_peer"), 101);
}

/// A client that sends a line's bytes so slowly that each keeps it from being idle.
#[test]
fn who_trickles_is_gone_at_the_first_messages_deadline() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let crowd = size(5_000, 300);
    let hello = ["hello", "--framing", "line", "--delay", "0", "-q"];
    let timeout = ["--first-message-timeout", "2s", "--message-timeout", "2s"];
    let subject = Subject::new(&[&hello[..], &timeout].concat());
    let began = Instant::now();
    let mut slow: Vec<_> = (0..crowd).map(|_| subject.client()).collect();
    let all = Instant::now();
    let mut healthy = 0;
    while !slow.is_empty() {
        slow.retain(trickle);
        let mut client = subject.client();
        client.write_all(b"bob\n").expect("an open connection");
        expect(&mut client, b"Welcome!\nHello,bob\n");
        healthy += 1;
        if slow.len() < crowd {
            let first = began.elapsed();
            assert!(first >= DEADLINE, "one was cut off after {first:?}");
        }
    }
    let last = all.elapsed();
    assert!(last < DEADLINE + Duration::from_secs(8), "{last:?}");
    assert!(healthy > 2);
    subject.end_quietly();
}

/// One byte more. False if the server has ended the connection.
fn trickle(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let mut client = client;
    let is_open = match client.read(&mut [0; 100]) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    is_open && client.write(b"x").is_ok()
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    // The clients that stay send nothing meanwhile, however long it takes.
    let patience = ["--first-message-timeout", "0", "--idle-timeout", "0"];
    let subject = Subject::new(&[&["echo", "-q"][..], &patience].concat());
    let mut steady: Vec<_> = (0..100).map(|_| subject.client()).collect();
    let addr = subject.addr();
    let churn = |count: usize| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..count / 2).for_each(|_| visit(addr)));
            }
        });
    };
    churn(200);
    let before = subject.memory();
    churn(size(200_000, 3_000));
    for client in &mut steady {
        echoes(client, b"still served");
    }
    let grown = subject.memory().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more than before");
    drop(steady);
    subject.end_quietly();
}

/// The queue of a listener overflows while the process is stopped: a client that was left out tries again, as
/// the system does by itself.
#[test]
fn a_burst_beyond_the_backlog_is_served_to_the_last() {
    let subject = Subject::new(&["echo", "--backlog", "8"]);
    let mut steady = subject.client();
    echoes(&mut steady, b"before");
    subject.served.signal(Signal::STOP);
    let burst: Vec<_> = (0..size(2_000, 100))
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            // It is under way, or it waits for its turn: both are no error to be told of yet.
            let _ = socket.connect(&subject.addr().into());
            socket.set_nonblocking(false).expect("a socket");
            patient(socket.into())
        })
        .collect();
    subject.served.signal(Signal::CONT);
    echoes(&mut steady, b"meanwhile");
    let count = burst.len() as u64;
    for mut client in burst {
        echoes(&mut client, b"at last");
    }
    drop(steady);
    assert_eq!(subject.end().number("accepted"), count + 1);
}
