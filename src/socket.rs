//! Sockets that are bound to an address, ready for any way of serving them.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::Address;
use crate::config::Config;
use crate::system;

/// The permissions of a socket file: its owner's alone.
const SOCKET_MODE: u32 = 0o600;

/// A socket with an address of its own, and its file if it has one.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: Socket,
    pub(crate) address: Address,
    pub(crate) file: Option<SocketFile>,
}

impl Bound {
    /// Binds without listening yet.
    pub(crate) fn new(at: &Address, config: &Config) -> io::Result<Self> {
        Self::try_new(at, config).map_err(|error| about(at, &error))
    }

    fn try_new(at: &Address, config: &Config) -> io::Result<Self> {
        let socket = open(at, config)?;
        match at {
            Address::Tcp(addr) | Address::Udp(addr) => {
                socket.set_reuse_address(config.reuse_address && !at.is_datagram())?;
                socket.set_reuse_port(config.reuse_port)?;
                if addr.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&(*addr).into())?;
                let address = local_address(&socket, at)?;
                Ok(Self {
                    socket,
                    address,
                    file: None,
                })
            }
            Address::Unix(path) | Address::Unixgram(path) => {
                let file = SocketFile::bind(&socket, path)?;
                Ok(Self {
                    socket,
                    address: at.clone(),
                    file: Some(file),
                })
            }
        }
    }

    /// A second socket at the same address: of its own where the system spreads clients among
    /// several, and the same one where it does not.
    pub(crate) fn twin(&self, config: &Config) -> io::Result<Self> {
        match self.address {
            Address::Tcp(_) | Address::Udp(_) => Self::new(&self.address, config),
            Address::Unix(_) | Address::Unixgram(_) => {
                let (socket, address) = (self.socket.try_clone()?, self.address.clone());
                Ok(Self {
                    socket,
                    address,
                    file: None,
                })
            }
        }
    }

    /// Lets a stream socket take connections.
    pub(crate) fn listen(&self, backlog: i32) -> io::Result<()> {
        if self.address.is_datagram() {
            return Ok(());
        }
        self.socket
            .listen(backlog)
            .map_err(|error| about(&self.address, &error))
    }
}

/// A socket for `at`, with its options, not bound and not connected.
pub(crate) fn open(at: &Address, config: &Config) -> io::Result<Socket> {
    let socket = match at {
        Address::Tcp(addr) => Socket::new(
            Domain::for_address(*addr),
            Type::STREAM,
            Some(Protocol::TCP),
        )?,
        Address::Udp(addr) => {
            Socket::new(Domain::for_address(*addr), Type::DGRAM, Some(Protocol::UDP))?
        }
        Address::Unix(_) => Socket::new(Domain::UNIX, Type::STREAM, None)?,
        Address::Unixgram(_) => Socket::new(Domain::UNIX, Type::DGRAM, None)?,
    };
    if matches!(at, Address::Tcp(_)) {
        socket.set_tcp_nodelay(config.nodelay)?;
    }
    set_buffers(&socket, config)?;
    Ok(socket)
}

/// Sets the sizes of the system's buffers, where the configuration names them.
pub(crate) fn set_buffers(socket: &Socket, config: &Config) -> io::Result<()> {
    if let Some(size) = config.send_buffer {
        socket.set_send_buffer_size(size)?;
    }
    if let Some(size) = config.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    Ok(())
}

/// The address for connect(2) and sendto(2).
pub(crate) fn system_address(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Tcp(addr) | Address::Udp(addr) => Ok((*addr).into()),
        Address::Unix(path) | Address::Unixgram(path) => SockAddr::unix(path),
    }
}

fn local_address(socket: &Socket, at: &Address) -> io::Result<Address> {
    let addr = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(if at.is_datagram() {
        Address::Udp(addr)
    } else {
        Address::Tcp(addr)
    })
}

fn about(at: &Address, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen at {at}: {error}"))
}

/// A file's device and number, which no other file has as long as its socket is open.
type Identity = (u64, u64);

/// The socket files of this process. A stream socket that is bound and does not listen yet looks
/// like one that a dead server left behind.
fn own_files() -> MutexGuard<'static, Vec<Identity>> {
    static OWN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file of a Unix socket. Dropping it removes the file, if it is still the one we made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    /// Binds `socket` to `path`, with the owner's permissions from the first moment. A socket that
    /// a dead server left there is replaced; anything else is left alone and an error.
    fn bind(socket: &Socket, path: &Path) -> io::Result<Self> {
        // Held until the file is among them: nobody else of this process takes it for a dead one's.
        let mut own = own_files();
        remove_stale(socket, path, &own)?;
        restrict(socket);
        socket.bind(&SockAddr::unix(path)?)?;
        let found = fs::symlink_metadata(path)?;
        if found.mode() & 0o777 & !SOCKET_MODE != 0 {
            // Only where the system ignores the socket's own mode; nobody can connect before listen.
            fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        }
        let identity = (found.dev(), found.ino());
        own.push(identity);
        Ok(Self {
            path: path.to_owned(),
            identity,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        own_files().retain(|identity| *identity != self.identity);
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            if let Err(error) = fs::remove_file(&self.path) {
                log::warn!("cannot remove {}: {error}", self.path.display());
            }
        }
    }
}

/// Gives the socket the mode that Linux then gives its file.
fn restrict(socket: &Socket) {
    if let Ok(descriptor) = socket.as_fd().try_clone_to_owned() {
        // Elsewhere this fails, and the file's mode is set after binding.
        let _ = File::from(descriptor).set_permissions(Permissions::from_mode(SOCKET_MODE));
    }
}

fn remove_stale(socket: &Socket, path: &Path, own: &[Identity]) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let in_use = |problem| Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
    if !found.file_type().is_socket() {
        return in_use("the path exists and is no socket");
    }
    if found.uid() != system::effective_user() {
        return in_use("the socket belongs to another user");
    }
    if own.contains(&(found.dev(), found.ino())) {
        return in_use("another server of this process is bound there");
    }
    let probe = Socket::new(Domain::UNIX, socket.r#type()?, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("replacing {}, which a server left behind", path.display());
            fs::remove_file(path)
        }
        _ => in_use("another server listens there"),
    }
}
