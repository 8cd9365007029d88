//! Everything that `socketserver` offers has a counterpart here; see docs/from-socketserver.md.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::{
    Actions, Address, Config, Ended, Factory, Peer, Protocol, ProtocolError, Reactor, Server,
    ShutdownHandle, Statistics, Transport,
};

use crate::support::probe::{Log, Probe};
use crate::support::{
    PATIENCE, Scratch, Serving, client, echoes, expect, millis, read_to_end, unix_client,
};

fn anywhere() -> Address {
    "tcp://127.0.0.1:0".parse().unwrap()
}

fn bind(address: &Address, config: Config) -> io::Result<Server> {
    Server::bind(std::slice::from_ref(address), config)
}

fn connect(address: &Address) -> io::Result<TcpStream> {
    TcpStream::connect(address.socket_addr().unwrap())
}

fn echo(_: &Peer) -> Option<Echo> {
    Some(Echo)
}

/// Turns the loop until one connection has ended. False if that did not happen in time.
fn handle_request<F: Factory>(reactor: &mut Reactor<F>, timeout: Duration) -> bool {
    let (until, ended) = (Instant::now() + timeout, reactor.statistics().closed());
    while reactor.statistics().closed() == ended {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        reactor.turn(Some(left)).unwrap();
    }
    true
}

/// `handle_request`, `timeout` and `handle_timeout`.
#[test]
fn one_request_is_served_or_the_time_is_over() {
    let mut reactor = Reactor::new(echo, Config::default()).unwrap();
    let address = reactor.listen(&anywhere()).unwrap();
    assert!(!handle_request(&mut reactor, millis(50)), "no client came");
    let turns = reactor.statistics().turns;
    assert!(turns < 10, "{turns} turns without a client");
    let mut streams = [client(&address), client(&address)];
    for stream in &mut streams {
        stream.write_all(b"one").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(handle_request(&mut reactor, PATIENCE));
        assert_eq!(read_to_end(stream), b"one");
    }
    assert_eq!(reactor.statistics().closed_by_peer, 2);
}

