//! What drivers ask beyond what moves bytes: what a session costs, and since when.

use crate::address::Address;
use crate::session::Session;
use crate::session::clock::Tick;
use crate::session::state::PANICKED;

impl<P> Session<P> {
    /// How many bytes of memory the connection costs beyond an idle one: what the buffers of unread
    /// input and waiting output have, and what the protocol [charged](crate::Transport::charge).
    #[must_use]
    pub fn held(&self) -> usize {
        let buffers = [&self.unread, &self.state.output].into_iter().flatten();
        let buffered: usize = buffers.map(|buffer| buffer.held()).sum();
        buffered.saturating_add(self.state.charged as usize)
    }

    /// Whether a read from the peer's socket may end though more waits. A Unix socket ends one behind
    /// each passed descriptor, and where the sender's identity changes; a TCP socket only at an urgent
    /// byte, of which events tell.
    pub(crate) fn has_gaps(&self) -> bool {
        !matches!(self.state.peer.address(), Address::Tcp(_))
    }

    /// See [`State::catch_up`](crate::link::State::catch_up).
    pub(crate) fn catch_up(&mut self, from: Tick, to: Tick) {
        self.state.catch_up(from, to);
    }

    /// When the session was made, as long as it is not open.
    pub(crate) fn began(&self) -> Tick {
        self.state.activity
    }

    /// Whether the protocol panicked in `connection_lost`, which changes nothing about the end.
    pub(crate) fn has_panicked_last(&self) -> bool {
        self.state.flags.any(PANICKED)
    }
}
