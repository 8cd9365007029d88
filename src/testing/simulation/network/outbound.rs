//! Outbound sessions of datagrams: their sockets, the peers that they ask, and the network between them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::error::DeliveryError;
use crate::net::{Event, Undelivered};
use crate::testing::simulation::network::action::{Action, Unreachable};
use crate::testing::simulation::network::{Call, Handle, Network, Question};
use crate::testing::simulation::outbound::OutboundRecord;

/// The numbers of these sockets begin here, above those of all others.
const FIRST: usize = usize::MAX / 2 + 1;

/// The longest way of a datagram, in microseconds. Each has its own, so that they overtake each other.
const WAY_MOST: usize = 100_000;

/// How soon a loop must receive what waits in a socket.
const RECEIVED_WITHIN: Duration = Duration::from_secs(10);

/// The longest datagram that a third party makes up.
const FORGED_MOST: usize = 40;

/// All outbound sessions of datagrams of a run. Each has the number of its record in the ledger.
#[derive(Debug, Default)]
pub(super) struct OutboundSockets {
    peers: Vec<(Address, Rc<Question>)>,
    sockets: Vec<OwnSocket>,
    flights: Vec<Flight>,
}

/// The socket of one session, which is connected to its peer.
#[derive(Debug)]
struct OwnSocket {
    to: Address,
    /// The token of its events, while it is open.
    token: Option<usize>,
    /// What waits to be received, and since when.
    mail: VecDeque<(Duration, Vec<u8>)>,
    reports: VecDeque<Undelivered>,
    is_changed: bool,
    /// Whether the next event says that there is room to send.
    has_room: bool,
    /// The clock jumped, so that anything may have waited for long.
    is_excused: bool,
}

/// What is on its way, to or from the session with that number.
#[derive(Clone, Debug)]
enum Flight {
    /// One of the requests that peers know.
    Request(usize, usize),
    Reply(usize, Vec<u8>),
    /// From an address that the socket is not connected to.
    Stray(usize),
}

impl OutboundSockets {
    /// Returns whether no session is open. One that no deadline ends need not end.
    pub(super) fn is_over(&self, has_deadline: bool) -> bool {
        let is_open = |socket: &OwnSocket| socket.token.is_some();
        !has_deadline || !self.sockets.iter().any(is_open)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.sockets.iter().any(OwnSocket::has_news)
    }

    pub(super) fn announce(&mut self, number: usize) {
        self.sockets[number].is_changed = true;
    }

    pub(super) fn announce_room(&mut self, number: usize) {
        self.sockets[number].has_room = true;
        self.announce(number);
    }

    /// Reports that the datagrams of a session do not arrive.
    pub(super) fn report(&mut self, number: usize, reason: Unreachable) {
        let to = self.sockets[number].to.clone();
        let error = reason.error();
        let socket = &mut self.sockets[number];
        socket.reports.push_back(Undelivered { to, error });
        socket.is_changed = true;
    }

    /// Notes that the clock jumped.
    pub(super) fn excuse(&mut self) {
        for socket in &mut self.sockets {
            socket.is_excused = true;
        }
    }
}

impl OwnSocket {
    fn has_news(&self) -> bool {
        self.is_changed && self.token.is_some()
    }

    /// Returns the event that is due.
    fn take_event(&mut self) -> Option<Event> {
        let token = self.token.filter(|_| mem::take(&mut self.is_changed))?;
        Some(Event {
            token,
            readable: true,
            writable: mem::take(&mut self.has_room),
            error: !self.reports.is_empty(),
            ..Event::default()
        })
    }
}

impl Unreachable {
    /// Returns what a report says.
    pub(super) fn error(self) -> DeliveryError {
        let reported = |number| DeliveryError::Reported(io::Error::from_raw_os_error(number));
        match self {
            Self::Refused => reported(libc::ECONNREFUSED),
            Self::NoRoute => reported(libc::EHOSTUNREACH),
            Self::TooLong => DeliveryError::TooLong { mtu: Some(68) },
        }
    }
}

