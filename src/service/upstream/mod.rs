//! One logical connection to a peer, which is opened again when it is lost.

mod backoff;
mod link;
mod reply;
mod state;

pub use self::backoff::Backoff;
pub use self::link::Link;
pub use self::reply::{Reply, UpstreamError};

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::address::Target;
use crate::service::Dialer;
use crate::service::dialer::{Announce, Chore, Dial};
use crate::waker::Wake;
use crate::waker::sync::{Mutex, MutexGuard, lock};

use self::reply::{Asker, Cancel};
use self::state::{State, Work};

/// One logical connection from a loop to a peer, for requests from any number of sessions. It opens its
/// connections itself, and again when they are lost, with delays that grow ([`Backoff`]). Requests wait
/// meanwhile, up to limits.
///
/// The connections are served by a protocol that you write. It gets a [`Link`], from which it takes the
/// requests, and which it gives the answers, in the same order. A request is bytes, and an answer a value
/// of your type `A`. Whoever has asked is woken and takes it from a [`Reply`], as from a
/// [`Job`](crate::service::Job).
///
/// A request is written at most once. If its connection is lost before the answer has come, the answer is
/// [`UpstreamError::Lost`], since the peer may have acted on it. Requests that were not written wait for
/// the next connection, up to `request_timeout`.
///
/// An upstream belongs to the loop of its [`Dialer`], but it may be asked from any thread. Clones are
/// the same upstream; when the last one is dropped, it is [closed](Self::close).
///
/// ```
/// use serveloop::net::Target;
/// use serveloop::service::{Dialer, Dialing, Link, Reply, Upstream, UpstreamLimits};
/// use serveloop::testing::MemoryServer;
/// use serveloop::{Peer, Protocol, Result, Transport};
///
/// type Boxed = Box<dyn Protocol + Send>;
///
/// /// The connection to a server that answers each line with a line.
/// struct Backend(Link<Vec<u8>>);
///
/// impl Protocol for Backend {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         self.0.ready(transport);
///         Ok(())
///     }
///
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
///             return Ok(0);
///         };
///         self.0.answer(data[..=end].to_vec());
///         self.0.send(transport);
///         Ok(end + 1)
///     }
///
///     fn woken(&mut self, transport: &mut Transport<'_>) {
///         self.0.send(transport);
///     }
///
///     fn resume_writing(&mut self, transport: &mut Transport<'_>) {
///         self.0.send(transport);
///     }
/// }
///
/// /// Passes a client's lines to the backend, one at a time.
/// struct Front(Upstream<Vec<u8>>, Option<Reply<Vec<u8>>>);
///
/// impl Protocol for Front {
///     fn data_received(&mut self, line: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         self.1 = Some(self.0.request(transport.waker(), line)?);
///         transport.pause_reading();
///         Ok(line.len())
///     }
///
///     fn woken(&mut self, transport: &mut Transport<'_>) {
///         if let Some(answer) = self.1.as_mut().and_then(Reply::take) {
///             let line = answer.unwrap_or_else(|error| format!("{error}\n").into_bytes());
///             transport.write(&line);
///             transport.resume_reading();
///         }
///     }
/// }
///
/// let mut server = MemoryServer::new(Dialing::new(|dialer: &Dialer<Boxed>| {
///     let target: Target = "tcp://192.0.2.1:7".parse().expect("an address");
///     let limits = UpstreamLimits::default();
///     let make = |link| Box::new(Backend(link)) as Boxed;
///     let upstream = Upstream::new(dialer, target, limits, make);
///     move |_: &Peer| Some(Box::new(Front(upstream.clone(), None)) as Boxed)
/// }));
///
/// let (_, backend) = server.next_outbound().expect("it connects");
/// let client = server.connect();
/// server.send(client, b"hello\n");
/// assert_eq!(server.received(backend), b"hello\n");
/// server.send(backend, b"olleh\n");
/// assert_eq!(server.received(client), b"olleh\n");
///
/// // A request that was written is lost with its connection; the next one waits for another.
/// server.send(client, b"again\n");
/// server.reset(backend);
/// assert_eq!(server.received(client), b"the connection to the upstream was lost\n");
/// server.send(client, b"anew\n");
/// server.advance(std::time::Duration::from_millis(100));
/// let (_, backend) = server.next_outbound().expect("it connects again");
/// assert_eq!(server.received(backend), b"anew\n");
/// ```
pub struct Upstream<A> {
    handle: Arc<Handle<A>>,
}

