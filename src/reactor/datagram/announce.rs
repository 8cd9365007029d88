//! Datagrams that a factory sends on its own account.

use std::io::{self, ErrorKind};

use crate::LOG_TARGET;
use crate::error::counted;
use crate::net::Net;
use crate::reactor::datagram::answer::uninterrupted;
use crate::reactor::datagram::sessions::DatagramSockets;
use crate::reactor::hub::Hub;
use crate::session::Announced;

/// Sends each datagram by the socket of its listener, or drops it.
pub(in crate::reactor) fn announce<N: Net>(
    all: Vec<Announced>,
    sockets: &mut impl DatagramSockets<N::Datagram>,
    hub: &mut Hub<'_, N>,
) {
    for Announced { listener, to, data } in all {
        let sent = match sockets.datagram(listener) {
            Some((socket, _)) => uninterrupted(|| hub.net.send_from(socket, &data, &to, None)),
            None => Err(missing(listener)),
        };

        match sent {
            Ok(()) => hub.effects.statistics.datagrams_sent += 1,
            Err(error) => {
                let length = counted(data.len(), "byte", "bytes");
                log::debug!(target: LOG_TARGET, "{to}: a datagram of {length} was not sent: {error}");
                hub.effects.statistics.datagrams_dropped += 1;
            }
        }
    }
}

fn missing(listener: usize) -> io::Error {
    let problem = format!("listener {listener} has no socket of datagrams");
    io::Error::new(ErrorKind::NotFound, problem)
}