impl Network {
    /// Adds a request that the peer at `address` knows, with its reply.
    pub(in crate::testing::simulation) fn add_far_peer(
        &mut self,
        address: Address,
        question: &Rc<Question>,
    ) {
        self.outbound.peers.push((address, Rc::clone(question)));
    }

    /// Returns the number of an outbound session, if the socket is that of one.
    pub(super) fn outbound_of(socket: &Handle) -> Option<usize> {
        socket.0.checked_sub(FIRST)
    }

    pub(super) fn open_outbound(&mut self, to: &Address, token: usize) -> io::Result<Handle> {
        self.ledger.borrow_mut().connecting.pop_front();
        self.inject(Call::Connect, None)?;
        self.progress.has_moved = true;
        self.open += 1;

        let number = self.outbound.sockets.len();
        self.outbound.sockets.push(OwnSocket {
            to: to.clone(),
            token: Some(token),
            mail: VecDeque::new(),
            reports: VecDeque::new(),
            is_changed: false,
            has_room: false,
            is_excused: false,
        });
        let mut ledger = self.ledger.borrow_mut();
        ledger.outbound.push(OutboundRecord::new(to.clone()));
        ledger.opened = Some(number);
        Ok(Handle(FIRST + number))
    }

    pub(super) fn close_outbound(&mut self, number: usize) {
        self.open -= 1;
        self.progress.has_moved = true;
        self.note(8, number);

        let late = self.elapsed.saturating_sub(RECEIVED_WITHIN);
        let is_excused = self.has_computed_long();
        let socket = &mut self.outbound.sockets[number];
        self.gone.extend(socket.token.take());
        let waited = socket.mail.front().is_some_and(|(since, _)| *since < late);
        if waited && !is_excused && !socket.is_excused {
            let problem = format!("{}: a datagram waited for more than ten seconds", socket.to);
            self.ledger.borrow_mut().object(problem);
        }
    }

    pub(super) fn receive_outbound(
        &mut self,
        number: usize,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Address)> {
        self.inject_into(number, Call::Receive)?;
        self.trouble.note_success();
        let socket = &mut self.outbound.sockets[number];
        let (_, data) = socket.mail.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let from = socket.to.clone();

        self.progress.has_moved = true;
        self.note(5, data.len());
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        self.ledger.borrow_mut().outbound[number].note_came(data);
        Ok((count, from))
    }

    pub(super) fn send_outbound(&mut self, number: usize, data: &[u8]) -> io::Result<()> {
        self.note(6, data.len());
        let sent = self.inject_into(number, Call::Send);
        let mut ledger = self.ledger.borrow_mut();
        let record = &mut ledger.outbound[number];
        let noted = match &sent {
            Ok(()) => record.note_sent(data),
            Err(error) => {
                record.note_failed(data, error);
                Ok(())
            }
        };
        noted.unwrap_or_else(|problem| ledger.object(problem));
        drop(ledger);

        if sent.is_ok() {
            self.progress.has_moved = true;
            self.carry_request(number, data);
        }
        sent
    }

    /// Returns the next report. To take one is progress, though the call before it has failed.
    pub(super) fn take_outbound_report(&mut self, number: usize) -> Option<Undelivered> {
        let report = self.outbound.sockets[number].reports.pop_front()?;
        self.trouble.note_success();
        Some(report)
    }

    /// Takes a datagram to the peer, if there is one.
    fn carry_request(&mut self, number: usize, data: &[u8]) {
        let to = &self.outbound.sockets[number].to;
        let peers = self.outbound.peers.iter();
        let mut known = peers.enumerate().filter(|(_, (at, _))| at == to).peekable();
        if known.peek().is_none() {
            let refused = Action::OutboundUnreachable(number, Unreachable::Refused);
            return self.plan_on_way(refused);
        }

        let request = known.find(|(_, (_, question))| question.request == data);
        match request.map(|(request, _)| request) {
            Some(request) => self.carry(Flight::Request(number, request)),
            None => {
                let data = data.escape_ascii();
                let problem = format!("{to}: \"{data}\" was sent, which the peer does not know");
                self.ledger.borrow_mut().object(problem);
            }
        }
        self.disturb(number);
    }

