//! What the network tells of datagrams that did not arrive, passed on to the sessions that it concerns.

use std::io;

use crate::address::Peer;
use crate::error::DeliveryError;
use crate::net::{Net, Undelivered};
use crate::reactor::datagram::sessions::Sessions;
use crate::reactor::hub::Hub;
use crate::session::Protocol;

/// Returns what an error of sending means.
pub(super) fn of_send(error: io::Error) -> DeliveryError {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => DeliveryError::TooLong { mtu: None },
        _ => DeliveryError::NotSent(error),
    }
}

/// Returns what an error of receiving means, where the system tells no more of a report.
pub(super) fn of_receive(error: io::Error) -> DeliveryError {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => DeliveryError::TooLong { mtu: None },
        _ => DeliveryError::Reported(error),
    }
}

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
