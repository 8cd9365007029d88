//! Connections that go on in another process.

use crate::address::HandedConnection;
use crate::net::Net;
use crate::reactor::connections::{Connections, token};
use crate::reactor::hub::Hub;
use crate::session::{Leaving, Protocol, catch};

impl<S, P: Protocol> Connections<S, P> {
    /// Takes the connections out that can go on elsewhere. Events for them count as stale.
    #[cold]
    pub(in crate::reactor) fn hand_over<N: Net<Stream = S>>(
        &mut self,
        mut leaving: Leaving,
        hub: &mut Hub<'_, N>,
    ) {
        if !hub.net.detaches() {
            return;
        }
        let mut gone = Vec::new();
        for (slot, connection) in self.slots.iter_mut() {
            let context = hub.context(token(slot, connection));
            let peer = connection.session().peer();
            let is_meant = connection.can_leave() && catch(|| (leaving.which)(peer)) == Some(true);
            let limits = hub.env.limits_of(peer.listener());
            let talk = is_meant
                .then(|| connection.hand_over(limits, &context))
                .flatten();
            gone.extend(talk.map(|talk| (slot, talk)));
            // Its protocol may have panicked.
            if is_meant && connection.session().is_closing() && connection.readiness.queue() {
                self.ready.push(token(slot, connection));
            }
        }

        for (slot, talk) in gone {
            self.timers.remove(slot);
            let (listener, descriptor) = self.slots.remove(slot).detach(hub);
            hub.effects.statistics.handed_over += 1;
            hub.effects.live -= 1;
            let handed = descriptor.map(|descriptor| HandedConnection {
                descriptor,
                listener,
                talk,
            });
            if catch(|| handed.map(&mut leaving.to)).is_none() {
                hub.effects.statistics.panics += 1;
            }
        }
    }
}
