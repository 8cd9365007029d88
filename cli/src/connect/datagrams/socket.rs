//! A datagram socket that is connected to one address.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{self, SendFlags};
use rustix::process::umask;
use serveloop::Address;
use tempfile::TempPath;

use crate::interrupt::Leftover;

pub(super) enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    /// Opens a socket connected to `address`. For a Unix socket, also returns the path of the file
    /// that replies are sent to.
    pub(super) fn open(
        address: &Address,
        leftover: &Leftover,
    ) -> io::Result<(Self, Option<TempPath>)> {
        match (address.socket_addr(), address.path()) {
            (Some(addr), _) => open_udp(addr).map(|socket| (Self::Udp(socket), None)),
            (None, path) => open_unix(path.unwrap_or(Path::new("")), leftover),
        }
    }

    /// Waits for a datagram. Returns its length.
    pub(super) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(room),
            Self::Unix(socket) => socket.recv(room),
        }
    }

    /// Sends a datagram without blocking. Returns `EAGAIN`, `ENOBUFS` or `ENOMEM` if there is no
    /// room for it now.
    pub(super) fn send(&self, datagram: &[u8]) -> Result<(), Errno> {
        net::send(self.descriptor(), datagram, SendFlags::DONTWAIT).map(drop)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

fn open_udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };

    let socket = UdpSocket::bind(any).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            let problem = format!("no local port is free: {error}");
            io::Error::new(error.kind(), problem)
        }
        _ => error,
    })?;

    socket.connect(to)?;
    Ok(socket)
}

/// Binds the socket to a path, since only a socket with a path gets replies. No other user may
/// write to it.
fn open_unix(to: &Path, leftover: &Leftover) -> io::Result<(Socket, Option<TempPath>)> {
    let (socket, path) = leftover.make(|| {
        let usual = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = tempfile::Builder::new()
            .prefix("serveloop-")
            .suffix(".sock")
            .make(|path| UnixDatagram::bind(path));

        umask(usual);
        let (socket, path) = bound?.into_parts();
        let at = path.to_path_buf();
        Ok(((socket, path), at))
    })?;

    connect(&socket, to)?;
    Ok((Socket::Unix(socket), Some(path)))
}

/// Connects to a path or to an abstract name. An abstract name begins with a NUL, which the
/// standard library does not accept in a path.
fn connect(socket: &UnixDatagram, to: &Path) -> io::Result<()> {
    match to.as_os_str().as_encoded_bytes().strip_prefix(b"\0") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            let to = net::SocketAddrUnix::new_abstract_name(name)?;
            Ok(net::connect(socket, &to)?)
        }
        _ => socket.connect(to),
    }
}
