//! Systems of which it is not known how they tell the header of a packet, or set its mark.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use crate::address::{Ecn, PacketInfo};
use crate::net::destination::{Control, join};

pub(in crate::net) fn watch(_: BorrowedFd<'_>, _: SocketAddr, _: bool) -> io::Result<()> {
    let problem =
        "packet-info needs Linux: no other system tells the ECN mark and the hop limit here";
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

pub(in crate::net) fn gather(_: BorrowedFd<'_>) -> io::Result<()> {
    let problem = "gro needs Linux: no other system puts datagrams together";
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

pub(in crate::net) fn find_size(_: &[u8]) -> Option<usize> {
    None
}

pub(in crate::net) fn find(_: &[u8]) -> Option<PacketInfo> {
    None
}

/// Returns no message, so that the mark is not set.
pub(in crate::net) fn mark(_: Ecn, _: SocketAddr) -> Control {
    let (control, _) = join(0, 0, &[]);
    (control, 0)
}
