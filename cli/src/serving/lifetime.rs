//! How long a connection may last: the option `--max-lifetime`.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use serveloop::driver::Tick;
use serveloop::net::DeliveryError;
use serveloop::service::Post;
use serveloop::{Deadline, Ended, Factory, Peer, Protocol, ProtocolError, Transport};

use crate::logger::TARGET;
use crate::serving::AccessLog;
use crate::serving::boxed_factory::{Boxed, BoxedFactory, Surrounding};

/// The share of the longest lifetime that connections end earlier at most, so that those that began
/// together do not end together.
const SPREAD: u32 = 10;

/// How long connections may last, and then take to finish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    most: Duration,
    /// `None` waits as long as the protocol does.
    finish: Option<Duration>,
}

impl Lifetime {
    /// Creates a limit of `most`, or none if that is zero. A connection whose time is over is asked to
    /// finish, as in a shutdown, and closed after `finish`.
    pub(crate) fn new(most: Duration, finish: Option<Duration>) -> Option<Self> {
        (!most.is_zero()).then_some(Self { most, finish })
    }

    /// Returns the time of the connection with this number: up to a tenth less than the longest.
    fn of(self, id: u64, random: &RandomState) -> Duration {
        let spread = self.most / SPREAD;
        let share = u32::try_from(random.hash_one(id) % 1_000).unwrap_or_default();
        self.most.saturating_sub(spread / 1_000 * share)
    }
}

/// Ends protocols after their lifetime.
#[derive(Clone)]
pub(super) struct Mortal {
    lifetime: Lifetime,
    random: RandomState,
}

impl Mortal {
    pub(super) fn new(lifetime: Lifetime) -> Self {
        let random = RandomState::new();
        Self { lifetime, random }
    }
}

impl Surrounding for Mortal {
    fn build(&mut self, factory: &mut BoxedFactory, peer: &Peer) -> Option<Boxed> {
        let protocol = factory.build_protocol(peer)?;
        if peer.is_datagram() {
            return Some(protocol);
        }
        Some(Box::new(Limited {
            protocol,
            lifetime: self.lifetime.of(peer.id(), &self.random),
            finish: self.lifetime.finish,
            end: None,
            is_asked: false,
        }))
    }
}

/// A protocol that is asked to finish when its time is over, and closed if it does not.
struct Limited {
    protocol: Boxed,
    lifetime: Duration,
    finish: Option<Duration>,
    /// When it is asked, or closed if it was asked.
    end: Option<Instant>,
    is_asked: bool,
}

impl Limited {
    fn end(&mut self, transport: &mut Transport<'_>) {
        if self.is_asked {
            self.end = None;
            return transport.close();
        }
        self.is_asked = true;
        let after = |finish| transport.now().checked_add(finish);
        self.end = self.finish.and_then(after);
        AccessLog.note(transport.peer(), format_args!("its --max-lifetime is over"));
        self.hurry(transport);
        self.protocol.shutdown_requested(transport);
    }

    /// From now on, a peer that takes nothing has only the time to finish.
    fn hurry(&self, transport: &mut Transport<'_>) {
        let mut limits = transport.limits().clone();
        limits.write_timeout = limits.write_timeout.into_iter().chain(self.finish).min();
        if let Err(error) = transport.set_limits(limits.into()) {
            log::warn!(target: TARGET, "{}: keeps its limits: {error}", transport.peer());
        }
    }
}

impl Protocol for Limited {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.end = transport.now().checked_add(self.lifetime);
        self.protocol.connection_made(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.protocol.data_received(data, transport)
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.protocol.datagram_received(data, transport)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.protocol.eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.protocol.resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol
            .poll_timeout()
            .into_iter()
            .chain(self.end)
            .min()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let now = transport.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.protocol.poll_timeout()) {
            self.protocol.handle_timeout(transport);
        }
        if is_due(self.end) && !transport.is_closing() {
            self.end(transport);
        }
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.protocol.woken(transport);
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.protocol.posted(post, transport);
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.protocol.datagram_undelivered(error, transport);
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.protocol.deadline_passed(deadline, transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.protocol.input_rejected(error, transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.protocol.shutdown_requested(transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.protocol.connection_lost(ended);
    }

    fn owes_first(&self, outside: bool) -> bool {
        self.protocol.owes_first(outside)
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.protocol.catch_up(from, to);
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        self.protocol.write_end_mark(transport);
    }
}

#[cfg(test)]
mod tests {
    use serveloop::testing::MemorySession;

    use super::*;

    struct Stubborn;

    impl Protocol for Stubborn {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport.write(data);
            Ok(data.len())
        }

        fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
            transport.write(b"not yet");
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn session(finish: Option<Duration>) -> MemorySession<Boxed> {
        let lifetime = Lifetime::new(10 * SECOND, finish).unwrap();
        let mut factory = BoxedFactory::of(|_: &Peer| Some(Stubborn)).within(Mortal::new(lifetime));
        let peer = Peer::new("tcp://192.0.2.1:5".parse().unwrap(), Some(0));
        let protocol = factory.build_protocol(&peer).unwrap();
        MemorySession::with_peer(protocol, serveloop::Config::default(), peer)
    }

    #[test]
    fn a_connection_is_asked_to_finish_and_closed_if_it_does_not() {
        let mut session = session(Some(SECOND));
        session.receive(b"hello");
        session.advance(9 * SECOND - Duration::from_millis(1));
        assert_eq!(session.sent(), b"hello");
        session.advance(SECOND + Duration::from_millis(1));
        assert_eq!(session.sent(), b"not yet");
        assert!(session.reason().is_none());
        session.receive(b"more");
        assert_eq!(session.sent(), b"more");
        session.advance(SECOND);
        assert!(session.reason().is_some());
    }

    #[test]
    fn a_peer_that_takes_nothing_is_not_waited_for_any_longer() {
        let mut session = session(Some(SECOND));
        session.stop_taking();
        session.receive(b"hello");
        session.advance(10 * SECOND);
        session.advance(SECOND);
        assert!(session.reason().is_some());
    }

    #[test]
    fn lifetimes_are_spread_below_the_longest() {
        let lifetime = Lifetime::new(100 * SECOND, None).unwrap();
        let random = RandomState::new();
        let all: Vec<_> = (0..1_000).map(|id| lifetime.of(id, &random)).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(*least >= 90 * SECOND && *most <= 100 * SECOND);
        assert!(*most - *least > 5 * SECOND, "{least:?} {most:?}");
        assert!(Lifetime::new(Duration::ZERO, None).is_none());
    }
}
