//! Outbound datagrams: a session that this server has begun, on a socket of its own, which is connected to
//! the peer. The system gives it what the peer sends, and nothing else.

use std::io::ErrorKind;
use std::mem;

use crate::LOG_TARGET;
use crate::error::{CloseReason, DeliveryError};
use crate::net::{Event, Net};
use crate::reactor::datagram::answer::of_call;
use crate::reactor::datagram::own::Own;
use crate::reactor::datagram::peer_session::PeerSession;
use crate::reactor::datagram::sessions::{Sessions, show};
use crate::reactor::hub::Hub;
use crate::reactor::source::Consequence;
use crate::reactor::token::{SLOT_MASK, is_of_session};
use crate::session::{DATAGRAM_MOST, Flags, Protocol, Session};

/// The most reports of datagrams that did not arrive to look at in one turn.
const REPORTS_MOST: usize = 64;

impl<P: Protocol, D> Sessions<P, D> {
    /// Returns how many sessions this server has begun itself.
    pub(in crate::reactor) fn outbound(&self) -> usize {
        self.own.len()
    }

    /// Begins a session with the peer that `socket` is connected to and registered for, with the
    /// [next token](Self::next_token).
    pub(in crate::reactor) fn connect<N: Net<Datagram = D>>(
        &mut self,
        socket: D,
        mut session: Session<P>,
        hub: &mut Hub<'_, N>,
    ) {
        let token = self.take_token();
        hub.effects.live += 1;
        hub.effects.outbound += 1;

        // The address is ours to choose, so it is not forged.
        session.make_lasting();
        session.confirm();
        let generation = Self::generation_of(token);
        let mut peer = PeerSession::new(session, None, generation);
        peer.note_datagram(None);
        let slot = self.slots.insert(peer);

        let mut own = Own::new(socket);
        self.serve(slot, Some(&mut own.socket), hub, |peer, _, context| {
            peer.session.handle_open(context);
        });
        self.keep(token, own, hub);
    }

    /// Closes all sockets in a forked child process, which exits without using this table.
    pub(in crate::reactor) fn abandon<N: Net<Datagram = D>>(&mut self, net: &mut N) {
        let all = self.own.drain();
        all.for_each(|(_, own)| net.close_datagram(own.socket));
    }

    /// Records an event. Returns false if it was meant for a session that is gone.
    #[cold]
    pub(in crate::reactor) fn note_event(&mut self, event: &Event) -> bool {
        let token = event.token;
        if !is_of_session(token) || self.at(token).is_none() {
            return false;
        }
        let Some(own) = self.own.get_mut(&(token & SLOT_MASK)) else {
            return false;
        };
        own.has_reports |= event.error;
        own.source.note_readable();

        self.queue(token, |peer| peer.queue(Flags::default()));
        if event.writable {
            self.blocked.retain(|blocked| *blocked != token);
            self.queue(token, PeerSession::note_room);
        }
        true
    }

    /// Serves an outbound session that has work: what has come for it, and what else has happened.
    pub(super) fn drive_outbound<N: Net<Datagram = D>>(
        &mut self,
        token: usize,
        hub: &mut Hub<'_, N>,
    ) {
        let slot = token & SLOT_MASK;
        let Some(mut own) = self.own.remove(&slot) else {
            return;
        };
        own.source.expire(hub.now());
        self.take_own_reports(token, &mut own, hub);
        self.receive_own(token, &mut own, hub);

        if self.at(token).is_some() {
            let waits = own.source.is_ready() || own.source.deadline().is_some();
            self.serve(slot, Some(&mut own.socket), hub, |peer, _, context| {
                peer.attend(context, waits);
            });
        }
        self.keep(token, own, hub);
    }

    /// Keeps the socket of a session for its next turn, or closes it if the session has ended.
    fn keep<N: Net<Datagram = D>>(&mut self, token: usize, own: Own<D>, hub: &mut Hub<'_, N>) {
        if self.at(token).is_none() {
            return hub.net.close_datagram(own.socket);
        }
        if own.source.is_ready() || own.has_reports {
            self.queue(token, |peer| peer.queue(Flags::default()));
        }
        if let Some(until) = own.source.deadline() {
            self.timers.set_earlier(token & SLOT_MASK, until);
        }
        self.own.insert(token & SLOT_MASK, own);
    }

