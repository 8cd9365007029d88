//! A server under a network, a clock and clients that a seed determines.

mod exchange;
mod faults;
mod ledger;
mod network;
mod random;
mod run;
mod timeline;
mod wire;
mod witness;

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
use crate::testing::simulation::witness::Witnessed;

pub use exchange::Exchange;
pub use faults::Faults;
pub use ledger::Slip;
pub use network::{Call, Handle, Network};

/// The most clients and datagrams of one run, unless said otherwise.
const CLIENTS_MOST: usize = 8;

/// Runs a server, the real loop and the real protocol, under a simulated network.
///
/// Give it the protocol and what clients say and expect. A run's seed decides how many clients there
/// are and what they do, how the network cuts, delays and loses what they send, which calls fail and
/// with which error, how time passes: see [`Faults`]. Whatever happens,
///
/// - every byte is accounted for: delivered once and in order, both ways, or the connection was ended
///   by something that really happened to it;
/// - the loop never stalls, never turns more than ten times without waiting or moving anything, and
///   tries nothing again at once that has failed many times in a row;
/// - each protocol's methods are called in the order that [`Protocol`](crate::Protocol) promises,
///   none after `connection_lost`, which comes exactly once; deadlines are never too early, and the loop
///   never waits beyond one;
/// - budgets and limits are kept, counters add up, every socket is given back, and at the end of each
///   turn the account of what all connections keep is what they keep.
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
/// It is fast: hundreds of runs a second for a small exchange, thousands in a release build. The same
/// seed gives the same run, in any build, on any machine.
pub struct Simulation<M> {
    make: M,
    config: Config,
    faults: Faults,
    clients_most: usize,
    clients: Vec<Rc<Exchange>>,
    remotes: Vec<(Address, Rc<Exchange>)>,
    datagrams: Vec<Rc<Question>>,
}

impl<M, F> Simulation<M>
where
    M: FnMut() -> F,
    F: Factory,
{
    /// A simulation of a server whose protocols come from what `make` makes, anew for each run.
    pub fn new(make: M) -> Self {
        Self {
            make,
            config: Config::default(),
            faults: Faults::all(),
            clients_most: CLIENTS_MOST,
            clients: Vec::new(),
            remotes: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    /// The server's limits, of which some runs make some smaller. The default has all deadlines on;
    /// with a deadline off, clients that vanish would stay for ever, so that none does.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Which faults there are at all. By default all, at their usual rates.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The most clients, and the most datagrams, of one run. Default 8.
    #[must_use]
    pub fn at_most(mut self, clients: usize) -> Self {
        self.clients_most = clients.max(1);
        self
    }

    /// One kind of client. With several, each run draws.
    #[must_use]
    pub fn client(mut self, exchange: Exchange) -> Self {
        self.clients.push(Rc::new(exchange));
        self
    }

    /// Somebody to whom the server can connect: what that one sends, and has to get.
    #[must_use]
    pub fn remote(mut self, address: Address, exchange: Exchange) -> Self {
        self.remotes.push((address, Rc::new(exchange)));
        self
    }

    /// One kind of datagram, and its reply; `None` if there must be none.
    #[must_use]
    pub fn datagram(mut self, request: impl AsRef<[u8]>, reply: Option<&[u8]>) -> Self {
        self.datagrams.push(Rc::new(Question {
            request: request.as_ref().to_vec(),
            reply: reply.map(<[u8]>::to_vec),
        }));
        self
    }

    /// Runs every seed.
    ///
    /// # Panics
    /// At the first that shows something wrong; the message says what, and how to replay it.
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
    /// Something is wrong.
    pub fn check(&mut self, seed: u64) -> Result<Report, Failure> {
        self.check_through(seed, |network| network)
    }

    /// Runs what `bytes` decide, for a fuzzer: each is one choice in the order in which a run makes
    /// them, and beyond their end a hash of them is the seed.
    ///
    /// # Errors
    /// Something is wrong.
    pub fn check_bytes(&mut self, bytes: &[u8]) -> Result<Report, Failure> {
        self.simulate(&Choices::Bytes(bytes.to_vec()), |network| network)
    }

    /// Runs one seed on a network that `wrap` has changed: made to lie, for example, to see whether
    /// that is found, or to have one call fail ([`Network::fail`]).
    ///
    /// # Errors
    /// Something is wrong.
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
        if self.config.idle_timeout.is_none() || self.config.write_timeout.is_none() {
            faults.client_vanishes = 0;
        }
        let config = vary(&self.config, &faults, &mut random);
        let mut ledger = Ledger::new(config.clone());
        ledger.computing = Some((Random::new(random.number()), faults.slow_handlers));
        let ledger: SharedLedger = Rc::new(RefCell::new(ledger));
        let shutdown_at = random
            .chance(faults.shutdowns)
            .then(|| random.below(200) as u64);
        let network = self.network(random, faults.clone(), &ledger);
        let factory = Witnessed::new((self.make)(), &ledger);
        let run = Run::begin(wrap(network), factory, config, ledger, &self.datagrams);
        let outcome = run.and_then(|run| run.finish(shutdown_at));
        outcome.map_err(|problem| Failure {
            choices: choices.clone(),
            problem,
            faults,
        })
    }

    fn network(&self, mut random: Random, faults: Faults, ledger: &SharedLedger) -> Network {
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
        for (address, exchange) in &self.remotes {
            network.add_remote(address.clone(), exchange);
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
            network.add_letter(Address::Udp(client(number)), question);
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

/// What one run was like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Sessions that began.
    pub sessions: u64,
    /// What the loop has counted.
    pub statistics: Statistics,
    /// How long it took, in the simulated time.
    pub time: Duration,
    /// The calls that can be made to fail, in their order, if [`Network::record_calls`] asked.
    pub calls: Vec<Call>,
    /// A number that differs if anything went differently.
    pub trace: u64,
}

/// Something that must not be, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    choices: Choices,
    problem: String,
    faults: Faults,
}

impl Failure {
    /// What is wrong.
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

/// What decides a run.
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

/// Between one and `most` of what there is, each perhaps several times.
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

/// Limits as small as they may be, in some runs.
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
    config.max_connections = random.pick(&[1, 3, config.max_connections]);
    config.max_per_peer = random.pick(&[1, 3, config.max_per_peer]);
    config.high_water = small(config.high_water, random);
    config.low_water = random.below(config.high_water);
    config
}
