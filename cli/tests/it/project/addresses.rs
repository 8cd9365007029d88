//! Addresses of every kind on the command line: names with several addresses, of which some do not
//! work, names of interfaces, names outside the file system, and addresses that cannot be connected to.

use std::io::{self, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::outside::skip;
use crate::support::running::{Running, Said, run};
use crate::support::served::{MODELS, PATIENCE, Served, serveloop};
use crate::support::sockets::Directory;

/// A network namespace of its own, where IPv6 can be off, with a file of hosts of its own. It lives
/// as long as this does.
struct Namespace {
    keeper: Child,
    /// Where the file of hosts is, for as long.
    _hosts: Directory,
}

impl Namespace {
    /// `None`, with a message, where there can be none.
    fn new(setup: &str, hosts: &str) -> Option<Self> {
        let directory = Directory::new();
        std::fs::write(directory.path("hosts"), hosts).expect("a directory and a pipe");
        let script = format!(
            "ip link set lo up
            mount --bind {} /etc/hosts
            {setup}
            echo ready
            exec cat",
            directory.path("hosts").display()
        );
        let keeper = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut keeper) = keeper else {
            skip("unshare");
            return None;
        };
        let mut ready = [0; 6];
        let stdout = keeper.stdout.as_mut().expect("a directory and a pipe");
        if std::io::Read::read_exact(stdout, &mut ready).is_err() {
            skip("network namespace");
            let _ = keeper.wait();
            return None;
        }
        Some(Self {
            keeper,
            _hosts: directory,
        })
    }

    /// The command in this namespace.
    fn command(&self, arguments: &[&str]) -> Command {
        let built = serveloop(&[]);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.keeper.id()))
            .args(["--net", "--mount"])
            .arg(built.get_program())
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        Running::spawn(command).finish(input.as_bytes())
    }

    fn serve(&self, arguments: &[&str]) -> Served {
        Served::spawn(self.command(&[&["serve"], arguments].concat()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

const NO_IPV6: &str = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
    echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6";

const BOTH: &str = "::1 localhost\n127.0.0.1 localhost\n::1 localhost\n";

#[test]
fn a_name_with_one_address_that_works_is_served() {
    let Some(namespace) = Namespace::new(NO_IPV6, BOTH) else {
        return;
    };
    for scheme in ["tcp", "udp"] {
        for model in MODELS {
            let uri = format!("{scheme}://localhost:4711");
            let served = namespace.serve(&[&["echo", "--listen", &uri], model].concat());
            assert_eq!(served.uris(), [format!("{scheme}://127.0.0.1:4711")]);
            let said = namespace.run(&["connect", &uri], "ping\n");
            assert_eq!(said.well(), "ping\n", "{scheme} {model:?}");
            served.signal(Signal::TERM);
            let (status, lines) = served.end();
            let log = lines.join("\n");
            assert!(status.success(), "{log}");
            let why = io::Error::from(Errno::ADDRNOTAVAIL);
            let warned = format!("cannot listen on {scheme}://[::1]:4711: {why}");
            assert_eq!(log.matches(&warned).count(), 1, "{log}");
        }
    }
}

#[test]
fn a_name_without_an_address_that_works_is_an_error_that_names_each() {
    let hosts = "::1 here\n192.0.2.1 here\n";
    let Some(namespace) = Namespace::new(NO_IPV6, hosts) else {
        return;
    };
    let why = io::Error::from(Errno::ADDRNOTAVAIL);
    for model in [MODELS[0], MODELS[1]] {
        let arguments = ["serve", "echo", "--listen", "tcp://here:4711"];
        let line = namespace.run(&[&arguments, model].concat(), "").badly();
        for address in ["tcp://[::1]:4711", "tcp://192.0.2.1:4711"] {
            assert!(
                line.contains(&format!("cannot listen on {address}: {why}")),
                "{line}"
            );
        }
    }
    let line = namespace
        .run(&["connect", "udp://here:4711"], "ping\n")
        .badly();
    for address in ["udp://[::1]:4711: ", "udp://192.0.2.1:4711: "] {
        assert!(line.contains(address), "{line}");
    }
}

/// Over datagrams it shows after the first of them only.
#[test]
fn the_next_address_of_a_name_is_tried_over_datagrams() {
    let Some(namespace) = Namespace::new("", BOTH) else {
        return;
    };
    let served = namespace.serve(&["echo", "--listen", "udp://127.0.0.1:4711"]);
    let said = namespace.run(&["connect", "udp://localhost:4711"], "one\ntwo\n\nfour\n");
    assert_eq!(said.well(), "one\ntwo\n\nfour\n");
    drop(served);
    let line = namespace
        .run(&["connect", "udp://localhost:4711"], "one\n")
        .badly();
    for address in ["[::1]", "127.0.0.1"] {
        let named = format!("udp://{address}:4711: Connection refused");
        assert!(line.contains(&named), "{line}");
    }
}

#[test]
fn the_interface_of_an_address_is_named_or_numbered() {
    let setup = "ip addr add fe80::9:1/64 dev lo nodad
        until ip -6 route show table local | grep -q '^local fe80::9:1 '; do sleep 0.01; done";
    let Some(namespace) = Namespace::new(setup, BOTH) else {
        return;
    };
    for scheme in ["tcp", "udp"] {
        for zone in ["%lo", "%1", "%25lo"] {
            let uri = format!("{scheme}://[fe80::9:1{zone}]:4711");
            let served = namespace.serve(&["echo", "--listen", &uri]);
            assert_eq!(served.uri(0), format!("{scheme}://[fe80::9:1%1]:4711"));
            let said = namespace.run(&["connect", &uri], "ping\n");
            assert_eq!(said.well(), "ping\n", "{uri}");
        }
    }
    let uri = "tcp://[fe80::9:1%nowhere]:4711";
    let said = namespace.run(&["serve", "echo", "--listen", uri], "");
    assert!(said.badly().contains(uri));
}

/// A client that is connected takes replies from the address that it asked only.
#[test]
fn a_datagram_to_all_addresses_is_answered_from_the_one_that_was_asked() {
    for model in MODELS {
        let arguments = ["echo", "--listen", "udp://0.0.0.0:0"];
        let served = Served::new(&[&arguments, model].concat());
        let (_, port) = served.uri(0).rsplit_once(':').unwrap();
        for host in ["127.0.0.1", "127.0.0.2", "127.1.2.3", "0.0.0.0"] {
            let uri = format!("udp://{host}:{port}");
            let said = run(&["connect", &uri, "--timeout", "10s"], "ping\n");
            assert_eq!(said.well(), "ping\n", "{uri} {model:?}");
        }
    }
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip("IPv6");
    }
    for model in MODELS {
        let served = Served::new(&[&["echo", "--listen", "udp://[::]:0"], model].concat());
        let (_, port) = served.uri(0).rsplit_once(':').unwrap();
        let uri = format!("udp://[::1]:{port}");
        assert_eq!(run(&["connect", &uri], "ping\n").well(), "ping\n");
    }
}

/// On Linux a Unix socket can have a name that is no file's.
#[test]
fn names_outside_the_file_system_are_served_and_connected_to() {
    let name = format!("serveloop-{}", std::process::id());
    for model in MODELS {
        for scheme in ["unix", "unixgram"] {
            let uri = format!("{scheme}://@{name}");
            let served = Served::new(&[&["echo", "--listen", &uri], model].concat());
            assert_eq!(served.uri(0), uri);
            for uri in [&uri, &format!("{scheme}:@{name}")] {
                assert_eq!(run(&["connect", uri], "ping\n").well(), "ping\n");
            }
            assert!(!std::path::Path::new(&format!("@{name}")).exists());
        }
    }
    let nobody = format!("unix://@{name}-nobody");
    let line = run(&["connect", &nobody], "").badly();
    assert!(line.contains(&nobody) && line.contains("refused"), "{line}");
    let said = run(&["serve", "echo", "--listen", "unix://@"], "");
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("no name"), "{said:?}");
}

/// A client may have such a name too, one that it chose or the system did.
#[test]
fn peers_with_names_outside_the_file_system_are_answered_and_logged() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let directory = Directory::new();
    let uri = directory.uri("unixgram", "echo");
    let mut command = serveloop(&[
        "-vv",
        "serve",
        "echo",
        "--listen",
        &uri,
        "--max-frame",
        "64KiB",
    ]);
    command.env("RUST_LOG", "debug");
    let served = Served::spawn(command);
    let name = format!("serveloop client {}", std::process::id());
    let chosen = SocketAddr::from_abstract_name(&name).unwrap();
    let chosen = UnixDatagram::bind_addr(&chosen).unwrap();
    let bound = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
    // An address without a name has the system choose one.
    let unnamed = unnamed_address();
    bound.bind(&unnamed).unwrap();
    let bound = UnixDatagram::from(std::os::fd::OwnedFd::from(bound));
    for client in [&chosen, &bound] {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"hello", directory.path("echo")).unwrap();
        assert_eq!(client.recv(&mut [0; 9]).unwrap(), 5);
    }
    // The log names a client that is gone when its reply leaves.
    let gone = UnixDatagram::bind(directory.path("gone")).unwrap();
    std::fs::remove_file(directory.path("gone")).unwrap();
    gone.send_to(b"hello", directory.path("echo")).unwrap();
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"hello", directory.path("echo"))
        .unwrap();
    chosen.send_to(b"last", directory.path("echo")).unwrap();
    assert_eq!(chosen.recv(&mut [0; 9]).unwrap(), 4);
    served.signal(Signal::TERM);
    let (status, lines) = served.end();
    let log = lines.join("\n");
    assert!(status.success(), "{log}");
    let dropped = directory.uri("unixgram", "gone");
    assert!(log.contains(&format!("{dropped}: reply dropped")), "{log}");
    assert!(log.contains("unixgram://: reply dropped"), "{log}");
}

