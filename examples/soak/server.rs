//! The server under test: an echo on every transport, in one model. A connection to its last socket
//! shuts it down.

use serveloop::protocols::Echo;
use serveloop::{Address, Config, Factory, Limits, Peer, Protocol, Server, ShutdownHandle};
use std::path::Path;
use std::time::Duration;

/// Short deadlines, which clients that keep sending never meet.
fn config(model: &str) -> Config {
    Config {
        reuse_port: model == "workers",
        limits: Limits {
            first_message_timeout: Some(Duration::from_secs(5)),
            message_timeout: Some(Duration::from_secs(5)),
            idle_timeout: Some(Duration::from_secs(5)),
            write_timeout: Some(Duration::from_secs(5)),
            ..Limits::default()
        },
        ..Config::default()
    }
}

fn addresses(model: &str, directory: &Path) -> Vec<Address> {
    let port = if model == "workers" { free_port() } else { 0 };
    let path = |kind: &str| directory.join(format!("{model}.{kind}"));
    vec![
        Address::Tcp(([127, 0, 0, 1], port).into()),
        Address::Unix(path("stream")),
        Address::Udp(([127, 0, 0, 1], port).into()),
        Address::Unixgram(path("datagram")),
        Address::Unix(path("end")),
    ]
}

/// Returns a free port. Loops that share a port have to agree on one first.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("it is bound").port()
}

#[derive(Clone)]
struct Service {
    last: usize,
    handle: ShutdownHandle,
}

impl Factory for Service {
    type Protocol = Box<dyn Protocol + Send>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        if peer.listener() == Some(self.last) {
            self.handle.shutdown();
            return None;
        }
        Some(Box::new(Echo))
    }
}

pub(crate) fn serve(model: &str, directory: &str) {
    let addresses = addresses(model, Path::new(directory));
    let server = Server::bind(&addresses, config(model)).expect("its sockets");
    server.addresses().iter().for_each(|at| println!("{at}"));
    println!("ready");

    let last = addresses.len() - 1;
    let handle = server.shutdown_handle();
    let service = Service { last, handle };

    let statistics = match model {
        "event-loop" => server.with(service).serve_forever(),
        "workers" => server.with(service).serve_workers(2),
        "threading" => server.with(service).serve_threading(),
        "forking" => server.with(service).serve_forking(),
        _ => server.with(service).serve_sequential(),
    };

    let statistics = statistics.expect("a server that serves");
    let open = statistics.accepted - statistics.closed();
    println!("{} accepted, {open} of them open", statistics.accepted);
}
