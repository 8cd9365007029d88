//! A reply leaves from the address that its datagram was sent to, though the server is bound to all
//! of them: a client that is connected takes no reply from elsewhere, nor does a firewall.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use serveloop::protocols::Echo;
use serveloop::{Config, Peer};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::model_server::{Model, ModelServer};
use crate::support::namespace::{ADDRESSES, is_inside};
use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Serving};

/// A client at `from` that takes replies from `to` alone.
#[track_caller]
fn client(from: SocketAddr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Asks a server of every model at each of `hosts`, from `from`.
#[track_caller]
fn check(listen: &str, from: &str, hosts: &[&str]) {
    for model in Model::ALL {
        let server = ModelServer::new(model, &[listen], Config::default(), |_: &Peer| Some(Echo));
        let port = server.addresses[0].socket_addr().unwrap().port();
        for host in hosts {
            let to: SocketAddr = format!("{host}:{port}").parse().unwrap();
            let from: SocketAddr = format!("{from}:0").parse().unwrap();
            let client = client(from, to);
            for request in [&b"hello"[..], b"", &[7; 3_000]] {
                client.send(request).unwrap();
                let mut buffer = [0; 4_000];
                let count = client.recv(&mut buffer);
                let count = count.unwrap_or_else(|error| panic!("{model:?} at {host}: {error}"));
                assert_eq!(buffer[..count], *request, "{model:?} at {host}");
            }
        }
        let statistics = server.end();
        assert_eq!(statistics.datagrams_sent, 3 * hosts.len() as u64);
        assert_eq!(statistics.datagrams_dropped, 0);
    }
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let hosts = ["127.0.0.1", "127.0.0.2", "127.9.9.9"];
    check("udp://0.0.0.0:0", "127.0.0.1", &hosts);
}

#[test]
fn so_it_does_over_ipv6() {
    check("udp://[::]:0", "[::1]", &["[::1]"]);
}

#[test]
fn so_it_does_at_further_addresses_of_an_interface() {
    const NAME: &str = "net::destination::so_it_does_at_further_addresses_of_an_interface";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let hosts = ["10.9.0.1", "10.9.0.2", "127.0.0.5"];
    check("udp://0.0.0.0:0", "10.9.0.1", &hosts);
    let hosts = ["[fd00:9::1]", "[fd00:9::2]", "[::1]"];
    check("udp://[::]:0", "[fd00:9::1]", &hosts);
}

/// An address that each interface has is one of the interface that the datagram came by.
#[test]
fn so_it_does_at_a_link_local_address() {
    const NAME: &str = "net::destination::so_it_does_at_a_link_local_address";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    let scope = scope_of("d0");
    let own = format!("[fe80::9:1%{scope}]");
    let other = format!("[fe80::9:2%{scope}]");
    check("udp://[::]:0", &own, &[&own, &other]);
}

/// The number of an interface, as `ip` tells it: /sys shows the namespace before.
fn scope_of(interface: &str) -> u32 {
    let shown = Command::new("ip")
        .args(["-o", "link", "show", interface])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let number = shown.split(':').next().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{interface}: {shown}"))
}

/// A broadcast datagram is sent to none of our addresses: the system chooses.
#[test]
fn a_broadcast_is_answered_from_an_address_of_ours() {
    const NAME: &str = "net::destination::a_broadcast_is_answered_from_an_address_of_ours";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for model in Model::ALL {
        let at = ["udp://0.0.0.0:0"];
        let server = ModelServer::new(model, &at, Config::default(), |_: &Peer| Some(Echo));
        let port = server.addresses[0].socket_addr().unwrap().port();
        let client = UdpSocket::bind("10.9.0.1:0").unwrap();
        client.set_broadcast(true).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"hello", ("10.9.0.255", port)).unwrap();
        let mut buffer = [0; 9];
        let (count, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((count, from.ip().to_string()), (5, "10.9.0.1".to_owned()));
        // The system gives a broadcast to every socket at the port, and so to each of several loops.
        let sent = server.end().datagrams_sent;
        assert!((1..=2).contains(&sent), "{sent} replies");
    }
}

/// The address goes while the request is served: there is no reply from another one.
#[test]
fn a_reply_from_an_address_that_is_gone_is_dropped_and_counted() {
    const NAME: &str =
        "net::destination::a_reply_from_an_address_that_is_gone_is_dropped_and_counted";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for (listen, from, asked) in [
        ("udp://0.0.0.0:0", "127.0.0.1:0", "10.9.0.2/24"),
        ("udp://[::]:0", "[::1]:0", "fd00:9::2/64"),
    ] {
        let server = Serving::at(&[listen], Config::default(), move |_: &Peer| {
            let probe = Probe::new(&Log::default());
            Some(probe.data(move |data, transport| {
                let gone = Command::new("ip")
                    .args(["addr", "del", asked, "dev", "d0"])
                    .stderr(Stdio::null())
                    .status();
                gone.unwrap();
                transport.write(data);
                Ok(data.len())
            }))
        });
        let port = server.addresses[0].socket_addr().unwrap().port();
        let client = UdpSocket::bind(from).unwrap();
        let asked = asked.split('/').next().unwrap().parse().unwrap();
        client
            .send_to(b"hello", SocketAddr::new(asked, port))
            .unwrap();
        server.wait(|statistics| statistics.datagrams_dropped == 1);
        assert_eq!(server.end().datagrams_sent, 0);
    }
}

/// A server on all addresses, and a socket that has its address on `d0`: its datagrams look like the
/// server's own, by a shared port.
fn forged(hosts: (&str, &str)) -> (Serving, Socket, SockAddr) {
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let (from, to) = hosts;
    let parse = |host: &str, port: u16| format!("{host}:{port}").parse::<SocketAddr>().unwrap();
    let any = if parse(from, 0).is_ipv6() {
        "udp://[::]:0"
    } else {
        "udp://0.0.0.0:0"
    };
    let server = Serving::at(&[any], config, |_: &Peer| Some(Echo));
    let port = server.addresses[0].socket_addr().unwrap().port();
    let from = parse(from, port);
    let forger = Socket::new(Domain::for_address(from), Type::DGRAM, None).unwrap();
    forger.set_reuse_port(true).unwrap();
    forger.bind(&from.into()).unwrap();
    (server, forger, parse(to, port).into())
}

/// Addresses of the namespace, each family's and scope's.
fn own_hosts() -> [(String, String); 3] {
    let scope = scope_of("d0");
    [
        ("10.9.0.1".to_owned(), "10.9.0.2".to_owned()),
        ("[fd00:9::1]".to_owned(), "[fd00:9::2]".to_owned()),
        (
            format!("[fe80::9:1%{scope}]"),
            format!("[fe80::9:2%{scope}]"),
        ),
    ]
}

/// Whatever comes from an address of this machine and the server's port is the server's own, and
/// answering it would never end.
#[test]
fn a_datagram_from_an_own_link_local_address_is_not_answered() {
    const NAME: &str =
        "net::destination::a_datagram_from_an_own_link_local_address_is_not_answered";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for (from, to) in own_hosts() {
        let (server, forger, to) = forged((&from, &to));
        forger.send_to(b"hello", &to).unwrap();
        server.wait(|statistics| statistics.datagrams_received == 1);
        let statistics = server.end();
        assert_eq!(statistics.datagrams_reflected, 1, "{from}");
    }
}

#[test]
fn an_own_address_is_known_without_a_descriptor_to_ask_with() {
    const NAME: &str = "net::destination::an_own_address_is_known_without_a_descriptor_to_ask_with";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for (from, to) in own_hosts() {
        let (server, forger, to) = forged((&from, &to));
        // It serves, and so has what it needs.
        forger.send_to(b"hello", &to).unwrap();
        server.wait(|statistics| statistics.datagrams_received == 1);
        let mut taken = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        forger.send_to(b"hello", &to).unwrap();
        server.wait(|statistics| statistics.datagrams_received == 2);
        drop(taken);
        let statistics = server.end();
        assert_eq!(statistics.datagrams_reflected, 2, "{from}");
    }
}
