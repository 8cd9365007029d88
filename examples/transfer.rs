//! A file over datagrams, as TFTP does it: numbered blocks, each acknowledged before the next is sent, and
//! sent again if the acknowledgement does not come. Run `cargo run --example transfer -- serve FILE`, then
//! `cargo run --example transfer -- get udp://127.0.0.1:9999 > copy`.
//!
//! A datagram is the number of a block in four bytes, followed by the block if the server sends it. The client
//! asks for each next block by its number, beginning with 0. The last block is shorter than the others.

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
        let rest = self.0.chunks(BLOCK).nth(number as usize);
        transport.write(data);
        transport.write(rest.unwrap_or_default());
        Ok(data.len())
    }
}

/// The client's side: what it has, and when it asks again.
#[derive(Default)]
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
        let (number, block) = data.split_at(data.len().min(4));
        // A block that comes twice was asked for twice.
        if number != ((self.file.len() / BLOCK) as u32).to_be_bytes() {
            return Ok(data.len());
        }
        self.file.extend_from_slice(block);
        self.tries = 0;
        if block.len() == BLOCK {
            self.ask(transport);
        } else {
            std::io::stdout().write_all(&self.file)?;
            transport.close();
        }
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    // It may also be told that no program is there (`datagram_undelivered`), which is no reason to give up: a
    // server that is restarted is there again soon.
    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.tries += 1;
        match self.tries {
            TRIES => transport.abort(),
            _ => self.ask(transport),
        }
    }
}

fn main() -> Result {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().collect();
    let address = |at: usize| -> Result<Address> {
        let uri = arguments.get(at).map_or("udp://127.0.0.1:9999", |it| it);
        uri.parse().map_err(ProtocolError::other)
    };
    let config = Config {
        sessions: true,
        ..Config::default()
    };

    if let (Some("serve"), Some(file)) = (arguments.get(1).map(|it| &**it), arguments.get(2)) {
        let server = Server::bind(&[address(3)?], config)?;
        println!("listening on {}", server.addresses()[0]);
        let file = Rc::new(std::fs::read(file)?);
        server.serve_forever(move |_: &Peer| Some(Sender(Rc::clone(&file))))?;
        return Ok(());
    }
    let mut reactor = Reactor::new(|_: &Peer| None::<Receiver>, config)?;
    reactor.connect(address(2)?, Receiver::default());
    Ok(reactor.run()?)
}
