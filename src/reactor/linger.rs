//! Lingering on the loop: discards what the peer still sends, until it closes too.

use std::io::ErrorKind;

use crate::config::Limits;
use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{Next, READABLE, RETIME, Readiness, SOON};
use crate::session::Linger;

impl Linger {
    /// Discards what the peer still sends, until the peer closes its side or its time is over.
    pub(super) fn drive<N: Net>(
        &mut self,
        stream: &mut N::Stream,
        readiness: &mut Readiness,
        limits: &Limits,
        hub: &mut Hub<'_, N>,
    ) -> Next {
        let now = hub.now();

        if self.reads() && readiness.any(READABLE) {
            let room = &mut hub.input[..hub.env.read_size];
            match hub.net.read(stream, room) {
                Ok(count) if count > 0 => {
                    self.hear(count, now);
                    return Next::Again;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    readiness.clear(READABLE);
                    readiness.set(SOON | RETIME);
                    return Next::Wait;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => readiness.clear(READABLE),
                _ => return Next::Reap,
            }
        }

        let unsent = || hub.net.unsent(stream);
        if self.is_over(unsent, now, limits, hub.draining) {
            return Next::Reap;
        }

        readiness.set(RETIME);
        Next::Wait
    }
}
