//! Listeners with limits of their own, in every model.

use std::cell::RefCell;
use std::io::Write;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serveloop::layer::prefaced;
use serveloop::layer::proxy::{Header, Proxy};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Listen, Peer, Reactor, Server};

use crate::support::model_protocols::probe;
use crate::support::model_server::{Model, ModelServer, connect, datagrams, finish, read_to};
use crate::support::{PATIENCE, Scratch, echoes, seconds, timeless};

/// The limits of a listener hold for its connections, and those of the server for the others.
#[test]
fn each_listener_has_its_own_deadline() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let unix = format!("{}?idle-timeout=0", scratch.uri("unix", "socket"));
        let at = ["tcp://127.0.0.1:0?idle-timeout=1ms&linger-timeout=0", &unix];
        let mut config = timeless();
        config.limits.idle_timeout = Some(seconds(60));

        let server = ModelServer::new(model, &at, config, |_: &Peer| Some(Echo));
        let mut hasty = connect(&server.addresses[0]);
        let began = Instant::now();
        read_to(&mut hasty);
        assert!(began.elapsed() < seconds(30), "{model:?}");

        let mut patient = connect(&server.addresses[1]);
        echoes(&mut patient, b"hello");
        finish(&patient);
        let statistics = server.end();
        assert_eq!(statistics.closed_timeout_idle, 1, "{model:?}");
    }
}

/// What a protocol sees are the limits of its listener, also for a datagram.
#[test]
fn a_protocol_sees_the_limits_of_its_listener() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let at = ["udp://127.0.0.1:0?max-frame=7", "udp://127.0.0.1:0"];
        let build = |_: &Peer| {
            Some(probe().data(|data, transport| {
                let most = transport.limits().max_frame.to_string();
                let length = most.len().min(data.len());
                transport.write(&most.as_bytes()[..length]);
                Ok(data.len())
            }))
        };
        let server = ModelServer::new(model, &at, timeless(), build);
        for (address, expected) in server.addresses.iter().zip(["7", "1048576"]) {
            let socket = datagrams(address, &scratch.path("client"));
            socket.send(b"how many?").unwrap();
            let mut reply = [0; 20];
            let count = std::io::Read::read(&mut &socket, &mut reply).unwrap();
            assert_eq!(&reply[..count], expected.as_bytes(), "{model:?}");
        }
        server.end();
    }
}

#[test]
fn a_contradiction_is_found_when_the_listener_is_bound() {
    let listen: Listen = "tcp://127.0.0.1:0?high-water=2MiB".parse().unwrap();
    let error = Server::bind_with(std::slice::from_ref(&listen), timeless()).unwrap_err();
    let expected = "tcp://127.0.0.1:0?high-water=2MiB: \
                    max_output must be at least high_water (2097152), not 1048576";
    assert_eq!(error.to_string(), expected);

    let mut reactor = Reactor::new(|_: &Peer| Some(Echo), timeless()).unwrap();
    let error = reactor.listen_with(&listen).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

/// Output beyond a listener's limit ends its connections.
#[test]
fn a_listener_limits_the_output_of_its_connections() {
    for model in Model::ALL {
        let at = ["tcp://127.0.0.1:0?high-water=10&low-water=1&max-output=20&max-reply=20"];
        let server = ModelServer::new(model, &at, timeless(), |_: &Peer| Some(Echo));
        let mut client = server.client();
        echoes(&mut client, b"twenty bytes at most");
        client.write_all(b"this is more than that").unwrap();
        server.await_error();
        assert_eq!(server.end().closed_overflow, 1, "{model:?}");
    }
}

/// Tells when its thread has ended, after all that the model does on it.
struct Farewell(Sender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

/// The server is busy with the second connection for so long that the first one's thread, which has asked
/// for its client, goes on, ends, and leaves its place to the second one's.
#[test]
fn an_answer_to_a_thread_that_has_ended_concerns_no_other() {
    let (sender, ended) = mpsc::channel();
    let (begun, is_busy) = mpsc::channel();
    let ended = Arc::new(Mutex::new(ended));
    let proxy = Proxy::required("127.0.0.0/8".parse().unwrap());
    let mut built = 0;
    let read_header = move |peer: &Peer| {
        built += 1;
        if built == 2 {
            begun.send(()).unwrap();
            let ended = ended.lock().unwrap();
            ended.recv_timeout(PATIENCE).unwrap();
        }
        proxy.reader(peer)
    };
    let factory = prefaced(read_header, move |_: &Peer, _: &Option<Header>| {
        let farewell = Farewell(sender.clone());
        FAREWELL.with_borrow_mut(|it| *it = Some(farewell));
        Some(Echo)
    });
    let config = Config {
        limit_loopback: true,
        ..timeless()
    };
    let server = ModelServer::of_factory(Model::Threading, &["tcp://127.0.0.1:0"], config, factory);

    let client: Address = "tcp://192.0.2.1:7".parse().unwrap();
    let mut header = Vec::new();
    let proxied = Header::proxied(client, server.addresses[0].clone());
    proxied.unwrap().encode_v2(&mut header);

    let mut first = server.client();
    let mut second = server.client();
    is_busy.recv_timeout(PATIENCE).unwrap();
    first.write_all(&header).unwrap();
    finish(&first);
    assert_eq!(read_to(&mut first).0, b"");

    second.write_all(&header).unwrap();
    echoes(&mut second, b"hello");
    drop(second);
    assert_eq!(server.end().accepted, 2);
}
