//! Execution models: the options `--model` and `--workers`, and where rate limits are put in force.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::time::Instant;
use std::{io, slice};

use clap::{Args, ValueEnum};
use serveloop::net::NetworkList;
use serveloop::server::Refusal;
use serveloop::server::Serving;
use serveloop::service::notify::{Notified, Notifier};
use serveloop::{Actions, Address, Config, Ended, Factory, Listen, Peer, Server, Statistics};

use crate::failure::Failure;
use crate::logger::{self, LINES_PER_SECOND, TARGET};
use crate::monitoring;
use crate::restart::{RestartHook, Restarts};
use crate::serving::BoundServer;
use crate::serving::bound_server::Around;
use crate::serving::boxed_factory::BoxedFactory;
use crate::serving::chore::Chore;
use crate::serving::door::Doorkeeper;
use crate::serving::encrypted::Encrypted;
use crate::serving::gate::Gate;
use crate::serving::lifetime::Mortal;
use crate::serving::rate::{Limited, Rate};
use crate::serving::statistics_dump::StatisticsDump;
use crate::signals::{tell_from_a_thread, tell_heard};
use crate::units::at_least_one;

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct Execution {
    /// How connections are served
    #[arg(long, global = true, value_enum, default_value_t = Model::EventLoop)]
    model: Model,
    /// How many event loops, each on its own thread, share the clients; only with --model event-loop.
    /// Limits on connections apply to each loop
    #[arg(
        long,
        global = true,
        value_name = "NUMBER",
        default_value = "1",
        value_parser = at_least_one
    )]
    workers: NonZero<usize>,
    #[command(flatten)]
    rate: Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Model {
    /// One event loop on one thread
    EventLoop,
    /// One connection at a time
    Sequential,
    /// A thread for each connection
    Threaded,
    /// A process for each connection, at most --max-children
    Forking,
}

impl Execution {
    /// Prepares what this model needs. It was [checked](Self::check) before.
    pub(crate) fn prepare(
        self,
        places: &mut [Vec<Listen>],
        config: &mut Config,
    ) -> Result<(), Failure> {
        if self.is_forking() {
            share_budget();
        }

        if self.workers.get() == 1 {
            return Ok(());
        }

        // Setting `reuse_port` for our own loops must not silently share the port with another
        // server. The trials all stay bound until the end, so that an address that is given twice
        // is found.
        let mut trials = Vec::new();
        let shared = shared_ports(places);
        for place in places {
            drop_taken(place, config, &shared, &mut trials)?;
        }
        config.reuse_port = true;
        Ok(())
    }

    /// Refuses combinations that make no sense.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.workers.get() > 1 && self.model != Model::EventLoop {
            let problem = "--workers is only for --model event-loop";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(())
    }

    /// Returns how many connections are served at a time, without the limit per peer.
    pub(crate) fn places(self, config: &Config) -> usize {
        match self.model {
            Model::EventLoop | Model::Threaded => config.max_connections,
            Model::Sequential => 1,
            Model::Forking => config.max_children,
        }
    }

    /// Returns the number of loops in this process, each with its own buffers, and whether each
    /// connection has a thread.
    pub(crate) fn parts(self) -> (usize, bool) {
        (self.workers.get(), self.model == Model::Threaded)
    }

    /// Returns whether many connections share a thread.
    pub(crate) fn has_loops(self) -> bool {
        self.model == Model::EventLoop
    }

    /// Returns whether each connection is served by a process that ends with it.
    pub(crate) fn is_forking(self) -> bool {
        self.model == Model::Forking
    }

    /// Serves until the server ends.
    ///
    /// The type of the protocol is hidden from the models, which are compiled once for all of them. Else a
    /// build of this command takes several times as long.
    pub(crate) fn serve<F>(self, server: BoundServer, factory: F) -> io::Result<Statistics>
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        self.serve_boxed(server.into_parts(), BoxedFactory::of(factory), None)
    }

    /// Serves until the server ends, and does a `chore` in between.
    pub(crate) fn serve_with<F>(
        self,
        server: BoundServer,
        factory: F,
        chore: impl Chore + 'static,
    ) -> io::Result<Statistics>
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let chore: Box<dyn Chore> = Box::new(chore);
        self.serve_boxed(server.into_parts(), BoxedFactory::of(factory), Some(chore))
    }

    /// Works like [`serve`](Self::serve), with loops that are compiled for this protocol alone, if nothing
    /// else is around it. That spares a message some instructions.
    pub(crate) fn serve_compiled<F>(self, server: BoundServer, factory: F) -> io::Result<Statistics>
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let (server, around) = server.into_parts();
        if !self.has_loops() || !self.rate.limit().is_unlimited() || around.wraps() {
            return self.serve_boxed((server, around), BoxedFactory::of(factory), None);
        }

        let told = (around.notifier, around.restarts);
        self.serve_in_loops(attend(server, told, factory, None))
    }

    fn serve_boxed(
        self,
        (server, around): (Server, Around),
        mut factory: BoxedFactory,
        chore: Option<Box<dyn Chore>>,
    ) -> io::Result<Statistics> {
        let limit = self.rate.limit();
        let Around {
            doors,
            tls,
            access,
            rate,
            lifetime,
            notifier,
            restarts,
            recorder,
        } = around;
        let told = (notifier, restarts.clone());

        // What is limited are the protocol's own bytes and messages, not those of TLS. The header of a
        // proxy comes before the handshake, and names the client that the gate judges.
        // What is recorded are the protocol's own bytes too.
        if let Some(recorder) = recorder {
            factory = BoxedFactory::of(recorder.record(factory));
        }
        if !limit.is_unlimited() {
            factory = factory.within(Limited(limit));
        }
        if let Some(tls) = tls {
            factory = factory.within(Encrypted::new(tls));
        }
        if access.is_some() || rate.is_some() {
            factory = factory.within(Gate::new(access, rate, restarts));
        }
        if let Some(doors) = doors {
            factory = factory.within(Doorkeeper::new(doors));
        }
        if let Some(lifetime) = lifetime {
            factory = factory.within(Mortal::new(lifetime));
        }

        let serving = attend(server, told, factory, chore);
        match self.model {
            Model::EventLoop => self.serve_in_loops(serving),
            Model::Sequential => {
                // A connection keeps the main thread from the loop, which a signal wakes.
                tell_from_a_thread()?;
                serving.serve_sequential()
            }
            Model::Threaded => serving.serve_threading(),
            Model::Forking => serving.serve_forking(),
        }
    }

    fn serve_in_loops<F>(self, serving: Serving<F>) -> io::Result<Statistics>
    where
        F: Factory + Clone + Send,
    {
        match self.workers.get() {
            1 => serving.serve_forever(),
            workers => serving.serve_workers(workers),
        }
    }
}

