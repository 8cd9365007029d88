//! The socket of a client.

use serveloop::Address;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{io, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);
const LOST_AFTER: Duration = Duration::from_secs(2);

pub(crate) fn connect(to: &Address) -> io::Result<Socket> {
    let (address, domain) = match (to.socket_addr(), to.path()) {
        (Some(addr), _) => (SockAddr::from(addr), Domain::for_address(addr)),
        (None, path) => (SockAddr::unix(path.expect("a path"))?, Domain::UNIX),
    };
    let kind = if to.is_datagram() {
        Type::DGRAM
    } else {
        Type::STREAM
    };

    let socket = Socket::new(domain, kind, None)?;
    let patience = if to.is_datagram() {
        LOST_AFTER
    } else {
        PATIENCE
    };
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(PATIENCE))?;

    socket.connect(&address)?;
    Ok(socket)
}