/// `bind_and_activate=False`, `server_bind`, `server_activate`.
#[test]
fn what_is_bound_refuses_clients_until_it_listens() {
    let server = Server::bind_only(&[anywhere()], Config::default()).unwrap();
    let address = server.addresses()[0].clone();
    let error = connect(&address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let strict = Config {
        reuse_address: false,
        ..Config::default()
    };
    let error = bind(&address, strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "the port is taken");
    server.activate().unwrap();
    server.activate().unwrap();
    // Connects already, and is served as soon as a loop serves.
    let mut early = client(&address);
    let serving = Serving::with(server, echo);
    echoes(&mut early, b"early");
    drop(early);
    assert_eq!(serving.end().accepted, 1);
}

/// `server_close`.
#[test]
fn a_server_that_is_dropped_gives_its_addresses_back() {
    let scratch = Scratch::new();
    let unix: Address = scratch.uri("unix", "socket").parse().unwrap();
    let server = Server::bind(&[anywhere(), unix.clone()], Config::default()).unwrap();
    let tcp = server.addresses()[0].clone();
    drop(server);
    let error = connect(&tcp).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(!scratch.path("socket").exists());
    let serving = Serving::with(Server::bind(&[tcp, unix], Config::default()).unwrap(), echo);
    echoes(&mut serving.client(), b"again");
    echoes(&mut unix_client(&scratch.path("socket")), b"again");
}

/// `server_address`.
#[test]
fn port_0_has_become_a_number_everywhere() {
    let udp: Address = "udp://127.0.0.1:0".parse().unwrap();
    let server = Server::bind(&[anywhere(), udp], Config::default()).unwrap();
    let addresses = server.addresses().to_vec();
    let ports = addresses
        .iter()
        .map(|address| address.socket_addr().unwrap().port());
    assert!(ports.into_iter().all(|port| port != 0));
    let reactor = server.into_reactor(echo).unwrap();
    assert!(reactor.addresses().eq(&addresses));
    assert!(connect(&addresses[0]).is_ok());
}

#[test]
fn an_address_in_use_is_named() {
    let server = bind(&anywhere(), Config::default()).unwrap();
    let address = &server.addresses()[0];
    let error = bind(address, Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let start = format!("cannot listen on {address}: ");
    assert!(error.to_string().starts_with(&start), "{error}");
}

/// `allow_reuse_address`: the side that closes first remembers the connection for a while.
#[test]
fn a_port_is_taken_over_from_a_server_that_has_just_ended() {
    let serving = Serving::tcp(Config::default(), |_: &Peer| {
        Some(Probe::new(&Log::default()).made(|transport| {
            transport.close();
            Ok(())
        }))
    });
    let address = serving.addresses[0].clone();
    let mut stream = serving.client();
    assert_eq!(read_to_end(&mut stream), b"");
    drop(stream);
    assert_eq!(serving.end().closed_by_protocol, 1);
    bind(&address, Config::default()).unwrap();
}

/// `allow_reuse_port`.
#[test]
fn a_port_is_shared_among_those_who_say_so() {
    let shared = Config {
        reuse_port: true,
        ..Config::default()
    };
    let first = bind(&anywhere(), shared.clone()).unwrap();
    let address = &first.addresses()[0];
    let second = bind(address, shared).unwrap();
    assert_eq!(second.addresses(), first.addresses());
    let error = bind(address, Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

/// Refuses every other peer, and notes what it hears of errors and of turns.
#[derive(Clone, Default)]
struct Hooks {
    asked: Arc<Mutex<Vec<Peer>>>,
    failed: Arc<Mutex<Vec<(Peer, String)>>>,
}

impl Factory for Hooks {
    type Protocol = Fussy;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Fussy> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(peer.clone());
        (asked.len() % 2 == 1).then_some(Fussy)
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        let mut failed = self.failed.lock().unwrap();
        failed.push((ended.peer().clone(), ended.reason().to_string()));
    }
}

/// Echoes what it likes.
struct Fussy;

impl Protocol for Fussy {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if data == b"bad" {
            return Err(ProtocolError::malformed("not liked"));
        }
        transport.write(data);
        Ok(data.len())
    }
}

fn local(stream: &TcpStream) -> Peer {
    Peer::new(Address::Tcp(stream.local_addr().unwrap()), Some(0))
}

/// `verify_request` and `handle_error`.
#[test]
fn hooks_hear_of_peers_and_of_errors_and_nobody_else_suffers() {
    let hooks = Hooks::default();
    let serving = Serving::tcp_with_factory(Config::default(), hooks.clone());
    let mut good = serving.client();
    echoes(&mut good, b"welcome");
    let mut refused = serving.client();
    assert_eq!(read_to_end(&mut refused), b"", "closed at once");
    let mut bad = serving.client();
    bad.write_all(b"bad").unwrap();
    assert_eq!(read_to_end(&mut bad), b"");
    echoes(&mut good, b"still here");
    let peers = [local(&good), local(&refused), local(&bad)];
    drop((good, bad));
    let statistics = serving.end();
    assert_eq!(*hooks.asked.lock().unwrap(), peers);
    let [.., failed] = peers;
    let reason = "protocol error: malformed: not liked".to_owned();
    assert_eq!(*hooks.failed.lock().unwrap(), [(failed, reason)]);
    assert_eq!((statistics.accepted, statistics.refused_by_factory), (2, 1));
}

/// Has a turn of its own every millisecond, and ends the server with the tenth.
struct Ticking(Vec<Instant>);

impl Factory for Ticking {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
        None
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
        self.0.push(actions.now());
        assert_eq!(actions.statistics().turns + 1, self.0.len() as u64);
        if self.0.len() == 10 {
            actions.shutdown();
        }
        actions.call_again(millis(1));
    }
}

/// `service_actions`.
#[test]
fn the_hook_of_a_turn_comes_when_it_asks_and_can_end_the_server() {
    let mut reactor = Reactor::new(Ticking(Vec::new()), Config::default()).unwrap();
    reactor.listen(&anywhere()).unwrap();
    reactor.run().unwrap();
    assert_eq!(reactor.statistics().panics, 0);
    let turns = &reactor.factory().0;
    assert!(
        turns.len() >= 10 && turns[0] + millis(9) <= turns[9],
        "{turns:?}"
    );
}

/// Stops its own server.
struct Stopper(ShutdownHandle);

impl Protocol for Stopper {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.0.shutdown();
        transport.write(b"stopping");
        Ok(data.len())
    }
}