fn unnamed_address() -> SockAddr {
    let unbound = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("a socket");
    unbound.local_addr().expect("a socket")
}

/// Paths are taken as they are written.
#[test]
fn paths_have_spaces_percent_signs_and_a_longest_length() {
    let directory = Directory::new();
    for name in ["a b", "100%", "a%20b", "caf\u{e9}", "@name"] {
        for scheme in ["unix", "unixgram"] {
            let uri = directory.uri(scheme, name);
            let served = Served::new(&["echo", "--listen", &uri]);
            assert!(directory.path(name).exists());
            assert_eq!(served.uri(0), uri);
            assert_eq!(run(&["connect", &uri], "ping\n").well(), "ping\n");
        }
    }
    let base = directory.path("").as_os_str().len();
    let longest = directory.uri("unix", &"x".repeat(107 - base));
    let served = Served::new(&["echo", "--listen", &longest]);
    assert_eq!(run(&["connect", &longest], "ping\n").well(), "ping\n");
    drop(served);
    let long = directory.uri("unix", &"x".repeat(108 - base));
    for arguments in [
        &["serve", "echo", "--listen", &long][..],
        &["connect", &long],
    ] {
        let line = run(arguments, "").badly();
        assert!(line.contains(&long), "{line}");
        assert!(line.contains("SUN_LEN") || line.contains("long"), "{line}");
    }
}

