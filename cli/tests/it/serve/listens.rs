//! Listeners with options of their own, and options for all of them, as the system sees them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::outside::{require, require_that, skip};
use crate::support::running::Running;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served, copy_program, serveloop};
use crate::support::sockets::{Directory, Stream, path_of, socket_addr};

/// A group that is not this process's own.
const OTHER: u32 = 54_321;

fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        skip("IPv6");
    }
    has
}

#[track_caller]
fn end(served: Served) {
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert!(status.success(), "{log:?}");
}

fn exchange(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(b"hello").expect("an open connection");
    stream.read_exact(&mut [0; 5]).expect("an echo");
    stream
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    for (uri, said) in [
        (
            "tcp://127.0.0.1:0?keepalives=60s",
            "the nearest is keepalive",
        ),
        ("tcp://localhost:0?baklog=5", "the nearest is backlog"),
        ("tcp://127.0.0.1:0?backlog=0", "backlog must be at least 1"),
        ("tcp://127.0.0.1:0?backlog", "expected OPTION=VALUE"),
        ("tcp://127.0.0.1:0?mode=0660", "mode is for unix"),
        ("tcp://127.0.0.1:0?nodelay=1", "expected true or false"),
        ("tcp://127.0.0.1:0?dual-stack=true", "the address [::]"),
        ("tcp://:0?dual-stack=false", "needs an address"),
        ("udp://:0?keepalive=60s", "keepalive is for tcp"),
        ("tcp://:0?keepalive=60", "expected a duration"),
        ("unix:///tmp/x?mode=0660&mode=0600", "mode is given twice"),
        ("unix:///tmp/x?mode=888", "permissions in octal digits"),
        ("unix:///tmp/what?.sock", "a question mark in a path"),
        ("tcp://:http", "expected HOST:PORT"),
    ] {
        let outcome = Outcome::new(&["serve", "echo", "--listen", uri]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(uri), "{}", outcome.stderr);
    }
    for options in [
        ["--keepalive", "10h"],
        ["--keepalive", "60"],
        ["--socket-mode", "0888"],
        ["--socket-mode", "1777"],
        ["--socket-group", ""],
        ["--dual-stack", "yes"],
    ] {
        let outcome = Outcome::new(&[&["serve", "echo"], &options[..]].concat());
        assert_eq!(outcome.code, Some(2), "{options:?}");
        assert!(outcome.stderr.contains(options[0]), "{}", outcome.stderr);
    }
}

#[test]
fn every_address_of_both_families_is_served_in_every_model() {
    if !has_ipv6() {
        return;
    }
    for model in MODELS {
        for (uri, option) in [
            ("tcp://:0", &[][..]),
            ("tcp://*:0", &[]),
            ("tcp://[::]:0?dual-stack=true", &[]),
            ("tcp://[::]:0", &["--dual-stack", "true"]),
        ] {
            let arguments = [&["echo", "--listen", uri], option, model].concat();
            let served = Served::new(&arguments);
            let port = socket_addr(served.uri(0)).port();
            assert_eq!(served.uri(0), format!("tcp://[::]:{port}"));
            for host in ["127.0.0.1", "[::1]"] {
                drop(exchange(format!("{host}:{port}").parse().unwrap()));
            }
            end(served);
        }
    }
}

#[test]
fn datagrams_of_both_families_are_answered_in_every_model() {
    if !has_ipv6() {
        return;
    }
    for model in MODELS {
        let served = Served::new(&[&["echo", "--listen", "udp://:0"], model].concat());
        let port = socket_addr(served.uri(0)).port();
        for (from, to) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]")] {
            let socket = UdpSocket::bind(format!("{from}:0")).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(format!("{to}:{port}")).unwrap();
            socket.send(b"hello").unwrap();
            assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 5, "{model:?}");
        }
        end(served);
    }
}

/// The log names an IPv4 client as what it is.
#[test]
fn an_ipv4_client_is_logged_with_its_own_address() {
    if !has_ipv6() {
        return;
    }
    let served = Served::new(&["echo", "--listen", "tcp://:0"]);
    let port = socket_addr(served.uri(0)).port();
    let stream = exchange(([127, 0, 0, 1], port).into());
    let own = format!("tcp://{}", stream.local_addr().unwrap());
    let line = served.logged("accepted");
    assert!(line.contains(&own) && !line.contains("ffff"), "{line}");
    drop(stream);
    end(served);
}

/// The first socket is the one of both families.
#[test]
fn without_ipv6_every_address_is_that_of_ipv4() {
    if !require("strace") {
        return;
    }
    for (scheme, workers) in [("tcp", "1"), ("udp", "1"), ("tcp", "2")] {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=socket", "-e"])
            .arg("inject=socket:error=EAFNOSUPPORT:when=1")
            .arg(serveloop(&[]).get_program())
            .args(["serve", "echo", "--workers", workers])
            .args(["--listen", &format!("{scheme}://:0")])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let served = Served::spawn(command);
        assert!(served.uri(0).starts_with(&format!("{scheme}://0.0.0.0:")));
        served.logged("IPv4 only");
        if scheme == "tcp" {
            let port = socket_addr(served.uri(0)).port();
            drop(exchange(([127, 0, 0, 1], port).into()));
        }
        end_traced(served);
    }
}

