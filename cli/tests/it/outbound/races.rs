//! A name with several addresses, of which some are silent: the client talks to the first that answers.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::outside::skip;
use crate::support::running::Running;
use crate::support::scripts::{expect, rest};
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::sockets::Directory;

/// What no wait for a silent address would stay below, and any machine does without one.
const SOON: Duration = Duration::from_secs(8);

/// Runs the command where `file` is in the place of `at`, in a mount namespace of its own. None where
/// the system does not allow that.
fn with_file(file: &str, at: &str, arguments: &[&str]) -> Option<Command> {
    let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let inside = |rest: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", script, file, at])
            .args(rest);
        command.stdin(Stdio::null());
        command
    };
    let is_possible = inside(&["true"]).stderr(Stdio::null()).status();
    if !is_possible.is_ok_and(|status| status.success()) {
        skip("mount namespace");
        return None;
    }
    let ours = serveloop(arguments);
    let program = ours.get_program().to_str().expect("a path");
    let mut command = inside(&[&[program], arguments].concat());
    for (name, value) in ours.get_envs() {
        assert!(value.is_none(), "only removed");
        command.env_remove(name);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// A socket that listens and accepts no connection: its queue is full.
struct Silent {
    _listener: Socket,
    _waiting: Vec<Socket>,
    at: SocketAddr,
}

impl Silent {
    /// None where there is no such address.
    fn at(at: &str) -> Option<Self> {
        let at: SocketAddr = at.parse().expect("an address");
        let listener = Socket::new(Domain::for_address(at), Type::STREAM, None).ok()?;
        if at.is_ipv6() {
            listener.set_only_v6(true).expect("a socket");
        }
        let Ok(()) = listener.bind(&at.into()) else {
            skip(&format!("address {at}"));
            return None;
        };
        listener.listen(0).expect("a socket");
        let at = listener.local_addr().expect("a socket");
        let at = at.as_socket().expect("an address");

        let mut waiting = Vec::new();
        loop {
            let client =
                Socket::new(Domain::for_address(at), Type::STREAM, None).expect("a socket");
            let outcome = client.connect_timeout(&at.into(), Duration::from_millis(300));
            waiting.push(client);
            match outcome {
                Ok(()) => assert!(waiting.len() < 64, "its queue has no end"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    break;
                }
            }
        }
        // The one that gave up is closed, so that no other attempt follows.
        waiting.pop();
        Some(Self {
            _listener: listener,
            _waiting: waiting,
            at,
        })
    }

    /// A file of names in which `manyfold` is here first, then on `other`.
    fn hosts(&self, directory: &Directory, other: &str) -> String {
        let path = directory.path("hosts");
        let text = format!("{} manyfold\n{other} manyfold\n", self.at.ip());
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    }

    /// How many connections to it are begun and not answered.
    fn beginning(&self) -> usize {
        let table = fs::read_to_string("/proc/net/tcp6").expect("Linux");
        let port = format!(":{:04X}", self.at.port());
        let lines = table.lines().skip(1).map(|line| line.split_whitespace());
        let begun = lines.filter(|line| {
            let fields: Vec<_> = line.clone().collect();
            fields[2].ends_with(&port) && fields[3] == "02"
        });
        begun.count()
    }
}

/// A silent `[::1]` and a listener at the same port of `127.0.0.1`.
fn two_addresses() -> Option<(Silent, TcpListener)> {
    let silent = Silent::at("[::1]:0")?;
    let listener = TcpListener::bind(("127.0.0.1", silent.at.port())).ok()?;
    Some((silent, listener))
}

#[test]
fn a_silent_address_does_not_hold_a_fetch_up() {
    let Some((silent, listener)) = two_addresses() else {
        return;
    };
    let directory = Directory::new();
    let hosts = silent.hosts(&directory, "127.0.0.1");
    let url = format!("http://manyfold:{}/", silent.at.port());
    let arguments = ["fetch", "--timeout", "20s", &url];
    let Some(command) = with_file(&hosts, "/etc/hosts", &arguments) else {
        return;
    };
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = BufReader::new(&stream).lines();
        while request
            .next()
            .is_some_and(|line| !line.expect("a request").is_empty())
        {}
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
            .expect("a client");
    });
    let began = Instant::now();
    assert_eq!(Running::spawn(command).end().well(), "hello");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    server.join().expect("a script");
}

