//! Handshakes of layers take long, so that only a few go on in one turn.

use std::cell::Cell;
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use serveloop::layer::{Layer, Received, Wire, layered};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Factory, Peer, Reactor, Result};

use crate::support::{client, expect, timeless};

const CLIENTS: usize = 11;

/// Opens at the peer's first byte, and passes on all that follow.
#[derive(Default)]
struct Knock(bool);

impl Layer for Knock {
    type Info = ();

    fn opened(&mut self) -> Option<()> {
        self.0.then_some(())
    }

    fn received<'a>(&mut self, data: &'a [u8], _: &mut Wire<'_>) -> Result<Received<'a>> {
        if !self.0 {
            self.0 = true;
            return Ok(Received::taken(1));
        }
        Ok(Received::taken(data.len()).with_plain(data))
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result {
        wire.write(plain);
        Ok(())
    }
}

/// Serves a crowd of clients inside a layer, which opens with their first unit.
fn crowd(config: Config) -> (Reactor<impl Factory>, Vec<TcpStream>, Rc<Cell<usize>>) {
    let opened = Rc::new(Cell::new(0));
    let count = Rc::clone(&opened);
    let factory = layered(
        |_: &Peer| Some(Knock::default()),
        move |_: &Peer, (): &()| {
            count.set(count.get() + 1);
            Some(Echo)
        },
    );

    let mut reactor = Reactor::new(factory, config).unwrap();
    let address = reactor.listen(&"tcp://127.0.0.1:0".parse::<Address>().unwrap());
    let address = address.unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(&address)).collect();
    while reactor.connections() < CLIENTS {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    (reactor, clients, opened)
}

fn config() -> Config {
    Config {
        handshakes_per_turn: 3,
        ..timeless()
    }
}

#[test]
fn a_turn_goes_on_with_a_few_handshakes_and_leaves_none_out() {
    let (mut reactor, mut clients, opened) = crowd(config());
    for stream in &mut clients {
        stream.write_all(b"!hello").unwrap();
    }

    let mut before = opened.get();
    let mut turns = 0;
    while opened.get() < CLIENTS {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(
            opened.get() - before <= 3,
            "{} at once",
            opened.get() - before
        );
        before = opened.get();
        turns += 1;
    }
    assert!(turns >= 4, "{turns} turns");

    reactor.turn(Some(Duration::ZERO)).unwrap();
    for stream in &mut clients {
        expect(stream, b"hello");
    }
}

#[test]
fn what_is_open_is_served_in_every_turn() {
    let (mut reactor, mut clients, opened) = crowd(config());
    for stream in &mut clients {
        stream.write_all(b"!x").unwrap();
    }
    while opened.get() < CLIENTS {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let read = reactor.statistics().bytes_read;
    for stream in &mut clients {
        stream.write_all(b"more").unwrap();
    }
    let all = read + 4 * CLIENTS as u64;
    let mut turns = 0;
    while reactor.statistics().bytes_read < all {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
    }
    assert!(turns <= 3, "{turns} turns");
}

/// What has arrived before a shutdown is served, whatever its handshakes cost.
#[test]
fn a_shutdown_does_not_wait_for_handshakes() {
    let (mut reactor, mut clients, opened) = crowd(config());
    for stream in &mut clients {
        stream.write_all(b"!hello").unwrap();
    }
    reactor.shutdown();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(opened.get(), CLIENTS);
    reactor.run().unwrap();
    assert_eq!(reactor.statistics().closed(), CLIENTS as u64);
    for stream in &mut clients {
        expect(stream, b"hello");
    }
}
