//! A custom driver that moves bytes between a socket and a session. Run
//! `cargo run --example driver`, which serves one connection.
//!
//! This driver has no deadlines, so its clock does not advance. A driver with deadlines sets the
//! clock before each call, waits no longer than `Session::deadline`, and then calls
//! `Session::handle_timeout`.

use serveloop::driver::{Clock, Context, Mailbox, Session, Wake};
use serveloop::{Address, Config, Peer, protocols::Echo};
use std::io::{Read, Write};
use std::{net::TcpListener, time::Instant};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on tcp://{}", listener.local_addr()?);
    let (mut stream, address) = listener.accept()?;

    let (clock, config) = (&Clock::new(Instant::now()), &Config::default());
    let (driver, id) = (&Mailbox::new(Box::new(Nobody)), 0);
    let context = &Context {
        clock,
        config,
        driver,
        id,
    };
    let peer = Peer::new(Address::Tcp(address), Some(0));
    let mut session = Session::new(Echo, peer, clock.tick());
    session.handle_open(context);

    let mut room = [0; 4096];
    while !session.is_closing() || !session.output().is_empty() {
        if session.wants_input() {
            match stream.read(&mut room)? {
                0 => session.handle_eof(context),
                count => session.handle_data(&room[..count], context),
            }
        } else {
            session.handle_more(context);
        }
        stream.write_all(session.output())?;
        session.output_sent(session.output().len(), context);
    }
    println!("{:?}", session.handle_lost(context));
    Ok(())
}
