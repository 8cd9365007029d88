use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, mem};

use crate::address::{Address, Peer};
use crate::config::Config;
use crate::error::CloseReason;
use crate::session::{Buffer, Clock, Context, Protocol, REPEAT, Session};
use crate::waker::Mailbox;

/// A session whose peer is the test: it sends, takes the output, lets time pass.
///
/// ```
/// use serveloop::protocols::Hello;
/// use serveloop::testing::MemorySession;
/// use std::time::Duration;
///
/// let mut session = MemorySession::new(Hello::new(Duration::from_secs(1)));
/// assert_eq!(session.sent(), b"Welcome!");
/// session.receive(b"Michael");
/// assert_eq!(session.sent(), b"");
/// session.advance(Duration::from_secs(1));
/// assert_eq!(session.sent(), b"Hello,Michael");
/// session.receive_eof();
/// assert!(session.reason().is_some());
/// ```
pub struct MemorySession<P> {
    session: Session<P>,
    config: Config,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    incoming: VecDeque<Vec<u8>>,
    eof: bool,
    sent: Vec<u8>,
    scratch: Option<Box<Buffer>>,
    /// How much of the output the peer takes at once, and how much it still takes for now.
    step: usize,
    window: usize,
    reason: Option<Box<CloseReason>>,
}

impl<P: Protocol> MemorySession<P> {
    /// A session with the default limits, and a peer that came in over TCP by listener 0.
    #[must_use]
    pub fn new(protocol: P) -> Self {
        Self::with_config(protocol, Config::default())
    }

    /// The same, with other limits.
    ///
    /// # Panics
    /// When the configuration makes no sense.
    #[must_use]
    pub fn with_config(protocol: P, config: Config) -> Self {
        let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        Self::with_peer(protocol, config, Peer::new(address, Some(0)))
    }

