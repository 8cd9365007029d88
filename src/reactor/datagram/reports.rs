//! What the network tells of datagrams that did not arrive, passed on to the sessions that it concerns.

use crate::address::Peer;
use crate::net::{Net, Undelivered};
use crate::reactor::datagram::sessions::Sessions;
use crate::reactor::hub::Hub;
use crate::session::Protocol;

impl<P: Protocol, D> Sessions<P, D> {
    /// Tells the session whose datagram did not arrive, if there is one.
    #[cold]
    pub(in crate::reactor) fn note_undelivered<N: Net<Datagram = D>>(
        &mut self,
        report: Undelivered,
        listener: u16,
        socket: &mut D,
        hub: &mut Hub<'_, N>,
    ) {
        if let Some(slot) = self.find(&Peer::new(report.to, Some(listener))) {
            self.tell_undelivered(slot, &report.error, socket, hub);
        }
    }
}
