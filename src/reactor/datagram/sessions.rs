//! The sessions of datagram sockets, one for each peer: by address, by token, by pending work and by
//! deadline.

use std::collections::HashMap;
use std::io;
use std::mem;

use log::Level;
use slab::Slab;

use crate::address::Peer;
use crate::error::{CloseReason, Deadline};
use crate::net::Net;
use crate::reactor::datagram::index::Index;
use crate::reactor::datagram::own::Own;
use crate::reactor::datagram::peer_session::PeerSession;
use crate::reactor::hub::{Hub, largest_first};
use crate::reactor::peer_network::{NetworkCounts, PeerNetwork};
use crate::reactor::timers::Timers;
use crate::reactor::token::{FIRST_OF_SESSIONS, NOBODY, SLOT_BITS, SLOT_MASK, is_of_session};
use crate::service::monitor::{ConnectionStatus, Pass};
use crate::session::{Admitted, Context, Flags, OpenConnection, Protocol, Tick, log_end};
use crate::waker::Woken;

/// The datagram sockets of a loop, by the numbers of their listeners.
pub(in crate::reactor) trait DatagramSockets<D> {
    /// Returns a socket, and whether datagrams may wait there.
    fn datagram(&mut self, number: usize) -> Option<(&mut D, bool)>;
}

/// All sessions of a loop's datagram sockets.
pub(in crate::reactor) struct Sessions<P, D> {
    pub(super) slots: Slab<PeerSession<P>>,
    index: Index,
    pub(super) timers: Timers,
    /// How many sessions each network has that is limited.
    networks: NetworkCounts,
    /// How many peers have sent only one datagram.
    newcomers: usize,
    /// Tokens of sessions that have work, and of those served in this turn.
    ready: Vec<usize>,
    running: Vec<usize>,
    /// Tokens of sessions whose output waits for room in their socket.
    pub(super) blocked: Vec<usize>,
    /// The sockets of outbound sessions, by slot.
    pub(super) own: HashMap<usize, Own<D>>,
    generation: usize,
}

impl<P, D> Default for Sessions<P, D> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            index: Index::default(),
            timers: Timers::default(),
            networks: NetworkCounts::default(),
            newcomers: 0,
            ready: Vec::new(),
            running: Vec::new(),
            blocked: Vec::new(),
            own: HashMap::new(),
            generation: 0,
        }
    }
}

