//! Servers in every model that a process with threads can run, and clients on every transport.

use std::io::{self, Read};
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use serveloop::layer::{Event, Observe, Observed};
use serveloop::net::NetworkList;
use serveloop::server::Refusal;
use serveloop::{
    Address, Config, Ended, Factory, Listen, Peer, Protocol, Server, ShutdownHandle, Statistics,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::PATIENCE;
use crate::support::boxed::BoxingAnywhere;

/// A way of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    EventLoop,
    Workers,
    Sequential,
    Threading,
}

impl Model {
    pub(crate) const ALL: [Self; 4] = [
        Self::EventLoop,
        Self::Workers,
        Self::Sequential,
        Self::Threading,
    ];

    /// Those that serve several connections at a time.
    pub(crate) const CONCURRENT: [Self; 3] = [Self::EventLoop, Self::Workers, Self::Threading];

    pub(crate) fn serve<F>(self, server: Server, factory: F) -> io::Result<Statistics>
    where
        F: Factory + Clone + Send,
        F::Protocol: Send + 'static,
    {
        match self {
            Self::EventLoop => server.with(factory).serve_forever(),
            Self::Workers => server.with(factory).serve_workers(2),
            Self::Sequential => server.with(factory).serve_sequential(),
            Self::Threading => server.with(factory).serve_threading(),
        }
    }
}

/// How sessions began and ended, whatever the model.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) made: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// A server on a thread of its own. Dropping it ends it.
pub(crate) struct ModelServer {
    pub(crate) addresses: Vec<Address>,
    pub(crate) handle: ShutdownHandle,
    pub(crate) ends: Arc<Ends>,
    errors: Receiver<String>,
    thread: Option<JoinHandle<io::Result<Statistics>>>,
}

impl ModelServer {
    /// Serves with a closure. A factory with hooks of its own needs [`of_factory`](Self::of_factory).
    pub(crate) fn new<P: Protocol + Send + 'static>(
        model: Model,
        at: &[&str],
        config: Config,
        build: impl FnMut(&Peer) -> Option<P> + Clone + Send + 'static,
    ) -> Self {
        Self::with(model, bind(model, at, config), build)
    }

    pub(crate) fn with<P: Protocol + Send + 'static>(
        model: Model,
        server: Server,
        build: impl FnMut(&Peer) -> Option<P> + Clone + Send + 'static,
    ) -> Self {
        Self::with_factory(model, server, BoxingAnywhere::new(build))
    }

    pub(crate) fn of_factory<F>(model: Model, at: &[&str], config: Config, factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        Self::with_factory(model, bind(model, at, config), factory)
    }

    pub(crate) fn with_factory<F>(model: Model, server: Server, factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let ends = Arc::<Ends>::default();
        let (sender, errors) = mpsc::channel();
        let counting = Counting {
            factory,
            ends: Arc::clone(&ends),
            errors: sender,
        };
        Self {
            addresses: server.addresses().to_vec(),
            handle: server.shutdown_handle(),
            ends,
            errors,
            thread: Some(thread::spawn(move || model.serve(server, counting))),
        }
    }

    /// A client of the first listener.
    #[track_caller]
    pub(crate) fn client(&self) -> Socket {
        connect(&self.addresses[0])
    }

    /// Waits until the factory hears of an error, and returns the peer and the reason.
    #[track_caller]
    pub(crate) fn await_error(&self) -> String {
        let error = self.errors.recv_timeout(PATIENCE);
        error.expect("the factory hears of an error")
    }

    /// Shuts the server down, waits for it to drain, and checks what holds in every model.
    #[track_caller]
    pub(crate) fn end(mut self) -> Statistics {
        self.handle.shutdown();
        self.join()
    }

    /// Waits for a server that was shut down.
    #[track_caller]
    pub(crate) fn join(&mut self) -> Statistics {
        let outcome = self.thread.take().unwrap().join();
        let statistics = outcome.unwrap().unwrap();
        assert_eq!(statistics.accepted, statistics.closed(), "{statistics:?}");
        let [made, lost, dropped] = [&self.ends.made, &self.ends.lost, &self.ends.dropped]
            .map(|count| count.load(Ordering::SeqCst));
        assert_eq!(made, lost, "each session that began ended once");
        assert_eq!(dropped, made, "each protocol was dropped");
        statistics
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            self.handle.shutdown();
            let _ = thread.join();
        }
    }
}

/// Binds as the model needs it.
pub(crate) fn bind(model: Model, at: &[&str], mut config: Config) -> Server {
    config.reuse_port = model == Model::Workers;
    let at: Vec<Listen> = at.iter().map(|uri| uri.parse().unwrap()).collect();
    Server::bind_with(&at, config).unwrap()
}

/// A factory that counts beginnings and ends, and tells of errors.
#[derive(Clone)]
struct Counting<F> {
    factory: F,
    ends: Arc<Ends>,
    errors: Sender<String>,
}

impl<F: Factory> Factory for Counting<F> {
    type Protocol = Observed<F::Protocol, Count>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let protocol = self.factory.build_protocol(peer)?;
        Some(Observed::new(protocol, Count(Arc::clone(&self.ends))))
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        // Not every test waits for it.
        let (peer, reason) = (ended.peer(), ended.reason());
        let _ = self.errors.send(format!("{peer}: {reason}"));
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        self.factory.trusted_proxies(listener)
    }
}

/// Counts what one protocol goes through.
pub(crate) struct Count(Arc<Ends>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Observe for Count {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::ConnectionMade => self.0.made.fetch_add(1, Ordering::SeqCst),
            Event::ConnectionLost(_) => self.0.lost.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
    }
}

/// A stream connection that fails rather than waits without end.
#[track_caller]
pub(crate) fn connect(address: &Address) -> Socket {
    try_connect(address).unwrap()
}

pub(crate) fn try_connect(address: &Address) -> io::Result<Socket> {
    let (domain, to) = match address {
        Address::Tcp(addr) => (Domain::for_address(*addr), SockAddr::from(*addr)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        _ => panic!("{address} is no stream"),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&to)?;
    Ok(socket)
}

/// A datagram socket that talks to `address`, at `own` if it needs a path.
#[track_caller]
pub(crate) fn datagrams(address: &Address, own: &Path) -> Socket {
    let (domain, to, from) = match address {
        Address::Udp(addr) => (
            Domain::for_address(*addr),
            SockAddr::from(*addr),
            SockAddr::from(std::net::SocketAddr::new(addr.ip(), 0)),
        ),
        Address::Unixgram(path) => (
            Domain::UNIX,
            SockAddr::unix(path).unwrap(),
            SockAddr::unix(own).unwrap(),
        ),
        _ => panic!("{address} has no datagrams"),
    };
    let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.bind(&from).unwrap();
    socket.connect(&to).unwrap();
    socket
}

/// How a client sees a connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Eof,
    Reset,
}

/// Reads to the end, and says which it was.
#[track_caller]
pub(crate) fn read_to(stream: &mut Socket) -> (Vec<u8>, End) {
    let mut got = Vec::new();
    let end = match stream.read_to_end(&mut got) {
        Ok(_) => End::Eof,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
        Err(error) => panic!("{error} after {} bytes", got.len()),
    };
    (got, end)
}

/// Ends the client's side.
#[track_caller]
pub(crate) fn finish(stream: &Socket) {
    stream.shutdown(Shutdown::Write).unwrap();
}
