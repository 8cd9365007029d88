//! Outbound datagrams: a session that the server begins, on a socket that is connected to its peer.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use serveloop::net::DeliveryError;
use serveloop::net::Target;
use serveloop::testing::MemoryServer;
use serveloop::{
    Actions, Address, CloseReason, Config, Deadline, Ended, Factory, Limits, Peer, Protocol,
    Reactor, Result, Transport,
};

use crate::support::{PATIENCE, Serving, millis, seconds};

/// Says hello, notes all that happens, and closes when it is told "bye". Says hello again after 50 ms.
struct Caller {
    tell: Sender<String>,
    due: Option<Instant>,
}

impl Caller {
    fn say(&self, what: impl Into<String>) {
        let _ = self.tell.send(what.into());
    }

    fn hello(&mut self, transport: &mut Transport<'_>) {
        transport.write(b"hello");
        self.due = Some(transport.now() + millis(50));
    }
}

impl Protocol for Caller {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        assert!(!transport.is_one_shot());
        assert_eq!(transport.peer().listener(), None);
        self.say("made");
        self.hello(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.say(String::from_utf8_lossy(data));
        self.due = None;
        if data == b"bye" {
            transport.close();
        }
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.hello(transport);
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, _: &mut Transport<'_>) {
        self.say(format!("{error:?}"));
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.say(format!("lost: {}", ended.reason()));
    }
}

fn caller() -> (Caller, Receiver<String>) {
    let (tell, told) = channel();
    (Caller { tell, due: None }, told)
}

/// A loop without listeners, whose configuration is changed by `change`.
fn reactor(change: impl FnOnce(&mut Config)) -> Reactor<impl Factory<Protocol = Caller>> {
    let mut config = Config::default();
    change(&mut config);
    Reactor::new(|_: &Peer| None::<Caller>, config).unwrap()
}

fn socket(host: &str) -> (UdpSocket, Address) {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = Address::Udp(socket.local_addr().unwrap());
    (socket, address)
}

#[track_caller]
fn hear(socket: &UdpSocket, expected: &[u8]) -> std::net::SocketAddr {
    let mut buffer = [0; 99];
    let (count, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], expected);
    from
}

/// Says "bye" to the one that says hello.
fn answers(socket: UdpSocket) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let from = hear(&socket, b"hello");
        socket.send_to(b"bye", from).unwrap();
    })
}

#[test]
fn a_session_is_begun_has_timers_and_ends() {
    for host in ["127.0.0.1", "::1"] {
        let (socket, address) = socket(host);
        let peer = thread::spawn(move || {
            hear(&socket, b"hello");
            // The second one comes by the deadline.
            let from = hear(&socket, b"hello");
            for answer in [&b"one"[..], b"", b"two", b"bye"] {
                socket.send_to(answer, from).unwrap();
            }
        });
        let mut reactor = reactor(|_| ());
        let (caller, told) = caller();
        reactor.connect(address, caller);
        reactor.run().unwrap();
        peer.join().unwrap();
        let expected = ["made", "one", "", "two", "bye", "lost: closed"];
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told, expected);

        let counted = reactor.statistics();
        assert_eq!((counted.connected, counted.closed_by_protocol), (1, 1));
        assert_eq!(counted.datagrams_received, 4);
        assert_eq!((counted.datagram_sessions, counted.stale_events), (0, 0));
        assert_eq!(reactor.sessions(), 0);
    }
}

/// The system matches what comes: it is from the peer, or it does not come.
#[test]
fn nobody_else_is_heard() {
    let (socket, address) = socket("127.0.0.1");
    let peer = thread::spawn(move || {
        let from = hear(&socket, b"hello");
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(b"bye", from).unwrap();
        socket.send_to(b"mine", from).unwrap();
        socket.send_to(b"bye", from).unwrap();
    });
    let mut reactor = reactor(|_| ());
    let (caller, told) = caller();
    reactor.connect(address, caller);
    reactor.run().unwrap();
    peer.join().unwrap();
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told[..3], ["made", "mine", "bye"]);
}