/// `shutdown` from inside a handler, where the original waits for itself.
#[track_caller]
fn stops_from_inside(
    serve: impl FnOnce(Server, ShutdownHandle) -> io::Result<Statistics> + Send + 'static,
) {
    let server = bind(&anywhere(), Config::default()).unwrap();
    let (address, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
    let serving = thread::spawn(move || serve(server, handle).unwrap());
    let mut stream = client(&address);
    stream.write_all(b"stop").unwrap();
    assert_eq!(read_to_end(&mut stream), b"stopping");
    drop(stream);
    let statistics = serving.join().unwrap();
    assert_eq!((statistics.accepted, statistics.closed_by_shutdown), (1, 1));
    let error = connect(&address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_handler_stops_the_loop_that_calls_it() {
    stops_from_inside(|server, handle| {
        server.serve_forever(move |_: &Peer| Some(Stopper(handle.clone())))
    });
}

#[test]
fn a_handler_stops_the_sequential_server() {
    stops_from_inside(|server, handle| {
        server.serve_sequential(move |_: &Peer| Some(Stopper(handle.clone())))
    });
}

#[test]
fn a_handler_stops_the_threads() {
    stops_from_inside(|server, handle| {
        server.serve_threading(move |_: &Peer| Some(Stopper(handle.clone())))
    });
}

/// `fileno`: the loop waits in another poller, and is turned only when there is a reason.
#[cfg(not(mio_unsupported_force_poll_poll))]
#[test]
fn a_loop_sits_inside_another_poller() {
    use std::os::fd::AsRawFd;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    const ROUNDS: u32 = 20;
    let mut reactor = Reactor::new(echo, Config::default()).unwrap();
    let address = reactor.listen(&anywhere()).unwrap();
    let mut poll = Poll::new().unwrap();
    let descriptor = reactor.as_raw_fd();
    let mut source = SourceFd(&descriptor);
    poll.registry()
        .register(&mut source, Token(0), Interest::READABLE)
        .unwrap();
    // What a new loop has to look at first.
    while reactor.timeout() == Some(Duration::ZERO) {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty(), "nothing has happened yet");
    let talking = thread::spawn(move || {
        let mut stream = client(&address);
        (0..ROUNDS).for_each(|round| echoes(&mut stream, &round.to_be_bytes()));
    });
    let (mut announced, mut turns) = (0, 0);
    while reactor.statistics().closed() == 0 {
        let timeout = reactor.timeout().unwrap_or(PATIENCE).min(PATIENCE);
        poll.poll(&mut events, Some(timeout)).unwrap();
        assert!(
            !events.is_empty() || timeout < PATIENCE,
            "the loop slept through it"
        );
        announced += u32::from(!events.is_empty());
        turns += 1;
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    talking.join().unwrap();
    assert!(
        announced >= ROUNDS,
        "{announced} of {turns} turns were announced"
    );
    assert!(turns < 20 * ROUNDS, "{turns} turns for {ROUNDS} messages");
    assert_eq!(reactor.statistics().closed_by_peer, 1);
}

/// `rfile` and `wfile` in one: what a handler writes is kept until the peer takes it.
#[test]
fn a_transport_is_a_file_to_write_to() {
    struct Formatted;
    impl Protocol for Formatted {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            write!(transport, "{} bytes", data.len()).map_err(ProtocolError::other)?;
            Ok(data.len())
        }
    }
    let serving = Serving::tcp(Config::default(), |_: &Peer| Some(Formatted));
    let mut stream = serving.client();
    stream.write_all(b"four").unwrap();
    expect(&mut stream, b"4 bytes");
    let mut rest = [0];
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut rest).unwrap(), 0);
}
