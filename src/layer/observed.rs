//! A protocol whose calls are observed.

use std::time::Instant;

use crate::error::{Deadline, DeliveryError, ProtocolError};
use crate::session::{Ended, Post, Protocol, Tick, Transport};

/// One call of a protocol, as an observer sees it. The observer is told before the protocol is
/// called, except for [`Taken`](Self::Taken), which comes after the call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// [`Protocol::connection_made`].
    ConnectionMade,
    /// [`Protocol::data_received`] with these bytes.
    DataReceived(&'a [u8]),
    /// The protocol took these bytes from the front of what it was shown, possibly none.
    Taken(&'a [u8]),
    /// [`Protocol::eof_received`] with these unread bytes.
    EofReceived(&'a [u8]),
    /// [`Protocol::datagram_undelivered`] with this error.
    DatagramUndelivered(&'a DeliveryError),
    /// [`Protocol::resume_writing`].
    ResumeWriting,
    /// [`Protocol::handle_timeout`].
    HandleTimeout {
        /// The result of the protocol's `poll_timeout`.
        due: Option<Instant>,
        /// The driver's time.
        now: Instant,
    },
    /// [`Protocol::woken`].
    Woken,
    /// [`Protocol::posted`] with this post.
    Posted(&'a Post),
    /// [`Protocol::shutdown_requested`].
    ShutdownRequested,
    /// [`Protocol::deadline_passed`] with this deadline.
    DeadlinePassed(Deadline),
    /// [`Protocol::input_rejected`] with this error.
    InputRejected(&'a ProtocolError),
    /// [`Protocol::connection_lost`] with this end.
    ConnectionLost(&'a Ended<'a>),
}

/// Watches the calls of a protocol, for logs, counters and tests, and may refuse what arrives.
///
/// A closure `|event: Event<'_>| ...` is an observer that refuses nothing.
///
/// ```
/// use serveloop::layer::{Event, Observe, Observed};
/// use serveloop::{protocols::Echo, testing::MemorySession};
/// use std::sync::mpsc::{Sender, channel};
///
/// struct Ends(Sender<String>);
///
/// impl Observe for Ends {
///     fn observe(&mut self, event: Event<'_>) {
///         if let Event::ConnectionLost(ended) = event {
///             let _ = self.0.send(ended.reason().to_string());
///         }
///     }
/// }
///
/// let (sender, ends) = channel();
/// let mut session = MemorySession::new(Observed::new(Echo, Ends(sender)));
/// session.receive_eof();
/// assert!(ends.try_recv().is_ok());
/// ```
pub trait Observe {
    /// Called with the bytes that are about to be shown to the protocol, which includes those that it
    /// has left unread before. An error ends the connection: then the protocol is not shown the bytes,
    /// there is no [`Event::DataReceived`], and the protocol has its last word
    /// ([`Protocol::input_rejected`]).
    ///
    /// # Errors
    /// Fails if the protocol must not see the bytes. By default it never does.
    fn admit(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        let _ = data;
        Ok(())
    }

    /// Called for each event of the protocol.
    fn observe(&mut self, event: Event<'_>);

    /// Called before [`Protocol::hand_over`]. Returns what an observer has to know that goes on watching the
    /// connection in another process, or `None` if the connection stays, as by default.
    fn hand_over(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Called in place of [`Event::ConnectionMade`] with what [`hand_over`](Self::hand_over) returned in
    /// another process. Returns whether that makes sense, or the connection ends. By default false.
    fn take_over(&mut self, state: &[u8]) -> bool {
        let _ = state;
        false
    }
}

impl<F: FnMut(Event<'_>)> Observe for F {
    fn observe(&mut self, event: Event<'_>) {
        self(event);
    }
}

/// A protocol that behaves like the one inside and reports its calls to an observer. Only data that
/// the observer does not [admit](Observe::admit) is kept from the protocol inside.
///
/// ```
/// use serveloop::layer::{Event, Observed};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let taken = Rc::new(Cell::new(0));
/// let count = Rc::clone(&taken);
/// let observed = Observed::new(Echo, move |event: Event<'_>| {
///     if let Event::Taken(bytes) = event {
///         count.set(count.get() + bytes.len());
///     }
/// });
///
/// let mut session = MemorySession::new(observed);
/// session.receive(b"hello");
/// assert_eq!(taken.get(), 5);
/// ```
#[derive(Clone, Debug)]
pub struct Observed<P, O> {
    protocol: P,
    observer: O,
}

impl<P, O> Observed<P, O> {
    /// Wraps `protocol` so that `observer` sees its calls.
    #[must_use]
    pub fn new(protocol: P, observer: O) -> Self {
        Self { protocol, observer }
    }

    /// Returns the protocol inside.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Returns the observer.
    #[must_use]
    pub fn observer(&self) -> &O {
        &self.observer
    }
}

impl<P, O: Observe> Observed<P, O> {
    /// Shows the protocol `data`, if the observer admits it, by one of the methods for data.
    #[inline]
    fn show(
        &mut self,
        data: &[u8],
        take: impl FnOnce(&mut P) -> Result<usize, ProtocolError>,
    ) -> Result<usize, ProtocolError> {
        self.observer.admit(data)?;
        self.observer.observe(Event::DataReceived(data));
        let count = take(&mut self.protocol)?;

        // A protocol that claims more than there is fails in the session, not here.
        let taken = &data[..count.min(data.len())];
        self.observer.observe(Event::Taken(taken));
        Ok(count)
    }
}

impl<P: Protocol, O: Observe> Protocol for Observed<P, O> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.observer.observe(Event::ConnectionMade);
        self.protocol.connection_made(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.show(data, |protocol| protocol.data_received(data, transport))
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.show(data, |protocol| protocol.datagram_received(data, transport))
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.observer.observe(Event::EofReceived(unread));
        self.protocol.eof_received(unread, transport)
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.observer.observe(Event::DatagramUndelivered(error));
        self.protocol.datagram_undelivered(error, transport);
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.observer.observe(Event::ResumeWriting);
        self.protocol.resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let event = Event::HandleTimeout {
            due: self.protocol.poll_timeout(),
            now: transport.now(),
        };
        self.observer.observe(event);
        self.protocol.handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.observer.observe(Event::Woken);
        self.protocol.woken(transport);
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.observer.observe(Event::DeadlinePassed(deadline));
        self.protocol.deadline_passed(deadline, transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.observer.observe(Event::InputRejected(error));
        self.protocol.input_rejected(error, transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.observer.observe(Event::ShutdownRequested);
        self.protocol.shutdown_requested(transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.observer.observe(Event::ConnectionLost(ended));
        self.protocol.connection_lost(ended);
    }

    fn owes_first(&self, outside: bool) -> bool {
        self.protocol.owes_first(outside)
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.protocol.catch_up(from, to);
    }

    fn needs_stream() -> bool {
        P::needs_stream()
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.observer.observe(Event::Posted(post));
        self.protocol.posted(post, transport);
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        self.protocol.write_end_mark(transport);
    }

    /// Returns the length of the observer's state, this, and that of the protocol.
    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        let own = self.observer.hand_over()?;
        let length = u32::try_from(own.len()).ok()?;
        let inner = self.protocol.hand_over(transport)?;
        Some([&length.to_be_bytes(), &own[..], &inner].concat())
    }

    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        let split = state.split_first_chunk().and_then(|(length, rest)| {
            let length = u32::from_be_bytes(*length).try_into().ok()?;
            rest.split_at_checked(length)
        });
        split.is_some_and(|(own, inner)| {
            self.observer.take_over(own) && self.protocol.take_over(inner, transport)
        })
    }
}
