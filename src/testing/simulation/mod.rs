//! Whole-server simulation: a network, a clock and clients that a seed determines.

mod behind;
mod blocking;
mod exchange;
mod far;
mod faults;
mod hooks;
mod ledger;
mod network;
mod outbound;
mod punctual;
mod random;
mod run;
mod through;
mod timeline;
mod verdict;
mod wire;
mod within;
mod witness;
mod witnessed;

use std::cell::RefCell;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::net::Net;
use crate::session::Factory;
use crate::statistics::Statistics;
use crate::testing::simulation::ledger::{Ledger, SharedLedger};
use crate::testing::simulation::network::Question;
use crate::testing::simulation::random::Random;
use crate::testing::simulation::run::Run;
use crate::testing::simulation::within::MakeFarEnd;
use crate::testing::simulation::witnessed::Witnessed;

pub use exchange::{Exchange, Fate};
pub use faults::Faults;
pub use ledger::Slip;
pub use network::{Call, Handle, Network};
pub use within::Side;

/// How many peers send datagrams if they have sessions.
const PEERS: usize = 3;

/// The most clients and the most datagrams of one run by default.
const CLIENTS_MOST: usize = 8;

/// Runs a server, with the real event loop and the real protocol, on a simulated network.
///
/// Give it the protocol, and what clients send and expect. The seed of a run decides how many
/// clients there are and what they do, how the network cuts, delays and loses what they send, which
/// calls fail and with which error, and how time passes (see [`Faults`]). In every run:
///
/// - Every byte is accounted for. It was delivered once and in order, in both directions, or the
///   connection was ended by something that really happened to it.
/// - The loop never stalls, never turns more than ten times without waiting or moving anything, and
///   never retries at once what has failed many times in a row.
/// - Each protocol's methods are called in the order that [`Protocol`](crate::Protocol) promises.
///   `connection_lost` is called exactly once, and nothing after it. Deadlines are never handled
///   too early, and the loop never waits beyond one.
/// - Budgets and limits are kept, counters add up, and every socket is closed. At the end of each
///   turn, the account of memory matches what all connections hold.
///
/// ```
/// use serveloop::testing::{Exchange, Simulation};
/// use serveloop::{Peer, protocols::Echo};
///
/// Simulation::new(|| |_: &Peer| Some(Echo))
///     .client(Exchange::new("good morning", "good morning"))
///     .run(0..100);
/// ```
///
/// A small exchange runs hundreds of times a second, or thousands in a release build. The same seed
/// gives the same run in any build on any machine.
pub struct Simulation<M> {
    make: M,
    config: Config,
    faults: Faults,
    clients_most: usize,
    clients: Vec<Rc<Exchange>>,
    remotes: Vec<(Address, Rc<Exchange>)>,
    datagrams: Vec<Rc<Question>>,
    /// What peers of outbound sessions of datagrams know, by their addresses.
    far_peers: Vec<(Address, Rc<Question>)>,
    /// The ledger of the current run, for factories that watch what is inside a layer.
    current: Rc<RefCell<SharedLedger>>,
    /// Makes the clients' ends of a layer that talks to them, for one run.
    far_ends: Option<Box<dyn FnMut() -> MakeFarEnd>>,
    driver: Serving,
}

/// What serves the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    Loop,
    /// The blocking driver, one connection at a time.
    Blocking,
}

