//! The usual server: bind, then serve.

use std::io;

use crate::address::{Address, Peer};
use crate::config::Config;
use crate::models::{Processes, Sequential, Threads, workers};
use crate::net::{Bound, Mio};
use crate::reactor::{CONNECTIONS_MOST, Model, Reactor, TOKENS_OF_MODEL};
use crate::session::{Factory, Protocol};
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::{LOG_TARGET, sys};

/// Sockets that are bound, and how they are to be served.
///
/// # Which model when
/// The same protocol runs in every model, so it is changed in one line. Begin with the loop; take
/// another one for a reason.
///
/// - **One loop**, [`serve_forever`](Self::serve_forever): when handlers compute for microseconds
///   and wait by [`poll_timeout`](crate::Protocol::poll_timeout) or a waker. An idle connection
///   costs hundreds of bytes, so tens of thousands are nothing special. Connections share state
///   freely, by `Rc` and `RefCell`, since all are on one thread. One core is the limit, and a
///   handler that blocks holds everybody up.
/// - **Workers**, [`serve_workers`](Self::serve_workers): when one core is not enough. Each loop is
///   as above, with a factory and state of its own; what all loops share needs locks.
/// - **Threading**, [`serve_threading`](Self::serve_threading): when a handler blocks, in a database
///   driver, a file, a library. A connection costs a thread, some tens of KiB, and a message costs
///   switches between threads: expect about half of the loop's throughput, or less. Thousands of
///   connections are possible, and not what it is for. Shared state needs locks.
/// - **Forking**, [`serve_forking`](Self::serve_forking): when a handler blocks and may also crash,
///   leak, or change what belongs to the process. A connection costs a process, some tens of KiB
///   and more as soon as it writes to what it inherited, and throughput is somewhat below that of
///   threads; at most `max_children` run at a time. Memory cannot be shared: what a handler changes
///   is gone with it. The process must have one thread when it begins.
/// - **Sequential**, [`serve_sequential`](Self::serve_sequential): when one client at a time is what
///   is wanted, for a device or a tool, and handlers may block. The others wait in the system's
///   queue for as long as the one takes, which the deadlines of [`Config`] bound.
///
/// On the loop and on workers, limits such as `max_connections` count connections that are open; a
/// blocked handler has no deadline in any model, because nobody can stop it but itself. In the other
/// models it holds up its own connection, and the end of a shutdown for at most `drain_timeout`.
///
/// # Panics in a handler
/// A panic ends its own connection, in every model, because it is caught. A program that is built with
/// `panic = "abort"` has nothing to catch: it ends with the first panic, and all its connections with
/// it. Only with forking the child alone ends, and counts as killed.
///
/// # Example
/// ```
/// use serveloop::{Config, Server};
/// use serveloop::protocols::Echo;
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// println!("listening on {}", server.addresses()[0]);
/// let handle = server.shutdown_handle();
/// handle.shutdown(); // from another thread, from a protocol, from a signal handler
/// server.serve_forever(|_| Some(Echo))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    bound: Vec<Bound>,
    addresses: Vec<Address>,
    config: Config,
    handle: ShutdownHandle,
}

impl Server {
    /// Binds all `addresses` and begins to listen: from now on clients can connect, and wait in the
    /// system's queue until they are served.
    ///
    /// # Errors
    /// One of them cannot be bound; the message names it. `InvalidInput` for no address at all, or a
    /// configuration that makes no sense.
    pub fn bind(addresses: &[Address], config: Config) -> io::Result<Self> {
        let server = Self::bind_only(addresses, config)?;
        server.activate()?;
        Ok(server)
    }

