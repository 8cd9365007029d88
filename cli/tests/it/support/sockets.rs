//! What talks to a server: sockets as a client has them, and where they have their files.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::served::PATIENCE;

/// A stream connection as a client has it.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    #[track_caller]
    pub(crate) fn connect(uri: &str) -> Self {
        match split(uri) {
            ("tcp", _) => {
                let stream = TcpStream::connect(socket_addr(uri)).expect("a listener");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                Self::Tcp(stream)
            }
            ("unix", path) => {
                let stream = UnixStream::connect(path).expect("a listener");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                Self::Unix(stream)
            }
            _ => panic!("{uri} is no stream"),
        }
    }

    /// Our own address, as the server logs it.
    #[track_caller]
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(stream) => format!("tcp://{}", stream.local_addr().expect("a socket")),
            Self::Unix(_) => panic!("this client has no name"),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer().write_all(bytes).expect("an open connection");
    }

    /// Reads until the room is full or the stream ends, in whatever way. Returns how much came.
    pub(crate) fn read_some(&mut self, room: &mut [u8]) -> usize {
        let mut count = 0;
        while count < room.len() {
            match self.reader().read(&mut room[count..]) {
                Ok(more) if more > 0 => count += more,
                _ => break,
            }
        }
        count
    }

    /// Sends what the other side takes before it ends the connection.
    pub(crate) fn send_if_wanted(&mut self, text: &str) {
        let _ = self.writer().write_all(text.as_bytes());
    }

    /// Whether an echo serves us, rather than refuse us.
    pub(crate) fn echoes(&mut self) -> bool {
        self.send_if_wanted("?");
        self.reader().read_exact(&mut [0]).is_ok()
    }

    /// Waits for exactly `text`.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.receive(text.len()), text);
    }

    /// Waits for exactly `count` bytes of text.
    #[track_caller]
    pub(crate) fn receive(&mut self, count: usize) -> String {
        let mut found = vec![0; count];
        self.reader()
            .read_exact(&mut found)
            .expect("this many bytes");
        String::from_utf8_lossy(&found).into_owned()
    }

    /// Waits for a line, whose end is not given, and takes nothing beyond it.
    #[track_caller]
    pub(crate) fn receive_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::with_capacity(1, self.reader())
            .read_line(&mut line)
            .expect("a line of text");
        line.strip_suffix('\n').expect("a whole line").to_owned()
    }

    /// Ends the connection by a reset.
    #[track_caller]
    pub(crate) fn reset(self) {
        match self {
            Self::Tcp(stream) => socket2::SockRef::from(&stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .expect("an open connection"),
            Self::Unix(_) => panic!("this kind is never reset"),
        }
    }

    /// Ends our side.
    #[track_caller]
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
        .expect("an open connection");
    }

    /// Waits for the orderly end, before which nothing more comes.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.receive_rest()), "");
    }

    /// Waits for the orderly end, and returns what comes before it.
    #[track_caller]
    pub(crate) fn receive_rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.reader()
            .read_to_end(&mut rest)
            .expect("an orderly end");
        rest
    }

    /// Waits for the end, orderly or by a reset, before which nothing more comes.
    #[track_caller]
    pub(crate) fn expect_cut(&mut self) {
        match self.reader().read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

/// A datagram socket as a client has it.
pub(crate) enum Datagrams {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Datagrams {
    /// A socket that talks to `uri`; one that needs a path has it in `directory`.
    #[track_caller]
    pub(crate) fn connect(uri: &str, directory: &Directory) -> Self {
        match split(uri) {
            ("udp", _) => {
                let server = socket_addr(uri);
                let any = SocketAddr::new(server.ip(), 0);
                let socket = UdpSocket::bind(any).expect("a port");
                socket.connect(server).expect("a route");
                socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
                Self::Udp(socket)
            }
            ("unixgram", path) => {
                let socket = UnixDatagram::bind(directory.path("client")).expect("a free path");
                socket.connect(path).expect("a server");
                socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
                Self::Unix(socket)
            }
            _ => panic!("{uri} has no datagrams"),
        }
    }

    #[track_caller]
    pub(crate) fn send(&self, text: &str) {
        let sent = match self {
            Self::Udp(socket) => socket.send(text.as_bytes()),
            Self::Unix(socket) => socket.send(text.as_bytes()),
        };
        assert_eq!(sent.expect("a server"), text.len());
    }

    /// Waits for one datagram, which must be `text`.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        let mut buffer = [0; 65_536];
        let received = match self {
            Self::Udp(socket) => socket.recv(&mut buffer),
            Self::Unix(socket) => socket.recv(&mut buffer),
        };
        let count = received.expect("a datagram");
        assert_eq!(String::from_utf8_lossy(&buffer[..count]), text);
    }
}

/// A directory for one test's sockets and files, with a short name because a socket's path is short.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("serveloop-{}-{number}", process::id()));
        fs::create_dir(&path).expect("a new name");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn uri(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}", self.path(name).display())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left in the directory for temporary files is lost sooner or later.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A place for a process to write to that takes no more, and the end to read it from.
pub(crate) fn clogged() -> (UnixStream, Stdio) {
    let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
    theirs.set_nonblocking(true).expect("a socket");
    while theirs.write(&[b'.'; 4_096]).is_ok() {}
    theirs.set_nonblocking(false).expect("a socket");
    (ours, Stdio::from(OwnedFd::from(theirs)))
}

/// The path of a `unix` or `unixgram` URI.
#[track_caller]
pub(crate) fn path_of(uri: &str) -> &Path {
    Path::new(split(uri).1)
}

/// The address of a `tcp` or `udp` URI.
#[track_caller]
pub(crate) fn socket_addr(uri: &str) -> SocketAddr {
    split(uri).1.parse().expect("an address and a port")
}

#[track_caller]
fn split(uri: &str) -> (&str, &str) {
    uri.split_once("://").expect("a scheme")
}
