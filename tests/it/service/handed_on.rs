//! A server's sockets go on in another server, as in another process, and no client is lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serveloop::net::{OpenSocket, OpenSockets};
use serveloop::protocols::Echo;
use serveloop::service::activation::Inherited;
use serveloop::{Actions, Config, Factory, Listen, Peer, Server, Statistics, Waker};

use crate::support::model_server::Model;
use crate::support::{PATIENCE, Scratch, client, echoes, patient, read_to_end, unix_client};

/// Retires each of its loops when that is woken, and accepts only clients of the listener 0 or 1.
#[derive(Clone, Default)]
struct Retiring(Arc<Mutex<Vec<Waker>>>);

impl Retiring {
    fn retire(&self) {
        self.0.lock().unwrap().iter().for_each(Waker::wake);
    }
}

impl Factory for Retiring {
    type Protocol = Echo;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Echo> {
        (peer.listener()? < 2).then_some(Echo)
    }

    fn started(&mut self, actions: &mut Actions<'_, Echo>) {
        self.0.lock().unwrap().push(actions.waker());
    }

    fn woken(&mut self, actions: &mut Actions<'_, Echo>) {
        actions.retire();
    }
}

fn shared() -> Config {
    Config {
        reuse_port: true,
        ..Config::default()
    }
}

fn bind(uris: &[&str], config: Config) -> Server {
    let listens: Vec<Listen> = uris.iter().map(|uri| uri.parse().unwrap()).collect();
    Server::bind_with(&listens, config).unwrap()
}

fn serve(model: Model, server: Server) -> (Retiring, JoinHandle<Statistics>) {
    let factory = Retiring::default();
    let copy = factory.clone();
    let serving = thread::spawn(move || model.serve(server, copy).unwrap());
    let loops = if model == Model::Workers { 2 } else { 1 };
    while factory.0.lock().unwrap().len() < loops {
        thread::yield_now();
    }
    (factory, serving)
}

/// Makes listeners of all sockets, as the process does that goes on with them.
fn go_on(sockets: Vec<OpenSocket>) -> Vec<Listen> {
    let mut listeners: Vec<Vec<OpenSocket>> = Vec::new();
    for socket in sockets {
        listeners.resize_with(listeners.len().max(socket.listener() + 1), Vec::new);
        listeners[socket.listener()].push(socket);
    }
    let listen = |sockets: Vec<OpenSocket>| {
        let file = sockets[0].file();
        let copies = sockets.into_iter().map(OwnedFd::from);
        Inherited::handed_on(copies, file)
            .unwrap()
            .listen()
            .unwrap()
    };
    listeners.into_iter().map(listen).collect()
}

/// The clients come while no loop serves, so they wait in the queues of all sockets of the former
/// loops, whatever the number of the new ones.
#[test]
fn any_number_of_workers_serves_the_sockets_of_any_other_number() {
    const CLIENTS: usize = 40;
    for old in 1..=3 {
        for new in 1..=4 {
            let server = bind(&["tcp://127.0.0.1:0", "udp://127.0.0.1:0"], shared());
            let addresses = server.addresses().to_vec();
            let open = server.open_sockets();
            let factory = Retiring::default();
            let copy = factory.clone();
            let serving = thread::spawn(move || server.with(copy).serve_workers(old).unwrap());
            echoes(&mut client(&addresses[0]), b"the old one");
            while factory.0.lock().unwrap().len() < old {
                thread::yield_now();
            }

            let sockets = open.list().unwrap();
            assert_eq!(sockets.len(), 2 * old, "{old} {new}");
            let listens = go_on(sockets);
            factory.retire();
            assert_eq!(serving.join().unwrap().accepted, 1);
            assert_eq!(open.list().unwrap().len(), 0);

            let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| client(&addresses[0])).collect();
            let datagrams: Vec<UdpSocket> = (0..CLIENTS)
                .map(|_| {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    socket.connect(addresses[1].socket_addr().unwrap()).unwrap();
                    socket.send(b"waits").unwrap();
                    socket
                })
                .collect();

            let server = Server::bind_with(&listens, shared()).unwrap();
            drop(listens);
            assert_eq!(server.addresses(), addresses);
            let handle = server.shutdown_handle();
            let (factory, open) = (Retiring::default(), server.open_sockets());
            let serving = thread::spawn(move || server.with(factory).serve_workers(new).unwrap());
            for mut client in clients {
                echoes(&mut client, b"the new one");
            }
            for socket in datagrams {
                let mut room = [0; 8];
                assert_eq!(socket.recv(&mut room).unwrap(), 5, "{old} {new}");
            }
            // They stay as many as they were, or become more: none may be closed.
            assert_eq!(open.list().unwrap().len(), 2 * old.max(new));
            handle.shutdown();
            let accepted = serving.join().unwrap().accepted;
            assert_eq!(accepted, CLIENTS as u64, "{old} {new}");
        }
    }
}

#[test]
fn a_retired_server_goes_on_with_what_is_open_and_ends_with_it() {
    for model in Model::CONCURRENT {
        let server = bind(&["tcp://127.0.0.1:0"], shared());
        let address = server.addresses()[0].clone();
        let open = server.open_sockets();
        let (factory, serving) = serve(model, server);
        let mut former = client(&address);
        echoes(&mut former, b"before");

        factory.retire();
        while !open.list().unwrap().is_empty() {
            thread::yield_now();
        }
        let refused = TcpStream::connect(address.socket_addr().unwrap());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            echoes(&mut former, b"after");
        }
        assert!(!serving.is_finished(), "{model:?}");
        drop(former);
        assert_eq!(serving.join().unwrap().accepted, 1, "{model:?}");
    }
}

