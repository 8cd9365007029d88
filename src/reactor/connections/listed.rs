//! The open connections as a factory sees them, and their ends by number.

use std::collections::HashMap;

use crate::net::Net;
use crate::reactor::connection::Connection;
use crate::reactor::connections::Connections;
use crate::reactor::datagram::Sessions;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{CONNECTING, ENDED, LINGERING};
use crate::session::{Ending, Listing, OpenConnection, Protocol, Tick};

/// The connections of a loop at a moment.
pub(in crate::reactor) struct Listed<'a, S, P, D> {
    pub(in crate::reactor) connections: &'a Connections<S, P>,
    pub(in crate::reactor) sessions: &'a Sessions<P, D>,
    pub(in crate::reactor) now: Tick,
}

impl<S, P: Protocol, D> Listing<P> for Listed<'_, S, P, D> {
    fn list(&self) -> Box<dyn Iterator<Item = OpenConnection<'_, P>> + '_> {
        let all = self.connections.slots.iter();
        let open = all.filter(|(_, connection)| is_open(connection));
        let of_datagrams = self.sessions.list(self.now);
        let of_streams = open.map(|(_, connection)| {
            let session = connection.session();
            OpenConnection {
                peer: session.peer(),
                age: self.now.since(session.began()),
                protocol: session.protocol(),
            }
        });
        Box::new(of_streams.chain(of_datagrams))
    }
}

/// Returns whether a connection is established and has not ended.
fn is_open<S, P: Protocol>(connection: &Connection<S, P>) -> bool {
    !connection.readiness.any(CONNECTING | ENDED | LINGERING)
}

impl<S, P: Protocol> Connections<S, P> {
    /// Ends the open connections with these numbers. Of several ways for one of them, the last counts.
    #[cold]
    pub(in crate::reactor) fn end_some<N: Net<Stream = S>>(
        &mut self,
        ends: &HashMap<u64, Ending>,
        hub: &mut Hub<'_, N>,
    ) {
        let chosen = self.slots.iter().filter(|(_, it)| is_open(it));
        let chosen = chosen.filter_map(|(slot, connection)| {
            let ending = ends.get(&connection.session().peer().id())?;
            Some((slot, *ending))
        });
        for (slot, ending) in chosen.collect::<Vec<_>>() {
            self.end_slot(slot, ending, hub);
        }
    }
}
