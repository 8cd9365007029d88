//! Sockets bound to an address, for any way of serving them.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::{Address, Former, PassedSocket, is_name};
use crate::config::Config;
use crate::net::open_sockets::{Entered, OpenSockets};
use crate::net::spread::Share;
use crate::net::unix_path::{Access, SocketFile};
use crate::net::{destination, groups, keepalive, packet, vsock};
use crate::sys::Explained;
use crate::{LOG_TARGET, sys};

/// A socket that is bound to an address, with its file if it has one.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Before the socket, which is closed after it.
    pub(super) entered: Option<Entered>,
    pub(super) socket: Socket,
    /// Further sockets at the same address, which a former process had for its loops.
    others: Vec<Socket>,
    pub(crate) address: Address,
    pub(super) file: Option<SocketFile>,
    /// What it was bound with: the configuration, changed by the options of this listener.
    pub(super) config: Config,
    /// The part of one loop of several in what is accepted.
    pub(crate) share: Option<Share>,
    origin: Origin,
}

/// Who has bound a socket, and whether it is the only one at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Own,
    /// Another program, so it is the only one.
    Passed,
    /// A former process of this server, for one of several loops.
    Former,
}

impl Bound {
    /// Binds a socket to `at`, without listening yet.
    pub(crate) fn new(at: &Address, config: &Config) -> io::Result<Self> {
        Self::try_new(at, config).map_err(|error| about(at, &error))
    }

    /// Returns an error like [`new`](Self::new) if no system could bind a socket to `at`.
    pub(crate) fn check(at: &Address) -> io::Result<()> {
        check_address(at).map_err(|error| about(at, &error))
    }

    fn try_new(at: &Address, config: &Config) -> io::Result<Self> {
        check_address(at)?;
        let socket = open(at, config)?;
        match at {
            Address::Tcp(addr) | Address::Udp(addr) => {
                // Every program of a machine can listen to a group.
                let is_group = is_group(at);
                let reuses = config.reuse_address && !at.is_datagram();
                socket.set_reuse_address(reuses || is_group)?;
                socket.set_reuse_port(config.reuse_port)?;
                if addr.is_ipv6() {
                    let takes_both = config.dual_stack && addr.ip().is_unspecified();
                    socket.set_only_v6(!takes_both)?;
                }
                if !at.is_datagram() {
                    socket.bind(&(*addr).into())?;
                    let address = local_address(&socket, at)?;
                    return Ok(Self::of(socket, address, config, Origin::Own));
                }

                watch_destination(&socket, at);
                watch_packets(&socket, *addr, config)?;
                let addr = groups::in_scope(*addr, config)?;
                groups::prepare(&socket, addr, config)?;
                socket.bind(&addr.into())?;
                groups::join(&socket, addr, &config.udp)?;
                let address = local_address(&socket, at)?;
                Ok(Self::of(socket, address, config, Origin::Own))
            }
            Address::Unix(path) | Address::Unixgram(path) => {
                let file = if is_name(path) {
                    socket.bind(&SockAddr::unix(path)?)?;
                    None
                } else {
                    Some(SocketFile::bind(&socket, path, &Access::of(config)?)?)
                };

                Ok(Self {
                    file,
                    ..Self::of(socket, at.clone(), config, Origin::Own)
                })
            }
            Address::Vsock(addr) => {
                vsock::bind(&socket, *addr)?;
                let address = local_address(&socket, at)?;
                Ok(Self::of(socket, address, config, Origin::Own))
            }
        }
    }

    fn of(socket: Socket, address: Address, config: &Config, origin: Origin) -> Self {
        Self {
            entered: None,
            socket,
            others: Vec::new(),
            address,
            file: None,
            config: config.clone(),
            origin,
            share: None,
        }
    }

    /// Takes over sockets that are bound to `at`. One that listens keeps its backlog unless another
    /// one is given. Its file, if it has one, is left to the program that made it, for now.
    pub(crate) fn adopt(
        passed: &PassedSocket,
        at: &Address,
        config: &Config,
        backlog: Option<i32>,
    ) -> io::Result<Self> {
        let copy = |socket: &OwnedFd| adopt_socket(socket, at, config, backlog);
        let adopt = || {
            let socket = copy(&passed.socket)?;
            let Some(Former { others, file }) = &passed.former else {
                return Ok(Self::of(socket, at.clone(), config, Origin::Passed));
            };

            let is_shared = at.socket_addr().is_some() && socket.reuse_port()?;
            let origin = match is_shared && config.reuse_port {
                true => Origin::Former,
                false => Origin::Passed,
            };
            let path = at.path().filter(|path| !is_name(path));
            Ok(Self {
                others: others.iter().map(copy).collect::<io::Result<_>>()?,
                file: path
                    .zip(*file)
                    .map(|(path, file)| SocketFile::adopt(path, file)),
                ..Self::of(socket, at.clone(), config, origin)
            })
        };
        adopt().map_err(|error| about(at, &error))
    }

