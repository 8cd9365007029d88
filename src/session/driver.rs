//! What drivers need of a session beyond its engine: the outcomes of their reads and writes, its memory,
//! and when it began.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::address::{Address, Peer};
use crate::config::{Config, Limits};
use crate::error::CloseReason;
use crate::session::clock::Tick;
use crate::session::state::{
    BUSY, EOF, LOST, OPENING, PANICKED, PAUSED, RATE_LIMITED, REPLACED, RETIME, SHUTDOWN, STALLED,
};
#[cfg(test)]
use crate::session::{Buffer, Flags, state::Extra};
use crate::session::{Context, Protocol, Session, catch};

impl<P: Protocol> Session<P> {
    /// Handles the outcome of a read: the bytes that arrived, or the end of the stream if there are
    /// none. `WouldBlock` and `Interrupted` change nothing, and any other error ends the connection.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use serveloop::driver::{Clock, Context, Mailbox, Session};
    /// # use serveloop::{Address, Config, Peer, protocols::Echo};
    /// # let (clock, config) = (Clock::new(Instant::now()), Config::default());
    /// # let mailbox = Mailbox::new(Box::new(|| ()));
    /// # let context = &Context::new(&clock, &config, &mailbox, 0);
    /// # let peer = Peer::new(Address::Tcp(([127, 0, 0, 1], 1).into()), Some(0));
    /// let mut session = Session::new(Echo, peer, clock.tick());
    /// session.handle_open(context);
    /// session.handle_read(Ok(b"hello"), context);
    /// assert_eq!(session.output(), b"hello");
    ///
    /// session.handle_written(Ok(5), context);
    /// session.handle_read(Ok(b""), context);
    /// assert!(session.is_closing());
    /// ```
    pub fn handle_read(&mut self, read: io::Result<&[u8]>, context: &Context<'_>) {
        match read {
            Ok(b"") => self.handle_eof(context),
            Ok(data) => self.handle_data(data, context),
            Err(error) if is_passing(&error) => {}
            Err(error) => self.fail(CloseReason::Io(error)),
        }
    }

    /// Handles the outcome of a write: how many bytes of the output the peer's socket took. The
    /// peer's `write_timeout` runs while output is left. `WouldBlock` and `Interrupted` count as no
    /// bytes, and any other error ends the connection. See [`handle_read`](Self::handle_read) for
    /// an example.
    pub fn handle_written(&mut self, written: io::Result<usize>, context: &Context<'_>) {
        match written {
            Ok(0) => {}
            Ok(count) => self.output_sent(count, context),
            Err(error) if is_passing(&error) => {}
            Err(error) => self.fail(CloseReason::Io(error)),
        }

        if !self.output().is_empty() {
            self.note_stalled(context);
        }
    }

    /// Returns whether the session has no work without new input, and holds no bytes.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        !self.state.flags.any(BUSY) && self.state.output.is_none()
    }

    /// Returns whether a session without output is quiet, and no deadline but perhaps its protocol's has
    /// become earlier.
    #[inline]
    pub(crate) fn rests(&self) -> bool {
        !self.state.flags.any(BUSY.or(RETIME))
    }

    /// Returns whether the protocol of a session that rests has a deadline, or has panicked when asked.
    #[inline]
    pub(crate) fn has_own_deadline(&mut self) -> bool {
        self.protocol.poll_timeout(&mut self.state).is_some() || self.is_closing()
    }

    /// Works like `output_sent`, if nothing is queued.
    #[inline]
    pub(crate) fn buffer_sent(&mut self, count: usize, context: &Context<'_>) {
        let (now, config) = (context.clock.tick(), context.config);
        if self.state.buffer_sent(count, now, config) {
            self.resume(context);
        }
    }

    /// Moves times noted as `from` to `to`, also those of a session inside a layer. See
    /// [`State::catch_up`](crate::session::state::State::catch_up).
    pub(crate) fn catch_up(&mut self, from: Tick, to: Tick) {
        self.state.catch_up(from, to);
        let inside = &mut self.protocol.0;
        let _ = catch(|| inside.catch_up(from, to));
    }
}

