//! The loop inside another one: its descriptor tells pollers of every kind when a turn has work.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serveloop::net::{Mio, Net};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Factory, Limits, Peer, Reactor, Server, ShutdownHandle, Waker};

use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Scratch, client, expect, millis, seconds, timeless};

fn echo(_: &Peer) -> Option<Echo> {
    Some(Echo)
}

fn listening<F: Factory>(config: Config, factory: F) -> (Reactor<F>, Address) {
    let at = ["tcp://127.0.0.1:0".parse().unwrap()];
    let server = Server::bind(&at, config).unwrap();
    let address = server.addresses()[0].clone();
    (server.with(factory).into_reactor().unwrap(), address)
}

/// Whether poll(2) finds the descriptor readable within `wait`.
fn is_readable(source: &impl AsFd, wait: Duration) -> bool {
    let mut waits = [PollFd::new(source, PollFlags::IN)];
    let wait = Timespec::try_from(wait).unwrap();
    poll(&mut waits, Some(&wait)).unwrap() == 1
}

/// Turns until the loop has nothing left to do and its descriptor says so.
#[track_caller]
fn settle<F: Factory>(reactor: &mut Reactor<F>) {
    let begin = Instant::now();
    while reactor.timeout() == Some(Duration::ZERO) || is_readable(reactor, Duration::ZERO) {
        assert!(begin.elapsed() < PATIENCE, "the loop comes to no rest");
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn each_kind_of_work_makes_the_descriptor_readable() {
    let (sender, wakers) = mpsc::channel::<Waker>();
    let factory = move |_: &Peer| {
        let sender = sender.clone();
        Some(
            Probe::new(&Log::default())
                .made(move |transport| {
                    let _ = sender.send(transport.waker());
                    Ok(())
                })
                .data(|data, transport| {
                    transport.write(data);
                    Ok(data.len())
                })
                .woken(|transport| transport.write(b"woken")),
        )
    };
    let (mut reactor, address) = listening(timeless(), factory);
    let handle = ShutdownHandle::new().unwrap();
    reactor.obey(handle.clone()).unwrap();
    settle(&mut reactor);

    let mut stream = client(&address);
    assert!(is_readable(&reactor, PATIENCE), "a connection came");
    settle(&mut reactor);
    stream.write_all(b"hello").unwrap();
    assert!(is_readable(&reactor, PATIENCE), "bytes came");
    settle(&mut reactor);
    expect(&mut stream, b"hello");

    let waker = wakers.recv_timeout(PATIENCE).unwrap();
    thread::spawn(move || waker.wake()).join().unwrap();
    assert!(is_readable(&reactor, PATIENCE), "a thread woke a session");
    settle(&mut reactor);
    expect(&mut stream, b"woken");

    drop(stream);
    assert!(is_readable(&reactor, PATIENCE), "the peer ended");
    settle(&mut reactor);
    assert_eq!(reactor.statistics().closed(), 1);

    assert!(!is_readable(&handle, Duration::ZERO));
    thread::spawn(move || handle.shutdown()).join().unwrap();
    assert!(
        is_readable(&reactor, PATIENCE),
        "the shutdown was asked for"
    );
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(reactor.is_finished());
}

/// Deadlines are the caller's to wait for.
#[test]
fn a_deadline_is_told_by_the_timeout_and_not_by_the_descriptor() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(millis(40)),
            ..timeless().limits
        },
        ..timeless()
    };
    let (mut reactor, address) = listening(config, echo);
    let mut stream = client(&address);
    assert!(is_readable(&reactor, PATIENCE));
    settle(&mut reactor);

    let wait = reactor.timeout().expect("a deadline runs");
    assert!(wait <= millis(40), "{wait:?}");
    let until = Instant::now() + wait;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        assert!(!is_readable(&reactor, left));
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.statistics().closed(), 1);
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
}

