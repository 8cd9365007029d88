//! Protocols that datagrams cannot carry.

use serveloop::Address;

use crate::failure::Failure;

/// Refuses addresses of datagrams. The error names the first one, and says `why` it cannot be served.
pub(super) fn need_streams(addresses: &[Address], why: &str) -> Result<(), Failure> {
    match addresses.iter().find(|address| address.is_datagram()) {
        Some(address) => Err(Failure::Usage(format!("{address}: {why}"))),
        None => Ok(()),
    }
}
