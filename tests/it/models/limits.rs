//! Listeners with limits of their own, in every model.

use std::io::Write;
use std::time::Instant;

use serveloop::protocols::Echo;
use serveloop::{Listen, Peer, Reactor, Server};

use crate::support::model_protocols::probe;
use crate::support::model_server::{Model, ModelServer, connect, datagrams, finish, read_to};
use crate::support::{Scratch, echoes, seconds, timeless};

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
