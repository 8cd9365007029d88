//! The interface to the operating system: everything that the loop asks of it.
//!
//! [`Net`] is the interface, and [`Mio`] the real network behind it. Whatever differs between
//! operating systems belongs in this room: bound sockets, the source address of a reply, the files
//! of Unix sockets. What a server does with its connections belongs elsewhere.
//!
//! This room imports the values, `shutdown` and `sys`; it does not know sessions.

mod destination;
mod groups;
mod keepalive;
mod listening;
mod mio;
mod open_sockets;
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "packet/linux.rs"
)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "packet/other.rs"
)]
mod packet;
mod socket;
mod sockets;
mod spread;
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "undelivered/linux.rs"
)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "undelivered/other.rs"
)]
mod undelivered;
mod unix_path;
#[cfg_attr(target_os = "linux", path = "vsock/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "vsock/other.rs")]
mod vsock;

pub use crate::address::{
    AddressError, Credentials, Ecn, HandedConnection, IpNetwork, ListenOptions, NetworkError,
    NetworkList, NotASocketFileId, OtherOptions, PacketInfo, SocketFileId, Target, VsockAddr,
    VsockAddrError,
};

pub use crate::config::UdpOptions;
pub use crate::error::DeliveryError;

pub use self::destination::Destination;
pub(crate) use self::listening::{bind_listen, bind_one_of, bind_socket, check_listen};
pub use self::mio::{Datagram, Listener, Mio};
pub use self::open_sockets::{OpenSocket, OpenSockets};
pub(crate) use self::socket::Bound;
pub use self::sockets::Sockets;
pub(crate) use self::sockets::SystemSockets;
pub(crate) use self::spread::Share;
pub(crate) use self::vsock::address_of as vsock_address_of;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::shutdown::ShutdownHandle;
use crate::waker::Wake;

/// The most events that one wait of [`Mio`] returns. After that many there may be more.
pub(crate) const EVENTS_MOST: usize = 1_024;

/// A datagram that was sent and did not arrive, as the network told: [`Net::undelivered`].
///
/// ```
/// use serveloop::net::{DeliveryError, Undelivered};
/// use std::io::{Error, ErrorKind};
///
/// let to = "udp://192.0.2.1:9".parse()?;
/// let refused = Error::from(ErrorKind::ConnectionRefused);
/// let report = Undelivered { to, error: DeliveryError::Reported(refused) };
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Debug)]
pub struct Undelivered {
    /// Where it was sent to.
    pub to: Address,
    /// Why it did not arrive.
    pub error: DeliveryError,
}

/// What happened to one socket since the last poll.
///
/// All fields are hints. Each may be false or late, and a call on a socket that turns out not to be
/// ready returns `WouldBlock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The token that the socket was registered with.
    pub token: usize,
    /// There may be something to read or a connection to accept.
    pub readable: bool,
    /// There may be room to write, or an attempt to connect has ended.
    pub writable: bool,
    /// The peer has ended its stream or sent an urgent byte. From now on a short read does not mean
    /// that nothing is left.
    pub closed: bool,
    /// The socket has failed. The next read returns the error.
    pub error: bool,
}

