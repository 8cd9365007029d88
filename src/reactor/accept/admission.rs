//! Admission: the way from a new socket to a session on the loop, inbound and outbound.

use std::net::{Ipv4Addr, SocketAddr};
use std::{fmt, io};

use crate::LOG_TARGET;
use crate::address::{Address, HandedConnection, Peer, Talk};
use crate::config::Config;
use crate::error::{CloseReason, Deadline, counted};
use crate::net::Net;
use crate::reactor::connection::Attempts;
use crate::reactor::connections::Connections;
use crate::reactor::datagram::{Sessions, answer_on_loop};
use crate::reactor::hub::Hub;
use crate::reactor::model::Model;
use crate::reactor::token::SLOT_MASK;
use crate::session::DATAGRAM_MOST;
use crate::session::{Admitted, Connect, Factory, Refusal, Session, Tick, Ticket, catch};
use crate::sys::{DescriptorLimit, spare_descriptors};

/// The most reports of datagrams that did not arrive to look at in one turn.
const REPORTS_MOST: usize = 1_024;

/// Says that `max_connections` are open, and what else to do if that is due to a lack of descriptors.
struct Full<'a>(&'a Config);

impl fmt::Display for Full<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.0.max_connections;
        counted(most, "connection is open", "connections are open").fmt(f)?;
        if most == spare_descriptors(self.0.reserved_descriptors) {
            write!(f, ", as many as descriptors allow: {DescriptorLimit}")?;
        }
        Ok(())
    }
}

/// What the reactor lends to its listeners, and uses itself for outbound connections.
pub(in crate::reactor) struct Admission<'a, F: Factory, N: Net> {
    pub(in crate::reactor) hub: Hub<'a, N>,
    pub(in crate::reactor) factory: &'a mut F,
    pub(in crate::reactor) connections: &'a mut Connections<N::Stream, F::Protocol>,
    pub(in crate::reactor) sessions: &'a mut Sessions<F::Protocol, N::Datagram>,
    pub(in crate::reactor) model: Option<&'a mut (dyn Model<N, F::Protocol> + 'static)>,
}

