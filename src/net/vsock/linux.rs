//! Sockets between a virtual machine and its host.

use std::io;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::VsockAddr;

/// How the system is asked to choose a port.
const PORT_ANY: u32 = u32::MAX;

/// Opens a socket of streams. It is neither bound nor connected.
///
/// # Errors
/// Returns `Unsupported` if the kernel has no such sockets.
pub(super) fn open() -> io::Result<Socket> {
    let opened = Socket::new(Domain::VSOCK, Type::STREAM, None);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => {
            let problem = "this kernel has no sockets between virtual machines (AF_VSOCK)";
            io::Error::new(io::ErrorKind::Unsupported, problem)
        }
        _ => error,
    })
}

pub(super) fn bind(socket: &Socket, addr: VsockAddr) -> io::Result<()> {
    let port = match addr.port {
        0 => PORT_ANY,
        port => port,
    };
    socket.bind(&SockAddr::vsock(addr.cid, port))
}

pub(super) fn system_address(addr: VsockAddr) -> io::Result<SockAddr> {
    Ok(SockAddr::vsock(addr.cid, addr.port))
}

/// Returns the address if it is one of these.
pub(crate) fn address_of(at: &SockAddr) -> Option<VsockAddr> {
    let (cid, port) = at.as_vsock_address()?;
    Some(VsockAddr { cid, port })
}
