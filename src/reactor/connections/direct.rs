//! The short way for events: each is noted and its connection served at once, if nothing else has work.

use crate::net::{Event, Net};
use crate::reactor::connections::relief::shed;
use crate::reactor::connections::{Connections, find};
use crate::reactor::hub::Hub;
use crate::session::Protocol;

impl<S, P: Protocol> Connections<S, P> {
    /// Notes each event and serves its connection at once, where nothing else has work. Returns how
    /// many events were meant for connections that are gone.
    ///
    /// This is what usually happens, and it looks each connection up only once.
    pub(in crate::reactor) fn serve<N: Net<Stream = S>>(
        &mut self,
        events: &[Event],
        hub: &mut Hub<'_, N>,
    ) -> u64 {
        let Self {
            slots,
            timers,
            ready,
            running,
            ended,
            turn,
            ..
        } = self;
        running.clear();
        *turn = turn.wrapping_add(1);
        hub.effects.handshakes = hub.env.config.handshakes_per_turn;
        let mut context = hub.context(0);
        let mut stale = 0;

        for event in events {
            let Some(connection) = find(slots, event.token) else {
                stale += 1;
                continue;
            };
            if !connection.readiness.note_now(event) {
                continue;
            }
            if !connection.is_new_in(*turn) {
                if connection.readiness.queue() {
                    ready.push(event.token);
                }
                continue;
            }

            running.push(event.token);
            context.id = event.token;
            let next = connection.drive(hub, &context);
            let lists = (&mut *timers, &mut *ready, &mut *ended);
            if connection.conclude(next, lists, hub, &context) {
                shed(slots, ended, hub);
            }
        }
        stale
    }
}
