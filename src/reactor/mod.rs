//! The event loop: one thread, all connections.
//!
//! A turn has seven phases, each a line of [`Reactor::turn`]. What comes in here is what the loop does for
//! any connection, on any [`Net`]: readiness, budgets, timers, accepting, limits on peers, datagrams, the
//! end; and the seam to the other models, `Model`. Calling a protocol is the session's, and what only one
//! operating system does is `net`'s.
//!
//! This room imports the values, `session`, `shutdown`, `net` and `sys`.

mod accept;
mod busy_poll;
mod connection;
mod connections;
mod datagram;
mod hub;
mod linger;
mod listeners;
mod log_limit;
mod model;
mod peer_network;
mod readiness;
mod source;
mod timers;

pub(crate) use self::connections::CONNECTIONS_MOST;
pub(crate) use self::datagram::{NOBODY, answer_on_loop, answer_with};
pub(crate) use self::hub::Hub;
pub(crate) use self::linger::{LOOK_AGAIN, Linger};
pub(crate) use self::model::{FIRST_OF_MODEL, Model, TOKENS_OF_MODEL};

mod phases;
mod postponed;

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};
use std::{fmt, io};

use self::postponed::Postponed;
use crate::address::Address;
use crate::config::Config;
use crate::net::{Bound, Event, Mio, Net};
use crate::reactor::accept::Acceptor;
use crate::reactor::busy_poll::BusyPoll;
use crate::reactor::connections::{Connections, FIRST_TOKEN};
use crate::reactor::datagram::Responder;
use crate::reactor::hub::{Effects, Env};
use crate::reactor::listeners::{Listener, Listeners};
use crate::session::{Factory, Input};
use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::statistics::Statistics;
use crate::waker::{Mailbox, Waker, Wakers};

/// Tokens below the first connection's are the listeners', counted from 0, and these.
const WAKER: usize = FIRST_TOKEN - 1;
const SHUTDOWN: usize = FIRST_TOKEN - 2;

/// A turn that takes longer than this has its end for the moment at which things happened.
const LONG: Duration = Duration::from_millis(10);

/// One thread, one loop, any number of listeners and connections.
///
/// [`run`](Self::run) serves until it is shut down; or call [`turn`](Self::turn) yourself, and watch
/// the loop's descriptor ([`AsRawFd`]) in a poller of your own, for at most
/// [`timeout`](Self::timeout) at a time. For the usual server there is [`Server`](crate::Server).
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
pub struct Reactor<F: Factory, N: Net = Mio> {
    net: N,
    factory: F,
    env: Env,
    effects: Effects,
    /// The one buffer that everything is read into.
    input: Input,
    connections: Connections<N::Stream, F::Protocol>,
    listeners: Listeners<N>,
    /// Where connections are served, if not here.
    model: Option<Box<dyn Model<N, F::Protocol>>>,
    events: Vec<Event>,
    busy_poll: BusyPoll,
    /// Outbound connections to be opened.
    connects: Vec<(Address, F::Protocol)>,
    /// Those that could not be opened yet.
    postponed: Postponed<F::Protocol>,
    /// When the factory wants to be asked again.
    again: Option<Instant>,
    shutdown: Shutdown,
    /// How long the last turn's work took, after which the loop waits; and whether the next turn
    /// follows at once, so that it still is that time.
    took: Duration,
    follows: bool,
    /// What takes longer is looked at more closely.
    most: Duration,
    /// Why the last listener failed.
    failure: Option<io::Error>,
}

impl<F: Factory> Reactor<F> {
    /// A loop on the operating system's network, without listeners yet.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration that makes no sense; otherwise the system has no
    /// descriptor for the poller.
    pub fn new(factory: F, config: Config) -> io::Result<Self> {
        Self::with_net(Mio::new()?, factory, config)
    }

    /// Has connections served elsewhere.
    pub(crate) fn set_model(&mut self, model: Box<dyn Model<Mio, F::Protocol>>) {
        self.model = Some(model);
    }

    /// A waker of the loop itself.
    pub(crate) fn waker(&self) -> Waker {
        self.env.mailbox.waker(WAKER)
    }

    /// Serves a socket that is bound already.
    pub(crate) fn adopt(&mut self, bound: Bound) -> io::Result<()> {
        let number = self.listeners.next_number()?;
        let address = bound.address.clone();
        let listener = if address.is_datagram() {
            self.effects.reply_limit.add_own(address.clone());
            let socket = self.net.adopt_datagram(bound, number.into())?;
            Listener::Responder(Responder::new(socket, address))
        } else {
            let listener = self
                .net
                .adopt_listener(bound, &self.env.config, number.into())?;
            Listener::Acceptor(Acceptor::new(listener, address))
        };
        self.listeners.push(listener);
        Ok(())
    }
}