/// Gives a server its factory, with everything that the command does between connections around it.
fn attend<F: Factory>(
    server: Server,
    (notifier, restarts): (Option<Notifier>, Option<Restarts>),
    factory: F,
    chore: Option<Box<dyn Chore>>,
) -> Serving<Notified<Attentive<F>>> {
    let handle = server.shutdown_handle();
    let attentive = Attentive {
        factory,
        chore,
        dump: StatisticsDump::new(handle.clone()),
        restart: RestartHook::new(restarts.clone()),
    };
    let factory = Notified::new(notifier, handle, attentive);
    let ready = move || restarts.iter().for_each(Restarts::ready);
    server.with(factory.at_ready(ready))
}

/// Makes the processes of all connections share one budget of log lines. Without it the server
/// works and logs more.
fn share_budget() {
    if let Err(error) = logger::share_log_budget(LINES_PER_SECOND) {
        log::debug!(target: TARGET, "the limit on log lines applies to each process alone: {error}");
    }
}

/// A factory that also does what signals ask for, and a chore.
#[derive(Clone)]
struct Attentive<F> {
    factory: F,
    chore: Option<Box<dyn Chore>>,
    dump: StatisticsDump,
    restart: RestartHook,
}

impl<F: Factory> Factory for Attentive<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<F::Protocol> {
        self.factory.build_protocol(peer)
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.factory.needs_stream(listener)
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn started(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.restart.started(actions);
        self.factory.started(actions);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = self.factory.poll_timeout();
        let due = self.chore.as_ref().and_then(|chore| chore.due());
        let others = due.into_iter().chain(self.restart.due());
        own.into_iter().chain(others).min()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        let now = actions.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some(chore) = &mut self.chore
            && is_due(chore.due())
        {
            chore.run(now);
        }
        if is_due(self.factory.poll_timeout()) {
            self.factory.handle_timeout(actions);
        }
    }

    fn needs_loop(&self) -> bool {
        self.factory.needs_loop()
    }

    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        self.factory.trusted_proxies(listener)
    }

    fn needs_one_process(&self) -> bool {
        self.factory.needs_one_process()
    }

    fn woken(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.woken(actions);
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        tell_heard();
        self.restart.look(actions);
        self.dump.look(actions);
        if let Some(delay) = monitoring::look() {
            actions.call_again(delay);
        }
        self.factory.service_actions(actions);
    }
}

/// Returns the TCP ports at which several places are to listen.
fn shared_ports(places: &[Vec<Listen>]) -> Vec<u16> {
    let port = |listen: &Listen| match listen.address() {
        Address::Tcp(addr) => Some(addr.port()),
        _ => None,
    };
    let mut of_places = Vec::new();
    let mut shared = Vec::new();
    for place in places {
        let ports: BTreeSet<u16> = place.iter().filter_map(port).collect();
        shared.extend(ports.iter().filter(|port| of_places.contains(*port)));
        of_places.extend(ports);
    }
    shared
}

/// Keeps the addresses of a place whose port is free or may be shared, and adds the servers that hold
/// them to `trials`. Fails if there is none.
fn drop_taken(
    place: &mut Vec<Listen>,
    config: &Config,
    shared: &[u16],
    trials: &mut Vec<Server>,
) -> io::Result<()> {
    let mut problems = Vec::new();
    place.retain(|listen| {
        let addr = listen.address().socket_addr();
        let is_tried = addr.is_some_and(|addr| addr.port() != 0)
            && !listen.options().reuse_port.unwrap_or(config.reuse_port);

        let bind = || {
            let server = Server::bind_only_with(slice::from_ref(listen), config.clone())?;
            // Linux lets several sockets have a TCP port until one of them listens.
            if let Address::Tcp(addr) = listen.address()
                && shared.contains(&addr.port())
            {
                server.activate()?;
            }
            Ok(server)
        };
        let trial = is_tried.then(bind);
        match trial.transpose() {
            Ok(server) => {
                trials.extend(server);
                true
            }
            Err(problem) => {
                problems.push(problem);
                false
            }
        }
    });

    match problems.first() {
        Some(first) if place.is_empty() => {
            let all: Vec<_> = problems.iter().map(io::Error::to_string).collect();
            Err(io::Error::new(first.kind(), all.join("; ")))
        }
        _ => {
            problems
                .iter()
                .for_each(|problem| log::warn!(target: TARGET, "{problem}"));
            Ok(())
        }
    }
}