/// Returns whether a call is worth repeating on the same socket.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl<P> Session<P> {
    /// Returns how many bytes others have posted for the connection, which its peer has not taken yet.
    pub(crate) fn posted(&self) -> usize {
        self.state.posted()
    }

    /// Returns how many bytes of memory the connection uses beyond an idle one: the capacity of the
    /// buffers for unread input and waiting output, plus what the protocol
    /// [charged](crate::Transport::charge).
    #[must_use]
    pub fn held(&self) -> usize {
        let buffers = [&self.unread, &self.state.output].into_iter().flatten();
        let buffered: usize = buffers.map(|buffer| buffer.held()).sum();
        buffered.saturating_add(self.state.held_beside_buffers())
    }

    /// Returns whether a read from the peer's socket may end although more bytes wait. On a Unix
    /// socket a read ends after each passed descriptor and where the sender's identity changes. On
    /// a TCP socket it ends early only at an urgent byte, which events report.
    pub(crate) fn has_gaps(&self) -> bool {
        let peer = &self.state.peer;
        let socket = peer.via().unwrap_or(peer.address());
        !matches!(socket, Address::Tcp(_))
    }

    /// Returns whether the peer has ended its stream.
    #[must_use]
    pub fn is_eof(&self) -> bool {
        self.state.flags.any(EOF)
    }

    /// Returns whether the protocol was asked to finish.
    pub(crate) fn was_asked_to_finish(&self) -> bool {
        self.state.flags.any(SHUTDOWN)
    }

    /// Returns whether the protocol was told of the end.
    pub(crate) fn is_lost(&self) -> bool {
        self.state.flags.any(LOST)
    }

    /// Returns how many bytes came and went, and when the last one did.
    pub(crate) fn traffic(&self) -> (u64, u64, Tick) {
        (self.state.received, self.state.sent, self.state.activity)
    }

    /// Returns whether the peer takes no output, or the protocol no input.
    pub(crate) fn waits_for(&self) -> (bool, bool) {
        let flags = self.state.flags;
        (flags.any(STALLED), flags.any(PAUSED))
    }

    /// Returns whether a layer is still in its handshake.
    pub(crate) fn is_opening(&self) -> bool {
        self.state.flags.any(OPENING)
    }

    /// Returns whether the peer has become another one since the last call.
    pub(crate) fn take_replaced(&mut self) -> bool {
        self.state.flags.take(REPLACED)
    }

    /// Drops the output of a closing session, because the system did not take it.
    pub(crate) fn drop_output(&mut self) {
        let Some(output) = &mut self.state.output else {
            return;
        };
        let count = output.len();
        output.consume(count);
        self.state.note_unsent(count);
    }

    /// Returns the limits in force: the connection's own, or those of `config`.
    pub(crate) fn limits<'a>(&'a self, config: &'a Config) -> &'a Limits {
        self.state.limits(config)
    }

    /// Gives the session limits of its own, which were checked before.
    pub(crate) fn set_limits(&mut self, limits: Arc<Limits>) {
        self.state.set_limits(limits);
    }

    /// Gives the peer the address that an outbound connection was established to.
    pub(crate) fn set_address(&mut self, address: Address) {
        let id = self.state.peer.id();
        self.state.peer = Peer::new(address, None).with_id(id);
    }

    /// Returns when the session was made.
    pub(crate) fn began(&self) -> Tick {
        self.state.began
    }

    /// The fields of a session and their sizes in bytes.
    #[cfg(test)]
    pub(crate) fn ledger() -> Vec<(&'static str, usize)> {
        let buffer = size_of::<Option<Box<Buffer>>>();
        vec![
            ("peer", size_of::<Peer>()),
            ("output", buffer),
            ("extra", size_of::<Option<Box<Extra>>>()),
            ("began", size_of::<Tick>()),
            ("activity", size_of::<Tick>()),
            ("message", size_of::<Tick>()),
            ("progress", size_of::<Tick>()),
            ("received", size_of::<u64>()),
            ("sent", size_of::<u64>()),
            ("flags", size_of::<Flags>()),
            ("charged", size_of::<u32>()),
            ("unread", buffer),
            ("protocol", size_of::<P>()),
        ]
    }

    /// Returns whether a rate limit has made the peer wait.
    pub(crate) fn was_rate_limited(&self) -> bool {
        self.state.flags.any(RATE_LIMITED)
    }

    /// Returns whether the protocol has closed the connection with output that it had no room for.
    pub(crate) fn was_cut_short(&self) -> bool {
        self.state.extra.as_ref().is_some_and(|it| it.is_cut_short)
    }

    /// Returns whether the protocol panicked in `connection_lost`, which does not change the reason
    /// for the end.
    pub(crate) fn has_panicked_last(&self) -> bool {
        self.state.flags.any(PANICKED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ProtocolError;
    use crate::session::{Tick, Transport};

    struct Quiet;

    impl Protocol for Quiet {
        fn data_received(
            &mut self,
            data: &[u8],
            _: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            Ok(data.len())
        }
    }

    /// How a socket reads does not depend on whom its peer speaks for.
    #[test]
    fn a_unix_socket_has_gaps_whatever_client_a_header_names() {
        let address = |uri: &str| uri.parse().expect("an address");
        let mut peer = Peer::new(address("unix:///run/proxy"), Some(0));
        peer.stand_for(address("tcp://192.0.2.1:5"), true);
        assert!(Session::new(Quiet, peer, Tick::ZERO).has_gaps());

        let mut peer = Peer::new(address("tcp://192.0.2.9:80"), Some(0));
        peer.stand_for(address("unix:///run/client"), true);
        assert!(!Session::new(Quiet, peer, Tick::ZERO).has_gaps());
    }
}
