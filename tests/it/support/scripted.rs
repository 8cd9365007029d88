//! A network that does what a test wrote down, at the test's own time.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serveloop::driver::Wake;
use serveloop::net::{Event, Net};
use serveloop::{Address, Config};

use crate::support::millis;

/// What one call brings.
pub(crate) enum Act {
    /// A datagram.
    Datagram(Vec<u8>),
    /// A datagram from another sender.
    From(Address, Vec<u8>),
    /// The system's number of an error.
    Fails(i32),
}

/// What the network is asked for; shared with the test.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    receives: HashMap<usize, VecDeque<Act>>,
    sent: Vec<(usize, Vec<u8>)>,
    closed: Vec<usize>,
    accept_errors: VecDeque<i32>,
    /// How often something was to be accepted or received.
    tries: usize,
    /// The error of all reads and writes.
    stream_error: Option<i32>,
    flood: bool,
    pieces: Option<VecDeque<Vec<u8>>>,
    takes: VecDeque<usize>,
    calls: Vec<&'static str>,
    token: usize,
    events: Vec<Event>,
    passed: Duration,
    polls: Vec<Option<Duration>>,
    /// From one event to the next.
    gaps: VecDeque<Duration>,
    stands_still: bool,
}

impl Script {
    /// What the datagram socket with this number brings next.
    pub(crate) fn then(&self, listener: usize, act: Act) {
        let mut lines = self.0.lock().unwrap();
        lines.receives.entry(listener).or_default().push_back(act);
    }

    /// The next accepts fail with these errors, one after the other.
    pub(crate) fn fail_accepts(&self, numbers: &[i32]) {
        self.0.lock().unwrap().accept_errors.extend(numbers);
    }

    /// How often something was to be accepted or received since the last call.
    pub(crate) fn tries(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().tries)
    }

    /// From now on reads and writes fail with this error.
    pub(crate) fn fail_streams(&self, number: i32) {
        self.0.lock().unwrap().stream_error = Some(number);
    }

    /// One connection comes: its peer sends without end and takes nothing.
    pub(crate) fn flood(&self) {
        self.0.lock().unwrap().flood = true;
    }

    /// One connection comes: its peer sends these pieces, and accepts these numbers of bytes, write by write.
    pub(crate) fn converse(&self, pieces: &[&[u8]], takes: &[usize]) {
        let mut lines = self.0.lock().unwrap();
        lines.flood = true;
        lines.pieces = Some(pieces.iter().map(|piece| piece.to_vec()).collect());
        lines.takes.extend(takes);
    }

    /// The next wait brings an event for that connection.
    pub(crate) fn announce(&self, readable: bool, writable: bool) {
        let mut lines = self.0.lock().unwrap();
        let event = Event {
            token: lines.token,
            readable,
            writable,
            ..Event::default()
        };
        lines.events.push(event);
    }

    /// The reads and writes of connections since the last call.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// So much time passes.
    pub(crate) fn pass(&self, time: Duration) {
        self.0.lock().unwrap().passed += time;
    }

    /// So long after the last event, or the beginning, there is news for the first socket.
    pub(crate) fn news_after(&self, gap: Duration) {
        self.0.lock().unwrap().gaps.push_back(gap);
    }

    /// From now on asking without waiting takes no time.
    pub(crate) fn stand_still(&self) {
        self.0.lock().unwrap().stands_still = true;
    }

    /// How long each poll since the last call was to wait.
    pub(crate) fn polls(&self) -> Vec<Option<Duration>> {
        std::mem::take(&mut self.0.lock().unwrap().polls)
    }

    /// The replies since the last call, and by which socket.
    pub(crate) fn sent(&self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }

    /// The datagram sockets that were closed.
    pub(crate) fn closed(&self) -> Vec<usize> {
        self.0.lock().unwrap().closed.clone()
    }
}

/// Every wait takes its whole time, at once, but for one that news ends; one without a time a
/// millisecond. Each brings the events that were announced.
pub(crate) struct Scripted {
    script: Script,
    now: Instant,
    last_news: Instant,
}

