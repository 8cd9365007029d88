//! Clients behind a load balancer: who they are, how many they may be, and whom to believe.

use std::io::Write;
use std::net::UdpSocket;
use std::time::Instant;

use serveloop::layer::proxy::{Header, Proxy};
use serveloop::layer::{Prefaced, prefaced};
use serveloop::net::NetworkList;
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{Address, CloseReason, Config, Peer, Protocol, Result, Server, Transport};
use socket2::Socket;

use crate::support::model_protocols::{frame, shout};
use crate::support::model_server::{End, Model, ModelServer, connect, finish, read_to};
use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, expect, millis, panic_quietly, timeless};

fn header(client: &str) -> Vec<u8> {
    let client: Address = format!("tcp://{client}").parse().unwrap();
    let server: Address = "tcp://198.51.100.1:443".parse().unwrap();
    let mut output = Vec::new();
    Header::proxied(client, server)
        .unwrap()
        .encode_v2(&mut output);
    output
}

fn list(text: &str) -> NetworkList {
    text.parse().unwrap()
}

/// A session from an address, of a server with such a proxy.
fn session(proxy: &Proxy, from: &str) -> Option<MemorySession<impl Protocol>> {
    let proxy = proxy.clone();
    let mut factory = prefaced(
        move |peer: &Peer| proxy.reader(peer),
        |peer: &Peer, header: &Option<_>| {
            println!("{peer} {header:?}");
            Some(Echo)
        },
    );
    let peer = Peer::new(format!("tcp://{from}").parse().unwrap(), Some(0));
    let protocol = factory(&peer)?;
    Some(MemorySession::with_peer(protocol, timeless(), peer))
}

#[test]
fn only_trusted_proxies_are_believed() {
    let (required, optional) = (list("10.0.0.0/8"), list("10.0.0.0/8"));
    let (required, optional) = (Proxy::required(required), Proxy::optional(optional));
    assert!(session(&required, "192.0.2.1:5").is_none());

    let line = b"PROXY TCP4 203.0.113.9 198.51.100.1 4000 443\r\n";
    for sent in [&header("203.0.113.9:4000"), &line[..]] {
        for proxy in [&required, &optional] {
            let mut trusted = session(proxy, "10.1.1.1:5").unwrap();
            trusted.receive(sent);
            trusted.receive(b"hello");
            assert_eq!(trusted.sent(), b"hello");
        }

        let mut forger = session(&optional, "192.0.2.1:5").unwrap();
        forger.receive(sent);
        let reason = forger.reason().unwrap().to_string();
        assert!(
            reason.contains("tcp://192.0.2.1:5 is no trusted proxy"),
            "{reason}"
        );
        assert_eq!(forger.sent(), b"");
    }

    let mut direct = session(&optional, "192.0.2.1:5").unwrap();
    direct.receive(b"P");
    direct.receive(b"ROXY");
    direct.receive(b" is what I say");
    assert_eq!(direct.sent(), b"PROXY is what I say");

    // A trusted proxy that sends no header is broken, and not a client.
    let mut broken = session(&optional, "10.1.1.1:5").unwrap();
    broken.receive(b"hello");
    assert!(
        broken
            .reason()
            .unwrap()
            .to_string()
            .contains("no PROXY header")
    );
}

/// Says who it serves, before its client has said anything.
struct Greeter;

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let greeting = format!("hello {}\n", transport.peer());
        transport.write(greeting.as_bytes());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        // A word at a time, so that some bytes are shown again.
        let Some(end) = data.iter().position(|byte| *byte == b' ') else {
            return Ok(0);
        };
        transport.write(&data[..=end]);
        Ok(end + 1)
    }
}

fn greeted(from: &str) -> MemorySession<impl Protocol> {
    let proxy = Proxy::optional(list("10.0.0.0/8"));
    let mut factory = prefaced(
        move |peer: &Peer| proxy.reader(peer),
        |_: &Peer, _: &Option<_>| Some(Greeter),
    );
    let peer = Peer::new(format!("tcp://{from}").parse().unwrap(), Some(0));
    let protocol = factory(&peer).unwrap();
    MemorySession::with_peer(protocol, timeless(), peer)
}

#[test]
fn a_direct_client_is_greeted_before_it_has_said_anything() {
    let mut direct = greeted("192.0.2.1:5");
    assert_eq!(direct.sent(), b"hello tcp://192.0.2.1:5\n");
    direct.receive(b"what is this? ");
    assert_eq!(direct.sent(), b"what is this? ");

    let mut behind = greeted("10.0.0.1:5");
    assert_eq!(behind.sent(), b"");
    behind.receive(&header("192.0.2.9:7"));
    assert_eq!(behind.sent(), b"hello tcp://192.0.2.9:7\n");
}

