//! A conversation in datagrams: each line is sent as a datagram, and each datagram that comes is
//! printed as a line.

mod socket;

use std::io::{self, BufReader, ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};
use std::{mem, slice};

use rustix::io::Errno;
use serveloop::Address;
use serveloop::protocols::counted;
use tempfile::TempPath;

use crate::connect::DATAGRAM_PATIENCE;
use crate::connect::datagrams::socket::Socket;
use crate::connect::keyboard::{Keyboard, Typed, Unit};
use crate::escaped::for_terminal;
use crate::failure::Failure;
use crate::interrupt::Leftover;
use crate::outbound::advice;
use crate::patient::Patient;
use crate::threads;

/// The largest datagram that is sent or received, in bytes. It exceeds the limit of UDP and Linux's
/// default for Unix sockets.
const DATAGRAM_MOST: usize = 256 << 10;

/// The most payload bytes of a UDP datagram over IPv4 and IPv6.
const UDP_MOST: [usize; 2] = [65_507, 65_527];

/// How many datagrams may be unanswered before no more are sent. The buffer of a socket holds more.
const UNANSWERED_MOST: usize = 16;

/// How long to wait before a datagram is sent again for which there was no room.
const SEND_AGAIN: Duration = Duration::from_millis(10);

/// How to talk.
pub(crate) struct Manner {
    /// What to ask for each line with, at a terminal.
    pub(crate) prompt: Option<String>,
    /// How long to wait for each missing reply. `None` waits for none.
    pub(crate) patience: Option<Duration>,
    /// Whether to print what comes after the end of the input too, until nothing came for this time, or
    /// without end.
    pub(crate) stays: Option<Option<Duration>>,
}

/// Sends each line that is typed to one of `addresses`, and prints what comes. At the end of the
/// input, waits for missing replies, and for whatever may come if it is to stay. If there is no peer at
/// an address, the next one is tried, as long as nothing has been received.
///
/// # Errors
/// Fails if no address works, a datagram gets no reply or cannot be sent, or standard output fails.
pub(crate) fn exchange(
    name: &str,
    addresses: &[Address],
    manner: Manner,
    leftover: &Leftover,
) -> Result<(), Failure> {
    let named = |error: io::Error| {
        let problem = format!("{name}: {error}{}", advice(&error));
        io::Error::new(error.kind(), problem)
    };

    let mut places = Places::new(addresses, leftover);
    let socket = places.next(None).map_err(named)?;
    let mut exchange = Exchange::start(socket, places, manner).map_err(named)?;
    match exchange.run() {
        // The reader closed standard output because it has what it wanted.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome.map_err(named)?),
    }
}

/// The addresses that have not been tried, and the errors of the others.
struct Places<'a> {
    addresses: slice::Iter<'a, Address>,
    leftover: &'a Leftover,
    current: Option<&'a Address>,
    /// The file that receives the replies of the current address. The listening thread keeps the
    /// socket itself open to the end.
    path: Option<TempPath>,
    problems: Vec<(&'a Address, io::Error)>,
}

impl<'a> Places<'a> {
    fn new(addresses: &'a [Address], leftover: &'a Leftover) -> Self {
        Self {
            addresses: addresses.iter(),
            leftover,
            current: None,
            path: None,
            problems: Vec::new(),
        }
    }

    /// Returns the longest datagram that one of the addresses may take, in bytes.
    fn longest(&self) -> usize {
        let all = self.current.into_iter().chain(self.addresses.clone());
        let most = |address: &Address| match address.socket_addr() {
            Some(addr) => UDP_MOST[usize::from(addr.is_ipv6())],
            None => DATAGRAM_MOST,
        };
        all.map(most).max().unwrap_or(DATAGRAM_MOST)
    }

