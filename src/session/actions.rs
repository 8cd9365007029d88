//! What the hooks of a factory can see and do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::{Address, HandedConnection, Peer, Target};
use crate::session::clock::Clock;
use crate::session::ticket::Ticket;
use crate::statistics::Statistics;
use crate::waker::{FACTORY, Mailbox, Waker, Wakers};

/// What [`Factory::service_actions`](crate::Factory::service_actions) and the other hooks of a factory
/// can see and do.
pub struct Actions<'a, P> {
    pub(crate) clock: Clock,
    pub(crate) statistics: &'a Statistics,
    pub(crate) requests: &'a mut Requests<P>,
    pub(crate) open: &'a dyn Listing<P>,
    pub(crate) mailbox: &'a Arc<Mailbox>,
}

/// What a factory has asked its loop for.
#[derive(Debug)]
pub(crate) struct Requests<P> {
    pub(crate) connects: Vec<Connect<P>>,
    /// When it wants to be called again.
    pub(crate) again: Option<Instant>,
    /// What to do at the end of the call.
    pub(crate) urgent: Option<Box<Urgent>>,
}

/// An outbound connection that was asked for.
#[derive(Debug)]
pub(crate) struct Connect<P> {
    pub(crate) to: Target,
    pub(crate) protocol: P,
    /// With which the attempt may be cancelled.
    pub(crate) ticket: Option<Ticket>,
}

impl<P> Connect<P> {
    pub(crate) fn new(to: Target, protocol: P) -> Self {
        Self {
            to,
            protocol,
            ticket: None,
        }
    }

    /// Returns the same with a protocol around the protocol.
    pub(crate) fn map<Q>(self, wrap: impl FnOnce(P) -> Q) -> Connect<Q> {
        Connect {
            to: self.to,
            protocol: wrap(self.protocol),
            ticket: self.ticket,
        }
    }
}

/// Connections that go on elsewhere.
pub(crate) struct Leaving {
    pub(crate) which: Box<dyn Fn(&Peer) -> bool>,
    pub(crate) to: Box<dyn FnMut(HandedConnection)>,
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaving")
    }
}

/// Requests that few calls make.
#[derive(Debug, Default)]
pub(crate) struct Urgent {
    pub(crate) shutdown: bool,
    /// Whether the loop stops listening.
    pub(crate) retires: bool,
    /// Which connections go on elsewhere, and where.
    pub(crate) leaving: Option<Leaving>,
    /// Connections that come from elsewhere.
    pub(crate) coming: Vec<HandedConnection>,
    /// The connections to end, by their ids.
    pub(crate) ends: Vec<(u64, Ending)>,
    pub(crate) datagrams: Vec<Announced>,
}

/// A datagram that a factory sends on its own account.
#[derive(Debug)]
pub(crate) struct Announced {
    pub(crate) listener: usize,
    pub(crate) to: Address,
    pub(crate) data: Vec<u8>,
}

/// How a factory ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As a shutdown does: its protocol is asked to finish.
    Orderly,
    Abort,
}

impl<P> Requests<P> {
    pub(crate) fn new() -> Self {
        Self {
            connects: Vec::new(),
            again: None,
            urgent: None,
        }
    }

    fn urgent(&mut self) -> &mut Urgent {
        self.urgent.get_or_insert_with(Box::default)
    }
}

/// The open connections of a loop.
pub(crate) trait Listing<P> {
    fn list(&self) -> Box<dyn Iterator<Item = OpenConnection<'_, P>> + '_>;
}

/// No connections.
impl<P> Listing<P> for () {
    fn list(&self) -> Box<dyn Iterator<Item = OpenConnection<'_, P>> + '_> {
        Box::new(std::iter::empty())
    }
}

/// A connection that is open, as a hook of a factory sees it: see [`Actions::connections`].
pub struct OpenConnection<'a, P> {
    pub(crate) peer: &'a Peer,
    pub(crate) age: Duration,
    pub(crate) protocol: &'a P,
}

impl<'a, P> OpenConnection<'a, P> {
    /// Returns the connection's number, which no other connection of the process has: the same as
    /// [`Peer::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.peer.id()
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// Returns how long ago the connection was accepted, or the attempt to connect began.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Returns the protocol.
    #[must_use]
    pub fn protocol(&self) -> &'a P {
        self.protocol
    }
}

