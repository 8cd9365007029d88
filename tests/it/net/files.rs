//! The files of Unix sockets, and what binding says when it fails.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serveloop::protocols::Echo;
use serveloop::{Config, Peer, Server};

use crate::support::{Scratch, Serving, client, echoes, unix_client};

fn bind(uri: &str) -> std::io::Result<Server> {
    Server::bind(&[uri.parse().unwrap()], Config::default())
}

const KINDS: [&str; 2] = ["unix", "unixgram"];

#[test]
fn a_socket_file_is_its_owners_and_goes_with_the_server() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    for kind in KINDS {
        let server = bind(&scratch.uri(kind, "socket")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kind}");
        drop(server);
        assert!(!path.exists(), "{kind}");
        let serving = Serving::at(
            &[&scratch.uri(kind, "socket")],
            Config::default(),
            |_: &Peer| Some(Echo),
        );
        assert!(path.exists());
        serving.end();
        assert!(!path.exists(), "{kind}");
    }
}

#[test]
fn what_a_dead_server_left_is_replaced() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    drop(UnixListener::bind(&path).unwrap());
    let uri = scratch.uri("unix", "socket");
    let serving = Serving::at(&[&uri], Config::default(), |_: &Peer| Some(Echo));
    echoes(&mut unix_client(&path), b"hello");
    assert_eq!(serving.end().accepted, 1);

    drop(UnixDatagram::bind(&path).unwrap());
    drop(bind(&scratch.uri("unixgram", "socket")).unwrap());
    assert!(!path.exists());
}

#[test]
fn a_live_server_keeps_its_socket() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let uri = scratch.uri("unix", "socket");
    let serving = Serving::at(&[&uri], Config::default(), |_: &Peer| Some(Echo));
    let error = bind(&uri).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(
        text.contains(&uri) && text.contains("another server"),
        "{text}"
    );
    let other_kind = bind(&scratch.uri("unixgram", "socket")).unwrap_err();
    assert_eq!(other_kind.kind(), ErrorKind::AddrInUse);
    echoes(&mut unix_client(&path), b"hello");
    serving.end();

    let _live = UnixDatagram::bind(&path).unwrap();
    let error = bind(&scratch.uri("unixgram", "socket")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(path.exists());
}

/// A server that listens, but has no room in its queue for the probe, is alive all the same.
#[test]
fn a_busy_server_keeps_its_socket_too() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = socket2::SockRef::from(&listener);
    socket.listen(0).unwrap();
    let _first = unix_client(&path);
    let error = bind(&scratch.uri("unix", "socket")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(path.exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("thing");
    for kind in KINDS {
        let uri = scratch.uri(kind, "thing");
        let refused = || {
            let error = bind(&uri).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        };
        fs::write(&path, "precious").unwrap();
        refused();
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        refused();
        fs::remove_dir(&path).unwrap();

        let target = scratch.path("target");
        drop(UnixListener::bind(&target).unwrap());
        symlink(&target, &path).unwrap();
        refused();
        assert!(path.is_symlink() && target.exists());
        fs::remove_file(&path).unwrap();
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn a_file_that_is_not_ours_any_more_stays() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let server = bind(&scratch.uri("unix", "socket")).unwrap();
    // Kept, so that the new file cannot get the old one's number.
    fs::rename(&path, scratch.path("moved")).unwrap();
    fs::write(&path, "someone else's").unwrap();
    drop(server);
    assert_eq!(fs::read(&path).unwrap(), b"someone else's");
}

#[test]
fn a_path_that_cannot_be_bound_is_named() {
    let scratch = Scratch::new();
    let nowhere = scratch.uri("unix", "no/such/directory");
    let error = bind(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&nowhere), "{error}");
    let long = format!("unix://{}", "x".repeat(108));
    assert!(bind(&long).unwrap_err().to_string().contains("xxx"));
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_stays_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp://{}", taken.local_addr().unwrap());
    let scratch = Scratch::new();
    let addresses = [scratch.uri("unix", "socket"), uri.clone()];
    let parsed = addresses.each_ref().map(|at| at.parse().unwrap());
    let error = Server::bind(&parsed, Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&uri), "{error}");
    assert!(!scratch.path("socket").exists());
}

