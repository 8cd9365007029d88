//! The server: binds addresses, then serves them in one of several execution models.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::{io, iter, mem};

use crate::address::{Address, Listen, Peer};
use crate::config::{Config, Limits};
use crate::models::{Processes, Sequential, Threads, workers};
use crate::net::{Bound, Mio, OpenSockets, Share, bind_one_of, bind_socket, check_listen};
use crate::reactor::{CONNECTIONS_MOST, Model, Reactor, TOKENS_OF_MODEL};
use crate::service::monitor::Monitor;
use crate::session::{Factory, Protocol};
pub use crate::session::{OpenConnection, Refusal};
use crate::shutdown::ShutdownHandle;
use crate::statistics::Statistics;
use crate::sys::{DescriptorLimit, Explained};
use crate::{LOG_TARGET, sys};

/// A set of bound sockets and the limits under which they are served.
///
/// # Which model when
/// The same protocol runs in every model, so switching is a change of one line. Begin with the
/// loop, and choose another model only for a reason.
///
/// - **One loop**, [`serve_forever`](Self::serve_forever): when handlers compute for microseconds
///   and wait through [`poll_timeout`](crate::Protocol::poll_timeout) or a waker. An idle
///   connection costs hundreds of bytes, so tens of thousands of connections are nothing special.
///   All connections are on one thread and share state freely through `Rc` and `RefCell`. The limit
///   is one core, and a handler that blocks holds up every connection.
/// - **Workers**, [`serve_workers`](Self::serve_workers): when one core is not enough. Each worker
///   is a loop as above with its own factory and state. State that all loops share needs locks.
/// - **Threading**, [`serve_threading`](Self::serve_threading): when a handler blocks, for example
///   in a database driver, a file, or a library. A connection costs a thread, some tens of KiB, and
///   a message costs switches between threads. Expect about half of the loop's throughput, or less.
///   Thousands of connections are possible, but the model is not meant for them. Shared state needs
///   locks.
/// - **Forking**, [`serve_forking`](Self::serve_forking): when a handler blocks and may also crash,
///   leak, or change process-wide state. A connection costs a process, some tens of KiB and more as
///   soon as it writes to memory that it inherited. Throughput is somewhat below that of threads,
///   and at most `max_children` processes run at a time. Processes do not share memory, so a
///   handler's changes are lost when its process ends. The server's process must have only one
///   thread when serving begins.
/// - **Sequential**, [`serve_sequential`](Self::serve_sequential): when one client at a time is
///   enough, as for a device or a tool. Handlers may block. Other clients wait in the system's
///   queue until the current one is done, which the deadlines of [`Config`] bound.
///
/// On the loop and on workers, limits such as `max_connections` count open connections. A blocked
/// handler has no deadline in any model, because no other code can stop it. In the threading,
/// forking and sequential models it holds up its own connection, and the end of a shutdown for at
/// most `drain_timeout`.
///
/// # Panics in a handler
/// In every model a panic is caught and ends only its own connection. A program built with
/// `panic = "abort"` cannot catch it: the program ends at the first panic, with all its
/// connections. With forking, only the child ends, and it counts as killed.
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
    /// Further sockets at the addresses with these numbers, which a former process had for its loops.
    others: Vec<(usize, Bound)>,
    sockets: OpenSockets,
    addresses: Vec<Address>,
    /// The number of the place of each address.
    places: Vec<usize>,
    config: Config,
    handle: ShutdownHandle,
    /// What looks into the server, once a monitor was asked for.
    monitor: OnceLock<Monitor>,
}

impl Server {
    /// Binds all `addresses` and begins to listen. From now on clients can connect; they wait in
    /// the system's queue until they are served. Listeners with options of their own are bound by
    /// [`bind_with`](Self::bind_with).
    ///
    /// # Errors
    /// Returns an error that names the address if one of them cannot be bound, and `InvalidInput`
    /// if `addresses` is empty, or if `config` is invalid: then with a
    /// [`ConfigError`](crate::ConfigError) inside.
    pub fn bind(addresses: &[Address], config: Config) -> io::Result<Self> {
        let server = Self::bind_only(addresses, config)?;
        server.activate()?;
        Ok(server)
    }

