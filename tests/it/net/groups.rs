//! Groups of multicast, and broadcasts: who hears what, by which interface, from whom.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use serveloop::net::{Mio, Net, UdpOptions};
use serveloop::protocols::Echo;
use serveloop::service::activation::Inherited;
use serveloop::{Actions, Address, Config, Factory, Listen, Peer, Server};
use socket2::{InterfaceIndexOrAddress, SockRef};

use crate::support::model_server::{Model, ModelServer};
use crate::support::namespace::{ADDRESSES, is_inside};
use crate::support::{PATIENCE, Serving};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

/// How long silence is waited for.
const SILENCE: Duration = Duration::from_millis(150);

fn read(uri: &str) -> Listen {
    uri.parse().unwrap()
}

#[track_caller]
fn serving(uri: &str) -> Serving {
    let server = Server::bind_with(&[read(uri)], Config::default()).unwrap();
    Serving::with(server, |_: &Peer| Some(Echo))
}

fn port(server: &Serving) -> u16 {
    server.addresses[0].socket_addr().unwrap().port()
}

/// A client at this address, which sends to groups by the interface of that address.
fn client(ip: Ipv4Addr) -> UdpSocket {
    let client = UdpSocket::bind((ip, 0)).unwrap();
    SockRef::from(&client).set_multicast_if_v4(&ip).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Says something to `to`, and returns who answers, as far as `count` do.
#[track_caller]
fn ask(client: &UdpSocket, to: SocketAddr, count: usize) -> Vec<SocketAddr> {
    client.send_to(b"who?", to).unwrap();
    let mut answers = Vec::new();
    for _ in 0..count {
        let mut buffer = [0; 9];
        let (count, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"who?");
        answers.push(from);
    }
    client.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(client.recv_from(&mut [0; 9]).is_err(), "one more answer");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    answers
}

/// The groups of an interface, as `ip` shows them.
fn joined(interface: &str, group: &str) -> bool {
    let shown = Command::new("ip")
        .args(["maddr", "show", "dev", interface])
        .output()
        .unwrap();
    String::from_utf8_lossy(&shown.stdout).contains(group)
}

#[test]
fn every_receiver_of_a_group_hears_it_until_it_leaves() {
    const NAME: &str = "net::groups::every_receiver_of_a_group_hears_it_until_it_leaves";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let first = serving("udp://239.1.2.3:0?interface=d0");
    let port = port(&first);
    let second = serving(&format!("udp://239.1.2.3:{port}?interface=10.9.0.2"));
    assert!(joined("d0", "239.1.2.3"));

    let client = client(Ipv4Addr::new(10, 9, 0, 1));
    let to = SocketAddr::from((GROUP, port));
    for from in ask(&client, to, 2) {
        assert_eq!(from, SocketAddr::from(([10, 9, 0, 1], port)));
    }
    first.end();
    assert!(joined("d0", "239.1.2.3"));
    ask(&client, to, 1);
    let statistics = second.end();
    assert_eq!(statistics.datagrams_received, 2);
    assert!(!joined("d0", "239.1.2.3"));
}

#[test]
fn so_it_is_over_ipv6() {
    const NAME: &str = "net::groups::so_it_is_over_ipv6";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let first = serving("udp://[ff02::7:7]:0?interface=d0");
    let addr = first.addresses[0].socket_addr().unwrap();
    let SocketAddr::V6(group) = addr else {
        panic!("{addr}");
    };
    assert_ne!(group.scope_id(), 0);
    // The interface is in the address, or is found by its own address, or both.
    let second = serving(&format!("udp://{addr}?interface=fd00:9::2"));
    let third = serving(&format!("udp://{addr}"));
    let client = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for from in ask(&client, addr, 3) {
        assert!(!from.ip().is_multicast(), "{from}");
    }
    for server in [first, second, third] {
        assert_eq!(server.end().datagrams_sent, 1);
    }
    assert!(!joined("d0", "ff02::7:7"));

    let wider = serving("udp://[ff15::7]:0?interface=d0");
    let port = port(&wider);
    SockRef::from(&client)
        .set_multicast_if_v6(group.scope_id())
        .unwrap();
    ask(
        &client,
        ("ff15::7".parse::<Ipv6Addr>().unwrap(), port).into(),
        1,
    );
}

/// What another program has joined does not reach a listener.
#[test]
fn a_group_is_heard_by_its_interface_alone() {
    const NAME: &str = "net::groups::a_group_is_heard_by_its_interface_alone";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let outer = serving("udp://239.1.2.3:0?interface=d0");
    let port = port(&outer);
    let inner = serving(&format!("udp://239.1.2.3:{port}?interface=lo"));
    let to = SocketAddr::from((GROUP, port));
    ask(&client(Ipv4Addr::new(10, 9, 0, 1)), to, 1);
    assert_eq!(
        outer.wait(|it| it.datagrams_sent == 1).datagrams_received,
        1
    );
    ask(&client(Ipv4Addr::LOCALHOST), to, 1);
    assert_eq!(inner.end().datagrams_received, 1);
    assert_eq!(outer.end().datagrams_received, 1);
}

#[test]
fn a_source_is_the_only_one_that_is_heard() {
    const NAME: &str = "net::groups::a_source_is_the_only_one_that_is_heard";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let server = serving("udp://232.1.2.3:0?interface=d0&source=10.9.0.2");
    let to = SocketAddr::from((Ipv4Addr::new(232, 1, 2, 3), port(&server)));
    assert!(ask(&client(Ipv4Addr::new(10, 9, 0, 1)), to, 0).is_empty());
    assert_eq!(ask(&client(Ipv4Addr::new(10, 9, 0, 2)), to, 1).len(), 1);
    assert_eq!(server.end().datagrams_received, 1);

    let server = serving("udp://[ff35::7]:0?interface=d0&source=fd00:9::2");
    let group: Ipv6Addr = "ff35::7".parse().unwrap();
    let scope = server.addresses[0].socket_addr().unwrap();
    let SocketAddr::V6(scope) = scope else {
        panic!("{scope}");
    };
    for (ip, answers) in [("fd00:9::1", 0), ("fd00:9::2", 1)] {
        let client = UdpSocket::bind((ip.parse::<Ipv6Addr>().unwrap(), 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let interface = scope.scope_id();
        SockRef::from(&client)
            .set_multicast_if_v6(interface)
            .unwrap();
        let to = SocketAddr::from((group, port(&server)));
        assert_eq!(ask(&client, to, answers).len(), answers, "{ip}");
    }
}

/// One worker gets each datagram; and no peer can stay with its worker then.
#[test]
fn workers_share_a_group() {
    const NAME: &str = "net::groups::workers_share_a_group";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for model in Model::ALL {
        let at = read("udp://239.1.2.3:0?interface=d0");
        let server = Server::bind_with(&[at], Config::default()).unwrap();
        let server = ModelServer::with(model, server, |_: &Peer| Some(Echo));
        let port = server.addresses[0].socket_addr().unwrap().port();
        for _ in 0..5 {
            ask(&client(Ipv4Addr::new(10, 9, 0, 1)), (GROUP, port).into(), 1);
        }
        assert_eq!(server.end().datagrams_received, 5, "{model:?}");
    }
    let at = read("udp://239.1.2.3:0?interface=d0&sessions=true&reuse-port=true");
    let server = Server::bind_with(&[at], Config::default()).unwrap();
    let refused = server.serve_workers(2, |_: &Peer| Some(Echo)).unwrap_err();
    assert!(
        refused.to_string().contains("share this socket"),
        "{refused}"
    );
}

/// A socket that another process has bound is joined, unless it is a member already.
#[test]
fn a_socket_that_is_passed_joins_its_group() {
    const NAME: &str = "net::groups::a_socket_that_is_passed_joins_its_group";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for uri in [
        "udp://239.1.2.3:0?interface=d0",
        "udp://232.1.2.3:0?interface=d0&source=10.9.0.2",
        "udp://[ff02::7]:0?interface=d0",
        "udp://[ff35::7]:0?interface=d0&source=fd00:9::2",
    ] {
        let old = Server::bind_with(&[read(uri)], Config::default()).unwrap();
        let copies = old.open_sockets().list().unwrap().into_iter();
        let inherited = Inherited::handed_on(copies.map(OwnedFd::from), None).unwrap();
        let listen = inherited.listen_with(read(uri).options().clone()).unwrap();
        let new = Server::bind_with(&[listen], Config::default());
        let new = new.unwrap_or_else(|error| panic!("{uri}: {error}"));
        assert_eq!(new.addresses(), old.addresses());
    }

    let bound = UdpSocket::bind((GROUP, 0)).unwrap();
    let port = bound.local_addr().unwrap().port();
    let options = read("udp://239.1.2.3:0?interface=d0").options().clone();
    let listen = Inherited::new(bound, "").listen_with(options).unwrap();
    let server = Server::bind_with(&[listen], Config::default()).unwrap();
    let server = Serving::with(server, |_: &Peer| Some(Echo));
    ask(&client(Ipv4Addr::new(10, 9, 0, 1)), (GROUP, port).into(), 1);
    server.end();
}

#[test]
fn a_group_that_cannot_be_joined_is_refused() {
    const NAME: &str = "net::groups::a_group_that_cannot_be_joined_is_refused";
    if !is_inside(NAME, "") {
        return;
    }
    for (uri, said) in [
        ("udp://239.1.2.3:7", "cannot join the group: "),
        (
            "udp://239.1.2.3:7",
            "name an interface, as in interface=eth0",
        ),
        ("udp://239.1.2.3:7?interface=no0", "interface \"no0\": "),
        (
            "udp://239.1.2.3:7?interface=192.0.2.9",
            "no interface has the address 192.0.2.9",
        ),
        ("udp://[ff02::1%1]:7?interface=no0", "interface \"no0\": "),
        (
            "udp://[ff02::1%2]:7?interface=lo",
            "the address has another interface",
        ),
    ] {
        let error = Server::bind_with(&[read(uri)], Config::default()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("cannot listen on udp://"), "{error}");
        assert!(error.contains(said), "{uri}: {error}");
    }
}

#[test]
fn a_socket_has_the_options_of_its_listener() {
    const NAME: &str = "net::groups::a_socket_has_the_options_of_its_listener";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let udp = UdpOptions {
        interface: Some("d0".to_owned()),
        ttl: Some(7),
        loopback: Some(false),
        broadcast: true,
        ..UdpOptions::default()
    };
    let config = Config {
        udp,
        ..Config::default()
    };
    let mut net = Mio::new().unwrap();
    let mut bind = |uri: &str| net.bind(&uri.parse().unwrap(), &config, 0).unwrap().0;
    let group = bind("udp://239.1.2.3:0");
    let group = SockRef::from(&group);
    assert_eq!(
        (group.ttl_v4().unwrap(), group.multicast_ttl_v4().unwrap()),
        (7, 7)
    );
    assert!(group.broadcast().unwrap());
    assert!(!group.multicast_loop_v4().unwrap());

    let group = bind("udp://[ff05::1]:0");
    let group = SockRef::from(&group);
    assert_eq!(group.unicast_hops_v6().unwrap(), 7);
    assert_eq!(group.multicast_hops_v6().unwrap(), 7);
    assert!(!group.multicast_loop_v6().unwrap());
    let usual = bind("udp://127.0.0.1:0");
    assert_eq!(SockRef::from(&usual).ttl_v4().unwrap(), 7);
}

/// Sends to a group, to a network, and to what is no listener of datagrams, when it starts.
#[derive(Clone)]
struct Announcing(Vec<(usize, Address)>);

impl Factory for Announcing {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
        Some(Echo)
    }

    fn started(&mut self, actions: &mut Actions<'_, Echo>) {
        for (listener, to) in &self.0 {
            actions.send_datagram(*listener, to.clone(), "here I am");
        }
    }
}

#[test]
fn a_server_sends_to_a_group_and_to_a_network() {
    const NAME: &str = "net::groups::a_server_sends_to_a_group_and_to_a_network";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let heard = UdpSocket::bind("0.0.0.0:0").unwrap();
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let by = InterfaceIndexOrAddress::Address(Ipv4Addr::new(10, 9, 0, 1));
    SockRef::from(&heard)
        .join_multicast_v4_n(&GROUP, &by)
        .unwrap();
    let port = heard.local_addr().unwrap().port();
    let to = |ip: &str| -> Address { format!("udp://{ip}:{port}").parse().unwrap() };

    for (query, sent) in [
        ("", 1),
        ("&broadcast=true", 2),
        ("&broadcast=true&loopback=false", 1),
    ] {
        let uri = format!("udp://239.9.9.9:0?interface=d0{query}");
        let listens = [read(&uri), read("tcp://127.0.0.1:0")];
        let server = Server::bind_with(&listens, Config::default()).unwrap();
        let all = vec![
            (0, to("239.1.2.3")),
            (0, to("10.9.0.255")),
            (1, to("10.9.0.1")),
            (9, to("10.9.0.1")),
        ];
        let server = Serving::with_factory(server, Announcing(all));
        for _ in 0..sent {
            let mut buffer = [0; 20];
            let (count, from) = heard.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"here I am");
            assert!(from.ip() == Ipv4Addr::new(10, 9, 0, 1), "{from}");
        }
        let dropped = if query.is_empty() { 3 } else { 2 };
        let told = server.end();
        assert_eq!(told.datagrams_dropped, dropped, "{query}");
        assert_eq!(told.datagrams_sent, 4 - dropped, "{query}");
        heard.set_read_timeout(Some(SILENCE)).unwrap();
        assert!(heard.recv_from(&mut [0; 20]).is_err(), "{query}");
        heard.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}
