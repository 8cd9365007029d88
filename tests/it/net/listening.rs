//! Listeners of both families, keepalive, and other options of sockets, as the system sees them.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::{Address, Config, Listen, Peer, Reactor, Server};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::model_server::{Model, ModelServer, connect};
use crate::support::namespace::{ADDRESSES, is_inside};
use crate::support::outside::skip;
use crate::support::probe::{Log, Probe};
use crate::support::{
    PATIENCE, Scratch, Serving, client, echoes, expect, patient, read_to_end, seconds, timeless,
};

/// Binds listeners as a model needs it.
#[track_caller]
fn bind(model: Model, uris: &[&str], config: Config) -> Server {
    let config = Config {
        reuse_port: model == Model::Workers,
        ..config
    };
    let listens: Vec<Listen> = uris.iter().map(|uri| uri.parse().unwrap()).collect();
    Server::bind_with(&listens, config).unwrap()
}

/// A protocol that answers with the peer's address, and with its own if it is a stream's.
fn tells_addresses(peer: &Peer) -> Option<Probe> {
    let mut shown = peer.to_string();
    Some(Probe::new(&Log::default()).data(move |data, transport| {
        if let Some(local) = transport.local_address() {
            shown += &format!(" {local}");
        }
        transport.write(shown.as_bytes());
        Ok(data.len())
    }))
}

fn port(address: &Address) -> u16 {
    address.socket_addr().unwrap().port()
}

fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        skip("IPv6");
    }
    has
}

/// An IPv4 client is shown as what it is, and not as `::ffff:127.0.0.1`.
#[test]
fn both_families_reach_one_listener() {
    if !has_ipv6() {
        return;
    }
    for model in Model::ALL {
        for uri in ["tcp://[::]:0?dual-stack=true", "tcp://:0", "tcp://*:0"] {
            let server = bind(model, &[uri], Config::default());
            let server = ModelServer::with(model, server, tells_addresses);
            let port = port(&server.addresses[0]);
            assert_eq!(
                server.addresses,
                [format!("tcp://[::]:{port}").parse().unwrap()]
            );
            for host in ["127.0.0.1", "[::1]"] {
                let to: SocketAddr = format!("{host}:{port}").parse().unwrap();
                let mut stream = patient(TcpStream::connect(to).unwrap());
                std::io::Write::write_all(&mut stream, b"?").unwrap();
                let own = stream.local_addr().unwrap();
                expect(&mut stream, format!("tcp://{own} tcp://{to}").as_bytes());
            }
            server.end();
        }
    }
}

#[test]
fn datagrams_of_both_families_are_answered() {
    if !has_ipv6() {
        return;
    }
    for model in Model::ALL {
        for uri in ["udp://[::]:0?dual-stack=true", "udp://:0"] {
            let config = Config {
                reply_factor: 100,
                ..Config::default()
            };
            let server = ModelServer::with(model, bind(model, &[uri], config), tells_addresses);
            let port = port(&server.addresses[0]);
            for host in ["127.0.0.1", "127.0.0.5", "[::1]"] {
                let to: SocketAddr = format!("{host}:{port}").parse().unwrap();
                let any = if to.is_ipv4() {
                    "127.0.0.1:0"
                } else {
                    "[::1]:0"
                };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect(to).unwrap();
                socket.send(b"?").unwrap();
                let mut buffer = [0; 99];
                let count = socket.recv(&mut buffer).unwrap();
                let own = format!("udp://{}", socket.local_addr().unwrap());
                assert_eq!(&buffer[..count], own.as_bytes(), "{model:?} {host}");
            }
            server.end();
        }
    }
}

