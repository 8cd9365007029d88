//! One protocol for datagrams and streams. Over UDP each datagram is a separate session, and
//! everything written in that session is one reply.
//!
//! Run `cargo run --example udp_echo`, then `nc -u 127.0.0.1 9999` and type.

use serveloop::{Config, Protocol, ProtocolError, Server, Transport};

struct Shout;

impl Protocol for Shout {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(&data.to_ascii_uppercase());
        Ok(data.len())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let port = std::env::args().nth(1).unwrap_or_else(|| "9999".to_owned());
    let addresses = [
        format!("udp://127.0.0.1:{port}").parse()?,
        format!("tcp://127.0.0.1:{port}").parse()?,
    ];

    let server = Server::bind(&addresses, Config::default())?;
    for address in server.addresses() {
        println!("listening on {address}");
    }

    server.serve_forever(|peer| {
        println!(
            "{} {peer}",
            if peer.is_datagram() {
                "datagram from"
            } else {
                "connection from"
            }
        );
        Some(Shout)
    })?;
    Ok(())
}
