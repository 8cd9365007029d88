//! The one replaceable step of a server: where an accepted connection is served.
//!
//! The reactor accepts, refuses, limits, pauses, counts and shuts down in every model. Without a
//! model it also serves the connections.

use std::time::Instant;

use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::reactor::token::FIRST_TOKEN;
use crate::service::monitor::{Pass, Snapshot};
use crate::session::{Admitted, Tick};

/// The first token of a model's own events. They come after the listeners' tokens and before the
/// connections', even where a token has only 32 bits.
pub(crate) const FIRST_OF_MODEL: usize = FIRST_TOKEN / 2;

/// The most tokens that a model may use. The loop itself uses the last two below the connections'.
pub(crate) const TOKENS_OF_MODEL: usize = FIRST_TOKEN - FIRST_OF_MODEL - 2;

/// A way of serving connections and datagrams outside the loop.
pub(crate) trait Model<N: Net, P> {
    /// Serves an accepted connection, here or elsewhere. Returns false if the system has no room
    /// for it, in which case it is closed.
    fn process(&mut self, stream: N::Stream, admitted: Admitted<P>, hub: &mut Hub<'_, N>) -> bool;

    /// Answers the datagram in the first `count` bytes of the turn's input, here or elsewhere.
    /// Returns false if the system has no room for it.
    fn answer(
        &mut self,
        socket: &mut N::Datagram,
        count: usize,
        admitted: Admitted<P>,
        hub: &mut Hub<'_, N>,
    ) -> bool;

    /// Returns how many connections and datagrams are being served.
    fn len(&self) -> usize;

    /// Returns how many connections are open when the shutdown begins, for the log. `None` if the
    /// model has logged it.
    fn open(&self) -> Option<usize> {
        Some(self.len())
    }

    /// Returns whether the model forks processes, so that this one may have a single thread.
    fn forks(&self) -> bool {
        false
    }

    /// Returns whether the process has the descriptors for one more connection.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns whether further connections have to wait.
    fn is_full(&self) -> bool {
        false
    }

    /// Handles an event for one of the model's own tokens.
    fn note(&mut self, token: usize) {
        let _ = token;
    }

    /// Returns when to call [`reap`](Self::reap) even if no event comes.
    fn deadline(&self) -> Option<Tick> {
        None
    }

    /// Counts what has ended; called in each turn. During a shutdown it also makes sure that
    /// everything being served is told. A forked child process calls `leave`, which closes what the
    /// loop itself has open, and never returns.
    fn reap(&mut self, hub: &mut Hub<'_, N>, leave: &mut dyn FnMut(&mut N));

    /// Adds what is served elsewhere to what the loop counts.
    fn count(&self, part: &mut Snapshot) {
        let _ = part;
    }

    /// Lists up to `most` of the connections that are served elsewhere, and ends those that the pass
    /// wants ended. Returns whether those were the last.
    fn visit(&mut self, pass: &mut Pass, most: usize, now: Instant) -> bool {
        let _ = (pass, most, now);
        true
    }

    /// Ends everything: the drain is over, or a second request came (`at_once`).
    fn end(&mut self, now: Tick, at_once: bool);
}
