//! The event loop: one thread serves all connections.
//!
//! A turn of the loop has seven phases, one line each in [`Reactor::turn`]. This room holds what
//! the loop does for any connection on any [`Net`]: readiness, budgets, timers, accepting, limits
//! on peers, datagrams and endings. It also defines `Model`, the interface to other ways of serving
//! a connection. Calling a protocol belongs to `session`, and what only one operating system does
//! belongs to `net`.
//!
//! This room imports the values, `session`, `shutdown`, `net` and `sys`, and the desk of `service::monitor`.

mod accept;
mod busy_poll;
mod connection;
mod connections;
mod connects;
mod datagram;
mod hub;
mod linger;
mod listeners;
mod log_limit;
mod model;
mod monitored;
mod numbers;
mod patience;
mod peer_network;
mod readiness;
mod source;
mod timers;
mod token;

pub(crate) use self::connections::CONNECTIONS_MOST;
pub(crate) use self::datagram::{answer_on_loop, answer_with};
pub(crate) use self::hub::Hub;
pub(crate) use self::model::{FIRST_OF_MODEL, Model, TOKENS_OF_MODEL};
pub(crate) use self::token::NOBODY;

mod phases;
mod postponed;
mod relief;
mod requests;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use self::postponed::Postponed;
use crate::address::{Address, Listen, Target};
use crate::config::Config;
use crate::net::{Bound, EVENTS_MOST, Event, Mio, Net, bind_listen};
use crate::reactor::accept::Acceptor;
use crate::reactor::busy_poll::BusyPoll;
use crate::reactor::connections::Connections;
use crate::reactor::datagram::{Responder, Sessions};
use crate::reactor::hub::{Effects, Env};
use crate::reactor::listeners::{Listener, Listeners};
use crate::reactor::monitored::Monitored;
use crate::reactor::token::FIRST_TOKEN;
use crate::session::{Connect, Factory, Input, Requests, Tick, nanos};
use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::statistics::Statistics;
use crate::waker::{Mailbox, Waker, Wakers};

/// Tokens below those of connections belong to the listeners, counted from 0, to a model's own
/// events, and to these two.
const WAKER: usize = FIRST_TOKEN - 1;
const SHUTDOWN: usize = FIRST_TOKEN - 2;

/// After a turn that takes longer than this, its events count as having happened at its end.
const LONG: Duration = Duration::from_millis(10);

/// A loop on one thread, with any number of listeners and connections.
///
/// Call [`run`](Self::run) to serve until shutdown. Most servers use [`Server`](crate::Server)
/// instead.
///
/// ```
/// use serveloop::{Address, Config, Peer, Reactor};
/// use serveloop::protocols::Echo;
/// use std::time::Duration;
///
/// let mut reactor = Reactor::new(|_: &Peer| Some(Echo), Config::default())?;
/// let address = reactor.listen(&"tcp://127.0.0.1:0".parse::<Address>()?)?;
/// reactor.turn(Some(Duration::ZERO))?;
/// assert_ne!(address.to_string(), "tcp://127.0.0.1:0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Inside another loop
/// To embed the loop in another one, watch its descriptor ([`AsFd`]) until it is readable, for up to
/// [`timeout`](Self::timeout), and then run one [`turn`](Self::turn). Any poller will do, of levels
/// or of edges; this is mio's:
///
/// ```
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
///
/// use mio::{Events, Interest, Poll, Token, unix::SourceFd};
/// use serveloop::{Config, Server, protocols::Echo};
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// # server.shutdown_handle().shutdown();
/// let mut reactor = server.into_reactor(|_: &_| Some(Echo))?;
///
/// let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
/// let descriptor = reactor.as_raw_fd();
/// poll.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)?;
///
/// while !reactor.is_finished() {
///     // Your own descriptors can be in the same poller.
///     poll.poll(&mut events, reactor.timeout())?;
///     reactor.turn(Some(Duration::ZERO))?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reactor<F: Factory, N: Net = Mio> {
    net: N,
    factory: F,
    env: Env,
    effects: Effects,
    /// The buffer that everything is read into.
    input: Input,
    connections: Connections<N::Stream, F::Protocol>,
    /// The sessions of datagram sockets.
    sessions: Sessions<F::Protocol, N::Datagram>,
    listeners: Listeners<N>,
    /// Serves connections in place of the loop, if there is one.
    model: Option<Box<dyn Model<N, F::Protocol>>>,
    events: Vec<Event>,
    busy_poll: BusyPoll,
    /// How much was held when the alarm for posts was set.
    alarmed: usize,
    /// What the factory has asked for: outbound connections, and when to be called again.
    requests: Requests<F::Protocol>,
    /// Outbound connections that the system could not begin yet.
    postponed: Postponed<F::Protocol>,
    /// The factory knows that the loop serves, and when it may be told next that its time has come.
    has_started: bool,
    next_tick: Tick,
    /// When the factory is to be told, as it said before the wait.
    factory_due: Option<Tick>,
    /// The factory wants the loop to end with its last connection.
    is_retired: bool,
    shutdown: Shutdown,
    /// What the network's count of nanoseconds was when the clock began.
    zero: u64,
    /// When the last turn's work ended, and whether the next turn follows at once. If it does not,
    /// `ended` is measured anew before the wait.
    ended: Tick,
    follows: bool,
    /// Nothing has work but the connections of this turn's events.
    is_direct: bool,
    /// A turn that takes longer than this, in nanoseconds, is examined more closely.
    most: u64,
    /// The turns are counted for a monitor, if there is one.
    monitored: Option<Box<Monitored>>,
    /// Why the last listener failed.
    failure: Option<io::Error>,
}

