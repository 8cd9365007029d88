//! A driver of your own, for one session on a blocking `TcpStream`. Each step sends, reads or waits,
//! no longer than until the session's next deadline, and tells the session what came of it.
//!
//! Run `cargo run --example driver`, which serves one connection. `RUST_LOG=info` says why it ended.
//! The driver notices wakers when a read or write ends, and closes without waiting for the peer. A
//! socket that cannot be given a timeout has failed, which the read or write reports.

use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::{Address, Config, Peer, protocols::Echo};
use std::{io::ErrorKind::WouldBlock, io::Read, io::Write, thread, time::Duration, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on tcp://{}", listener.local_addr()?);
    let (mut stream, address) = listener.accept()?;

    let (mut clock, mut room) = (Clock::new(Instant::now()), [0; 4096]);
    let (config, driver) = (Config::default(), thread::current());
    let mailbox = Mailbox::new(Box::new(move || driver.unpark()));
    let peer = Peer::new(Address::Tcp(address), Some(0));
    let mut session = Session::new(Echo, peer, clock.tick());
    session.handle_open(&Context::new(&clock, &config, &mailbox, 0));

    while !session.is_closing() || !session.output().is_empty() {
        let context = &Context::new(&clock, &config, &mailbox, 0);
        let wait = session.deadline(context).map(|at| clock.until(at));
        let (mut read, mut written) = (Err(WouldBlock.into()), Ok(0));
        if session.has_more() {
            session.handle_more(context);
        } else if !session.output().is_empty() {
            let _ = stream.set_write_timeout(wait);
            written = stream.write(session.output());
        } else if session.wants_input() {
            let _ = stream.set_read_timeout(wait);
            read = stream.read(&mut room);
        } else {
            thread::park_timeout(wait.unwrap_or(Duration::MAX));
        }

        clock.set(Instant::now());
        let context = &Context::new(&clock, &config, &mailbox, 0);
        session.handle_written(written, context);
        session.handle_read(read.map(|count| &room[..count]), context);
        mailbox.take().for_each(|_| session.handle_woken(context));
        session.handle_timeout(context);
    }
    let context = &Context::new(&clock, &config, &mailbox, 0);
    log::info!("{address}: {:?}", session.handle_lost(context));
    Ok(())
}
