//! Outbound connections: made, refused, too late, unwanted.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::{Actions, Address, Config, Factory, Peer, Protocol, Reactor};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Scratch, echoes, millis, seconds};

type Boxed = Box<dyn Protocol>;

fn echo(_: &Peer) -> Option<Boxed> {
    Some(Box::new(Echo))
}

fn reactor(config: Config) -> Reactor<fn(&Peer) -> Option<Boxed>> {
    Reactor::new(echo as fn(&Peer) -> Option<Boxed>, config).unwrap()
}

/// Turns the loop until `done`.
#[track_caller]
fn drive<F: Factory>(reactor: &mut Reactor<F>, done: impl Fn(&Reactor<F>) -> bool) {
    let begin = Instant::now();
    while !done(reactor) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", reactor.statistics());
        reactor.turn(Some(millis(20))).unwrap();
    }
}

/// Says hello, and closes after the answer.
fn greeter(log: &Log) -> Boxed {
    let probe = Probe::new(log)
        .made(|transport| {
            assert_eq!(transport.peer().listener(), None);
            transport.write(b"hello");
            Ok(())
        })
        .data(|data, transport| {
            transport.close();
            Ok(data.len())
        });
    Box::new(probe)
}

/// Connects to `to` and returns all that the protocol was told.
#[track_caller]
fn told(config: Config, to: Address) -> Vec<String> {
    let log = Log::default();
    let mut reactor = reactor(config);
    reactor.connect(to, greeter(&log));
    // Nothing is left to do when the one connection has ended.
    reactor.run().unwrap();
    assert_eq!(reactor.statistics().closed(), 1);
    assert_eq!(reactor.connections(), 0);
    log.entries()
}

/// An address without a listener, for as long as the socket is kept.
fn deaf() -> (Socket, Address) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, Address::Tcp(addr))
}

/// A listener whose queue is full: a client that connects now gets no answer.
fn overrun() -> (Vec<Socket>, Address) {
    let (listener, address) = deaf();
    listener.listen(0).unwrap();
    let first = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    first.connect(&listener.local_addr().unwrap()).unwrap();
    (vec![listener, first], address)
}

#[test]
fn one_loop_serves_both_ends() {
    let scratch = Scratch::new();
    let mut reactor = reactor(Config::default());
    for at in [
        "tcp://127.0.0.1:0",
        "tcp://[::1]:0",
        &scratch.uri("unix", "echo"),
    ] {
        let address = reactor.listen(&at.parse().unwrap()).unwrap();
        let log = Log::default();
        let before = reactor.statistics().closed();
        reactor.connect(address, greeter(&log));
        drive(&mut reactor, |reactor| {
            reactor.statistics().closed() == before + 2
        });
        assert_eq!(log.entries(), ["made", "data hello", "lost closed"], "{at}");
    }
    let statistics = reactor.statistics();
    assert_eq!((statistics.accepted, statistics.connected), (3, 3));
}

#[test]
fn a_refusal_is_told_without_connection_made() {
    let (_socket, address) = deaf();
    let told = told(Config::default(), address);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("lost cannot connect: Connection refused"));
}

#[test]
fn what_cannot_even_be_begun_is_told_too() {
    let scratch = Scratch::new();
    let nowhere = told(Config::default(), Address::Unix(scratch.path("nobody")));
    assert!(nowhere[0].starts_with("lost cannot connect: No such file"));
    let datagram = told(Config::default(), "unixgram:///x".parse().unwrap());
    assert_eq!(
        datagram,
        ["lost cannot connect: only streams and UDP can be connected"]
    );
    let long = Address::Unix("x".repeat(200).into());
    let too_long = told(Config::default(), long);
    assert!(too_long[0].starts_with("lost cannot connect: "));
    assert_eq!(too_long.len(), 1);
}

#[test]
fn no_answer_is_a_timeout_at_its_time() {
    let (_sockets, address) = overrun();
    let config = Config {
        connect_timeout: Some(millis(200)),
        ..Config::default()
    };
    let begin = Instant::now();
    let told = told(config, address);
    assert_eq!(told, ["lost timed out: not connected in time"]);
    let took = begin.elapsed();
    assert!(took >= millis(200) && took < seconds(3), "{took:?}");
}

/// A Unix listener whose queue is full.
fn overrun_unix(scratch: &Scratch) -> (Vec<Socket>, Address) {
    let path = scratch.path("full");
    let at = SockAddr::unix(&path).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&at).unwrap();
    listener.listen(0).unwrap();
    let mut sockets = vec![listener];
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let outcome = client.connect(&at);
        match outcome {
            Ok(()) => sockets.push(client),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    (sockets, Address::Unix(path))
}

#[test]
fn a_full_unix_listener_is_waited_for_until_the_timeout() {
    let scratch = Scratch::new();
    let (_sockets, address) = overrun_unix(&scratch);
    let config = Config {
        connect_timeout: Some(millis(200)),
        ..Config::default()
    };
    let begin = Instant::now();
    let told = told(config, address);
    assert_eq!(told, ["lost timed out: not connected in time"]);
    let took = begin.elapsed();
    assert!(took >= millis(200) && took < seconds(3), "{took:?}");
}