impl<M, F> Simulation<M>
where
    M: FnMut() -> F,
    F: Factory,
{
    /// Creates a simulation of a server. `make` returns a new factory for each run.
    pub fn new(make: M) -> Self {
        Self {
            make,
            config: Config::default(),
            faults: Faults::all(),
            clients_most: CLIENTS_MOST,
            clients: Vec::new(),
            remotes: Vec::new(),
            datagrams: Vec::new(),
            far_peers: Vec::new(),
            current: Rc::default(),
            far_ends: None,
            driver: Serving::Loop,
        }
    }

    /// Serves the connections as [`serve_sequential`](crate::Server::serve_sequential) does: the
    /// loop accepts, and each connection is served to its end by the driver that blocks, which is
    /// also the one of threads and processes. The others wait meanwhile. Now and then the factory's
    /// [`service_actions`](crate::Factory::service_actions) is called during a wait, as by a server
    /// whose connections have threads of their own.
    ///
    /// ```
    /// use serveloop::testing::{Exchange, Simulation};
    /// use serveloop::{Peer, protocols::Echo};
    ///
    /// Simulation::new(|| |_: &Peer| Some(Echo))
    ///     .client(Exchange::new("good morning", "good morning"))
    ///     .blocking()
    ///     .run(0..100);
    /// ```
    #[must_use]
    pub fn blocking(mut self) -> Self {
        self.driver = Serving::Blocking;
        self
    }

    /// Sets the server's limits. Some runs use smaller values for some of them. The default has all
    /// deadlines on. Without an idle or a write timeout, a client that vanishes would keep its
    /// connection open without end, so no client vanishes then.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets which faults can happen. By default all can, at their usual rates.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Sets the most clients, and the most datagrams, of one run. The default is 8, and 0 counts as
    /// 1.
    #[must_use]
    pub fn at_most(mut self, clients: usize) -> Self {
        self.clients_most = clients.max(1);
        self
    }

    /// Adds a kind of client. If there are several, each run draws from them.
    #[must_use]
    pub fn client(mut self, exchange: Exchange) -> Self {
        self.clients.push(Rc::new(exchange));
        self
    }

    /// Adds a peer that the server can connect to. The exchange says what that peer sends and must
    /// receive.
    ///
    /// # Panics
    /// Panics if the address is one of datagrams: see [`remote_datagram`](Self::remote_datagram).
    #[must_use]
    #[track_caller]
    pub fn remote(mut self, address: Address, exchange: Exchange) -> Self {
        let is_datagram = address.is_datagram();
        assert!(
            !is_datagram,
            "{address} has no streams: use remote_datagram"
        );
        self.remotes.push((address, Rc::new(exchange)));
        self
    }

    /// Adds a kind of datagram and its reply, or `None` if there must be no reply. If the configuration
    /// gives peers [sessions](Config::sessions), few peers send all of them, and the network may
    /// deliver one twice; each that is delivered must be answered by one datagram.
    #[must_use]
    pub fn datagram(mut self, request: impl AsRef<[u8]>, reply: Option<&[u8]>) -> Self {
        self.datagrams.push(Question::new(request, reply));
        self
    }

    /// Adds a peer of the outbound sessions of datagrams that the server begins, with a datagram that the
    /// peer knows and its reply, or `None` if it has none. Further calls with the same address add to what
    /// the peer knows, and anything else must not be sent there. At an address that was not given,
    /// no program listens: the network may say so.
    ///
    /// Datagrams are lost, arrive twice and overtake each other, calls fail, third parties forge replies
    /// and reports (see [`Faults`]). Whatever that does to the protocol, what it writes must be sent once
    /// and in order, unless the system refuses it, and each datagram that arrives must be shown once.
    ///
    /// ```
    /// use serveloop::testing::{Exchange, Simulation};
    /// use serveloop::{Actions, Factory, Peer, Protocol, Result, Transport, protocols::Echo};
    /// use std::time::{Duration, Instant};
    ///
    /// /// Echoes to clients, and asks another server for the time until it is told.
    /// struct Clocked;
    ///
    /// struct Asking(Option<Instant>);
    ///
    /// impl Protocol for Asking {
    ///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
    ///         self.handle_timeout(transport);
    ///         Ok(())
    ///     }
    ///
    ///     fn datagram_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         if data == b"half past six" {
    ///             transport.close();
    ///         }
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn poll_timeout(&self) -> Option<Instant> {
    ///         self.0
    ///     }
    ///
    ///     fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
    ///         transport.write(b"time?");
    ///         self.0 = Some(transport.now() + Duration::from_secs(1));
    ///     }
    /// }
    ///
    /// impl Factory for Clocked {
    ///     type Protocol = Box<dyn Protocol>;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Self::Protocol> {
    ///         Some(Box::new(Echo))
    ///     }
    ///
    ///     fn started(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
    ///         actions.connect("udp://10.0.2.3:123".parse().expect("an address"), Box::new(Asking(None)));
    ///     }
    /// }
    ///
    /// Simulation::new(|| Clocked)
    ///     .client(Exchange::new("hello", "hello"))
    ///     .remote_datagram("udp://10.0.2.3:123".parse()?, "time?", Some(b"half past six"))
    ///     .run(0..100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Panics if the address is not one of UDP.
    #[must_use]
    #[track_caller]
    pub fn remote_datagram(
        mut self,
        address: Address,
        request: impl AsRef<[u8]>,
        reply: Option<&[u8]>,
    ) -> Self {
        let is_udp = matches!(address, Address::Udp(_));
        assert!(is_udp, "{address}: outbound sessions of datagrams need UDP");
        let question = Question::new(request, reply);
        self.far_peers.push((address, question));
        self
    }

    /// Returns a new factory.
    pub(in crate::testing) fn make_factory(&mut self) -> F {
        (self.make)()
    }

    /// Runs every seed in `seeds`.
    ///
    /// # Panics
    /// Panics at the first seed that finds a problem. The message says what is wrong and how to
    /// replay it.
    #[track_caller]
    pub fn run(&mut self, seeds: Range<u64>) {
        for seed in seeds {
            if let Err(failure) = self.check(seed) {
                panic!("{failure}");
            }
        }
    }

    /// Runs one seed.
    ///
    /// # Errors
    /// Returns what is wrong and how to replay it.
    pub fn check(&mut self, seed: u64) -> Result<Report, Failure> {
        self.check_through(seed, |network| network)
    }

    /// Runs one simulation whose choices come from `bytes`, for a fuzzer. Each byte decides one
    /// choice, in the order in which the run makes them. When the bytes run out, a hash of them is
    /// the seed.
    ///
    /// # Errors
    /// Returns what is wrong and how to replay it.
    pub fn check_bytes(&mut self, bytes: &[u8]) -> Result<Report, Failure> {
        self.simulate(&Choices::Bytes(bytes.to_vec()), |network| network)
    }

    /// Runs one seed on a network that `wrap` has changed. The change may make the network lie, to
    /// check that the simulation notices, or make one call fail ([`Network::fail`]).
    ///
    /// # Errors
    /// Returns what is wrong and how to replay it.
    pub fn check_through<N>(
        &mut self,
        seed: u64,
        wrap: impl FnOnce(Network) -> N,
    ) -> Result<Report, Failure>
    where
        N: Net + AsMut<Network>,
    {
        self.simulate(&Choices::Seed(seed), wrap)
    }

    fn simulate<N>(
        &mut self,
        choices: &Choices,
        wrap: impl FnOnce(Network) -> N,
    ) -> Result<Report, Failure>
    where
        N: Net + AsMut<Network>,
    {
        let mut random = choices.random();
        let mut faults = self.faults.swarm(&mut random);
        if self.config.limits.idle_timeout.is_none() || self.config.limits.write_timeout.is_none() {
            faults.client_vanishes = 0;
        }

        let config = vary(&self.config, &faults, &mut random);
        let mut ledger = Ledger::new(config.clone());
        ledger.computing = Some((Random::new(random.number()), faults.slow_handlers));
        let ledger: SharedLedger = Rc::new(RefCell::new(ledger));
        self.current.replace(Rc::clone(&ledger));

        let mut shutdown_at = random
            .chance(faults.shutdowns)
            .then(|| random.below(200) as u64);

        let mut network = self.network(random, faults.clone(), &ledger);
        let is_blocking = self.driver == Serving::Blocking;
        ledger.borrow_mut().is_blocking = is_blocking;
        if is_blocking && shutdown_at.take().is_some() {
            // A turn may serve a connection from its beginning to its end.
            network.plan_shutdown();
        }

        let factory = Witnessed::new((self.make)(), &ledger);
        let run = Run::begin(wrap(network), factory, config, ledger, &self.datagrams);
        let run = run.map(|run| if is_blocking { run.blocking() } else { run });
        let outcome = run.and_then(|run| run.finish(shutdown_at));
        outcome.map_err(|problem| Failure {
            choices: choices.clone(),
            problem,
            faults,
        })
    }

    fn network(&mut self, mut random: Random, faults: Faults, ledger: &SharedLedger) -> Network {
        let most = self.clients_most;
        let clients: Vec<_> = draw(&self.clients, most, &mut random);
        let datagrams: Vec<_> = draw(&self.datagrams, most, &mut random);
        let few = random
            .chance(faults.out_of_descriptors)
            .then(|| random.between(1, most));
        let kinds: Vec<_> = clients
            .iter()
            .map(|_| random.chance(faults.passed_descriptors))
            .collect();

        let mut network = Network::new(random, faults, Instant::now(), ledger);
        network.limit_descriptors(few.unwrap_or(usize::MAX));
        if let Some(make) = &mut self.far_ends {
            network.set_far_ends(make());
        }
        for (address, exchange) in &self.remotes {
            network.add_remote(address.clone(), exchange);
        }
        for (address, question) in &self.far_peers {
            network.add_far_peer(address.clone(), question);
        }
        network.draw_stuck();
        for (number, (exchange, is_unix)) in clients.iter().zip(kinds).enumerate() {
            let address = if is_unix {
                Address::Unix(format!("/run/client-{number}").into())
            } else {
                Address::Tcp(client(number))
            };
            network.add_client(address, exchange);
        }

        for (number, question) in datagrams.iter().enumerate() {
            if self.config.sessions {
                network.add_letter_of_peer(Address::Udp(client(number % PEERS)), question);
            } else {
                network.add_letter(Address::Udp(client(number)), question);
            }
        }
        network
    }
}

impl<M> fmt::Debug for Simulation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("clients", &self.clients.len())
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many sessions began.
    pub sessions: u64,
    /// The counters of the event loop.
    pub statistics: Statistics,
    /// How long the run took, in simulated time.
    pub time: Duration,
    /// The calls that can be made to fail, in order, if [`Network::record_calls`] was called.
    pub calls: Vec<Call>,
    /// A hash of the run. It differs if anything went differently.
    pub trace: u64,
}

