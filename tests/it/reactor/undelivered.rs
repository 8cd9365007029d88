//! Datagrams that do not arrive: the network's reports end the sessions that they concern, and no other.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serveloop::{Config, Listen, Peer, Protocol, Result, Server, Transport};

use crate::support::namespace::is_inside;
use crate::support::outside::require;
use crate::support::{PATIENCE, Serving};

const TICK: Duration = Duration::from_millis(10);

/// Answers each datagram with its bytes, and ticks at its peer all the time.
struct Ticker(Option<Instant>);

impl Protocol for Ticker {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0 = Some(transport.now() + TICK);
        transport.confirm_address();
        transport.write(data);
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.0 = Some(transport.now() + TICK);
        transport.write(b"tick");
    }
}

fn serving(uri: &str) -> Serving {
    let listen: Listen = uri.parse().unwrap();
    let server = Server::bind_with(&[listen], Config::default()).unwrap();
    Serving::with(server, |_: &Peer| Some(Ticker(None)))
}

fn client(host: &str, server: &Serving) -> UdpSocket {
    let ip: std::net::IpAddr = host.parse().unwrap();
    let port = server.addresses[0].socket_addr().unwrap().port();
    let client = UdpSocket::bind((ip, 0)).unwrap();
    client.connect((ip, port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(b"join").unwrap();
    hear(&client, b"join");
    client
}

#[track_caller]
fn hear(client: &UdpSocket, expected: &[u8]) {
    let mut buffer = [0; 9];
    let count = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], expected);
}

#[test]
fn a_peer_that_is_gone_ends_its_session_and_no_other() {
    for (uri, host) in [
        ("udp://127.0.0.1:0?sessions=true", "127.0.0.1"),
        ("udp://0.0.0.0:0?sessions=true", "127.0.0.1"),
        ("udp://[::1]:0?sessions=true", "::1"),
        ("udp://:0?sessions=true", "127.0.0.1"),
        ("udp://:0?sessions=true", "::1"),
    ] {
        let server = serving(uri);
        let stays = client(host, &server);
        for _ in 0..10 {
            drop(client(host, &server));
        }
        let told = server.wait(|it| it.datagram_sessions_ended == 10);
        assert_eq!(told.datagram_sessions, 11, "{uri}");
        for _ in 0..10 {
            hear(&stays, b"tick");
        }
        let refused = |entry: &&String| entry.contains("Connection refused");
        let errors = server.errors.entries();
        assert_eq!(errors.iter().filter(refused).count(), 10, "{errors:?}");
        let told = server.end();
        assert_eq!(told.datagrams_dropped, 0, "{uri}");
        assert_eq!(told.datagrams_failed, 10, "{uri}");
    }
}

/// Reports are taken away, so nothing announces them again and again.
#[test]
fn reports_leave_no_work_behind() {
    let server = serving("udp://127.0.0.1:0?sessions=true");
    for _ in 0..20 {
        drop(client("127.0.0.1", &server));
    }
    let before = server.wait(|it| it.datagram_sessions_ended == 20).turns;
    thread::sleep(Duration::from_millis(300));
    // A datagram has to come, for the counters to be read again.
    let last = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to: SocketAddr = server.addresses[0].socket_addr().unwrap();
    last.send_to(b"one more", to).unwrap();
    let after = server.wait(|it| it.datagram_sessions == 21).turns;
    assert!(after - before < 20, "{} turns", after - before);
}

/// A datagram without a session is answered, whoever listens.
#[test]
fn one_shots_hear_of_nothing() {
    let server = serving("udp://127.0.0.1:0");
    let to: SocketAddr = server.addresses[0].socket_addr().unwrap();
    for _ in 0..20 {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.send_to(b"bye", to).unwrap();
        drop(gone);
    }
    server.wait(|it| it.datagrams_received == 20);
    let stays = client("127.0.0.1", &server);
    stays.send(b"again").unwrap();
    hear(&stays, b"again");
    assert_eq!(server.end().datagrams_failed, 0);
}

/// A path through a router whose second link takes packets of 1,000 bytes. The system splits what it
/// sends there as soon as it knows.
#[test]
fn a_datagram_too_long_for_the_path_is_lost_alone() {
    const NAME: &str = "reactor::undelivered::a_datagram_too_long_for_the_path_is_lost_alone";
    const PATH: &str = "
        ip link set lo up
        ip netns add router
        ip netns add client
        ip link add near type veth peer name one netns router
        ip -n router link add two mtu 1000 type veth peer name far mtu 1000 netns client
        ip link set near up
        ip addr add 10.1.0.1/24 dev near
        ip route add default via 10.1.0.2
        ip netns exec router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
        ip -n router addr add 10.1.0.2/24 dev one
        ip -n router addr add 10.2.0.2/24 dev two
        ip -n router link set one up
        ip -n router link set two up
        ip -n client addr add 10.2.0.1/24 dev far
        ip -n client link set far up
        ip -n client route add default via 10.2.0.2
    ";
    let setup = format!("mount -t tmpfs none /run\n{PATH}");
    if !is_inside(NAME, &setup) || !require("python3") {
        return;
    }

    let server = serving("udp://10.1.0.1:0?sessions=true");
    let script = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(('10.1.0.1', int(sys.argv[1])))
client.settimeout(20)
def await_(length):
    while len(client.recv(9000)) != length:
        pass
client.send(b'join')
await_(4)
client.send(bytes(1400))
for _ in range(10):
    assert client.recv(9000) == b'tick'
client.send(bytes(1401))
await_(1401)
print('well')
";
    let port = server.addresses[0].socket_addr().unwrap().port();
    let output = Command::new("ip")
        .args(["netns", "exec", "client", "python3", "-c", script])
        .arg(port.to_string())
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"well\n", "{output:?}");
    let told = server.wait(|it| it.datagrams_dropped == 1);
    assert_eq!(told.datagram_sessions, 1);
    // It ends for another reason, if at all: that its peer is gone by now.
    let errors = server.errors.entries();
    assert!(errors.iter().all(|it| it.contains("refused")), "{errors:?}");
}

#[test]
fn a_refusal_is_an_everyday_end() {
    let refused = std::io::Error::from(ErrorKind::ConnectionRefused);
    assert!(serveloop::CloseReason::Io(refused).is_ordinary());
}