/// A socket that is not read accepts as many datagrams as its queue holds.
#[test]
fn a_unix_socket_that_nobody_reads_ends_the_client_in_time() {
    let directory = Directory::new();
    let _silent = UnixDatagram::bind(directory.path("silent")).unwrap();
    let uri = directory.uri("unixgram", "silent");
    let lines = "line\n".repeat(2_000);
    for timeout in ["200ms", "0"] {
        let begin = Instant::now();
        let arguments = ["connect", &uri, "--timeout", timeout];
        let line = run(&arguments, &lines).badly();
        assert!(line.contains("could not send a datagram within"), "{line}");
        assert!(line.contains(&uri), "{line}");
        assert!(begin.elapsed() < PATIENCE / 2);
    }
}

/// It is slow, and that is all.
#[test]
fn a_unix_socket_that_is_read_late_gets_everything() {
    let directory = Directory::new();
    let slow = UnixDatagram::bind(directory.path("slow")).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let uri = directory.uri("unixgram", "slow");
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        for _ in 0..500 {
            assert_eq!(slow.recv(&mut [0; 9]).unwrap(), 4);
        }
    });
    let arguments = ["connect", &uri, "--timeout", "0"];
    assert_eq!(run(&arguments, "line\n".repeat(500)).well(), "");
    reader.join().unwrap();
}

/// A listener that accepts nothing for now has a full queue.
#[test]
fn a_full_unix_listener_is_waited_for() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "full");
    let at = SockAddr::unix(directory.path("full")).unwrap();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&at).unwrap();
    socket.listen(0).unwrap();
    let first = UnixStream::connect(directory.path("full")).unwrap();

    let begin = Instant::now();
    let line = run(&["connect", &uri, "--timeout", "300ms"], "").badly();
    assert!(line.contains("timed out: not connected in time"), "{line}");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < PATIENCE / 2);

    let mut client = Running::new(&["connect", &uri]);
    thread::sleep(Duration::from_millis(100));
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    let _first = (listener.accept().unwrap(), first);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"hello\n").unwrap();
    drop(stream);
    drop(client.stdin());
    assert_eq!(client.end().well(), "hello\n");
}

