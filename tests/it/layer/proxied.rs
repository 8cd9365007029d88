//! Clients behind a load balancer: who they are, how many they may be, and whom to believe.

use std::io::Write;
use std::time::Instant;

use serveloop::layer::prefaced;
use serveloop::layer::proxy::{Header, Proxy};
use serveloop::net::NetworkList;
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{Address, Config, Peer, Protocol};
use socket2::Socket;

use crate::support::model_protocols::{frame, shout};
use crate::support::model_server::{End, Model, ModelServer, connect, finish, read_to};
use crate::support::{PATIENCE, expect, timeless};

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
    assert_eq!(direct.sent(), b"PROXY");

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
        trusted_proxies: list("127.0.0.0/8"),
        limit_loopback: true,
        ..config
    };
    let proxy = Proxy::required(config.trusted_proxies.clone());
    let factory = prefaced(
        move |peer: &Peer| proxy.reader(peer),
        |_: &Peer, _: &Option<_>| Some(shout()),
    );
    ModelServer::new(model, &["tcp://127.0.0.1:0"], config, factory)
}

fn client(server: &ModelServer, address: &str) -> Socket {
    let mut client = connect(&server.addresses[0]);
    client.write_all(&header(address)).unwrap();
    client
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