    /// Binds all `addresses` without listening: the ports are taken, clients are refused until
    /// [`activate`](Self::activate). Linux lets others bind a TCP port too if all of them
    /// [reuse addresses](Config::reuse_address); who listens first has it. The path of a Unix stream
    /// socket is kept from other servers of this process at once, but from other processes only when
    /// it listens: until then it looks to them like one that a dead server left behind, unless it
    /// listens within 50 ms of their looking.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_only(addresses: &[Address], config: Config) -> io::Result<Self> {
        Self::new(config, |config| {
            let bound = addresses.iter().map(|at| Bound::new(at, config));
            bound.collect()
        })
    }

    /// Binds several places and begins to listen, as [`bind`](Self::bind) does, where a place is what
    /// a name stands for ([`Address::resolve`]). A name may have addresses that this machine has not,
    /// as `localhost` has where IPv6 is off: of each place one address that can be bound suffices,
    /// and the others are warnings in the log.
    ///
    /// ```
    /// use serveloop::{Address, Config, Server};
    ///
    /// let places = [Address::resolve("tcp://localhost:0")?];
    /// let server = Server::bind_places(&places, Config::default())?;
    /// assert!(!server.addresses().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// No address of one of the places can be bound; the message names each, and its reason.
    /// Otherwise as [`bind`](Self::bind).
    pub fn bind_places(places: &[Vec<Address>], config: Config) -> io::Result<Self> {
        let server = Self::new(config, |config| {
            let mut bound = Vec::new();
            for place in places {
                bound.extend(bind_one_of(place, config)?);
            }
            Ok(bound)
        })?;
        server.activate()?;
        Ok(server)
    }

    fn new(
        mut config: Config,
        bind: impl FnOnce(&Config) -> io::Result<Vec<Bound>>,
    ) -> io::Result<Self> {
        config.validate()?;
        config.cap(CONNECTIONS_MOST, TOKENS_OF_MODEL);
        if config.raise_descriptor_limit {
            if let Err(error) = sys::raise_descriptor_limit() {
                log::warn!(target: LOG_TARGET, "cannot raise the limit of descriptors: {error}");
            }
        }
        let bound = bind(&config)?;
        if bound.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no address to listen at",
            ));
        }
        let addresses = bound.iter().map(|bound| bound.address.clone()).collect();
        Ok(Self {
            bound,
            addresses,
            config,
            handle: ShutdownHandle::new().map_err(lacking("cannot make a shutdown handle"))?,
        })
    }

    /// Begins to listen at what [`bind_only`](Self::bind_only) bound. Doing it twice does no harm.
    ///
    /// # Errors
    /// Somebody else listens there; the message names the address.
    pub fn activate(&self) -> io::Result<()> {
        self.bound
            .iter()
            .try_for_each(|bound| bound.listen(self.config.backlog))
    }

    /// Where the server listens, in the order of binding; port 0 has become a number.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// A handle that stops the server from anywhere, before or while it serves.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// Serves by a [`Factory`], which has hooks besides making protocols: `handle_error`,
    /// `service_actions`. What makes protocols alone is a closure, which every `serve_*` takes.
    ///
    /// ```
    /// use serveloop::{CloseReason, Config, Factory, Peer, Server, protocols::Echo};
    ///
    /// struct Watched;
    ///
    /// impl Factory for Watched {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn handle_error(&mut self, peer: &Peer, reason: &CloseReason) {
    ///         eprintln!("{peer}: {reason}");
    ///     }
    /// }
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// server.shutdown_handle().shutdown();
    /// server.with(Watched).serve_forever()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with<F: Factory>(self, factory: F) -> Serving<F> {
        Serving {
            server: self,
            factory,
        }
    }

    /// Serves on one event loop, on this thread, until it is shut down and drained. Returns what
    /// was counted.
    ///
    /// # Errors
    /// The system has no descriptor for the loop, or took the last listener away.
    pub fn serve_forever<P: Protocol>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_forever()
    }

    /// Serves one connection at a time, on this thread, with blocking reads and writes; the others
    /// wait in the system's queue. Datagrams are answered in between.
    ///
    /// Here and in the next two models the process catches SIGURG from then on, by which blocked
    /// calls are ended when the server shuts down.
    ///
    /// # Errors
    /// As [`serve_forever`](Self::serve_forever), or no thread can be made that watches for the
    /// shutdown.
    pub fn serve_sequential<P: Protocol + 'static>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_sequential()
    }

    /// Serves each connection, and answers each datagram, on a thread of its own, with blocking
    /// reads and writes. Protocols may block here; one that hangs holds up nobody else, but the
    /// shutdown until the end of the drain.
    ///
    /// # Errors
    /// As [`serve_forever`](Self::serve_forever). A connection for which there is no thread is
    /// closed and counted.
    pub fn serve_threading<P: Protocol + Send + 'static>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_threading()
    }

    /// Serves each connection, and answers each datagram, in a process of its own, with blocking
    /// reads and writes; at most `max_children` at a time, the others wait. A protocol's changes to
    /// memory stay in its process, where SIGTERM and SIGINT finish the one session as a shutdown
    /// does, unless the server's process ignores them. The parent drops its copy of the protocol, so
    /// that `Drop` runs in both. Where SIGCHLD is ignored, it has its default from then on: the number
    /// of a child that has ended must not become another process's before the server knows.
    ///
    /// # Errors
    /// As [`serve_forever`](Self::serve_forever), or this process has more than one thread. A
    /// connection for which there is no process is closed and counted.
    pub fn serve_forking<P: Protocol + 'static>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_forking()
    }

    /// Serves on `workers` event loops, each on a thread of its own with a factory of its own, and
    /// nothing shared. All loops begin, or none. Stops when it is shut down, or when one loop fails or
    /// panics: the others are shut down then. Counts are added up.
    ///
    /// Each loop has sockets of its own on the same port, among which the system spreads the
    /// clients; that needs [`Config::reuse_port`]. Unix sockets have one path, so the loops share
    /// the one socket there. Limits on connections, peers and memory are each loop's.
    ///
    /// # Errors
    /// As [`serve_forever`](Self::serve_forever); `InvalidInput` for no workers, or without
    /// `reuse_port` for several on an IP address; a worker has no thread, or panicked.
    pub fn serve_workers<P: Protocol>(
        self,
        workers: usize,
        build: impl FnMut(&Peer) -> Option<P> + Clone + Send,
    ) -> io::Result<Statistics> {
        self.with(build).serve_workers(workers)
    }

    /// One server for each of so many loops.
    fn split(self, workers: usize) -> io::Result<Vec<Self>> {
        let ip = self
            .addresses
            .iter()
            .any(|address| address.socket_addr().is_some());
        let problem = match workers {
            0 => "at least one worker is needed",
            2.. if ip && !self.config.reuse_port => "several workers on one port need reuse_port",
            _ => "",
        };
        if !problem.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let copies = (1..workers)
            .map(|_| self.twin())
            .collect::<io::Result<Vec<_>>>()?;
        Ok(std::iter::once(self).chain(copies).collect())
    }

    /// A server at the same addresses, stopped by the same handle.
    fn twin(&self) -> io::Result<Self> {
        let bound = self
            .bound
            .iter()
            .map(|bound| bound.twin(&self.config))
            .collect::<io::Result<Vec<_>>>()?;
        let (addresses, config) = (self.addresses.clone(), self.config.clone());
        let twin = Self {
            bound,
            addresses,
            config,
            handle: self.handle.clone(),
        };
        twin.activate()?;
        Ok(twin)
    }

    fn serve_with<F: Factory>(
        self,
        factory: F,
        model: impl FnOnce(&Reactor<F>) -> io::Result<Box<dyn Model<Mio, F::Protocol>>>,
    ) -> io::Result<Statistics> {
        self.activate()?;
        let mut reactor = self.reactor(factory)?;
        let model = model(&reactor)?;
        reactor.set_model(model);
        serve(reactor)
    }

    /// A loop that serves these sockets, to be turned by hand.
    ///
    /// # Errors
    /// The system has no descriptor for the loop.
    pub fn into_reactor<P: Protocol, B: FnMut(&Peer) -> Option<P>>(
        self,
        build: B,
    ) -> io::Result<Reactor<B>> {
        self.reactor(build)
    }

    fn reactor<F: Factory>(self, factory: F) -> io::Result<Reactor<F>> {
        let mut config = self.config;
        let spare = spare_descriptors(config.reserved_descriptors);
        config.max_connections = config.max_connections.min(spare);
        let mut reactor =
            Reactor::new(factory, config).map_err(lacking("cannot make an event loop"))?;
        for bound in self.bound {
            reactor
                .adopt(bound)
                .map_err(lacking("cannot watch a listener"))?;
        }
        reactor
            .obey(self.handle)
            .map_err(lacking("cannot watch for the shutdown"))?;
        Ok(reactor)
    }
}