#[test]
fn a_forged_header_in_pieces_is_one_too() {
    let lines: [&[u8]; 3] = [
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21",
    ];
    for line in lines {
        for cut in 1..line.len() {
            let mut forger = greeted("192.0.2.1:5");
            for piece in line.chunks(cut) {
                forger.receive(piece);
            }
            let reason = forger.reason().expect("an end").to_string();
            assert!(reason.contains("no trusted proxy"), "{cut}: {reason}");
        }
    }

    // What only resembles one, and what comes later, is the protocol's.
    for text in [
        "PROXY me to nowhere ",
        "PROXY TCP5 1.1.1.1 ",
        "a PROXY TCP4 1.1.1.1 ",
    ] {
        for cut in 1..text.len() {
            let mut client = greeted("192.0.2.1:5");
            client.sent();
            for piece in text.as_bytes().chunks(cut) {
                client.receive(piece);
            }
            assert_eq!(client.sent(), text.as_bytes(), "{cut}");
        }
    }
}

/// `connection_lost` follows also if the first call has panicked.
#[test]
fn a_protocol_that_panics_at_its_beginning_is_told_of_the_end() {
    let proxy = Proxy::optional(list("10.0.0.0/8"));
    for (from, sent) in [
        ("192.0.2.1:5", vec![]),
        ("10.0.0.1:5", header("192.0.2.1:7")),
    ] {
        let log = Log::default();
        let noted = log.clone();
        let build =
            move |_: &Peer, _: &Option<_>| Some(Probe::new(&noted).made(|_| panic_quietly()));
        let peer = Peer::new(format!("tcp://{from}").parse().unwrap(), Some(0));
        let protocol = Prefaced::new(proxy.reader(&peer).unwrap(), build);
        let mut session = MemorySession::with_peer(protocol, timeless(), peer);
        session.receive(&sent);
        assert_eq!(
            log.entries(),
            ["made", "lost the protocol panicked"],
            "{from}"
        );
    }
}

#[test]
fn a_direct_client_may_be_refused_or_leave_at_any_time() {
    let proxy = Proxy::optional(list("10.0.0.0/8"));
    let reader = |from: &str| {
        let peer = Peer::new(format!("tcp://{from}").parse().unwrap(), Some(0));
        (proxy.reader(&peer).unwrap(), peer)
    };
    let (refusing, peer) = reader("192.0.2.1:5");
    let nobody = |_: &Peer, _: &Option<_>| None::<Greeter>;
    let protocol = Prefaced::new(refusing, nobody);
    let session = MemorySession::with_peer(protocol, timeless(), peer);
    assert!(matches!(session.reason(), Some(CloseReason::Refused)));

    let mut leaving = greeted("192.0.2.1:5");
    leaving.receive_eof();
    assert!(matches!(leaving.reason(), Some(CloseReason::PeerClosed)));
    let mut cut = greeted("192.0.2.1:5");
    cut.receive(b"PROX");
    cut.receive_eof();
    let reason = cut.reason().unwrap().to_string();
    assert!(reason.contains("4 bytes"), "{reason}");
    let mut stopped = greeted("192.0.2.1:5");
    stopped.shutdown();
    assert!(matches!(stopped.reason(), Some(CloseReason::Shutdown)));
}

/// A header may name anybody, over any transport, and a reply that goes there is a weapon.
#[test]
fn a_datagram_is_answered_to_its_sender_whatever_its_header_says() {
    let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
    let named = victim.local_addr().unwrap().to_string();
    victim.set_read_timeout(Some(millis(100))).unwrap();
    for model in Model::ALL {
        let proxy = Proxy::required(list("127.0.0.1"));
        let factory = prefaced(
            move |peer: &Peer| proxy.reader(peer),
            |peer: &Peer, _: &Option<_>| peer.is_datagram().then_some(Echo),
        );
        let server = ModelServer::new(model, &["udp://127.0.0.1:0"], timeless(), factory);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = [&header(&named)[..], b"hello"].concat();
        let to = server.addresses[0].socket_addr().unwrap();
        sender.send_to(&sent, to).unwrap();

        let mut reply = [0; 64];
        let (count, from) = sender.recv_from(&mut reply).unwrap();
        assert_eq!((&reply[..count], from), (&b"hello"[..], to), "{model:?}");
        assert!(victim.recv(&mut reply).is_err(), "{model:?}");
        server.end();
    }
}

#[test]
fn a_header_about_datagrams_makes_no_datagram_of_a_stream() {
    let address = |uri: &str| uri.parse::<Address>().unwrap();
    let proxy = Proxy::required(list("10.0.0.0/8"));
    for (client, server) in [
        ("udp://192.0.2.1:1", "udp://192.0.2.2:2"),
        ("unixgram:///client", "unixgram:///server"),
    ] {
        let mut sent = Vec::new();
        Header::proxied(address(client), address(server))
            .unwrap()
            .encode_v2(&mut sent);
        let prelude = proxy
            .reader(&Peer::new(address("tcp://10.0.0.1:1"), Some(0)))
            .and_then(|mut reader| {
                let peer = Peer::new(address("tcp://10.0.0.1:1"), Some(0));
                serveloop::layer::Preface::read(&mut reader, &sent, &peer).unwrap()
            })
            .unwrap();
        assert_eq!(prelude.client, None);
        assert_eq!(prelude.info.unwrap().source(), Some(&address(client)));
    }
}