    /// Lets others than the peer and the session do something about a session.
    fn disturb(&mut self, number: usize) {
        if self.random.chance(self.faults.datagram_reports) {
            let reasons = [
                Unreachable::Refused,
                Unreachable::NoRoute,
                Unreachable::TooLong,
            ];
            let reason = self.random.pick(&reasons);
            self.plan_on_way(Action::OutboundUnreachable(number, reason));
        }
        if self.random.chance(self.faults.forged_datagrams) {
            let forged = self.forge(number);
            self.plan_flight(forged);
        }
    }

    /// Makes up a datagram: from a third party, or from the peer's address without the peer. The latter
    /// may be noise, or what the peer says at another occasion.
    fn forge(&mut self, number: usize) -> Flight {
        match self.random.below(4) {
            0 => Flight::Stray(number),
            1 => {
                let to = &self.outbound.sockets[number].to;
                let peers = self.outbound.peers.iter().filter(|(at, _)| at == to);
                let replies: Vec<_> = peers.filter_map(|(_, it)| it.reply.as_ref()).collect();
                let reply = match replies.len() {
                    0 => Vec::new(),
                    count => replies[self.random.below(count)].clone(),
                };
                Flight::Reply(number, reply)
            }
            _ => {
                let length = self.random.below(FORGED_MOST);
                let noise = (0..length).map(|_| self.random.below(256));
                let noise = noise.map(|byte| u8::try_from(byte).unwrap_or(0));
                Flight::Reply(number, noise.collect())
            }
        }
    }

    /// Takes something to its receiver: once, twice or never.
    fn carry(&mut self, flight: Flight) {
        if self.random.chance(self.faults.lost_datagrams) {
            return;
        }
        if self.random.chance(self.faults.doubled_datagrams) {
            self.plan_flight(flight.clone());
        }
        self.plan_flight(flight);
    }

    fn plan_flight(&mut self, flight: Flight) {
        self.outbound.flights.push(flight);
        let number = self.outbound.flights.len() - 1;
        self.plan_on_way(Action::Flight(number));
    }

    fn plan_on_way(&mut self, action: Action) {
        let way = Duration::from_micros(self.random.below(WAY_MOST) as u64);
        self.timeline.plan(self.elapsed + way, action);
    }

    /// Lets something arrive.
    pub(super) fn land(&mut self, flight: usize) {
        match self.outbound.flights[flight].clone() {
            Flight::Request(number, request) => {
                let reply = self.outbound.peers[request].1.reply.clone();
                if let Some(reply) = reply {
                    self.carry(Flight::Reply(number, reply));
                }
            }
            Flight::Reply(number, data) => {
                let socket = &mut self.outbound.sockets[number];
                if socket.token.is_some() {
                    socket.mail.push_back((self.elapsed, data));
                    socket.is_changed = true;
                }
            }
            // The system drops it, perhaps after the event.
            Flight::Stray(number) => self.outbound.announce(number),
        }
    }

    /// Adds the events that are due, some of them later.
    pub(super) fn announce_outbound(&mut self, later: Duration, events: &mut Vec<Event>) {
        for number in 0..self.outbound.sockets.len() {
            let socket = &mut self.outbound.sockets[number];
            if !socket.has_news() {
                continue;
            }
            if self.random.chance(self.faults.delayed_events) {
                socket.is_changed = false;
                self.timeline.plan(later, Action::AnnounceOutbound(number));
            } else {
                events.extend(socket.take_event());
            }
        }
    }

    /// Plans the event that tells that a session's socket has room again.
    pub(super) fn plan_outbound_room(&mut self, number: usize) {
        let at = self.elapsed + self.denied();
        self.timeline.plan(at, Action::OutboundRoom(number));
    }

    /// Checks that what was received and not shown is counted as dropped.
    ///
    /// # Errors
    /// Returns the problem.
    pub(super) fn judge_outbound(&self, dropped: u64) -> Result<(), String> {
        let ledger = self.ledger.borrow();
        let missed: usize = ledger.outbound.iter().map(OutboundRecord::missed).sum();
        if missed as u64 > dropped {
            return Err(format!(
                "{missed} datagrams for outbound sessions were received and not shown, {dropped} were counted as dropped"
            ));
        }
        Ok(())
    }
}