/// What the operating system does for a loop: time, readiness and sockets.
///
/// [`Mio`] is the real network. Another implementation can simulate one, with the same loop on top.
/// The loop owns the handles, and gives them back to be closed.
///
/// Every call except [`poll`](Self::poll) returns at once, with `WouldBlock` if nothing can be done
/// now. Errors carry the system's number ([`io::Error::raw_os_error`]).
///
/// Readiness is edge-triggered: a new event comes only after a call returned `WouldBlock`, or read
/// or wrote less than it was asked to. A Unix stream is an exception: after a read only
/// `WouldBlock` counts, since more may wait behind a read that ended early.
///
/// # What to implement
/// Every network has a clock, waits and can be woken: [`now`](Self::now), [`poll`](Self::poll) and
/// [`waker`](Self::waker). The other methods have defaults, so implement what your network has:
///
/// | what there is | methods |
/// |---|---|
/// | listeners | [`listen`](Self::listen), [`accept`](Self::accept) |
/// | connections | [`register`](Self::register), [`read`](Self::read), [`write`](Self::write) |
/// | outbound connections | [`connect`](Self::connect), and [`connected`](Self::connected) if they take time; [`lookup`](Self::lookup) if it knows names |
/// | datagrams | [`bind`](Self::bind), [`receive`](Self::receive), [`send`](Self::send); [`connect_datagram`](Self::connect_datagram) for outbound ones |
/// | shutdown from other threads | [`watch_shutdown`](Self::watch_shutdown) |
///
/// Without an implementation, these fail with [`Unsupported`](io::ErrorKind::Unsupported), and
/// nothing else of their row is called. The remaining methods say what their defaults do; they suit
/// a network in memory. A network that wraps another one passes on every method.
///
/// ```
/// use std::io::{self, IoSlice};
/// use std::time::{Duration, Instant};
///
/// use serveloop::driver::Wake;
/// use serveloop::net::{Event, Net};
/// use serveloop::{Address, Config, Peer, Reactor, protocols::Echo};
///
/// /// One datagram comes, and what is sent is kept.
/// struct OneDatagram(Option<&'static str>, Vec<u8>);
///
/// impl Net for OneDatagram {
///     type Stream = ();
///     type Listener = ();
///     type Datagram = ();
///
///     fn now(&mut self) -> Instant {
///         Instant::now()
///     }
///
///     fn poll(&mut self, events: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
///         events.push(Event { token: 0, readable: true, ..Event::default() });
///         Ok(())
///     }
///
///     fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
///         Ok(Box::new(|| ())) // `poll` never waits.
///     }
///
///     fn bind(&mut self, at: &Address, _: &Config, _: usize) -> io::Result<((), Address)> {
///         Ok(((), at.clone()))
///     }
///
///     fn receive(&mut self, (): &mut (), buffer: &mut [u8]) -> io::Result<(usize, Address)> {
///         let data = self.0.take().ok_or(io::ErrorKind::WouldBlock)?.as_bytes();
///         buffer[..data.len()].copy_from_slice(data);
///         Ok((data.len(), Address::Udp(([192, 0, 2, 1], 5000).into())))
///     }
///
///     fn send(&mut self, (): &mut (), data: &[u8], _: &Address) -> io::Result<()> {
///         self.1.extend_from_slice(data);
///         Ok(())
///     }
/// }
///
/// let net = OneDatagram(Some("hello"), Vec::new());
/// let mut reactor = Reactor::with_net(net, |_: &Peer| Some(Echo), Config::default())?;
/// reactor.listen(&"udp://192.0.2.7:7".parse()?)?;
/// reactor.turn(None)?;
/// assert_eq!(reactor.net().1, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[expect(
    unused_variables,
    reason = "parameters have names where defaults ignore them"
)]
pub trait Net {
    /// A connection.
    type Stream;
    /// A listening socket.
    type Listener;
    /// A datagram socket.
    type Datagram;

    /// Returns the time, from a clock that never goes back.
    fn now(&mut self) -> Instant;

    /// Returns the nanoseconds since some moment in the past, which is always the same one, on the clock
    /// that [`now`](Self::now) reads. The loop reads the time twice in each turn, and subtracting
    /// `Instant`s takes longer than everything else about it. By default there is no such number, and
    /// the loop asks for `now`.
    fn nanos(&mut self) -> Option<u64> {
        None
    }

    /// Waits for events for up to `timeout`, or without limit if it is `None`, and appends them to
    /// `events`. A signal ends the wait without events and without an error.
    ///
    /// # Errors
    /// The loop cannot go on.
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;

    /// Returns a handle that ends a wait from any thread, with an event for `token`. The loop calls
    /// this once.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>>;

    /// Makes `handle` end waits when it is used, with an event for `token`.
    ///
    /// # Errors
    /// The system cannot watch the handle.
    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()> {
        unsupported()
    }

