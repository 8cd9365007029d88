//! An echo server whose protocol panics when it reads `!`. Built to unwind and, by the profile `abort`,
//! to abort, it shows what a panic costs: one connection, or the process.

use std::error::Error;

use serveloop::{Config, Peer, Protocol, ProtocolError, Server, Transport};

#[derive(Debug)]
struct Fragile;

impl Protocol for Fragile {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        assert!(!data.contains(&b'!'), "on purpose");
        transport.write(data);
        Ok(data.len())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    println!("{}", server.addresses()[0]);
    server.serve_forever(|_: &Peer| Some(Fragile))?;
    Ok(())
}