/// Ends the server that strace started. A signal for strace would leave the server behind.
#[track_caller]
fn end_traced(served: Served) {
    let strace = served.process_id();
    let children = format!("/proc/{strace}/task/{strace}/children");
    let children = fs::read_to_string(children).expect("a process");
    let server = children.trim().parse().ok().and_then(Pid::from_raw);
    kill_process(server.expect("a server"), Signal::TERM).expect("it runs");
    served.status_and_log();
}

/// The seconds until the keepalive timer of an established connection, if it has one. Waits until
/// everything that was sent is acknowledged, since that has another timer.
#[track_caller]
fn timer(local: u16, remote: u16) -> Option<u64> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match row(local, remote)
            .as_deref()
            .map(|timer| timer.split_once(':').expect("a timer"))
        {
            Some(("00", _)) => return None,
            Some(("02", left)) => {
                return Some(
                    u64::from_str_radix(left, 16)
                        .expect("a number")
                        .div_ceil(100),
                );
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

#[test]
fn clients_are_probed_in_every_model() {
    for model in MODELS {
        let uris = [
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:0?keepalive=200s",
            "tcp://127.0.0.1:0?keepalive=0",
        ];
        let listens = uris.map(|uri| ["--listen", uri]).concat();
        let arguments = [&["echo", "--keepalive", "5m"], &listens[..], model].concat();
        let served = Served::new(&arguments);
        for (uri, expected) in served.uris().iter().zip([300, 200, 0]) {
            let to = socket_addr(uri);
            let stream = exchange(to);
            let remote = stream.local_addr().unwrap().port();
            let left = timer(to.port(), remote).unwrap_or(0);
            let range = expected - expected.min(10)..=expected;
            assert!(range.contains(&left), "{model:?} {uri}: {left}");
        }
        end(served);
    }
}

#[test]
fn servers_are_probed_by_the_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let (uri, url) = (format!("tcp://{to}"), format!("http://{to}/"));
    for (arguments, expected) in [
        (&["connect", &uri][..], None),
        (&["connect", &uri, "--keepalive", "5m"], Some(300)),
        (&["fetch", &url], None),
        (&["fetch", &url, "--keepalive", "200s"], Some(200)),
    ] {
        let mut client = Running::new(arguments);
        let (stream, from) = listener.accept().unwrap();
        // A request says that the client knows that it is connected.
        let mut stdin = client.stdin();
        stdin.write_all(b"hello\n").unwrap();
        (&stream).read_exact(&mut [0; 4]).unwrap();
        let left = timer(from.port(), to.port());
        match expected {
            None => assert_eq!(left, None, "{arguments:?}"),
            Some(most) => assert!(
                left.is_some_and(|left| (most - 10..=most).contains(&left)),
                "{arguments:?}: {left:?}"
            ),
        }
        client.signal(Signal::INT);
        client.end();
    }
    for command in ["connect", "fetch"] {
        let arguments = [command, "http://127.0.0.1:9/", "--keepalive", "1day"];
        let outcome = Outcome::new(&arguments);
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains("at most 32767s"));
    }
}

/// Runs a command that makes a socket file, and gives the permissions and the group that the file
/// had when it was first seen.
#[track_caller]
fn first_seen(path: &Path, command: Command) -> (Served, (u32, u32)) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            loop {
                if let Ok(found) = fs::symlink_metadata(path) {
                    return (found.mode() & 0o777, found.gid());
                }
                assert!(!ended.load(Ordering::Relaxed), "it was never there");
            }
        });
        let served = Served::spawn(command);
        let seen = watch.join().expect("a file");
        ended.store(true, Ordering::Relaxed);
        (served, seen)
    })
}

fn serve(arguments: &[&str]) -> Command {
    let mut command = serveloop(&["serve", "echo"]);
    command.args(arguments);
    command
}

#[test]
fn the_file_of_a_socket_has_its_permissions_at_once_in_every_model() {
    let directory = Directory::new();
    let own = fs::metadata(directory.path("")).unwrap().gid();
    for model in MODELS {
        for scheme in ["unix", "unixgram"] {
            let uri = directory.uri(scheme, "socket");
            let query = format!("{uri}?mode=0660");
            for (arguments, mode) in [
                (&["--listen", &uri][..], 0o600),
                (&["--listen", &query], 0o660),
                (&["--listen", &uri, "--socket-mode", "0666"], 0o666),
                (&["--listen", &query, "--socket-mode", "0666"], 0o660),
            ] {
                let command = serve(&[arguments, model].concat());
                let (served, seen) = first_seen(&directory.path("socket"), command);
                assert_eq!(seen, (mode, own), "{arguments:?} {:o}", seen.0);
                assert_eq!(served.uris(), [uri.as_str()]);
                if scheme == "unix" {
                    let mut client = served.connect();
                    client.send("hello");
                    client.expect("hello");
                }
                end(served);
                assert!(!directory.path("socket").exists());
            }
        }
    }
}

