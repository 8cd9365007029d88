//! The ends of sessions of datagrams that others want: a shutdown, a factory or a monitor.

use std::collections::HashMap;

use crate::error::CloseReason;
use crate::net::Net;
use crate::reactor::datagram::peer_session::PeerSession;
use crate::reactor::datagram::sessions::Sessions;
use crate::reactor::hub::Hub;
use crate::session::{Ending, Protocol};

impl<P: Protocol, D> Sessions<P, D> {
    /// Queues every session to be told of the shutdown.
    pub(in crate::reactor) fn note_shutdown(&mut self) {
        self.ask(|_| true);
    }

    /// Queues every session of a listener to be told of the shutdown.
    pub(in crate::reactor) fn note_retired(&mut self) {
        self.ask(PeerSession::is_inbound);
    }

    fn ask(&mut self, which: fn(&PeerSession<P>) -> bool) {
        for slot in self.slots_of(which) {
            let token = self.token(slot);
            self.queue(token, PeerSession::note_asked);
        }
    }

    fn slots_of(&self, which: fn(&PeerSession<P>) -> bool) -> Vec<usize> {
        let found = self.slots.iter().filter(|(_, peer)| which(peer));
        found.map(|(slot, _)| slot).collect()
    }

    /// Ends every session now, for `reason`.
    pub(in crate::reactor) fn end_all<N: Net<Datagram = D>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        reason: impl Fn() -> CloseReason,
    ) {
        for slot in self.slots_of(|_| true) {
            self.end_for(reason(), slot, hub);
        }
    }

    /// Ends every session of a listener now, because its socket is closed.
    pub(in crate::reactor) fn end_inbound<N: Net<Datagram = D>>(&mut self, hub: &mut Hub<'_, N>) {
        for slot in self.slots_of(PeerSession::is_inbound) {
            self.end_for(CloseReason::Shutdown, slot, hub);
        }
    }

    /// Ends the sessions with these numbers.
    pub(in crate::reactor) fn end_some<N: Net<Datagram = D>>(
        &mut self,
        ends: &HashMap<u64, Ending>,
        hub: &mut Hub<'_, N>,
    ) {
        let found = self.slots.iter().filter_map(|(slot, peer)| {
            let ending = ends.get(&peer.session.peer().id())?;
            Some((slot, *ending))
        });
        for (slot, ending) in found.collect::<Vec<_>>() {
            self.end_by(ending, slot, hub);
        }
    }

    /// Ends a session as a factory or a monitor wants it.
    pub(super) fn end_by<N: Net<Datagram = D>>(
        &mut self,
        ending: Ending,
        slot: usize,
        hub: &mut Hub<'_, N>,
    ) {
        match ending {
            Ending::Abort => self.end_for(CloseReason::Aborted, slot, hub),
            Ending::Orderly => {
                let token = self.token(slot);
                self.queue(token, PeerSession::note_asked);
            }
        }
    }
}
