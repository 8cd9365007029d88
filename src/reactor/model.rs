//! The one replaceable step of a server: where a connection is served once it is accepted.
//!
//! Accepting, refusing, limits on connections, pauses, counting and the shutdown are the reactor's,
//! in every model. Without a model it serves connections itself.

use crate::address::Peer;
use crate::net::Net;
use crate::reactor::connections::FIRST_TOKEN;
use crate::reactor::hub::Hub;
use crate::session::Tick;

/// The tokens of a model's own events begin behind those of listeners and end before those of
/// connections, also where a token has no more than 32 bits.
pub(crate) const FIRST_OF_MODEL: usize = FIRST_TOKEN / 2;

/// The most tokens that a model has: the last two below those of connections are the loop's.
pub(crate) const TOKENS_OF_MODEL: usize = FIRST_TOKEN - FIRST_OF_MODEL - 2;

pub(crate) trait Model<N: Net, P> {
    /// Serves an accepted connection, here or elsewhere. False if the system has no place for it;
    /// it is closed then.
    fn process(&mut self, stream: N::Stream, protocol: P, peer: Peer, hub: &mut Hub<'_, N>)
    -> bool;

    /// Answers the datagram that is in the first `count` bytes of the turn's input, here or
    /// elsewhere. False if the system has no place for it.
    fn answer(
        &mut self,
        socket: &mut N::Datagram,
        count: usize,
        protocol: P,
        peer: Peer,
        hub: &mut Hub<'_, N>,
    ) -> bool;

    /// How many connections and datagrams are being served.
    fn len(&self) -> usize;

    /// Called when the shutdown begins: how many connections are open, for the log; `None` if the
    /// model has said it.
    fn open(&self) -> Option<usize> {
        Some(self.len())
    }

    /// Whether the process has the descriptors for one more connection.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether further connections have to wait.
    fn is_full(&self) -> bool {
        false
    }

    /// An event came for one of the model's own tokens.
    fn note(&mut self, token: usize) {
        let _ = token;
    }

    /// When [`reap`](Self::reap) is to be called though nothing happens.
    fn deadline(&self) -> Option<Tick> {
        None
    }

    /// Called each turn: counts what has ended, and while the server shuts down sees to it that
    /// everybody knows. A process that is forked off calls `leave`, which drops what the loop itself
    /// has open, and never returns.
    fn reap(&mut self, hub: &mut Hub<'_, N>, leave: &mut dyn FnMut(&mut N));

    /// The drain is over, or `at_once` a second request came: ends everything.
    fn end(&mut self, now: Tick, at_once: bool);
}
