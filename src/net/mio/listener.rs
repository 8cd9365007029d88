//! A listening socket of the operating system.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;

use mio::net::{TcpListener, UnixListener};
use socket2::Socket;

use crate::LOG_TARGET;
use crate::address::Address;
use crate::config::Config;
use crate::net::open_sockets::Entered;
use crate::net::socket;
use crate::net::socket::Bound;
use crate::net::spread::Share;
use crate::net::unix_path::SocketFile;

/// A listening socket of [`Mio`](crate::net::Mio).
#[derive(Debug)]
pub struct Listener {
    /// Before the socket, which is closed after it.
    _entered: Option<Entered>,
    kind: Kind,
    /// Who else accepts connections for this loop, and it for them.
    pub(super) share: Option<Share>,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// Connections do not inherit buffer sizes from a Unix listener, so it keeps the configuration.
    Unix(UnixListener, Box<Config>),
    Vsock(Socket),
}

impl Listener {
    /// Wraps a socket that already listens.
    pub(super) fn new(bound: Bound) -> io::Result<Self> {
        bound.socket.set_nonblocking(true)?;
        let kind = match bound.address {
            Address::Unix(_) => Kind::Unix(
                UnixListener::from_std(OwnedFd::from(bound.socket).into()),
                Box::new(bound.config),
            ),
            Address::Vsock(_) => Kind::Vsock(bound.socket),
            _ => Kind::Tcp(TcpListener::from_std(bound.socket.into())),
        };

        Ok(Self {
            _entered: bound.entered,
            kind,
            share: bound.share,
            _file: bound.file,
        })
    }

    pub(super) fn accept(&mut self) -> io::Result<(Socket, Address)> {
        match &mut self.kind {
            Kind::Tcp(listener) => {
                let (stream, addr) = listener.accept()?;
                let stream = OwnedFd::from(stream).into();
                socket::silence(&stream);
                Ok((stream, Address::Tcp(socket::canonical(addr))))
            }
            Kind::Unix(listener, config) => {
                let (stream, addr) = listener.accept()?;
                let stream = OwnedFd::from(stream).into();
                socket::silence(&stream);
                if let Err(error) = socket::set_buffers(&stream, config) {
                    log::debug!(target: LOG_TARGET, "cannot set the buffers of a connection: {error}");
                }
                Ok((stream, Address::Unix(path_of(&addr))))
            }
            Kind::Vsock(listener) => {
                let (stream, addr) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((stream, socket::stream_address(&addr)))
            }
        }
    }
}

impl AsFd for Listener {
    /// Returns the socket, for example to read its options. The loop alone accepts from it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener, _) => listener.as_fd(),
            Kind::Vsock(listener) => listener.as_fd(),
        }
    }
}

/// Returns the path of a Unix socket, or its name behind a NUL, or an empty path if it has neither.
pub(in crate::net) fn path_of(addr: &UnixAddr) -> PathBuf {
    let path = addr.as_pathname().map(PathBuf::from);
    path.or_else(|| abstract_name(addr)).unwrap_or_default()
}

/// Returns a name outside the file system, behind a NUL.
#[cfg(target_os = "linux")]
fn abstract_name(addr: &UnixAddr) -> Option<PathBuf> {
    use std::ffi::OsStr;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    let name = [b"\0", addr.as_abstract_name()?].concat();
    Some(OsStr::from_bytes(&name).into())
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_: &UnixAddr) -> Option<PathBuf> {
    None
}