#[test]
fn a_port_without_a_program_is_told_and_ends_nothing() {
    for host in ["127.0.0.1", "::1"] {
        let (socket, address) = socket(host);
        let at = socket.local_addr().unwrap();
        drop(socket);
        let mut reactor = reactor(|_| ());
        let (caller, told) = caller();
        reactor.connect(address, caller);
        let mut refusals = 0;
        while refusals < 3 {
            reactor.turn(Some(PATIENCE)).unwrap();
            let refused = |it: &String| it.starts_with("Reported") && it.contains("refused");
            refusals += told.try_iter().filter(refused).count();
        }
        assert!(reactor.statistics().datagrams_undelivered >= 3);
        assert_eq!(reactor.statistics().closed(), 0);

        // It may be there a moment later.
        let back = UdpSocket::bind(at).unwrap();
        back.set_read_timeout(Some(PATIENCE)).unwrap();
        let peer = answers(back);
        reactor.run().unwrap();
        peer.join().unwrap();
        assert_eq!(reactor.statistics().closed_by_protocol, 1);
    }
}

#[test]
fn a_name_is_looked_up() {
    let (socket, address) = socket("127.0.0.1");
    let port = address.socket_addr().unwrap().port();
    let peer = answers(socket);
    let mut reactor = reactor(|_| ());
    let target: Target = format!("udp://127.0.0.1:{port}").parse().unwrap();
    let (caller, _told) = caller();
    reactor.connect_to(target, caller);
    reactor.run().unwrap();
    peer.join().unwrap();
    assert_eq!(reactor.statistics().closed_by_protocol, 1);
}

/// More than one turn takes, without an event for each.
#[test]
fn everything_that_comes_at_once_is_shown() {
    let (socket, address) = socket("127.0.0.1");
    let peer = thread::spawn(move || {
        let from = hear(&socket, b"hello");
        for _ in 0..100 {
            socket.send_to(b"x", from).unwrap();
        }
        socket.send_to(b"bye", from).unwrap();
    });
    let mut reactor = reactor(|config| config.datagrams_per_turn = 3);
    let (caller, told) = caller();
    reactor.connect(address, caller);
    reactor.turn(Some(PATIENCE)).unwrap();
    // All of it is there before the loop looks.
    peer.join().unwrap();
    reactor.run().unwrap();
    let shown = told.try_iter().filter(|it| it == "x").count();
    assert_eq!(shown, 100);
}

#[test]
fn it_takes_the_place_of_a_connection() {
    let (_socket, address) = socket("127.0.0.1");
    let mut reactor = reactor(|config| config.max_connections = 1);
    let (first, _) = caller();
    let (second, told) = caller();
    reactor.connect(address.clone(), first);
    reactor.connect(address, second);
    reactor.turn(Some(seconds(0))).unwrap();
    let lost = told.try_iter().next().unwrap();
    assert!(lost.contains("max_connections"), "{lost}");
    assert_eq!(reactor.sessions(), 1);
}

#[test]
fn what_cannot_be_connected_is_told() {
    let mut reactor = reactor(|_| ());
    for uri in ["unixgram:///nowhere", "udp://255.255.255.255:9"] {
        let (caller, told) = caller();
        reactor.connect(uri.parse().unwrap(), caller);
        reactor.turn(Some(seconds(0))).unwrap();
        let lost: Vec<_> = told.try_iter().collect();
        assert_eq!(lost.len(), 1, "{uri}: {lost:?}");
        assert!(lost[0].starts_with("lost: cannot connect"), "{lost:?}");
    }
    assert_eq!(reactor.statistics().closed_connect_failed, 2);
    assert!(reactor.is_finished());
}

