//! Datagrams: each is a request on its own, and its output the one reply.

use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use serveloop::framing::{Framed, Lines};
use serveloop::protocols::Echo;
use serveloop::{Config, Peer, Protocol, ProtocolError};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::model_server::{Model, ModelServer};
use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Scratch, Serving, noise, panic_quietly};

fn udp<P: Protocol + 'static>(
    config: Config,
    build: impl FnMut(&Peer) -> Option<P> + Send + 'static,
) -> Serving {
    Serving::at(&["udp://127.0.0.1:0"], config, build)
}

fn sender(serving: &Serving) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = serving.addresses[0].socket_addr().unwrap();
    socket.connect(to).unwrap();
    socket
}

#[track_caller]
fn answers(socket: &UdpSocket, request: &[u8], reply: &[u8]) {
    socket.send(request).unwrap();
    let mut buffer = vec![0; 70_000];
    let count = socket.recv(&mut buffer).unwrap();
    assert!(
        buffer[..count] == *reply,
        "{count} bytes: {}",
        buffer[..count.min(99)].escape_ascii()
    );
}

#[test]
fn datagrams_of_every_length_are_echoed() {
    let serving = udp(Config::default(), |_: &Peer| Some(Echo));
    let socket = sender(&serving);
    let bytes = noise(65_507);
    for length in [0, 1, 0, 1_472, 1_473, 8_192, 65_506, 65_507, 0] {
        answers(&socket, &bytes[..length], &bytes[..length]);
    }
    let statistics = serving.end();
    assert_eq!(statistics.datagrams_received, 9);
    assert_eq!(statistics.datagrams_sent, 9);
    assert_eq!(statistics.datagrams_dropped, 0);
}

#[test]
fn a_session_is_one_datagram() {
    let log = Log::default();
    let shared = log.clone();
    let serving = udp(Config::default(), move |peer: &Peer| {
        assert!(peer.is_datagram());
        Some(Probe::new(&shared).data(|data, transport| {
            transport.write(data);
            transport.write(b".");
            Ok(data.len().min(1))
        }))
    });
    let socket = sender(&serving);
    answers(&socket, b"ab", b"ab.b.");
    answers(&socket, b"", b".");
    serving.end();
    let one = [
        "made",
        "data ab",
        "data b",
        "eof ",
        "lost closed by the peer",
    ];
    assert_eq!(log.entries()[..5], one);
}

#[test]
fn frames_are_found_in_datagrams_and_must_be_whole() {
    let serving = udp(Config::default(), |_: &Peer| {
        let hello = serveloop::protocols::Hello::new(PATIENCE);
        Some(Framed::new(Lines::new(99), hello))
    });
    let socket = sender(&serving);
    answers(&socket, b"Ann\nBob\n", b"Hello,Ann\nHello,Bob\n");
    // What was complete is answered, though the rest breaks the protocol.
    answers(&socket, b"Ann\nBo", b"Hello,Ann\n");
    let errors = serving.errors.clone();
    assert_eq!(serving.end().datagrams_failed, 1);
    assert_eq!(errors.count("protocol error: truncated"), 1);
}

#[test]
fn who_writes_nothing_sends_nothing() {
    let serving = udp(Config::default(), |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            if data == b"answer" {
                transport.write(b"yes");
            }
            Ok(data.len())
        }))
    });
    let socket = sender(&serving);
    socket.send(b"ignore").unwrap();
    answers(&socket, b"answer", b"yes");
    let statistics = serving.end();
    let counts = (statistics.datagrams_received, statistics.datagrams_sent);
    assert_eq!(counts, (2, 1));
}

/// Each peer is gone when its reply arrives, so that the system reports an error to the server.
#[test]
fn peers_that_vanish_do_not_stop_the_service() {
    let serving = udp(Config::default(), |_: &Peer| Some(Echo));
    for _ in 0..50 {
        sender(&serving).send(b"good bye").unwrap();
    }
    let socket = sender(&serving);
    for _ in 0..50 {
        answers(&socket, b"still there?", b"still there?");
    }
    let statistics = serving.end();
    assert_eq!(statistics.datagrams_received, 100);
    let answered = statistics.datagrams_sent + statistics.datagrams_dropped;
    assert_eq!(answered, 100, "{statistics:?}");
}

#[test]
fn a_reply_that_fits_no_datagram_is_dropped_and_counted() {
    let serving = udp(Config::default(), |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.write(&data.repeat(if data == b"long" { 20_000 } else { 1 }));
            Ok(data.len())
        }))
    });
    let socket = sender(&serving);
    socket.send(b"long").unwrap();
    answers(&socket, b"short", b"short");
    let statistics = serving.end();
    let counts = (statistics.datagrams_dropped, statistics.datagrams_sent);
    assert_eq!(counts, (1, 1));
}

