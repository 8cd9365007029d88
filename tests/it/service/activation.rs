//! Sockets that were opened elsewhere: which are served, and by what.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::thread;

use serveloop::net::ListenOptions;
use serveloop::protocols::Echo;
use serveloop::service::activation::{self, Inherited, VARIABLES};
use serveloop::{Config, Limits, Listen, Peer, Reactor, Server};
use socket2::{Domain, Socket, Type};

use crate::support::again::{is_inside, itself, run};
use crate::support::model_server::{Model, datagrams};
use crate::support::outside::require;
use crate::support::{PATIENCE, Scratch, client, echoes, unix_client};

fn inherited(descriptor: impl Into<OwnedFd>) -> Inherited {
    Inherited::new(descriptor, "some")
}

fn tcp() -> Inherited {
    inherited(TcpListener::bind("127.0.0.1:0").unwrap())
}

#[test]
fn every_model_serves_a_passed_socket() {
    for model in Model::ALL {
        let passed = tcp();
        let address = passed.address().unwrap().clone();
        let server = Server::bind_with(&[passed.listen().unwrap()], Config::default()).unwrap();
        assert_eq!(server.addresses(), std::slice::from_ref(&address));
        drop(passed);

        let handle = server.shutdown_handle();
        let serving = thread::spawn(move || model.serve(server, |_: &Peer| Some(Echo)));
        for _ in 0..4 {
            echoes(&mut client(&address), b"hello");
        }
        handle.shutdown();
        assert_eq!(serving.join().unwrap().unwrap().accepted, 4, "{model:?}");

        let refused = TcpStream::connect(address.socket_addr().unwrap());
        assert!(refused.is_err(), "{model:?}: a socket is still open");
    }
}

#[test]
fn every_kind_of_socket_is_recognised() {
    let scratch = Scratch::new();
    let (stream, datagram) = (scratch.path("stream"), scratch.path("datagram"));
    let unix = inherited(UnixListener::bind(&stream).unwrap());
    let unixgram = inherited(UnixDatagram::bind(&datagram).unwrap());
    let udp = inherited(UdpSocket::bind("127.0.0.1:0").unwrap());
    let shown = |socket: &Inherited| socket.address().unwrap().to_string();
    assert_eq!(shown(&unix), scratch.uri("unix", "stream"));
    assert_eq!(shown(&unixgram), scratch.uri("unixgram", "datagram"));
    assert!(shown(&udp).starts_with("udp://127.0.0.1:"));

    let all = [&unix, &unixgram, &udp].map(|socket| socket.listen().unwrap());
    let server = Server::bind_with(&all, Config::default()).unwrap();
    let addresses = server.addresses().to_vec();
    let handle = server.shutdown_handle();
    let serving = thread::spawn(move || server.serve_forever(|_| Some(Echo)));

    echoes(&mut unix_client(&stream), b"hello");
    for address in &addresses[1..] {
        let mut socket = datagrams(address, &scratch.path("own"));
        echoes(&mut socket, b"hello");
    }
    handle.shutdown();
    serving.join().unwrap().unwrap();
    assert!(stream.exists(), "the file is not ours to remove");
}

#[test]
fn a_socket_that_does_not_listen_yet_is_made_to() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(
            &"127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        )
        .unwrap();
    let passed = inherited(socket);
    let server = Server::bind_with(&[passed.listen().unwrap()], Config::default()).unwrap();
    client(&server.addresses()[0]);
}

#[test]
fn what_cannot_be_served_is_described() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (one, _other) = UnixStream::pair().unwrap();
    let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (passed, expected) in [
        (inherited(stream), "a connection of tcp://127.0.0.1:"),
        (inherited(one), "not bound"),
        (inherited(unbound), "not bound"),
        (inherited(packets), "a Unix socket of sequenced packets"),
        (inherited(file), "not a socket"),
    ] {
        assert_eq!(passed.address(), None);
        let error = passed.listen().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!passed.is_used());
    }
}