    /// Binds all `listens` and begins to listen, like [`bind`](Self::bind). Each has options of its
    /// own.
    ///
    /// ```
    /// use serveloop::{Config, Server};
    ///
    /// let listens = ["tcp://:0?keepalive=60s".parse()?, "tcp://127.0.0.1:0".parse()?];
    /// let server = Server::bind_with(&listens, Config::default())?;
    /// assert_eq!(server.addresses().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Fails like [`bind`](Self::bind), and with `InvalidInput` if an option does not fit its
    /// address.
    pub fn bind_with(listens: &[Listen], config: Config) -> io::Result<Self> {
        let server = Self::bind_only_with(listens, config)?;
        server.activate()?;
        Ok(server)
    }

    /// Binds all `addresses` without listening. The ports are taken, and clients are refused until
    /// [`activate`](Self::activate).
    ///
    /// Linux lets other sockets bind the same TCP port if all of them [reuse
    /// addresses](Config::reuse_address); the first one to listen gets it. The path of a Unix
    /// stream socket is reserved at once against other servers of this process, but against other
    /// processes only when it listens. Until then it looks to them like a path that a dead server
    /// left behind, unless it listens within 50 ms of their check.
    ///
    /// # Errors
    /// Fails like [`bind`](Self::bind).
    pub fn bind_only(addresses: &[Address], config: Config) -> io::Result<Self> {
        Self::bind_only_with(&listens_of(addresses), config)
    }

    /// Binds all `listens` without listening, like [`bind_only`](Self::bind_only). Each has options
    /// of its own.
    ///
    /// # Errors
    /// Fails like [`bind_with`](Self::bind_with).
    pub fn bind_only_with(listens: &[Listen], config: Config) -> io::Result<Self> {
        Self::new(config, |config| {
            let bound = listens
                .iter()
                .map(|listen| Ok(vec![bind_socket(listen, config)?]));
            bound.collect()
        })
    }

    /// Binds several places and begins to listen, like [`bind`](Self::bind). A place is the list of
    /// addresses that one name resolves to ([`Address::resolve`]). A name may have addresses that
    /// this machine does not have, such as `localhost` where IPv6 is off. One address per place is
    /// enough; an address that cannot be bound is logged as a warning.
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
    /// Returns an error if no address of a place can be bound; the message names each address and
    /// its reason. Otherwise fails like [`bind`](Self::bind).
    pub fn bind_places(places: &[Vec<Address>], config: Config) -> io::Result<Self> {
        let places: Vec<_> = places.iter().map(|place| listens_of(place)).collect();
        Self::bind_places_with(&places, config)
    }

    /// Binds several places and begins to listen, like [`bind_places`](Self::bind_places). A place
    /// is what [`Listen::resolve`] returns for one URI.
    ///
    /// # Errors
    /// Fails like [`bind_places`](Self::bind_places), and with `InvalidInput` if an option does not
    /// fit its address.
    pub fn bind_places_with(places: &[Vec<Listen>], config: Config) -> io::Result<Self> {
        let server = Self::new(config, |config| {
            let bound = places.iter().map(|place| bind_one_of(place, config));
            bound.collect()
        })?;
        server.activate()?;
        Ok(server)
    }

    /// Checks the configuration and the listeners as [`bind_with`](Self::bind_with) does, as far as that is
    /// possible without a socket: for a program that reads what it will serve later.
    ///
    /// ```
    /// use serveloop::{Config, Server};
    ///
    /// let listen = "tcp://:9999?high-water=1024".parse()?;
    /// let error = Server::check(&[listen], &Config::default()).unwrap_err();
    /// assert!(error.to_string().contains("low_water must be less than high_water"));
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// Fails like [`bind_with`](Self::bind_with), but for what only the system knows.
    pub fn check(listens: &[Listen], config: &Config) -> io::Result<()> {
        config.validate()?;
        listens.iter().try_for_each(|it| check_listen(it, config))
    }