#[test]
fn bound_but_not_active_refuses_until_it_is() {
    let at = ["tcp://127.0.0.1:0".parse().unwrap()];
    let server = Server::bind_only(&at, Config::default()).unwrap();
    let address = server.addresses()[0].clone();
    let refused = TcpStream::connect(address.socket_addr().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    server.activate().unwrap();
    server.activate().unwrap();
    let mut stream = client(&address);
    stream.write_all(b"queued").unwrap();
    let serving = Serving::with(server, |_: &Peer| Some(Echo));
    crate::support::expect(&mut stream, b"queued");
    drop(stream);
    serving.end();
}

#[test]
fn servers_can_share_a_port_if_both_say_so() {
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let at = ["tcp://127.0.0.1:0".parse().unwrap()];
    let first = Server::bind(&at, config.clone()).unwrap();
    let second = Server::bind(first.addresses(), config).unwrap();
    assert_eq!(first.addresses(), second.addresses());
    let third = Server::bind(first.addresses(), Config::default());
    assert_eq!(third.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[test]
fn no_address_and_no_sense_are_refused() {
    let none = Server::bind(&[], Config::default()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidInput);
    let config = Config {
        max_connections: 0,
        ..Config::default()
    };
    let at = ["tcp://127.0.0.1:0".parse().unwrap()];
    let senseless = Server::bind(&at, config).unwrap_err();
    assert!(senseless.to_string().starts_with("max_connections"));
}

/// However often it is checked, other users may not use the socket at any moment.
#[test]
fn a_socket_file_is_never_open_to_others() {
    let scratch = Scratch::new();
    let ended = AtomicBool::new(false);
    let path = scratch.path("socket");
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut sightings = 0;
            while !ended.load(Ordering::Relaxed) {
                if let Ok(found) = fs::symlink_metadata(&path) {
                    let mode = found.permissions().mode() & 0o777;
                    assert_eq!(mode & !0o600, 0, "{mode:o}");
                    sightings += 1;
                }
            }
            sightings
        });
        for start in 0..1_500 {
            drop(bind(&scratch.uri(KINDS[start % 2], "socket")).unwrap());
        }
        ended.store(true, Ordering::Relaxed);
        assert!(watch.join().unwrap() > 0, "it was seen");
    });
}

#[test]
fn a_server_whose_file_was_removed_serves_on() {
    let scratch = Scratch::new();
    let (path, uri) = (scratch.path("socket"), scratch.uri("unix", "socket"));
    let serving = Serving::at(&[&uri], Config::default(), |_: &Peer| Some(Echo));
    let mut stream = unix_client(&path);
    echoes(&mut stream, b"hello");
    fs::remove_file(&path).unwrap();
    echoes(&mut stream, b"hello");
    // The path is free, and whose file is there now is not the first server's to remove.
    let second = Serving::at(&[&uri], Config::default(), |_: &Peer| Some(Echo));
    drop(stream);
    serving.end();
    echoes(&mut unix_client(&path), b"hello");
    second.end();
    assert!(!path.exists());
}

#[test]
fn the_longest_path_is_served_and_the_next_one_refused() {
    const LONGEST: usize = 107;
    let scratch = Scratch::new();
    let room = LONGEST - scratch.path("").to_str().unwrap().len();
    for kind in KINDS {
        let name = "x".repeat(room);
        drop(bind(&scratch.uri(kind, &name)).unwrap());
        let uri = scratch.uri(kind, &format!("{name}x"));
        let error = bind(&uri).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&uri), "{error}");
    }
}
