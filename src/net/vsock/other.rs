//! Only Linux has sockets between a virtual machine and its host.

use std::io;

use socket2::{SockAddr, Socket};

use crate::address::VsockAddr;

pub(super) fn open() -> io::Result<Socket> {
    Err(missing())
}

pub(super) fn bind(_: &Socket, _: VsockAddr) -> io::Result<()> {
    Err(missing())
}

pub(super) fn system_address(_: VsockAddr) -> io::Result<SockAddr> {
    Err(missing())
}

pub(crate) fn address_of(_: &SockAddr) -> Option<VsockAddr> {
    None
}

fn missing() -> io::Error {
    let problem = "this system has no sockets between virtual machines: they are for Linux";
    io::Error::new(io::ErrorKind::Unsupported, problem)
}
