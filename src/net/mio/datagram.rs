//! A datagram socket of the operating system.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use mio::Interest;
use socket2::{SockAddr, SockRef};

use super::Mio;
use super::listener::path_of;
use super::told::Told;
use crate::address::{Address, Ecn, PacketInfo};
use crate::config::Config;
use crate::net::destination;
use crate::net::destination::Destination;
use crate::net::groups;
use crate::net::open_sockets::Entered;
use crate::net::socket;
use crate::net::socket::Bound;
use crate::net::undelivered;
use crate::net::unix_path::SocketFile;
use crate::{LOG_TARGET, sys};

/// A datagram socket of [`Mio`](crate::net::Mio).
#[derive(Debug)]
pub struct Datagram {
    /// Before the socket, which is closed after it.
    _entered: Option<Entered>,
    kind: Kind,
    /// Whether IPv4 addresses have to be written as IPv6 addresses to send to them.
    is_mapped: bool,
    /// The token of its events.
    pub(super) token: usize,
    /// Whether one is to come when there is room to send.
    pub(super) awaits_room: bool,
    /// Whether the system reports datagrams that did not arrive.
    pub(super) is_told: bool,
    /// Whether it may be asked to cut several datagrams out of one piece.
    pub(super) cuts: bool,
    /// What the system is asked to tell with each datagram, if anything.
    told: Option<Box<Told>>,
    /// The mark of what is sent.
    pub(super) ecn: Ecn,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    /// Bound to one address, which replies are sent from.
    Udp(UdpSocket),
    /// Bound to all addresses, with the destination of the last datagram.
    UdpAny(UdpSocket, Option<Destination>),
    /// Connected to one peer, at this address.
    Connected(UdpSocket, SocketAddr),
    Unix(UnixDatagram),
}

impl Datagram {
    /// Opens a socket that is connected to a peer.
    pub(super) fn connect(to: &Address, config: &Config, token: usize) -> io::Result<Self> {
        let addr = to.socket_addr().ok_or(ErrorKind::InvalidInput)?;
        let socket = socket::open(to, config)?;
        groups::prepare(&socket, addr, config)?;
        socket::watch_packets(&socket, addr, config)?;
        socket.set_nonblocking(true)?;
        let is_told = watch(socket.as_fd(), to, false);
        socket.connect(&addr.into())?;

        let socket = UdpSocket::from(socket);
        let peer = socket.peer_addr()?;
        Ok(Self {
            _entered: None,
            kind: Kind::Connected(socket, peer),
            is_mapped: false,
            token,
            awaits_room: false,
            is_told,
            cuts: destination::CUTS,
            told: Told::of(to, config),
            ecn: Ecn::default(),
            _file: None,
        })
    }

    /// Wraps a socket that is already bound.
    pub(super) fn new(bound: Bound, token: usize) -> io::Result<Self> {
        bound.socket.set_nonblocking(true)?;
        let is_dual = bound.config().dual_stack;
        let is_told = bound.has_sessions() && watch(bound.as_fd(), &bound.address, is_dual);
        let told = Told::of(&bound.address, bound.config());
        let is_mapped = bound.address.socket_addr().is_some_and(|it| it.is_ipv6());
        let kind = match &bound.address {
            Address::Unixgram(_) => Kind::Unix(OwnedFd::from(bound.socket).into()),
            address => match address.socket_addr().map(|addr| addr.ip()) {
                Some(ip) if destination::is_any(ip) => Kind::UdpAny(bound.socket.into(), None),
                _ => Kind::Udp(bound.socket.into()),
            },
        };

        Ok(Self {
            _entered: bound.entered,
            kind,
            is_mapped,
            token,
            awaits_room: false,
            is_told,
            cuts: destination::CUTS,
            told,
            ecn: Ecn::default(),
            _file: bound.file,
        })
    }

