//! The seam to the operating system: everything that the loop asks of it.

mod destination;
mod mio;
mod socket;
mod unix_path;

pub use self::mio::{Datagram, Listener, Mio};
pub(crate) use self::socket::Bound;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::shutdown::ShutdownHandle;
use crate::waker::Wake;

/// What happened to one socket since the last poll. Hints: each may be false or late, and a socket
/// that turns out not to be ready answers `WouldBlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The token that the socket was registered with.
    pub token: usize,
    /// There may be something to read or to accept.
    pub readable: bool,
    /// There may be room to write, or a connect has ended.
    pub writable: bool,
    /// The peer has ended its stream, or sent an urgent byte: from now on a short read does not mean
    /// that nothing waits.
    pub closed: bool,
    /// The socket has failed; the next read says how.
    pub error: bool,
}

/// What the operating system does for a loop: the time, readiness, sockets.
///
/// [`Mio`] is the real one. Another implementation can simulate a network, with the same
/// loop on top. Handles are owned by the loop and given back to be closed. All calls return at once,
/// with `WouldBlock` where nothing can be done now, except [`poll`](Self::poll). Readiness is
/// edge-triggered: a new event comes only after a call said `WouldBlock`, or read or wrote less than
/// asked for; after a read from a Unix stream only `WouldBlock` counts, since more may wait behind one
/// that ended early. Errors carry the system's number ([`io::Error::raw_os_error`]).
pub trait Net {
    /// A connection.
    type Stream;
    /// A listening socket.
    type Listener;
    /// A datagram socket.
    type Datagram;

    /// The time, from a clock that never goes back.
    fn now(&mut self) -> Instant;

    /// Waits for events, at most for `timeout`; `None` waits until one comes. Appends to `events`. A
    /// signal ends the wait without events and without an error.
    ///
    /// # Errors
    /// The loop cannot go on.
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;

    /// A handle that ends a wait from any thread, with an event for `token`. Asked for once.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>>;

    /// Ends waits when `handle` is used, with an event for `token`.
    ///
    /// # Errors
    /// The system does not let us watch it.
    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()>;

    /// Opens a listener, registered with `token`, and says where it really listens.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    fn listen(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Self::Listener, Address)>;

    /// Takes one connection that waits. It is not registered yet.
    ///
    /// # Errors
    /// What accept(2) says.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)>;

    /// Whether a connection waits to be accepted, for a warning that it has to; false where the
    /// system does not tell.
    fn has_connection(&mut self, listener: &mut Self::Listener) -> bool {
        let _ = listener;
        false
    }

    /// Whether a datagram waits to be received, for a warning that it has to; false where the system
    /// does not tell.
    fn has_datagram(&mut self, socket: &mut Self::Datagram) -> bool {
        let _ = socket;
        false
    }

    /// Stops listening.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Begins to connect.
    ///
    /// # Errors
    /// It failed already. `WouldBlock`: it cannot begin now, though nothing is wrong; the loop tries
    /// again until `connect_timeout`.
    fn connect(&mut self, to: &Address, config: &Config) -> io::Result<Self::Stream>;

    /// Asks whether a connect has ended.
    ///
    /// # Errors
    /// `WouldBlock`: not yet. Anything else: why it failed.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Watches a stream for reading and writing, until it is closed.
    ///
    /// # Errors
    /// The system does not let us.
    fn register(&mut self, stream: &mut Self::Stream, token: usize) -> io::Result<()>;

    /// Reads what has arrived. 0 is the end of the stream.
    ///
    /// # Errors
    /// What read(2) says.
    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// What write(2) says.
    fn write(&mut self, stream: &mut Self::Stream, data: &[u8]) -> io::Result<usize>;

    /// The error that an event announced, if there is one.
    fn error(&mut self, stream: &mut Self::Stream) -> Option<io::Error>;

    /// How many bytes were written that the peer's system has not taken yet; 0 where nobody tells.
    fn unsent(&mut self, stream: &mut Self::Stream) -> usize;

    /// Ends our side of the stream, after what was written.
    ///
    /// # Errors
    /// What shutdown(2) says.
    fn finish(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Closes a stream; with `abort` the peer is told by a reset, where the transport has one.
    fn close(&mut self, stream: Self::Stream, abort: bool);

    /// Opens a datagram socket, registered with `token`, and says where it really is.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    fn bind(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Self::Datagram, Address)>;

    /// Takes one datagram that waits, and says who sent it.
    ///
    /// # Errors
    /// What recvfrom(2) says.
    fn receive(
        &mut self,
        socket: &mut Self::Datagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Address)>;

    /// Sends one datagram: the reply to the last one that was received here, which leaves from the
    /// address that was asked, where the socket has several.
    ///
    /// # Errors
    /// What sendto(2) says.
    fn send(&mut self, socket: &mut Self::Datagram, data: &[u8], to: &Address) -> io::Result<()>;

    /// Closes a datagram socket.
    fn close_datagram(&mut self, socket: Self::Datagram);

    /// Whether an IP address is this machine's. Asked only of datagrams that come from a port which
    /// is bound here for all of them; loopback addresses are, if nobody knows better.
    fn is_local(&mut self, ip: IpAddr) -> bool {
        ip.is_loopback()
    }

    /// As [`is_local`](Self::is_local), where an interface belongs to the address: of link-local
    /// addresses each interface has its own. The port means nothing here.
    fn is_local_in_scope(&mut self, addr: SocketAddr) -> bool {
        self.is_local(addr.ip())
    }
}
