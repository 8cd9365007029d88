//! Clients that behave: each has one message under way, and notes how long its reply takes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::server::{PATIENCE, connect};
use crate::table::quantile;

/// Short, and a line for who wants lines.
const MESSAGE: &[u8; 8] = b"message\n";

pub(crate) struct Quiet {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
}

struct Client {
    stream: TcpStream,
    received: usize,
    since: Instant,
}

impl Quiet {
    pub(crate) fn connect(to: SocketAddr, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::new();
        for number in 0..count {
            let stream = connect(to)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(number), Interest::READABLE)?;
            clients.push(Client {
                stream,
                received: MESSAGE.len(),
                since: Instant::now(),
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1_024),
            clients,
        })
    }

    /// Exchanges messages for so long. How many microseconds each reply took.
    pub(crate) fn exchange(&mut self, duration: Duration) -> io::Result<Vec<f64>> {
        let begin = Instant::now();
        let mut times = Vec::new();
        for client in &mut self.clients {
            client.send()?;
        }
        let mut under_way = self.clients.len();
        while under_way > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE))?;
            if self.events.is_empty() {
                return Err(ErrorKind::TimedOut.into());
            }
            for event in &self.events {
                let client = &mut self.clients[event.token().0];
                let Some(took) = client.receive()? else {
                    continue;
                };
                times.push(took.as_secs_f64() * 1e6);
                if begin.elapsed() < duration {
                    client.send()?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(times)
    }

    /// The 99th of 100 replies, in microseconds.
    pub(crate) fn slow(&mut self, duration: Duration) -> io::Result<f64> {
        Ok(quantile(&self.exchange(duration)?, 0.99))
    }
}

impl Client {
    fn send(&mut self) -> io::Result<()> {
        self.received = 0;
        self.since = Instant::now();
        self.stream.write_all(MESSAGE)
    }

    /// How long the reply took, if it is all here.
    fn receive(&mut self) -> io::Result<Option<Duration>> {
        let mut room = [0; MESSAGE.len()];
        loop {
            match self.stream.read(&mut room[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            if self.received == MESSAGE.len() {
                return Ok(Some(self.since.elapsed()));
            }
        }
    }
}
