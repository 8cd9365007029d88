//! The usual server: bind, then serve.

use std::io;

use crate::address::Address;
use crate::config::Config;
use crate::protocol::Factory;
use crate::reactor::Reactor;
use crate::shutdown::ShutdownHandle;
use crate::socket::Bound;
use crate::statistics::Statistics;
use crate::system;

/// Sockets that are bound, and how they are to be served.
///
/// ```
/// use serveloop::{Config, Peer, Server};
/// use serveloop::protocols::Echo;
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// println!("listening on {}", server.addresses()[0]);
/// let handle = server.shutdown_handle();
/// handle.shutdown(); // from another thread, from a protocol, from a signal handler
/// server.serve_forever(|_: &Peer| Some(Echo))?;
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
    /// [`activate`](Self::activate).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_only(addresses: &[Address], config: Config) -> io::Result<Self> {
        config.validate()?;
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no address to listen at",
            ));
        }
        if config.raise_descriptor_limit {
            if let Err(error) = system::raise_descriptor_limit() {
                log::warn!("cannot raise the limit of descriptors: {error}");
            }
        }
        let bound = addresses
            .iter()
            .map(|at| Bound::new(at, &config))
            .collect::<io::Result<Vec<_>>>()?;
        let addresses = bound.iter().map(|bound| bound.address.clone()).collect();
        Ok(Self {
            bound,
            addresses,
            config,
            handle: ShutdownHandle::new()?,
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

    /// Serves on one event loop, on this thread, until it is shut down and drained. Returns what
    /// was counted.
    ///
    /// # Errors
    /// The system has no descriptor for the loop, or took the last listener away.
    pub fn serve_forever<F: Factory>(self, factory: F) -> io::Result<Statistics> {
        self.activate()?;
        let mut reactor = self.into_reactor(factory)?;
        reactor.run()?;
        Ok(*reactor.statistics())
    }

    /// A loop that serves these sockets, to be turned by hand.
    ///
    /// # Errors
    /// The system has no descriptor for the loop.
    pub fn into_reactor<F: Factory>(self, factory: F) -> io::Result<Reactor<F>> {
        let mut config = self.config;
        let spare = spare_descriptors(config.reserved_descriptors)?;
        config.max_connections = config.max_connections.min(spare);
        let mut reactor = Reactor::new(factory, config)?;
        for bound in self.bound {
            reactor.adopt(bound)?;
        }
        reactor.obey(self.handle)?;
        Ok(reactor)
    }
}

/// How many connections the process's descriptors suffice for.
fn spare_descriptors(reserved: usize) -> io::Result<usize> {
    let most = usize::try_from(system::descriptor_limits()?.rlim_cur).unwrap_or(usize::MAX);
    Ok(most.saturating_sub(reserved).max(1))
}
