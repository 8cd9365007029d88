//! Groups where the system does not take numbers of interfaces for all that concerns them.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

pub(crate) fn join_source(_: BorrowedFd<'_>, _: IpAddr, _: IpAddr, _: u32) -> io::Result<()> {
    Err(unsupported("a source of a group is for Linux"))
}

/// The system chooses by its routes.
pub(crate) fn send_by(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
    Ok(())
}

/// A socket receives for its own memberships only.
pub(crate) fn only_own_groups(_: BorrowedFd<'_>, _: bool) -> io::Result<()> {
    Ok(())
}

fn unsupported(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, problem)
}