impl<F: Factory, N: Net> Reactor<F, N> {
    /// A loop on any network, for example a simulated one.
    ///
    /// # Errors
    /// As [`new`](Reactor::new).
    pub fn with_net(mut net: N, factory: F, mut config: Config) -> io::Result<Self> {
        config.validate()?;
        config.cap(CONNECTIONS_MOST, TOKENS_OF_MODEL);
        let most = config.slow_turn.map_or(LONG, |slow| slow.min(LONG));
        let mailbox = Mailbox::new(net.waker(WAKER)?);
        let env = Env::new(config, net.now(), mailbox);
        Ok(Self {
            connections: Connections::new(env.config.max_connections),
            busy_poll: BusyPoll::new(env.config.busy_poll),
            input: env.input(),
            effects: Effects::new(),
            env,
            net,
            factory,
            listeners: Listeners::new(),
            model: None,
            events: Vec::new(),
            connects: Vec::new(),
            postponed: Postponed::new(),
            again: None,
            shutdown: Shutdown::default(),
            took: Duration::ZERO,
            follows: false,
            most,
            failure: None,
        })
    }

    /// Serves one more address, and says which it really is: port 0 has become a number. Listeners
    /// are numbered from 0 in this order; see [`Peer::listener`](crate::Peer::listener).
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    pub fn listen(&mut self, at: &Address) -> io::Result<Address> {
        let number = self.listeners.next_number()?;
        let token = number.into();
        let (listener, address) = if at.is_datagram() {
            let (socket, address) = self.net.bind(at, &self.env.config, token)?;
            self.effects.reply_limit.add_own(address.clone());
            (
                Listener::Responder(Responder::new(socket, address.clone())),
                address,
            )
        } else {
            let (listener, address) = self.net.listen(at, &self.env.config, token)?;
            (
                Listener::Acceptor(Acceptor::new(listener, address.clone())),
                address,
            )
        };
        self.listeners.push(listener);
        Ok(address)
    }

    /// Opens a connection to `to`, served by `protocol` like any other. Its establishment is told by
    /// `connection_made`; its failure, also an immediate one, by `connection_lost` alone, with
    /// [`ConnectFailed`](crate::CloseReason::ConnectFailed) or after `connect_timeout`.
    pub fn connect(&mut self, to: Address, protocol: F::Protocol) {
        self.connects.push((to, protocol));
    }

    /// Lets `handle` shut this loop down, from anywhere.
    ///
    /// # Errors
    /// The system does not let us watch it.
    pub fn obey(&mut self, handle: ShutdownHandle) -> io::Result<()> {
        self.net.watch_shutdown(&handle, SHUTDOWN)?;
        self.shutdown.obey(handle);
        Ok(())
    }

    /// Shuts down: the first call drains, the second ends everything with the next turn.
    pub fn shutdown(&mut self) {
        self.shutdown.request();
    }

    /// Serves until a shutdown is complete, or until nothing is left that could ever happen: no
    /// listener, no connection, no call that the factory asked for.
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

    /// Whether [`run`](Self::run) would return.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let over = self.shutdown.has_begun() || self.again.is_none();
        let nobody = self.connections.is_empty() && self.connects.is_empty();
        let nobody = nobody && self.postponed.is_empty();
        let nobody = nobody && self.model.as_ref().is_none_or(|model| model.len() == 0);
        over && nobody && self.listeners.is_empty()
    }

    /// One turn of the loop: waits at most for `timeout` (`None`: until something happens), then
    /// serves everything that is ready once.
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
        self.effects.statistics.turns += 1;
        Ok(())
    }

    /// How long a poller of your own may wait for the loop's descriptor before the next turn; `None`
    /// for as long as it takes.
    pub fn timeout(&mut self) -> Option<Duration> {
        self.now();
        self.took = Duration::ZERO;
        self.patience()
    }

    /// The loop's counters.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.effects.statistics
    }

    /// How many connections are open, those included that wait for their peer's end.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many bytes of memory the connections' buffers have and their protocols
    /// [charged](crate::Transport::charge), which `max_buffered` limits.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.effects.held
    }

    /// The same counted anew: what each connection has added to it, and what each holds.
    #[cfg(feature = "testing")]
    pub(crate) fn recount(&self) -> (usize, usize) {
        self.connections.held()
    }

    /// Where the loop listens, in the order of the listeners' numbers.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.addresses()
    }

    /// The network.
    pub fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// The factory.
    pub fn factory(&mut self) -> &mut F {
        &mut self.factory
    }
}

impl<F: Factory, N: Net> Drop for Reactor<F, N> {
    /// Ends what is still open: every protocol hears of the end.
    fn drop(&mut self) {
        // Connections that were asked for are not begun any more, and hear that too.
        self.shutdown.begin(None);
        self.begin_connects();
        self.end_all(true);
        self.reap();
        debug_assert!(self.model.is_some() || self.effects.peer_limit.is_empty());
        self.listeners.close_all(&mut self.net);
    }
}

impl<F: Factory, N: Net + AsRawFd> AsRawFd for Reactor<F, N> {
    /// Readable when the next turn has something to do; a deadline is told by
    /// [`timeout`](Reactor::timeout) alone.
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