#[test]
fn one_family_is_the_default() {
    if !has_ipv6() {
        return;
    }
    for (uri, served, refused) in [
        ("tcp://[::]:0", "[::1]", "127.0.0.1"),
        ("tcp://[::]:0?dual-stack=false", "[::1]", "127.0.0.1"),
        ("tcp://0.0.0.0:0", "127.0.0.1", "[::1]"),
    ] {
        let server = bind(Model::EventLoop, &[uri], Config::default());
        let port = port(&server.addresses()[0]);
        let connect = |host| TcpStream::connect(format!("{host}:{port}"));
        assert!(connect(served).is_ok(), "{uri}");
        let error = connect(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{uri}");
    }
}

/// The configuration is for addresses that can take both; a listener's own option has the last word.
#[test]
fn both_families_can_be_the_default() {
    if !has_ipv6() {
        return;
    }
    let config = Config {
        dual_stack: true,
        ..Config::default()
    };
    let addresses = ["tcp://[::]:0", "tcp://127.0.0.1:0", "tcp://[::1]:0"];
    let addresses = addresses.map(|uri| uri.parse().unwrap());
    let server = Server::bind(&addresses, config.clone()).unwrap();
    let to = ("127.0.0.1", port(&server.addresses()[0]));
    assert!(TcpStream::connect(to).is_ok());

    let listen = "tcp://[::]:0?dual-stack=false".parse().unwrap();
    let server = Server::bind_with(&[listen], config).unwrap();
    let to = ("127.0.0.1", port(&server.addresses()[0]));
    assert!(TcpStream::connect(to).is_err());
}

/// Whichever listener an IPv4 client comes by, it is one peer.
#[test]
fn a_client_is_one_peer_at_listeners_of_one_and_of_both_families() {
    if !has_ipv6() {
        return;
    }
    for model in [Model::EventLoop, Model::Threading] {
        let config = Config {
            max_per_peer: 2,
            limit_loopback: true,
            ..Config::default()
        };
        let server = bind(model, &["tcp://:0", "tcp://127.0.0.1:0"], config);
        let server = ModelServer::with(model, server, |_: &Peer| Some(Echo));
        let both: SocketAddr = ([127, 0, 0, 1], port(&server.addresses[0])).into();
        let mut first = patient(TcpStream::connect(both).unwrap());
        echoes(&mut first, b"hello");
        let mut second = client(&server.addresses[1]);
        echoes(&mut second, b"hello");
        for to in [both, server.addresses[1].socket_addr().unwrap()] {
            let mut third = patient(TcpStream::connect(to).unwrap());
            let end = third.read(&mut [0]);
            assert!(matches!(end, Ok(0) | Err(_)), "it is refused: {end:?}");
        }
        // A client of the other family is another peer.
        let other: SocketAddr = format!("[::1]:{}", both.port()).parse().unwrap();
        let mut other = patient(TcpStream::connect(other).unwrap());
        echoes(&mut other, b"hello");
        drop((first, second, other));
        server.end();
    }
}

#[test]
fn where_a_port_is_taken_in_one_family_both_are_refused() {
    if !has_ipv6() {
        return;
    }
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let uri = format!("tcp://:{}", taken.local_addr().unwrap().port());
    let error = Server::bind_with(&[uri.parse().unwrap()], Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let port = taken.local_addr().unwrap().port();
    let said = format!("cannot listen on tcp://[::]:{port}: ");
    assert!(error.to_string().starts_with(&said), "{error}");
}

/// The seconds until the keepalive timer of an established connection, if it has one. Waits until
/// everything that was sent is acknowledged, since that has another timer.
#[track_caller]
fn timer(local: u16, remote: u16) -> Option<u64> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match row(local, remote)
            .as_deref()
            .map(|timer| timer.split_once(':').unwrap())
        {
            Some(("00", _)) => return None,
            Some(("02", left)) => {
                return Some(u64::from_str_radix(left, 16).unwrap().div_ceil(100));
            }
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no silent connection from {local} to {remote}");
}

/// The timer of a connection as the system's table shows it: its kind, which is 2 for keepalive, and
/// hundredths of a second.
fn row(local: u16, remote: u16) -> Option<String> {
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/net/{name}")));
    let tables: Vec<_> = tables.into_iter().flatten().collect();
    let ends = |address: &str, port: u16| address.ends_with(&format!(":{port:04X}"));
    let mut rows = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[3] == "01" && ends(row[1], local) && ends(row[2], remote))?;
    Some(row[5].to_owned())
}

/// What the options say about keepalive, for accepted connections.
#[test]
fn accepted_connections_are_probed_as_their_listener_says() {
    for model in Model::ALL {
        let config = Config {
            keepalive: Some(seconds(1_000)),
            ..Config::default()
        };
        let uris = [
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:0?keepalive=60s",
            "tcp://127.0.0.1:0?keepalive=0",
            "tcp://:0?keepalive=5m",
        ];
        let server = bind(model, &uris, config);
        let server = ModelServer::with(model, server, |_: &Peer| Some(Echo));
        for (address, expected) in server.addresses.iter().zip([1_000, 60, 0, 300]) {
            let local = port(address);
            let mut stream = patient(TcpStream::connect(("127.0.0.1", local)).unwrap());
            echoes(&mut stream, b"hello");
            let remote = stream.local_addr().unwrap().port();
            let left = timer(local, remote).unwrap_or(0);
            let range = expected - expected.min(10)..=expected;
            assert!(range.contains(&left), "{model:?} {address}: {left}");
        }
        server.end();
    }
}

/// The network goes away, and nobody says a word any more.
#[test]
fn a_peer_that_is_gone_is_found_by_probes() {
    const NAME: &str = "net::listening::a_peer_that_is_gone_is_found_by_probes";
    if !is_inside(NAME, "ip link set lo up") {
        return;
    }
    let listen = "tcp://127.0.0.1:0?keepalive=1s".parse().unwrap();
    let server = Server::bind_with(&[listen], timeless()).unwrap();
    let serving = Serving::with(server, |_: &Peer| Some(Echo));
    let mut stream = serving.client();
    echoes(&mut stream, b"hello");
    let begin = Instant::now();
    let mut down = Command::new("ip");
    down.args(["link", "set", "lo", "down"]);
    assert!(down.status().unwrap().success());

    let statistics = serving.wait(|statistics| statistics.closed() == 1);
    assert_eq!(statistics.closed_io, 1);
    // One second without a word, then four probes, a second each.
    assert!(begin.elapsed() >= seconds(4), "{:?}", begin.elapsed());
    serving.end();
}

#[test]
fn nobody_is_probed_unless_asked() {
    let server = bind(Model::EventLoop, &["tcp://127.0.0.1:0"], Config::default());
    let server = ModelServer::with(Model::EventLoop, server, |_: &Peer| Some(Echo));
    let mut stream = client(&server.addresses[0]);
    echoes(&mut stream, b"hello");
    let remote = stream.local_addr().unwrap().port();
    assert_eq!(timer(port(&server.addresses[0]), remote), None);
    drop(stream);
    server.end();
}

#[test]
fn outbound_connections_are_probed_as_the_configuration_says() {
    for (keepalive, expected) in [(None, None), (Some(seconds(77)), Some(77))] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config {
            keepalive,
            ..Config::default()
        };
        let mut reactor = Reactor::new(|_: &Peer| Some(Echo), config).unwrap();
        let to = listener.local_addr().unwrap();
        reactor.connect(Address::Tcp(to), Echo);
        while reactor.statistics().connected == 0 {
            reactor.turn(Some(PATIENCE)).unwrap();
        }
        let (_stream, from) = listener.accept().unwrap();
        // The timer has run since the connection began.
        let left = timer(from.port(), to.port());
        let late = expected.zip(left).map(|(from, left)| from - left);
        assert_eq!(left.is_some(), expected.is_some());
        assert!(
            late.is_none_or(|late| late <= PATIENCE.as_secs()),
            "{late:?}"
        );
    }
}

