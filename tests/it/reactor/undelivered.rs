//! Datagrams that do not arrive: the network's reports are told to the sessions that they concern, and to
//! no other, and end none by themselves.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::net::DeliveryError;
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

/// A [`Ticker`] that notes what it is told of, and may end then.
struct Told {
    ticker: Ticker,
    ends: bool,
    tell: Sender<String>,
}

impl Protocol for Told {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.ticker.data_received(data, transport)
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        let _ = self.tell.send(format!("{error:?}"));
        if self.ends {
            transport.abort();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.ticker.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.ticker.handle_timeout(transport);
    }
}

fn serving(uri: &str) -> Serving {
    serving_with(uri, |_: &Peer| Some(Ticker(None)))
}

/// Serves protocols that say what they were told of, and end then if `ends`.
fn serving_told(uri: &str, ends: bool) -> (Serving, Receiver<String>) {
    let (tell, told) = channel();
    let serving = serving_with(uri, move |_: &Peer| {
        Some(Told {
            ticker: Ticker(None),
            ends,
            tell: tell.clone(),
        })
    });
    (serving, told)
}

fn serving_with<P: Protocol + 'static>(
    uri: &str,
    build: impl FnMut(&Peer) -> Option<P> + Send + 'static,
) -> Serving {
    let listen: Listen = uri.parse().unwrap();
    let server = Server::bind_with(&[listen], Config::default()).unwrap();
    Serving::with(server, build)
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

/// Several at the same time: a port that is free again may be given to the next, which is then the same peer.
fn clients(count: usize, host: &str, server: &Serving) -> Vec<UdpSocket> {
    (0..count).map(|_| client(host, server)).collect()
}

#[track_caller]
fn hear(client: &UdpSocket, expected: &[u8]) {
    let mut buffer = [0; 9];
    let count = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], expected);
}

const URIS: [(&str, &str); 5] = [
    ("udp://127.0.0.1:0?sessions=true", "127.0.0.1"),
    ("udp://0.0.0.0:0?sessions=true", "127.0.0.1"),
    ("udp://[::1]:0?sessions=true", "::1"),
    ("udp://:0?sessions=true", "127.0.0.1"),
    ("udp://:0?sessions=true", "::1"),
];

#[test]
fn a_session_that_wants_to_ends_when_its_peer_is_gone_and_no_other() {
    for (uri, host) in URIS {
        let (server, told) = serving_told(uri, true);
        let stays = client(host, &server);
        drop(clients(10, host, &server));
        let counted = server.wait(|it| it.datagram_sessions_ended == 10);
        assert_eq!(counted.datagram_sessions, 11, "{uri}");
        for _ in 0..10 {
            hear(&stays, b"tick");
        }
        let all: Vec<_> = told.try_iter().collect();
        let refused = |entry: &&String| entry.starts_with("Reported") && entry.contains("refused");
        assert_eq!(all.iter().filter(refused).count(), 10, "{all:?}");
        let counted = server.end();
        assert_eq!(counted.datagrams_undelivered, 10, "{uri}");
        assert_eq!(counted.datagrams_dropped, 0, "{uri}");
    }
}

/// Whoever knows both addresses can make a report.
#[test]
fn a_report_ends_no_session_by_itself() {
    for (uri, host) in URIS {
        let server = serving(uri);
        let gone = client(host, &server);
        let at = gone.local_addr().unwrap();
        drop(gone);
        server.wait(|it| it.datagrams_undelivered > 2);

        let back = UdpSocket::bind(at).unwrap();
        back.set_read_timeout(Some(PATIENCE)).unwrap();
        hear(&back, b"tick");
        let counted = server.end();
        assert_eq!(counted.datagram_sessions, 1, "{uri}");
        assert_eq!(counted.datagrams_failed, 0, "{uri}");
    }
}

/// A third party says of two others that their datagrams do not arrive.
#[test]
fn a_forged_report_is_told_and_ends_nothing() {
    const NAME: &str = "reactor::undelivered::a_forged_report_is_told_and_ends_nothing";
    const FORGE: &str = "
import socket, struct, sys
server, client = int(sys.argv[1]), int(sys.argv[2])
def total(data):
    words = struct.unpack('!%dH' % (len(data) // 2), data)
    part = sum(words)
    part = (part >> 16) + (part & 0xffff)
    return 0xffff - ((part >> 16) + (part & 0xffff))
here = socket.inet_aton('127.0.0.1')
inner = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 32, 1, 0, 64, 17, 0, here, here)
inner += struct.pack('!HHHH', server, client, 12, 0) + b'tick'
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for code in (3, 1, 2):
    head = struct.pack('!BBHI', 3, code, 0, 0)
    head = struct.pack('!BBHI', 3, code, total(head + inner), 0)
    raw.sendto(head + inner, ('127.0.0.1', 0))
";
    if !is_inside(NAME, "ip link set lo up") || !require("python3") {
        return;
    }
    let (server, told) = serving_told("udp://127.0.0.1:0?sessions=true", false);
    let client = client("127.0.0.1", &server);
    let port = |addr: SocketAddr| addr.port().to_string();
    let output = Command::new("python3")
        .args(["-c", FORGE])
        .arg(port(server.addresses[0].socket_addr().unwrap()))
        .arg(port(client.local_addr().unwrap()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    // Refused, unreachable and no such protocol; each C library has other words for them.
    for part in ["code: 111", "code: 113", "code: 92"] {
        let entry = told.recv_timeout(PATIENCE).unwrap();
        assert!(
            entry.starts_with("Reported") && entry.contains(part),
            "{entry}"
        );
    }
    for _ in 0..10 {
        hear(&client, b"tick");
    }
    assert_eq!(server.end().datagram_sessions, 1);
}

/// What this machine does not send is told as well, and what the protocol says to that is sent.
#[test]
fn what_cannot_be_sent_is_told() {
    struct Long;

    impl Protocol for Long {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.confirm_address();
            transport.write_datagram(&vec![0; 65_508]);
            transport.write_datagram(b"short");
            Ok(data.len())
        }

        fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
            transport.write_datagram(error.to_string().as_bytes());
        }
    }

    let server = serving_with("udp://127.0.0.1:0?sessions=true", |_: &Peer| Some(Long));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let to: SocketAddr = server.addresses[0].socket_addr().unwrap();
    client.send_to(b"go", to).unwrap();
    let mut buffer = [0; 99];
    for expected in ["short", "too long for the path"] {
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], expected.as_bytes());
    }
    assert_eq!(server.end().datagrams_dropped, 1);
}

/// Reports are taken away, so nothing announces them again and again.
#[test]
fn reports_leave_no_work_behind() {
    let (server, _told) = serving_told("udp://127.0.0.1:0?sessions=true", true);
    drop(clients(20, "127.0.0.1", &server));
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

    let (server, told) = serving_told("udp://10.1.0.1:0?sessions=true", false);
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
    let counted = server.wait(|it| it.datagrams_undelivered >= 1);
    assert_eq!(counted.datagram_sessions, 1);
    assert_eq!(counted.datagrams_dropped, 0);
    // Whatever comes later says that the peer is gone.
    let first = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first, "TooLong { mtu: Some(1000) }");
}

#[test]
fn a_refusal_is_an_everyday_end() {
    let refused = std::io::Error::from(ErrorKind::ConnectionRefused);
    assert!(serveloop::CloseReason::Io(refused).is_ordinary());
}
