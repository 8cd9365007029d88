//! The interface to the operating system: everything that the loop asks of it.
//!
//! [`Net`] is the interface, and [`Mio`] the real network behind it. Whatever differs between
//! operating systems belongs in this room: bound sockets, the source address of a reply, the files
//! of Unix sockets. What a server does with its connections belongs elsewhere.
//!
//! This room imports the values, `shutdown` and `sys`; it does not know sessions.

mod destination;
mod mio;
mod socket;
mod sockets;
mod unix_path;

pub use crate::address::{IpNetwork, NetworkError, NetworkList};

pub use self::mio::{Datagram, Listener, Mio};
pub(crate) use self::socket::Bound;
pub use self::sockets::Sockets;
pub(crate) use self::sockets::SystemSockets;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::shutdown::ShutdownHandle;
use crate::waker::Wake;

/// The most events that one wait of [`Mio`] returns. After so many there may be more.
pub(crate) const EVENTS_MOST: usize = 1_024;

/// What happened to one socket since the last poll.
///
/// All fields are hints. Each may be false or late, and a call on a socket that turns out not to be
/// ready returns `WouldBlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub trait Net {
    /// A connection.
    type Stream;
    /// A listening socket.
    type Listener;
    /// A datagram socket.
    type Datagram;

    /// Returns the time, from a clock that never goes back.
    fn now(&mut self) -> Instant;

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
    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()>;

    /// Opens a listener, registers it with `token`, and returns the address that it really has.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    fn listen(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Self::Listener, Address)>;

    /// Accepts one waiting connection. The stream is not registered yet.
    ///
    /// # Errors
    /// The errors of accept(2).
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)>;

    /// Returns whether a connection is waiting to be accepted, for a warning that it has to wait.
    /// False where the system does not tell.
    fn has_connection(&mut self, listener: &mut Self::Listener) -> bool {
        let _ = listener;
        false
    }

    /// Returns whether a datagram is waiting to be received, for a warning that it has to wait.
    /// False where the system does not tell.
    fn has_datagram(&mut self, socket: &mut Self::Datagram) -> bool {
        let _ = socket;
        false
    }

    /// Stops listening.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Begins to connect.
    ///
    /// # Errors
    /// The attempt has failed already. `WouldBlock` means that it cannot begin now, although
    /// nothing is wrong; the loop then tries again until `connect_timeout`.
    fn connect(&mut self, to: &Address, config: &Config) -> io::Result<Self::Stream>;

    /// Returns `Ok` if the connection is established.
    ///
    /// # Errors
    /// `WouldBlock` if it is not established yet; otherwise the reason why it failed.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Registers a stream with `token`, for reading and writing, until it is closed.
    ///
    /// # Errors
    /// The system cannot watch the stream.
    fn register(&mut self, stream: &mut Self::Stream, token: usize) -> io::Result<()>;

    /// Reads what has arrived. 0 bytes mean the end of the stream.
    ///
    /// # Errors
    /// The errors of read(2).
    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// The errors of write(2).
    fn write(&mut self, stream: &mut Self::Stream, data: &[u8]) -> io::Result<usize>;

    /// Returns the error that an event announced, if there is one.
    fn error(&mut self, stream: &mut Self::Stream) -> Option<io::Error>;

    /// Returns how many written bytes the peer's system has not taken yet, or 0 where that is
    /// unknown.
    fn unsent(&mut self, stream: &mut Self::Stream) -> usize;

    /// Ends our side of the stream, after what was written.
    ///
    /// # Errors
    /// The errors of shutdown(2).
    fn finish(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Closes a stream. With `abort` the peer sees a reset, if the transport has one.
    fn close(&mut self, stream: Self::Stream, abort: bool);

    /// Opens a datagram socket, registers it with `token`, and returns the address that it really
    /// has.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    fn bind(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Self::Datagram, Address)>;

    /// Receives one waiting datagram into `buffer`, and returns its length and its sender.
    ///
    /// # Errors
    /// The errors of recvfrom(2).
    fn receive(
        &mut self,
        socket: &mut Self::Datagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Address)>;

    /// Sends `data` to `to`, as the reply to the last datagram received on this socket. A socket
    /// with several addresses sends it from the one that the datagram was sent to.
    ///
    /// # Errors
    /// The errors of sendto(2).
    fn send(&mut self, socket: &mut Self::Datagram, data: &[u8], to: &Address) -> io::Result<()>;

    /// Closes a datagram socket.
    fn close_datagram(&mut self, socket: Self::Datagram);

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
