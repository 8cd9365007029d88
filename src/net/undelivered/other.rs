//! Systems that tell nothing of a datagram that did not arrive to a socket with several peers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::net::Undelivered;

pub(super) fn watch(_: BorrowedFd<'_>, _: SocketAddr, _: bool) -> io::Result<()> {
    Ok(())
}

pub(super) fn next(_: impl AsFd) -> Option<Undelivered> {
    None
}
