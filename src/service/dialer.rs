//! Outbound connections that protocols ask for.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::address::{NetworkList, Peer, Target};
use crate::session::{Actions, Connect, Ended, Factory, Refusal, Ticket};
use crate::waker::Waker;
use crate::waker::sync::{Mutex, MutexGuard, lock};

/// A handle by which protocols, factories and threads ask a loop to open connections. A
/// [`Dialing`] makes one for each loop. Clones are the same handle.
///
/// A connection has a protocol of the factory's type, `P`. To connect with a protocol of another kind
/// than those that are served, use an `enum` or `Box<dyn Protocol>`.
///
/// ```
/// use serveloop::net::Target;
/// use serveloop::service::{Dial, Dialer, Dialing};
/// use serveloop::testing::MemoryServer;
/// use serveloop::{Ended, Peer, Protocol, Result, Transport};
///
/// /// Asks the clock for the time whenever its client sends something.
/// struct Asking(Dialer<Box<dyn Protocol + Send>>, Target, Option<Dial>);
///
/// impl Protocol for Asking {
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         let clock = Clock(transport.outbox());
///         // If the client goes before the clock has answered, the attempt is dropped with this.
///         self.2 = Some(self.0.connect(self.1.clone(), Box::new(clock)));
///         Ok(data.len())
///     }
/// }
///
/// /// Passes on what the clock says.
/// struct Clock(serveloop::service::Outbox);
///
/// impl Protocol for Clock {
///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
///         let _ = self.0.post(data);
///         Ok(data.len())
///     }
///
///     fn connection_lost(&mut self, ended: &Ended<'_>) {
///         if ended.reason().is_error() {
///             let _ = self.0.post(ended.reason().to_string().into_bytes());
///         }
///     }
/// }
///
/// let mut server = MemoryServer::new(Dialing::new(|dialer: &Dialer<Box<dyn Protocol + Send>>| {
///     let dialer = dialer.clone();
///     move |_: &Peer| {
///         let clock = "tcp://clock.example:13".parse().ok()?;
///         Some(Box::new(Asking(dialer.clone(), clock, None)) as Box<dyn Protocol + Send>)
///     }
/// }));
///
/// let client = server.connect();
/// server.send(client, b"?");
/// let told = "cannot connect: tcp://clock.example:13: the name has no address";
/// assert_eq!(server.received(client), told.as_bytes());
///
/// server.name("tcp://clock.example:13", vec!["tcp://192.0.2.1:13".parse()?]);
/// server.send(client, b"?");
/// let (_, clock) = server.next_outbound().expect("it connects");
/// server.send(clock, b"half past six");
/// assert_eq!(server.received(client), b"half past six");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Dialer<P> {
    shared: Arc<Mutex<State<P>>>,
}

struct State<P> {
    asked: Vec<Connect<P>>,
    /// Ends the wait of the loop, once there is one.
    waker: Option<Waker>,
    chores: Vec<Weak<dyn Chore>>,
    /// The chores have work that no moment announces.
    has_news: bool,
    /// The earliest moment at which a chore has work.
    due: Option<Instant>,
    /// When the loop began. As a moment that has passed it says that there is work now.
    began: Option<Instant>,
    /// The loop has ended.
    is_over: bool,
}

impl<P> State<P> {
    /// Returns when there is work for the loop. Wakes are not enough: they come to nothing before the loop
    /// has begun, and do not keep a loop going that has nothing else to do.
    fn deadline(&self) -> Option<Instant> {
        match self.has_news || !self.asked.is_empty() {
            true => self.began,
            false => self.due,
        }
    }
}

/// What is to be done on a loop besides opening connections.
pub(super) trait Chore: Send + Sync {
    /// Does what there is to do now. Returns when to call again, if there is no news before.
    fn run(self: Arc<Self>, now: Instant) -> Option<Instant>;

    /// Is told that the loop has ended.
    fn end(&self);
}

/// Tells a loop that a chore has news.
pub(super) trait Announce: Send + Sync {
    fn announce(&self);
}

impl<P> Dialer<P> {
    fn new() -> Self {
        let state = State {
            asked: Vec::new(),
            waker: None,
            chores: Vec::new(),
            has_news: false,
            due: None,
            began: None,
            is_over: false,
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    /// Opens a connection that `protocol` serves. The loop begins it in this turn, or in its next one if
    /// this is called from another thread.
    ///
    /// The protocol is told of success by `connection_made`, and of failure by `connection_lost` alone,
    /// as for [`Reactor::connect_to`](crate::Reactor::connect_to). If the loop has ended, the protocol
    /// is dropped. Outbound connections count towards
    /// [`max_connections`](crate::Config::max_connections); see also
    /// [`reserved_outbound`](crate::Config::reserved_outbound).
    pub fn connect(&self, target: impl Into<Target>, protocol: P) -> Dial {
        let ticket = Ticket::default();
        let mut connect = Connect::new(target.into(), protocol);
        connect.ticket = Some(ticket.clone());

        let mut state = self.state();
        if state.is_over {
            // A user's protocol is not dropped under the lock.
            drop(state);
            drop(connect);
            ticket.end();
        } else {
            state.asked.push(connect);
            let waker = state.waker.clone();
            drop(state);
            waker.iter().for_each(Waker::wake);
        }
        Dial(Some(ticket))
    }

    pub(super) fn add_chore(&self, chore: Weak<dyn Chore>) {
        let mut state = self.state();
        state.chores.retain(|chore| chore.strong_count() > 0);
        state.chores.push(chore);
        drop(state);
        self.note_news();
    }

    fn note_news(&self) {
        let mut state = self.state();
        let waker = state.waker.clone().filter(|_| !state.has_news);
        state.has_news = true;
        drop(state);
        waker.iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        lock(&self.shared)
    }

    /// Runs the chores that have work, and opens the connections that were asked for.
    fn run(&self, actions: &mut Actions<'_, P>) {
        let now = actions.now();
        let mut state = self.state();
        let is_due = state.has_news || state.due.is_some_and(|due| due <= now);
        if is_due {
            state.has_news = false;
            let chores = state.chores.clone();
            drop(state);
            let moments = chores.iter().filter_map(|chore| chore.upgrade()?.run(now));
            let due = moments.min();
            state = self.state();
            state.due = due;
        }

        let asked = std::mem::take(&mut state.asked);
        drop(state);
        asked.into_iter().for_each(|connect| actions.ask(connect));
    }

    fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        let (asked, chores) = (
            std::mem::take(&mut state.asked),
            std::mem::take(&mut state.chores),
        );
        drop(state);

        chores
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|it| it.end());
        asked
            .iter()
            .filter_map(|it| it.ticket.as_ref())
            .for_each(Ticket::end);
    }
}

