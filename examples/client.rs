//! Outbound connections on one event loop: five hundred clients of an echo server on one thread.
//!
//! Start `cargo run --example echo` in one terminal, then run
//! `cargo run --example client -- tcp://127.0.0.1:9999` in another. It prints how many clients were
//! answered.

use std::cell::Cell;
use std::rc::Rc;

use serveloop::{Address, Config, Ended, Peer, Protocol, ProtocolError, Reactor, Transport};

const CLIENTS: usize = 500;
const GREETING: &[u8] = b"hello from a client";

struct Client {
    answered: Rc<Cell<usize>>,
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        transport.write(GREETING);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if data.len() < GREETING.len() {
            return Ok(0);
        }

        self.answered
            .set(self.answered.get() + usize::from(data == GREETING));
        transport.close();
        Ok(data.len())
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let reason = ended.reason();
        if reason.is_error() {
            eprintln!("{reason}");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());
    let address: Address = at.parse()?;

    let answered = Rc::new(Cell::new(0));
    // There are no inbound connections, so the factory never builds a protocol.
    let mut reactor = Reactor::new(|_: &Peer| None::<Client>, Config::default())?;
    for _ in 0..CLIENTS {
        reactor.connect(
            address.clone(),
            Client {
                answered: Rc::clone(&answered),
            },
        );
    }

    reactor.run()?;
    println!("{} of {CLIENTS} were answered", answered.get());
    Ok(())
}