#[test]
fn a_full_unix_listener_that_accepts_is_reached() {
    for timeout in [Some(PATIENCE), None] {
        let scratch = Scratch::new();
        let (sockets, address) = overrun_unix(&scratch);
        let config = Config {
            connect_timeout: timeout,
            ..Config::default()
        };
        let log = Log::default();
        let mut reactor = reactor(config);
        reactor.connect(address.clone(), greeter(&log));
        reactor.connect(address, greeter(&log));
        let waits = Instant::now() + millis(50);
        while Instant::now() < waits {
            reactor.turn(None).unwrap();
        }
        assert_eq!(log.entries(), [""; 0]);
        let turns = reactor.statistics().turns;
        assert!(turns < 20, "{turns} turns");

        let count = sockets.len() + 1;
        let listener = sockets[0].try_clone().unwrap();
        let accepting = std::thread::spawn(move || {
            for _ in 0..count {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut hello = [0; 5];
                if matches!(stream.read(&mut hello), Ok(5)) {
                    stream.write_all(&hello).unwrap();
                }
            }
        });
        // The client that waited first leaves, so that the next ones are accepted before any of them ends.
        drop(sockets);
        reactor.run().unwrap();
        accepting.join().unwrap();
        assert_eq!(log.count("made"), 2, "{:?}", log.entries());
        assert_eq!(log.count("data hello"), 2, "{:?}", log.entries());
        assert_eq!(reactor.statistics().connected, 2);
    }
}

#[test]
fn a_shutdown_ends_the_wait_for_a_full_listener() {
    let scratch = Scratch::new();
    let (_sockets, address) = overrun_unix(&scratch);
    let log = Log::default();
    let mut reactor = reactor(Config::default());
    reactor.connect(address.clone(), greeter(&log));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(!reactor.is_finished());
    reactor.shutdown();
    reactor.run().unwrap();
    assert_eq!(log.entries(), ["lost closed by the server's shutdown"]);

    let log = Log::default();
    let mut reactor = self::reactor(Config::default());
    reactor.connect(address, greeter(&log));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    drop(reactor);
    assert_eq!(log.count("lost"), 1, "{:?}", log.entries());
}

#[test]
fn a_shutdown_ends_the_attempt_and_allows_no_new_one() {
    let (_sockets, address) = overrun();
    let log = Log::default();
    let mut reactor = reactor(Config::default());
    reactor.connect(address.clone(), greeter(&log));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!((reactor.connections(), log.entries().len()), (1, 0));
    reactor.shutdown();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.connect(address, greeter(&log));
    reactor.run().unwrap();
    let ended = "lost closed by the server's shutdown";
    assert_eq!(log.entries(), [ended, ended]);
    assert_eq!(reactor.statistics().closed_by_shutdown, 2);
}

#[test]
fn outbound_connections_count_towards_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let (first, second) = (Log::default(), Log::default());
    let mut reactor = reactor(config);
    reactor.connect(address.clone(), greeter(&first));
    reactor.connect(address, greeter(&second));
    drive(&mut reactor, |_| first.count("made") == 1);
    assert_eq!(
        second.entries(),
        ["lost cannot connect: max_connections allows no more connections"]
    );
}

/// Connects to itself once, and wants to be asked again three times.
struct Busy {
    address: Option<Address>,
    log: Log,
    calls: u32,
    again: u32,
    last: Option<Instant>,
}

impl Factory for Busy {
    type Protocol = Boxed;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Boxed> {
        echo(peer)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Boxed>) {
        self.calls += 1;
        if let Some(address) = self.address.take() {
            actions.connect(address, greeter(&self.log));
        }
        let due = self
            .last
            .is_none_or(|last| actions.now() >= last + millis(20));
        if due && self.again > 0 {
            self.again -= 1;
            self.last = Some(actions.now());
            actions.call_again(millis(20));
        } else if due && self.calls > 0 && actions.statistics().closed() == 2 {
            actions.shutdown();
        }
    }
}

#[test]
fn service_actions_can_connect_come_again_and_shut_down() {
    let log = Log::default();
    let factory = Busy {
        address: None,
        log: log.clone(),
        calls: 0,
        again: 3,
        last: None,
    };
    let mut reactor = Reactor::new(factory, Config::default()).unwrap();
    let at = "tcp://127.0.0.1:0".parse().unwrap();
    let address = reactor.listen(&at).unwrap();
    reactor.factory().address = Some(address);
    let begin = Instant::now();
    reactor.run().unwrap();
    assert_eq!(log.entries(), ["made", "data hello", "lost closed"]);
    assert_eq!(reactor.factory().again, 0);
    assert!(begin.elapsed() >= millis(60));
    let turns = reactor.statistics().turns;
    assert!(turns < 40, "{turns} turns for three calls and one echo");
}

#[test]
fn the_other_listeners_go_on_while_a_connect_hangs() {
    let (_sockets, address) = overrun();
    let mut reactor = reactor(Config::default());
    let at = reactor
        .listen(&"tcp://127.0.0.1:0".parse().unwrap())
        .unwrap();
    reactor.connect(address, greeter(&Log::default()));
    let thread = std::thread::spawn(move || {
        let mut stream = crate::support::client(&at);
        echoes(&mut stream, b"hello");
    });
    drive(&mut reactor, |_| thread.is_finished());
    thread.join().unwrap();
    let turns = reactor.statistics().turns;
    assert!(turns < 30, "{turns} turns");
}

#[test]
fn dropping_a_loop_ends_what_it_was_given() {
    let (_sockets, address) = overrun();
    let log = Log::default();
    let mut reactor = reactor(Config::default());
    reactor.connect(address.clone(), greeter(&log));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.connect(address, greeter(&log));
    drop(reactor);
    assert_eq!(log.count("lost"), 2, "{:?}", log.entries());
}
