//! A server on a thread, and quinn's client.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quinn::{Connection, Endpoint};
use serveloop::net::UdpOptions;
use serveloop::{Actions, Config, Factory, Peer, Server, ShutdownHandle, Statistics};
use serveloop_quic_echo::{EchoServer, EchoSession};

use crate::support::{bytes, client};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until it is dropped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ShutdownHandle,
    thread: Option<JoinHandle<Statistics>>,
}

impl Serving {
    /// Serves with as many workers, each a loop.
    pub(crate) fn with(echo: EchoServer, config: Config, workers: usize) -> Self {
        let server = Server::bind(&["udp://127.0.0.1:0".parse().unwrap()], config).unwrap();
        let address = server.addresses()[0].socket_addr().unwrap();
        let handle = server.shutdown_handle();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let serving = server.with(Announced { echo, ready });
            match workers {
                1 => serving.serve_forever().unwrap(),
                _ => serving.serve_workers(workers).unwrap(),
            }
        });
        // Until all workers listen, a client's datagrams may come to one and then to another.
        is_ready.recv().unwrap();
        Self {
            address,
            handle,
            thread: Some(thread),
        }
    }

    /// Shuts down, and returns what the server counted.
    pub(crate) fn stop(self) -> Statistics {
        self.handle.shutdown();
        self.join()
    }

    /// Waits for the end of a server that was told to shut down.
    pub(crate) fn join(mut self) -> Statistics {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Says when it serves.
#[derive(Clone)]
struct Announced {
    echo: EchoServer,
    ready: Sender<()>,
}

impl Factory for Announced {
    type Protocol = EchoSession;

    fn build_protocol(&mut self, peer: &Peer) -> Option<EchoSession> {
        self.echo.build_protocol(peer)
    }

    fn started(&mut self, _: &mut Actions<'_, EchoSession>) {
        // The second worker may be late, when no client waits any more.
        let _ = self.ready.send(());
    }
}

/// Returns a configuration with sessions, in which peers on this machine are like all others.
pub(crate) fn config() -> Config {
    Config {
        sessions: true,
        limit_loopback: true,
        udp: UdpOptions {
            packet_info: cfg!(target_os = "linux"),
            gro: cfg!(target_os = "linux"),
            ..UdpOptions::default()
        },
        ..Config::default()
    }
}

/// Runs a client, and gives up after a minute.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, client)
            .await
            .expect("the client takes too long")
    })
}

/// Returns an endpoint of quinn for clients.
pub(crate) fn endpoint() -> Endpoint {
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(client());
    endpoint
}

/// Sends `count` bytes on a stream of their own, and checks the echo.
pub(crate) async fn echo(connection: &Connection, count: usize) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let sent = bytes(count);
    let expected = sent.clone();
    let sending = async move {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
    };
    let ((), received) = tokio::join!(sending, receive.read_to_end(count + 1));
    assert!(received.unwrap() == expected, "another echo");
}

/// Runs several clients at once.
pub(crate) async fn all(clients: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut clients: Vec<_> = clients.map(Box::pin).collect();
    poll_fn(|context| {
        clients.retain_mut(|client| client.as_mut().poll(context).is_pending());
        match clients.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