impl<F: Factory> Reactor<F> {
    /// Creates a loop on the operating system's network, without listeners.
    ///
    /// # Errors
    /// `InvalidInput`, with a [`ConfigError`](crate::ConfigError) inside, if the configuration makes
    /// no sense. Otherwise the system has no descriptor left for the poller.
    pub fn new(factory: F, config: Config) -> io::Result<Self> {
        Self::with_net(Mio::new()?, factory, config)
    }

    /// Returns the loop's mailbox.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.env.mailbox
    }

    /// Returns a waker of the loop itself.
    pub(crate) fn waker(&self) -> Waker {
        self.env.mailbox.waker(WAKER)
    }

    /// Serves a socket that is already bound.
    pub(crate) fn adopt(&mut self, bound: Bound) -> io::Result<()> {
        let config = bound.config().clone();
        let listener = self.watch(bound)?;
        self.add(listener, config);
        Ok(())
    }

    /// Serves a further socket of the listener with this number. No listener can be added afterwards,
    /// since their numbers are those of their places.
    pub(crate) fn adopt_other(&mut self, bound: Bound, number: usize) -> io::Result<()> {
        let listener = self.watch(bound)?;
        self.listeners.push_other(listener, number);
        Ok(())
    }

    fn watch(&self, bound: Bound) -> io::Result<Listener<Mio>> {
        let place = self.listeners.next_number()?;
        let (address, config) = (bound.address.clone(), bound.config().clone());
        Ok(if address.is_datagram() {
            let socket = self.net.adopt_datagram(bound, place.into())?;
            Listener::Responder(Responder::new(socket, address, &config))
        } else {
            let listener = self.net.adopt_listener(bound, place.into())?;
            Listener::Acceptor(Acceptor::new(listener, address))
        })
    }
}

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Creates a loop on any network, for example a simulated one.
    ///
    /// # Errors
    /// The same as for [`new`](Reactor::new).
    pub fn with_net(mut net: N, factory: F, mut config: Config) -> io::Result<Self> {
        config.validate()?;
        config.cap(CONNECTIONS_MOST, TOKENS_OF_MODEL);

        let most = config.slow_turn.map_or(LONG, |slow| slow.min(LONG));
        let mailbox = Mailbox::new(net.waker(WAKER)?);
        let env = Env::new(config, net.now(), mailbox, net.sockets());
        env.mailbox.set_alarm(env.crowded_at());
        // Read after the clock's beginning, so that no moment seems to be later than it is.
        let zero = net.nanos().unwrap_or(0);

        Ok(Self {
            connections: Connections::new(env.config.max_connections),
            sessions: Sessions::default(),
            busy_poll: BusyPoll::new(env.config.busy_poll),
            alarmed: 0,
            input: env.input(),
            effects: Effects::new(),
            env,
            net,
            factory,
            listeners: Listeners::new(),
            model: None,
            events: Vec::new(),
            requests: Requests::new(),
            postponed: Postponed::new(),
            has_started: false,
            next_tick: Tick::ZERO,
            factory_due: None,
            is_retired: false,
            shutdown: Shutdown::default(),
            zero,
            ended: Tick::ZERO,
            follows: false,
            is_direct: false,
            most: nanos(most),
            monitored: None,
            failure: None,
        })
    }

    /// Lets `model` serve the connections.
    pub(crate) fn set_model(&mut self, model: Box<dyn Model<N, F::Protocol>>) {
        self.model = Some(model);
    }

    /// Listens at one more address, and returns the actual one, with a real port in place of 0.
    /// Listeners are numbered from 0 in the order of these calls; see
    /// [`Peer::listener`](crate::Peer::listener).
    ///
    /// # Errors
    /// The address cannot be bound, and the message names it; or there are too many listeners
    /// (`InvalidInput`).
    pub fn listen(&mut self, at: &Address) -> io::Result<Address> {
        self.listen_with(&Listen::from(at.clone()))
    }

    /// Listens like [`listen`](Self::listen), with the options of this listener.
    ///
    /// # Errors
    /// Fails like [`listen`](Self::listen), or if an option does not fit the address or the socket
    /// was [passed](crate::service::activation) to this process (`InvalidInput`): that takes a
    /// [`Server`](crate::Server).
    pub fn listen_with(&mut self, listen: &Listen) -> io::Result<Address> {
        let number = self.listeners.next_number()?;
        self.check_kind(listen.address())?;
        if listen.socket().is_some() {
            let problem = format!("{listen}: a socket that was passed is served by a Server");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let net = &mut self.net;

        let (listener, config) = bind_listen(listen, &self.env.config, |at, config| {
            let listener = if at.is_datagram() {
                let (socket, address) = net.bind(at, config, number.into())?;
                Listener::Responder(Responder::new(socket, address, config))
            } else {
                let (listener, address) = net.listen(at, config, number.into())?;
                Listener::Acceptor(Acceptor::new(listener, address))
            };
            Ok((listener, config.clone()))
        })?;

        let address = listener.address().clone();
        self.add(listener, config);
        Ok(address)
    }

    /// Adds a listener, which was bound with this configuration: the loop's, changed by the listener's
    /// options.
    fn add(&mut self, listener: Listener<N>, config: Config) {
        let address = listener.address();
        if address.is_datagram() {
            self.effects.reply_limit.add_own(address.clone());
        }
        self.env.push_listener_limits(config.limits);
        let mut proxies = config.trusted_proxies;
        if proxies.is_empty() {
            let number = self.listeners.next_number().unwrap_or(u16::MAX);
            let believed = self.factory.trusted_proxies(number.into());
            proxies = believed.unwrap_or_default();
        }
        self.effects.peer_limit.add_listener(proxies);
        self.listeners.push(listener);
    }

    /// Returns an error if `address`, the next listener's, is one of datagrams, and its protocols need
    /// streams.
    pub(crate) fn check_kind(&self, address: &Address) -> io::Result<()> {
        let number = self.listeners.next_number()?;
        if !address.is_datagram() || !self.factory.needs_stream(number.into()) {
            return Ok(());
        }
        let problem = format!("{address}: this protocol needs a stream, and a datagram is none");
        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
    }

    /// Opens a connection to `to`, which `protocol` serves like any other. The next turn begins it.
    /// Success is reported by `connection_made`. Failure, even an immediate one, is reported by
    /// `connection_lost` alone: with [`ConnectFailed`](crate::CloseReason::ConnectFailed), with
    /// [`TimedOut`](crate::CloseReason::TimedOut) after `connect_timeout`, or with
    /// [`Shutdown`](crate::CloseReason::Shutdown) if the loop shuts down.
    ///
    /// An address of UDP begins a session of datagrams, on a socket of its own that is connected to the
    /// peer. It is made at once, since UDP has no handshake, and
    /// [`datagram_undelivered`](crate::Protocol::datagram_undelivered) may tell that no program is there. Unix
    /// datagrams cannot be connected: the socket would have no name to answer to.
    pub fn connect(&mut self, to: Address, protocol: F::Protocol) {
        self.connect_to(to.into(), protocol);
    }

    /// Opens a connection like [`connect`](Self::connect) to a [`Target`]: a name, which is looked up on a
    /// thread, or several addresses, of which the first to answer is used. `connect_timeout` is for all of
    /// that together, and a failure is told once, with the reason for each address.
    ///
    /// The protocol's peer is the address that has answered, or the first one if none has. For a name
    /// that was not found it is `tcp://0.0.0.0:0`.
    pub fn connect_to(&mut self, target: Target, protocol: F::Protocol) {
        let connect = Connect::new(target, protocol);
        self.requests.connects.push(connect);
    }

    /// Lets `handle` shut this loop down from any thread.
    ///
    /// # Errors
    /// The system cannot watch the handle.
    pub fn obey(&mut self, handle: ShutdownHandle) -> io::Result<()> {
        self.net.watch_shutdown(&handle, SHUTDOWN)?;
        self.shutdown.obey(handle);
        Ok(())
    }

    /// Shuts down. The first call starts the drain; the second ends everything in the next turn.
    pub fn shutdown(&mut self) {
        self.shutdown.request();
    }

    /// Serves until a shutdown is complete, or until nothing can happen any more: no listener, no
    /// connection, and no call that the factory asked for.
    ///
    /// # Errors
    /// The poller failed, or the last listener did.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_finished() {
            self.turn(None)?;
            self.follows = true;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Returns whether [`run`](Self::run) would return now. A loop that has not begun is not finished: its
    /// factory may ask for connections when it begins, or have been asked for some.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if !self.has_started {
            return false;
        }
        let nobody = self.connections.is_empty() && self.sessions.is_empty();
        let nobody = nobody && self.requests.connects.is_empty();
        let nobody = nobody && self.postponed.is_empty();
        let nobody = nobody && self.model.as_ref().is_none_or(|model| model.len() == 0);
        let asked = || self.requests.again.is_some() || self.ask_factory().flatten().is_some();
        let ends = self.shutdown.has_begun() || self.is_retired;
        nobody && self.listeners.is_empty() && (ends || !asked())
    }

    /// Runs one turn of the loop: waits up to `timeout` (`None`: until something happens or a
    /// deadline passes), then serves once everything that is ready.
    ///
    /// # Errors
    /// The poller failed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.wait(timeout)?;
        self.now();
        self.dispatch();
        self.expire();
        self.drive();
        self.service_actions();
        self.reap();
        let turns = &mut self.effects.statistics.turns;
        *turns = turns.wrapping_add(1);
        Ok(())
    }

    /// Returns how long your own poller may wait for the loop's descriptor before the next turn.
    /// `None` means without limit.
    pub fn timeout(&mut self) -> Option<Duration> {
        // More events may be left, which a poller of edges has reported already.
        if self.events.len() >= EVENTS_MOST || !self.has_started {
            return Some(Duration::ZERO);
        }

        self.now();
        self.ended = self.env.clock.tick();
        self.patience(self.ask_factory().flatten())
    }

    /// Returns the loop's counters.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.effects.statistics
    }

    /// Returns how many connections are open, including those that wait for their peer to close.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns how many sessions of [datagrams](Config::sessions) there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns how many bytes of memory the connections hold: their buffers and what their
    /// protocols [charged](crate::Transport::charge), and what was [posted](crate::service::Outbox) for
    /// them. `max_buffered` limits it.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.effects.held_with(&self.env)
    }

    /// Returns what connections hold without what was posted for them, counted in three ways: the sum
    /// as it is kept, the sum of what each connection added, and the sum of what each holds now.
    #[cfg(feature = "testing")]
    pub(crate) fn recount(&self) -> (usize, usize, usize) {
        let (added, held) = self.connections.held();
        (self.effects.held, added, held)
    }

    /// Returns the addresses of the listeners, in the order of their numbers.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.addresses()
    }

    /// Returns the network.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// Returns the factory.
    pub fn factory(&mut self) -> &mut F {
        &mut self.factory
    }
}