#[test]
fn bad_datagrams_and_panics_concern_one_datagram() {
    let mut count = 0;
    let serving = udp(Config::default(), move |_: &Peer| {
        count += 1;
        if count == 1 {
            panic_quietly();
        }
        if count == 2 {
            return None;
        }
        let probe = Probe::new(&Log::default()).data(|data, transport| {
            transport.write(b"reply");
            match data {
                b"panic" => panic_quietly(),
                b"abort" => transport.abort(),
                b"error" => return Err(ProtocolError::malformed("on purpose")),
                _ => {}
            }
            Ok(data.len())
        });
        Some(if count == 3 {
            probe.lost(|| panic_quietly())
        } else if count == 4 {
            probe.dropped(|| panic_quietly())
        } else {
            probe
        })
    });
    let socket = sender(&serving);
    for request in ["refused by a panic", "refused"] {
        socket.send(request.as_bytes()).unwrap();
    }
    for request in ["lost", "drop", "error", "fine"] {
        answers(&socket, request.as_bytes(), b"reply");
    }
    for request in ["panic", "abort"] {
        socket.send(request.as_bytes()).unwrap();
    }
    answers(&socket, b"fine", b"reply");
    let statistics = serving.end();
    assert_eq!(statistics.panics, 4, "{statistics:?}");
    assert_eq!(statistics.datagrams_failed, 2);
    assert_eq!(statistics.datagrams_dropped, 2);
    assert_eq!(statistics.datagrams_received, 9);
    assert_eq!(statistics.datagrams_sent, 5);
}

/// More at once than one turn's budget: the rest needs no other event.
#[test]
fn a_burst_is_answered_to_the_last() {
    const BURST: u64 = 100;
    let config = Config {
        datagrams_per_turn: 3,
        ..Config::default()
    };
    let serving = udp(config, |_: &Peer| Some(Echo));
    let socket = sender(&serving);
    for number in 0..BURST {
        socket.send(&number.to_be_bytes()).unwrap();
    }
    let mut buffer = [0; 99];
    for number in 0..BURST {
        assert_eq!(socket.recv(&mut buffer).unwrap(), 8);
        assert_eq!(buffer[..8], number.to_be_bytes());
    }
    assert_eq!(serving.end().datagrams_sent, BURST);
}

#[test]
fn a_unix_sender_without_a_name_cannot_be_answered() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unixgram", "echo");
    let serving = Serving::at(&[&uri], Config::default(), |_: &Peer| Some(Echo));
    let unnamed = UnixDatagram::unbound().unwrap();
    unnamed.send_to(b"hello", scratch.path("echo")).unwrap();
    let named = UnixDatagram::bind(scratch.path("client")).unwrap();
    named.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 99];
    for request in [&b"hello"[..], b""] {
        named.send_to(request, scratch.path("echo")).unwrap();
        let count = named.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..count], *request);
    }
    let statistics = serving.end();
    let counts = (statistics.datagrams_dropped, statistics.datagrams_sent);
    assert_eq!(counts, (1, 2));
}

/// A name without a file, which only Linux has.
#[cfg(target_os = "linux")]
#[test]
fn a_unix_sender_with_an_abstract_name_is_answered() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unixgram", "echo");
    let to = SockAddr::unix(scratch.path("echo")).unwrap();
    for model in Model::ALL {
        let server = ModelServer::new(model, &[&uri], Config::default(), |_: &Peer| Some(Echo));
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        let name = format!("\0serveloop-test-{}", std::process::id());
        socket.bind(&SockAddr::unix(name).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"hello", &to).unwrap();
        let mut buffer = [0; 9];
        assert_eq!((&socket).read(&mut buffer).unwrap(), 5);
        assert_eq!(server.end().datagrams_sent, 1, "{model:?}");
    }
}

/// A flood of datagrams leaves room for the streams on the same loop.
#[test]
fn streams_are_served_beside_datagrams() {
    let addresses = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"];
    let serving = Serving::at(&addresses, Config::default(), |_: &Peer| Some(Echo));
    let socket = sender(&serving);
    let mut stream = crate::support::client(&serving.addresses[1]);
    for _ in 0..50 {
        for _ in 0..20 {
            socket.send(b"flood").unwrap();
        }
        crate::support::echoes(&mut stream, b"hello");
    }
    drop(stream);
    serving.end();
}

/// A session that panics or aborts after it has written a datagram ends alone, in every model.
#[test]
fn a_session_that_fails_after_a_datagram_ends_alone() {
    for model in Model::ALL {
        let build = |_: &Peer| {
            Some(Probe::new(&Log::default()).data(|data, transport| {
                transport.write_datagram(data);
                match data {
                    b"panic" => panic_quietly(),
                    b"abort" => transport.abort(),
                    _ => {}
                }
                Ok(data.len())
            }))
        };
        let server = ModelServer::new(model, &["udp://127.0.0.1:0"], Config::default(), build);
        let to = server.addresses[0].socket_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(to).unwrap();
        for told in ["panic", "abort", "hello"] {
            client.send(told.as_bytes()).unwrap();
        }
        let mut reply = [0; 16];
        let count = client.recv(&mut reply).unwrap();
        assert_eq!(&reply[..count], b"hello", "{model:?}");
        assert_eq!(server.end().panics, 1, "{model:?}");
    }
}
