//! A file over datagrams, as TFTP does it: numbered blocks, each acknowledged before the next is sent, and
//! sent again if the acknowledgement does not come. Run `cargo run --example transfer -- serve FILE`, then
//! `cargo run --example transfer -- get udp://127.0.0.1:9999 > copy`.
//!
//! A datagram is the number of a block in four bytes, followed by the block if the server sends it. The client
//! asks for each next block by its number, beginning with 0. The last block is shorter than the others.

use serveloop::net::DeliveryError;
use serveloop::{
    Address, Config, Peer, Protocol, ProtocolError, Reactor, Result, Server, Transport,
};
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

const BLOCK: usize = 512;
const FIRST_TRY: Duration = Duration::from_millis(100);
const TRIES: u32 = 8;

/// The server's side keeps nothing but the file: the client asks again for what it does not get.
struct Sender(Rc<Vec<u8>>);

impl Protocol for Sender {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Ok(number) = data.try_into().map(u32::from_be_bytes) else {
            return Ok(data.len()); // Anybody can send anything.
        };
        // The number of a block that was sent shows that the address is the peer's.
        if number > 0 {
            transport.confirm_address();
        }
        let from = (number as usize).saturating_mul(BLOCK).min(self.0.len());
        let end = self.0.len().min(from.saturating_add(BLOCK));
        transport.write(data);
        transport.write(&self.0[from..end]);
        Ok(data.len())
    }
}

/// The client's side: what it has, and when it asks again.
struct Receiver {
    file: Vec<u8>,
    tries: u32,
    due: Option<Instant>,
}

impl Receiver {
    fn ask(&mut self, transport: &mut Transport<'_>) {
        let number = (self.file.len() / BLOCK) as u32;
        transport.write_datagram(&number.to_be_bytes());
        self.due = Some(transport.now() + FIRST_TRY * 2_u32.pow(self.tries));
    }
}

impl Protocol for Receiver {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.ask(transport);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Some((number, block)) = data.split_first_chunk() else {
            return Ok(data.len());
        };
        // A block that comes twice was asked for twice.
        if u32::from_be_bytes(*number) as usize != self.file.len() / BLOCK {
            return Ok(data.len());
        }
        self.file.extend_from_slice(block);
        self.tries = 0;
        if block.len() < BLOCK {
            std::io::stdout().write_all(&self.file)?;
            self.due = None;
            transport.close();
        } else {
            self.ask(transport);
        }
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.tries += 1;
        if self.tries == TRIES {
            return transport.abort();
        }
        self.ask(transport);
    }

    /// A server that is being restarted is there again soon, so this is no reason to give up.
    fn datagram_undelivered(&mut self, error: &DeliveryError, _: &mut Transport<'_>) {
        eprintln!("{error}");
    }

    fn connection_lost(&mut self, ended: &serveloop::Ended<'_>) {
        eprintln!("{} bytes: {}", self.file.len(), ended.reason());
    }
}

fn main() -> Result<(), ProtocolError> {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", file, ref at @ ..] => {
            let at = at.first().unwrap_or(&"udp://127.0.0.1:9999");
            let config = Config {
                sessions: true,
                ..Config::default()
            };
            let server = Server::bind(&[at.parse().map_err(ProtocolError::other)?], config)?;
            println!("listening on {}", server.addresses()[0]);
            let file = Rc::new(std::fs::read(file)?);
            server.serve_forever(move |_: &Peer| Some(Sender(Rc::clone(&file))))?;
        }
        ["get", from] => {
            let mut reactor = Reactor::new(|_: &Peer| None::<Receiver>, Config::default())?;
            let from: Address = from.parse().map_err(ProtocolError::other)?;
            reactor.connect(
                from,
                Receiver {
                    file: Vec::new(),
                    tries: 0,
                    due: None,
                },
            );
            reactor.run()?;
        }
        _ => return Err("transfer serve FILE [URI] | transfer get URI".into()),
    }
    Ok(())
}
