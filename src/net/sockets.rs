//! Questions about open streams, which few sessions ask.

use crate::address::{Address, Credentials};
use crate::net::mio::path_of;
use crate::net::socket::canonical;
use crate::net::vsock;
use crate::sys;

/// What the system knows of open streams. The loop asks only about streams that are open, by the
/// [number](crate::net::Net::number) that each had when it was registered.
pub trait Sockets {
    /// Returns a stream's address on this machine.
    fn local_address(&self, number: i32) -> Option<Address> {
        let _ = number;
        None
    }

    /// Returns the credentials of a Unix stream's peer.
    fn credentials(&self, number: i32) -> Option<Credentials> {
        let _ = number;
        None
    }
}

/// Asks the system about streams, which are known by their descriptors.
pub(crate) struct SystemSockets;

impl Sockets for SystemSockets {
    fn local_address(&self, descriptor: i32) -> Option<Address> {
        let addr = sys::local_address(descriptor).ok()?;
        match addr.as_socket() {
            Some(addr) => Some(Address::Tcp(canonical(addr))),
            None if addr.is_unix() => Some(Address::Unix(path_of(&addr.as_unix()?))),
            None => vsock::address_of(&addr).map(Address::Vsock),
        }
    }

    fn credentials(&self, descriptor: i32) -> Option<Credentials> {
        sys::peer_credentials(descriptor).ok()
    }
}
