//! The store on a port. Run `cargo run --release -p serveloop-resp --example store`, then
//! `redis-cli -p 9999`.

use std::sync::Arc;
use std::time::Instant;

use serveloop::{Actions, Config, Factory, Peer, Server};
use serveloop_resp::Resp;
use serveloop_resp::store::{Connection, Settings, Store};

struct Shared(Arc<Store>);

impl Factory for Shared {
    type Protocol = Resp<Connection>;

    fn build_protocol(&mut self, _: &Peer) -> Option<Self::Protocol> {
        Some(Resp::new(self.0.connection()))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        self.0.handle_timeout(actions.now());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let at = std::env::args().nth(1);
    let at = at.unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());

    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);

    let shared = Shared(Store::new(Settings::default()));
    server.with(shared).serve_forever()?;
    Ok(())
}
