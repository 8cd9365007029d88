//! A conversation in datagrams: each line is one, and each that comes is printed as a line.

use std::io::{self, BufReader, ErrorKind, IsTerminal, Write};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::process::umask;
use serveloop::Address;
use tempfile::TempPath;

use super::keyboard::{Keyboard, Typed, Unit};
use crate::escaped::for_terminal;
use crate::failure::Failure;
use crate::interrupt::Leftover;
use crate::patient::Patient;

/// The largest datagram that is sent or received, in bytes: more than UDP has, and Linux' usual for
/// Unix sockets.
const DATAGRAM_MOST: usize = 256 << 10;

/// How many datagrams may be unanswered before no more are sent: a socket's buffer holds more.
const UNANSWERED_MOST: usize = 16;

/// Sends each line that is typed to one of `addresses`, and prints what comes. At the end of the
/// input the replies that are missing are waited for, each for `patience`.
///
/// # Errors
/// No address can be talked to, a datagram has no reply, or standard output fails.
pub(crate) fn exchange(
    name: &str,
    addresses: &[Address],
    prompt: Option<String>,
    patience: Option<Duration>,
    leftover: &Leftover,
) -> Result<(), Failure> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    let (socket, _path) = open(addresses, leftover).map_err(named)?;
    let mut exchange = Exchange::start(socket, prompt, patience)?;
    match exchange.run() {
        // Who reads no more has what they wanted.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome.map_err(named)?),
    }
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

enum Event {
    Typed,
    Received(Vec<u8>),
    Failed(io::Error),
}

struct Exchange {
    socket: Arc<Socket>,
    keyboard: Keyboard,
    events: Receiver<Event>,
    patience: Option<Duration>,
    is_asked: bool,
    input_ended: bool,
    unanswered: usize,
    lost: usize,
    /// When a datagram was last sent or received: patience begins anew with each.
    since: Instant,
}

impl Exchange {
    fn start(
        socket: Socket,
        prompt: Option<String>,
        patience: Option<Duration>,
    ) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let (events, received) = mpsc::sync_channel(UNANSWERED_MOST);
        let (heard, typed) = (Arc::clone(&socket), events.clone());
        thread::Builder::new().spawn(move || heard.listen(&events))?;
        let prompt = prompt.filter(|_| io::stdin().is_terminal());
        let woken = move || drop(typed.send(Event::Typed));
        let input = BufReader::new(Patient::new(io::stdin())?);
        Ok(Self {
            socket,
            keyboard: Keyboard::start(input, Unit::Line(DATAGRAM_MOST), prompt, woken)?,
            events: received,
            patience,
            is_asked: false,
            input_ended: false,
            unanswered: 0,
            lost: 0,
            since: Instant::now(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.is_over() {
            self.ask();
            match self.next() {
                Some(Event::Typed) => self.send()?,
                Some(Event::Received(datagram)) => self.print(&datagram)?,
                Some(Event::Failed(error)) => return Err(error),
                None => self.lost += mem::take(&mut self.unanswered),
            }
        }
        match (self.lost, self.patience) {
            (1.., Some(patience)) => Err(io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "no reply within {} to {} datagrams",
                    humantime::format_duration(patience),
                    self.lost
                ),
            )),
            _ => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        self.input_ended && (self.unanswered == 0 || self.patience.is_none())
    }

    fn is_full(&self) -> bool {
        self.patience.is_some() && self.unanswered >= UNANSWERED_MOST
    }

    fn ask(&mut self) {
        if !self.is_asked && !self.input_ended && !self.is_full() {
            self.is_asked = true;
            self.keyboard.ask();
        }
    }

    /// What happens next; `None` when patience is at an end.
    fn next(&self) -> Option<Event> {
        let deadline = self
            .patience
            .and_then(|patience| self.since.checked_add(patience))
            .filter(|_| self.input_ended || self.is_full());
        let Some(deadline) = deadline else {
            return self.events.recv().ok();
        };
        let wait = deadline.saturating_duration_since(Instant::now());
        self.events.recv_timeout(wait).ok()
    }

    fn send(&mut self) -> io::Result<()> {
        self.is_asked = false;
        match self.keyboard.typed().transpose()? {
            Some(Typed::Piece(line)) => {
                self.socket.send(&line)?;
                self.unanswered += 1;
                self.since = Instant::now();
            }
            Some(Typed::End) | None => self.input_ended = true,
        }
        Ok(())
    }

    fn print(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.since = Instant::now();
        let mut out = Patient::new(io::stdout())?;
        let mut line = [datagram, b"\n"].concat();
        if out.is_terminal() {
            line = for_terminal(&line);
        }
        let outcome = out.write_all(&line);
        outcome.and_then(|()| out.flush()).map_err(|error| {
            let problem = format!("cannot write to standard output: {error}");
            io::Error::new(error.kind(), problem)
        })
    }
}

impl Socket {
    /// Passes on what comes, until nobody listens any more.
    fn listen(&self, events: &SyncSender<Event>) {
        let mut room = vec![0; DATAGRAM_MOST];
        loop {
            let event = match self.receive(&mut room) {
                Ok(count) => Event::Received(room[..count].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Event::Failed(error),
            };
            if events.send(event).is_err() {
                return;
            }
        }
    }

    fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(room),
            Self::Unix(socket) => socket.recv(room),
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.send(datagram),
            Self::Unix(socket) => socket.send(datagram),
        }
    }
}

/// A socket that talks to the first of `addresses` that can be talked to, and its file if it has one.
fn open(addresses: &[Address], leftover: &Leftover) -> io::Result<(Socket, Option<TempPath>)> {
    let mut outcome = Err(io::Error::new(ErrorKind::NotFound, "no address"));
    for address in addresses {
        outcome = match (address.socket_addr(), address.path()) {
            (Some(addr), _) => open_udp(addr).map(|socket| (Socket::Udp(socket), None)),
            (None, Some(path)) => open_unix(path, leftover),
            (None, None) => continue,
        };
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn open_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

/// Only what has a path gets an answer: one of our own, which nobody else may write to.
fn open_unix(to: &Path, leftover: &Leftover) -> io::Result<(Socket, Option<TempPath>)> {
    let (socket, path) = leftover.make(|| {
        let usual = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = tempfile::Builder::new()
            .prefix("serveloop-")
            .suffix(".sock")
            .make(|path| UnixDatagram::bind(path));
        umask(usual);
        let (socket, path) = bound?.into_parts();
        let at = path.to_path_buf();
        Ok(((socket, path), at))
    })?;
    socket.connect(to)?;
    Ok((Socket::Unix(socket), Some(path)))
}