    /// Receives what has come, until nothing waits or the turn's budget is spent.
    fn receive_own<N: Net<Datagram = D>>(
        &mut self,
        token: usize,
        own: &mut Own<D>,
        hub: &mut Hub<'_, N>,
    ) {
        let slot = token & SLOT_MASK;
        for _ in 0..hub.env.config.datagrams_per_turn {
            if !own.source.is_ready() || self.at(token).is_none() {
                return;
            }
            let Hub { net, input, .. } = hub;
            match net.receive(&mut own.socket, &mut input[..=DATAGRAM_MOST]) {
                Ok((count, _)) => {
                    own.source.note_taken();
                    hub.effects.statistics.datagrams_received += 1;
                    if count > DATAGRAM_MOST {
                        hub.effects.statistics.datagrams_dropped += 1;
                        continue;
                    }
                    let tells_packets = hub.env.config.udp.packet_info;
                    if tells_packets {
                        let packet = hub.net.packet_info(&mut own.socket);
                        hub.env.packet.set(packet);
                    }
                    self.serve(slot, Some(&mut own.socket), hub, |peer, hub, context| {
                        show(peer, count, hub, context);
                    });
                    if tells_packets {
                        hub.env.packet.set(None);
                    }
                }
                Err(error) => match own.source.note_error(&error, hub) {
                    Consequence::Wait => return,
                    Consequence::Skip if error.kind() == ErrorKind::Interrupted => {}
                    Consequence::Skip => {
                        // The error is that of a report, which the queue tells more of. However many
                        // there are, each is taken, so that the socket has not failed.
                        let report = hub.net.undelivered(&mut own.socket);
                        if report.is_some() {
                            own.source.note_taken();
                        }
                        let error = report
                            .map_or_else(|| of_call(error, DeliveryError::Reported), |it| it.error);
                        self.tell_undelivered(slot, &error, &mut own.socket, hub);
                    }
                    Consequence::Pause => {
                        let peer = self.slots[slot].session.peer();
                        log::debug!(
                            target: LOG_TARGET, id = peer.id();
                            "{peer}: cannot receive for now: {error}"
                        );
                        return;
                    }
                    Consequence::Fail => {
                        return self.end_for(CloseReason::Io(error), slot, hub);
                    }
                },
            }
        }
    }

    fn take_own_reports<N: Net<Datagram = D>>(
        &mut self,
        token: usize,
        own: &mut Own<D>,
        hub: &mut Hub<'_, N>,
    ) {
        if !mem::take(&mut own.has_reports) {
            return;
        }
        for _ in 0..REPORTS_MOST {
            if self.at(token).is_none() {
                return;
            }
            let Some(report) = hub.net.undelivered(&mut own.socket) else {
                return;
            };
            self.tell_undelivered(token & SLOT_MASK, &report.error, &mut own.socket, hub);
        }
        own.has_reports = true;
    }

    /// Tells a session that a datagram did not arrive. It is no more than told, because anybody may have
    /// made the report.
    pub(super) fn tell_undelivered<N: Net<Datagram = D>>(
        &mut self,
        slot: usize,
        error: &DeliveryError,
        socket: &mut D,
        hub: &mut Hub<'_, N>,
    ) {
        hub.effects.statistics.datagrams_undelivered += 1;
        let peer = self.slots[slot].session.peer();
        log::debug!(
            target: LOG_TARGET, id = peer.id();
            "{peer}: a datagram did not arrive: {error}"
        );
        self.serve(slot, Some(socket), hub, |peer, _, context| {
            peer.session.handle_undelivered(error, context);
        });
    }

    /// Ends an outbound session, which counts as an outbound connection.
    pub(super) fn end_outbound<N: Net<Datagram = D>>(
        &mut self,
        slot: usize,
        mut peer: PeerSession<P>,
        hub: &mut Hub<'_, N>,
    ) {
        self.blocked.retain(|token| token & SLOT_MASK != slot);
        // While it is served, its socket is with whoever serves it.
        if let Some(own) = self.own.remove(&slot) {
            hub.net.close_datagram(own.socket);
        }
        hub.effects.live -= 1;
        hub.effects.outbound -= 1;
        hub.lose(&mut peer.session);
        hub.drop_caught(peer.session);
    }
}
