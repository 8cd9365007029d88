//! The header of a packet: protocols are told its ECN mark and its hop limit if they ask, and can mark what
//! they send.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serveloop::net::{Ecn, PacketInfo, UdpOptions};
use serveloop::{Config, Peer, Protocol, Reactor, Result, Transport};
use socket2::SockRef;

use crate::support::PATIENCE;
use crate::support::model_server::{Model, ModelServer};
use crate::support::outside::require;

/// Answers with what it is told of the header, by as many datagrams as the first byte says, with the mark
/// that is the second byte.
struct Telling;

impl Protocol for Telling {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let told = transport.packet_info();
        let told = told.map(|it| format!("{:?} {}", it.ecn, it.hop_limit));
        let told = told.unwrap_or_else(|| "nothing".to_owned());
        transport.set_ecn(Ecn::from_bits(data[1]));
        for _ in 0..data[0] {
            transport.write_datagram(told.as_bytes());
        }
        Ok(data.len())
    }
}

fn telling(_: &Peer) -> Option<Telling> {
    Some(Telling)
}

fn config(sessions: bool) -> Config {
    Config {
        sessions,
        udp: UdpOptions {
            packet_info: true,
            ..UdpOptions::default()
        },
        ..Config::default()
    }
}

/// A client of the server at `to`.
fn client(to: SocketAddr) -> UdpSocket {
    let host = match to.is_ipv6() {
        true => "[::1]:0",
        false => "127.0.0.1:0",
    };
    let client = UdpSocket::bind(host).unwrap();
    client.connect(to).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sets what the client's packets have in their headers.
fn set(client: &UdpSocket, mark: u32, hops: u32) {
    let socket = SockRef::from(client);
    if client.local_addr().unwrap().is_ipv6() {
        socket.set_tclass_v6(mark).unwrap();
        socket.set_unicast_hops_v6(hops).unwrap();
    } else {
        socket.set_tos_v4(mark).unwrap();
        socket.set_ttl_v4(hops).unwrap();
    }
}

/// Sends datagrams with each mark to `to`, and checks what the server was told.
#[track_caller]
fn check(to: SocketAddr) {
    let client = client(to);
    // The other bits of the field are of no interest.
    for (mark, hops, expected) in [
        (0, 64, "NotEct 64"),
        (0b101_0001, 1, "Ect1 1"),
        (0b10, 255, "Ect0 255"),
        (0b11, 63, "Ce 63"),
    ] {
        set(&client, mark, hops);
        client.send(&[1, 0]).unwrap();
        let mut buffer = [0; 40];
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..count], *expected.as_bytes(), "{to}");
    }
}

/// Where a server listens, and where its clients are: one family, both, one address and all.
const PLACES: [(&str, &str); 6] = [
    ("udp://127.0.0.1:0", "127.0.0.1"),
    ("udp://0.0.0.0:0", "127.0.0.2"),
    ("udp://[::1]:0", "::1"),
    ("udp://[::]:0", "::1"),
    ("udp://[::]:0?dual-stack=true", "::1"),
    ("udp://[::]:0?dual-stack=true", "127.0.0.1"),
];

fn at(server: &ModelServer, host: &str) -> SocketAddr {
    let port = server.addresses[0].socket_addr().unwrap().port();
    SocketAddr::new(host.parse().unwrap(), port)
}

#[test]
fn every_model_tells_marks_and_hop_limits() {
    for model in Model::ALL {
        for (listen, host) in PLACES {
            let server = ModelServer::new(model, &[listen], config(false), telling);
            check(at(&server, host));
            server.end();
        }
    }
}

#[test]
fn sessions_are_told_of_each_datagram() {
    for (listen, host) in PLACES {
        let server = ModelServer::new(Model::EventLoop, &[listen], config(true), telling);
        check(at(&server, host));
        server.end();
    }
}

/// The option is one of a listener, and off where it is not given.
#[test]
fn nothing_is_told_without_the_option() {
    let listens = ["udp://127.0.0.1:0", "udp://127.0.0.1:0?packet-info=true"];
    let server = ModelServer::new(Model::EventLoop, &listens, Config::default(), telling);
    for (address, expected) in server.addresses.iter().zip(["nothing", "Ect0 64"]) {
        let client = client(address.socket_addr().unwrap());
        set(&client, 2, 64);
        client.send(&[1, 0]).unwrap();
        let mut buffer = [0; 40];
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..count], *expected.as_bytes());
    }
    server.end();
}

/// Asks for datagrams with a mark, and prints the marks and hop limits that they have.
const ASKING: &str = "
import socket, struct, sys
host, port, count, mark = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
is_v6 = ':' in host
s = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
if is_v6:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
else:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    s.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
s.connect((host, port))
s.send(bytes([count, mark]))
for _ in range(count):
    told = s.recvmsg(100, 200)[1]
    values = {kind: content[0] for _, kind, content in told}
    mark = values[socket.IPV6_TCLASS if is_v6 else socket.IP_TOS]
    print(mark, values[socket.IPV6_HOPLIMIT if is_v6 else socket.IP_TTL])
";

/// Python sees the marks, one datagram at a time and several at once, also with the hop limit of the socket.
#[test]
fn what_is_sent_has_the_mark_that_was_set() {
    if !require("python3") {
        return;
    }
    let mut config = config(false);
    config.udp.ttl = Some(77);
    config.reply_factor = 1_000;
    for (listen, host) in PLACES {
        for (model, sessions) in [
            (Model::EventLoop, true),
            (Model::EventLoop, false),
            (Model::Threading, false),
        ] {
            config.sessions = sessions;
            let server = ModelServer::new(model, &[listen], config.clone(), telling);
            let port = at(&server, host).port().to_string();
            for (count, mark) in [("1", "0"), ("1", "1"), ("1", "2"), ("5", "3")] {
                let mut python = Command::new("python3");
                python.args(["-c", ASKING, host, &port, count, mark]);
                let output = python.stderr(Stdio::inherit()).output().unwrap();
                let output = String::from_utf8(output.stdout).unwrap();
                let expected = format!("{mark} 77\n").repeat(count.parse().unwrap());
                assert_eq!(output, expected, "{model:?} at {listen}, {host}");
            }
            server.end();
        }
    }
}

/// Asks by marked datagrams of an outbound session, and tells what it is answered, with which mark.
struct Asking(Sender<(String, Option<PacketInfo>)>);

impl Protocol for Asking {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        assert_eq!(transport.packet_info(), None);
        transport.set_ecn(Ecn::Ect1);
        transport.write(&[1, 3]);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let text = String::from_utf8_lossy(data).into_owned();
        let _ = self.0.send((text, transport.packet_info()));
        transport.close();
        Ok(data.len())
    }
}

#[test]
fn outbound_sessions_have_both() {
    for host in ["127.0.0.1", "[::1]"] {
        let listen = format!("udp://{host}:0?packet-info=true&ttl=9");
        let server = ModelServer::new(Model::EventLoop, &[&listen], Config::default(), telling);
        let mut config = config(false);
        config.udp.ttl = Some(5);
        let mut reactor = Reactor::new(|_: &Peer| None::<Asking>, config).unwrap();
        let (tell, told) = channel();
        reactor.connect(server.addresses[0].clone(), Asking(tell));
        reactor.run().unwrap();
        let heard = told.recv().unwrap();
        let expected = ("Ect1 5".to_owned(), Some(PacketInfo::new(Ecn::Ce, 9)));
        assert_eq!(heard, expected, "{host}");
        server.end();
    }
}