/// The limits of an [`Upstream`].
///
/// ```
/// use serveloop::service::UpstreamLimits;
/// use std::time::Duration;
///
/// // Connects when there is something to ask, and pipelines.
/// let limits = UpstreamLimits {
///     min_connections: 0,
///     max_connections: 4,
///     max_in_flight: 100,
///     request_timeout: Some(Duration::from_secs(2)),
///     ..UpstreamLimits::default()
/// };
/// # let _ = limits;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// The most requests that wait to be written. Default 1,000.
    pub max_waiting: usize,
    /// The most bytes of requests that wait to be written. A single request of any size always may.
    /// Default 1 MiB.
    pub max_waiting_bytes: usize,
    /// The most requests that are written to one connection and not yet answered. 0 counts as 1. With
    /// more than 1 the peer gets the next request before it has answered the last one. Default 1.
    pub max_in_flight: usize,
    /// How long a request may take from when it is asked to its answer. Its answer is
    /// [`UpstreamError::TimedOut`] then; if it was written, its connection is ended, and what was written
    /// behind it is [`Lost`](UpstreamError::Lost). `None` is without limit. Default 10 s.
    pub request_timeout: Option<Duration>,
    /// How many connections are kept open, also if there is nothing to ask. 0 connects on demand.
    /// Default 1.
    pub min_connections: usize,
    /// The most connections. More than `min_connections` are opened while requests wait that the open
    /// ones cannot take. Less than `min_connections` counts as that, and 0 as 1. Default 1.
    pub max_connections: usize,
    /// How long a connection beyond `min_connections` is kept when it has nothing to do. `None` is
    /// without limit. Default 30 s.
    pub idle_timeout: Option<Duration>,
    /// The longest delay before the first attempt to connect again; each further one is up to twice as
    /// long ([`Backoff`]). Default 100 ms.
    pub first_delay: Duration,
    /// The longest delay at all. Default 10 s.
    pub max_delay: Duration,
    /// What the jitter of the delays depends on. With `None` it is random. Default `None`.
    pub seed: Option<u64>,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            max_waiting: 1_000,
            max_waiting_bytes: 1024 * 1024,
            max_in_flight: 1,
            request_timeout: Some(Duration::from_secs(10)),
            min_connections: 1,
            max_connections: 1,
            idle_timeout: Some(Duration::from_secs(30)),
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            seed: None,
        }
    }
}