impl<P> fmt::Debug for OpenConnection<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenConnection")
            .field("peer", &self.peer)
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}

impl<P> Actions<'_, P> {
    /// Returns the time of this turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the loop's counters.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        self.statistics
    }

    /// Opens a connection to `address` at the end of the turn, or a session of datagrams if it is one of
    /// UDP. If it fails, `connection_lost` tells the protocol, as for
    /// [`Reactor::connect`](crate::Reactor::connect).
    pub fn connect(&mut self, address: Address, protocol: P) {
        self.ask(Connect::new(address.into(), protocol));
    }

    /// Works like [`connect`](Self::connect), to a [`Target`]: several addresses, of which the first to
    /// answer is used, or a name.
    ///
    /// A factory asks for connections here, and protocols by a [`Dialer`](crate::service::Dialer).
    pub fn connect_to(&mut self, target: Target, protocol: P) {
        self.ask(Connect::new(target, protocol));
    }

    pub(crate) fn ask(&mut self, connect: Connect<P>) {
        self.requests.connects.push(connect);
    }

    /// Returns the connections that are open on this loop, with their protocols, in no particular order.
    /// Those that are being established, or that have ended and wait for their peer to close, are left
    /// out.
    ///
    /// Where connections have threads or processes of their own, or are served one at a time, they are
    /// not on the loop, and only outbound connections are listed. A factory that needs all of them says
    /// so ([`needs_loop`](crate::Factory::needs_loop)). With several workers, each loop has its own.
    ///
    /// ```
    /// use serveloop::testing::MemoryServer;
    /// use serveloop::{Actions, Factory, Peer, protocols::Echo};
    /// use std::time::Duration;
    ///
    /// /// No connection lasts longer than an hour.
    /// struct Hourly;
    ///
    /// impl Factory for Hourly {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         let hour = Duration::from_secs(3_600);
    ///         let old = actions.connections().filter(|it| it.age() >= hour);
    ///         let ids: Vec<u64> = old.map(|it| it.id()).collect();
    ///         ids.into_iter().for_each(|id| actions.end(id));
    ///         actions.call_again(Duration::from_secs(1));
    ///     }
    ///
    ///     fn needs_loop(&self) -> bool {
    ///         true
    ///     }
    /// }
    ///
    /// let mut server = MemoryServer::new(Hourly);
    /// let client = server.connect();
    /// for _ in 0..61 {
    ///     server.send(client, b"still here");
    ///     server.advance(Duration::from_secs(59));
    /// }
    /// assert_eq!(server.connections(), 1);
    /// server.advance(Duration::from_secs(2));
    /// assert_eq!(server.connections(), 0);
    /// ```
    pub fn connections(&self) -> impl Iterator<Item = OpenConnection<'_, P>> {
        self.open.list()
    }

    /// Ends the connection with this number in order, as a shutdown of the server does: what has arrived
    /// is still shown, then its protocol is asked to finish
    /// ([`shutdown_requested`](crate::Protocol::shutdown_requested)), and the reason is
    /// [`Shutdown`](crate::CloseReason::Shutdown). A protocol that goes on is not ended by this.
    /// Does nothing if no connection of this loop has this number.
    pub fn end(&mut self, id: u64) {
        self.requests.urgent().ends.push((id, Ending::Orderly));
    }

    /// Ends the connection with this number at once, and drops what it is owed
    /// ([`Aborted`](crate::CloseReason::Aborted)). Does nothing if no connection of this loop has this
    /// number.
    pub fn abort(&mut self, id: u64) {
        self.requests.urgent().ends.push((id, Ending::Abort));
    }

    /// Sends a datagram to any address at the end of the call, by the socket of the listener with this
    /// number ([`Peer::listener`]): to a group, to all machines of a network, or to a machine that has
    /// sent nothing yet. Whoever answers is a peer of that listener. A group is sent to as
    /// [`UdpOptions`](crate::net::UdpOptions) say.
    ///
    /// A datagram that cannot be sent is dropped, counted
    /// ([`datagrams_dropped`](Statistics::datagrams_dropped)), and told in the log at level debug: there
    /// is no room, no such listener, it is too long, or a broadcast is not permitted. Nothing limits how
    /// much is sent: what answers a datagram belongs into a protocol, whose limits keep it from being
    /// used against others.
    ///
    /// ```
    /// use serveloop::{Actions, Factory, Peer, protocols::Echo};
    /// use std::time::Duration;
    ///
    /// /// Tells a group every ten seconds where the server is.
    /// struct Announcing;
    ///
    /// impl Factory for Announcing {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn started(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         let group = "udp://239.1.2.3:9999".parse().expect("an address");
    ///         actions.send_datagram(0, group, "echo is here");
    ///     }
    /// }
    /// ```
    pub fn send_datagram(&mut self, listener: usize, to: Address, data: impl Into<Vec<u8>>) {
        let data = data.into();
        let announced = Announced { listener, to, data };
        self.requests.urgent().datagrams.push(announced);
    }

    /// Returns a waker with which other threads and connections have the factory's
    /// [`woken`](crate::Factory::woken) called, on this loop.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.mailbox.waker(FACTORY)
    }

    /// Requests another turn within `delay`, even if no event occurs before then.
    pub fn call_again(&mut self, delay: Duration) {
        let at = self.now().checked_add(delay);
        self.requests.again = self.requests.again.into_iter().chain(at).min();
    }

    /// Shuts the server down, like [`ShutdownHandle`](crate::ShutdownHandle).
    pub fn shutdown(&mut self) {
        self.requests.urgent().shutdown = true;
    }

    /// Stops listening on this loop, and ends the loop when nothing is open any more. This is no
    /// shutdown: open connections go on as before, and their protocols are not told. What waits in the
    /// system's queues is left to a process that has the [same sockets](crate::net::OpenSockets), and is
    /// lost if there is none.
    ///
    /// With several workers each loop has to do this. A shutdown afterwards bounds the time.
    pub fn retire(&mut self) {
        self.requests.urgent().retires = true;
    }

    /// Takes the connections of this loop out that can go on in another process, and gives them `to` it.
    /// `which` says of which peers. Their protocols say whether they can
    /// ([`Protocol::hand_over`](crate::Protocol::hand_over)); the others stay. Outbound connections stay,
    /// and those that a thread or a process serves. Both closures are dropped when it is done, at the end
    /// of the factory's call.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    ///
    /// use serveloop::net::HandedConnection;
    /// use serveloop::{Actions, Config, Factory, Peer, Server, protocols::Echo};
    ///
    /// /// Takes each connection out as soon as it has one, and puts it in again, as another process would.
    /// struct Restless(std::rc::Rc<std::cell::RefCell<Vec<HandedConnection>>>);
    ///
    /// impl Factory for Restless {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         self.0.borrow_mut().drain(..).for_each(|one| actions.adopt(one));
    ///         let to = self.0.clone();
    ///         actions.hand_over(|_| true, move |one| to.borrow_mut().push(one));
    ///     }
    /// }
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// let to = server.addresses()[0].socket_addr().unwrap();
    /// let mut reactor = server.with(Restless(Default::default())).into_reactor()?;
    /// let mut client = TcpStream::connect(to)?;
    /// client.write_all(b"hello")?;
    /// for _ in 0..20 {
    ///     reactor.turn(Some(std::time::Duration::from_millis(1)))?;
    /// }
    /// let mut room = [0; 5];
    /// client.read_exact(&mut room)?;
    /// assert_eq!(&room, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hand_over(
        &mut self,
        which: impl Fn(&Peer) -> bool + 'static,
        to: impl FnMut(HandedConnection) + 'static,
    ) {
        self.requests.urgent().leaving = Some(Leaving {
            which: Box::new(which),
            to: Box::new(to),
        });
    }

    /// Goes on with a connection that another process has [handed over](Self::hand_over). It counts as
    /// accepted, and is refused like any other if there is no room or if the factory makes no protocol.
    /// A server that gives each connection a thread or a process closes it.
    pub fn adopt(&mut self, connection: HandedConnection) {
        self.requests.urgent().coming.push(connection);
    }
}

impl<P> fmt::Debug for Actions<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions")
            .field("now", &self.now())
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}