    /// Opens a socket to the next address that works. `problem` is the error of the previous one.
    ///
    /// # Errors
    /// Fails if none is left. If there were several, the error names each with its reason.
    fn next(&mut self, problem: Option<io::Error>) -> io::Result<Socket> {
        self.problems.extend(self.current.take().zip(problem));
        for address in self.addresses.by_ref() {
            match Socket::open(address, self.leftover) {
                Ok((socket, path)) => {
                    self.current = Some(address);
                    self.path = path;
                    return Ok(socket);
                }
                Err(error) => self.problems.push((address, error)),
            }
        }

        if let [_, _, ..] = &*self.problems {
            let all: Vec<_> = self
                .problems
                .iter()
                .map(|(at, it)| format!("{at}: {it}"))
                .collect();
            return Err(io::Error::new(self.problems[0].1.kind(), all.join("; ")));
        }

        let only = self.problems.pop().map(|(_, error)| error);
        Err(only.unwrap_or_else(|| {
            io::Error::new(ErrorKind::NotFound, "there is no address to send to")
        }))
    }
}

enum Event {
    Typed,
    /// The number of the socket, and the datagram.
    Received(usize, Vec<u8>),
    Failed(usize, io::Error),
}

struct Exchange<'a> {
    socket: Arc<Socket>,
    /// The number of the socket.
    number: usize,
    places: Places<'a>,
    keyboard: Keyboard,
    sender: SyncSender<Event>,
    events: Receiver<Event>,
    patience: Option<Duration>,
    stays: Option<Option<Duration>>,
    is_asked: bool,
    input_ended: bool,
    /// The datagrams to be sent, and since when there has been no room for the first.
    unsent: Vec<Vec<u8>>,
    is_blocked: Option<Instant>,
    /// What was sent before anything was received, to be sent again to the next address.
    unheard: Option<Vec<Vec<u8>>>,
    unanswered: usize,
    lost: usize,
    /// When a datagram was last sent or received. Each one restarts the patience.
    since: Instant,
}

impl<'a> Exchange<'a> {
    fn start(socket: Socket, places: Places<'a>, manner: Manner) -> io::Result<Self> {
        let (sender, events) = mpsc::sync_channel(UNANSWERED_MOST);
        let prompt = manner.prompt.filter(|_| io::stdin().is_terminal());

        let typed = sender.clone();
        let woken = move || drop(typed.send(Event::Typed));
        let input = BufReader::new(Patient::new(io::stdin())?);
        let unit = Unit::Line(places.longest());

        let exchange = Self {
            socket: Arc::new(socket),
            number: 0,
            places,
            keyboard: Keyboard::start(input, unit, prompt, woken)?,
            sender,
            events,
            patience: manner.patience,
            stays: manner.stays,
            is_asked: false,
            input_ended: false,
            unsent: Vec::new(),
            is_blocked: None,
            unheard: Some(Vec::new()),
            unanswered: 0,
            lost: 0,
            since: Instant::now(),
        };
        exchange.listen()?;
        Ok(exchange)
    }