impl<F: Factory, N: Net> Admission<'_, F, N> {
    /// Admits an accepted connection, or closes it if there is no room or the factory refuses it.
    pub(super) fn admit(&mut self, stream: N::Stream, peer: Peer) {
        let Some(protocol) = self.protocol_for(&peer) else {
            return self.hub.net.close(stream, false);
        };

        let (id, listener) = (peer.id(), peer.listener().unwrap_or_default());
        log::debug!(
            target: LOG_TARGET, event = "accepted", id = id, peer:% = peer, listener = listener;
            "{peer}: accepted"
        );

        let admitted = self.hub.env.admit(protocol, peer);
        match &mut self.model {
            None => self.watch(stream, admitted, None),
            Some(model) => {
                let name = admitted.peer.clone();
                // Count first: a connection that is served right here has ended when this returns.
                self.hub.effects.statistics.accepted += 1;
                self.hub
                    .effects
                    .peer_limit
                    .enter(&name, &self.hub.env.config);

                if !model.process(stream, admitted, &mut self.hub) {
                    self.hub.leave(&name);
                    self.hub.effects.statistics.accepted -= 1;
                    self.hub.effects.statistics.refused_by_system += 1;
                }
            }
        }
    }

    /// Goes on with a connection that comes from another process.
    #[cold]
    pub(in crate::reactor) fn adopt(&mut self, handed: HandedConnection) {
        let HandedConnection {
            descriptor,
            listener,
            talk,
        } = handed;
        let (stream, address) = match self.hub.net.attach(descriptor) {
            Ok(attached) => attached,
            Err(error) => {
                log::debug!(target: LOG_TARGET, "a connection has ended on its way: {error}");
                return;
            }
        };

        let id = self.hub.net.next_id();
        let peer = Peer::new(address, Some(listener)).with_id(id);
        // It was accepted before whoever has come here since, so no limit refuses it.
        let has_place = self.model.is_none()
            && self.hub.env.has_listener(listener)
            && self.connections.len() < SLOT_MASK;
        let protocol = has_place.then(|| self.placed_protocol(&peer)).flatten();
        let Some(protocol) = protocol else {
            self.hub.warn_of(
                &peer,
                "taken over",
                format_args!("{peer}: cannot go on in this process"),
            );
            return self.hub.net.close(stream, false);
        };
        log::debug!(
            target: LOG_TARGET, event = "accepted", id = id, peer:% = peer, listener = listener;
            "{peer}: taken over"
        );
        let admitted = self.hub.env.admit(protocol, peer);
        self.watch(stream, admitted, Some(&talk));
    }

    /// Serves a connection on the loop: from its beginning, or from where another process has handed it
    /// over.
    fn watch(
        &mut self,
        mut stream: N::Stream,
        admitted: Admitted<F::Protocol>,
        talk: Option<&Talk>,
    ) {
        self.hub.effects.statistics.accepted += 1;
        let token = self.connections.next_token();
        let mut session = admitted.begin(self.hub.now());

        match self.hub.net.register(&mut stream, token) {
            Ok(()) => {
                self.hub
                    .effects
                    .peer_limit
                    .enter(session.peer(), &self.hub.env.config);

                let hub = &mut self.hub;
                self.connections.accept(stream, session, talk, token, hub);
            }
            Err(error) => {
                self.hub.effects.statistics.register_errors += 1;
                session.fail(CloseReason::Io(error));
                self.hub.lose(&mut session);
                self.hub.drop_caught(session);
                self.hub.net.close(stream, false);
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
        self.hub.effects.statistics.datagrams_received += 1;
        if self.is_answerable(count, &peer) {
            self.answer_once(socket, count, peer);
        }
    }

    /// Passes the datagram that is in the first `count` bytes of the turn's input to the session of its
    /// peer. A new peer gets one, if there is room.
    pub(in crate::reactor) fn receive(
        &mut self,
        socket: &mut N::Datagram,
        count: usize,
        peer: Peer,
    ) {
        self.hub.effects.statistics.datagrams_received += 1;
        let known = self.sessions.find(&peer);
        let is_confirmed = known.is_some_and(|slot| self.sessions.is_confirmed(slot));
        if !(is_confirmed && count <= DATAGRAM_MOST || self.is_answerable(count, &peer)) {
            return;
        }

        if let Some(slot) = known {
            return self.sessions.receive(slot, socket, count, &mut self.hub);
        }
        if self.hub.draining {
            self.hub.effects.statistics.datagrams_dropped += 1;
            return;
        }
        if !self.sessions.has_room(&peer, &self.hub) {
            self.hub.effects.statistics.datagram_sessions_refused += 1;
            return self.answer_once(socket, count, peer);
        }

        let Some(protocol) = self.build(&peer).flatten() else {
            self.hub.effects.statistics.datagrams_dropped += 1;
            return;
        };
        let admitted = self.hub.env.admit(protocol, peer);
        self.sessions.begin(socket, count, admitted, &mut self.hub);
    }

    /// Tells sessions which of their datagrams did not arrive. Returns whether there may be more of that.
    #[cold]
    pub(in crate::reactor) fn take_reports(
        &mut self,
        socket: &mut N::Datagram,
        listener: u16,
    ) -> bool {
        for _ in 0..REPORTS_MOST {
            let Some(report) = self.hub.net.undelivered(socket) else {
                return false;
            };
            self.sessions
                .note_undelivered(report, listener, socket, &mut self.hub);
        }
        true
    }

    /// Answers the datagram that is in the first `count` bytes of the turn's input, by a session of its
    /// own.
    fn answer_once(&mut self, socket: &mut N::Datagram, count: usize, peer: Peer) {
        let Some(protocol) = self.build(&peer).flatten() else {
            self.hub.effects.statistics.datagrams_dropped += 1;
            return;
        };

        let admitted = self.hub.env.admit(protocol, peer);
        match &mut self.model {
            None => answer_on_loop(socket, count, admitted, &mut self.hub),
            Some(model) => {
                if !model.answer(socket, count, admitted, &mut self.hub) {
                    self.hub.effects.statistics.datagrams_dropped += 1;
                }
            }
        }
    }

    /// Returns whether a datagram of `count` bytes may be passed to a protocol, which may answer
    /// it.
    fn is_answerable(&mut self, count: usize, peer: &Peer) -> bool {
        let hub = &mut self.hub;
        let from = peer.address();
        if count > DATAGRAM_MOST {
            hub.effects.statistics.datagrams_dropped += 1;
            hub.warn_of(
                peer,
                "datagram",
                format_args!("{peer}: dropped a datagram of more than 64 KiB"),
            );
        } else if hub.effects.reply_limit.is_reflected(from, hub.net) {
            hub.effects.statistics.datagrams_reflected += 1;
            hub.warn_of(
                peer,
                "reflected",
                format_args!("{peer}: dropped a datagram from a port below 1024 or our own socket"),
            );
        } else if !hub
            .effects
            .reply_limit
            .has_room(from, hub.now(), &hub.env.config)
        {
            hub.effects.statistics.datagrams_over_rate += 1;
            let replies = counted(hub.env.config.replies_per_second, "reply", "replies");
            hub.warn_of(
                peer,
                "over rate",
                format_args!("{peer}: dropped a datagram after {replies} in a second"),
            );
        } else {
            return true;
        }
        false
    }

    /// Returns whether clients have to wait. During a shutdown they cannot: their queue goes away.
    pub(in crate::reactor) fn is_full(&self) -> bool {
        !self.hub.draining && self.model.as_ref().is_some_and(|model| model.is_full())
    }

    /// Warns that clients wait at `address`, at most once a second while they do.
    pub(in crate::reactor) fn warn_full(&mut self, address: &Address) {
        let most = self.hub.env.config.max_children;
        let running = counted(most, "process is running", "processes are running");
        self.hub.warn(
            "full",
            format_args!("{address}: clients wait: {running}, as many as max_children (--max-children) allows"),
        );
    }

    /// Begins an outbound connection to addresses. The protocol is told of a failure as of everything
    /// else. Returns the connection to be tried again if the system cannot begin it yet, for example
    /// because the queue of a Unix socket is full, and `until` has not passed.
    pub(in crate::reactor) fn connect(
        &mut self,
        connect: Connect<F::Protocol>,
        until: Option<Tick>,
    ) -> Option<Connect<F::Protocol>> {
        if connect.to.addresses().iter().any(Address::is_datagram) {
            return self.connect_datagrams(connect, until);
        }
        let token = self.connections.next_token();
        match self.open(&connect, token, until) {
            Err(CloseReason::ConnectFailed(error)) if is_postponed(&error) => {
                if until.is_none_or(|until| self.hub.now() < until) {
                    return Some(connect);
                }
                self.refuse_connect(connect, CloseReason::TimedOut(Deadline::Connect));
            }
            Err(reason) => self.refuse_connect(connect, reason),
            Ok((stream, attempts)) => {
                let session = self.begin_session(attempts.address().clone(), connect.protocol);
                self.connections
                    .connect(stream, session, attempts, token, &mut self.hub);
            }
        }
        None
    }

    /// Tells the protocol of an outbound connection that it has failed before it began.
    pub(in crate::reactor) fn refuse_connect(
        &mut self,
        connect: Connect<F::Protocol>,
        reason: CloseReason,
    ) {
        let is_cancelled = connect.ticket.as_ref().is_some_and(Ticket::is_cancelled);
        connect.ticket.inspect(Ticket::end);
        // A name that was not found has no address.
        let nowhere = || Address::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let address = connect.to.addresses().first().cloned();
        let mut session = self.begin_session(address.unwrap_or_else(nowhere), connect.protocol);

        session.fail(if is_cancelled {
            CloseReason::Aborted
        } else {
            reason
        });
        self.hub.lose(&mut session);
        self.hub.drop_caught(session);
    }

    pub(super) fn begin_session(
        &mut self,
        address: Address,
        protocol: F::Protocol,
    ) -> Session<F::Protocol> {
        self.hub.effects.statistics.connected += 1;
        let peer = Peer::new(address, None).with_id(self.hub.net.next_id());
        Session::new(protocol, peer, self.hub.now())
    }

    /// Asks for a protocol for an accepted connection, or counts why it is refused.
    fn protocol_for(&mut self, peer: &Peer) -> Option<F::Protocol> {
        let config = &self.hub.env.config;
        let most = config.max_connections;
        let kept = config.reserved_outbound;
        let kept = kept.saturating_sub(self.hub.effects.outbound);
        if self.open_connections() + kept >= most {
            self.hub.effects.statistics.refused_max_connections += 1;
            let full = Full(&self.hub.env.config);
            self.hub
                .warn_of(peer, "refused", format_args!("{peer}: refused: {full}"));
            return self.refuse(peer, Refusal::MaxConnections);
        }

        if self.model.as_ref().is_some_and(|model| !model.has_room()) {
            self.hub.effects.statistics.refused_max_connections += 1;
            self.hub.warn_of(
                peer,
                "refused",
                format_args!(
                    "{peer}: refused: connections use all available descriptors: {DescriptorLimit}"
                ),
            );
            return self.refuse(peer, Refusal::Descriptors);
        }

        if !self
            .hub
            .effects
            .peer_limit
            .has_room(peer, &self.hub.env.config)
        {
            self.hub.effects.statistics.refused_max_per_peer += 1;
            self.hub.warn_crowding(peer);
            return self.refuse(peer, Refusal::MaxPerPeer);
        }

        self.placed_protocol(peer)
    }

    /// Asks for a protocol for a connection that has a place.
    fn placed_protocol(&mut self, peer: &Peer) -> Option<F::Protocol> {
        let Some(built) = self.build(peer) else {
            self.hub.effects.statistics.refused_by_panic += 1;
            return self.refuse(peer, Refusal::Panicked);
        };

        self.hub.effects.statistics.refused_by_factory += u64::from(built.is_none());
        built
    }

    /// Tells the factory that a peer is refused. Returns the protocol that there is not.
    #[cold]
    fn refuse(&mut self, peer: &Peer, why: Refusal) -> Option<F::Protocol> {
        let factory = &mut *self.factory;
        let told = catch(|| factory.handle_refusal(peer, why));
        self.hub.effects.statistics.panics += u64::from(told.is_none());
        None
    }

    /// Calls the factory. The outer `None` means that it panicked.
    fn build(&mut self, peer: &Peer) -> Option<Option<F::Protocol>> {
        let factory = &mut *self.factory;
        let built = catch(|| factory.build_protocol(peer));
        self.hub.effects.statistics.panics += u64::from(built.is_none());
        built
    }

    fn open_connections(&self) -> usize {
        let elsewhere = self.model.as_ref().map_or(0, |model| model.len());
        self.connections.len() + self.sessions.outbound() + elsewhere
    }

    fn open(
        &mut self,
        connect: &Connect<F::Protocol>,
        token: usize,
        until: Option<Tick>,
    ) -> Result<(N::Stream, Attempts<N::Stream>), CloseReason> {
        self.check_place(connect)?;
        let addresses = connect.to.addresses().to_vec();
        let now = self.hub.now();
        let with = (&mut *self.hub.net, &self.hub.env.config, now, token);
        Attempts::begin(addresses, until, connect.ticket.clone(), with)
            .map_err(CloseReason::ConnectFailed)
    }

    /// Checks that an outbound connection is still wanted, and that there is a place for it.
    pub(super) fn check_place(&self, connect: &Connect<F::Protocol>) -> Result<(), CloseReason> {
        if self.hub.draining {
            return Err(CloseReason::Shutdown);
        }
        if connect.ticket.as_ref().is_some_and(Ticket::is_cancelled) {
            return Err(CloseReason::Aborted);
        }
        if self.open_connections() >= self.hub.env.config.max_connections {
            let error = io::Error::other("max_connections allows no more connections");
            return Err(CloseReason::ConnectFailed(error));
        }
        Ok(())
    }
}

/// Returns whether a connect can be tried again: nothing is wrong, and no event will announce that
/// it would succeed now.
pub(super) fn is_postponed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