    fn new(
        mut config: Config,
        bind: impl FnOnce(&Config) -> io::Result<Vec<Vec<Bound>>>,
    ) -> io::Result<Self> {
        config.validate()?;
        config.cap(CONNECTIONS_MOST, TOKENS_OF_MODEL);
        if config.raise_descriptor_limit {
            if let Err(error) = sys::raise_descriptor_limit() {
                log::warn!(target: LOG_TARGET, "cannot raise the limit of descriptors: {error}");
            }
        }
        warn_of_few_descriptors(&config);

        let places = bind(&config)?;
        let numbers = places.iter().enumerate();
        let numbers = numbers.flat_map(|(number, bound)| iter::repeat_n(number, bound.len()));
        let numbers = numbers.collect();

        let mut bound: Vec<_> = places.into_iter().flatten().collect();
        if bound.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no address to listen on",
            ));
        }

        let addresses = bound.iter().map(|bound| bound.address.clone()).collect();
        let (sockets, mut others) = (OpenSockets::default(), Vec::new());
        for (number, bound) in bound.iter_mut().enumerate() {
            bound.enter(number, &sockets);
            while let Some(mut other) = bound.take_other() {
                other.enter(number, &sockets);
                others.push((number, other));
            }
        }

        Ok(Self {
            bound,
            others,
            sockets,
            addresses,
            places: numbers,
            config,
            handle: ShutdownHandle::new().map_err(lacking("cannot create a shutdown handle"))?,
            monitor: OnceLock::new(),
        })
    }

    /// Begins to listen on the sockets that [`bind_only`](Self::bind_only) bound. Calling it again
    /// is harmless.
    ///
    /// # Errors
    /// Returns an error that names the address if another socket listens there already.
    pub fn activate(&self) -> io::Result<()> {
        self.bound.iter().try_for_each(Bound::listen)
    }

    /// Binds the sockets of several workers now, for each listener whose peers have
    /// [sessions](Config::sessions). The system assigns a client to one of the sockets by its address,
    /// and anew when there are more of them; a client that speaks before
    /// [`serve_workers`](Self::serve_workers) has bound them may come to another worker later, where it
    /// has no session. Call this before clients learn the address, with the same number. Calling it again
    /// is harmless.
    ///
    /// ```
    /// use serveloop::{Config, Server};
    ///
    /// let config = Config { sessions: true, reuse_port: true, ..Config::default() };
    /// let mut server = Server::bind(&["udp://127.0.0.1:0".parse()?], config)?;
    /// server.bind_workers(4)?;
    /// println!("ready at {}", server.addresses()[0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A socket cannot be bound.
    pub fn bind_workers(&mut self, workers: usize) -> io::Result<()> {
        let numbered = self.bound.iter().enumerate();
        for (number, own) in numbered.filter(|(_, own)| own.parts_peers()) {
            let others = self.others.iter().filter(|(other, _)| *other == number);
            for _ in others.count() + 1..workers {
                self.others
                    .push((number, own.entered_twin(number, &self.sockets)?));
            }
        }
        Ok(())
    }

    /// Returns the addresses of the server in the order of binding. Port 0 is replaced by the port
    /// that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Returns the number of the place of each address, in the order of
    /// [`addresses`](Self::addresses): how many places of [`bind_places`](Self::bind_places) were
    /// given before it. With the other methods each address is a place.
    ///
    /// With this a program finds what it knows about a place by the number of a peer's
    /// [listener](Peer::listener).
    ///
    /// ```
    /// use serveloop::{Address, Config, Server};
    ///
    /// let places = [Address::resolve("tcp://localhost:0")?, Address::resolve("tcp://127.0.0.1:0")?];
    /// let server = Server::bind_places(&places, Config::default())?;
    /// assert_eq!(server.places().first(), Some(&0));
    /// assert_eq!(server.places().last(), Some(&1));
    /// assert_eq!(server.places().len(), server.addresses().len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Returns the limits of the connections of each listener, in the order of
    /// [`addresses`](Self::addresses): those of the [`Config`], changed by the listener's options.
    ///
    /// ```
    /// use serveloop::{Config, Server};
    ///
    /// let listens = ["tcp://127.0.0.1:0".parse()?, "tcp://127.0.0.1:0?max-line=100".parse()?];
    /// let server = Server::bind_with(&listens, Config::default())?;
    /// let longest: Vec<_> = server.limits().map(|limits| limits.max_line).collect();
    /// assert_eq!(longest, [8_192, 100]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limits(&self) -> impl Iterator<Item = &Limits> {
        self.bound.iter().map(|bound| &bound.config().limits)
    }

    /// Returns the sockets that are bound, in the order of [`addresses`](Self::addresses), to set
    /// options that [`Config`] does not have. Accepted connections inherit most options of their
    /// listener on Linux.
    ///
    /// ```
    /// use serveloop::{Config, Server};
    /// use socket2::SockRef;
    ///
    /// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
    /// for socket in server.sockets() {
    ///     SockRef::from(&socket).set_keepalive(true)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// With several workers, each has sockets of its own, which do not have these options.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.bound.iter().map(AsFd::as_fd)
    }

    /// Returns what lists the sockets that the server has open to listen on, before and while it serves,
    /// for a process that goes on with them.
    #[must_use]
    pub fn open_sockets(&self) -> OpenSockets {
        self.sockets.clone()
    }

    /// Returns a handle that stops the server from anywhere, before or while it serves.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// Returns a monitor, which looks into the server while it runs, in any model: counters, gauges,
    /// the connections. See [`service::monitor`](crate::service::monitor). Ask for it before the
    /// server serves. All monitors of a server are one.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.get_or_init(Monitor::new).clone()
    }

    /// Pairs the server with a [`Factory`], which has hooks in addition to making protocols:
    /// `handle_error` and `service_actions`. If you only make protocols, pass a closure to a
    /// `serve_*` method instead.
    ///
    /// ```
    /// use serveloop::{Config, Ended, Factory, Peer, Server, protocols::Echo};
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
    ///     fn handle_error(&mut self, ended: &Ended<'_>) {
    ///         eprintln!("{} ({}): {}", ended.peer(), ended.peer().id(), ended.reason());
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

    /// Serves on one event loop, on this thread, until the server is shut down and drained. Returns
    /// the loop's counters.
    ///
    /// # Errors
    /// Returns an error if the system has no descriptor for the loop, or if the last listener
    /// fails.
    pub fn serve_forever<P: Protocol>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_forever()
    }

    /// Serves one connection at a time, on this thread, with blocking reads and writes. Other
    /// clients wait in the system's queue. Datagrams are answered between connections.
    ///
    /// In this model, and with threading and forking, the process catches SIGURG from then on. The
    /// signal interrupts blocked calls when the server shuts down.
    ///
    /// # Errors
    /// Fails like [`serve_forever`](Self::serve_forever), or if the thread that watches for the
    /// shutdown cannot be created.
    pub fn serve_sequential<P: Protocol + 'static>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_sequential()
    }

    /// Serves each connection, and answers each datagram, on its own thread, with blocking reads
    /// and writes. Protocols may block here. A protocol that hangs holds up no other connection,
    /// but it delays a shutdown until the end of the drain.
    ///
    /// # Errors
    /// Fails like [`serve_forever`](Self::serve_forever). A connection for which no thread can be
    /// created is closed and counted.
    pub fn serve_threading<P: Protocol + Send + 'static>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_threading()
    }

    /// Serves each connection, and answers each datagram, in its own process, with blocking reads
    /// and writes. At most `max_children` processes run at a time; further connections wait.
    ///
    /// A protocol's changes to memory stay in its process. There, SIGTERM and SIGINT finish the one
    /// session like a shutdown, unless the server's process ignores them. The parent drops its copy
    /// of the protocol, so `Drop` runs in both processes. If SIGCHLD is ignored, it is reset to its
    /// default: otherwise the system could reuse the process ID of an ended child before the server
    /// knows that it ended.
    ///
    /// # Errors
    /// Fails like [`serve_forever`](Self::serve_forever), or if this process has more than one
    /// thread. A connection for which no process can be created is closed and counted.
    pub fn serve_forking<P: Protocol + 'static>(
        self,
        build: impl FnMut(&Peer) -> Option<P>,
    ) -> io::Result<Statistics> {
        self.with(build).serve_forking()
    }

    /// Serves on `workers` event loops, each on its own thread with its own factory, and nothing
    /// shared. Either all loops begin or none does. Serving stops when the server is shut down, or
    /// when one loop fails or panics, which shuts down the others. Returns the sum of all counters.
    ///
    /// Each loop has its own sockets on the same port, and the system spreads the clients among
    /// them. A loop that has got more streams than another hands some over, so that all have as many,
    /// within a few in a hundred. This needs [`Config::reuse_port`], or the same option of each listener. A Unix socket has one path, so all loops share that
    /// one socket. The limits on connections, peers and memory apply to each loop.
    ///
    /// # Errors
    /// Fails like [`serve_forever`](Self::serve_forever), or if a worker's thread cannot be created
    /// or panics. Returns `InvalidInput` if `workers` is 0, or if several workers are to share an
    /// IP port without `reuse_port`.
    pub fn serve_workers<P: Protocol>(
        self,
        workers: usize,
        build: impl FnMut(&Peer) -> Option<P> + Clone + Send,
    ) -> io::Result<Statistics> {
        self.with(build).serve_workers(workers)
    }

    /// Splits the server into `workers` servers, one for each loop.
    fn split(mut self, workers: usize) -> io::Result<Vec<Self>> {
        let problem = match workers {
            0 => "at least one worker is needed",
            2.. if !self.bound.iter().all(Bound::can_be_shared) => {
                "several workers on one port need reuse_port"
            }
            _ => "",
        };

        if !problem.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }

        let shared = |bound: &&Bound| bound.has_sessions() && bound.is_one_for_all();
        if let Some(bound) = self.bound.iter().find(shared).filter(|_| workers > 1) {
            let problem = "a peer's datagrams would come to any worker, because they share this socket, \
                           and a session is served by one";
            return Err(refused(&bound.address, problem));
        }

        let copies: io::Result<Vec<_>> = (1..workers).map(|_| self.twin()).collect();
        let left = mem::take(&mut self.others);
        let mut servers: Vec<_> = iter::once(self).chain(copies?).collect();
        for (place, other) in left.into_iter().enumerate() {
            servers[place % workers].others.push(other);
        }
        spread(&mut servers).map(|()| servers)
    }

    /// Returns a second server at the same addresses, stopped by the same handle. It has sockets of a
    /// former process as long as there are any.
    fn twin(&mut self) -> io::Result<Self> {
        let mut bound = Vec::new();
        for (number, own) in self.bound.iter().enumerate() {
            let found = self.others.iter().position(|(other, _)| *other == number);
            bound.push(match found {
                Some(place) => self.others.swap_remove(place).1,
                None => own.entered_twin(number, &self.sockets)?,
            });
        }

        let (addresses, config) = (self.addresses.clone(), self.config.clone());
        let twin = Self {
            bound,
            others: Vec::new(),
            sockets: self.sockets.clone(),
            addresses,
            places: self.places.clone(),
            config,
            handle: self.handle.clone(),
            monitor: self.monitor.clone(),
        };

        twin.activate()?;
        Ok(twin)
    }

    fn serve_with<F: Factory>(
        self,
        factory: F,
        model: impl FnOnce(&Reactor<F>) -> io::Result<Box<dyn Model<Mio, F::Protocol>>>,
    ) -> io::Result<Statistics> {
        if factory.needs_loop() {
            let problem = "this factory needs its connections on the loop, and here they are not";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let lasting = self.bound.iter().find(|bound| bound.has_sessions());
        if let Some(bound) = lasting {
            let problem =
                "sessions of datagrams need the event loop, and connections are served apart";
            return Err(refused(&bound.address, problem));
        }
        self.activate()?;
        let mut reactor = self.reactor(factory)?;
        let model = model(&reactor)?;
        reactor.set_model(model);
        serve(reactor)
    }

    /// Returns an event loop that serves these sockets and whose turns the caller runs.
    ///
    /// # Errors
    /// Returns an error if the system has no descriptor for the loop.
    pub fn into_reactor<P: Protocol, B: FnMut(&Peer) -> Option<P>>(
        self,
        build: B,
    ) -> io::Result<Reactor<B>> {
        self.reactor(build)
    }

    fn reactor<F: Factory>(self, factory: F) -> io::Result<Reactor<F>> {
        let mut config = self.config;
        let spare = sys::spare_descriptors(config.reserved_descriptors);
        config.max_connections = config.max_connections.min(spare);
        let most = config.max_connections.saturating_sub(1);
        config.reserved_outbound = config.reserved_outbound.min(most);

        let mut reactor =
            Reactor::new(factory, config).map_err(lacking("cannot create an event loop"))?;
        for bound in self.bound {
            reactor.check_kind(&bound.address)?;
            reactor
                .adopt(bound)
                .map_err(lacking("cannot watch a listener"))?;
        }
        for (number, bound) in self.others {
            reactor
                .adopt_other(bound, number)
                .map_err(lacking("cannot watch a listener"))?;
        }

        reactor
            .obey(self.handle)
            .map_err(lacking("cannot watch for the shutdown"))?;
        if let Some(monitor) = self.monitor.get() {
            let desk = monitor.register(reactor.mailbox());
            reactor.set_desk(desk);
        }
        Ok(reactor)
    }
}

