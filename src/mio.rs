//! The real network: the seam on mio.

mod datagram;

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::mio::net::{TcpListener, UnixListener};
use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Token};
use socket2::Socket;

pub use self::datagram::Datagram;
use crate::address::Address;
use crate::config::Config;
use crate::net::{Event, Net};
use crate::shutdown::ShutdownHandle;
use crate::socket::{self, Bound};
use crate::socket_file::SocketFile;
use crate::system;
use crate::waker::Wake;

/// The most events that one wait brings.
const EVENTS: usize = 1_024;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What a stream is watched for. A read ends before an urgent byte, which is no sign that nothing is
/// left: where the system tells of such bytes, it is to do so.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STREAM: Interest = BOTH.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STREAM: Interest = BOTH;

/// The operating system's network, through mio.
#[derive(Debug)]
pub struct Mio {
    poll: Poll,
    events: Events,
}

impl Mio {
    /// A new poller.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
        })
    }

    /// Watches a socket that listens already.
    pub(crate) fn adopt_listener(
        &self,
        bound: Bound,
        config: &Config,
        token: usize,
    ) -> io::Result<Listener> {
        bound.socket.set_nonblocking(true)?;
        let kind = match bound.address {
            Address::Unix(_) => Kind::Unix(
                UnixListener::from_std(OwnedFd::from(bound.socket).into()),
                Box::new(config.clone()),
            ),
            _ => Kind::Tcp(TcpListener::from_std(bound.socket.into())),
        };
        let listener = Listener {
            kind,
            _file: bound.file,
        };
        self.watch(listener.descriptor(), token, Interest::READABLE)?;
        Ok(listener)
    }

    /// Watches a datagram socket that is bound already.
    pub(crate) fn adopt_datagram(&self, bound: Bound, token: usize) -> io::Result<Datagram> {
        let datagram = Datagram::new(bound)?;
        self.watch(datagram.descriptor(), token, Interest::READABLE)?;
        Ok(datagram)
    }

    /// Wakes the loop with `token` when a child process has something to say.
    pub(crate) fn watch_child(&self, report: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        self.watch(report, token, Interest::READABLE)
    }

    fn watch(
        &self,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let descriptor = descriptor.as_raw_fd();
        self.poll
            .registry()
            .register(&mut SourceFd(&descriptor), Token(token), interest)
    }
}

impl AsRawFd for Mio {
    /// Readable when [`Net::poll`] has events to bring.
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// A listening socket of [`Mio`].
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// Buffer sizes are not inherited from a Unix listener, so it keeps the configuration.
    Unix(UnixListener, Box<Config>),
}

impl Listener {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener, _) => listener.as_fd(),
        }
    }
}

struct MioWake(::mio::Waker);

impl Wake for MioWake {
    fn wake(&self) {
        if let Err(error) = self.0.wake() {
            log::error!("cannot wake the loop: {error}");
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

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        events.extend(self.events.iter().map(|event| Event {
            token: event.token().0,
            readable: event.is_readable(),
            writable: event.is_writable(),
            closed: event.is_read_closed() || event.is_priority(),
            error: event.is_error(),
        }));
        Ok(())
    }

    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(MioWake(::mio::Waker::new(
            self.poll.registry(),
            Token(token),
        )?)))
    }

    fn watch_shutdown(&mut self, handle: &ShutdownHandle, token: usize) -> io::Result<()> {
        self.watch(handle.as_fd(), token, Interest::READABLE)
    }

    fn listen(
        &mut self,
        at: &Address,
        config: &Config,
        token: usize,
    ) -> io::Result<(Listener, Address)> {
        let bound = Bound::new(at, config)?;
        bound.listen(config.backlog)?;
        let address = bound.address.clone();
        Ok((self.adopt_listener(bound, config, token)?, address))
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<(Socket, Address)> {
        match &mut listener.kind {
            Kind::Tcp(listener) => {
                let (stream, addr) = listener.accept()?;
                let stream = OwnedFd::from(stream).into();
                socket::silence(&stream);
                Ok((stream, Address::Tcp(addr)))
            }
            Kind::Unix(listener, config) => {
                let (stream, addr) = listener.accept()?;
                let stream = OwnedFd::from(stream).into();
                socket::silence(&stream);
                if let Err(error) = socket::set_buffers(&stream, config) {
                    log::debug!("cannot set the buffers of a connection: {error}");
                }
                Ok((stream, Address::Unix(path_of(&addr))))
            }
        }
    }

    fn close_listener(&mut self, listener: Listener) {
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
        stream.read(buffer)
    }

    #[inline]
    fn write(&mut self, stream: &mut Socket, data: &[u8]) -> io::Result<usize> {
        system::send(stream, data)
    }

    fn error(&mut self, stream: &mut Socket) -> Option<io::Error> {
        stream.take_error().unwrap_or_else(Some)
    }

    fn unsent(&mut self, stream: &mut Socket) -> usize {
        system::unsent(stream.as_fd())
    }

    fn finish(&mut self, stream: &mut Socket) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }

    fn close(&mut self, stream: Socket, abort: bool) {
        if abort {
            // Without the reset it is a plain close, which is as final.
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

    fn receive(
        &mut self,
        socket: &mut Datagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Address)> {
        socket.receive(buffer)
    }

    fn send(&mut self, socket: &mut Datagram, data: &[u8], to: &Address) -> io::Result<()> {
        socket.send_to(data, to)
    }

    fn close_datagram(&mut self, socket: Datagram) {
        drop(socket);
    }

    fn is_local(&mut self, ip: IpAddr) -> bool {
        self.is_local_in_scope((ip, 0).into())
    }

    fn is_local_in_scope(&mut self, addr: SocketAddr) -> bool {
        datagram::is_local(addr)
    }
}

fn path_of(addr: &UnixAddr) -> PathBuf {
    let path = addr.as_pathname().map(PathBuf::from);
    path.or_else(|| abstract_name(addr)).unwrap_or_default()
}

/// A name outside the file system, behind a NUL.
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