/// A problem that a run found, and how to replay it.
#[derive(Clone, Debug)]
pub struct Failure {
    choices: Choices,
    problem: String,
    faults: Faults,
}

impl Failure {
    /// Returns what is wrong.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            choices,
            problem,
            faults,
        } = self;

        match choices {
            Choices::Seed(seed) => write!(
                f,
                "seed {seed}: {problem}\nreplay: the same simulation with run({seed}..{})",
                seed + 1
            ),
            Choices::Bytes(bytes) => write!(
                f,
                "{problem}\nreplay: the same simulation with check_bytes(b\"{}\")",
                bytes.escape_ascii()
            ),
        }?;

        write!(f, "\nfaults of 1,000: {faults}")
    }
}

impl std::error::Error for Failure {}

/// The source of a run's choices.
#[derive(Clone, Debug)]
enum Choices {
    Seed(u64),
    Bytes(Vec<u8>),
}

impl Choices {
    fn random(&self) -> Random {
        match self {
            Self::Seed(seed) => Random::new(*seed),
            Self::Bytes(bytes) => Random::of_bytes(bytes),
        }
    }
}

/// Draws between one and `most` items, with repetition.
fn draw<T>(from: &[Rc<T>], most: usize, random: &mut Random) -> Vec<Rc<T>> {
    if from.is_empty() {
        return Vec::new();
    }
    let count = random.between(1, most);
    (0..count)
        .map(|_| Rc::clone(&from[random.below(from.len())]))
        .collect()
}