/// A poller that reports edges hears of the loop once, and one wait of the loop has room for 1,024
/// events: what is left must be told in another way, or it waits for the next client.
#[test]
fn more_events_than_a_turn_takes_are_not_lost_on_a_poller_of_edges() {
    const CLIENTS: usize = 1_100;
    let config = Config {
        max_connections: CLIENTS,
        accepts_per_turn: CLIENTS,
        backlog: 4_096,
        ..timeless()
    };
    let directory = Scratch::new();
    let at = [directory.uri("unix", "crowd").parse().unwrap()];
    let server = Server::bind(&at, config).unwrap();
    let mut reactor = server.into_reactor(echo).unwrap();
    let connect = || std::os::unix::net::UnixStream::connect(directory.path("crowd"));
    let mut streams = Vec::new();
    while streams.len() < CLIENTS {
        streams.push(connect().unwrap());
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    settle(&mut reactor);
    assert_eq!(reactor.connections(), CLIENTS);

    let (mut outer, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
    let descriptor = reactor.as_raw_fd();
    outer
        .registry()
        .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)
        .unwrap();
    for stream in &mut streams {
        stream.write_all(b"!").unwrap();
    }
    let begin = Instant::now();
    while reactor.statistics().bytes_read < CLIENTS as u64 {
        assert!(begin.elapsed() < PATIENCE, "{:?}", reactor.statistics());
        let wait = reactor.timeout().unwrap_or(seconds(1));
        outer.poll(&mut events, Some(wait)).unwrap();
        assert!(
            !events.is_empty() || wait.is_zero(),
            "nobody told of the rest"
        );
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn bound_sockets_are_lent_in_the_order_of_their_addresses() {
    let directory = Scratch::new();
    let at = [
        "tcp://127.0.0.1:0".parse().unwrap(),
        "udp://127.0.0.1:0".parse().unwrap(),
        directory.uri("unix", "stream").parse().unwrap(),
        directory.uri("unixgram", "datagrams").parse().unwrap(),
    ];
    let server = Server::bind(&at, Config::default()).unwrap();
    let own = |number: usize| {
        let socket = server.sockets().nth(number).unwrap();
        socket2::SockRef::from(&socket).local_addr().unwrap()
    };
    assert_eq!(server.sockets().count(), at.len());
    for number in [0, 1] {
        assert_eq!(
            own(number).as_socket(),
            server.addresses()[number].socket_addr()
        );
    }
    for (number, name) in [(2, "stream"), (3, "datagrams")] {
        assert_eq!(own(number).as_pathname(), Some(&*directory.path(name)));
    }

    // An option of a listener is one of its connections.
    let listener = server.sockets().next().unwrap();
    socket2::SockRef::from(&listener)
        .set_keepalive(true)
        .unwrap();
    assert!(!is_readable(&listener, Duration::ZERO));
    let _stream = client(&server.addresses()[0]);
    assert!(is_readable(&listener, PATIENCE), "a connection waits");
}

/// What a user's network wraps can be watched too.
#[test]
fn sockets_of_the_network_are_descriptors() {
    let mut net = Mio::new().unwrap();
    let config = Config::default();
    let at = "tcp://127.0.0.1:0".parse().unwrap();
    let (mut listener, address) = net.listen(&at, &config, 1).unwrap();
    let at = "udp://127.0.0.1:0".parse().unwrap();
    let (socket, own) = net.bind(&at, &config, 2).unwrap();
    assert!(!is_readable(&net, Duration::ZERO));
    assert!(!is_readable(&listener, Duration::ZERO) && !is_readable(&socket, Duration::ZERO));

    let mut peer = TcpStream::connect(address.socket_addr().unwrap()).unwrap();
    assert!(is_readable(&net, PATIENCE) && is_readable(&listener, PATIENCE));
    let (stream, _) = net.accept(&mut listener).unwrap();
    assert!(!is_readable(&stream, Duration::ZERO));
    peer.write_all(b"!").unwrap();
    assert!(is_readable(&stream, PATIENCE));

    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"!", own.socket_addr().unwrap()).unwrap();
    assert!(is_readable(&socket, PATIENCE));
}
