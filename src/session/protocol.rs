//! What a user writes: a protocol, and the factory that makes one for each peer.

use std::time::{Duration, Instant};

use crate::address::{Address, Peer};
use crate::error::{CloseReason, ProtocolError};
use crate::session::transport::Transport;
use crate::statistics::Statistics;

/// A protocol as a state machine: bytes in, bytes out. One value serves one connection, or one
/// datagram.
///
/// Method names in the past participle tell what happened; what to do about it is said to the
/// [`Transport`]. The order of the calls:
///
/// ```text
/// connection_made (data_received | resume_writing | handle_timeout | woken | shutdown_requested)*
/// [eof_received (resume_writing | handle_timeout | woken | shutdown_requested)*] connection_lost
/// ```
///
/// `connection_lost` comes exactly once, also after a panic. A connection that could not be made, or
/// that the system does not let the loop watch, has no `connection_made`. After `close`, `abort` or an error nothing but
/// `connection_lost` follows.
///
/// The smallest protocol:
///
/// ```
/// use serveloop::{Protocol, Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         transport.write(data);
///         Ok(data.len())
///     }
/// }
/// ```
///
/// No method may block: on a loop it would hold up every other connection. A panic ends this one
/// connection, as long as panics unwind: a program that is built with `panic = "abort"` ends as a whole
/// with the first one, except where each connection has a process
/// ([`serve_forking`](crate::Server::serve_forking)), which then ends alone and counts as killed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Protocol`",
    note = "a `FrameProtocol` becomes one with its framing: `Framed::new(Lines::new(1_000), ...)`"
)]
pub trait Protocol {
    /// The connection stands. For a protocol whose server speaks first.
    ///
    /// # Errors
    /// An error closes the connection after what was written is sent; so with every method.
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let _ = transport;
        Ok(())
    }

    /// `data` is everything that arrived and was not taken yet. Returns how many of its bytes were
    /// taken, from the front; the rest is shown again. Never empty, except for an empty datagram.
    ///
    /// `Ok(0)` says that the message is *incomplete*: the call is repeated when more has come.
    /// After a message is taken and something is left, the call is repeated at once, so that taking
    /// one message per call is the natural way. To take nothing *for now*, whatever comes, use
    /// [`Transport::pause_reading`].
    ///
    /// # Errors
    /// What the peer sent breaks the protocol. Taking more than there is counts as a panic.
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError>;

    /// The peer ended its stream, `unread` was left of it. The other direction still stands: replies
    /// can be sent, now or later. By default the connection is closed after what was written is
    /// sent; for a datagram this is its natural end.
    ///
    /// # Errors
    /// By default [`ProtocolError::Truncated`] if anything was unread.
    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if !unread.is_empty() {
            return Err(ProtocolError::Truncated {
                unread: unread.len(),
            });
        }
        transport.close();
        Ok(())
    }

    /// Waiting output has fallen to the low mark after it had been full, or after
    /// [`Transport::write_some`] had no room for everything. For producers.
    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }

    /// When `handle_timeout` is to be called, if at all. Asked after every call, so a protocol keeps
    /// the moment in a field. A moment in the past is now.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The moment of `poll_timeout` has come. The protocol moves or clears it; one that does not is
    /// called again a millisecond later. By default the connection is closed.
    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        transport.close();
    }

    /// A [`Waker`](crate::Waker) of this connection was used. Can come without a cause.
    fn woken(&mut self, transport: &mut Transport<'_>) {
        let _ = transport;
    }

    /// The server is shutting down: finish what is owed, and close before the drain's deadline. By
    /// default the connection is closed after what was written is sent.
    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        transport.close();
    }

    /// The connection has ended. Comes exactly once, last, whatever the reason.
    fn connection_lost(&mut self, reason: &CloseReason) {
        let _ = reason;
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        (**self).connection_made(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        (**self).data_received(data, transport)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        (**self).eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        (**self).resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (**self).poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        (**self).handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        (**self).woken(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        (**self).shutdown_requested(transport);
    }

    fn connection_lost(&mut self, reason: &CloseReason) {
        (**self).connection_lost(reason);
    }
}

/// Makes a protocol for each peer, and hears of what concerns the server as a whole.
///
/// A closure `|_: &Peer| Some(Echo)` is a factory (the parameter's type must be written); so is a
/// function. Implement the trait for the other two hooks. A panic in any of them is contained, unless
/// the program is built with `panic = "abort"`.
pub trait Factory {
    /// The protocol that this factory makes. For several, on several listeners, use
    /// `Box<dyn Protocol>`.
    type Protocol: Protocol;

    /// A protocol for this peer, or `None` to refuse it: its connection is closed at once and
    /// counted.
    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol>;

    /// A connection ended with an error ([`CloseReason::is_error`]). Comes after its
    /// `connection_lost`. The loop itself logs such ends too, each kind at most once a second as a
    /// warning, and [those of every day](CloseReason::is_ordinary) at the level debug.
    fn handle_error(&mut self, peer: &Peer, reason: &CloseReason) {
        let _ = (peer, reason);
    }

    /// Called once per turn of the loop, after the connections were served.
    fn service_actions(&mut self, actions: &mut Actions<'_, Self::Protocol>) {
        let _ = actions;
    }
}

impl<F, P> Factory for F
where
    F: FnMut(&Peer) -> Option<P>,
    P: Protocol,
{
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Peer) -> Option<P> {
        self(peer)
    }
}

/// What [`Factory::service_actions`] can see and do.
#[derive(Debug)]
pub struct Actions<'a, P> {
    pub(crate) now: Instant,
    pub(crate) statistics: &'a Statistics,
    pub(crate) connects: &'a mut Vec<(Address, P)>,
    pub(crate) again: &'a mut Option<Instant>,
    pub(crate) shutdown: &'a mut bool,
}

impl<P> Actions<'_, P> {
    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The loop's counters.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        self.statistics
    }

    /// Opens a connection to `address` at the end of the turn; failure is told to the protocol, by
    /// `connection_lost`.
    pub fn connect(&mut self, address: Address, protocol: P) {
        self.connects.push((address, protocol));
    }

    /// Asks for another turn after `delay` at the latest, though nothing else may happen by then.
    pub fn call_again(&mut self, delay: Duration) {
        let at = self.now.checked_add(delay);
        *self.again = (*self.again).into_iter().chain(at).min();
    }

    /// Shuts the server down, as a [`ShutdownHandle`](crate::ShutdownHandle) does.
    pub fn shutdown(&mut self) {
        *self.shutdown = true;
    }
}
