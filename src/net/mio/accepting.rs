//! Taking connections from a listener, of which other loops may get some.

use std::io;
use std::os::fd::AsFd;

use mio::Interest;
use socket2::Socket;

use super::{Listener, Mio};
use crate::address::Address;
use crate::net::mio::registrations::REARMS;
use crate::net::spread::Placed;

/// How many connections may be handed to other loops before one is kept, whatever the others have.
const HANDOVERS_MOST: usize = 64;

impl Mio {
    pub(super) fn accept_next(&self, listener: &mut Listener) -> io::Result<(Socket, Address)> {
        let accepted = listener.accept();
        if REARMS {
            let descriptor = listener.as_fd();
            self.rearm_after(descriptor, Interest::READABLE, &accepted, |_| false);
        }
        accepted
    }

    /// Accepts a connection that this loop is to serve, and hands over those that others are to.
    pub(super) fn accept_share(&self, listener: &mut Listener) -> io::Result<(Socket, Address)> {
        let is_ending = self
            .shutdown
            .as_ref()
            .is_some_and(|handle| handle.requests() > 0);
        if let Some(share) = &mut listener.share {
            if is_ending {
                share.close();
            }
            if let Some(accepted) = share.take() {
                return Ok(accepted);
            }
        }

        for _ in 0..HANDOVERS_MOST {
            let accepted = self.accept_next(listener)?;
            let Some(share) = listener.share.as_mut().filter(|_| !is_ending) else {
                return Ok(accepted);
            };
            if let Placed::Here(accepted) = share.place(accepted) {
                return Ok(accepted);
            }
        }
        self.accept_next(listener)
    }
}