    /// Lets other processes go on with the socket.
    pub(crate) fn enter(&mut self, number: usize, sockets: &OpenSockets) {
        let file = self.file.as_ref().map(SocketFile::mark);
        let entered = sockets.enter(number, &self.address, self.socket.as_fd(), file);
        self.entered = Some(entered);
    }

    /// Takes one of the further sockets at this address out.
    pub(crate) fn take_other(&mut self) -> Option<Self> {
        let socket = self.others.pop()?;
        Some(self.with_socket(socket))
    }

    /// Returns another socket at this address.
    fn with_socket(&self, socket: Socket) -> Self {
        Self::of(socket, self.address.clone(), &self.config, self.origin)
    }

    /// Returns the configuration of this listener: the server's, changed by its options.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns a second socket at the same address. Where the system spreads clients among several
    /// sockets it is a new one; otherwise it is the same socket.
    pub(crate) fn twin(&self) -> io::Result<Self> {
        if !self.is_one_for_all() {
            let new = Self::new(&self.address, &self.config);
            // Only the user that bound the former socket can bind another one.
            if new.is_ok() || self.origin == Origin::Own {
                return new;
            }
        }
        Ok(self.with_socket(self.socket.try_clone()?))
    }

    /// Returns a [`twin`](Self::twin) with which other processes can go on.
    pub(crate) fn entered_twin(&self, number: usize, sockets: &OpenSockets) -> io::Result<Self> {
        let mut twin = self.twin()?;
        twin.enter(number, sockets);
        Ok(twin)
    }

    /// Returns whether the peers of this datagram socket have sessions, and belong to one of several
    /// sockets at this address.
    pub(crate) fn parts_peers(&self) -> bool {
        self.has_sessions() && !self.is_one_for_all()
    }

    /// Returns whether the peers of this datagram socket have sessions.
    pub(crate) fn has_sessions(&self) -> bool {
        self.address.is_datagram() && self.config.sessions
    }

    /// Returns whether several loops have this very socket, and not one each at the same address.
    pub(crate) fn is_one_for_all(&self) -> bool {
        // The system would give what is sent to a group to each of several sockets.
        let is_single = self.address.socket_addr().is_none() || is_group(&self.address);
        self.origin == Origin::Passed || is_single
    }

    /// Returns whether other sockets can be bound to the same address, for a loop each.
    pub(crate) fn can_be_shared(&self) -> bool {
        self.is_one_for_all() || self.config.reuse_port
    }

    /// Makes a stream socket accept connections. Does nothing for datagrams.
    pub(crate) fn listen(&self) -> io::Result<()> {
        // One that was passed listens since it was taken over.
        if self.address.is_datagram() || self.origin != Origin::Own {
            return Ok(());
        }
        self.socket
            .listen(self.config.backlog)
            .map_err(|error| about(&self.address, &error))
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns a copy of a socket that is bound to `at`, with the options of its listener.
fn adopt_socket(
    passed: &OwnedFd,
    at: &Address,
    config: &Config,
    backlog: Option<i32>,
) -> io::Result<Socket> {
    let socket = Socket::from(passed.try_clone()?);
    set_options(&socket, at, config)?;
    if let Address::Udp(addr) = at {
        watch_destination(&socket, at);
        watch_packets(&socket, *addr, config)?;
        groups::prepare(&socket, *addr, config)?;
        groups::join_passed(&socket, *addr, &config.udp)?;
    } else if at.is_datagram() {
        return Ok(socket);
    } else if backlog.is_some() || !sys::is_listening(socket.as_fd()) {
        socket.listen(config.backlog)?;
    }
    Ok(socket)
}

/// Returns whether datagrams to an address reach each socket that is bound to it.
fn is_group(at: &Address) -> bool {
    matches!(at, Address::Udp(addr) if addr.ip().is_multicast())
}

/// Returns an error if no system could bind a socket to `at`.
fn check_address(at: &Address) -> io::Result<()> {
    match at {
        Address::Tcp(addr) if is_of_several(addr.ip()) => Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "several machines share this address, so no stream can connect to it",
        )),
        Address::Tcp(_) | Address::Udp(_) | Address::Vsock(_) => Ok(()),
        Address::Unix(path) | Address::Unixgram(path) => SockAddr::unix(path).map(drop),
    }
}