impl<F: Factory, N: Net> Drop for Reactor<F, N> {
    /// Ends everything that is still open, and tells every protocol.
    fn drop(&mut self) {
        // Requested connections are not begun any more, and their protocols are told too.
        self.shutdown.begin(None);
        self.begin_connects();
        self.end_all(true);
        self.reap();
        debug_assert!(self.model.is_some() || self.effects.peer_limit.is_empty());
        debug_assert_eq!(self.effects.live, 0, "each connection that began has ended");
        self.listeners.close_all(&mut self.net);
        self.end_monitored();
    }
}

impl<F: Factory, N: Net + AsFd> AsFd for Reactor<F, N> {
    /// Returns a descriptor that is readable when the next turn has events to handle, including
    /// wakes and shutdown requests from other threads. Deadlines, and work that the last turn left,
    /// do not make it readable: see [`timeout`](Reactor::timeout).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }
}

impl<F: Factory, N: Net + AsRawFd> AsRawFd for Reactor<F, N> {
    /// Returns the number of the descriptor that [`AsFd`] lends.
    fn as_raw_fd(&self) -> RawFd {
        self.net.as_raw_fd()
    }
}

impl<F: Factory, N: Net> fmt::Debug for Reactor<F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.connections.len();
        f.debug_struct("Reactor")
            .field("connections", &connections)
            .finish_non_exhaustive()
    }
}
