//! Peers that are gone when they are written to. The library raises no SIGPIPE, which would end a
//! process that does not ignore it, as programs in other languages do not.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serveloop::protocols::Echo;
use serveloop::{Config, Peer};
use signal_hook::consts::SIGPIPE;

use crate::support::again;
use crate::support::model_server::{Model, ModelServer};
use crate::support::{Scratch, echoes, unix_client};

/// Whether this is the process that counts its signals; if not, the test runs again in one.
#[track_caller]
fn watched(name: &str) -> Option<Arc<AtomicBool>> {
    if !again::is_inside() {
        again::run(again::itself(), name);
        return None;
    }
    let raised = Arc::<AtomicBool>::default();
    signal_hook::flag::register(SIGPIPE, Arc::clone(&raised)).unwrap();
    Some(raised)
}

#[test]
fn a_client_that_writes_and_closes_raises_no_signal() {
    const NAME: &str = "net::broken_pipes::a_client_that_writes_and_closes_raises_no_signal";
    let Some(raised) = watched(NAME) else {
        return;
    };
    let scratch = Scratch::new();
    for model in Model::ALL {
        let uri = scratch.uri("unix", "echo");
        let at = [&*uri, "tcp://127.0.0.1:0"];
        let server = ModelServer::new(model, &at, Config::default(), |_: &Peer| Some(Echo));
        for _ in 0..50 {
            unix_client(&scratch.path("echo"))
                .write_all(b"bye")
                .unwrap();
            crate::support::client(&server.addresses[1])
                .write_all(&[7; 9_000])
                .unwrap();
        }
        echoes(&mut unix_client(&scratch.path("echo")), b"hello");
        server.end();
        assert!(!raised.load(Ordering::SeqCst), "{model:?}");
    }
}