/// A server and the factory of its protocols: what [`Server::with`] gives. It serves in the same ways.
#[derive(Debug)]
pub struct Serving<F> {
    server: Server,
    factory: F,
}

impl<F: Factory> Serving<F> {
    /// See [`Server::serve_forever`].
    ///
    /// # Errors
    /// As there.
    pub fn serve_forever(self) -> io::Result<Statistics> {
        let Self { server, factory } = self;
        server.activate()?;
        serve(server.reactor(factory)?)
    }

    /// See [`Server::serve_sequential`].
    ///
    /// # Errors
    /// As there.
    pub fn serve_sequential(self) -> io::Result<Statistics>
    where
        F::Protocol: 'static,
    {
        let Self { server, factory } = self;
        let model = Sequential::new(server.handle.clone(), server.config.drain_timeout).map_err(
            lacking("cannot make the thread that watches for the shutdown"),
        )?;
        server.serve_with(factory, |_| Ok(Box::new(model)))
    }

    /// See [`Server::serve_threading`].
    ///
    /// # Errors
    /// As there.
    pub fn serve_threading(self) -> io::Result<Statistics>
    where
        F::Protocol: Send + 'static,
    {
        let Self { server, factory } = self;
        let (config, handle) = (server.config.clone(), server.handle.clone());
        let descriptors = spare_descriptors(config.reserved_descriptors);
        server.serve_with(factory, |reactor| {
            let model = Threads::new(config, handle, reactor.waker(), descriptors)?;
            Ok(Box::new(model))
        })
    }

