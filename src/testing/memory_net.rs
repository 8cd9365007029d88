//! The network of a server in memory: no faults, no delays, and a clock that a test sets.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::error::DeliveryError;
use crate::net::{Event, Net, Undelivered};
use crate::waker::Wake;

#[derive(Debug)]
pub(super) struct MemoryNet {
    now: Instant,
    links: Vec<Link>,
    /// Clients that wait to be accepted.
    backlog: VecDeque<usize>,
    /// The token of the listener, while there is one, and whether it has news.
    listener: Option<usize>,
    is_knocked: bool,
    answers: HashMap<Address, Answer>,
    /// The addresses of names. `None` is a name whose lookup takes its time.
    names: HashMap<String, Option<Vec<Address>>>,
    outbound: VecDeque<(Address, Client)>,
    /// The token for wakes, and whether the loop was woken.
    waker: usize,
    woken: Arc<AtomicBool>,
    next_id: u64,
}

/// The far end of a connection of a
/// [`MemoryServer`](crate::testing::MemoryServer): a client, or a remote peer that the server has
/// connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(usize);

/// How the far end of a connection has seen it end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The connection is open.
    Open,
    /// The server has ended its stream, after all that it had to say.
    End,
    /// The server has reset the connection, or closed it with input unread.
    Reset,
}

/// What becomes of an attempt of the server to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    #[default]
    Accepts,
    Refuses,
    Ignores,
}

/// One connection.
#[derive(Debug)]
struct Link {
    address: Address,
    token: Option<usize>,
    answer: Answer,
    /// What the server has not read yet, and whether the client has ended its stream.
    up: VecDeque<u8>,
    has_ended: bool,
    is_broken: bool,
    /// What the client has received, and how much more it takes for now.
    down: Vec<u8>,
    window: usize,
    seen: Seen,
    is_changed: bool,
    /// What is kept of datagrams, if this is no stream.
    datagrams: Option<Datagrams>,
}

/// The datagrams of an outbound session.
#[derive(Debug, Default)]
struct Datagrams {
    /// What the server has not received yet, and what it is to be told of.
    up: VecDeque<Vec<u8>>,
    reports: VecDeque<Undelivered>,
    down: Vec<Vec<u8>>,
}

impl Link {
    fn new(address: Address, answer: Answer) -> Self {
        Self {
            address,
            token: None,
            answer,
            up: VecDeque::new(),
            has_ended: false,
            is_broken: false,
            down: Vec::new(),
            window: usize::MAX,
            seen: Seen::Open,
            is_changed: false,
            datagrams: None,
        }
    }

