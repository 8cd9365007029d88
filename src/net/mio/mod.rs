//! The operating system's network: [`Net`] on top of mio.

mod accepting;
mod datagram;
mod listener;
#[cfg_attr(
    any(
        mio_unsupported_force_poll_poll,
        target_os = "aix",
        target_os = "cygwin",
        target_os = "espidf",
        target_os = "fuchsia",
        target_os = "haiku",
        target_os = "hurd",
        target_os = "nto",
        target_os = "nuttx",
        target_os = "vita"
    ),
    path = "rearmed.rs"
)]
mod registrations;
mod told;
mod watching;

use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use self::registrations::{REARMS, Registrations};
use crate::address::Address;
use crate::config::Config;
use crate::net::socket::Bound;
use crate::net::{
    Destination, EVENTS_MOST, Ecn, Event, Net, PacketInfo, Sockets, SystemSockets, Undelivered,
    one_by_one,
};
use crate::net::{socket, undelivered};
use crate::shutdown::ShutdownHandle;
use crate::waker::Wake;
use crate::{LOG_TARGET, sys};

pub use self::datagram::Datagram;
pub use self::listener::Listener;
pub(super) use self::listener::path_of;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What a stream is watched for. A read ends before an urgent byte, so a short read does not mean
/// that nothing is left. Where the system can report urgent bytes, it is asked to.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STREAM: Interest = BOTH.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STREAM: Interest = BOTH;

/// Whether an `Instant` is read from the clock that [`sys::monotonic_nanos`] reads.
const IS_SAME_CLOCK: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The operating system's network, built on mio.
///
/// ```
/// use serveloop::net::Mio;
/// use serveloop::{Config, Peer, Reactor, protocols::Echo};
///
/// let mut reactor = Reactor::with_net(Mio::new()?, |_: &Peer| Some(Echo), Config::default())?;
/// reactor.listen(&"tcp://127.0.0.1:0".parse()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mio {
    poll: Poll,
    events: Events,
    registrations: Registrations,
    /// What asks the loop to end.
    shutdown: Option<ShutdownHandle>,
}

impl Mio {
    /// Creates a poller.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MOST),
            registrations: Registrations::new(),
            shutdown: None,
        })
    }

    /// Wraps and watches a socket that already listens.
    pub(crate) fn adopt_listener(&self, bound: Bound, token: usize) -> io::Result<Listener> {
        let listener = Listener::new(bound)?;
        self.watch(listener.as_fd(), token, Interest::READABLE)?;
        if let Some(share) = &listener.share {
            self.watch(share.as_fd(), token, Interest::READABLE)?;
            self.registrations.keep_armed(share.as_fd());
        }
        Ok(listener)
    }

    /// Wraps and watches a datagram socket that is already bound.
    pub(crate) fn adopt_datagram(&self, bound: Bound, token: usize) -> io::Result<Datagram> {
        let datagram = Datagram::new(bound, token)?;
        self.watch(datagram.as_fd(), token, Interest::READABLE)?;
        Ok(datagram)
    }

    /// Ends a wait with an event for `token` when a child process reports something.
    pub(crate) fn watch_child(&self, report: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        self.watch(report, token, Interest::READABLE)?;
        self.registrations.keep_armed(report);
        Ok(())
    }
}

struct MioWake(::mio::Waker);

impl Wake for MioWake {
    fn wake(&self) {
        if let Err(error) = self.0.wake() {
            log::error!(target: LOG_TARGET, "cannot wake the loop: {error}");
        }
    }
}

impl Net for Mio {
    type Stream = Socket;
    type Listener = Listener;
    type Datagram = Datagram;

    fn now(&mut self) -> Instant {
        Instant::now()
    }

    #[inline]
    fn nanos(&mut self) -> Option<u64> {
        IS_SAME_CLOCK.then(sys::monotonic_nanos)
    }

    fn detaches(&self) -> bool {
        true
    }

    fn detach(&mut self, stream: Socket) -> Option<OwnedFd> {
        self.forget_shared(stream.as_fd());
        Some(stream.into())
    }

    fn attach(&mut self, descriptor: OwnedFd) -> io::Result<(Socket, Address)> {
        let stream = Socket::from(descriptor);
        stream.set_nonblocking(true)?;
        let peer = stream.peer_addr()?;
        Ok((stream, socket::stream_address(&peer)))
    }

    fn number(&self, stream: &Socket) -> i32 {
        stream.as_raw_fd()
    }

    fn sockets(&self) -> Box<dyn Sockets> {
        Box::new(SystemSockets)
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.registrations.prepare(self.poll.registry(), timeout);
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }

        if REARMS {
            for event in &self.events {
                self.registrations.note(event);
            }
        }