    /// Returns the same socket for another thread, which replies to the last datagram. The copy
    /// does not own the socket's file.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let kind = match &self.kind {
            Kind::Udp(socket) => Kind::Udp(socket.try_clone()?),
            Kind::UdpAny(socket, asked) => Kind::UdpAny(socket.try_clone()?, *asked),
            Kind::Connected(socket, peer) => Kind::Connected(socket.try_clone()?, *peer),
            Kind::Unix(socket) => Kind::Unix(socket.try_clone()?),
        };
        Ok(Self {
            _entered: None,
            kind,
            is_mapped: self.is_mapped,
            token: self.token,
            awaits_room: false,
            is_told: self.is_told,
            cuts: self.cuts,
            told: self.told.as_ref().map(|told| told.copy()),
            ecn: self.ecn,
            _file: None,
        })
    }

    /// Receives one datagram, and remembers its destination for the reply.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        if self.told.is_some() {
            return self.receive_told(buffer);
        }
        match &mut self.kind {
            Kind::Udp(socket) => socket
                .recv_from(buffer)
                .map(|(count, addr)| (count, Address::Udp(socket::canonical(addr)))),
            Kind::UdpAny(socket, asked) => {
                let (count, addr, destination) = destination::receive(&*socket, buffer)?;
                *asked = destination;
                Ok((count, Address::Udp(socket::canonical(addr))))
            }
            Kind::Connected(socket, peer) => loop {
                let (count, from) = socket.recv_from(buffer)?;
                // Another one's may have come between the choice of the port and the connection.
                if is_same(*peer, from) {
                    return Ok((count, Address::Udp(from)));
                }
            },
            Kind::Unix(socket) => socket
                .recv_from(buffer)
                .map(|(count, addr)| (count, Address::Unixgram(path_of(&addr)))),
        }
    }

    /// Receives one datagram of a socket that is asked to tell more.
    #[cold]
    fn receive_told(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        loop {
            let Some(mut told) = self.told.take() else {
                return Err(ErrorKind::InvalidInput.into());
            };
            let received = match told.next(buffer) {
                Some((count, from)) => Ok((count, from, self.destination())),
                None => told.receive(self.as_fd(), buffer),
            };
            self.told = Some(told);
            let (count, from, destination) = received?;

            let from = match &mut self.kind {
                Kind::UdpAny(_, asked) => {
                    *asked = destination;
                    socket::canonical(from)
                }
                Kind::Connected(_, peer) if !is_same(*peer, from) => continue,
                Kind::Connected(..) => from,
                Kind::Udp(_) | Kind::Unix(_) => socket::canonical(from),
            };
            return Ok((count, Address::Udp(from)));
        }
    }

    /// Returns whether datagrams were received that the loop has not got yet.
    pub(super) fn has_rest(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.has_rest())
    }

    /// Returns what the header of the last datagram says, if the system was asked.
    pub(crate) fn packet_info(&self) -> Option<PacketInfo> {
        self.told.as_ref()?.packet
    }

    /// Returns which address the last datagram was sent to, if this socket has several.
    pub(super) fn destination(&self) -> Option<Destination> {
        match &self.kind {
            Kind::UdpAny(_, asked) => *asked,
            Kind::Udp(_) | Kind::Connected(..) | Kind::Unix(_) => None,
        }
    }

    /// Sends the reply to the last datagram that was received.
    pub(crate) fn send_to(&self, data: &[u8], to: &Address) -> io::Result<()> {
        self.send_from(data, to, self.destination())
    }

    /// Sends the reply with a mark.
    pub(crate) fn send_marked(&self, data: &[u8], to: &Address, ecn: Ecn) -> io::Result<()> {
        self.send_with(data, to, self.destination(), ecn)
    }

    /// Sends a datagram, from `source` if this socket has several addresses.
    fn send_from(&self, data: &[u8], to: &Address, source: Option<Destination>) -> io::Result<()> {
        self.send_with(data, to, source, self.ecn)
    }

    fn send_with(
        &self,
        data: &[u8],
        to: &Address,
        source: Option<Destination>,
        ecn: Ecn,
    ) -> io::Result<()> {
        match ecn {
            Ecn::NotEct => self.send_plain(data, to, source),
            ecn => self.mark(data, to, source, ecn),
        }
    }

    /// Sends a datagram with a mark, which one of a Unix socket does not have.
    #[cold]
    fn mark(
        &self,
        data: &[u8],
        to: &Address,
        source: Option<Destination>,
        ecn: Ecn,
    ) -> io::Result<()> {
        let sent = match (&self.kind, to) {
            (Kind::Udp(socket) | Kind::UdpAny(socket, _), Address::Udp(addr)) => {
                let to = self.of_family(*addr);
                destination::send_marked(socket, data, to, source, ecn)
            }
            (Kind::Connected(socket, peer), _) => {
                destination::send_marked(socket, data, *peer, source, ecn)
            }
            _ => return self.send_plain(data, to, source),
        };
        sent.map(drop)
    }

    fn send_plain(&self, data: &[u8], to: &Address, source: Option<Destination>) -> io::Result<()> {
        let sent = match (&self.kind, to) {
            (Kind::Udp(socket), Address::Udp(addr)) => {
                let to = self.of_family(*addr).into();
                SockRef::from(socket).send_to_with_flags(data, &to, sys::QUIETLY)
            }
            (Kind::Connected(socket, _), _) => {
                SockRef::from(socket).send_with_flags(data, sys::QUIETLY)
            }
            (Kind::UdpAny(socket, _), Address::Udp(addr)) => {
                destination::send(socket, data, self.of_family(*addr), source)
            }
            (Kind::Unix(socket), Address::Unixgram(path)) => {
                // A name outside the file system begins with a NUL, which the standard library does
                // not accept in a path.
                let to = SockAddr::unix(path)?;
                SockRef::from(socket).send_to_with_flags(data, &to, sys::QUIETLY)
            }
            _ => Err(ErrorKind::InvalidInput.into()),
        };

        sent.map(drop)
    }

    /// Returns `addr` as an address of this socket's family.
    fn of_family(&self, addr: SocketAddr) -> SocketAddr {
        if self.is_mapped {
            socket::mapped(addr)
        } else {
            addr
        }
    }
}