#[test]
fn silence_ends_it_by_the_deadline() {
    struct Silent(Sender<String>);

    impl Protocol for Silent {
        fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
            Ok(data.len())
        }

        fn connection_lost(&mut self, ended: &Ended<'_>) {
            let idle = matches!(ended.reason(), CloseReason::TimedOut(Deadline::Idle));
            let _ = self.0.send(format!("{idle}"));
        }
    }

    let (_socket, address) = socket("127.0.0.1");
    let limits = Limits {
        idle_timeout: Some(millis(20)),
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let mut reactor = Reactor::new(|_: &Peer| None::<Silent>, config).unwrap();
    let (tell, told) = channel();
    reactor.connect(address, Silent(tell));
    reactor.run().unwrap();
    assert_eq!(told.recv().unwrap(), "true");
    assert_eq!(reactor.statistics().closed_timeout_idle, 1);
}

#[test]
fn a_drop_of_the_loop_and_a_shutdown_end_it() {
    let (_socket, address) = socket("127.0.0.1");
    let mut dropped = reactor(|_| ());
    let (one, told) = caller();
    dropped.connect(address.clone(), one);
    dropped.turn(Some(seconds(0))).unwrap();
    drop(dropped);
    assert!(told.try_iter().last().unwrap().starts_with("lost"));

    let mut ended = reactor(|_| ());
    let (two, told) = caller();
    ended.connect(address.clone(), two);
    ended.turn(Some(seconds(0))).unwrap();
    ended.shutdown();
    let (late, told_late) = caller();
    ended.connect(address, late);
    ended.run().unwrap();
    assert_eq!(
        told.try_iter().last().unwrap(),
        "lost: closed by the server's shutdown"
    );
    assert!(told_late.try_iter().last().unwrap().contains("shutdown"));
}

/// Asks for one outbound session at the start.
struct Asking(Option<(Address, Caller)>);

impl Factory for Asking {
    type Protocol = Caller;

    fn build_protocol(&mut self, _: &Peer) -> Option<Caller> {
        None
    }

    fn started(&mut self, actions: &mut Actions<'_, Caller>) {
        if let Some((address, caller)) = self.0.take() {
            actions.connect(address, caller);
        }
    }
}

/// Real sessions at both ends.
#[test]
fn two_servers_talk() {
    let config = Config {
        sessions: true,
        ..Config::default()
    };
    let there = serveloop::Server::bind(&["udp://127.0.0.1:0".parse().unwrap()], config).unwrap();
    let there = Serving::with(there, |_: &Peer| Some(serveloop::protocols::Echo));
    let (caller, told) = caller();
    let here = serveloop::Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], Config::default());
    let asking = Asking(Some((there.addresses[0].clone(), caller)));
    let here = Serving::with_factory(here.unwrap(), asking);
    for expected in ["made", "hello"] {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    }
    assert_eq!(here.end().closed_by_shutdown, 1);
    assert_eq!(there.end().datagram_sessions, 1);
}

#[test]
fn in_memory_it_is_served_as_on_a_network() {
    let address: Address = "udp://192.0.2.1:9".parse().unwrap();
    let (caller, told) = caller();
    let mut server = MemoryServer::new(Asking(Some((address.clone(), caller))));
    let (to, far) = server.next_outbound().unwrap();
    assert_eq!(to, address);
    assert_eq!(server.received_datagrams(far), [b"hello"]);
    server.advance(millis(100));
    assert_eq!(server.received_datagrams(far), [b"hello", b"hello"]);

    let refused = || std::io::Error::from(ErrorKind::ConnectionRefused);
    server.fail_datagram(far, DeliveryError::Reported(refused()));
    server.fail_datagram(far, DeliveryError::TooLong { mtu: Some(1_280) });
    server.stop_taking(far);
    server.advance(millis(50));
    assert!(server.received_datagrams(far).is_empty());
    server.take(far, usize::MAX);
    assert_eq!(server.received_datagrams(far), [b"hello"]);
    server.send(far, b"bye");

    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[1].starts_with("Reported"), "{told:?}");
    assert_eq!(told[2], "TooLong { mtu: Some(1280) }");
    assert_eq!(told[3], "bye");
    assert_eq!(server.statistics().datagrams_undelivered, 2);
    assert_eq!(server.statistics().closed_by_protocol, 1);
}
