//! A loop on mio as it is usually written: registered once for both directions, read until nothing
//! is left, a read buffer and an output buffer for every connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// What it takes to be good at bulk, too.
const READ_BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1_024;
const LISTENER: Token = Token(usize::MAX - 1);

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    output: Vec<u8>,
}

pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut listener = mio::net::TcpListener::from_std(listener.try_clone()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut connections = Slab::new();
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else {
                continue;
            };
            if !connection.serve().unwrap_or(false) {
                connections.remove(event.token().0);
            }
        }
    }
}

fn accept_all(
    listener: &mio::net::TcpListener,
    poll: &Poll,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let entry = connections.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(entry.key()), interest)?;
        entry.insert(Connection {
            stream,
            buffer: vec![0; READ_BUFFER],
            output: Vec::new(),
        });
    }
}

impl Connection {
    /// Moves what can be moved. False at the end of the stream.
    fn serve(&mut self) -> io::Result<bool> {
        let mut open = true;
        while open {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => open = false,
                Ok(count) => self.output.extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }
}