    /// The same, with another peer.
    ///
    /// # Panics
    /// When the configuration makes no sense.
    #[must_use]
    pub fn with_peer(protocol: P, config: Config, peer: Peer) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        let clock = Clock::new(Instant::now());
        let mut this = Self {
            session: Session::new(protocol, peer, clock.tick()),
            config,
            clock,
            mailbox: Mailbox::silent(),
            incoming: VecDeque::new(),
            eof: false,
            sent: Vec::new(),
            scratch: None,
            step: usize::MAX,
            window: usize::MAX,
            reason: None,
        };
        this.call(Session::handle_open);
        this.run();
        this
    }

    /// The peer sends `data`, which is shown as one piece. Nothing is lost if the session does not
    /// read now.
    pub fn receive(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.incoming.push_back(data.to_vec());
        }
        self.run();
    }

    /// The peer ends its stream.
    pub fn receive_eof(&mut self) {
        self.eof = true;
        self.run();
    }

    /// The server shuts down.
    pub fn shutdown(&mut self) {
        self.call(Session::handle_shutdown);
        self.run();
    }

    /// Time passes: every deadline on the way is acted on at its moment.
    pub fn advance(&mut self, by: Duration) {
        let end = self.clock.now() + by;
        while let Some(due) = self.deadline().filter(|due| *due <= end) {
            let now = self.clock.now();
            self.clock.set(due.max(now));
            self.call(Session::handle_timeout);
            self.run();
            let now = self.clock.now();
            if self.deadline().is_some_and(|next| next <= now) {
                // As on the loop, a deadline that was acted on comes again after a moment.
                if now + REPEAT > end {
                    break;
                }
                self.clock.set(now + REPEAT);
            }
        }
        self.clock.set(end);
    }

    /// When something would happen though the peer does nothing.
    pub fn deadline(&mut self) -> Option<Instant> {
        if self.reason.is_some() {
            return None;
        }
        let context = context(&self.config, &self.clock, &self.mailbox);
        let at = self.session.deadline(&context)?;
        self.clock.now().checked_add(at.since(self.clock.tick()))
    }

    /// The session's time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What the peer has got since the last call.
    pub fn sent(&mut self) -> Vec<u8> {
        mem::take(&mut self.sent)
    }

    /// How many bytes of output wait for the peer to take them.
    pub fn waiting(&self) -> usize {
        self.session.output().len()
    }

    /// How many bytes of memory the session keeps: unread input, waiting output, and what the protocol
    /// [charged](crate::Transport::charge). On a loop this is the connection's part of what
    /// [`max_buffered`](Config::max_buffered) limits; here it ends the session alone, past 95 % of it.
    pub fn held(&self) -> usize {
        self.session.held()
    }

    /// Whether the peer has seen the end of the session's output, though the session may live on.
    pub fn is_finished(&self) -> bool {
        self.session.is_finished() && self.session.output().is_empty()
    }

    /// From now on the peer takes nothing, until [`take`](Self::take).
    pub fn stop_taking(&mut self) {
        self.window = 0;
    }

    /// The peer takes up to `count` bytes more than it has.
    pub fn take(&mut self, count: usize) {
        self.window = self.window.saturating_add(count);
        self.run();
    }

    /// The peer takes everything, but at most `step` bytes at a time.
    pub fn take_in_steps(&mut self, step: usize) {
        self.step = step.max(1);
        self.window = usize::MAX;
        self.run();
    }

    /// The connection fails in the way given.
    pub fn fail(&mut self, reason: CloseReason) {
        self.session.fail(reason);
        self.run();
    }

    /// How the session ended; none while it lives.
    pub fn reason(&self) -> Option<&CloseReason> {
        self.reason.as_deref()
    }

    /// The protocol, to look at.
    pub fn protocol(&self) -> &P {
        self.session.protocol()
    }

    /// Does all that can be done without time passing or the peer doing anything. Wakes are noticed
    /// here, so a test that used a [`Waker`](crate::Waker) calls this.
    ///
    /// # Panics
    /// When the session does not come to rest.
    pub fn run(&mut self) {
        for _ in 0..10_000_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the session does not come to rest");
    }

    /// What a driver does in one turn. False if there was nothing to do.
    fn turn(&mut self) -> bool {
        if self.reason.is_some() {
            return false;
        }
        self.session.lend(&mut self.scratch);
        let woken = self.mailbox.take().count() > 0;
        if woken {
            self.call(Session::handle_woken);
        }
        let moved = self.read() | self.write() | woken;
        let context = context(&self.config, &self.clock, &self.mailbox);
        self.session.reclaim(&mut self.scratch, &context);
        let most = self.config.max_buffered;
        if self.session.held() > most - most / 20 {
            self.session.fail(CloseReason::Shed);
        }
        let over = self.session.is_closing() && self.session.output().is_empty();
        if over || self.session.is_aborted() {
            self.reason = self.session.handle_lost();
        }
        moved
    }

    fn read(&mut self) -> bool {
        if self.session.has_more() {
            self.call(Session::handle_more);
        } else if !self.session.wants_input() {
            return false;
        } else if let Some(data) = self.incoming.pop_front() {
            self.call(|session, context| session.handle_data(&data, context));
        } else if mem::take(&mut self.eof) {
            self.call(Session::handle_eof);
        } else {
            return false;
        }
        true
    }

    fn write(&mut self) -> bool {
        let count = self.session.output().len().min(self.step).min(self.window);
        if count == 0 {
            return false;
        }
        self.sent.extend_from_slice(&self.session.output()[..count]);
        if self.window != usize::MAX {
            self.window -= count;
        }
        self.call(|session, context| session.output_sent(count, context));
        true
    }

    fn call(&mut self, event: impl FnOnce(&mut Session<P>, &Context<'_>)) {
        event(
            &mut self.session,
            &context(&self.config, &self.clock, &self.mailbox),
        );
    }
}

fn context<'a>(config: &'a Config, clock: &'a Clock, mailbox: &'a Arc<Mailbox>) -> Context<'a> {
    Context {
        clock,
        config,
        wakers: mailbox,
        id: 0,
    }
}

impl<P> fmt::Debug for MemorySession<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySession")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}