/// Whatever several machines have is no place to talk to.
#[test]
fn what_is_no_place_to_talk_to_is_said() {
    for (uri, problem) in [
        ("udp://255.255.255.255:9", "several machines"),
        ("udp://224.0.0.1:9", "several machines"),
        ("tcp://[ff02::1]:9", "several machines"),
        ("udp://127.0.0.1:0", "port 0"),
        ("tcp://127.0.0.1:0", "port 0"),
    ] {
        let said = run(&["connect", uri, "--timeout", "5s"], "ping\n");
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(problem), "{said:?}");
        assert!(said.stderr.contains(uri), "{said:?}");
    }
    for uri in ["tcp://224.0.0.1:0", "tcp://255.255.255.255:0"] {
        let line = run(&["serve", "echo", "--listen", uri], "").badly();
        assert!(line.contains(uri), "{line}");
    }
}

/// One address of two is another server's: the other is served, and that is said.
#[test]
fn a_name_of_which_one_address_is_taken_is_served_at_the_other() {
    let Some(namespace) = Namespace::new("", BOTH) else {
        return;
    };
    let other = namespace.serve(&["echo", "--listen", "tcp://127.0.0.1:4711"]);
    for model in [MODELS[0], MODELS[1]] {
        let arguments = ["echo", "--listen", "tcp://localhost:4711"];
        let served = namespace.serve(&[&arguments, model].concat());
        assert_eq!(served.uris(), ["tcp://[::1]:4711"]);
        served.signal(Signal::TERM);
        let (status, lines) = served.end();
        let log = lines.join("\n");
        assert!(status.success(), "{log}");
        let why = io::Error::from(Errno::ADDRINUSE);
        let warned = format!("cannot listen on tcp://127.0.0.1:4711: {why}");
        assert_eq!(log.matches(&warned).count(), 1, "{log}");
    }
    drop(other);
}

/// Where IPv6 is off, its sockets still take IPv4 clients.
#[test]
fn every_address_is_served_where_ipv6_is_off() {
    let Some(namespace) = Namespace::new(NO_IPV6, BOTH) else {
        return;
    };
    for scheme in ["tcp", "udp"] {
        for model in MODELS {
            let uri = format!("{scheme}://*:4711");
            let served = namespace.serve(&[&["echo", "--listen", &uri], model].concat());
            let uri = format!("{scheme}://127.0.0.1:4711");
            let said = namespace.run(&["connect", &uri], "ping\n");
            assert_eq!(said.well(), "ping\n", "{scheme} {model:?}");
            served.signal(Signal::TERM);
            assert!(served.end().0.success());
        }
    }
}

#[test]
fn a_listener_at_an_interface_has_its_name() {
    let setup = "ip link add d0 type veth peer name d1
        ip link set d0 addrgenmode none
        ip link set d1 up
        ip link set d0 up
        ip addr add fe80::9:1/64 dev d0 nodad
        until ip -6 route show table local | grep -q '^local fe80::9:1 '; do sleep 0.01; done";
    let Some(namespace) = Namespace::new(setup, BOTH) else {
        return;
    };
    for zone in ["d0", "25d0"] {
        let uri = format!("tcp://[fe80::9:1%{zone}]:4711?keepalive=60s");
        let served = namespace.serve(&["echo", "--listen", &uri]);
        let address = served.uri(0).to_owned();
        let number = address.strip_prefix("tcp://[fe80::9:1%");
        let number = number.and_then(|rest| rest.strip_suffix("]:4711"));
        assert!(
            number.is_some_and(|it| it.parse::<u32>().is_ok()),
            "{address}"
        );
        let said = namespace.run(&["connect", "tcp://[fe80::9:1%d0]:4711"], "ping\n");
        assert_eq!(said.well(), "ping\n");
        served.signal(Signal::TERM);
        assert!(served.end().0.success());
    }
    let arguments = [
        "serve",
        "echo",
        "--listen",
        "tcp://[fe80::9:1%d7]:4711?backlog=5",
    ];
    let line = namespace.run(&arguments, "").badly();
    assert!(line.contains("tcp://[fe80::9:1%d7]:4711"), "{line}");
}

#[test]
fn an_address_given_twice_is_in_use() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp://{}", free.local_addr().unwrap());
    drop(free);
    for workers in ["1", "2"] {
        let listen = ["--listen", &uri, "--listen", &uri, "--workers", workers];
        let line = run(&[&["serve", "echo"][..], &listen].concat(), "").badly();
        assert!(line.contains("in use"), "{workers}: {line}");
    }
}