    /// Starts a thread that passes on the datagrams of the socket as events.
    fn listen(&self) -> io::Result<()> {
        let (heard, number) = (Arc::clone(&self.socket), self.number);
        let sender = self.sender.clone();
        let listen = move || listen(&heard, number, &sender);
        threads::spawn("datagrams", listen).map(drop)
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.is_over() {
            self.ask();
            match self.next() {
                Some(Event::Typed) => self.take_typed()?,
                Some(Event::Received(number, datagram)) if number == self.number => {
                    self.print(&datagram)?;
                }
                Some(Event::Failed(number, error)) if number == self.number => {
                    self.turn_to_next(error)?;
                }
                // An event of a socket that was given up.
                Some(_) => {}
                None if self.is_blocked.is_some() => self.check_blocked()?,
                None => self.give_up(),
            }

            self.send()?;
        }

        match (self.lost, self.patience) {
            (1.., Some(patience)) => Err(io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "{} got no reply within {}",
                    counted(self.lost, "datagram", "datagrams"),
                    humantime::format_duration(patience)
                ),
            )),
            _ => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        let sent = self.input_ended && self.unsent.is_empty();
        sent && self.stays.is_none() && (self.unanswered == 0 || self.patience.is_none())
    }

    /// Waits no longer for what is missing, and for what may come at all if that was long enough.
    fn give_up(&mut self) {
        self.lost += mem::take(&mut self.unanswered);
        self.unheard = self.unheard.take().map(|_| Vec::new());
        let is_silent = |most: Duration| self.since.elapsed() >= most;
        if self.input_ended && self.stays.flatten().is_some_and(is_silent) {
            self.stays = None;
        }
    }

    fn is_full(&self) -> bool {
        self.patience.is_some() && self.unanswered >= UNANSWERED_MOST
    }

    fn ask(&mut self) {
        let wants = self.unsent.is_empty() && !self.is_full();
        if !self.is_asked && !self.input_ended && wants {
            self.is_asked = true;
            self.keyboard.ask();
        }
    }

    /// Waits for the next event. Returns `None` when the patience has run out, or when it is time
    /// to send a datagram again.
    fn next(&self) -> Option<Event> {
        if self.is_blocked.is_some() {
            return self.events.recv_timeout(SEND_AGAIN).ok();
        }

        let is_missing = self.stays.is_none() || self.unanswered > 0;
        let patience = self.patience.filter(|_| is_missing);
        let deadline = patience
            .or(self.stays.flatten())
            .and_then(|patience| self.since.checked_add(patience))
            .filter(|_| self.input_ended || self.is_full());
        let Some(deadline) = deadline else {
            return self.events.recv().ok();
        };

        let wait = deadline.saturating_duration_since(Instant::now());
        self.events.recv_timeout(wait).ok()
    }

    fn take_typed(&mut self) -> io::Result<()> {
        self.is_asked = false;
        match self.keyboard.typed().transpose()? {
            Some(Typed::Piece(line)) => self.unsent.push(line),
            Some(Typed::End) | None => self.input_ended = true,
        }
        Ok(())
    }

    /// Sends as many datagrams as there is room for.
    fn send(&mut self) -> io::Result<()> {
        while let Some(line) = self.unsent.first() {
            match self.socket.send(line) {
                Ok(()) => self.note_sent(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                    self.is_blocked.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(Errno::MSGSIZE) => return Err(too_long(line.len())),
                Err(error) => self.turn_to_next(error.into())?,
            }
        }

        Ok(())
    }

    fn note_sent(&mut self) {
        let line = self.unsent.remove(0);
        // Without patience, their number has no limit and no reply is awaited.
        if let Some(unheard) = self.unheard.as_mut().filter(|_| self.patience.is_some()) {
            unheard.push(line);
        }
        self.is_blocked = None;
        self.unanswered += 1;
        self.since = Instant::now();
    }

    /// Fails if the peer has not read its socket for too long.
    fn check_blocked(&self) -> io::Result<()> {
        let patience = self.patience.unwrap_or(DATAGRAM_PATIENCE);
        match self.is_blocked {
            Some(since) if since.elapsed() >= patience => Err(io::Error::new(
                ErrorKind::TimedOut,
                format!(
                    "could not send a datagram within {}: the server's queue is full",
                    humantime::format_duration(patience)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Switches to the next address, because there is no peer at this one, and sends there what was
    /// sent before.
    fn turn_to_next(&mut self, problem: io::Error) -> io::Result<()> {
        let Some(unheard) = self.unheard.take() else {
            return Err(problem);
        };

        self.socket = Arc::new(self.places.next(Some(problem))?);
        self.number += 1;

        self.unsent.splice(..0, unheard);
        self.unheard = Some(Vec::new());
        self.is_blocked = None;
        self.unanswered = 0;
        self.since = Instant::now();
        self.listen()
    }

    fn print(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.unheard = None;
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

/// Returns the error for a datagram beyond a limit of the system, such as that of the send buffer.
fn too_long(length: usize) -> io::Error {
    let length = counted(length, "byte", "bytes");
    let problem = format!("a line of {length} is too long for a datagram to this address");
    io::Error::new(ErrorKind::InvalidData, problem)
}

/// Passes on the datagrams that come, until the receiver is gone.
fn listen(socket: &Socket, number: usize, events: &SyncSender<Event>) {
    let mut room = vec![0; DATAGRAM_MOST];
    loop {
        let event = match socket.receive(&mut room) {
            Ok(count) => Event::Received(number, room[..count].to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Event::Failed(number, error),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}
