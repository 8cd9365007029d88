//! The rest of a long message, which is read straight into the session's memory.

use crate::net::Net;
use crate::reactor::connection::Connection;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{HANGUP, READABLE};
use crate::session::{Context, Protocol};

impl<S, P: Protocol> Connection<S, P> {
    /// Lets the session go on with what it has, or reads more of a long message into its memory.
    #[cold]
    pub(super) fn receive_rest<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) {
        if self.session.has_more() {
            return self.session.handle_more(context);
        }
        if !self.readiness.any(READABLE) || !self.session.wants_input() {
            return;
        }

        let mut most = 0;
        let read = self.session.read_expected(hub.env.read_size, |room| {
            most = room.len();
            hub.net.read(&mut self.stream, room)
        });
        match read {
            Ok(0) => {
                self.readiness.clear(READABLE);
                self.session.handle_eof(context);
            }
            Ok(count) => {
                if count < most && !self.readiness.any(HANGUP) {
                    self.readiness.clear(READABLE);
                }
                hub.effects.note_read(count);
                self.session.handle_expected(count, context);
            }
            Err(error) => self.fail_or_wait(error, READABLE),
        }
    }
}