/// A server and the factory of its protocols, made by [`Server::with`]. It serves in the same
/// models.
///
/// ```
/// use serveloop::server::Serving;
/// use serveloop::{Config, Peer, Server, protocols::Echo};
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// server.shutdown_handle().shutdown();
/// let serving: Serving<_> = server.with(|_: &Peer| Some(Echo));
/// assert_eq!(serving.serve_forever()?.accepted, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Serving<F> {
    server: Server,
    factory: F,
}

impl<F: Factory> Serving<F> {
    /// Serves like [`Server::serve_forever`].
    ///
    /// # Errors
    /// Fails in the same cases.
    pub fn serve_forever(self) -> io::Result<Statistics> {
        let Self { server, factory } = self;
        server.activate()?;
        serve(server.reactor(factory)?)
    }

    /// Serves like [`Server::serve_sequential`].
    ///
    /// # Errors
    /// Fails in the same cases.
    pub fn serve_sequential(self) -> io::Result<Statistics>
    where
        F::Protocol: 'static,
    {
        let Self { server, factory } = self;
        let model = Sequential::new(server.handle.clone(), server.config.drain_timeout).map_err(
            lacking("cannot start the thread that watches for the shutdown"),
        )?;
        server.serve_with(factory, |_| Ok(Box::new(model)))
    }

