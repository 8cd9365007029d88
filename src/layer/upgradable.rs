//! A protocol that hands its connection over to another one, as HTTP does to WebSocket.

use std::time::Instant;

use crate::error::{CloseReason, Deadline, DeliveryError, ProtocolError};
use crate::framing::{FrameProtocol, Framed};
use crate::session::{Ended, Post, Protocol, Tick, Transport, take, take_datagram};

/// A protocol, or frame protocol, that can hand its connection over.
pub trait Upgrade {
    /// The protocol that takes the connection over. If there are several, `Box<dyn Protocol>`.
    type Next: Protocol;

    /// Whether bytes of the next protocol may arrive together with those that led to it. Turn this
    /// off where the next protocol is a layer such as TLS: bytes that were sent before its
    /// handshake are then an error, and not read as if they were protected (CVE-2021-23222).
    const MAY_FOLLOW_AT_ONCE: bool = true;

    /// Returns the next protocol, if it is time for it. Called after each call of this protocol
    /// that did not close the connection.
    fn take_next(&mut self) -> Option<Self::Next>;
}

impl<P: FrameProtocol + Upgrade> Upgrade for Framed<P> {
    type Next = P::Next;
    const MAY_FOLLOW_AT_ONCE: bool = P::MAY_FOLLOW_AT_ONCE;

    fn take_next(&mut self) -> Option<P::Next> {
        self.protocol_mut().take_next()
    }
}

/// A protocol that another one follows in the same connection, with everything that is unread.
///
/// The first protocol is dropped when it has handed over. The next one gets `connection_made`,
/// the bytes that are left, the end of the stream, also if the first one was told of it already, and
/// in the end `connection_lost`.
///
/// ```
/// use serveloop::layer::{Upgradable, Upgrade};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
/// use serveloop::{Protocol, Result, Transport};
///
/// /// Waits for one byte, and then echoes.
/// struct Knock(bool);
///
/// impl Protocol for Knock {
///     fn data_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         transport.write(b"come in: ");
///         self.0 = true;
///         Ok(1)
///     }
/// }
///
/// impl Upgrade for Knock {
///     type Next = Echo;
///
///     fn take_next(&mut self) -> Option<Echo> {
///         self.0.then_some(Echo)
///     }
/// }
///
/// let mut session = MemorySession::new(Upgradable::new(Knock(false)));
/// session.receive(b"!hello");
/// assert_eq!(session.sent(), b"come in: hello");
/// ```
#[derive(Debug)]
pub struct Upgradable<A: Upgrade>(Stage<A, A::Next>);

#[derive(Debug)]
enum Stage<A, N> {
    First(A),
    Next(N),
}

impl<A: Protocol + Upgrade> Upgradable<A> {
    /// Wraps the protocol that comes first.
    #[must_use]
    pub fn new(first: A) -> Self {
        Self(Stage::First(first))
    }

