//! A protocol whose connection begins with a preface, for example with a PROXY header.

use std::time::Instant;
use std::{fmt, mem};

use crate::address::{Address, Peer};
use crate::error::{CloseReason, Deadline, DeliveryError, ProtocolError};
use crate::session::{Ended, Post, Protocol, Tick, Transport, take_either};

/// Reads what comes first on a connection and is not part of its protocol.
pub trait Preface {
    /// What the preface says, for the making of the protocol that follows. `()` if nothing.
    type Info;

    /// How many of the first bytes of a peer that sends no preface are shown to
    /// [`check`](Self::check). By default none.
    const CHECKED: usize = 0;

    /// Called when the connection begins. If this peer sends no preface, returns what its protocol is
    /// made from. The protocol begins at once then, so a server that speaks first does. By default
    /// every peer sends a preface.
    fn absent(&mut self, peer: &Peer) -> Option<Self::Info> {
        let _ = peer;
        None
    }

    /// Called when a peer that sends no preface has sent something, with the first bytes of its
    /// stream, until [`CHECKED`](Self::CHECKED) of them have arrived. The protocol has perhaps seen
    /// some of them before, but not the last of them.
    ///
    /// # Errors
    /// Returns an error if the bytes must not be there. It closes the connection.
    fn check(&mut self, beginning: &[u8], peer: &Peer) -> Result<(), ProtocolError> {
        let _ = (beginning, peer);
        Ok(())
    }

    /// Called with all bytes that have arrived, until the preface is complete. Returns what it
    /// says, or `None` if it is incomplete. At most 64 KiB can be a preface.
    ///
    /// # Errors
    /// Returns an error if the bytes cannot be a preface. It closes the connection.
    fn read(
        &mut self,
        data: &[u8],
        peer: &Peer,
    ) -> Result<Option<Prelude<Self::Info>>, ProtocolError>;
}

/// A complete preface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prelude<I> {
    /// How many bytes it has. The protocol is shown what follows them.
    pub length: usize,
    /// The client that a proxy named, if it did. From now on it is the address of the connection's
    /// [`Peer`], which limits, logs and `handle_error` see, and the proxy's is [`Peer::via`]. The
    /// peer of a datagram stays its sender, because the reply goes there.
    pub client: Option<Address>,
    /// What the protocol is made from.
    pub info: I,
}

/// A protocol whose connection begins with a [`Preface`]. After it the protocol runs as if it were
/// alone: the same session, no cost per byte. [`prefaced`] makes a factory of them.
///
/// The protocol of a peer that [sends no preface](Preface::absent) begins with the connection.
///
/// The preface and the first message share one `first_message_timeout`. Pauses, deadlines and the
/// end are the protocol's as soon as it is made.
pub struct Prefaced<H: Preface, B, P> {
    stage: Stage<H, B, P>,
    /// How many bytes of the preface are still shown before the protocol's, because no message
    /// was complete yet.
    shown: usize,
}

enum Stage<H: Preface, B, P> {
    Reading(H, B),
    /// The driver learns of the client before there is a protocol, since it may have too many.
    Named(H::Info, B),
    Open(P),
    /// The protocol of a peer without a preface, whose first bytes are checked.
    Checked(P, Box<Check<H>>),
    Refused,
}

/// The check of a peer without a preface.
struct Check<H> {
    preface: H,
    /// The first bytes of the stream that the protocol has taken, fewer than are checked.
    taken: Vec<u8>,
}

impl<H: Preface> Check<H> {
    /// Checks the first bytes of the stream, of which `data` are the last. Returns whether there are
    /// enough of them.
    fn is_passed_by(&mut self, data: &[u8], peer: &Peer) -> Result<bool, ProtocolError> {
        let bytes = self.taken.iter().chain(data).copied();
        let beginning: Vec<u8> = bytes.take(H::CHECKED).collect();
        self.preface.check(&beginning, peer)?;
        Ok(beginning.len() == H::CHECKED)
    }
}