impl<A: Send + 'static> Upstream<A> {
    /// Creates an upstream on the loop of `dialer`, which opens connections to `target`. `make` makes the
    /// protocol of each, around its link.
    pub fn new<P, M>(
        dialer: &Dialer<P>,
        target: impl Into<Target>,
        limits: UpstreamLimits,
        mut make: M,
    ) -> Self
    where
        P: Send + 'static,
        M: FnMut(Link<A>) -> P + Send + 'static,
    {
        let (target, by) = (target.into(), dialer.clone());
        let dial = move |link| by.connect(target.clone(), make(link));

        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(limits)),
            dial: Mutex::new(Box::new(dial)),
            loop_of: Box::new(dialer.clone()),
        });
        let chore: Weak<dyn Chore> = Arc::downgrade(&shared) as Weak<Shared<A>>;
        dialer.add_chore(chore);
        Self {
            handle: Arc::new(Handle(shared)),
        }
    }

    /// Asks the peer: `data` is written to a connection that has room, now or later. When the answer has
    /// come, or there will be none, `wake` is called, usually the [`Waker`](crate::Waker) of the session
    /// that takes it from the [`Reply`]. Does not wait.
    ///
    /// # Errors
    /// [`UpstreamError::Full`] if too much waits already, and [`UpstreamError::Closed`] if the upstream
    /// was closed or its loop has ended. In a protocol, `?` ends the connection.
    pub fn request<W: Wake + 'static>(
        &self,
        wake: W,
        data: impl Into<Vec<u8>>,
    ) -> Result<Reply<A>, UpstreamError> {
        let (asker, outcome) = Asker::new(wake);
        let number = self.put(data.into(), Some(asker))?;
        let queue: Weak<dyn Cancel> = Arc::downgrade(&self.handle.0) as Weak<Shared<A>>;
        Ok(Reply::new(outcome, queue, number))
    }

    /// Sends a request whose answer is dropped. If it is lost, that is not reported either.
    ///
    /// # Errors
    /// As of [`request`](Self::request).
    pub fn send(&self, data: impl Into<Vec<u8>>) -> Result<(), UpstreamError> {
        self.put(data.into(), None).map(drop)
    }

    fn put(&self, data: Vec<u8>, asker: Option<Asker<A>>) -> Result<u64, UpstreamError> {
        let shared = &self.handle.0;
        let mut state = shared.state();
        let (number, free) = state.put(data, asker)?;
        drop(state);

        if let Some(waker) = free {
            waker.wake();
        }
        // Its deadline is set, and if no connection is free, another one may be opened.
        shared.loop_of.announce();
        Ok(number)
    }
}

impl<A> Upstream<A> {
    /// Returns how many connections are ready for requests.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.handle.0.state().ready()
    }

    /// Returns how many requests wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.handle.0.state().waiting()
    }

    /// Returns how many requests were written and are not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.handle.0.state().in_flight()
    }

    /// Closes the upstream: requests that wait are answered with [`UpstreamError::Closed`], new ones are
    /// refused, and connections are closed when what was written is answered.
    pub fn close(&self) {
        self.handle.0.close();
    }
}

impl<A> Clone for Upstream<A> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<A> fmt::Debug for Upstream<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("connections", &self.connections())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// Closes the upstream when its last clone is dropped. Links and the loop have what is inside.
struct Handle<A>(Arc<Shared<A>>);

impl<A> Drop for Handle<A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What an upstream, its links and its loop share.
pub(super) struct Shared<A> {
    state: Mutex<State<A>>,
    dial: Mutex<Box<dyn FnMut(Link<A>) -> Dial + Send>>,
    loop_of: Box<dyn Announce>,
}

impl<A> Shared<A> {
    fn state(&self) -> MutexGuard<'_, State<A>> {
        lock(&self.state)
    }

    fn close(&self) {
        let told = self.state().close();
        told.deliver();
        self.loop_of.announce();
    }
}

/// What the loop does for an upstream.
impl<A: Send + 'static> Chore for Shared<A> {
    fn run(self: Arc<Self>, now: Instant) -> Option<Instant> {
        let Work { told, dials, next } = self.state().run(now);
        told.deliver();
        // All links first: if one connection's protocol cannot be made, the others are given up with theirs.
        let link = |number| (number, Link::new(Arc::clone(&self), number));
        let links: Vec<_> = dials.into_iter().map(link).collect();
        for (number, link) in links {
            let dial = lock(&self.dial)(link);
            self.state().keep(number, dial);
        }
        next
    }

    fn end(&self) {
        let told = self.state().close();
        told.deliver();
    }
}

impl<A: Send + 'static> Cancel for Shared<A> {
    fn cancel(&self, number: u64) {
        let dropped = self.state().cancel(number);
        // A waker of a user's type is not dropped under the lock.
        drop(dropped);
    }
}
