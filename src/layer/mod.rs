//! Protocols that wrap other protocols, to watch, limit or change what these see.
//!
//! - [`Observed`] shows the calls that a protocol gets to an observer, which can also refuse data.
//! - [`Screen`] is an observer that keeps browsers from a protocol.
//! - [`RateLimited`] slows a peer down that sends faster than a [`RateLimit`] allows.
//! - [`Layered`] transforms the bytes of a connection on their way, in both directions, as TLS or
//!   compression do. A [`Layer`] is the transformation.
//! - [`Prefaced`] reads what comes first on a connection, for example a PROXY header, and then lets
//!   the protocol go on alone.
//! - [`Upgradable`] hands a connection over to another protocol, as HTTP does to WebSocket.
//! - [`proxy`] reads and writes the header in which a load balancer states the client's address.
#![cfg_attr(feature = "tls", doc = "- [`tls`] is TLS for servers and clients.")]
#![cfg_attr(
    not(feature = "tls"),
    doc = "- `tls` is TLS for servers and clients, with the feature `tls`."
)]
//!
//! This room imports `address`, `error`, `session` and `framing`, and knows no socket, thread or clock.

mod foreign;
mod layered;
mod observed;
mod prefaced;
pub mod proxy;
mod rate_limited;
mod screen;
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub mod tls;
mod upgradable;

use std::borrow::Cow;
use std::time::Instant;

use crate::address::Peer;
use crate::error::ProtocolError;
use crate::session::Transport;

pub use self::foreign::Foreign;
pub use self::layered::{Layered, layered};
pub use self::observed::{Event, Observe, Observed};
pub use self::prefaced::{Preface, Prefaced, Prelude, prefaced};
pub use self::rate_limited::{RateLimit, RateLimited};
pub use self::screen::{Alarm, Screen};
pub use self::upgradable::{Upgradable, Upgrade};

/// A transformation of a connection's bytes, without I/O: what arrives on the wire becomes plain
/// bytes for the protocol inside, and what that writes becomes bytes for the wire.
///
/// A layer knows no session, deadline or water mark. [`Layered`] calls it and takes care of those:
///
/// - `begin` is called once. Then units of the wire go to `received`, one at a time, until
///   `opened` returns what the handshake has shown. From then on plain bytes go in and out.
/// - A layer that keeps memory between calls, besides its own value, tells how much in `held`.
/// - A panic or an error ends the connection, and no other. A layer that returns plain bytes
///   before it is open or after the end of the stream counts as one that panicked.
///
/// A layer that writes each byte with all its bits inverted:
///
/// ```
/// use serveloop::layer::{Layer, Layered, Received, Wire};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
/// use serveloop::{Peer, Result};
///
/// struct Inverted;
///
/// impl Layer for Inverted {
///     type Info = ();
///
///     fn opened(&mut self) -> Option<()> {
///         Some(())
///     }
///
///     fn received<'a>(&mut self, data: &'a [u8], _: &mut Wire<'_>) -> Result<Received<'a>> {
///         let plain: Vec<u8> = data.iter().map(|byte| !byte).collect();
///         Ok(Received::taken(data.len()).with_plain(plain))
///     }
///
///     fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result {
///         let bytes: Vec<u8> = plain.iter().map(|byte| !byte).collect();
///         wire.write(&bytes);
///         Ok(())
///     }
/// }
///
/// let layered = Layered::new(Inverted, |_: &Peer, (): &()| Some(Echo));
/// let mut session = MemorySession::new(layered);
/// session.receive(&[!b'h', !b'i']);
/// assert_eq!(session.sent(), [!b'h', !b'i']);
/// ```
pub trait Layer {
    /// What the handshake shows, for the making of the protocol inside: a name, a certificate, a
    /// version. `()` if there is none.
    type Info;

    /// Whether output passes unchanged, so that `send` is never called and nothing is copied.
    const PASSES_OUTPUT: bool = false;

    /// Whether the layer cannot transform datagrams, each of which is a whole connection. A server
    /// with a datagram socket then refuses to begin; see
    /// [`Protocol::needs_stream`](crate::Protocol::needs_stream).
    const NEEDS_STREAM: bool = false;