impl Mio {
    /// Stops to watch a socket for room if the outcome of a send shows that there is some.
    pub(super) fn note_room(&self, socket: &mut Datagram, sent: io::Result<()>) -> io::Result<()> {
        let has_room = !matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if has_room && mem::take(&mut socket.awaits_room) {
            // A socket that is watched for room has an event for each datagram that leaves it.
            self.change(socket.as_fd(), socket.token, Interest::READABLE)?;
        }
        sent
    }
}

impl Datagram {
    /// Sends a datagram, and again if that failed with the error of another one.
    pub(super) fn send_again(
        &self,
        data: &[u8],
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<()> {
        let mut sent = self.send_from(data, to, source);
        for _ in 0..REPORTED_MOST {
            if !self.is_told || !sent.as_ref().is_err_and(may_be_of_another) {
                break;
            }
            sent = self.send_from(data, to, source);
        }
        sent
    }

    /// Sends datagrams of one length by one call, if the system can do that.
    pub(super) fn send_together(
        &mut self,
        data: &[u8],
        length: usize,
        to: &Address,
        source: Option<Destination>,
    ) -> Option<io::Result<()>> {
        let short = u16::try_from(length).ok();
        let short = short.filter(|_| self.cuts && (1..=CUT_MOST).contains(&length))?;
        match self.send_run(data, short, to, source) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Err(error)),
            Err(error) if self.is_told && may_be_of_another(&error) => None,
            Err(_) => {
                // The way to the peer, or the system, cannot do it.
                self.cuts = false;
                None
            }
            sent => Some(sent),
        }
    }

    /// Sends datagrams of one length by one call, from `source` if this socket has several addresses.
    fn send_run(
        &self,
        data: &[u8],
        length: u16,
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<()> {
        let Address::Udp(addr) = *to else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let addr = self.of_family(addr);
        let sent = match &self.kind {
            Kind::Udp(socket) | Kind::Connected(socket, _) => {
                destination::send_run(socket, data, length, addr, (None, self.ecn))
            }
            Kind::UdpAny(socket, _) => {
                destination::send_run(socket, data, length, addr, (source, self.ecn))
            }
            Kind::Unix(_) => return Err(ErrorKind::InvalidInput.into()),
        };
        sent.map(drop)
    }
}

impl AsFd for Datagram {
    /// Returns the socket, for example to read its options. The loop alone receives from it and sends
    /// by it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Udp(socket) | Kind::UdpAny(socket, _) | Kind::Connected(socket, _) => {
                socket.as_fd()
            }
            Kind::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Returns whether two addresses are the same, whatever else is in them.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Makes a socket collect reports of datagrams that did not arrive. Returns whether it does.
fn watch(socket: BorrowedFd<'_>, at: &Address, is_dual: bool) -> bool {
    let Some(addr) = at.socket_addr() else {
        return false;
    };
    let watched = undelivered::watch(socket, addr, is_dual);
    if let Err(error) = &watched {
        log::debug!(target: LOG_TARGET, "{at}: cannot learn which datagrams did not arrive: {error}");
    }
    watched.is_ok()
}

/// Returns whether an address belongs to this machine, by binding to it. If that fails for lack of
/// descriptors or memory, the address counts as local: dropping a datagram does less harm than a
/// server that replies to itself for as long as the shortage lasts.
pub(super) fn is_local(mut addr: SocketAddr) -> bool {
    addr.set_port(0);
    let ip = addr.ip().to_canonical();
    if ip != addr.ip() {
        addr = SocketAddr::new(ip, 0);
    }

    match UdpSocket::bind(addr) {
        Ok(_) => true,
        Err(error) => matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
        ),
    }
}

/// How often to send a datagram again whose error may be that of an earlier one, to another peer. A call
/// takes the error away, and another one may come in the meantime.
const REPORTED_MOST: usize = 3;

/// The longest datagrams that the system is asked to cut out of a piece: those that fit into a packet of
/// Ethernet, over IPv6. It cuts none that would have to be split again.
const CUT_MOST: usize = 1_452;

/// Returns whether an error of sendto(2) may be a report about another datagram.
fn may_be_of_another(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EACCES
                | libc::EMSGSIZE
                | libc::EHOSTDOWN
                | libc::EOPNOTSUPP
        )
    )
}
