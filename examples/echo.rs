//! The smallest server: sends back whatever it receives.
//!
//! Run `cargo run --example echo`, then `nc 127.0.0.1 9999` and type. To use another address, pass
//! it: `cargo run --example echo -- unix:///tmp/echo.sock`. With `RUST_LOG=serveloop=debug` in the
//! environment, it logs each connection.

use serveloop::{Config, Protocol, ProtocolError, Server, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(data);
        Ok(data.len())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(|_| Some(Echo))?;
    Ok(())
}
