//! What a user's code can do wrong outside a protocol's methods, in every model.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serveloop::protocols::Echo;
use serveloop::{Actions, CloseReason, Config, Factory, Peer, ProtocolError, Server};

use crate::support::model_protocols::probe;
use crate::support::model_server::{Model, ModelServer, connect, read_to};
use crate::support::{echoes, panic_quietly, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

#[test]
fn a_panic_in_the_factory_refuses_that_peer_alone() {
    for model in Model::ALL {
        let asked = Arc::<AtomicUsize>::default();
        let factory = move |_: &Peer| {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                panic_quietly();
            }
            Some(Echo)
        };
        let server = ModelServer::new(model, &[TCP], timeless(), factory);
        assert_eq!(read_to(&mut server.client()).0, b"", "{model:?}");
        echoes(&mut server.client(), b"hello");
        let statistics = server.end();
        assert_eq!(statistics.refused_by_panic, 1, "{model:?}");
        assert_eq!(
            (statistics.accepted, statistics.panics),
            (1, 1),
            "{model:?}"
        );
    }
}

/// A factory that ends its server when a second peer has come, by whichever of its copies hears of it.
#[derive(Clone)]
struct Ending {
    peers: Arc<AtomicUsize>,
}

impl Factory for Ending {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
        self.peers.fetch_add(1, Ordering::SeqCst);
        Some(Echo)
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
        // Whichever sees it first; the others must not go on alone.
        if self
            .peers
            .compare_exchange(2, 3, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
        {
            actions.shutdown();
        }
    }
}

#[test]
fn a_factory_that_shuts_its_server_down_ends_all_of_it() {
    for model in [Model::EventLoop, Model::Workers, Model::Threading] {
        let peers = Arc::<AtomicUsize>::default();
        let at = TCP.parse().unwrap();
        let config = Config {
            reuse_port: true,
            ..timeless()
        };
        let server = Server::bind(&[at], config).unwrap();
        let address = server.addresses()[0].clone();
        let factory = Ending { peers };
        let serving = thread::spawn(move || model.serve(server, factory));
        let clients = [connect(&address), connect(&address)];
        for mut client in clients {
            assert_eq!(read_to(&mut client).0, b"", "{model:?}");
        }
        let statistics = serving.join().unwrap().unwrap();
        assert_eq!(statistics.accepted, 2, "{model:?}");
    }
}

/// An error of a user's that panics when it is described or dropped.
#[derive(Debug)]
struct Spoiled;

impl fmt::Display for Spoiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("so far")?;
        panic_quietly()
    }
}

impl Error for Spoiled {}

impl Drop for Spoiled {
    fn drop(&mut self) {
        panic_quietly();
    }
}

#[test]
fn an_error_that_panics_when_it_is_described_is_described_as_far_as_it_goes() {
    let reason = CloseReason::Protocol(ProtocolError::other(Spoiled));
    assert_eq!(reason.to_string(), "protocol error: so far");
    // Dropping it would panic here.
    std::mem::forget(reason);
}

#[test]
fn an_error_that_panics_when_it_is_dropped_ends_its_connection_alone() {
    for model in Model::ALL {
        let factory = |_: &Peer| {
            Some(probe().data(|data, transport| match data {
                b"spoiled" => Err(ProtocolError::other(Spoiled)),
                _ => {
                    transport.write(data);
                    Ok(data.len())
                }
            }))
        };
        let server = ModelServer::new(model, &[TCP], timeless(), factory);
        let mut unlucky = server.client();
        std::io::Write::write_all(&mut unlucky, b"spoiled").unwrap();
        assert_eq!(read_to(&mut unlucky).0, b"", "{model:?}");
        drop(unlucky);
        server.await_error();
        echoes(&mut server.client(), b"still here");
        let statistics = server.end();
        assert_eq!(statistics.accepted, 2, "{model:?}");
        assert!(statistics.panics >= 1, "{model:?}");
    }
}
