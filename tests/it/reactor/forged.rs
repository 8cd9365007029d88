//! Datagrams from forged addresses, more than there is room for: those who are known notice nothing.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use serveloop::{Config, Limits, Listen, Peer, Protocol, Result, Server, Transport};

use crate::support::Serving;
use crate::support::namespace::is_inside;
use crate::support::outside::require;

const NAME: &str = "reactor::forged::known_peers_notice_nothing_of_forged_addresses";

/// How many datagrams are forged, each from an address of its own.
fn forged() -> u64 {
    match env::var_os("SERVELOOP_FULL") {
        Some(_) => 10_000_000,
        None => 100_000,
    }
}

const SESSIONS: usize = 1_000;

/// How many times of known peers are kept.
const TIMES: usize = 100_000;

/// How much more memory the process may need than before: far less than a session for each address.
const GROWTH_KIB: u64 = 8 << 10;

/// An attacker at the other end of a cable, which no filter checks.
const CABLE: &str = "
    mount -t tmpfs none /run
    ip link set lo up
    ip netns add attacker
    ip link add near type veth peer name far netns attacker
    for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done
    ip addr add 10.1.0.1/24 dev near
    ip link set near up
    ip -n attacker addr add 10.1.0.2/24 dev far
    ip -n attacker link set far up
    ip route add default via 10.1.0.2
";

/// Sends one datagram of 32 bytes from each of many addresses to a port of 10.1.0.1.
const ATTACK: &str = "
import socket, struct, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
to = socket.inet_aton('10.1.0.1')
data = bytes(32)
for number in range(count):
    source = struct.pack('!I', 0x0b000001 + number * 7)
    udp = struct.pack('!HHHH', 1024 + number % 60000, port, 8 + len(data), 0)
    head = struct.pack('!BBHHHBBH', 0x45, 0, 0, 0, 0, 64, 17, 0)
    raw.sendto(head + source + to + udp + data, ('10.1.0.1', 0))
    if number % 50 == 0:
        time.sleep(0.001)
";

/// Answers with how many datagrams its peer has sent. Only a peer that receives can say that number.
struct Counter(u64);

impl Protocol for Counter {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        if data == self.0.to_string().as_bytes() {
            transport.confirm_address();
        }
        self.0 += 1;
        transport.write(self.0.to_string().as_bytes());
        Ok(data.len())
    }
}

/// The attacker has a core only while no other process wants it: what is measured is the server, not the
/// competition for the core of those who measure.
fn attack(port: u16) -> Child {
    Command::new("chrt")
        .args(["--idle", "0", "ip", "netns", "exec", "attacker"])
        .args(["python3", "-c", ATTACK])
        .args([port.to_string(), forged().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// Says the `last` number until an answer comes, and returns the number in it. Counts what got none.
fn count(client: &UdpSocket, last: u64, lost: &mut u64) -> u64 {
    let end = Instant::now() + Duration::from_secs(20);
    let mut buffer = [0; 20];
    while Instant::now() < end {
        client.send(last.to_string().as_bytes()).unwrap();
        if let Ok(count) = client.recv(&mut buffer) {
            return std::str::from_utf8(&buffer[..count])
                .unwrap()
                .parse()
                .unwrap();
        }
        *lost += 1;
    }
    panic!("no answer");
}

/// Says the last number, and returns how long the next one took to come.
fn timed(last: &mut u64, client: &UdpSocket, lost: &mut u64) -> Duration {
    let began = Instant::now();
    let answer = count(client, *last, lost);
    // A session that was replaced would begin to count anew.
    assert!(answer > *last, "{answer} after {last}");
    *last = answer;
    began.elapsed()
}

fn p99(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn known_peers_notice_nothing_of_forged_addresses() {
    if !is_inside(NAME, CABLE) || !require("python3") || !require("chrt") {
        return;
    }
    let config = Config {
        sessions: true,
        max_sessions: SESSIONS,
        limits: Limits {
            first_message_timeout: Some(Duration::from_secs(2)),
            ..Limits::default()
        },
        ..Config::default()
    };
    let listen: Listen = "udp://10.1.0.1:0".parse().unwrap();
    let server = Server::bind_with(&[listen], config).unwrap();
    let server = Serving::with(server, |_: &Peer| Some(Counter(0)));
    let at = server.addresses[0].socket_addr().unwrap();

    let mut known = Vec::new();
    for _ in 0..10 {
        let client = UdpSocket::bind("10.1.0.1:0").unwrap();
        client.connect(at).unwrap();
        let patience = Duration::from_secs(2);
        client.set_read_timeout(Some(patience)).unwrap();
        let first = count(&client, 0, &mut 0);
        known.push((count(&client, first, &mut 0), client));
    }

    let quiet = p99((0..10_000).map(|turn| {
        let (last, client) = &mut known[turn % 10];
        timed(last, client, &mut 0)
    }));

    // The last of them, in room that is there before the memory is looked at.
    let mut times = vec![Duration::ZERO; TIMES];
    let (before, mut attacker) = (peak(), attack(at.port()));
    let (mut asked, mut lost) = (0, 0);
    while attacker.try_wait().unwrap().is_none() {
        for (last, client) in &mut known {
            times[asked as usize % TIMES] = timed(last, client, &mut lost);
            asked += 1;
        }
        let told = server.wait(|_| true);
        let open = told.datagram_sessions - told.datagram_sessions_ended;
        assert!(open <= SESSIONS as u64 / 2 + 10, "{open} sessions");
    }
    assert!(attacker.wait().unwrap().success());
    assert!(asked > 100, "asked {asked} times");
    // What it takes depends on the machine: for whoever reads the test's output.
    times.truncate(asked as usize);
    println!(
        "measured: p99 of known peers {quiet:?} before, {:?} beside {} forged addresses, {asked} asked, {lost} lost",
        p99(times),
        forged()
    );
    assert!(lost * 50 < asked, "{lost} of {asked} lost");

    let grown = peak() - before;
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    let told = server.end();
    assert!(told.datagrams_received > forged() / 2, "{told:?}");
    let without = told.datagram_sessions_refused + told.datagrams_over_rate;
    assert!(without > forged() / 2, "{told:?}");
    assert_eq!(told.panics, 0);
}
