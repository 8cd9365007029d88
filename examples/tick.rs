//! Work at intervals: every client is told the time since the server began, once a second. Run
//! `cargo run --example tick`, then `nc 127.0.0.1 9999`.

use serveloop::protocols::Discard;
use serveloop::service::{Group, Lagging};
use serveloop::{Actions, Config, Factory, Peer, Protocol, Result, Server, Transport};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Publishes to its clients when the time has come.
struct Clock {
    clients: Group,
    began: Option<Instant>,
    next: Option<Instant>,
}

/// A client that is told, and whose input is discarded.
struct Told(Group);

impl Factory for Clock {
    type Protocol = Told;

    fn build_protocol(&mut self, _: &Peer) -> Option<Told> {
        Some(Told(self.clients.clone()))
    }

    fn started(&mut self, actions: &mut Actions<'_, Told>) {
        self.began = Some(actions.now());
        self.next = Some(actions.now() + INTERVAL);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Told>) {
        self.next = self.next.map(|at| at + INTERVAL);
        let since = self.began.map(|began| actions.now() - began);
        let text = format!("{} s\n", since.unwrap_or_default().as_secs());
        self.clients.publish("clock", text.into_bytes());
    }
}

impl Protocol for Told {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.0.join("clock", &transport.outbox());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        Discard.data_received(data, transport)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args().nth(1);
    let at = at.as_deref().unwrap_or("tcp://127.0.0.1:9999");

    let mut config = Config::default();
    (
        config.limits.first_message_timeout,
        config.limits.idle_timeout,
    ) = (None, None);
    let server = Server::bind(&[at.parse()?], config)?;
    println!("listening on {}", server.addresses()[0]);

    let clients = Group::new(Lagging::DropOldest);
    let (began, next) = (None, None);
    server
        .with(Clock {
            clients,
            began,
            next,
        })
        .serve_forever()?;
    Ok(())
}
