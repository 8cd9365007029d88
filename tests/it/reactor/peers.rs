//! Limits on one peer: its connections, and what its datagrams bring about.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use serveloop::protocols::Echo;
use serveloop::{Address, Config, Factory, Peer};
use socket2::{Domain, Socket, Type};

use crate::support::model_server::{Model, ModelServer};
use crate::support::probe::{Log, Probe};
use crate::support::scripted::{Act, Script, Scripted};
use crate::support::{
    PATIENCE, Scratch, Serving, echoes, read_to_end, seconds, timeless, unix_client,
};

/// Limits that are in force for this machine's own clients.
fn limited() -> Config {
    Config {
        limit_loopback: true,
        ..timeless()
    }
}

/// A client at another of this machine's addresses.
fn client_at(ip: &str, to: &Address) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let ip: IpAddr = ip.parse().unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&to.socket_addr().unwrap().into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn one_peer_does_not_take_the_place_of_others() {
    for model in [Model::EventLoop, Model::Threading] {
        let config = Config {
            max_per_peer: 2,
            ..limited()
        };
        let at = ["tcp://127.0.0.1:0"];
        let server = ModelServer::new(model, &at, config, |_: &Peer| Some(Echo));
        let to = &server.addresses[0];
        let mut crowd = [client_at("127.0.0.2", to), client_at("127.0.0.2", to)];
        crowd.iter_mut().for_each(|stream| echoes(stream, b"mine"));
        assert_eq!(read_to_end(&mut client_at("127.0.0.2", to)), b"");
        echoes(&mut client_at("127.0.0.3", to), b"another's");
        drop(crowd);
        // Their places are free again once their ends are noticed.
        let begin = Instant::now();
        while !is_served(client_at("127.0.0.2", to)) {
            assert!(begin.elapsed() < PATIENCE, "{model:?}");
        }
        let statistics = server.end();
        assert!(statistics.refused_max_per_peer >= 1, "{statistics:?}");
        assert_eq!(statistics.refused_max_connections, 0);
    }
}

fn is_served(mut stream: TcpStream) -> bool {
    let asked = stream.write_all(b"again");
    asked.is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
}

/// One at a time is less than any limit: an end that were not reported would show.
#[test]
fn ends_are_reported_where_one_at_a_time_is_served() {
    let config = Config {
        max_per_peer: 1,
        ..limited()
    };
    let at = ["tcp://127.0.0.1:0"];
    let server = ModelServer::new(Model::Sequential, &at, config, |_: &Peer| Some(Echo));
    for _ in 0..5 {
        echoes(&mut client_at("127.0.0.2", &server.addresses[0]), b"one");
    }
    assert_eq!(server.end().accepted, 5);
}

#[test]
fn this_machines_clients_are_not_limited_unless_they_shall() {
    let scratch = Scratch::new();
    let unix = scratch.uri("unix", "socket");
    for (limit_loopback, refused) in [(false, 0), (true, 2)] {
        let config = Config {
            max_per_peer: 1,
            limit_loopback,
            ..timeless()
        };
        let serving = Serving::at(&["tcp://127.0.0.1:0", &unix], config, |_: &Peer| Some(Echo));
        let mut inside = [serving.client(), serving.client()];
        let path = scratch.path("socket");
        let mut inside_unix = [unix_client(&path), unix_client(&path)];
        echoes(&mut inside[0], b"first");
        echoes(&mut inside_unix[0], b"first");
        if refused == 0 {
            echoes(&mut inside[1], b"second");
            echoes(&mut inside_unix[1], b"second");
        } else {
            assert_eq!(read_to_end(&mut inside[1]), b"");
            assert_eq!(read_to_end(&mut inside_unix[1]), b"");
        }
        drop((inside, inside_unix));
        assert_eq!(serving.end().refused_max_per_peer, refused);
    }
}

fn sender(to: &Address) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to.socket_addr().unwrap()).unwrap();
    socket
}

/// Replies with the datagram as often as its first byte says.
fn repeating(_: &Peer) -> Option<Probe> {
    Some(Probe::new(&Log::default()).data(|data, transport| {
        transport.write(&data.repeat(usize::from(data[0] - b'0')));
        Ok(data.len())
    }))
}

#[test]
fn replies_are_no_longer_than_allowed_in_any_model() {
    for model in Model::ALL {
        for (reply_factor, most) in [(1, 1), (3, 3)] {
            let config = Config {
                reply_factor,
                ..limited()
            };
            let server = ModelServer::new(model, &["udp://127.0.0.1:0"], config, repeating);
            let socket = sender(&server.addresses[0]);
            let mut buffer = [0; 99];
            socket
                .send(format!("{}-too much", most + 1).as_bytes())
                .unwrap();
            for count in [most, 1] {
                let request = format!("{count}-well");
                socket.send(request.as_bytes()).unwrap();
                let length = socket.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..length], *request.repeat(count).as_bytes());
            }
            let statistics = server.end();
            assert_eq!(statistics.datagrams_amplified, 1, "{model:?}");
            assert_eq!(statistics.datagrams_sent, 2, "{model:?}");
            assert_eq!(statistics.datagrams_dropped, 0, "{model:?}");
        }
    }
}

#[test]
fn long_replies_are_for_this_machine_only() {
    let serving = Serving::at(&["udp://127.0.0.1:0"], timeless(), repeating);
    let socket = sender(&serving.addresses[0]);
    socket.send(b"9-").unwrap();
    assert_eq!(socket.recv(&mut [0; 99]).unwrap(), 18);
    assert_eq!(serving.end().datagrams_amplified, 0);
}