    /// Calls the protocol that has the connection, and then lets it hand over.
    fn call(
        &mut self,
        transport: &mut Transport<'_>,
        first: impl FnOnce(&mut A, &mut Transport<'_>) -> Result<(), ProtocolError>,
        next: impl FnOnce(&mut A::Next, &mut Transport<'_>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        match &mut self.0 {
            Stage::Next(protocol) => next(protocol, transport),
            Stage::First(protocol) => {
                first(protocol, transport)?;
                if self.switch(transport)? {
                    transport.show_again();
                    transport.show_end_again();
                }
                Ok(())
            }
        }
    }

    /// Works like `call`, for events that cannot fail.
    fn tell(
        &mut self,
        transport: &mut Transport<'_>,
        first: fn(&mut A, &mut Transport<'_>),
        next: fn(&mut A::Next, &mut Transport<'_>),
    ) {
        let told = self.call(
            transport,
            |protocol, transport| {
                first(protocol, transport);
                Ok(())
            },
            |protocol, transport| {
                next(protocol, transport);
                Ok(())
            },
        );
        if let Err(error) = told {
            transport.fail(CloseReason::Protocol(error));
        }
    }

    /// Hands over if the first protocol says so. Returns whether it did.
    fn switch(&mut self, transport: &mut Transport<'_>) -> Result<bool, ProtocolError> {
        let Stage::First(protocol) = &mut self.0 else {
            return Ok(false);
        };
        if transport.is_closing() {
            return Ok(false);
        }
        let Some(next) = protocol.take_next() else {
            return Ok(false);
        };

        // The end finds it here, also if it panics in its first call.
        self.0 = Stage::Next(next);
        if let Stage::Next(next) = &mut self.0 {
            next.connection_made(transport)?;
        }
        Ok(true)
    }

    /// Hands over if the first protocol says so after a call in which it left `rest` bytes. Returns whether
    /// they are to be shown to the next one at once, which is so if it `has_taken` none.
    fn shows_again(
        &mut self,
        rest: usize,
        has_taken: bool,
        transport: &mut Transport<'_>,
    ) -> Result<bool, ProtocolError> {
        if !self.switch(transport)? || rest == 0 {
            return Ok(false);
        }
        if !A::MAY_FOLLOW_AT_ONCE {
            return Err(too_early());
        }
        Ok(!has_taken && !transport.is_blocked())
    }
}

fn too_early() -> ProtocolError {
    ProtocolError::malformed("bytes came before the next protocol had begun")
}

impl<A: Protocol + Upgrade> Protocol for Upgradable<A> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.call(transport, A::connection_made, A::Next::connection_made)
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let taken = match &mut self.0 {
            Stage::Next(next) => return next.data_received(data, transport),
            Stage::First(first) => take(first, data, transport)?,
        };

        match self.shows_again(data.len() - taken, taken > 0, transport)? {
            true => self.data_received(data, transport),
            false => Ok(taken),
        }
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let first = match &mut self.0 {
            Stage::Next(next) => return next.datagram_received(data, transport),
            Stage::First(first) => first,
        };
        let taken = take_datagram(first, data, transport)?;
        match self.shows_again(data.len() - taken, taken > 0, transport)? {
            true => self.datagram_received(data, transport),
            false => Ok(taken),
        }
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        match &mut self.0 {
            Stage::First(protocol) => protocol.eof_received(unread, transport)?,
            Stage::Next(protocol) => return protocol.eof_received(unread, transport),
        }

        if self.switch(transport)? {
            if !A::MAY_FOLLOW_AT_ONCE && !unread.is_empty() {
                return Err(too_early());
            }
            transport.show_end_again();
        }
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, A::resume_writing, A::Next::resume_writing);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.0 {
            Stage::First(protocol) => protocol.poll_timeout(),
            Stage::Next(protocol) => protocol.poll_timeout(),
        }
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, A::handle_timeout, A::Next::handle_timeout);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.tell(transport, A::woken, A::Next::woken);
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.posted(post, transport),
            Stage::Next(protocol) => return protocol.posted(post, transport),
        }
        // It may have been what the first protocol waited for.
        self.tell(transport, |_, _| {}, |_, _| {});
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.datagram_undelivered(error, transport),
            Stage::Next(protocol) => return protocol.datagram_undelivered(error, transport),
        }
        self.tell(transport, |_, _| {}, |_, _| {});
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.deadline_passed(deadline, transport),
            Stage::Next(protocol) => protocol.deadline_passed(deadline, transport),
        }
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.input_rejected(error, transport),
            Stage::Next(protocol) => protocol.input_rejected(error, transport),
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.tell(
            transport,
            A::shutdown_requested,
            A::Next::shutdown_requested,
        );
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.connection_lost(ended),
            Stage::Next(protocol) => protocol.connection_lost(ended),
        }
    }

    fn owes_first(&self, outside: bool) -> bool {
        match &self.0 {
            Stage::First(protocol) => protocol.owes_first(outside),
            Stage::Next(protocol) => protocol.owes_first(outside),
        }
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.catch_up(from, to),
            Stage::Next(protocol) => protocol.catch_up(from, to),
        }
    }

    fn needs_stream() -> bool {
        // A datagram may do without the next protocol.
        A::needs_stream()
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        match &mut self.0 {
            Stage::First(protocol) => protocol.write_end_mark(transport),
            Stage::Next(protocol) => protocol.write_end_mark(transport),
        }
    }
}
