//! Connecting to the first of several addresses that answers (RFC 8305, "happy eyeballs").

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{io, mem};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serveloop::layer::{Event, Observe, Observed};
use serveloop::net::Target;
use serveloop::{Address, Config, Peer, Protocol, Reactor};

use crate::outbound::{End, Ending};

/// How long one address is tried before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// Starts connections to one address after another. The next one is tried when the previous one has
/// failed, or has been silent for 250 ms. The first connection to be established is served, and the
/// others are closed.
pub(super) struct Race<M> {
    waiting: VecDeque<Address>,
    config: Config,
    make: M,
    /// When the next address is to be tried.
    due: Instant,
    /// When an address must have answered.
    deadline: Option<Instant>,
}

/// Whether a connection has been established. Observes the protocol of that connection.
#[derive(Clone, Debug, Default)]
struct Answer(Rc<Cell<bool>>);

impl Observe for Answer {
    fn observe(&mut self, event: Event<'_>) {
        if matches!(event, Event::ConnectionMade) {
            self.0.set(true);
        }
    }
}

/// The factory for incoming connections. These loops have no listener, so it never makes anything.
type NoFactory<P> = fn(&Peer) -> Option<Observed<P, Answer>>;

/// A connection attempt with its own loop, so that it can be dropped alone.
struct Attempt<P: Protocol> {
    reactor: Reactor<NoFactory<P>>,
    ending: Ending,
    answer: Answer,
}

impl<M> Race<M> {
    /// Returns a race between `addresses`, in which `make` makes the protocols. The
    /// `connect_timeout` of `config` applies to the race as a whole.
    pub(super) fn new(addresses: Vec<Address>, config: &Config, make: M) -> Self {
        let now = Instant::now();
        let limit = config.connect_timeout;
        Self {
            waiting: interleaved(addresses),
            config: config.clone(),
            make,
            due: now,
            deadline: limit.and_then(|limit| now.checked_add(limit)),
        }
    }

    /// Serves the winner to its end, and returns how it ended.
    ///
    /// # Errors
    /// Fails if the system has no descriptor for a poller, or if a poller fails.
    pub(super) fn run<P: Protocol>(mut self) -> io::Result<End>
    where
        M: FnMut(Ending) -> P,
    {
        let mut poll = Poll::new()?;
        let mut attempts = Vec::new();
        let mut unreached = End::Unreached("there is no address to connect to".to_owned());

        loop {
            let is_due = attempts.is_empty() || Instant::now() >= self.due;
            if let Some(address) = self.next(is_due) {
                attempts.push(self.begin(address, &poll)?);
            } else if attempts.is_empty() {
                return Ok(unreached);
            }

            self.wait(&mut attempts, &mut poll)?;
            if let Some(winner) = turn(&mut attempts)? {
                drop(attempts);
                return winner.finish();
            }

            let (lost, open) = mem::take(&mut attempts)
                .into_iter()
                .partition::<Vec<Attempt<P>>, _>(|attempt| attempt.reactor.is_finished());
            attempts = open;
            for attempt in lost {
                unreached = attempt.finish()?;
                self.due = Instant::now();
            }
        }
    }

    fn next(&mut self, is_due: bool) -> Option<Address> {
        is_due.then(|| self.waiting.pop_front()).flatten()
    }

    fn begin<P: Protocol>(&mut self, address: Address, poll: &Poll) -> io::Result<Attempt<P>>
    where
        M: FnMut(Ending) -> P,
    {
        let now = Instant::now();
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now));
        // If time is short, every address still gets its turn.
        let turns = u32::try_from(self.waiting.len() + 1).unwrap_or(u32::MAX);
        self.due = now + left.map_or(HEAD_START, |left| HEAD_START.min(left / turns));

        let config = Config {
            connect_timeout: left,
            ..self.config.clone()
        };
        let attempt = Attempt::begin(address, config, &mut self.make)?;

        let descriptor = attempt.reactor.as_raw_fd();
        let token = Token(self.waiting.len());
        poll.registry()
            .register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        Ok(attempt)
    }

    /// Waits until one of `attempts` has something to do, or until the next address is due.
    fn wait<P: Protocol>(&self, attempts: &mut [Attempt<P>], poll: &mut Poll) -> io::Result<()> {
        let next = self.due.saturating_duration_since(Instant::now());
        let next = (!self.waiting.is_empty()).then_some(next);
        let timeouts = attempts.iter_mut().map(|attempt| attempt.reactor.timeout());
        let patience = timeouts.flatten().chain(next).min();

        let mut events = Events::with_capacity(attempts.len());
        match poll.poll(&mut events, patience) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }
}

impl<P: Protocol> Attempt<P> {
    fn begin(
        address: Address,
        config: Config,
        make: &mut impl FnMut(Ending) -> P,
    ) -> io::Result<Self> {
        let (ending, answer) = (Ending::default(), Answer::default());
        let protocol = Observed::new(make(ending.clone()), answer.clone());
        let factory: NoFactory<P> = |_| None;
        let mut reactor = Reactor::new(factory, config)?;
        reactor.connect(address, protocol);
        Ok(Self {
            reactor,
            ending,
            answer,
        })
    }

    /// Serves the connection to its end, which may already have come. After a failure, it does not
    /// wait for the peer to close, since nothing needs to reach the peer.
    fn finish(mut self) -> io::Result<End> {
        while !self.reactor.is_finished() && !self.ending.has_failed() {
            self.reactor.turn(None)?;
        }
        let untold = || End::Failed("the connection ended without a reason".to_owned());
        Ok(self.ending.take().unwrap_or_else(untold))
    }
}

/// Runs a turn of each of `attempts`. Returns the first that is established.
fn turn<P: Protocol>(attempts: &mut Vec<Attempt<P>>) -> io::Result<Option<Attempt<P>>> {
    for number in 0..attempts.len() {
        let attempt = &mut attempts[number];
        attempt.reactor.turn(Some(Duration::ZERO))?;
        if attempt.answer.0.get() {
            return Ok(Some(attempts.swap_remove(number)));
        }
    }
    Ok(None)
}

/// Orders the addresses as the resolver did, but alternates between the families.
fn interleaved(addresses: Vec<Address>) -> VecDeque<Address> {
    Target::of_name(addresses).addresses().to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let order = |uris: &[&str]| {
            let addresses = uris.iter().map(|uri| uri.parse().unwrap()).collect();
            let order = interleaved(addresses).into_iter();
            order.map(|address| address.to_string()).collect::<Vec<_>>()
        };

        let (a, b, c) = ("tcp://[::1]:1", "tcp://[::2]:1", "tcp://[::3]:1");
        let (x, y) = ("tcp://1.0.0.1:1", "tcp://1.0.0.2:1");

        assert_eq!(order(&[a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(order(&[x, y, a]), [x, a, y]);
        assert_eq!(order(&[x, y]), [x, y]);
        assert_eq!(order(&["unix:///s"]), ["unix:///s"]);
        assert_eq!(order(&[]), [""; 0]);
    }
}