impl<P: Send> Announce for Dialer<P> {
    fn announce(&self) {
        self.note_news();
    }
}

impl<P> Clone for Dialer<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P> fmt::Debug for Dialer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// An attempt to connect that a [`Dialer`] makes. Dropping it cancels the attempt, and the protocol is
/// told ([`Aborted`](crate::CloseReason::Aborted)). A connection that is established is not affected.
///
/// A protocol that keeps it in a field cancels the attempt by its own end. See [`Dialer`] for an
/// example.
#[must_use = "dropping it cancels the attempt; `detach` lets it go on"]
#[derive(Debug)]
pub struct Dial(Option<Ticket>);

impl Dial {
    /// Lets the attempt go on, whatever becomes of the one who asked for it.
    pub fn detach(mut self) {
        self.0 = None;
    }

    /// Returns whether the attempt is over: the connection is established, or it has failed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(Ticket::is_over)
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some(ticket) = &self.0 {
            ticket.cancel();
        }
    }
}

/// A factory whose protocols open connections: it makes a [`Dialer`] and gives it to the factory inside.
///
/// A server with several workers clones its factory for each loop. Each clone of this one has a dialer
/// of its own, and calls `make` for a factory of its own. Connections are on the loop that they were asked
/// of. The sequential model, threads and processes are refused at the start
/// ([`needs_loop`](Factory::needs_loop)).
///
/// The [`woken`](Factory::woken) of the factory inside is also called when a connection was asked for.
///
/// ```no_run
/// use serveloop::net::Target;
/// use serveloop::protocols::Echo;
/// use serveloop::service::{Dialer, Dialing};
/// use serveloop::{Config, Peer, Server};
///
/// // Connects back to each client's port 7.
/// let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
/// server
///     .with(Dialing::new(|dialer: &Dialer<Echo>| {
///         let dialer = dialer.clone();
///         move |peer: &Peer| {
///             let mut addr = peer.address().socket_addr()?;
///             addr.set_port(7);
///             dialer.connect(serveloop::Address::Tcp(addr), Echo).detach();
///             Some(Echo)
///         }
///     }))
///     .serve_workers(2)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Dialing<M, F: Factory> {
    make: M,
    dialer: Dialer<F::Protocol>,
    factory: F,
}

impl<M, F> Dialing<M, F>
where
    M: FnMut(&Dialer<F::Protocol>) -> F,
    F: Factory,
{
    /// Puts the factory that `make` returns around a dialer.
    pub fn new(mut make: M) -> Self {
        let dialer = Dialer::new();
        Self {
            factory: make(&dialer),
            make,
            dialer,
        }
    }
}

impl<M, F: Factory> Dialing<M, F> {
    /// Returns the factory inside.
    pub fn factory(&mut self) -> &mut F {
        &mut self.factory
    }

    /// Returns the loop's dialer.
    pub fn dialer(&self) -> &Dialer<F::Protocol> {
        &self.dialer
    }
}

impl<M, F> Clone for Dialing<M, F>
where
    M: FnMut(&Dialer<F::Protocol>) -> F + Clone,
    F: Factory,
{
    fn clone(&self) -> Self {
        Self::new(self.make.clone())
    }
}

impl<M, F: Factory> Factory for Dialing<M, F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Peer) -> Option<F::Protocol> {
        self.factory.build_protocol(peer)
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.factory.needs_stream(listener)
    }

    fn needs_loop(&self) -> bool {
        true
    }

    fn trusted_proxies(&self, listener: usize) -> Option<NetworkList> {
        self.factory.trusted_proxies(listener)
    }

    fn needs_one_process(&self) -> bool {
        self.factory.needs_one_process()
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn handle_refusal(&mut self, peer: &Peer, why: Refusal) {
        self.factory.handle_refusal(peer, why);
    }

    fn started(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        let mut state = self.dialer.state();
        state.waker = Some(actions.waker());
        state.began = Some(actions.now());
        drop(state);
        self.factory.started(actions);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = self.dialer.state().deadline();
        self.factory.poll_timeout().into_iter().chain(own).min()
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        let at = self.factory.poll_timeout();
        if at.is_some_and(|at| at <= actions.now()) {
            self.factory.handle_timeout(actions);
        }
        // The chores are run in `service_actions`, which follows.
    }

    fn woken(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.woken(actions);
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, F::Protocol>) {
        self.factory.service_actions(actions);
        self.dialer.run(actions);
    }
}

impl<M, F: Factory> Drop for Dialing<M, F> {
    fn drop(&mut self) {
        self.dialer.end();
    }
}

impl<M, F: Factory> fmt::Debug for Dialing<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialing").finish_non_exhaustive()
    }
}