impl<P: Protocol, D> Sessions<P, D> {
    pub(in crate::reactor) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(in crate::reactor) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether a session has work that no event will announce.
    pub(in crate::reactor) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns the nearest deadline of all sessions.
    pub(in crate::reactor) fn deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// Returns the slot of a peer's session.
    pub(in crate::reactor) fn find(&self, peer: &Peer) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.index.get(self.index.hash(peer))?;
        let known = self.slots.get(slot)?.session.peer();
        let is_same = known.address() == peer.address() && known.listener() == peer.listener();
        is_same.then_some(slot)
    }

    /// Returns whether the peer in this slot is known to receive what is sent to its address.
    pub(in crate::reactor) fn is_confirmed(&self, slot: usize) -> bool {
        self.slots[slot].session.is_confirmed()
    }

    /// Returns whether there is room for the session of a new peer.
    pub(in crate::reactor) fn has_room<N>(&self, peer: &Peer, hub: &Hub<'_, N>) -> bool {
        let config = &hub.env.config;
        let is_apart = PeerNetwork::of(peer.address(), config)
            .is_none_or(|network| self.networks.has_room(network, config.max_per_peer));

        let has_room = self.slots.len() < config.max_sessions
            && self.newcomers < config.max_sessions.div_ceil(2);
        // A Unix socket without a name sends like every other one.
        let has_name = peer
            .address()
            .path()
            .is_none_or(|path| !path.as_os_str().is_empty());
        has_room && is_apart && has_name && self.index.get(self.index.hash(peer)).is_none()
    }

    /// Returns the token of the next session to begin.
    pub(in crate::reactor) fn next_token(&self) -> usize {
        let generation = (self.generation + 1) % FIRST_OF_SESSIONS + FIRST_OF_SESSIONS;
        generation << SLOT_BITS | self.slots.vacant_key()
    }

    /// Gives the [next token](Self::next_token) away.
    pub(super) fn take_token(&mut self) -> usize {
        let token = self.next_token();
        self.generation = (self.generation + 1) % FIRST_OF_SESSIONS;
        token
    }

    pub(super) fn generation_of(token: usize) -> u32 {
        u32::try_from(token >> SLOT_BITS).expect("half of a token")
    }

    /// Begins the session of a new peer with its first datagram, which is in the first `count` bytes
    /// of the turn's input.
    pub(in crate::reactor) fn begin<N: Net<Datagram = D>>(
        &mut self,
        socket: &mut D,
        count: usize,
        admitted: Admitted<P>,
        hub: &mut Hub<'_, N>,
    ) {
        let token = self.take_token();
        let slot = token & SLOT_MASK;

        let mut session = admitted.begin(hub.now());
        session.make_lasting();
        let peer = session.peer();
        hub.effects.statistics.datagram_sessions += 1;
        self.index.insert(self.index.hash(peer), slot);
        if let Some(network) = PeerNetwork::of(peer.address(), &hub.env.config) {
            self.networks.enter(network);
        }
        self.newcomers += 1;

        let source = hub.net.destination(socket);
        let generation = Self::generation_of(token);
        self.slots
            .insert(PeerSession::new(session, source, generation));
        self.serve(slot, Some(socket), hub, |peer, hub, context| {
            peer.session.handle_open(context);
            if !peer.session.is_closing() {
                show(peer, count, hub, context);
            }
        });
    }

    /// Shows a session a datagram, which is in the first `count` bytes of the turn's input.
    pub(in crate::reactor) fn receive<N: Net<Datagram = D>>(
        &mut self,
        slot: usize,
        socket: &mut D,
        count: usize,
        hub: &mut Hub<'_, N>,
    ) {
        let source = hub.net.destination(socket);
        if self.slots[slot].note_datagram(source) {
            self.newcomers -= 1;
        }
        self.serve(slot, Some(socket), hub, |peer, hub, context| {
            show(peer, count, hub, context);
        });
    }

    /// Records why sessions are woken.
    pub(in crate::reactor) fn note_woken(&mut self, woken: &Woken) {
        if self.slots.is_empty() {
            return;
        }
        let tokens = match woken {
            Woken::Waker(target) => std::slice::from_ref(&target.id),
            Woken::Posted(token) => std::slice::from_ref(token),
            Woken::PostedAll(tokens) => tokens,
        };
        for &token in tokens.iter().filter(|token| is_of_session(**token)) {
            self.queue(token, PeerSession::note_woken);
        }
    }

    /// Records that a socket may have room again.
    pub(in crate::reactor) fn note_room(&mut self, listener: usize) {
        for token in mem::take(&mut self.blocked) {
            let Some(peer) = self.at(token) else {
                continue;
            };
            if peer.session.peer().listener() == Some(listener) {
                self.queue(token, PeerSession::note_room);
            } else {
                self.blocked.push(token);
            }
        }
    }

    /// Queues up to `most` sessions whose deadline has passed.
    pub(in crate::reactor) fn expire(&mut self, now: Tick, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.timers.pop(now) else {
                return;
            };
            let token = self.token(slot);
            self.queue(token, PeerSession::note_due);
        }
    }

    /// Serves every session that has work.
    pub(in crate::reactor) fn drive<N: Net<Datagram = D>>(
        &mut self,
        sockets: &mut impl DatagramSockets<D>,
        hub: &mut Hub<'_, N>,
    ) {
        self.running.clear();
        mem::swap(&mut self.ready, &mut self.running);
        let running = mem::take(&mut self.running);
        for &token in &running {
            let Some(peer) = self.at(token) else {
                continue;
            };
            let Some(listener) = peer.session.peer().listener() else {
                self.drive_outbound(token, hub);
                continue;
            };
            let found = sockets.datagram(listener);
            let (socket, waits) = found.map_or((None, false), |(it, waits)| (Some(it), waits));
            if socket.is_none() {
                let gone = io::Error::new(io::ErrorKind::NotConnected, "its socket has failed");
                peer.session.fail(CloseReason::Io(gone));
            }
            self.serve(token & SLOT_MASK, socket, hub, |peer, _, context| {
                peer.attend(context, waits);
            });
        }
        self.running = running;
    }

    /// Returns how much the sessions hold, with what was posted for them.
    pub(in crate::reactor) fn owed(&self) -> usize {
        let each = self.slots.iter().map(|(_, peer)| peer.share());
        each.fold(0, usize::saturating_add)
    }

    /// Ends the sessions that hold the most until all together, with the connections, hold little enough.
    #[cold]
    pub(in crate::reactor) fn shed<N: Net<Datagram = D>>(&mut self, hub: &mut Hub<'_, N>) {
        let shares = self.slots.iter().map(|(slot, peer)| (peer.share(), slot));
        for (_, slot) in largest_first(shares) {
            if hub.is_relieved() {
                return;
            }
            self.end_for(CloseReason::Shed, slot, hub);
        }
    }

    /// Shows the sessions in the next `most` slots to a monitor's pass, and ends those that it wants
    /// ended. Returns whether those were the last.
    #[cold]
    pub(in crate::reactor) fn visit<N: Net<Datagram = D>>(
        &mut self,
        pass: &mut Pass,
        most: usize,
        hub: &mut Hub<'_, N>,
    ) -> bool {
        for slot in pass.next(most) {
            let Some(peer) = self.slots.get(slot) else {
                continue;
            };
            let status = ConnectionStatus::of(&peer.session, hub.now());
            if let Some(ending) = pass.visit(status) {
                self.end_by(ending, slot, hub);
            }
        }
        pass.cursor >= self.slots.capacity()
    }

    /// Returns the sessions as a factory sees them.
    pub(in crate::reactor) fn list(
        &self,
        now: Tick,
    ) -> impl Iterator<Item = OpenConnection<'_, P>> {
        self.slots.iter().map(move |(_, peer)| OpenConnection {
            peer: peer.session.peer(),
            age: now.since(peer.session.began()),
            protocol: peer.session.protocol(),
        })
    }

    /// Moves times that were noted at `from`, the start of a long turn, to its end `to`.
    #[cold]
    pub(in crate::reactor) fn catch_up(&mut self, from: Tick, to: Tick) {
        for (_, peer) in &mut self.slots {
            peer.session.catch_up(from, to);
        }
    }

    /// Runs `event` on a session, sends what it has written, and puts it where its further needs are
    /// met.
    pub(super) fn serve<N: Net<Datagram = D>>(
        &mut self,
        slot: usize,
        mut socket: Option<&mut D>,
        hub: &mut Hub<'_, N>,
        event: impl FnOnce(&mut PeerSession<P>, &mut Hub<'_, N>, &Context<'_>),
    ) {
        let token = self.token(slot);
        let context = hub.context(token);
        let peer = &mut self.slots[slot];

        peer.session.lend(&mut hub.effects.output);
        let mut is_blocked = false;
        if let Some(socket) = socket.as_deref_mut().filter(|_| peer.is_due()) {
            // There may be room by now, before it counts against the peer that there was none.
            peer.retry();
            is_blocked |= !peer.flush(socket, hub, &context);
        }
        event(peer, hub, &context);
        if let Some(socket) = socket {
            is_blocked |= !peer.flush(socket, hub, &context);
            if is_blocked {
                self.blocked.push(token);
                if let Err(error) = hub.net.await_room(socket) {
                    peer.session.fail(CloseReason::Io(error));
                }
            }
        }
        peer.session.reclaim(&mut hub.effects.output, &context);

        if peer.session.is_over() && !peer.owes() {
            return self.end(slot, hub);
        }
        peer.hold(hub);
        if peer.session.has_more() && peer.queue(Flags::default()) {
            self.ready.push(token);
        }
        if let Some(at) = peer.earlier_deadline(&context) {
            self.timers.set_earlier(slot, at);
        }
        if hub.is_crowded() {
            // If something else holds more, the loop decides at the turn's end.
            if hub.is_mostly(self.owed()) {
                self.shed(hub);
            }
            hub.effects.is_crowded |= hub.is_crowded();
        }
    }

    /// Ends a session for `reason`, whatever it is owed.
    pub(super) fn end_for<N: Net<Datagram = D>>(
        &mut self,
        reason: CloseReason,
        slot: usize,
        hub: &mut Hub<'_, N>,
    ) {
        self.slots[slot].session.fail(reason);
        self.end(slot, hub);
    }

    /// Tells a session that it is over, and forgets it.
    pub(super) fn end<N: Net<Datagram = D>>(&mut self, slot: usize, hub: &mut Hub<'_, N>) {
        let mut peer = self.slots.remove(slot);
        self.timers.remove(slot);
        peer.release(hub);
        if !peer.is_inbound() {
            self.shrink();
            return self.end_outbound(slot, peer, hub);
        }

        self.index.remove(self.index.hash(peer.session.peer()));
        self.newcomers -= usize::from(!peer.has_returned());
        if let Some(network) = PeerNetwork::of(peer.session.peer().address(), &hub.env.config) {
            self.networks.leave(network);
        }
        self.shrink();

        let context = hub.context(NOBODY);
        hub.effects.statistics.datagram_sessions_ended += 1;
        let Some(end) = peer.session.handle_lost(&context) else {
            return;
        };
        let reason = end.reason();
        hub.effects.statistics.panics += u64::from(matches!(reason, CloseReason::Panicked));
        hub.effects.statistics.panics += u64::from(peer.session.has_panicked_last());
        hub.effects.statistics.rate_limited += u64::from(peer.session.was_rate_limited());

        // Silence is how a session of datagrams ends, and no failure.
        let is_usual = matches!(reason, CloseReason::TimedOut(Deadline::Idle));
        if reason.is_error() && !is_usual {
            hub.effects.statistics.datagrams_failed += 1;
            hub.effects.failures.push(end);
        } else {
            log_end(Level::Debug, &end.ended(), 0);
        }
        hub.drop_caught(peer.session);
    }

    /// Gives memory back when many sessions have ended.
    fn shrink(&mut self) {
        if self.slots.is_empty() {
            self.slots = Slab::new();
            self.timers = Timers::default();
            self.networks.shrink();
        }
    }

    pub(super) fn token(&self, slot: usize) -> usize {
        (self.slots[slot].generation as usize) << SLOT_BITS | slot
    }

    pub(super) fn at(&mut self, token: usize) -> Option<&mut PeerSession<P>> {
        let peer = self.slots.get_mut(token & SLOT_MASK)?;
        (peer.generation as usize == token >> SLOT_BITS).then_some(peer)
    }

    pub(super) fn queue(&mut self, token: usize, note: fn(&mut PeerSession<P>) -> bool) {
        if self.at(token).is_some_and(note) {
            self.ready.push(token);
        }
    }
}