/// How many connections wait at a listener that nobody accepts from: the system's queue holds one
/// more than the backlog.
#[test]
fn each_listener_has_its_own_backlog() {
    let scratch = Scratch::new();
    let config = Config {
        backlog: 5,
        ..Config::default()
    };
    let (one, other) = (scratch.uri("unix", "one"), scratch.uri("unix", "other"));
    let uris = [one, format!("{other}?backlog=2")];
    let listens = uris.map(|uri| uri.parse().unwrap());
    let _server = Server::bind_with(&listens, config).unwrap();

    for (name, room) in [("one", 6), ("other", 3)] {
        let to = SockAddr::unix(scratch.path(name)).unwrap();
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&to).map(|()| socket)
        };
        let _waiting: Vec<_> = (0..room).map(|_| connect().unwrap()).collect();
        assert_eq!(connect().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// Each of several loops has its own socket at the port, with the same options.
#[test]
fn workers_can_share_a_port_by_a_listeners_own_option() {
    let listens = ["tcp://127.0.0.1:0?reuse-port=true&keepalive=99s"];
    let listens = listens.map(|uri| uri.parse().unwrap());
    let server = Server::bind_with(&listens, Config::default()).unwrap();
    let server = ModelServer::with(Model::Workers, server, |_: &Peer| Some(Echo));
    for _ in 0..20 {
        let mut stream = connect(&server.addresses[0]);
        echoes(&mut stream, b"hello");
        let remote = stream.local_addr().unwrap().as_socket().unwrap().port();
        let left = timer(port(&server.addresses[0]), remote).unwrap();
        assert!((90..=99).contains(&left), "{left}");
    }
    server.end();

    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let listen = "tcp://127.0.0.1:0?reuse-port=false".parse().unwrap();
    let server = Server::bind_with(&[listen], config).unwrap();
    let error = server.serve_workers(2, |_| Some(Echo)).unwrap_err();
    assert!(error.to_string().contains("reuse_port"), "{error}");
}

#[test]
fn a_name_outside_the_file_system_takes_options() {
    let name = format!("serveloop-listen-{}", std::process::id());
    let server = bind(
        Model::EventLoop,
        &[&format!("unix:@{name}?backlog=7")],
        Config::default(),
    );
    let server = ModelServer::with(Model::EventLoop, server, |_: &Peer| Some(Echo));
    assert_eq!(server.addresses[0].to_string(), format!("unix://@{name}"));
    let mut stream = connect(&server.addresses[0]);
    echoes(&mut stream, b"hello");
    drop(stream);
    server.end();
}

#[test]
fn a_place_is_what_a_name_resolves_to() {
    let places = [Listen::resolve("tcp://localhost:0?keepalive=60s").unwrap()];
    let server = Server::bind_places_with(&places, Config::default()).unwrap();
    assert!(!server.addresses().is_empty());
    let bound = Server::bind_only_with(&places.concat()[..1], Config::default()).unwrap();
    let to = bound.addresses()[0].socket_addr().unwrap();
    assert!(TcpStream::connect(to).is_err(), "it does not listen yet");
    bound.activate().unwrap();
    assert!(TcpStream::connect(to).is_ok());
}

#[test]
fn a_loop_of_its_own_takes_options_too() {
    let scratch = Scratch::new();
    let mut reactor = Reactor::new(|_: &Peer| Some(Echo), Config::default()).unwrap();
    let uri = format!("{}?mode=0666", scratch.uri("unix", "socket"));
    let address = reactor.listen_with(&uri.parse().unwrap()).unwrap();
    assert_eq!(address.path().unwrap(), scratch.path("socket"));
    let mode = fs::metadata(scratch.path("socket")).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&mode);
    assert_eq!(mode & 0o777, 0o666);

    let mut stream = UnixStream::connect(scratch.path("socket")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut stream, b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    while reactor.statistics().closed() == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    assert_eq!(read_to_end(&mut stream), b"hello");

    let address = reactor.listen_with(&"udp://:0".parse().unwrap()).unwrap();
    assert!(address.is_datagram());
    let misfit = Listen::new(
        address,
        "unix:///x?mode=1"
            .parse::<Listen>()
            .unwrap()
            .options()
            .clone(),
    );
    let error = reactor.listen_with(&misfit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// The name of an interface is looked up, and the listener is at that interface's address alone.
#[test]
fn an_interface_has_a_name() {
    const NAME: &str = "net::listening::an_interface_has_a_name";
    if !is_inside(NAME, ADDRESSES) {
        return;
    }
    for uri in [
        "tcp://[fe80::9:1%d0]:0?keepalive=60s",
        "tcp://[fe80::9:1%25d0]:0?keepalive=60s",
    ] {
        let places = [Listen::resolve(uri).unwrap()];
        let server = Server::bind_places_with(&places, Config::default()).unwrap();
        let server = ModelServer::with(Model::EventLoop, server, |_: &Peer| Some(Echo));
        let mut stream = client(&server.addresses[0]);
        echoes(&mut stream, b"hello");
        let shown = Command::new("ip")
            .args(["-o", "link", "show", "d0"])
            .output();
        let shown = String::from_utf8_lossy(&shown.unwrap().stdout).into_owned();
        let number = shown.split(':').next().unwrap().to_owned();
        let address = server.addresses[0].to_string();
        assert!(address.contains(&format!("%{number}]")), "{address}");
        drop(stream);
        server.end();
    }
}