impl Scripted {
    pub(crate) fn new(script: &Script) -> Self {
        let now = Instant::now();
        Self {
            script: script.clone(),
            now,
            last_news: now,
        }
    }
}

/// The first socket can be read.
const NEWS: Event = Event {
    token: 0,
    readable: true,
    writable: false,
    closed: false,
    error: false,
};

impl Net for Scripted {
    type Stream = ();
    type Listener = ();
    type Datagram = usize;

    fn now(&mut self) -> Instant {
        self.now + self.script.0.lock().unwrap().passed
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let mut lines = self.script.0.lock().unwrap();
        lines.polls.push(timeout);
        events.append(&mut lines.events);
        let least = millis(u64::from(!lines.stands_still));
        let end = timeout.map(|wait| self.now + wait.max(least));
        let news = lines.gaps.front().map(|gap| self.last_news + *gap);
        match news.filter(|at| end.is_none_or(|end| *at <= end)) {
            Some(at) => {
                lines.gaps.pop_front();
                self.last_news = at;
                self.now = at.max(self.now);
                events.push(NEWS);
            }
            None => self.now = end.expect("a wait without end would be one"),
        }
        Ok(())
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(|| ()))
    }

    fn listen(&mut self, at: &Address, _: &Config, _: usize) -> io::Result<((), Address)> {
        Ok(((), at.clone()))
    }

    fn accept(&mut self, (): &mut ()) -> io::Result<((), Address)> {
        let mut lines = self.script.0.lock().unwrap();
        lines.tries += 1;
        if let Some(number) = lines.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(number));
        }
        if std::mem::take(&mut lines.flood) {
            return Ok(((), "tcp://127.0.0.1:1".parse().unwrap()));
        }
        Err(ErrorKind::WouldBlock.into())
    }

    fn register(&mut self, (): &mut (), token: usize) -> io::Result<()> {
        self.script.0.lock().unwrap().token = token;
        Ok(())
    }

    fn read(&mut self, (): &mut (), buffer: &mut [u8]) -> io::Result<usize> {
        let mut lines = self.script.0.lock().unwrap();
        lines.calls.push("read");
        if let Some(number) = lines.stream_error {
            return Err(io::Error::from_raw_os_error(number));
        }
        let Some(pieces) = &mut lines.pieces else {
            return Ok(buffer.len());
        };
        let piece = pieces.pop_front().ok_or(ErrorKind::WouldBlock)?;
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }

    fn write(&mut self, (): &mut (), _: &[u8]) -> io::Result<usize> {
        let mut lines = self.script.0.lock().unwrap();
        lines.calls.push("write");
        if let Some(number) = lines.stream_error {
            return Err(io::Error::from_raw_os_error(number));
        }
        Ok(lines.takes.pop_front().ok_or(ErrorKind::WouldBlock)?)
    }

    fn bind(&mut self, at: &Address, _: &Config, token: usize) -> io::Result<(usize, Address)> {
        Ok((token, at.clone()))
    }

    fn receive(&mut self, socket: &mut usize, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let mut lines = self.script.0.lock().unwrap();
        lines.tries += 1;
        let waiting = lines.receives.entry(*socket).or_default();
        let (from, bytes) = match waiting.pop_front().ok_or(ErrorKind::WouldBlock)? {
            Act::Datagram(bytes) => ("udp://127.0.0.1:5000".parse().unwrap(), bytes),
            Act::From(from, bytes) => (from, bytes),
            Act::Fails(number) => return Err(io::Error::from_raw_os_error(number)),
        };
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok((count, from))
    }

    fn send(&mut self, socket: &mut usize, data: &[u8], _: &Address) -> io::Result<()> {
        let mut lines = self.script.0.lock().unwrap();
        lines.sent.push((*socket, data.to_vec()));
        Ok(())
    }

    fn close_datagram(&mut self, socket: usize) {
        self.script.0.lock().unwrap().closed.push(socket);
    }
}
