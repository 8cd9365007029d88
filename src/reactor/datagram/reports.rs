//! What the network tells of datagrams that did not arrive, passed on to the sessions that it concerns.

use crate::LOG_TARGET;
use crate::address::Peer;
use crate::error::CloseReason;
use crate::net::Undelivered;
use crate::reactor::datagram::sessions::Sessions;
use crate::reactor::hub::Hub;
use crate::session::Protocol;

impl<P: Protocol> Sessions<P> {
    /// Ends the session whose datagram did not arrive, unless it was too long for the path only.
    #[cold]
    pub(in crate::reactor) fn note_undelivered<N>(
        &mut self,
        report: Undelivered,
        listener: u16,
        hub: &mut Hub<'_, N>,
    ) {
        let Undelivered { to, error, mtu } = report;
        let Some(slot) = self.find(&Peer::new(to, Some(listener))) else {
            return;
        };

        let session = &mut self.slots[slot].session;
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            hub.effects.statistics.datagrams_dropped += 1;
            let peer = session.peer();
            let mtu = mtu.map_or_else(|| "fewer".to_owned(), |mtu| format!("at most {mtu}"));
            log::debug!(
                target: LOG_TARGET, id = peer.id();
                "{peer}: a datagram was too long for the path, whose packets have {mtu} bytes"
            );
            return;
        }
        session.fail(CloseReason::Io(error));
        self.end(slot, hub);
    }
}
