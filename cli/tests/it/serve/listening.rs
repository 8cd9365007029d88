//! Where the command listens, what it says about it, and what it leaves behind.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::process::Signal;

use rustix::io::Errno;

use crate::support::outside::skip;
use crate::support::served::{Outcome, Served, number_of, serveloop};
use crate::support::sockets::{Directory, Stream, clogged, path_of, socket_addr};

/// Runs a server that cannot listen. Returns the one line that says why.
#[track_caller]
fn refused(uri: &str) -> String {
    let outcome = Outcome::new(&["serve", "echo", "--listen", uri]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.stdout, "");
    let line = outcome.stderr;
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("serveloop: "), "{line}");
    assert!(line.contains(uri), "{line}");
    line
}

#[test]
fn port_0_has_become_a_number() {
    let served = Served::new(&[
        "echo",
        "--listen",
        "tcp://127.0.0.1:0",
        "--listen",
        "udp://127.0.0.1:0",
    ]);
    assert!(served.uri(0).starts_with("tcp://127.0.0.1:"));
    assert!(served.uri(1).starts_with("udp://127.0.0.1:"));
    assert_ne!(socket_addr(served.uri(0)).port(), 0);
    assert_ne!(socket_addr(served.uri(1)).port(), 0);
}

#[test]
fn ipv6_is_written_with_brackets() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("IPv6");
    }
    let served = Served::new(&["echo", "--listen", "tcp://[::1]:0"]);
    assert!(served.uri(0).starts_with("tcp://[::1]:"));
    assert_ne!(socket_addr(served.uri(0)).port(), 0);
}

#[test]
fn unix_sockets_are_named_by_their_path() {
    let directory = Directory::new();
    let stream = directory.uri("unix", "stream");
    let datagram = directory.uri("unixgram", "datagram");
    let served = Served::new(&["echo", "--listen", &stream, "--listen", &datagram]);
    assert_eq!(served.uris(), [stream, datagram]);
}

#[test]
fn a_name_is_looked_up() {
    let served = Served::new(&["echo", "--listen", "tcp://localhost:0"]);
    assert!(socket_addr(served.uri(0)).ip().is_loopback());
    let mut client = served.connect();
    client.send("hello");
    client.expect("hello");
}

#[test]
fn a_busy_port_is_named() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = refused(&format!("tcp://{}", busy.local_addr().unwrap()));
    assert!(line.contains(&number_of(Errno::ADDRINUSE)), "{line}");
    let busy = UdpSocket::bind("127.0.0.1:0").unwrap();
    let line = refused(&format!("udp://{}", busy.local_addr().unwrap()));
    assert!(line.contains(&number_of(Errno::ADDRINUSE)), "{line}");
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    // Reserved for documentation (RFC 5737), so no machine has it.
    let line = refused("tcp://192.0.2.1:9999");
    assert!(line.contains(&number_of(Errno::ADDRNOTAVAIL)), "{line}");
}

#[test]
fn one_address_that_fails_stops_all() {
    let directory = Directory::new();
    let unix = directory.uri("unix", "socket");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp://{}", busy.local_addr().unwrap());
    let outcome = Outcome::new(&["serve", "echo", "--listen", &unix, "--listen", &taken]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.stdout, "");
    assert!(!path_of(&unix).exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "notes");
    fs::write(path_of(&uri), "precious").unwrap();
    let line = refused(&uri);
    assert!(line.contains("is not a socket"), "{line}");
    assert_eq!(fs::read_to_string(path_of(&uri)).unwrap(), "precious");
}

#[test]
fn a_socket_that_is_served_is_left_alone() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let served = Served::new(&["echo", "--listen", &uri]);
    let line = refused(&uri);
    assert!(line.contains("another server is listening there"), "{line}");
    let mut client = served.connect();
    client.send("still here");
    client.expect("still here");
}

#[test]
fn a_socket_left_behind_is_replaced() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    drop(UnixListener::bind(path_of(&uri)).unwrap());
    assert!(path_of(&uri).exists());
    let served = Served::new(&["echo", "--listen", &uri]);
    let mut client = served.connect();
    client.send("new");
    client.expect("new");
}

#[test]
fn a_socket_file_is_the_owners_alone_and_goes_with_the_server() {
    for scheme in ["unix", "unixgram"] {
        let directory = Directory::new();
        let uri = directory.uri(scheme, "socket");
        let served = Served::new(&["echo", "--listen", &uri]);
        let mode = fs::metadata(path_of(&uri)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{scheme}");
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{scheme}");
        assert!(!path_of(&uri).exists(), "{scheme}");
    }
}

#[test]
fn nobody_needs_to_hear_where_it_listens() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = serveloop(&["serve", "echo", "--listen", &uri]);
    command.stdout(Stdio::from(writer));
    let served = Served::spawn_unheard(command);
    served.logged("cannot write to standard output");
    let mut client = Stream::connect(&uri);
    client.send("all the same");
    client.expect("all the same");
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn whoever_starts_it_need_not_read_where_it_listens() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let (ours, theirs) = clogged();
    let mut command = serveloop(&["serve", "echo", "--listen", &uri]);
    command.stdout(theirs);
    let served = Served::spawn_unheard(command);
    served.logged("cannot write to standard output: operation would block");
    let mut client = Stream::connect(&uri);
    client.send("all the same");
    client.expect("all the same");
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    drop(ours);
}

#[test]
fn nobody_needs_to_read_why_it_cannot_listen() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp://{}", busy.local_addr().unwrap());
    for (model, code) in [("event-loop", 1), ("forking", 2)] {
        let (ours, theirs) = clogged();
        let mut command = serveloop(&["serve", "echo", "--listen", &taken, "--model", model]);
        command.args(["--workers", "2"]).stderr(theirs);
        let served = Served::spawn_unheard(command);
        assert_eq!(served.exit_code(), Some(code));
        drop(ours);
    }
}