    /// Opens a listener, registers it with `token`, and returns the address that it really has. The
    /// listener's own options are in `config`, in place of those for all.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    fn listen(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Self::Listener, Address)> {
        unsupported()
    }

    /// Accepts one waiting connection. The stream is not registered yet.
    ///
    /// # Errors
    /// The errors of accept(2).
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)> {
        unsupported()
    }

    /// Returns a connection that another loop has accepted for this one, which accepts no more. It is called
    /// until there is none, before the listener is closed. By default there is none.
    fn accept_handed(&mut self, listener: &mut Self::Listener) -> Option<(Self::Stream, Address)> {
        let _ = listener;
        None
    }

    /// Returns whether a connection is waiting to be accepted, for a warning that it has to wait.
    /// False where the system does not tell, and by default.
    fn has_connection(&mut self, listener: &mut Self::Listener) -> bool {
        false
    }

    /// Returns whether a datagram is waiting to be received, for a warning that it has to wait.
    /// False where the system does not tell, and by default.
    fn has_datagram(&mut self, socket: &mut Self::Datagram) -> bool {
        false
    }

    /// Stops listening. The default drops the listener.
    fn close_listener(&mut self, listener: Self::Listener) {
        drop(listener);
    }

    /// Returns the addresses of the host that the URI `name` names, if the network knows names itself.
    /// By default `None`: the loop asks the system, on a thread.
    ///
    /// # Errors
    /// The name has no address. `WouldBlock` means that it is not known yet; the loop then asks again in
    /// each turn until `connect_timeout`.
    fn lookup(&mut self, name: &str) -> Option<io::Result<Vec<Address>>> {
        let _ = name;
        None
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// The attempt has failed already. `WouldBlock` means that it cannot begin now, although
    /// nothing is wrong; the loop then tries again until `connect_timeout`.
    fn connect(&mut self, to: &Address, config: &Config) -> io::Result<Self::Stream> {
        unsupported()
    }

    /// Returns `Ok` if the connection is established, as it always is by default.
    ///
    /// # Errors
    /// `WouldBlock` if it is not established yet; otherwise the reason why it failed.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        Ok(())
    }

    /// Registers a stream with `token`, for reading and writing, until it is closed.
    ///
    /// # Errors
    /// The system cannot watch the stream.
    fn register(&mut self, stream: &mut Self::Stream, token: usize) -> io::Result<()> {
        unsupported()
    }

    /// Reads what has arrived. 0 bytes mean the end of the stream.
    ///
    /// # Errors
    /// The errors of read(2).
    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize> {
        unsupported()
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// The errors of write(2).
    fn write(&mut self, stream: &mut Self::Stream, data: &[u8]) -> io::Result<usize> {
        unsupported()
    }

    /// Writes as much of the slices, in their order, as there is room for. By default writes them one by one
    /// until one is not written whole.
    ///
    /// # Errors
    /// The errors of writev(2).
    fn write_vectored(
        &mut self,
        stream: &mut Self::Stream,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let mut sent = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match self.write(stream, slice) {
                Ok(count) if count < slice.len() => return Ok(sent + count),
                Ok(count) => sent += count,
                Err(error) if sent == 0 => return Err(error),
                // The next write has the error.
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Returns the error that an event announced, if there is one. The default knows of none.
    fn error(&mut self, stream: &mut Self::Stream) -> Option<io::Error> {
        None
    }

    /// Returns how many written bytes the peer's system has not taken yet, or 0 where that is
    /// unknown, as it is by default.
    fn unsent(&mut self, stream: &mut Self::Stream) -> usize {
        0
    }

    /// Ends our side of the stream, after what was written. The default does nothing.
    ///
    /// # Errors
    /// The errors of shutdown(2).
    fn finish(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        Ok(())
    }

    /// Closes a stream. With `abort` the peer sees a reset, if the transport has one. The default
    /// drops the stream.
    fn close(&mut self, stream: Self::Stream, abort: bool) {
        drop(stream);
    }

    /// Returns whether streams can be taken out of this network and go on elsewhere. False by default.
    fn detaches(&self) -> bool {
        false
    }

    /// Takes an open stream out of this network. The default closes it.
    fn detach(&mut self, stream: Self::Stream) -> Option<OwnedFd> {
        self.close(stream, false);
        None
    }

    /// Puts an open stream into this network, and returns it with the address of its peer. It is not
    /// registered yet.
    ///
    /// # Errors
    /// It is not open any more.
    fn attach(&mut self, descriptor: OwnedFd) -> io::Result<(Self::Stream, Address)> {
        drop(descriptor);
        unsupported()
    }

    /// Opens a datagram socket, registers it with `token`, and returns the address that it really
    /// has. The socket's own options are in `config`, in place of those for all.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    fn bind(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Self::Datagram, Address)> {
        unsupported()
    }

    /// Opens a datagram socket that is connected to `to`, and registers it with `token`. It receives only
    /// what comes from there.
    ///
    /// # Errors
    /// There is no way to the address. `WouldBlock` means that the socket cannot be opened now, although
    /// nothing is wrong; the loop then tries again until `connect_timeout`.
    fn connect_datagram(
        &mut self,
        to: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<Self::Datagram> {
        unsupported()
    }

    /// Receives one waiting datagram into `buffer`, and returns its length and its sender.
    ///
    /// # Errors
    /// The errors of recvfrom(2).
    fn receive(
        &mut self,
        socket: &mut Self::Datagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Address)> {
        unsupported()
    }

    /// Sends `data` to `to`, as the reply to the last datagram received on this socket. A socket
    /// with several addresses sends it from the one that the datagram was sent to.
    ///
    /// # Errors
    /// The errors of sendto(2).
    fn send(&mut self, socket: &mut Self::Datagram, data: &[u8], to: &Address) -> io::Result<()> {
        unsupported()
    }

    /// Returns which address the last datagram received on this socket was sent to, if the socket has
    /// several and the system tells. The default knows none.
    fn destination(&mut self, socket: &mut Self::Datagram) -> Option<Destination> {
        None
    }

    /// Returns what the header of the last datagram received on this socket says, where
    /// [`UdpOptions::packet_info`] asks for it. The loop calls this only then. The default knows nothing.
    fn packet_info(&mut self, socket: &mut Self::Datagram) -> Option<PacketInfo> {
        let _ = socket;
        None
    }

    /// Sets the ECN mark of what is sent on this socket from now on. The loop calls this only for marks
    /// that a protocol has set, and sets [`Ecn::NotEct`] again behind them. The default marks nothing.
    fn set_ecn(&mut self, socket: &mut Self::Datagram, ecn: Ecn) {
        let _ = (socket, ecn);
    }

    /// Sends `data` to `to` at any time, from the address `source` if there is one. The default sends
    /// it like a reply to the last datagram.
    ///
    /// # Errors
    /// The errors of sendto(2). `WouldBlock` means that there is no room for it now.
    fn send_from(
        &mut self,
        socket: &mut Self::Datagram,
        data: &[u8],
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<()> {
        self.send(socket, data, to)
    }

    /// Sends several datagrams to `to`, whose bytes are one behind the other in `data`: each has `length`
    /// bytes, and only the last may have fewer. Returns how many were sent, at least one. The default
    /// sends one by one.
    ///
    /// # Errors
    /// The errors of [`send_from`](Self::send_from) for the first of them, or `length` is 0
    /// (`InvalidInput`).
    fn send_run(
        &mut self,
        socket: &mut Self::Datagram,
        data: &[u8],
        length: usize,
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<usize> {
        one_by_one(data, length, |datagram| {
            self.send_from(socket, datagram, to, source)
        })
    }

    /// Asks for an event, with the token of the socket, when there is room to send again after a send
    /// had none. The default does nothing, which suits a network that always has room.
    ///
    /// # Errors
    /// The system cannot watch the socket.
    fn await_room(&mut self, socket: &mut Self::Datagram) -> io::Result<()> {
        Ok(())
    }

    /// Returns the next report that a datagram did not arrive, if there is one. The loop asks after an
    /// [error](Event::error) of a socket whose peers have sessions, and after a call on it has failed. A
    /// report is no more than a hint: a router may have sent it, or an impostor. The default knows of none.
    fn undelivered(&mut self, socket: &mut Self::Datagram) -> Option<Undelivered> {
        let _ = socket;
        None
    }

    /// Closes a datagram socket. The default drops it.
    fn close_datagram(&mut self, socket: Self::Datagram) {
        drop(socket);
    }

    /// Returns what [`sockets`](Self::sockets) knows a stream by. The default is 0.
    fn number(&self, stream: &Self::Stream) -> i32 {
        let _ = stream;
        0
    }

    /// Returns what answers questions about open streams while the loop uses the network. The loop
    /// calls this once. The default knows nothing.
    fn sockets(&self) -> Box<dyn Sockets> {
        struct Unknown;
        impl Sockets for Unknown {}
        Box::new(Unknown)
    }

    /// Returns a number for a connection or datagram, which none before it had:
    /// [`Peer::id`](crate::Peer::id). The default counts from 1 for the whole process.
    fn next_id(&mut self) -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(1);
        IDS.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns whether an IP address belongs to this machine. Called only for datagrams whose
    /// source port is bound here on all addresses. The default knows loopback addresses only.
    fn is_local(&mut self, ip: IpAddr) -> bool {
        ip.is_loopback()
    }

    /// Returns the same as [`is_local`](Self::is_local) for an address with its interface, since
    /// every interface has link-local addresses of its own. The port has no meaning here.
    fn is_local_in_scope(&mut self, addr: SocketAddr) -> bool {
        self.is_local(addr.ip())
    }
}

/// Sends each `length` bytes of `data` by `send`, until one is not sent. Returns how many were.
fn one_by_one(
    data: &[u8],
    length: usize,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    if length == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut sent = 0;
    for datagram in data.chunks(length) {
        match send(datagram) {
            Ok(()) => sent += 1,
            Err(error) if sent == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// The answer of a network to what it has not.
fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}
