//! The other load: connections that live for one message.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::generator::Done;

const EVENTS: usize = 1_024;
const PATIENCE: Duration = Duration::from_secs(20);
/// Closed connections keep their port for a minute; so many source addresses have ports for all.
const SOURCES: u8 = 200;

/// Opens, sends, receives, closes, and opens the next, on so many connections at a time.
pub(crate) struct Churn {
    poll: Poll,
    events: Events,
    to: SocketAddr,
    message: Vec<u8>,
    visits: Vec<Visit>,
    source: u8,
}

struct Visit {
    stream: TcpStream,
    sent: bool,
    received: usize,
}

impl Churn {
    pub(crate) fn connect(to: SocketAddr, connections: usize, size: usize) -> io::Result<Self> {
        let mut churn = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            to,
            message: vec![b'x'; size],
            visits: Vec::new(),
            source: 0,
        };
        for slot in 0..connections {
            let visit = churn.open(slot)?;
            churn.visits.push(visit);
        }
        Ok(churn)
    }

    /// Goes on for `duration`; a "message" is a whole connection here.
    pub(crate) fn run(&mut self, duration: Duration) -> io::Result<Done> {
        let start = Instant::now();
        let mut messages = 0;
        loop {
            messages += self.turn()?;
            let elapsed = start.elapsed();
            if elapsed >= duration {
                return Ok(Done { messages, elapsed });
            }
        }
    }

    fn turn(&mut self) -> io::Result<u64> {
        self.poll.poll(&mut self.events, Some(PATIENCE))?;
        if self.events.is_empty() {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                "the server has stopped answering",
            ));
        }
        let slots: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        let mut complete = 0;
        for slot in slots {
            if self.visits[slot].advance(&self.message)? {
                complete += 1;
                self.visits[slot] = self.open(slot)?;
            }
        }
        Ok(complete)
    }

    fn open(&mut self, slot: usize) -> io::Result<Visit> {
        self.source = self.source % SOURCES + 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, self.source), 0);
        socket.bind(&source.into())?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(slot), interest)?;
        Ok(Visit {
            stream,
            sent: false,
            received: 0,
        })
    }
}

impl Visit {
    /// Does what can be done. True when the whole message has come back.
    fn advance(&mut self, message: &[u8]) -> io::Result<bool> {
        if !self.sent {
            match self.stream.write(message) {
                Ok(count) if count == message.len() => self.sent = true,
                Ok(_) => return Err(io::Error::other("the message is too long for churn")),
                Err(error) if is_early(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 4_096];
        while self.received < message.len() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received += count,
                Err(error) if is_early(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
