//! Who gets in: the way from a new socket to a session on the loop, inbound and outbound.

use std::io;

use crate::address::{Address, Peer};
use crate::error::CloseReason;
use crate::guard::guard;
use crate::net::Net;
use crate::protocol::Factory;
use crate::session::Session;
use crate::table::Table;
use crate::turn::Turn;

/// What the reactor lends its listeners, and itself for outbound connections.
pub(crate) struct Admission<'a, F: Factory, N: Net> {
    pub(crate) turn: Turn<'a, N>,
    pub(crate) factory: &'a mut F,
    pub(crate) connections: &'a mut Table<N::Stream, F::Protocol>,
}

impl<F: Factory, N: Net> Admission<'_, F, N> {
    /// Takes in a connection that was accepted, unless there is no room or the factory refuses it.
    pub(crate) fn admit(&mut self, mut stream: N::Stream, peer: Peer) {
        let Some(protocol) = self.protocol_for(&peer) else {
            return self.turn.net.close(stream, false);
        };
        let token = self.connections.next_token();
        if let Err(error) = self.turn.net.register(&mut stream, token) {
            self.turn.statistics.register_errors += 1;
            self.turn.warn(
                "register",
                format_args!("{peer}: cannot watch the connection: {error}"),
            );
            self.turn.drop_guarded(protocol);
            return self.turn.net.close(stream, false);
        }
        self.turn.statistics.accepted += 1;
        log::debug!("{peer}: accepted");
        let session = Session::new(protocol, peer, self.turn.now());
        self.connections.accept(stream, session, token, &self.turn);
    }

    /// Begins an outbound connection. Its failure is told to the protocol, like everything else.
    pub(crate) fn connect(&mut self, to: Address, protocol: F::Protocol) {
        self.turn.statistics.connected += 1;
        let token = self.connections.next_token();
        let stream = self.open(&to, token);
        let mut session = Session::new(protocol, Peer::new(to, None), self.turn.now());
        match stream {
            Ok(stream) => self.connections.connect(stream, session, token, &self.turn),
            Err(reason) => {
                session.fail(reason);
                self.turn.lose(&mut session);
                self.turn.drop_guarded(session);
            }
        }
    }

    fn protocol_for(&mut self, peer: &Peer) -> Option<F::Protocol> {
        if self.connections.len() >= self.turn.config.max_connections {
            self.turn.statistics.refused_max_connections += 1;
            let most = self.turn.config.max_connections;
            self.turn.warn(
                "refused",
                format_args!("{peer}: refused, {most} connections are open"),
            );
            return None;
        }
        let Some(built) = build(self.factory, peer, &mut self.turn) else {
            self.turn.statistics.refused_by_panic += 1;
            return None;
        };
        self.turn.statistics.refused_by_factory += u64::from(built.is_none());
        built
    }

    fn open(&mut self, to: &Address, token: usize) -> Result<N::Stream, CloseReason> {
        if self.turn.draining {
            return Err(CloseReason::Shutdown);
        }
        if to.is_datagram() {
            let error = io::Error::new(io::ErrorKind::Unsupported, "only streams can be connected");
            return Err(CloseReason::ConnectFailed(error));
        }
        if self.connections.len() >= self.turn.config.max_connections {
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

/// Asks the factory; the outer `None` is a panic.
pub(crate) fn build<F: Factory, N>(
    factory: &mut F,
    peer: &Peer,
    turn: &mut Turn<'_, N>,
) -> Option<Option<F::Protocol>> {
    let built = guard(|| factory.build_protocol(peer));
    turn.statistics.panics += u64::from(built.is_none());
    built
}