        for event in &self.events {
            events.push(Event {
                token: event.token().0,
                readable: event.is_readable(),
                writable: event.is_writable(),
                closed: event.is_read_closed() || event.is_priority(),
                error: event.is_error(),
            });
        }
        Ok(())
    }

    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(MioWake(::mio::Waker::new(
            self.poll.registry(),
            Token(token),
        )?)))
    }

    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()> {
        self.watch(handle.as_fd(), token, Interest::READABLE)?;
        self.registrations.look_often(handle.as_fd());
        self.watch(handle.wakes(), token, Interest::READABLE)?;
        self.registrations.keep_armed(handle.wakes());
        self.shutdown = Some(handle.clone());
        Ok(())
    }

    fn listen(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Listener, Address)> {
        let bound = Bound::new(at, config)?;
        bound.listen()?;
        let address = bound.address.clone();
        Ok((self.adopt_listener(bound, token)?, address))
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<(Socket, Address)> {
        if listener.share.is_some() {
            return self.accept_share(listener);
        }
        self.accept_next(listener)
    }

    fn accept_handed(&mut self, listener: &mut Listener) -> Option<(Socket, Address)> {
        let share = listener.share.as_ref()?;
        // Nothing comes after that.
        share.close();
        share.take()
    }

    fn has_connection(&mut self, listener: &mut Listener) -> bool {
        sys::has_input(listener.as_fd())
    }

    fn has_datagram(&mut self, socket: &mut Datagram) -> bool {
        socket.has_rest() || sys::has_input(socket.as_fd())
    }

    fn close_listener(&mut self, listener: Listener) {
        self.forget_shared(listener.as_fd());
        if let Some(share) = &listener.share {
            self.forget(share.as_fd());
        }
        drop(listener);
    }

    fn connect(&mut self, to: &Address, config: &Config) -> io::Result<Socket> {
        let stream = socket::open(to, config)?;
        stream.set_nonblocking(true)?;
        match stream.connect(&socket::system_address(to)?) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(stream),
            Err(error) => Err(error),
            Ok(()) => Ok(stream),
        }
    }

    fn connected(&mut self, stream: &mut Socket) -> io::Result<()> {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }

        match stream.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                self.rearm(stream.as_fd(), Interest::WRITABLE);
                Err(ErrorKind::WouldBlock.into())
            }
            outcome => outcome.map(drop),
        }
    }

    fn register(&mut self, stream: &mut Socket, token: usize) -> io::Result<()> {
        self.watch(stream.as_fd(), token, STREAM)
    }

    #[inline]
    fn read(&mut self, stream: &mut Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = stream.read(buffer);
        if REARMS {
            let is_short = |count: &usize| (1..buffer.len()).contains(count);
            self.rearm_after(stream.as_fd(), Interest::READABLE, &outcome, is_short);
        }
        outcome
    }

    #[inline]
    fn write(&mut self, stream: &mut Socket, data: &[u8]) -> io::Result<usize> {
        let outcome = stream.send_with_flags(data, sys::QUIETLY);
        if REARMS {
            let is_short = |count: &usize| *count < data.len();
            self.rearm_after(stream.as_fd(), Interest::WRITABLE, &outcome, is_short);
        }
        outcome
    }

    fn write_vectored(&mut self, stream: &mut Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let outcome = stream.send_vectored_with_flags(slices, sys::QUIETLY);
        if REARMS {
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            self.rearm_after(stream.as_fd(), Interest::WRITABLE, &outcome, |count| {
                *count < length
            });
        }
        outcome
    }

    fn error(&mut self, stream: &mut Socket) -> Option<io::Error> {
        stream.take_error().unwrap_or_else(Some)
    }

    fn unsent(&mut self, stream: &mut Socket) -> usize {
        sys::unsent(stream.as_fd())
    }

    fn finish(&mut self, stream: &mut Socket) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }

    fn close(&mut self, stream: Socket, abort: bool) {
        self.forget(stream.as_fd());
        if abort {
            // If this fails, the connection ends with a plain close, which is as final.
            let _ = stream.set_linger(Some(Duration::ZERO));
        }
        drop(stream);
    }

    fn bind(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Datagram, Address)> {
        let bound = Bound::new(at, config)?;
        let address = bound.address.clone();
        Ok((self.adopt_datagram(bound, token)?, address))
    }

    fn connect_datagram(
        &mut self,
        to: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<Datagram> {
        let socket = Datagram::connect(to, config, token)?;
        self.watch(socket.as_fd(), token, Interest::READABLE)?;
        Ok(socket)
    }

    fn receive(
        &mut self,
        socket: &mut Datagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Address)> {
        let received = socket.receive(buffer);

        if REARMS {
            self.rearm_after(socket.as_fd(), Interest::READABLE, &received, |_| false);
        }

        received
    }

    fn send(&mut self, socket: &mut Datagram, data: &[u8], to: &Address) -> io::Result<()> {
        socket.send_to(data, to)
    }

    fn destination(&mut self, socket: &mut Datagram) -> Option<Destination> {
        socket.destination()
    }

    fn packet_info(&mut self, socket: &mut Datagram) -> Option<PacketInfo> {
        socket.packet_info()
    }

    fn set_ecn(&mut self, socket: &mut Datagram, ecn: Ecn) {
        socket.ecn = ecn;
    }

    fn send_from(
        &mut self,
        socket: &mut Datagram,
        data: &[u8],
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<()> {
        let sent = socket.send_again(data, to, source);
        self.note_room(socket, sent)
    }

    fn send_run(
        &mut self,
        socket: &mut Datagram,
        data: &[u8],
        length: usize,
        to: &Address,
        source: Option<Destination>,
    ) -> io::Result<usize> {
        if let Some(sent) = socket.send_together(data, length, to, source) {
            self.note_room(socket, sent)?;
            return Ok(data.len().div_ceil(length));
        }
        one_by_one(data, length, |datagram| {
            self.send_from(socket, datagram, to, source)
        })
    }

    fn await_room(&mut self, socket: &mut Datagram) -> io::Result<()> {
        socket.awaits_room = true;
        self.change(socket.as_fd(), socket.token, BOTH)
    }

    fn undelivered(&mut self, socket: &mut Datagram) -> Option<Undelivered> {
        if socket.is_told {
            undelivered::next(socket.as_fd())
        } else {
            None
        }
    }

    fn close_datagram(&mut self, socket: Datagram) {
        self.forget_shared(socket.as_fd());
        drop(socket);
    }

    fn is_local(&mut self, ip: IpAddr) -> bool {
        self.is_local_in_scope((ip, 0).into())
    }

    fn is_local_in_scope(&mut self, addr: SocketAddr) -> bool {
        datagram::is_local(addr)
    }
}
