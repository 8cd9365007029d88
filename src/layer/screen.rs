//! A screen in front of a protocol that recognises what browsers send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::LOG_TARGET;
use crate::address::Peer;
use crate::error::ProtocolError;
use crate::layer::foreign::{ENOUGH, Foreign, Judgement};
use crate::layer::observed::{Event, Observe};

/// Keeps browsers from a protocol that acts on what it reads.
///
/// A page of any site can make a browser connect to a server on its reader's own machine, even to
/// loopback, and can choose most of what it sends. A screen ends a connection that begins as HTTP,
/// TLS or STUN, before the protocol sees it, however the stream is cut. Datagrams are not screened:
/// browsers cannot choose what is in them.
///
/// ```
/// use serveloop::layer::{Alarm, Observed, Screen};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
/// use serveloop::{CloseReason, Peer};
///
/// let alarm = Alarm::default();
/// let build = |peer: &Peer| Observed::new(Echo, Screen::new(peer, &alarm));
///
/// let peer = Peer::new("tcp://127.0.0.1:40000".parse()?, Some(0));
/// let mut session = MemorySession::new(build(&peer));
/// session.receive(b"POST / HTTP/1.1\r\n");
/// assert_eq!(session.sent(), b"");
/// assert!(matches!(session.reason(), Some(CloseReason::Protocol(_))));
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Screen {
    peer: Peer,
    alarm: Alarm,
    method_least: usize,
    /// `None` once it is clear what the stream is.
    beginning: Option<Beginning>,
    /// Whether the protocol ends such a stream itself.
    answers: bool,
}

impl Screen {
    /// Creates a screen for one connection. All connections of a server share one `alarm`.
    #[must_use]
    pub fn new(peer: &Peer, alarm: &Alarm) -> Self {
        let is_stream = !peer.is_datagram();
        Self {
            peer: peer.clone(),
            alarm: alarm.clone(),
            method_least: usize::MAX,
            beginning: is_stream.then(Beginning::default),
            answers: false,
        }
    }

    /// Also recognises the beginning of an HTTP method, once it has `bytes` bytes. The default is
    /// `usize::MAX`: only whole methods count. A smaller number is for protocols that act on
    /// nothing shorter.
    #[must_use]
    pub fn with_method_least(self, bytes: usize) -> Self {
        Self {
            method_least: bytes,
            ..self
        }
    }

    /// Only raises the alarm, and leaves the end of such a stream to the protocol, which must act on
    /// none of it and may send a reply.
    #[must_use]
    pub fn answering(self) -> Self {
        Self {
            answers: true,
            ..self
        }
    }
}

impl Observe for Screen {
    /// Refuses the arrived bytes if they begin a foreign stream.
    fn admit(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        let Some(mut seen) = self.beginning else {
            return Ok(());
        };
        seen.extend(data);

        match Foreign::of_beginning(seen.as_slice(), self.method_least) {
            Judgement::Foreign(foreign) => {
                self.beginning = None;
                let error = self.alarm.raise(&self.peer, foreign);
                if self.answers { Ok(()) } else { Err(error) }
            }
            Judgement::Ours => {
                self.beginning = None;
                Ok(())
            }
            Judgement::Open => Ok(()),
        }
    }

    fn observe(&mut self, event: Event<'_>) {
        if let (Event::Taken(bytes), Some(beginning)) = (event, &mut self.beginning) {
            beginning.extend(bytes);
        }
    }

    /// Returns the bytes that were taken so far, behind a first one, or nothing once it is clear what the
    /// stream is.
    fn hand_over(&mut self) -> Option<Vec<u8>> {
        let beginning = self.beginning.as_ref().map(Beginning::as_slice);
        Some(beginning.map_or_else(Vec::new, |seen| [b"?", seen].concat()))
    }

    fn take_over(&mut self, state: &[u8]) -> bool {
        let seen = match state {
            [] => None,
            [b'?', seen @ ..] => Some(seen),
            _ => return false,
        };
        self.beginning = seen.map(|seen| {
            let mut beginning = Beginning::default();
            beginning.extend(seen);
            beginning
        });
        true
    }
}

/// Warns once, however many clones of it there are, that a web page may have tried to reach the
/// server.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Arc<AtomicBool>);

impl Alarm {
    /// Logs a warning about `foreign` from `peer`, unless there was one before, and returns the
    /// error that ends the connection.
    #[must_use]
    pub fn raise(&self, peer: &Peer, foreign: Foreign) -> ProtocolError {
        if !self.0.swap(true, Ordering::Relaxed) {
            log::warn!(
                target: LOG_TARGET, id = peer.id(); "{peer}: sent {foreign}: the connection is closed. A web page can make a browser on \
                 this machine send that, even to loopback, but not to a Unix socket. (This warning appears once.)"
            );
        }
        ProtocolError::malformed(format!("{foreign} instead of a request"))
    }
}

/// The first bytes of a stream, however they arrive in pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Beginning {
    bytes: [u8; ENOUGH],
    length: usize,
}

impl Beginning {
    /// Appends bytes, up to [`ENOUGH`] in all.
    fn extend(&mut self, data: &[u8]) {
        let data = match self.length {
            0 => data.trim_ascii_start(),
            _ => data,
        };
        let count = data.len().min(ENOUGH - self.length);
        self.bytes[self.length..][..count].copy_from_slice(&data[..count]);
        self.length += count;
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
