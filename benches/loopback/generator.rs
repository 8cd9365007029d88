//! The load: connections that send their next message when the last one has come back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

const EVENTS: usize = 1_024;
const READ_BUFFER: usize = 256 * 1024;
/// How much of the pattern is written at a time, at least a message.
const WRITE_AT_ONCE: usize = 64 * 1024;
/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A closed loop over a fixed set of connections. Never blocks on any of them.
pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    lines: Vec<Line>,
    pattern: Pattern,
    buffer: Vec<u8>,
    /// Messages that may still be sent.
    budget: u64,
    /// How long replies took, in microseconds, while that is asked for.
    times: Option<Vec<f64>>,
    /// Never sleeps, so that the time for waking it is in no measurement.
    spins: bool,
}

/// The bytes that go around: every message is the same.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    size: usize,
}

/// What makes the bytes of a message one for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any bytes.
    Plain,
    /// The length of the rest is in the first four bytes.
    Length,
    /// A line feed is the last byte, and no other.
    Line,
}

struct Line {
    stream: TcpStream,
    owed: usize,
    sent: u64,
    received: u64,
    writable: bool,
    /// When the message under way was sent.
    since: Instant,
}

/// What was done in a stretch of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
}

impl Generator {
    /// Opens all connections.
    pub(crate) fn connect(
        to: SocketAddr,
        connections: usize,
        pattern: Pattern,
    ) -> io::Result<Self> {
        let streams = (0..connections)
            .map(|_| std::net::TcpStream::connect(to))
            .collect::<io::Result<Vec<_>>>()?;
        Self::over(streams, pattern)
    }

    /// Uses connections that are open.
    pub(crate) fn over(streams: Vec<std::net::TcpStream>, pattern: Pattern) -> io::Result<Self> {
        let poll = Poll::new()?;
        let lines = streams
            .into_iter()
            .enumerate()
            .map(|(number, stream)| {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry()
                    .register(&mut stream, Token(number), interest)?;
                Ok(Line::new(stream))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            lines,
            pattern,
            buffer: vec![0; READ_BUFFER],
            budget: 0,
            times: None,
            spins: false,
        })
    }

    /// From now on asks for replies again and again rather than to sleep.
    pub(crate) fn spin(&mut self) {
        self.spins = true;
    }

    /// From now on notes how long replies take: with one message under way per connection, as
    /// otherwise it is not known which message a reply belongs to.
    pub(crate) fn time_replies(&mut self) {
        let now = Instant::now();
        self.lines.iter_mut().for_each(|line| line.since = now);
        self.times = Some(Vec::new());
    }

    /// Stops noting, and gives what was noted, in microseconds.
    pub(crate) fn reply_times(&mut self) -> Vec<f64> {
        self.times.take().unwrap_or_default()
    }

    /// Sends the first `depth` messages on every connection, and checks what comes back.
    pub(crate) fn begin(&mut self, depth: usize) -> io::Result<()> {
        self.budget = u64::MAX;
        for line in &mut self.lines {
            line.owed = depth * self.pattern.size;
            line.since = Instant::now();
            line.write(&self.pattern)?;
        }
        Ok(())
    }

    /// As [`begin`](Self::begin), with one message on every connection and `messages` in all; waits
    /// for the last of them.
    pub(crate) fn run_messages(&mut self, messages: u64) -> io::Result<()> {
        self.begin(1)?;
        self.budget = messages.saturating_sub(self.lines.len() as u64);
        let mut missing = messages.max(self.lines.len() as u64);
        while missing > 0 {
            missing -= self.turn(true)?;
        }
        Ok(())
    }

    /// Goes on for `duration`. With `check`, what comes back is compared with what was sent.
    pub(crate) fn run(&mut self, duration: Duration, check: bool) -> io::Result<Done> {
        let start = Instant::now();
        let mut messages = 0;
        loop {
            messages += self.turn(check)?;
            let elapsed = start.elapsed();
            if elapsed >= duration {
                return Ok(Done { messages, elapsed });
            }
        }
    }

    /// Waits for replies and answers them. Returns how many messages came back.
    fn turn(&mut self, check: bool) -> io::Result<u64> {
        let wait = if self.spins { Duration::ZERO } else { PATIENCE };
        self.poll.poll(&mut self.events, Some(wait))?;
        if self.events.is_empty() && !self.spins {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                "the server has stopped answering",
            ));
        }
        let mut messages = 0;
        for event in &self.events {
            let line = &mut self.lines[event.token().0];
            line.writable |= event.is_writable();
            let came = line.read(&mut self.buffer, &self.pattern, check)?;
            messages += came;
            if let Some(times) = self.times.as_mut().filter(|_| came > 0) {
                let now = Instant::now();
                times.push((now - line.since).as_secs_f64() * 1e6);
                line.since = now;
            }
            let next = came.min(self.budget);
            self.budget -= next;
            line.owed += usize::try_from(next).unwrap_or(0) * self.pattern.size;
            line.write(&self.pattern)?;
        }
        Ok(messages)
    }
}

impl Pattern {
    /// Messages of so many bytes.
    pub(crate) fn new(size: usize, shape: Shape) -> Self {
        // A prime period, so that a message that is shifted does not look right.
        let bytes = (0..size).map(|place| u8::try_from(place % 251).unwrap_or(0));
        let mut message: Vec<u8> = bytes.collect();
        shape.apply(&mut message);
        let repeats = WRITE_AT_ONCE.div_ceil(size) + 1;
        Self {
            bytes: message.repeat(repeats),
            size,
        }
    }

    /// The stream from `position` on.
    fn from(&self, position: u64) -> &[u8] {
        let place = usize::try_from(position % self.size as u64).unwrap_or(0);
        &self.bytes[place..]
    }

    fn matches(&self, mut position: u64, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let expected = self.from(position);
            let count = expected.len().min(data.len());
            if expected[..count] != data[..count] {
                return false;
            }
            position += count as u64;
            data = &data[count..];
        }
        true
    }
}

impl Shape {
    fn apply(self, message: &mut [u8]) {
        match self {
            Self::Plain => {}
            Self::Length => {
                let length = u32::try_from(message.len()).unwrap_or(0).saturating_sub(4);
                if let Some(header) = message.first_chunk_mut() {
                    *header = length.to_be_bytes();
                }
            }
            Self::Line => {
                let feeds = message.iter_mut().filter(|byte| **byte == b'\n');
                feeds.for_each(|byte| *byte = b'-');
                if let Some(last) = message.last_mut() {
                    *last = b'\n';
                }
            }
        }
    }
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            owed: 0,
            sent: 0,
            received: 0,
            writable: true,
            since: Instant::now(),
        }
    }

    /// Reads what has come. Returns how many messages it completed.
    fn read(&mut self, buffer: &mut [u8], pattern: &Pattern, check: bool) -> io::Result<u64> {
        let before = self.received / pattern.size as u64;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    if check && !pattern.matches(self.received, &buffer[..count]) {
                        return Err(io::Error::other("the echo is not what was sent"));
                    }
                    self.received += count as u64;
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.received / pattern.size as u64 - before)
    }

    fn write(&mut self, pattern: &Pattern) -> io::Result<()> {
        while self.owed > 0 && self.writable {
            let data = pattern.from(self.sent);
            let data = &data[..data.len().min(self.owed)];
            match self.stream.write(data) {
                Ok(count) => {
                    self.sent += count as u64;
                    self.owed -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