/// A server behind a balancer on loopback, and its clients by their headers.
fn behind(model: Model, config: Config) -> ModelServer {
    let config = Config {
        limit_loopback: true,
        ..config
    };
    let proxy = Proxy::required(list("127.0.0.0/8"));
    let factory = proxy.factory(|_: &Peer, _: &Option<_>| Some(shout()));
    ModelServer::of_factory(model, &["tcp://127.0.0.1:0"], config, factory)
}

fn client(server: &ModelServer, address: &str) -> Socket {
    let mut client = connect(&server.addresses[0]);
    client.write_all(&header(address)).unwrap();
    client
}

/// On loopback, proxies and their clients have the same address.
#[test]
fn each_listener_has_proxies_of_its_own() {
    for model in Model::CONCURRENT {
        let config = Config {
            max_per_peer: 1,
            limit_loopback: true,
            reuse_port: model == Model::Workers,
            ..timeless()
        };
        let listens = [
            "tcp://127.0.0.1:0?trusted-proxies=127.0.0.0/8",
            "tcp://127.0.0.1:0",
        ];
        let listens = listens.map(|uri| uri.parse().unwrap());
        let server = Server::bind_with(&listens, config).unwrap();
        let server = ModelServer::with(model, server, |_: &Peer| Some(shout()));

        let mut exempt: Vec<_> = (0..8).map(|_| connect(&server.addresses[0])).collect();
        assert!(exempt.iter_mut().all(is_served), "{model:?}");
        let mut counted: Vec<_> = (0..8).map(|_| connect(&server.addresses[1])).collect();
        let served = counted
            .iter_mut()
            .filter_map(|it| is_served(it).then_some(()))
            .count();
        // Each of two loops has a limit of its own.
        assert!((1..=2).contains(&served), "{model:?}: {served}");
        drop((exempt, counted));
        server.end();
    }
}

/// The factory's list is for listeners that have no other.
#[test]
fn proxies_that_a_configuration_names_are_the_ones_that_are_exempt() {
    for (named, exempt) in [("10.0.0.0/8", 1), ("127.0.0.1", 3)] {
        let config = Config {
            max_per_peer: 1,
            trusted_proxies: list(named),
            ..timeless()
        };
        let server = behind(Model::EventLoop, config);
        let mut clients: Vec<_> = (1..4)
            .map(|host| client(&server, &format!("192.0.2.{host}:1")))
            .collect();
        let served = clients
            .iter_mut()
            .filter_map(|it| is_served(it).then_some(()));
        assert_eq!(served.count(), exempt, "{named}");
        drop(clients);
        server.end();
    }
}

fn is_served(client: &mut Socket) -> bool {
    let _ = client.write_all(&frame("hi"));
    let mut byte = [0];
    matches!(std::io::Read::read(client, &mut byte), Ok(1))
}

#[test]
fn limits_count_clients_and_not_their_balancer() {
    for model in [Model::EventLoop, Model::Threading] {
        count_clients(model);
    }
}

fn count_clients(model: Model) {
    let config = Config {
        max_per_peer: 2,
        ..timeless()
    };
    let server = behind(model, config);
    let mut clients: Vec<_> = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.3:1"]
        .map(|address| client(&server, address))
        .into();
    assert!(clients.iter_mut().all(is_served));

    // It is not served, although its message has come with the header.
    let mut third = connect(&server.addresses[0]);
    let begin = [&header("192.0.2.1:3")[..], &frame("hi")].concat();
    third.write_all(&begin).unwrap();
    assert_eq!(read_to(&mut third).0, b"");

    // When a connection has ended, the same client may have another one. Its end is counted after
    // it can be seen.
    let mut first = clients.remove(0);
    finish(&first);
    assert_eq!(read_to(&mut first).1, End::Eof);
    let end = Instant::now() + PATIENCE;
    while !is_served(&mut client(&server, "192.0.2.1:4")) {
        assert!(Instant::now() < end, "{model:?}: the place is not free");
    }

    drop(clients);
    let statistics = server.end();
    assert!(statistics.closed_refused >= 1, "{model:?}: {statistics:?}");
    assert_eq!(statistics.refused_max_per_peer, 0);
}

#[test]
fn errors_name_the_client_in_every_model() {
    for model in Model::ALL {
        let server = behind(model, timeless());
        let mut client = client(&server, "192.0.2.1:77");
        client.write_all(&[0, 0, 0, 255]).unwrap();
        expect(&mut client, &frame("too long"));
        let error = server.await_error();
        assert!(error.contains("tcp://192.0.2.1:77"), "{model:?}: {error}");
        drop(client);
        assert_eq!(server.end().closed_too_long, 1);
    }
}
