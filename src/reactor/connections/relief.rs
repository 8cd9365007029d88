//! How a loop gets memory back: by ending connections that hold too much, and after a crowd has left.

use crate::error::CloseReason;
use crate::net::Net;
use crate::reactor::connection::Connection;
use crate::reactor::connections::slots::Slots;
use crate::reactor::connections::{Connections, RESERVED};
use crate::reactor::hub::{Hub, largest_first};
use crate::reactor::readiness::ENDED;
use crate::session::Protocol;
use crate::sys;

/// After this many bytes were given back to the allocator, it is asked to give them back to the system.
/// What the connections themselves had, such as boxed protocols, comes on top.
const FREED_MOST: usize = 1024 * 1024;

impl<S, P: Protocol> Connections<S, P> {
    /// Gives back what is kept for each connection, after many have left.
    #[cold]
    pub(super) fn shrink<N>(&mut self, freed: usize, hub: &Hub<'_, N>) {
        let end = self.slots.end();
        self.timers.shrink(end);
        hub.env.sockets.shrink(end);
        for list in [
            &mut self.ready,
            &mut self.running,
            &mut self.posted,
            &mut self.fresh,
            &mut self.ended,
        ] {
            list.shrink_to(RESERVED.max(2 * list.len()));
        }

        self.freed += freed;
        if self.freed >= FREED_MOST {
            self.freed = 0;
            sys::give_memory_back();
        }
    }

    /// Returns how much the connections hold, with what was posted for them.
    pub(in crate::reactor) fn owed(&self) -> usize {
        owed(&self.slots)
    }

    /// Ends the connections that hold the most until all together, with the sessions of datagrams, hold
    /// little enough.
    #[cold]
    pub(in crate::reactor) fn shed<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) {
        shed_largest(&mut self.slots, &mut self.ended, hub);
    }
}

/// Ends the connections that hold the most until all together hold little enough, while the loop serves
/// them. If something else holds more than they do, or that is not enough, the loop decides at the turn's end.
#[cold]
pub(super) fn shed<S, P: Protocol, N: Net<Stream = S>>(
    slots: &mut Slots<Connection<S, P>>,
    ended: &mut Vec<usize>,
    hub: &mut Hub<'_, N>,
) {
    let sum: usize = slots.iter().map(|(_, connection)| connection.share()).sum();
    debug_assert_eq!(sum, hub.effects.held, "what is held is what each holds");

    if !hub.is_mostly(owed(slots)) {
        hub.effects.is_crowded = true;
        return;
    }
    shed_largest(slots, ended, hub);
    hub.effects.is_crowded |= hub.is_crowded();
}

/// What was posted for a connection counts in full, although others may share it, because it waits for the
/// slowest.
fn owed<S, P: Protocol>(slots: &Slots<Connection<S, P>>) -> usize {
    let each = slots.iter().map(|(_, connection)| owed_by(connection));
    each.fold(0, usize::saturating_add)
}

fn owed_by<S, P: Protocol>(connection: &Connection<S, P>) -> usize {
    let posted = connection.session().posted();
    connection.share().saturating_add(posted)
}

fn shed_largest<S, P: Protocol, N: Net<Stream = S>>(
    slots: &mut Slots<Connection<S, P>>,
    ended: &mut Vec<usize>,
    hub: &mut Hub<'_, N>,
) {
    let holders = slots
        .iter()
        .map(|(slot, connection)| (owed_by(connection), slot));
    for (_, slot) in largest_first(holders) {
        if hub.is_relieved() {
            return;
        }
        if !slots[slot].readiness.any(ENDED) {
            slots[slot].end(CloseReason::Shed, hub);
            ended.push(slot);
        }
    }
}