/// Returns whether an address belongs to several machines, like a broadcast address.
fn is_of_several(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_multicast() || ip == Ipv4Addr::BROADCAST
}

/// Opens a socket for `at` and sets its options. It is neither bound nor connected.
pub(super) fn open(at: &Address, config: &Config) -> io::Result<Socket> {
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
        Address::Vsock(_) => vsock::open()?,
    };

    set_options(&socket, at, config)?;
    Ok(socket)
}

/// Sets the options of a socket that do not concern how it is bound. Accepted connections inherit
/// them from the listener.
fn set_options(socket: &Socket, at: &Address, config: &Config) -> io::Result<()> {
    if matches!(at, Address::Tcp(_)) {
        socket.set_tcp_nodelay(config.nodelay)?;
        if let Some(idle) = config.keepalive {
            socket.set_tcp_keepalive(&keepalive::probes(idle))?;
        }
    }
    set_buffers(socket, config)
}

/// Makes a datagram socket with several addresses tell which of them a datagram was sent to.
fn watch_destination(socket: &Socket, at: &Address) {
    let Some(addr) = at.socket_addr() else {
        return;
    };
    if !destination::is_any(addr.ip()) {
        return;
    }
    // If this fails, the system chooses the source of replies, as on other systems.
    if let Err(error) = destination::watch(socket, addr.ip()) {
        log::debug!(target: LOG_TARGET, "{at}: cannot learn where datagrams were sent to: {error}");
    }
}

/// Makes a UDP socket tell the header of each packet, and put datagrams together, if that is wanted.
///
/// # Errors
/// The system cannot do it.
pub(super) fn watch_packets(socket: &Socket, at: SocketAddr, config: &Config) -> io::Result<()> {
    if config.udp.packet_info {
        packet::watch(socket.as_fd(), at, config.dual_stack)?;
    }
    match config.udp.gro {
        true => packet::gather(socket.as_fd()),
        false => Ok(()),
    }
}

/// Makes writes to an accepted connection whose peer is gone raise no SIGPIPE, on systems whose
/// older releases ignore [`MSG_NOSIGNAL`](crate::sys::QUIETLY).
#[cfg(target_vendor = "apple")]
pub(super) fn silence(socket: &Socket) {
    // This fails if the connection has ended already, which the next read reports.
    let _ = socket.set_nosigpipe(true);
}

#[cfg(not(target_vendor = "apple"))]
pub(super) fn silence(_: &Socket) {}

/// Sets the sizes of the system's buffers that the configuration gives.
pub(super) fn set_buffers(socket: &Socket, config: &Config) -> io::Result<()> {
    if let Some(size) = config.send_buffer {
        socket.set_send_buffer_size(size)?;
    }
    if let Some(size) = config.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    Ok(())
}

/// Converts an address for connect(2) and sendto(2).
pub(super) fn system_address(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Tcp(addr) | Address::Udp(addr) => Ok((*addr).into()),
        Address::Unix(path) | Address::Unixgram(path) => SockAddr::unix(path),
        Address::Vsock(addr) => vsock::system_address(*addr),
    }
}

/// Returns the address of a stream's end.
pub(super) fn stream_address(at: &SockAddr) -> Address {
    match (at.as_socket(), vsock::address_of(at)) {
        (Some(addr), _) => Address::Tcp(canonical(addr)),
        (None, Some(addr)) => Address::Vsock(addr),
        (None, None) => Address::Unix(unix_path(at)),
    }
}

/// Returns the path of a Unix socket, or its name behind a NUL, or an empty path if it has neither.
pub(super) fn unix_path(address: &SockAddr) -> PathBuf {
    let name = || {
        let name = [b"\0", address.as_abstract_namespace()?].concat();
        Some(PathBuf::from(OsString::from_vec(name)))
    };
    let path = address.as_pathname().map(PathBuf::from);
    path.or_else(name).unwrap_or_default()
}

/// Returns the IPv4 address of a client that a socket for both families shows as an IPv6 address.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip if ip == addr.ip() => addr,
        ip => SocketAddr::new(ip, addr.port()),
    }
}

/// Returns an address in the form that a socket of IPv6 takes: the opposite of [`canonical`].
pub(super) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

fn local_address(socket: &Socket, at: &Address) -> io::Result<Address> {
    let local = socket.local_addr()?;
    if let Some(addr) = vsock::address_of(&local) {
        return Ok(Address::Vsock(addr));
    }
    let addr = local.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(if at.is_datagram() {
        Address::Udp(addr)
    } else {
        Address::Tcp(addr)
    })
}

fn about(at: &Address, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen on {at}: {}", Explained(error)),
    )
}