    /// See [`Server::serve_forking`].
    ///
    /// # Errors
    /// As there.
    pub fn serve_forking(self) -> io::Result<Statistics>
    where
        F::Protocol: 'static,
    {
        let Self { server, factory } = self;
        let (config, handle) = (server.config.clone(), server.handle.clone());
        server.serve_with(factory, |_| Ok(Box::new(Processes::new(config, handle)?)))
    }

    /// See [`Server::serve_workers`].
    ///
    /// # Errors
    /// As there.
    pub fn serve_workers(self, workers: usize) -> io::Result<Statistics>
    where
        F: Clone + Send,
    {
        let Self { server, factory } = self;
        server.activate()?;
        let handle = server.shutdown_handle();
        let servers = server.split(workers)?;
        // Whatever a factory's copies do, they are made before a thread runs.
        let parts = servers
            .into_iter()
            .map(|server| (server, factory.clone()))
            .collect();
        workers::run(
            parts,
            &handle,
            |(server, factory)| server.reactor(factory),
            |reactor| serve(reactor),
        )
    }

    /// See [`Server::into_reactor`].
    ///
    /// # Errors
    /// As there.
    pub fn into_reactor(self) -> io::Result<Reactor<F>> {
        self.server.reactor(self.factory)
    }
}

/// Turns a loop until its end, and gives what it counted.
fn serve<F: Factory>(mut reactor: Reactor<F>) -> io::Result<Statistics> {
    reactor.run()?;
    Ok(*reactor.statistics())
}

/// Says what could not be had when a server begins.
fn lacking(what: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Binds those of a place's addresses that can be bound, at least one.
fn bind_one_of(place: &[Address], config: &Config) -> io::Result<Vec<Bound>> {
    let (mut bound, mut failed) = (Vec::new(), Vec::new());
    for at in place {
        match Bound::new(at, config) {
            Ok(socket) => bound.push(socket),
            Err(error) => failed.push(error),
        }
    }
    match failed.first() {
        Some(first) if bound.is_empty() => {
            let problems: Vec<_> = failed.iter().map(io::Error::to_string).collect();
            Err(io::Error::new(first.kind(), problems.join("; ")))
        }
        _ => {
            failed
                .iter()
                .for_each(|error| log::warn!(target: LOG_TARGET, "{error}"));
            Ok(bound)
        }
    }
}

/// How many connections the process's descriptors suffice for. A limit that the system does not tell
/// is noticed when it is reached.
fn spare_descriptors(reserved: usize) -> usize {
    let most = sys::descriptor_limits().map_or(usize::MAX, |limits| {
        usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX)
    });
    most.saturating_sub(reserved).max(1)
}
