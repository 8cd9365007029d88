//! What the hooks of a factory have asked for, apart from connections.

use crate::net::Net;
use crate::reactor::Reactor;
use crate::reactor::datagram::announce;
use crate::session::Factory;

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Stops listening. Sessions of datagrams end with their sockets, which others may have too: they are
    /// asked to finish, and can say something.
    #[cold]
    fn retire(&mut self) {
        self.sessions.note_retired();
        let (mut admission, listeners) = self.lend();
        listeners.take_handed(&mut admission);
        admission.sessions.drive(listeners, &mut admission.hub);
        admission.sessions.end_inbound(&mut admission.hub);
        self.listeners.close_all(&mut self.net);
    }

    /// Sends what the factory wants sent, and ends what it wants ended: connections, or the server.
    #[cold]
    pub(super) fn obey_factory(&mut self) {
        let Some(urgent) = self.requests.urgent.take() else {
            return;
        };

        if urgent.shutdown {
            self.shutdown.request_all();
        }
        if urgent.retires && !self.is_retired && !self.shutdown.has_begun() {
            self.is_retired = true;
            self.retire();
        }
        if let Some(leaving) = urgent.leaving {
            let (mut admission, _) = self.lend();
            admission.connections.hand_over(leaving, &mut admission.hub);
        }
        // Those that come do not leave again before they were served.
        for handed in urgent.coming {
            self.lend().0.adopt(handed);
        }
        if !urgent.datagrams.is_empty() {
            let (mut admission, listeners) = self.lend();
            announce(urgent.datagrams, listeners, &mut admission.hub);
        }
        if !urgent.ends.is_empty() {
            let ends = urgent.ends.into_iter().collect();
            let (mut admission, _) = self.lend();
            admission.connections.end_some(&ends, &mut admission.hub);
            admission.sessions.end_some(&ends, &mut admission.hub);
        }
    }
}