    /// Called once, when the connection is established. A layer that speaks first writes here.
    ///
    /// # Errors
    /// An error closes the connection after everything already written is sent. This holds for
    /// every method that returns a `Result`.
    fn begin(&mut self, wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        let _ = wire;
        Ok(())
    }

    /// Returns what the handshake has shown, once plain bytes can be sent and received. Called
    /// after `begin` and after each unit, until it has returned something for the first time.
    fn opened(&mut self) -> Option<Self::Info>;

    /// Called with all bytes that have arrived on the wire and were not taken yet. Takes one unit
    /// from the front, for example a record, of at most 64 KiB or `max_frame`, and returns what
    /// became of it. If the unit is incomplete, takes nothing and is called again when more bytes
    /// have arrived.
    ///
    /// # Errors
    /// Returns an error if the peer's bytes break the layer's rules, after it has written what it
    /// owes the peer, for example an alert.
    fn received<'a>(
        &mut self,
        data: &'a [u8],
        wire: &mut Wire<'_>,
    ) -> Result<Received<'a>, ProtocolError>;

    /// Called with bytes that the protocol inside has written. Writes all of them to the wire,
    /// transformed.
    ///
    /// # Errors
    /// Returns an error if that is not possible.
    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError>;

    /// Called once, when the protocol inside has ended its side of the stream, or is about to be ended
    /// by a deadline or for lack of memory. A layer with an end mark writes it.
    fn end(&mut self, wire: &mut Wire<'_>) {
        let _ = wire;
    }

    /// Called when the peer has ended its stream on the wire. Returns whether it may do that here.
    /// By default it may, between any two units.
    fn wire_ended(&mut self) -> WireEnd {
        WireEnd::Clean
    }

    /// Returns how many bytes of memory the layer keeps between calls, besides its own value. They
    /// count towards `max_buffered`. By default 0.
    fn held(&self) -> usize {
        0
    }
}

/// What [`Layer::received`] did with the wire's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received<'a> {
    taken: usize,
    plain: Option<Cow<'a, [u8]>>,
    end: bool,
}

impl<'a> Received<'a> {
    /// The unit is incomplete, and nothing was taken.
    #[must_use]
    pub fn incomplete() -> Self {
        Self::default()
    }

    /// A unit of `count` bytes was taken from the front.
    #[must_use]
    pub fn taken(count: usize) -> Self {
        Self {
            taken: count,
            ..Self::default()
        }
    }

    /// The unit held these bytes for the protocol inside. A unit without any is not shown to it,
    /// unless it is a datagram.
    #[must_use]
    pub fn with_plain(self, plain: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            plain: Some(plain.into()),
            ..self
        }
    }

    /// The unit ended the peer's side of the stream. What follows on the wire has no plain bytes.
    /// Before the layer is open, this ends the connection.
    #[must_use]
    pub fn with_end(self) -> Self {
        Self { end: true, ..self }
    }
}

/// How a stream ended on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireEnd {
    /// As the layer's rules say. The protocol inside is told of the end, if it was not before.
    Clean,
    /// Without the end mark that the layer has, so bytes may be missing:
    /// [`CloseReason::Truncated`](crate::CloseReason::Truncated).
    Truncated,
}

/// A layer's access to the wire, for the duration of one call.
#[derive(Debug)]
pub struct Wire<'a>(Transport<'a>);

impl<'a> Wire<'a> {
    pub(crate) fn of(transport: &'a mut Transport<'_>) -> Self {
        Self(transport.reborrow())
    }

    /// Sends `data` after everything written before.
    pub fn write(&mut self, data: &[u8]) {
        self.0.write(data);
    }

    /// Sends up to `most` bytes that `fill` writes, and which are zero before. `fill` returns how
    /// many it wrote. If it panics, nothing of them is sent.
    pub fn write_with(&mut self, most: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        self.0.write_with(most, fill);
    }

    /// Returns the driver's time, which is read once per turn. It is virtual in tests.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.0.peer()
    }
}
