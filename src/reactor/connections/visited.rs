//! The connections of a loop as a monitor sees them, a slice at a time.

use crate::error::CloseReason;
use crate::net::Net;
use crate::reactor::connection::Connection;
use crate::reactor::connections::{Connections, token};
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{CONNECTING, ENDED, LINGERING};
use crate::service::monitor::{ConnectionState, ConnectionStatus, Pass};
use crate::session::{Ending, Protocol};

impl<S, P: Protocol> Connections<S, P> {
    /// Looks at the next `most` slots: lists the connections there, and ends those that the pass wants
    /// ended. Returns whether those were the last.
    #[cold]
    pub(in crate::reactor) fn visit<N: Net<Stream = S>>(
        &mut self,
        pass: &mut Pass,
        most: usize,
        hub: &mut Hub<'_, N>,
    ) -> bool {
        for slot in pass.next(most) {
            let Some(connection) = self.slots.get(slot) else {
                continue;
            };
            let Some(status) = connection.status(slot, hub) else {
                continue;
            };
            if let Some(ending) = pass.visit(status) {
                self.end_slot(slot, ending, hub);
            }
        }
        pass.cursor >= self.slots.end()
    }

    /// Ends the open connection in a slot.
    pub(super) fn end_slot<N: Net<Stream = S>>(
        &mut self,
        slot: usize,
        ending: Ending,
        hub: &mut Hub<'_, N>,
    ) {
        let connection = &mut self.slots[slot];
        match ending {
            Ending::Abort => {
                connection.cut_off(CloseReason::Aborted, hub);
                self.ended.push(slot);
            }
            Ending::Orderly => {
                let is_told = connection.session().was_asked_to_finish();
                if !is_told && connection.readiness.note_shutdown() {
                    self.ready.push(token(slot, connection));
                }
            }
        }
    }
}

impl<S, P: Protocol> Connection<S, P> {
    /// Returns what is known of the connection, unless it has ended.
    fn status<N: Net<Stream = S>>(
        &self,
        slot: usize,
        hub: &Hub<'_, N>,
    ) -> Option<ConnectionStatus> {
        if self.readiness.any(ENDED | LINGERING) {
            return None;
        }
        let mut status = ConnectionStatus::of(self.session(), hub.now());
        status.local_address = hub.env.sockets.local_address(slot);
        if self.readiness.any(CONNECTING) {
            status.state = ConnectionState::Connecting;
        }
        Some(status)
    }
}
