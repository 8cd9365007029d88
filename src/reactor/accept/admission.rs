//! Who gets in: the way from a new socket to a session on the loop, inbound and outbound.

use std::io;

use crate::LOG_TARGET;
use crate::address::{Address, Peer};
use crate::error::{CloseReason, Deadline};
use crate::net::Net;
use crate::reactor::connections::Connections;
use crate::reactor::datagram::answer_on_loop;
use crate::reactor::hub::{DATAGRAM_MOST, Turn};
use crate::reactor::model::Model;
use crate::session::{Factory, Session, Tick, catch};

/// What the reactor lends its listeners, and itself for outbound connections.
pub(in crate::reactor) struct Admission<'a, F: Factory, N: Net> {
    pub(in crate::reactor) turn: Turn<'a, N>,
    pub(in crate::reactor) factory: &'a mut F,
    pub(in crate::reactor) connections: &'a mut Connections<N::Stream, F::Protocol>,
    pub(in crate::reactor) model: Option<&'a mut (dyn Model<N, F::Protocol> + 'static)>,
}

impl<F: Factory, N: Net> Admission<'_, F, N> {
    /// Takes in a connection that was accepted, unless there is no room or the factory refuses it.
    pub(super) fn admit(&mut self, stream: N::Stream, peer: Peer) {
        let Some(protocol) = self.protocol_for(&peer) else {
            return self.turn.net.close(stream, false);
        };
        log::debug!(target: LOG_TARGET, event = "accepted"; "{peer}: accepted");
        match &mut self.model {
            None => self.watch(stream, protocol, peer),
            Some(model) => {
                // Counted before, since a connection that is served here has ended after.
                self.turn.statistics.accepted += 1;
                self.turn.peer_limit.enter(&peer, self.turn.config);
                let name = peer.clone();
                if !model.process(stream, protocol, peer, &mut self.turn) {
                    self.turn.leave(&name);
                    self.turn.statistics.accepted -= 1;
                    self.turn.statistics.refused_by_system += 1;
                }
            }
        }
    }

    /// Serves a connection on the loop.
    fn watch(&mut self, mut stream: N::Stream, protocol: F::Protocol, peer: Peer) {
        self.turn.statistics.accepted += 1;
        let token = self.connections.next_token();
        let mut session = Session::new(protocol, peer, self.turn.now());
        match self.turn.net.register(&mut stream, token) {
            Ok(()) => {
                self.turn.peer_limit.enter(session.peer(), self.turn.config);
                let turn = &mut self.turn;
                self.connections.accept(stream, session, token, turn);
            }
            Err(error) => {
                self.turn.statistics.register_errors += 1;
                session.fail(CloseReason::Io(error));
                self.turn.lose(&mut session);
                self.turn.drop_caught(session);
                self.turn.net.close(stream, false);
            }
        }
    }

    /// Answers the datagram that is in the first `count` bytes of the turn's input.
    pub(in crate::reactor) fn answer(
        &mut self,
        socket: &mut N::Datagram,
        count: usize,
        peer: Peer,
    ) {
        self.turn.statistics.datagrams_received += 1;
        if !self.is_answerable(count, &peer) {
            return;
        }
        let Some(protocol) = self.build(&peer).flatten() else {
            self.turn.statistics.datagrams_dropped += 1;
            return;
        };
        match &mut self.model {
            None => answer_on_loop(socket, count, protocol, peer, &mut self.turn),
            Some(model) => {
                if !model.answer(socket, count, protocol, peer, &mut self.turn) {
                    self.turn.statistics.datagrams_dropped += 1;
                }
            }
        }
    }

    /// Whether a datagram of `count` bytes may be shown to a protocol, which may answer it.
    fn is_answerable(&mut self, count: usize, peer: &Peer) -> bool {
        let turn = &mut self.turn;
        let from = peer.address();
        if count > DATAGRAM_MOST {
            turn.statistics.datagrams_dropped += 1;
            turn.warn(
                "datagram",
                format_args!("{peer}: a datagram of more than 64 KiB"),
            );
        } else if turn.reply_limit.is_reflected(from, turn.net) {
            turn.statistics.datagrams_reflected += 1;
            turn.warn(
                "reflected",
                format_args!("{peer}: dropped a datagram from a service's port or our own"),
            );
        } else if !turn.reply_limit.has_room(from, turn.now(), turn.config) {
            turn.statistics.datagrams_over_rate += 1;
            let most = turn.config.replies_per_second;
            turn.warn(
                "over rate",
                format_args!("{peer}: dropped a datagram after {most} reply_limit in a second"),
            );
        } else {
            return true;
        }
        false
    }

    /// Whether what waits has to wait on. Once the server shuts down it cannot: its queue goes.
    pub(in crate::reactor) fn is_full(&self) -> bool {
        !self.turn.draining && self.model.as_ref().is_some_and(|model| model.is_full())
    }

    /// Says that clients wait at `address`, as long as they do and at most once a second.
    pub(in crate::reactor) fn warn_full(&mut self, address: &Address) {
        let most = self.turn.config.max_children;
        self.turn.warn(
            "full",
            format_args!("{address}: clients wait, {most} processes serve others: max_children (--max-children)"),
        );
    }

    /// Begins an outbound connection. Its failure is told to the protocol, like everything else. Gives
    /// it back if the system cannot begin it yet, as for a Unix socket whose queue is full, and there
    /// is time left `until` it has failed.
    pub(in crate::reactor) fn connect(
        &mut self,
        to: Address,
        protocol: F::Protocol,
        until: Option<Tick>,
    ) -> Option<(Address, F::Protocol)> {
        let token = self.connections.next_token();
        let stream = match self.open(&to, token) {
            Err(CloseReason::ConnectFailed(error)) if is_postponed(&error) => {
                if until.is_none_or(|until| self.turn.now() < until) {
                    return Some((to, protocol));
                }
                Err(CloseReason::TimedOut(Deadline::Connect))
            }
            outcome => outcome,
        };
        self.turn.statistics.connected += 1;
        let mut session = Session::new(protocol, Peer::new(to, None), self.turn.now());
        match stream {
            Ok(stream) => self
                .connections
                .connect(stream, session, token, &mut self.turn),
            Err(reason) => {
                session.fail(reason);
                self.turn.lose(&mut session);
                self.turn.drop_caught(session);
            }
        }
        None
    }

    fn protocol_for(&mut self, peer: &Peer) -> Option<F::Protocol> {
        let most = self.turn.config.max_connections;
        if self.open_connections() >= most {
            self.turn.statistics.refused_max_connections += 1;
            self.turn.warn(
                "refused",
                format_args!("{peer}: refused, {most} connections are open"),
            );
            return None;
        }
        if self.model.as_ref().is_some_and(|model| !model.has_room()) {
            self.turn.statistics.refused_max_connections += 1;
            self.turn.warn(
                "refused",
                format_args!("{peer}: refused, connections have all descriptors that there are"),
            );
            return None;
        }
        if !self.turn.peer_limit.has_room(peer, self.turn.config) {
            self.turn.statistics.refused_max_per_peer += 1;
            let most = self.turn.config.max_per_peer;
            self.turn.warn(
                "refused per peer",
                format_args!("{peer}: refused, {most} connections from there are open"),
            );
            return None;
        }
        let Some(built) = self.build(peer) else {
            self.turn.statistics.refused_by_panic += 1;
            return None;
        };
        self.turn.statistics.refused_by_factory += u64::from(built.is_none());
        built
    }

    /// Asks the factory; the outer `None` is a panic.
    fn build(&mut self, peer: &Peer) -> Option<Option<F::Protocol>> {
        let factory = &mut *self.factory;
        let built = catch(|| factory.build_protocol(peer));
        self.turn.statistics.panics += u64::from(built.is_none());
        built
    }

    fn open_connections(&self) -> usize {
        self.connections.len() + self.model.as_ref().map_or(0, |model| model.len())
    }

    fn open(&mut self, to: &Address, token: usize) -> Result<N::Stream, CloseReason> {
        if self.turn.draining {
            return Err(CloseReason::Shutdown);
        }
        if to.is_datagram() {
            let error = io::Error::new(io::ErrorKind::Unsupported, "only streams can be connected");
            return Err(CloseReason::ConnectFailed(error));
        }
        if self.open_connections() >= self.turn.config.max_connections {
            let error = io::Error::other("max_connections are open");
            return Err(CloseReason::ConnectFailed(error));
        }
        let Turn { net, config, .. } = &mut self.turn;
        let mut stream = net
            .connect(to, config)
            .map_err(CloseReason::ConnectFailed)?;
        match net.register(&mut stream, token) {
            Ok(()) => Ok(stream),
            Err(error) => {
                net.close(stream, false);
                Err(CloseReason::ConnectFailed(error))
            }
        }
    }
}

/// Whether a connect can be tried again: nothing is wrong, and no event will tell when it succeeds.
fn is_postponed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
