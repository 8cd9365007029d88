//! Sockets between a virtual machine and its host. Few machines that run tests have another machine to talk
//! to, so most of these tests play the sockets with those of TCP, in a library that the command loads first.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::restart::Site;
use crate::support::outside::require;
use crate::support::running::Running;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served, serveloop};
use crate::support::sockets::Directory;

/// The library that plays the sockets.
struct Played {
    directory: Directory,
}

impl Played {
    /// Builds it, if there is a compiler.
    fn new() -> Option<Self> {
        if !require("cc") {
            return None;
        }
        let played = Self {
            directory: Directory::new(),
        };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/vsock.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(played.library())
            .args([source, "-ldl"])
            .status();
        assert!(status.expect("a compiler").success());
        Some(played)
    }

    fn library(&self) -> PathBuf {
        self.directory.path("vsock.so")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = serveloop(arguments);
        command.env("LD_PRELOAD", self.library());
        command
    }

    #[track_caller]
    fn serve(&self, arguments: &[&str]) -> Served {
        Served::spawn(self.command(&[&["serve"], arguments].concat()))
    }

    /// Runs a client of the command on a machine with this context id.
    #[track_caller]
    fn client(&self, cid: &str, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command(arguments);
        command.env("VSOCK_CID", cid).stdin(Stdio::piped());
        let said = Running::spawn(command).finish(input);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

fn port_of(uri: &str) -> u16 {
    let port = uri.strip_prefix("vsock://*:").expect("all machines");
    port.parse().expect("a port")
}

/// Connects from the machine with this context id.
fn connect(uri: &str, cid: u8) -> TcpStream {
    let machine = |number| SocketAddr::from((Ipv4Addr::new(127, 77, 0, number), 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&machine(cid).into())
        .expect("a loopback address");
    let mut to = machine(255);
    to.set_port(port_of(uri));
    socket.connect(&to.into()).expect("a listener");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Whether the server answers, and does not end the connection.
fn echoes(stream: &mut TcpStream, text: &[u8]) -> bool {
    let mut heard = vec![0; text.len()];
    let sent = stream.write_all(text);
    sent.is_ok() && stream.read_exact(&mut heard).is_ok() && heard == text
}

const ANY: [&str; 2] = ["--listen", "vsock://:0"];

#[test]
fn every_model_serves_other_machines() {
    let Some(played) = Played::new() else { return };
    for model in MODELS {
        let served = played.serve(&[&["echo", "-v"], model, &ANY].concat());
        let uri = served.uri(0).to_owned();
        let mut stream = connect(&uri, 7);
        assert!(echoes(&mut stream, b"hello"), "{model:?}");
        let line = served.logged("accepted");
        assert!(line.contains("vsock://7:"), "{line}");
        drop(stream);
        let to = uri.replace('*', "2");
        assert_eq!(
            played.client("9", &["connect", &to], b"good day\n"),
            "good day\n"
        );
        served.signal(Signal::TERM);
        assert_eq!(served.expect_exit().code(), Some(0));
    }
}

#[test]
fn lists_and_limits_know_machines() {
    let Some(played) = Played::new() else { return };
    let admits = |options: &[&str], cid| {
        let served = played.serve(&[&["echo"], &ANY[..], options].concat());
        echoes(&mut connect(served.uri(0), cid), b"hello")
    };
    assert!(admits(&["--allow", "vsock"], 7));
    assert!(admits(&["--allow", "10.0.0.0/8,vsock:7"], 7));
    assert!(!admits(&["--allow", "10.0.0.0/8,vsock:7"], 8));
    assert!(!admits(&["--allow", "0.0.0.0/0,::/0,unix"], 7));
    assert!(!admits(&["--deny", "vsock:7"], 7));
    assert!(admits(&["--deny", "vsock:7"], 8));

    // A machine is a peer, and this one is none that is limited.
    for limit in [["--max-per-peer", "1"], ["--connects-per-second", "1"]] {
        let served = played.serve(&[&["echo"], &ANY[..], &limit].concat());
        let mut first = connect(served.uri(0), 7);
        assert!(echoes(&mut first, b"hello"));
        assert!(
            !echoes(&mut connect(served.uri(0), 7), b"hello"),
            "{limit:?}"
        );
        assert!(
            echoes(&mut connect(served.uri(0), 8), b"hello"),
            "{limit:?}"
        );
    }
}

#[test]
fn a_proxy_may_be_on_another_machine() {
    let Some(played) = Played::new() else { return };
    let listen = ["--listen", "vsock://:0?proxy=required&trust=vsock:7"];
    let served = played.serve(&[&["echo", "-v"], &listen[..]].concat());
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n";
    let mut stream = connect(served.uri(0), 7);
    stream
        .write_all(header.as_bytes())
        .expect("an open connection");
    assert!(echoes(&mut stream, b"hello"));
    served.logged("192.0.2.1:4711");
    let mut stranger = connect(served.uri(0), 8);
    let _ = stranger.write_all(header.as_bytes());
    assert!(!echoes(&mut stranger, b"hello"));
}

#[test]
fn the_listener_and_its_connections_go_along_at_a_restart() {
    let Some(played) = Played::new() else { return };
    let prepare = format!("export LD_PRELOAD='{}'", played.library().display());
    for workers in ["1", "2"] {
        let arguments = [&["echo", "--handover", "--workers", workers], &ANY[..]].concat();
        let mut site = Site::after(&prepare, &arguments);
        let uri = site.served.uri(0).to_owned();
        let mut early = connect(&uri, 7);
        assert!(echoes(&mut early, b"before"));
        site.restart();
        site.served
            .logged("1 open connection goes on in the new process");
        assert_eq!(site.old_ends().code(), Some(0));
        assert!(echoes(&mut early, b"after") && echoes(&mut connect(&uri, 8), b"new"));
        drop(early);
        site.end();
    }
}

#[test]
fn bench_measures_another_machine() {
    let Some(played) = Played::new() else { return };
    let served = played.serve(&[&["echo"], &ANY[..]].concat());
    let target = served.uri(0).replace('*', "2");
    let bench = [
        "bench",
        "--target",
        &target,
        "--connections",
        "3",
        "--rounds",
        "1",
    ];
    let figures = played.client("7", &[&bench[..], &["--duration", "300ms"]].concat(), b"");
    assert!(figures.contains(&target), "{figures}");
}

#[test]
fn a_kernel_without_them_is_told_in_a_sentence() {
    let Some(played) = Played::new() else { return };
    for arguments in [
        &["serve", "echo", "--listen", "vsock://:9"][..],
        &["connect", "vsock://2:9"],
    ] {
        let mut command = played.command(arguments);
        command.env("VSOCK_MISSING", "1");
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, Some(1));
        let said = &outcome.stderr;
        assert!(
            said.contains("no sockets between virtual machines"),
            "{said}"
        );
        assert!(said.contains("vsock://"), "{said}");
    }
}

/// With the real sockets, as far as this machine has them. A kernel cannot be installed, so what it lacks is
/// no failure.
#[test]
fn the_kernel_itself_serves_this_machine() {
    let mut served = Served::spawn_unheard(serveloop(&["serve", "echo", "--listen", "vsock://:0"]));
    let Some(line) = served.printed_if_any() else {
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(1));
        assert!(
            log.iter().any(|line| line.contains("vsock://*:0")),
            "{log:?}"
        );
        println!("left out: no vsock in this kernel");
        return;
    };
    let uri = line
        .strip_prefix("listening on ")
        .expect("where it listens");
    assert!(uri.starts_with("vsock://*:"), "{uri}");

    let here = uri.replace('*', "1");
    let client = Running::new(&["connect", "--timeout", "2s", &here]);
    let said = client.finish(b"hello\n");
    if said.code == Some(0) {
        assert_eq!(said.stdout, b"hello\n");
    } else {
        assert!(said.stderr.contains(&here), "{}", said.stderr);
        println!("left out: no vsock_loopback in this kernel");
    }
    served.signal(Signal::TERM);
    assert_eq!(served.wait_for_exit().code(), Some(0));
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for (arguments, said) in [
        (
            &["serve", "echo", "--listen", "vsock://9"][..],
            "expected CID:PORT",
        ),
        (
            &["serve", "echo", "--listen", "vsock://host:9"],
            "expected CID:PORT",
        ),
        (
            &["serve", "echo", "--listen", "vsock://3:9:9"],
            "expected CID:PORT",
        ),
        (
            &["serve", "echo", "--listen", "vsock://+3:9"],
            "expected CID:PORT",
        ),
        (
            &["serve", "echo", "--listen", "vsock://:4294967295"],
            "expected CID:PORT",
        ),
        (
            &["serve", "echo", "--listen", "vsock://:4294967296"],
            "expected CID:PORT",
        ),
        (
            &["serve", "echo", "--listen", "vsock://:9?keepalive=5s"],
            "keepalive is for tcp",
        ),
        (
            &["serve", "echo", "--listen", "vsock://:9?mode=0600"],
            "mode is for unix",
        ),
        (
            &["serve", "echo", "--listen", "vsock://:9?dual-stack=true"],
            "dual-stack is for",
        ),
        (
            &["serve", "echo", "--admin", "vsock://:9"],
            "no password protects it",
        ),
        (
            &[
                "serve",
                "command",
                "--allow",
                "ls",
                "--listen",
                "vsock://:9",
            ],
            "without authentication",
        ),
        (
            &["serve", "echo", "--allow", "vsock:x"],
            "expected a context id",
        ),
        (&["connect", "vsock://:9"], "say which machine"),
        (
            &["connect", "vsock://2:0"],
            "no server can listen on port 0",
        ),
    ] {
        let outcome = Outcome::new(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(said),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
}