/// Whether this process may give files to any group.
fn may_give() -> bool {
    let directory = Directory::new();
    let may = chown(directory.path(""), None, Some(OTHER)).is_ok();
    require_that(may, "the right to give files to another group")
}

#[test]
fn the_file_of_a_socket_has_its_group_at_once() {
    if !may_give() {
        return;
    }
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let (number, query) = (OTHER.to_string(), format!("{uri}?mode=0660&group={OTHER}"));
    for arguments in [
        &["--listen", &query][..],
        &[
            "--listen",
            &uri,
            "--socket-mode",
            "0660",
            "--socket-group",
            &number,
        ],
    ] {
        let (served, seen) = first_seen(&directory.path("socket"), serve(arguments));
        assert_eq!(seen, (0o660, OTHER));
        end(served);
    }
    let refused = [
        format!("{uri}?group=nobody-knows"),
        format!("{uri}?mode=0660&group=nobody-knows"),
    ];
    for uri in &refused {
        let outcome = Outcome::of(serve(&["--listen", uri]));
        assert_eq!(outcome.code, Some(1));
        let said = "there is no group \"nobody-knows\"";
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(!directory.path("socket").exists());
    }
}

/// A user without privileges can give files to groups that it is in, and to no others. Until the file
/// is the right group's, no group may use it.
#[test]
fn a_user_gives_a_file_to_its_own_groups_only() {
    if !may_give() || !require("setpriv") {
        return;
    }
    let directory = Directory::new();
    fs::set_permissions(directory.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let program = copied(&directory);
    let uri = directory.uri("unix", "socket");
    let command = |group: u32| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--groups=65534,33"])
            .arg(&program)
            .args(["serve", "echo", "--listen"])
            .arg(format!("{uri}?mode=0660&group={group}"))
            .env_remove("RUST_LOG")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
    };

    let path = directory.path("socket");
    let (served, (mode, group)) = first_seen(&path, command(33));
    assert!(group == 33 || mode & 0o070 == 0, "{mode:o} {group}");
    let found = fs::metadata(path_of(served.uri(0))).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, 33));
    end(served);

    let outcome = Outcome::of(command(34));
    assert_eq!(outcome.code, Some(1));
    let said = "cannot give the file to group 34: ";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    assert!(!path.exists());
}

/// The command where any user can run it.
fn copied(directory: &Directory) -> PathBuf {
    let path = directory.path("serveloop");
    copy_program(serveloop(&[]).get_program(), &path);
    path
}

#[test]
fn a_path_with_a_question_mark_is_written_with_an_escape() {
    let directory = Directory::new();
    let uri = format!("{}?mode=0640", directory.uri("unix", "what%3F"));
    let (served, seen) = first_seen(&directory.path("what?"), serve(&["--listen", &uri]));
    assert_eq!(seen.0, 0o640);
    assert_eq!(served.uris(), [directory.uri("unix", "what?")]);
    end(served);

    // Without a query, percent signs mean themselves, as ever.
    let uri = directory.uri("unix", "100%3F");
    let served = Served::new(&["echo", "--listen", &uri]);
    assert!(directory.path("100%3F").exists());
    end(served);
}

#[test]
fn a_name_outside_the_file_system_takes_options() {
    let uri = format!("unix:@serveloop-{}?backlog=5", std::process::id());
    let served = Served::new(&["echo", "--listen", &uri]);
    let name = format!("unix://@serveloop-{}", std::process::id());
    assert_eq!(served.uris(), [name.as_str()]);
    let mut client = Running::new(&["connect", &name]);
    client.stdin().write_all(b"hello\n").unwrap();
    assert_eq!(client.end().well(), "hello\n");
    end(served);
}

/// Two servers share a port if their listeners say so, with several loops too.
#[test]
fn a_port_can_be_shared_by_a_listeners_own_option() {
    let first = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0?reuse-port=true"]);
    let uri = format!("{}?reuse-port=true", first.uri(0));
    let second = Served::new(&["echo", "--workers", "2", "--listen", &uri]);
    assert_eq!(first.uri(0), second.uri(0));
    for arguments in [
        &["--listen", first.uri(0)][..],
        &["--workers", "2", "--listen", first.uri(0)],
    ] {
        let outcome = Outcome::of(serve(arguments));
        assert_eq!(outcome.code, Some(1), "{arguments:?}");
    }
    let mut client = Stream::connect(first.uri(0));
    client.send("hello");
    client.expect("hello");
    drop(client);
    end(second);
    end(first);
}