#[test]
fn the_connection_that_lost_is_closed_at_once() {
    let Some((silent, listener)) = two_addresses() else {
        return;
    };
    let directory = Directory::new();
    let hosts = silent.hosts(&directory, "127.0.0.1");
    let uri = format!("tcp://manyfold:{}", silent.at.port());
    let arguments = ["connect", &uri, "--timeout", "20s"];
    let Some(mut command) = with_file(&hosts, "/etc/hosts", &arguments) else {
        return;
    };
    command.stdin(Stdio::piped());
    let (came, coming) = mpsc::channel();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        expect(&stream, b"ping");
        came.send(()).expect("a test");
        stream.write_all(b"pong").expect("a client");
        assert_eq!(rest(&stream), b"");
    });
    let mut client = Running::spawn(command);
    let mut stdin = client.stdin();
    stdin.write_all(b"ping").expect("a reader");
    coming.recv_timeout(SOON).expect("the address that answers");
    let end = Instant::now() + PATIENCE;
    while silent.beginning() > 0 {
        assert!(Instant::now() < end, "it still tries");
        thread::sleep(Duration::from_millis(1));
    }
    drop(stdin);
    assert_eq!(client.end().well(), "pong");
    server.join().expect("a script");
}

#[test]
fn a_silent_address_does_not_hold_a_bench_up() {
    let Some(silent) = Silent::at("[::1]:0") else {
        return;
    };
    let port = silent.at.port();
    let listen = format!("tcp://127.0.0.1:{port}");
    let _echo = Served::new(&["echo", "--listen", &listen]);
    let directory = Directory::new();
    let hosts = silent.hosts(&directory, "127.0.0.1");
    let uri = format!("tcp://manyfold:{port}");
    let short = ["--rounds", "1", "--duration", "50ms", "--connections", "1"];
    let patient = ["--timeout", "60s", "--target", &uri];
    let arguments = [&["bench"][..], &short, &patient].concat();
    let Some(command) = with_file(&hosts, "/etc/hosts", &arguments) else {
        return;
    };
    let began = Instant::now();
    let said = Running::spawn(command).end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn several_silent_addresses_have_one_timeout_together() {
    let Some(silent) = Silent::at("[::1]:0") else {
        return;
    };
    let Some(_other) = Silent::at(&format!("127.0.0.1:{}", silent.at.port())) else {
        return;
    };
    let directory = Directory::new();
    let hosts = silent.hosts(&directory, "127.0.0.1");
    let uri = format!("tcp://manyfold:{}", silent.at.port());
    let arguments = ["connect", &uri, "--timeout", "300ms"];
    let Some(command) = with_file(&hosts, "/etc/hosts", &arguments) else {
        return;
    };
    let began = Instant::now();
    let text = Running::spawn(command).end().badly();
    assert!(text.contains("timed out"), "{text}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());

    let patience = Duration::from_secs(4);
    let arguments = ["bench", "--target", &uri, "--timeout", "4s"];
    let Some(command) = with_file(&hosts, "/etc/hosts", &arguments) else {
        return;
    };
    let began = Instant::now();
    let text = Running::spawn(command).end().badly();
    assert!(text.contains("no server answers there"), "{text}");
    assert!(began.elapsed() < patience * 8 / 5, "{:?}", began.elapsed());

    // A signal is noticed meanwhile: sooner than the five seconds that a benchmark has to end.
    let arguments = ["bench", "--target", &uri, "--timeout", "60s"];
    let Some(command) = with_file(&hosts, "/etc/hosts", &arguments) else {
        return;
    };
    let mut client = Running::spawn(command);
    let began = Instant::now();
    while silent.beginning() == 0 {
        assert!(began.elapsed() < SOON, "no client connects");
        thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    client.signal(rustix::process::Signal::INT);
    assert_eq!(client.end().code, Some(130));
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

/// An address that refuses is no reason to wait for the next one.
#[test]
fn an_address_that_refuses_is_left_at_once() {
    let Ok(free) = TcpListener::bind("[::1]:0") else {
        return skip("IPv6");
    };
    let port = free.local_addr().unwrap().port();
    let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else {
        return skip("port that is free in both families");
    };
    drop(free);
    let directory = Directory::new();
    let hosts = directory.path("hosts");
    let refusing = (2..40).map(|last| format!("127.0.0.{last} manyfold\n"));
    let names: String = refusing.collect();
    fs::write(&hosts, format!("{names}127.0.0.1 manyfold\n::1 manyfold\n")).unwrap();
    let uri = format!("tcp://manyfold:{port}");
    let arguments = ["connect", &uri, "--timeout", "20s"];
    let hosts = hosts.to_str().unwrap();
    let Some(command) = with_file(hosts, "/etc/hosts", &arguments) else {
        return;
    };
    let server = thread::spawn(move || drop(listener.accept().expect("a client")));
    let began = Instant::now();
    assert_eq!(Running::spawn(command).end().well(), "");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    server.join().unwrap();
}

#[test]
fn a_name_server_that_is_silent_does_not_outlast_the_timeout() {
    let id = std::process::id();
    let at = format!("127.{}.{}.7", 64 + id % 64, id / 64 % 256);
    let Ok(_server) = UdpSocket::bind((&*at, 53)) else {
        return skip("right to use port 53");
    };
    let directory = Directory::new();
    let file = directory.path("resolv.conf");
    fs::write(&file, format!("nameserver {at}\n")).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        ["fetch", "http://nowhere.example./", "--timeout", "300ms"],
        ["connect", "tcp://nowhere.example.:9", "--timeout", "300ms"],
        ["connect", "udp://nowhere.example.:9", "--timeout", "300ms"],
        [
            "bench",
            "--target=tcp://nowhere.example.:9",
            "--timeout",
            "300ms",
        ],
    ] {
        let Some(command) = with_file(file, "/etc/resolv.conf", &arguments) else {
            return;
        };
        let began = Instant::now();
        let text = Running::spawn(command).end().badly();
        assert!(text.contains("lookup of the name timed out"), "{text}");
        let uri = arguments[1].trim_start_matches("--target=");
        assert!(text.contains(uri.trim_end_matches(":9")), "{text}");
        // The resolver itself would ask twice, for five seconds each.
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

/// A link-local address is none without its network, which has a name rather than a number.
#[test]
fn the_network_of_an_address_may_have_a_name() {
    let script = "
        ip link set lo up && ip -6 addr add fe80::1/64 dev lo nodad || exit 77
        \"$0\" serve echo --listen 'tcp://[::]:4711' --listen 'udp://[fe80::1%1]:4712' &
        tries=0
        until echo tcp | \"$0\" connect 'tcp://[fe80::1%lo]:4711' 2>/dev/null
        do tries=$((tries + 1)); test $tries -lt 500 || exit 1; done
        echo udp | \"$0\" connect 'udp://[fe80::1%lo]:4712' --timeout 20s
        \"$0\" fetch 'http://[fe80::1%25lo]:4711/' 2>&1 >/dev/null";
    let ours = serveloop(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-n", "-p", "--fork", "--kill-child", "sh", "-c", script])
        .arg(ours.get_program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let said = Running::spawn(command).end();
    let text = String::from_utf8_lossy(&said.stdout);
    if !text.contains("listening on") {
        return skip("network namespace with IPv6");
    }
    assert!(text.contains("\ntcp\nudp\n"), "{text}");
    // An echo is no web server.
    let echoed = "not an HTTP response: it begins with \"GET";
    assert!(text.contains(echoed), "{text}");
}