    /// Serves like [`Server::serve_threading`].
    ///
    /// # Errors
    /// Fails in the same cases.
    pub fn serve_threading(self) -> io::Result<Statistics>
    where
        F::Protocol: Send + 'static,
    {
        let Self { server, factory } = self;
        let (config, handle) = (server.config.clone(), server.handle.clone());
        let descriptors = sys::spare_descriptors(config.reserved_descriptors);

        server.serve_with(factory, |reactor| {
            let model = Threads::new(config, handle, reactor.waker(), descriptors)?;
            Ok(Box::new(model))
        })
    }

    /// Serves like [`Server::serve_forking`].
    ///
    /// # Errors
    /// Fails in the same cases.
    pub fn serve_forking(self) -> io::Result<Statistics>
    where
        F::Protocol: 'static,
    {
        let Self { server, factory } = self;
        if factory.needs_one_process() {
            let problem = "this factory needs its connections in the process of the server, and here \
                           each has its own";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let (config, handle) = (server.config.clone(), server.handle.clone());
        server.serve_with(factory, |_| Ok(Box::new(Processes::new(config, handle)?)))
    }

    /// Serves like [`Server::serve_workers`].
    ///
    /// # Errors
    /// Fails in the same cases.
    pub fn serve_workers(self, workers: usize) -> io::Result<Statistics>
    where
        F: Clone + Send,
    {
        let Self { server, factory } = self;
        server.activate()?;
        let handle = server.shutdown_handle();
        let servers = server.split(workers)?;
        // All copies are made before any thread runs, because a factory's `clone` is user code.
        let parts = servers
            .into_iter()
            .map(|server| (server, factory.clone()))
            .collect();
        // Each loop has a copy, so what is left has no part in serving.
        drop(factory);

        workers::run(
            parts,
            &handle,
            |(server, factory)| server.reactor(factory),
            |reactor| serve(reactor),
        )
    }

    /// Returns an event loop like [`Server::into_reactor`].
    ///
    /// # Errors
    /// Fails in the same cases.
    pub fn into_reactor(self) -> io::Result<Reactor<F>> {
        self.server.reactor(self.factory)
    }
}

/// Lets the loops of `servers` have as many connections each, of each listener.
fn spread(servers: &mut [Server]) -> io::Result<()> {
    let places = servers.first().map_or(0, |server| server.bound.len());
    for place in 0..places {
        if servers.len() < 2 || servers[0].bound[place].address.is_datagram() {
            continue;
        }
        let shares = Share::of(servers.len()).map_err(lacking("cannot connect the loops"))?;
        for (server, share) in servers.iter_mut().zip(shares) {
            server.bound[place].share = Some(share);
        }
    }
    Ok(())
}

/// Runs a loop until it ends, and returns its counters.
fn serve<F: Factory>(mut reactor: Reactor<F>) -> io::Result<Statistics> {
    reactor.run()?;
    Ok(*reactor.statistics())
}

fn refused(address: &Address, problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {problem}"))
}

/// Warns if descriptors allow fewer connections than `max_connections`. [`Server::reactor`] lowers it to
/// their number.
fn warn_of_few_descriptors(config: &Config) {
    let (most, reserved) = (config.max_connections, config.reserved_descriptors);
    let spare = sys::spare_descriptors(reserved);
    if spare < most {
        log::warn!(
            target: LOG_TARGET,
            "max_connections is lowered from {most} to {spare}, with {reserved} descriptors reserved: {DescriptorLimit}"
        );
    }
}

/// Adds to an error what the server could not create or do at its start.
fn lacking(what: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {}", Explained(&error)))
}

fn listens_of(addresses: &[Address]) -> Vec<Listen> {
    addresses.iter().cloned().map(Listen::from).collect()
}