    /// Returns the event that announces what has changed.
    fn event(&self, token: usize) -> Event {
        if let Some(datagrams) = &self.datagrams {
            return Event {
                token,
                readable: !datagrams.up.is_empty(),
                writable: self.window > 0,
                error: !datagrams.reports.is_empty(),
                ..Event::default()
            };
        }
        let is_refused = self.answer == Answer::Refuses;
        let is_open = self.answer == Answer::Accepts;
        Event {
            token,
            readable: !self.up.is_empty() || self.has_ended || self.is_broken,
            writable: (is_open && self.window > 0) || self.is_broken || is_refused,
            closed: self.has_ended || self.is_broken,
            error: self.is_broken || is_refused,
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.is_broken {
            true => Err(ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

impl MemoryNet {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            links: Vec::new(),
            backlog: VecDeque::new(),
            listener: None,
            is_knocked: false,
            answers: HashMap::new(),
            names: HashMap::new(),
            outbound: VecDeque::new(),
            waker: 0,
            woken: Arc::default(),
            next_id: 1,
        }
    }

    pub(super) fn time(&self) -> Instant {
        self.now
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Returns whether the next poll has something to report.
    pub(super) fn has_events(&self) -> bool {
        let is_news = |link: &Link| link.is_changed && link.token.is_some();
        self.woken.load(Ordering::Acquire) || self.is_knocked || self.links.iter().any(is_news)
    }

    /// Lets a client connect. Without a listener it is refused.
    pub(super) fn knock(&mut self, address: Address) -> Client {
        let number = self.links.len();
        let mut link = Link::new(address, Answer::Accepts);
        if self.listener.is_some() {
            self.backlog.push_back(number);
            self.is_knocked = true;
        } else {
            link.seen = Seen::Reset;
        }
        self.links.push(link);
        Client(number)
    }

    /// Changes the client's side of a connection.
    fn change(&mut self, client: Client, change: impl FnOnce(&mut Link)) {
        let link = &mut self.links[client.0];
        change(link);
        link.is_changed = true;
    }

    pub(super) fn send_up(&mut self, client: Client, data: &[u8]) {
        self.change(client, |link| {
            if let Some(datagrams) = &mut link.datagrams {
                datagrams.up.push_back(data.to_vec());
            } else if link.seen != Seen::Reset && !link.has_ended {
                link.up.extend(data);
            }
        });
    }

    pub(super) fn end_up(&mut self, client: Client) {
        self.change(client, |link| link.has_ended = true);
    }

    pub(super) fn break_up(&mut self, client: Client) {
        self.change(client, |link| {
            link.is_broken = true;
            link.up.clear();
        });
    }

    pub(super) fn set_window(&mut self, client: Client, window: usize) {
        self.change(client, |link| link.window = window);
    }

    pub(super) fn take_down(&mut self, client: Client) -> Vec<u8> {
        let link = &mut self.links[client.0];
        match &mut link.datagrams {
            Some(datagrams) => mem::take(&mut datagrams.down).concat(),
            None => mem::take(&mut link.down),
        }
    }

    pub(super) fn take_datagrams(&mut self, client: Client) -> Vec<Vec<u8>> {
        let datagrams = &mut self.links[client.0].datagrams;
        datagrams
            .as_mut()
            .map(|it| mem::take(&mut it.down))
            .unwrap_or_default()
    }

    /// Reports that a datagram to the client did not arrive.
    pub(super) fn report(&mut self, client: Client, error: DeliveryError) {
        self.change(client, |link| {
            let to = link.address.clone();
            if let Some(datagrams) = &mut link.datagrams {
                datagrams.reports.push_back(Undelivered { to, error });
            }
        });
    }

    pub(super) fn seen(&self, client: Client) -> Seen {
        self.links[client.0].seen
    }

    pub(super) fn set_answer(&mut self, address: Address, answer: Answer) {
        self.answer_waiting(&address, answer);
        self.answers.insert(address, answer);
    }

    /// Answers the attempts to connect to `address` that wait.
    fn answer_waiting(&mut self, address: &Address, answer: Answer) {
        for (number, link) in self.links.iter_mut().enumerate() {
            let waits = link.answer == Answer::Ignores && link.token.is_some();
            if waits && link.address == *address {
                link.answer = answer;
                link.is_changed = answer != Answer::Ignores;
                if answer == Answer::Accepts {
                    self.outbound.push_back((address.clone(), Client(number)));
                }
            }
        }
    }

    pub(super) fn set_name(&mut self, name: &str, addresses: Option<Vec<Address>>) {
        self.names.insert(name.to_owned(), addresses);
    }

    pub(super) fn next_outbound(&mut self) -> Option<(Address, Client)> {
        self.outbound.pop_front()
    }
}

impl Net for MemoryNet {
    /// The number of its link.
    type Stream = usize;
    type Listener = ();
    /// The number of its link.
    type Datagram = usize;

    fn now(&mut self) -> Instant {
        self.now
    }

    fn poll(&mut self, events: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        let readable = |token: usize| Event {
            token,
            readable: true,
            ..Event::default()
        };
        if self.woken.swap(false, Ordering::AcqRel) {
            events.push(readable(self.waker));
        }
        if mem::take(&mut self.is_knocked) {
            events.extend(self.listener.map(readable));
        }

        for link in &mut self.links {
            if let Some(token) = link.token.filter(|_| link.is_changed) {
                link.is_changed = false;
                events.push(link.event(token));
            }
        }
        Ok(())
    }

    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>> {
        self.waker = token;
        let woken = Arc::clone(&self.woken);
        Ok(Box::new(move || woken.store(true, Ordering::Release)))
    }

    fn listen(&mut self, at: &Address, _: &Config, token: usize) -> io::Result<((), Address)> {
        self.listener = Some(token);
        Ok(((), at.clone()))
    }

    fn accept(&mut self, (): &mut ()) -> io::Result<(usize, Address)> {
        let number = self.backlog.pop_front().ok_or(ErrorKind::WouldBlock)?;
        Ok((number, self.links[number].address.clone()))
    }

    /// Clients that were not accepted see a reset.
    fn close_listener(&mut self, (): ()) {
        self.listener = None;
        for number in mem::take(&mut self.backlog) {
            self.links[number].seen = Seen::Reset;
        }
    }

    fn lookup(&mut self, name: &str) -> Option<io::Result<Vec<Address>>> {
        let unknown = || {
            let problem = format!("{name}: the name has no address");
            io::Error::new(ErrorKind::NotFound, problem)
        };
        Some(match self.names.get(name) {
            None => Err(unknown()),
            Some(None) => Err(ErrorKind::WouldBlock.into()),
            Some(Some(addresses)) => Ok(addresses.clone()),
        })
    }

    fn connect(&mut self, to: &Address, _: &Config) -> io::Result<usize> {
        let number = self.links.len();
        let answer = self.answers.get(to).copied().unwrap_or_default();
        self.links.push(Link::new(to.clone(), answer));
        if answer == Answer::Accepts {
            self.outbound.push_back((to.clone(), Client(number)));
        }
        Ok(number)
    }

    fn connected(&mut self, stream: &mut usize) -> io::Result<()> {
        match self.links[*stream].answer {
            Answer::Accepts => self.links[*stream].check(),
            Answer::Refuses => Err(ErrorKind::ConnectionRefused.into()),
            Answer::Ignores => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn register(&mut self, stream: &mut usize, token: usize) -> io::Result<()> {
        let link = &mut self.links[*stream];
        link.token = Some(token);
        link.is_changed = true;
        Ok(())
    }

    fn read(&mut self, stream: &mut usize, buffer: &mut [u8]) -> io::Result<usize> {
        let link = &mut self.links[*stream];
        link.check()?;
        if link.up.is_empty() && !link.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut link.up, buffer)
    }

    fn write(&mut self, stream: &mut usize, data: &[u8]) -> io::Result<usize> {
        let link = &mut self.links[*stream];
        link.check()?;
        let count = data.len().min(link.window);
        if count == 0 && !data.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }

        link.down.extend_from_slice(&data[..count]);
        if link.window != usize::MAX {
            link.window -= count;
        }
        Ok(count)
    }

    fn connect_datagram(&mut self, to: &Address, _: &Config, token: usize) -> io::Result<usize> {
        match self.answers.get(to).copied().unwrap_or_default() {
            Answer::Refuses => return Err(ErrorKind::NetworkUnreachable.into()),
            Answer::Ignores => return Err(ErrorKind::WouldBlock.into()),
            Answer::Accepts => {}
        }
        let number = self.links.len();
        let mut link = Link::new(to.clone(), Answer::Accepts);
        link.datagrams = Some(Datagrams::default());
        link.token = Some(token);
        self.links.push(link);
        self.outbound.push_back((to.clone(), Client(number)));
        Ok(number)
    }

    fn receive(&mut self, socket: &mut usize, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let link = &mut self.links[*socket];
        let next = link.datagrams.as_mut().and_then(|it| it.up.pop_front());
        let data = next.ok_or(ErrorKind::WouldBlock)?;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        Ok((count, link.address.clone()))
    }

    fn send(&mut self, socket: &mut usize, data: &[u8], _: &Address) -> io::Result<()> {
        let link = &mut self.links[*socket];
        if link.window < data.len().max(1) {
            return Err(ErrorKind::WouldBlock.into());
        }
        if link.window != usize::MAX {
            link.window -= data.len().max(1);
        }
        if let Some(datagrams) = &mut link.datagrams {
            datagrams.down.push(data.to_vec());
        }
        Ok(())
    }

    fn undelivered(&mut self, socket: &mut usize) -> Option<Undelivered> {
        let datagrams = self.links[*socket].datagrams.as_mut()?;
        datagrams.reports.pop_front()
    }

    fn close_datagram(&mut self, socket: usize) {
        let link = &mut self.links[socket];
        link.token = None;
        link.seen = Seen::End;
    }

    fn error(&mut self, stream: &mut usize) -> Option<io::Error> {
        self.links[*stream].check().err()
    }

    fn finish(&mut self, stream: &mut usize) -> io::Result<()> {
        let link = &mut self.links[*stream];
        link.check()?;
        link.seen = Seen::End;
        Ok(())
    }

    /// A connection that is closed with input unread is reset, as TCP does.
    fn close(&mut self, stream: usize, abort: bool) {
        let link = &mut self.links[stream];
        link.token = None;
        let is_reset = abort || link.is_broken || !link.up.is_empty();
        link.seen = if is_reset { Seen::Reset } else { Seen::End };
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }
}