/// Returns a factory of protocols whose connections begin with a preface.
///
/// `preface` returns the reader for a peer, or `None` to refuse the connection. `build` returns the
/// protocol, from the peer that the preface names and from what else it says, or `None` to refuse
/// the connection then ([`CloseReason::Refused`]).
///
/// ```
/// use serveloop::layer::{Preface, Prefaced, Prelude, prefaced};
/// use serveloop::protocols::Echo;
/// use serveloop::testing::MemorySession;
/// use serveloop::{Peer, Result};
///
/// /// The client has to say a word first.
/// #[derive(Clone)]
/// struct Password;
///
/// impl Preface for Password {
///     type Info = ();
///
///     fn read(&mut self, data: &[u8], _: &Peer) -> Result<Option<Prelude<()>>> {
///         let word = b"sesame\n";
///         let seen = data.len().min(word.len());
///         if data[..seen] != word[..seen] {
///             return Err("that is not the password".into());
///         }
///         let prelude = Prelude { length: word.len(), client: None, info: () };
///         Ok((seen == word.len()).then_some(prelude))
///     }
/// }
///
/// let mut factory = prefaced(|_: &Peer| Some(Password), |_: &Peer, (): &()| Some(Echo));
/// # let peer = Peer::new("tcp://127.0.0.1:1".parse().unwrap(), Some(0));
/// let mut session = MemorySession::new(factory(&peer).unwrap());
/// session.receive(b"sesa");
/// session.receive(b"me\nhello");
/// assert_eq!(session.sent(), b"hello");
/// ```
pub fn prefaced<H, B, P>(
    mut preface: impl FnMut(&Peer) -> Option<H> + Clone,
    build: B,
) -> impl FnMut(&Peer) -> Option<Prefaced<H, B, P>> + Clone
where
    H: Preface,
    B: FnMut(&Peer, &H::Info) -> Option<P> + Clone,
    P: Protocol,
{
    move |peer: &Peer| Some(Prefaced::new(preface(peer)?, build.clone()))
}