/// Shows a session the datagram that is in the first `count` bytes of the turn's input.
pub(super) fn show<P: Protocol, N>(
    peer: &mut PeerSession<P>,
    count: usize,
    hub: &mut Hub<'_, N>,
    context: &Context<'_>,
) {
    let is_shown = peer
        .session
        .handle_peer_datagram(&hub.input[..count], context);
    hub.effects.statistics.datagrams_dropped += u64::from(!is_shown);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::Echo;
    use crate::reactor::timers::TIMER_BYTES;

    /// The most that a session of a protocol without fields may cost, in bytes.
    const SESSION_MOST: usize = 300;

    /// An entry of a hash table has its key, its value and a byte of control, and up to half of them are
    /// free. A network of its own is the worst case.
    #[test]
    fn a_session_costs_no_more_than_it_may() {
        let entry = |bytes: usize| 2 * (bytes + 1) * 8 / 7;
        let index = entry(size_of::<(u64, u32)>());
        let network = entry(size_of::<(PeerNetwork, usize)>());
        let slot = size_of::<PeerSession<Echo>>();
        let all = slot + TIMER_BYTES + index + network;
        assert!(
            all <= SESSION_MOST,
            "{all}: slot {slot}, timer {TIMER_BYTES}, index {index}, network {network}"
        );
    }
}
