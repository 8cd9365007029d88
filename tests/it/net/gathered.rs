//! Datagrams of one peer that the system puts together are received by one call, and shown one by one.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serveloop::net::{Ecn, UdpOptions};
use serveloop::protocols::Echo;
use serveloop::{Config, Peer, Protocol, Reactor, Result, Transport};

use crate::support::model_server::{Model, ModelServer};
use crate::support::outside::require;

/// Sends runs of datagrams by one call each, several of them before the first answer is read, and checks
/// that each datagram comes back.
const SENDING: &str = "
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.connect((host, port))
for size, length in [(1000, 12300), (1000, 1000), (500, 32000), (1, 9), (1200, 1201), (700, 699)]:
    data = bytes(at // size + at % 7 & 255 for at in range(length))
    s.setsockopt(socket.IPPROTO_UDP, 103, size)  # UDP_SEGMENT
    s.send(data)
    s.setsockopt(socket.IPPROTO_UDP, 103, 0)
    s.send(b'alone')
    parts = [data[at:at + size] for at in range(0, length, size)] + [b'alone']
    back = [s.recv(70000) for _ in parts]
    assert back == parts, (size, length, [len(it) for it in back])
print('well')
";

#[track_caller]
fn check(server: &ModelServer, host: &str) {
    let port = server.addresses[0].socket_addr().unwrap().port();
    let mut python = Command::new("python3");
    python.args(["-c", SENDING, host, &port.to_string()]);
    let output = python.stderr(Stdio::inherit()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "well\n", "{host}");
}

fn config(sessions: bool) -> Config {
    Config {
        sessions,
        udp: UdpOptions {
            gro: true,
            ..UdpOptions::default()
        },
        ..Config::default()
    }
}

#[test]
fn each_datagram_of_a_run_is_answered() {
    if !require("python3") {
        return;
    }
    for (listen, host) in [
        ("udp://127.0.0.1:0", "127.0.0.1"),
        ("udp://0.0.0.0:0", "127.0.0.2"),
        ("udp://[::1]:0", "::1"),
        ("udp://[::]:0?dual-stack=true", "127.0.0.1"),
    ] {
        for sessions in [false, true] {
            let echo = |_: &Peer| Some(Echo);
            let server = ModelServer::new(Model::EventLoop, &[listen], config(sessions), echo);
            check(&server, host);
            let statistics = server.end();
            assert_eq!(statistics.datagrams_received, 96);
            assert_eq!(statistics.datagrams_sent, 96);
        }
    }
}

/// The order in which threads answer is their own, so only this one is asked.
#[test]
fn one_at_a_time_is_answered_in_order_too() {
    if require("python3") {
        let echo = |_: &Peer| Some(Echo);
        let listen = ["udp://127.0.0.1:0?gro=true"];
        let server = ModelServer::new(Model::Sequential, &listen, Config::default(), echo);
        check(&server, "127.0.0.1");
        server.end();
    }
}

/// A turn may take fewer datagrams than there are in a run, and no event tells of the rest.
#[test]
fn what_is_left_of_a_run_is_shown_in_later_turns() {
    if require("python3") {
        let mut config = config(true);
        config.datagrams_per_turn = 1;
        let echo = |_: &Peer| Some(Echo);
        let server = ModelServer::new(Model::EventLoop, &["udp://127.0.0.1:0"], config, echo);
        check(&server, "127.0.0.1");
        server.end();
    }
}

/// Answers with a run of datagrams.
struct Many;

impl Protocol for Many {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.set_ecn(Ecn::Ect0);
        for number in 0..40 {
            transport.write_datagram(&[number; 900]);
        }
        Ok(data.len())
    }
}

struct Asking(Sender<(Vec<u8>, Ecn)>, usize);

impl Protocol for Asking {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        transport.write(b"?");
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let packet = transport.packet_info().expect("it is asked for");
        let _ = self.0.send((data.to_vec(), packet.ecn));
        self.1 += 1;
        if self.1 == 40 {
            transport.close();
        }
        Ok(data.len())
    }
}

/// An outbound session receives runs as well, and the header that the packets of a run have in common.
#[test]
fn an_outbound_session_is_shown_each_datagram_of_a_run() {
    let listen = ["udp://127.0.0.1:0?sessions=true"];
    let many = |_: &Peer| Some(Many);
    let server = ModelServer::new(Model::EventLoop, &listen, Config::default(), many);
    let mut config = config(false);
    config.udp.packet_info = true;
    let mut reactor = Reactor::new(|_: &Peer| None::<Asking>, config).unwrap();
    let (tell, told) = channel();
    reactor.connect(server.addresses[0].clone(), Asking(tell, 0));
    reactor.run().unwrap();
    let expected: Vec<_> = (0..40)
        .map(|number| (vec![number; 900], Ecn::Ect0))
        .collect();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), expected);
    server.end();
}