fn client(number: usize) -> SocketAddr {
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 10_000 + number % 50_000))
}

/// Makes limits as small as possible in some runs.
fn vary(config: &Config, faults: &Faults, random: &mut Random) -> Config {
    let mut config = config.clone();
    if !random.chance(faults.small_limits) {
        return config;
    }
    let small = |usual: usize, random: &mut Random| match random.below(4) {
        0 => 1,
        1 => random.between(1, usual.min(16)),
        2 => random.between(1, usual.min(1_024)),
        _ => usual,
    };

    config.read_per_turn = small(config.read_per_turn, random);
    config.write_per_turn = small(config.write_per_turn, random);
    config.messages_per_turn = small(config.messages_per_turn, random);
    config.accepts_per_turn = small(config.accepts_per_turn, random);
    config.datagrams_per_turn = small(config.datagrams_per_turn, random);
    config.timeouts_per_turn = small(config.timeouts_per_turn, random);
    let kept = config.reserved_outbound;
    config.max_connections = random.pick(&[1 + kept, 3 + kept, config.max_connections]);
    if config.sessions {
        config.max_sessions = random.pick(&[1, 3, config.max_sessions]);
    }
    config.max_per_peer = random.pick(&[1, 3, config.max_per_peer]);
    config.limits.high_water = small(config.limits.high_water, random);
    config.limits.low_water = random.below(config.limits.high_water);
    config
}