impl<H, B, P> Prefaced<H, B, P>
where
    H: Preface,
    B: FnMut(&Peer, &H::Info) -> Option<P>,
    P: Protocol,
{
    /// Creates the protocol of one connection. `build` is called once, after the preface.
    #[must_use]
    pub fn new(preface: H, build: B) -> Self {
        Self {
            stage: Stage::Reading(preface, build),
            shown: 0,
        }
    }

    /// Reads the preface. Returns whether the protocol can be shown what follows.
    #[cold]
    fn begin(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<bool, ProtocolError> {
        let Stage::Reading(preface, _) = &mut self.stage else {
            return Ok(false);
        };
        let Some(prelude) = preface.read(data, transport.peer())? else {
            return Ok(false);
        };

        self.shown = prelude.length.min(data.len());
        if let Stage::Reading(_, build) = mem::replace(&mut self.stage, Stage::Refused) {
            self.stage = Stage::Named(prelude.info, build);
        }
        // The peer of a datagram is where the reply goes, which no preface decides.
        let client = prelude.client.filter(|_| !transport.peer().is_datagram());
        let Some(client) = client else {
            return self.open(transport);
        };

        transport.replace_peer(client);
        transport.call_again();
        Ok(false)
    }

    /// Makes the protocol. Returns whether it can be shown what follows the preface.
    fn open(&mut self, transport: &mut Transport<'_>) -> Result<bool, ProtocolError> {
        let Stage::Named(info, mut build) = mem::replace(&mut self.stage, Stage::Refused) else {
            return Ok(false);
        };
        let Some(protocol) = build(transport.peer(), &info) else {
            transport.dismiss(CloseReason::Refused);
            return Ok(false);
        };

        self.stage = Stage::Open(protocol);
        self.make(transport)?;
        Ok(!transport.is_blocked())
    }

    /// Tells the protocol that its connection is made. It is where the end finds it, also if it panics.
    fn make(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        match &mut self.stage {
            Stage::Open(protocol) | Stage::Checked(protocol, _) => {
                protocol.connection_made(transport)
            }
            _ => Ok(()),
        }
    }

    /// Shows the protocol what follows the preface, which counts as taken with the first message.
    fn show(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize, ProtocolError> {
        let Stage::Open(protocol) = &mut self.stage else {
            return Ok(0);
        };
        let rest = &data[self.shown..];
        if rest.is_empty() && self.shown > 0 && !transport.peer().is_datagram() {
            // While the peer owes its first message, the preface waits for it, or it would count as
            // a message.
            if transport.awaits_first() {
                return Ok(0);
            }
            transport.end_unit_room();
            return Ok(mem::take(&mut self.shown));
        }

        let taken = take_either(protocol, rest, transport)?;
        if taken == 0 {
            transport.expect_behind(self.shown);
            return Ok(0);
        }
        transport.end_unit_room();
        Ok(mem::take(&mut self.shown) + taken)
    }

    /// Makes the protocol of a peer that sends no preface.
    fn skip(&mut self, info: H::Info, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let Stage::Reading(preface, mut build) = mem::replace(&mut self.stage, Stage::Refused)
        else {
            return Ok(());
        };
        let Some(protocol) = build(transport.peer(), &info) else {
            transport.dismiss(CloseReason::Refused);
            return Ok(());
        };

        self.stage = if H::CHECKED == 0 {
            Stage::Open(protocol)
        } else {
            let taken = Vec::new();
            Stage::Checked(protocol, Box::new(Check { preface, taken }))
        };
        self.make(transport)
    }

    /// Shows the protocol of a peer without a preface bytes that were checked.
    #[cold]
    fn check(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Stage::Checked(protocol, check) = &mut self.stage else {
            return Ok(0);
        };
        let is_passed = check.is_passed_by(data, transport.peer())?;
        let taken = take_either(protocol, data, transport);
        if is_passed {
            if let Stage::Checked(protocol, _) = mem::replace(&mut self.stage, Stage::Refused) {
                self.stage = Stage::Open(protocol);
            }
        } else if let Ok(count) = taken {
            check.taken.extend_from_slice(&data[..count]);
        }
        taken
    }

    fn tell(&mut self, event: impl FnOnce(&mut P)) {
        if let Stage::Open(protocol) | Stage::Checked(protocol, _) = &mut self.stage {
            event(protocol);
        }
    }
}

impl<H, B, P> Protocol for Prefaced<H, B, P>
where
    H: Preface,
    B: FnMut(&Peer, &H::Info) -> Option<P>,
    P: Protocol,
{
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if transport.peer().is_datagram() && !transport.is_one_shot() {
            let problem =
                "a preface is for streams and single datagrams, and no sessions of datagrams";
            return Err(ProtocolError::other(problem));
        }
        if let Stage::Reading(preface, _) = &mut self.stage {
            if let Some(info) = preface.absent(transport.peer()) {
                return self.skip(info, transport);
            }
        }
        transport.make_unit_room();
        Ok(())
    }

    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        match &mut self.stage {
            Stage::Open(protocol) if self.shown == 0 => protocol.data_received(data, transport),
            Stage::Reading(..) => match self.begin(data, transport)? {
                true => self.show(data, transport),
                false => Ok(0),
            },
            Stage::Checked(..) => self.check(data, transport),
            _ => self.show(data, transport),
        }
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        match &mut self.stage {
            Stage::Open(protocol) if self.shown == 0 => protocol.datagram_received(data, transport),
            _ => self.data_received(data, transport),
        }
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        match &mut self.stage {
            Stage::Open(protocol) | Stage::Checked(protocol, _) => {
                protocol.eof_received(&unread[self.shown..], transport)
            }
            _ if unread.is_empty() => {
                transport.close();
                Ok(())
            }
            _ => Err(ProtocolError::Truncated {
                unread: unread.len(),
            }),
        }
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.tell(|protocol| protocol.resume_writing(transport));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Open(protocol) | Stage::Checked(protocol, _) => protocol.poll_timeout(),
            _ => None,
        }
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.tell(|protocol| protocol.handle_timeout(transport));
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        if !matches!(self.stage, Stage::Named(..)) {
            return self.tell(|protocol| protocol.woken(transport));
        }
        // Nobody else can wake this connection: there is no protocol with a waker yet.
        if let Err(error) = self.open(transport) {
            transport.fail(CloseReason::Protocol(error));
        }
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.tell(|protocol| protocol.datagram_undelivered(error, transport));
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        if let Stage::Open(protocol) | Stage::Checked(protocol, _) = &mut self.stage {
            protocol.deadline_passed(deadline, transport);
        }
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        if let Stage::Open(protocol) | Stage::Checked(protocol, _) = &mut self.stage {
            protocol.input_rejected(error, transport);
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        match &mut self.stage {
            Stage::Open(protocol) | Stage::Checked(protocol, _) => {
                protocol.shutdown_requested(transport);
            }
            _ => transport.close(),
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.tell(|protocol| protocol.connection_lost(ended));
    }

    fn owes_first(&self, outside: bool) -> bool {
        match &self.stage {
            Stage::Open(protocol) | Stage::Checked(protocol, _) => protocol.owes_first(outside),
            Stage::Reading(..) | Stage::Named(..) => true,
            Stage::Refused => false,
        }
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.tell(|protocol| protocol.catch_up(from, to));
    }

    fn needs_stream() -> bool {
        P::needs_stream()
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.tell(|protocol| protocol.posted(post, transport));
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        self.tell(|protocol| protocol.write_end_mark(transport));
    }
}

impl<H: Preface, B, P: fmt::Debug> fmt::Debug for Prefaced<H, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match &self.stage {
            Stage::Open(protocol) | Stage::Checked(protocol, _) => Some(protocol),
            _ => None,
        };
        f.debug_struct("Prefaced")
            .field("protocol", &protocol)
            .finish_non_exhaustive()
    }
}