#[test]
fn options_for_binding_are_refused_and_others_work() {
    let passed = tcp();
    let listen = |query: &str| {
        let (options, _) = ListenOptions::parse_query(query, &[]).unwrap();
        let listen = passed.listen_with(options).unwrap();
        Server::bind_with(&[listen], Config::default())
    };
    for query in ["reuse-port=true", "reuse-address=true", "dual-stack=false"] {
        let error = listen(query).unwrap_err();
        let name = query.split('=').next().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }

    let server = listen("keepalive=60s&backlog=5&max-line=100").unwrap();
    let limits: Vec<&Limits> = server.limits().collect();
    assert_eq!(limits[0].max_line, 100);
    for socket in server.sockets() {
        assert!(socket2::SockRef::from(&socket).keepalive().unwrap());
    }
}

#[test]
fn names_choose_and_unknown_ones_are_answered_with_those_that_exist() {
    let sockets = [
        Inherited::new(TcpListener::bind("127.0.0.1:0").unwrap(), "web"),
        Inherited::new(TcpListener::bind("127.0.0.1:0").unwrap(), "admin"),
        Inherited::new(TcpListener::bind("127.0.0.1:0").unwrap(), "web"),
    ];
    let count = |name: &str| Listen::inherited(&sockets, name).map(|listens| listens.len());
    let error = count("mail").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains("\"web\", \"admin\""), "{error}");
    assert!(activation::unused(&sockets).unwrap().contains("tcp://"));

    assert_eq!(count("web").unwrap(), 2);
    let left = activation::unused(&sockets).unwrap();
    assert_eq!(left, sockets[1].to_string());
    assert_eq!(count("").unwrap(), 3);
    assert_eq!(activation::unused(&sockets), None);

    // What cannot be served is left out, unless there is nothing else.
    let file = || Inherited::new(std::fs::File::open("/dev/null").unwrap(), "store");
    let mixed = [file(), tcp()];
    assert_eq!(Listen::inherited(&mixed, "").unwrap().len(), 1);
    assert_eq!(activation::unused(&mixed).unwrap(), mixed[0].to_string());
    let error = Listen::inherited(&[file()], "").unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");

    let none = Listen::inherited(&[], "").unwrap_err();
    assert!(none.to_string().contains("LISTEN_FDS"), "{none}");
}

#[test]
fn a_loop_on_its_own_says_who_serves_passed_sockets() {
    let passed = tcp();
    let mut reactor = Reactor::new(|_: &Peer| Some(Echo), Config::default()).unwrap();
    let error = reactor.listen_with(&passed.listen().unwrap()).unwrap_err();
    assert!(error.to_string().contains("Server"), "{error}");
}

/// Runs in a process that `systemd-socket-activate` has started, which has other threads too.
#[test]
fn sockets_come_from_the_environment() {
    const NAME: &str = "service::activation::sockets_come_from_the_environment";
    if is_inside() {
        let sockets = activation::take();
        assert_eq!(sockets.len(), 2);
        assert_eq!(sockets[0].name(), "web");
        assert_eq!(sockets[1].name(), "mail");
        assert_eq!(sockets[0].number(), 3);
        assert!(sockets[1].address().unwrap().to_string().contains("unix"));
        for number in [3, 4] {
            let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
            assert_ne!(flags & libc::O_CLOEXEC, 0);
        }
        assert!(activation::take().is_empty(), "they are taken once");
        return;
    }

    if !require("systemd-socket-activate") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);

    // It starts the program when the first client comes.
    let knocking = thread::spawn(move || {
        let end = std::time::Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() && std::time::Instant::now() < end {
            thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let program = itself();
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(address.to_string());
    command.arg("-l").arg(&path).arg("--fdname=web:mail");
    command.arg("-E").arg("SERVELOOP_TEST_AGAIN=1");
    command.arg(program.get_program());
    run(command, NAME);
    knocking.join().unwrap();
    assert_eq!(VARIABLES.len(), 4);
}
