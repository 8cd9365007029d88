//! A TCP proxy, `proxy LISTEN TARGET [--send-proxy]`, to an address or a name. Bytes and ends of streams
//! pass in both directions, and a slow side slows the other down. A side that fails or never connects
//! resets the other, because half a stream must not look complete. With `--send-proxy`, a PROXY header
//! names the client to the target.
//!
//! With the echo example running, start
//! `cargo run --example proxy -- tcp://127.0.0.1:8888 tcp://localhost:9999`. Then `nc 127.0.0.1 8888`
//! talks to the echo server.

use serveloop::layer::proxy::Header;
use serveloop::net::Target;
use serveloop::protocols::Relay;
use serveloop::service::{Dialer, Dialing};
use serveloop::{Config, Peer, Server};
use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let [at, target] = [1, 2].map(|number| env::args().nth(number).expect("LISTEN and TARGET"));
    let target: Target = target.parse()?;
    let is_named = env::args().any(|it| it == "--send-proxy");
    let server = Server::bind(&[at.parse()?], Config::default())?;
    let own = server.addresses()[0].clone();
    println!("listening on {own}");

    let factory = Dialing::new(move |dialer: &Dialer<Relay>| {
        let (dialer, own, target) = (dialer.clone(), own.clone(), target.clone());
        move |peer: &Peer| {
            let (near, far) = Relay::pair();
            if is_named {
                let mut header = Vec::new();
                Header::proxied(peer.address().clone(), own.clone())
                    .ok()?
                    .encode_v2(&mut header);
                far.push(&header);
            }
            // If the client goes before the target has answered, the attempt ends with it.
            Some(near.keeping(dialer.connect(target.clone(), far)))
        }
    });
    server.with(factory).serve_forever()?;
    Ok(())
}