fn scripted<F: Factory>(
    script: &Script,
    config: Config,
    factory: F,
) -> serveloop::Reactor<F, Scripted> {
    let net = Scripted::new(script);
    let mut reactor = serveloop::Reactor::with_net(net, factory, config).unwrap();
    let own = [
        "udp://192.0.2.1:7000",
        "udp://0.0.0.0:7001",
        "unixgram:///own",
    ];
    for at in own {
        reactor.listen(&at.parse().unwrap()).unwrap();
    }
    reactor
}

/// Two of our own sockets, or one and an old service, would answer each other without end.
#[test]
fn what_may_be_an_answer_is_not_answered() {
    let script = Script::default();
    let log = Log::default();
    let shared = log.clone();
    let factory = move |peer: &Peer| {
        shared.push(peer.to_string());
        Some(Echo)
    };
    let mut reactor = scripted(&script, timeless(), factory);
    let echoed = [
        "udp://192.0.2.9:7000",
        "udp://192.0.2.1:7002",
        "udp://192.0.2.9:7001",
        "udp://192.0.2.9:1024",
        "unixgram:///other",
    ];
    let dropped = [
        "udp://192.0.2.1:7000",
        "udp://127.0.0.1:7001",
        "udp://192.0.2.9:7",
        "udp://192.0.2.9:0",
        "udp://192.0.2.9:1023",
        "udp://127.0.0.1:53",
        "unixgram:///own",
    ];
    for from in echoed.iter().chain(&dropped) {
        script.then(0, Act::From(from.parse().unwrap(), b"hello".to_vec()));
    }
    reactor.turn(Some(seconds(0))).unwrap();
    assert_eq!(script.sent().len(), echoed.len());
    assert_eq!(log.entries(), echoed);
    let statistics = reactor.statistics();
    assert_eq!(statistics.datagrams_reflected, dropped.len() as u64);
    assert_eq!(statistics.datagrams_received, 12);
}

/// The same with the system's own sockets, of which one is bound to all addresses.
#[test]
fn a_server_does_not_answer_itself() {
    let config = Config {
        reuse_port: true,
        ..timeless()
    };
    let serving = Serving::at(&["udp://0.0.0.0:0"], config, |_: &Peer| Some(Echo));
    let port = serving.addresses[0].socket_addr().unwrap().port();
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    let looks_like_it = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    looks_like_it.set_reuse_port(true).unwrap();
    looks_like_it.bind(&at("127.0.0.5").into()).unwrap();
    let to = at("127.0.0.1");
    looks_like_it.send_to(b"hello", &to.into()).unwrap();
    let honest = sender(&Address::Udp(to));
    honest.send(b"hello").unwrap();
    assert_eq!(honest.recv(&mut [0; 9]).unwrap(), 5);
    let statistics = serving.end();
    let counts = (statistics.datagrams_reflected, statistics.datagrams_sent);
    assert_eq!(counts, (1, 1));
}

#[test]
fn a_peer_has_so_many_replies_in_a_second() {
    let script = Script::default();
    let config = Config {
        replies_per_second: 3,
        max_connections: 2,
        ..timeless()
    };
    let mut reactor = scripted(&script, config, |_: &Peer| Some(Echo));
    let from = |script: &Script, source: &str, count: usize| {
        for _ in 0..count {
            let source = format!("udp://{source}").parse().unwrap();
            script.then(0, Act::From(source, b"hello".to_vec()));
        }
    };
    // Any of its ports is the same peer; this machine is not limited.
    from(&script, "192.0.2.1:5001", 2);
    from(&script, "192.0.2.1:5002", 2);
    from(&script, "127.0.0.1:5000", 9);
    // Peers beyond the most that are remembered share what one has.
    from(&script, "192.0.2.2:5000", 4);
    from(&script, "192.0.2.3:5000", 2);
    from(&script, "192.0.2.4:5000", 2);
    reactor.turn(Some(seconds(0))).unwrap();
    assert_eq!(script.sent().len(), 3 + 9 + 3 + 3);
    assert_eq!(reactor.statistics().datagrams_over_rate, 3);
}

#[test]
fn with_the_next_second_there_are_replies_again() {
    let script = Script::default();
    let config = Config {
        replies_per_second: 1,
        datagrams_per_turn: 1,
        ..timeless()
    };
    let mut reactor = scripted(&script, config, |_: &Peer| Some(Echo));
    for _ in 0..4 {
        let from = "udp://192.0.2.1:5000".parse().unwrap();
        script.then(0, Act::From(from, b"hello".to_vec()));
    }
    for (passes, sent) in [(0, 1), (0, 0), (1, 1), (0, 0)] {
        script.pass(seconds(passes));
        reactor.turn(Some(seconds(0))).unwrap();
        assert_eq!(script.sent().len(), sent);
    }
}

/// Datagrams that are not answered do no harm.
#[test]
fn who_is_never_answered_is_not_limited() {
    let script = Script::default();
    let config = Config {
        replies_per_second: 1,
        ..timeless()
    };
    let silent = |_: &Peer| Some(Probe::new(&Log::default()));
    let mut reactor = scripted(&script, config, silent);
    for _ in 0..50 {
        let from = "udp://192.0.2.1:5000".parse().unwrap();
        script.then(0, Act::From(from, b"a line of a log".to_vec()));
    }
    reactor.turn(Some(seconds(0))).unwrap();
    assert_eq!(reactor.statistics().datagrams_received, 50);
    assert_eq!(reactor.statistics().datagrams_over_rate, 0);
}
