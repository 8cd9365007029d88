//! A TCP proxy, `proxy LISTEN TARGET [--send-proxy]`. Bytes and ends of streams pass in both
//! directions, and a slow side slows the other down. A side that fails or never connects resets the
//! other, because half a stream must not look complete. With `--send-proxy`, a PROXY header names the
//! client to the target.
//!
//! With the echo example running, start
//! `cargo run --example proxy -- tcp://127.0.0.1:8888 tcp://127.0.0.1:9999`. Then
//! `nc 127.0.0.1 8888` talks to the echo server.

use serveloop::layer::proxy::Header;
use serveloop::{Actions, Address, Config, Ended, Factory, Peer, Protocol};
use serveloop::{ProtocolError, Server, Transport, Waker};
use std::{cell::RefCell, env, rc::Rc};
type Outcome<T = ()> = Result<T, ProtocolError>;

#[derive(Default)]
struct Side {
    pipe: Vec<u8>, // output that the other side has put here
    ended: bool,
    broken: bool,
    waker: Option<Waker>,
}

struct End(Rc<RefCell<Side>>, Rc<RefCell<Side>>); // this side, the other side

struct Proxy {
    target: Address,
    named: Option<Address>, // ours, if a PROXY header names it and the client
    begun: Vec<End>,
}

impl Protocol for End {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Outcome {
        self.0.borrow_mut().waker = Some(transport.waker());
        self.data_received(&[], transport).map(drop)
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Outcome<usize> {
        self.1.borrow_mut().pipe.extend_from_slice(data);
        self.1.borrow().waker.iter().for_each(Waker::wake);
        self.woken(transport);
        Ok(data.len())
    }

    fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Outcome {
        self.1.borrow_mut().ended = true;
        self.data_received(&[], transport).map(drop)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.woken(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let (mut mine, other) = (self.0.borrow_mut(), self.1.borrow());
        let sent = transport.write_some(&mine.pipe);
        mine.pipe = mine.pipe.split_off(sent);
        let wakes = other.waker.iter().filter(|_| sent > 0);
        wakes.for_each(Waker::wake);

        match other.pipe.len() < transport.limits().high_water {
            true => transport.resume_reading(),
            false => transport.pause_reading(),
        }

        match mine.ended && mine.pipe.is_empty() {
            _ if other.broken => transport.abort(),
            true if other.ended => transport.close(),
            true => transport.finish(),
            false => {}
        }
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        let (mut mine, other) = (self.0.borrow_mut(), self.1.borrow());
        mine.broken = !(mine.ended && mine.pipe.is_empty() && other.ended);
        other.waker.iter().for_each(Waker::wake);
    }
}

impl Factory for Proxy {
    type Protocol = End;

    fn build_protocol(&mut self, peer: &Peer) -> Option<End> {
        let (inner, outer) = <(Rc<_>, Rc<RefCell<Side>>)>::default();
        if let Some(at) = self.named.clone() {
            let header = Header::proxied(peer.address().clone(), at).ok()?;
            header.encode_v2(&mut outer.borrow_mut().pipe);
        }
        self.begun.push(End(Rc::clone(&outer), Rc::clone(&inner)));
        Some(End(inner, outer))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, End>) {
        let begun = self.begun.drain(..);
        begun.for_each(|end| actions.connect(self.target.clone(), end));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let [at, target] = [1, 2].map(|number| env::args().nth(number).expect("LISTEN and TARGET"));
    let server = Server::bind(&[at.parse()?], Config::default())?;
    let own = server.addresses()[0].clone();
    println!("listening on {own}");

    let proxy = Proxy {
        target: target.parse()?,
        named: env::args().any(|it| it == "--send-proxy").then_some(own),
        begun: Vec::new(),
    };
    server.with(proxy).serve_forever()?;
    Ok(())
}
