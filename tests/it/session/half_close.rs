//! One side of a stream can end before the other.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Instant;

use serveloop::testing::MemorySession;
use serveloop::{Config, Peer, Server};

use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, client, noise, read_to_end, timeless};

/// Says something long, ends its side, and says how much came after that.
fn speaker(reply: &[u8], log: &Log) -> Probe {
    let reply = reply.to_vec();
    Probe::new(log)
        .data(move |data, transport| {
            if data[0] == b'?' {
                transport.write(&reply);
                transport.finish();
                transport.write(b"too late");
            }
            Ok(data.len())
        })
        .eof(|_, transport| {
            transport.close();
            Ok(())
        })
}

#[test]
fn input_goes_on_after_the_end_of_the_output() {
    let log = Log::default();
    let mut session = MemorySession::new(speaker(b"reply", &log));
    session.stop_taking();
    session.receive(b"?");
    assert!(!session.is_finished(), "it has not been sent yet");
    session.take(usize::MAX);
    assert!(session.is_finished());
    session.receive(b"more");
    assert_eq!(session.sent(), b"reply");
    assert!(session.reason().is_none());
    session.receive_eof();
    assert_eq!(session.reason().unwrap().to_string(), "closed by the peer");
    assert_eq!(log.entries()[2..4], ["data more", "eof "]);
}

/// Waits until the protocol has seen the end of its peer's stream: a shutdown before that is the
/// reason for the connection's end.
#[track_caller]
fn await_end(log: &Log) {
    let until = Instant::now() + PATIENCE;
    while !log.entries().iter().any(|entry| entry.starts_with("eof")) {
        assert!(Instant::now() < until, "never {:?}", log.entries());
        thread::yield_now();
    }
}

/// The same dialogue with a real peer: the reply is longer than what the system takes at once.
#[track_caller]
fn ends_one_side(model: fn(Server, Log, Vec<u8>)) {
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], timeless()).unwrap();
    let (address, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
    let (log, reply) = (Log::default(), noise(900_000));
    let (shared, said) = (log.clone(), reply.clone());
    let serving = thread::spawn(move || model(server, shared, said));
    let mut stream = client(&address);
    stream.write_all(b"?").unwrap();
    assert!(
        read_to_end(&mut stream) == reply,
        "other bytes than written"
    );
    stream.write_all(b"still heard").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    await_end(&log);
    handle.shutdown();
    serving.join().unwrap();
    let entries = log.entries();
    let heard = entries
        .iter()
        .filter_map(|entry| entry.strip_prefix("data "));
    assert_eq!(heard.collect::<String>(), "?still heard");
    assert_eq!(entries.last().unwrap(), "lost closed by the peer");
}

#[test]
fn a_loop_ends_one_side() {
    ends_one_side(|server, log, reply| {
        let factory = move |_: &Peer| Some(speaker(&reply, &log));
        server.serve_forever(factory).unwrap();
    });
}

#[test]
fn a_thread_ends_one_side() {
    ends_one_side(|server, log, reply| {
        let factory = move |_: &Peer| Some(speaker(&reply, &log));
        server.serve_threading(factory).unwrap();
    });
}

/// A session that has ended its side before it said anything.
#[test]
fn a_side_may_end_at_once() {
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], Config::default()).unwrap();
    let (address, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
    let log = Log::default();
    let shared = log.clone();
    let factory = move |_: &Peer| {
        Some(Probe::new(&shared).made(|transport| {
            transport.finish();
            Ok(())
        }))
    };
    let serving = thread::spawn(move || server.serve_forever(factory).unwrap());
    let mut stream = client(&address);
    assert_eq!(read_to_end(&mut stream), b"");
    stream.write_all(b"heard").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    await_end(&log);
    handle.shutdown();
    assert_eq!(serving.join().unwrap().closed_by_peer, 1);
    assert_eq!(log.entries()[1], "data heard");
}
