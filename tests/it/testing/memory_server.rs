//! A whole server in memory.

use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::server::Refusal;
use serveloop::testing::{MemoryServer, Seen};
use serveloop::{Actions, Address, Config, Ended, Factory, Peer};

use crate::support::probe::{Log, Probe};
use crate::support::{seconds, timeless};

fn address(uri: &str) -> Address {
    uri.parse().unwrap()
}

fn echo() -> MemoryServer<impl Factory> {
    MemoryServer::new(|_: &Peer| Some(Echo))
}

#[test]
fn clients_are_served_side_by_side() {
    let mut server = echo();
    let [one, two] = [server.connect(), server.connect()];
    server.send(one, b"one");
    server.send(two, b"two");
    server.send(one, b" more");
    assert_eq!(server.received(one), b"one more");
    assert_eq!(server.received(two), b"two");
    assert_eq!(server.connections(), 2);

    server.finish(one);
    assert_eq!(
        (server.seen(one), server.seen(two)),
        (Seen::End, Seen::Open)
    );
    server.reset(two);
    assert_eq!(server.seen(two), Seen::Reset);
    assert_eq!(server.connections(), 0);
    let statistics = server.statistics();
    assert_eq!((statistics.closed_by_peer, statistics.closed_io), (1, 1));
}

/// Nothing takes time but what the test lets pass.
#[test]
fn deadlines_pass_at_their_own_time() {
    let mut server = echo();
    let client = server.connect();
    server.advance(seconds(9));
    server.send(client, b"first");
    server.advance(seconds(60) - Duration::from_millis(1));
    assert_eq!(server.seen(client), Seen::Open);
    server.advance(Duration::from_millis(1));
    assert_eq!(server.seen(client), Seen::End);
    assert_eq!(server.statistics().closed_timeout_idle, 1);
}

#[test]
fn output_waits_for_a_client_that_takes_nothing() {
    let mut server = echo();
    let client = server.connect();
    server.stop_taking(client);
    server.send(client, b"hello");
    assert_eq!(server.received(client), b"");
    server.take(client, 2);
    assert_eq!(server.received(client), b"he");
    server.take(client, usize::MAX);
    assert_eq!(server.received(client), b"llo");
    server.stop_taking(client);
    server.send(client, b"more");
    server.advance(seconds(30));
    assert_eq!(server.seen(client), Seen::Reset);
    assert_eq!(server.statistics().closed_timeout_write, 1);
}

/// A factory that notes everything, ticks each second, and connects at its first tick.
struct Noting {
    log: Log,
    next: Option<Instant>,
    to: Vec<Address>,
}

impl Noting {
    fn new(log: &Log, to: &[&str]) -> Self {
        Self {
            log: log.clone(),
            next: None,
            to: to.iter().map(|uri| address(uri)).collect(),
        }
    }
}

impl Factory for Noting {
    type Protocol = Probe;

    fn build_protocol(&mut self, _: &Peer) -> Option<Probe> {
        Some(Probe::new(&self.log))
    }

    fn started(&mut self, actions: &mut Actions<'_, Probe>) {
        self.next = Some(actions.now() + seconds(1));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Probe>) {
        self.next = Some(actions.now() + seconds(1));
        self.log.push("tick");
        for to in self.to.drain(..) {
            actions.connect(to, Probe::new(&self.log));
        }
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.log.push(format!("{peer} {why:?}"));
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.log.push(ended.reason().to_string());
    }
}

#[test]
fn a_factory_ticks_and_connects_in_virtual_time() {
    let log = Log::default();
    let to = [
        "tcp://192.0.2.1:1",
        "tcp://192.0.2.2:2",
        "tcp://192.0.2.3:3",
    ];
    let mut server = MemoryServer::new(Noting::new(&log, &to));
    server.refuse(address(to[1]));
    server.ignore(address(to[2]));
    assert_eq!(log.take(), [""; 0]);

    server.advance(seconds(1));
    let (at, remote) = server.next_outbound().unwrap();
    assert_eq!(at, address(to[0]));
    assert!(server.next_outbound().is_none());
    server.send(remote, b"hello");
    let told = log.take();
    assert_eq!(told[0], "tick");
    assert!(told.contains(&"made".to_owned()), "{told:?}");
    assert!(told.contains(&"data hello".to_owned()), "{told:?}");
    assert!(
        told.iter().any(|line| line.starts_with("cannot connect")),
        "{told:?}"
    );

    server.advance(seconds(9));
    assert_eq!(log.take(), ["tick"; 9]);
    server.advance(seconds(1));
    let told = log.take();
    assert!(
        told.contains(&"timed out: not connected in time".to_owned()),
        "{told:?}"
    );
}

#[test]
fn refusals_are_those_of_the_loop() {
    let log = Log::default();
    let config = Config {
        max_connections: 3,
        max_per_peer: 1,
        ..timeless()
    };
    let mut server = MemoryServer::with_config(Noting::new(&log, &[]), config);
    let first = server.connect_from(address("tcp://192.0.2.1:1000"));
    let second = server.connect_from(address("tcp://192.0.2.1:1001"));
    assert_eq!((server.seen(first), server.connections()), (Seen::Open, 1));
    assert_ne!(server.seen(second), Seen::Open);
    let others = [server.connect(), server.connect(), server.connect()];
    assert_eq!(server.seen(others[1]), Seen::Open);
    assert_ne!(server.seen(others[2]), Seen::Open);

    let refused: Vec<_> = log.take();
    let refused: Vec<_> = refused.iter().filter(|line| line.contains("Max")).collect();
    assert_eq!(
        refused,
        [
            "tcp://192.0.2.1:1001 MaxPerPeer",
            "tcp://127.0.0.1:10002 MaxConnections"
        ]
    );
}

#[test]
fn a_shutdown_drains_and_closes_the_listener() {
    let log = Log::default();
    let mut server = MemoryServer::with_config(Noting::new(&log, &[]), timeless());
    let client = server.connect();
    server.send(client, b"x");
    server.shutdown();
    assert!(log.take().contains(&"shutdown".to_owned()));
    let late = server.connect();
    assert_eq!(server.seen(late), Seen::Reset);
    server.shutdown();
    assert!(server.is_finished());
    assert_ne!(server.seen(client), Seen::Open);
}

/// A wake from another thread is noticed by the next call.
#[test]
fn wakes_come_from_anywhere() {
    let log = Log::default();
    let (sender, wakers) = std::sync::mpsc::channel();
    let probes = log.clone();
    let mut server = MemoryServer::new(move |_: &Peer| {
        let sender = sender.clone();
        Some(Probe::new(&probes).made(move |transport| {
            let _ = sender.send(transport.waker());
            Ok(())
        }))
    });
    server.connect();
    let waker = wakers.recv().unwrap();
    std::thread::spawn(move || waker.wake()).join().unwrap();
    server.run();
    assert_eq!(log.take(), ["made", "woken"]);
}