/// The sockets are open elsewhere too, and a loop that is done with them must not be woken for each
/// client of the other process.
#[test]
fn a_retired_loop_sleeps() {
    let uris = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"];
    let server = bind(&uris, Config::default());
    let addresses = server.addresses().to_vec();
    let kept = server.open_sockets().list().unwrap();
    let factory = Retiring::default();
    let mut reactor = server.with(factory.clone()).into_reactor().unwrap();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    factory.retire();
    while reactor.addresses().count() > 0 {
        reactor.turn(Some(Duration::from_millis(1))).unwrap();
    }
    let _client = client(&addresses[0]);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other
        .send_to(b"x", addresses[1].socket_addr().unwrap())
        .unwrap();
    let begun = Instant::now();
    reactor.turn(Some(Duration::from_millis(200))).unwrap();
    assert!(begun.elapsed() > Duration::from_millis(150));
    drop(kept);
}

/// It accepts the next client only when the first one has gone, and retires before.
#[test]
fn a_sequential_server_retires_after_its_client() {
    let server = bind(&["tcp://127.0.0.1:0"], Config::default());
    let address = server.addresses()[0].clone();
    let (factory, serving) = serve(Model::Sequential, server);
    let mut former = client(&address);
    echoes(&mut former, b"before");
    factory.retire();
    echoes(&mut former, b"after");
    drop(former);
    serving.join().unwrap();
}

#[test]
fn a_shutdown_ends_what_a_retired_server_has_open() {
    let server = bind(&["tcp://127.0.0.1:0"], Config::default());
    let address = server.addresses()[0].clone();
    let handle = server.shutdown_handle();
    let (factory, serving) = serve(Model::EventLoop, server);
    let mut former = client(&address);
    echoes(&mut former, b"before");
    factory.retire();
    echoes(&mut former, b"after");
    handle.shutdown();
    assert_eq!(read_to_end(&mut former), b"");
    assert_eq!(serving.join().unwrap().closed_by_shutdown, 1);
}

#[test]
fn the_file_of_a_socket_belongs_to_one_of_two_servers() {
    for (leaves, owns) in [(true, true), (true, false), (false, false)] {
        let scratch = Scratch::new();
        let path = scratch.path("socket");
        let uri = scratch.uri("unix", "socket") + "?mode=0600";
        let old = bind(&[&uri], Config::default());
        let sockets = old.open_sockets().list().unwrap();
        if leaves {
            sockets.iter().for_each(OpenSocket::leave_file);
        }
        let listens = go_on(sockets);
        let new = Server::bind_with(&listens, Config::default()).unwrap();
        drop(old);
        assert_eq!(path.exists(), leaves);

        if owns {
            let sockets = new.open_sockets().list().unwrap();
            sockets.iter().for_each(OpenSocket::own_file);
        }
        let handle = new.shutdown_handle();
        let serving = thread::spawn(move || new.serve_forever(|_| Some(Echo)).unwrap());
        if leaves {
            echoes(&mut unix_client(&path), b"hello");
        }
        handle.shutdown();
        serving.join().unwrap();
        assert_eq!(path.exists(), leaves && !owns);
    }
}

/// Another server may have taken the path over in the meantime.
#[test]
fn a_file_of_another_socket_is_not_removed() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unix", "socket");
    let old = bind(&[&uri], Config::default());
    let new = Server::bind_with(
        &go_on(old.open_sockets().list().unwrap()),
        Config::default(),
    )
    .unwrap();
    let own: Vec<_> = new.open_sockets().list().unwrap();
    own.iter().for_each(OpenSocket::own_file);
    drop(old);
    let other = bind(&[&uri], Config::default());
    drop(new);
    assert!(scratch.path("socket").exists());
    drop(other);
    assert!(!scratch.path("socket").exists());
}

/// The options that take effect when a socket is bound are those that it was bound with.
#[test]
fn a_listener_may_have_the_options_that_its_socket_was_bound_with() {
    let text = "tcp://[::1]:0?dual-stack=false&reuse-port=true&idle-timeout=5s";
    let old = bind(&[text], Config::default());
    let copies = old.open_sockets().list().unwrap().into_iter();
    let inherited = Inherited::handed_on(copies.map(OwnedFd::from), None).unwrap();
    let options = text.parse::<Listen>().unwrap().options().clone();
    let listen = inherited.listen_with(options.clone()).unwrap();
    let new = Server::bind_with(&[listen], Config::default()).unwrap();
    assert_eq!(new.addresses(), old.addresses());

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = Inherited::new(other, "").listen_with(options).unwrap();
    assert!(Server::bind_with(&[passed], Config::default()).is_err());
}

#[test]
fn what_does_not_belong_together_is_refused() {
    assert!(Inherited::handed_on([], None).is_err());
    let bound = |to: &str| -> OwnedFd { TcpListener::bind(to).unwrap().into() };
    let pair = [bound("127.0.0.1:0"), bound("127.0.0.1:0")];
    let error = Inherited::handed_on(pair, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("is tcp://127.0.0.1:"), "{error}");
}

/// A copy that is given up does not close the socket, and one that is kept holds it open.
#[test]
fn copies_hold_a_socket_open() {
    let server = bind(&["tcp://127.0.0.1:0"], Config::default());
    let address: SocketAddr = server.addresses()[0].socket_addr().unwrap();
    let open: OpenSockets = server.open_sockets();
    drop(open.list().unwrap());
    let kept = open.list().unwrap();
    drop(server);
    let mut waits = patient(TcpStream::connect(address).unwrap());
    waits.write_all(b"x").unwrap();
    drop(kept);
    assert_ne!(waits.read(&mut [0; 1]).ok(), Some(1));
    assert!(TcpStream::connect(address).is_err());
}
