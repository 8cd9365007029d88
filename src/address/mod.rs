//! Addresses of servers and peers, networks of them, and what to listen on.
//!
//! An [`Address`] says where, a [`Listen`] says where and how, and a [`Target`] is what a connection is
//! opened to. All are values that are parsed from text and displayed as text. What their options do to a socket belongs to `net`.
//!
//! This room imports nothing but the standard library, and opens no socket. Only
//! [`Address::resolve`] asks the system, for the addresses of a name. A `Listen` may carry a socket
//! that another program opened, and does nothing with it.

mod handed_connection;
mod listen;
mod listen_options;
mod network;
mod packet;
mod passed_socket;
mod percent;
mod target;
mod units;
mod vsock;

pub use self::handed_connection::HandedConnection;
pub(crate) use self::handed_connection::Talk;
pub use self::listen::Listen;
pub(crate) use self::listen_options::{KEEPALIVE_MOST, MODE_MOST, TTL_MOST, is_group};
pub use self::listen_options::{ListenOptions, OtherOptions};
pub use self::network::{IpNetwork, NetworkError, NetworkList};
pub use self::packet::{Ecn, PacketInfo};
pub(crate) use self::passed_socket::{Former, PassedSocket};
pub use self::passed_socket::{NotASocketFileId, SocketFileId};
pub use self::target::Target;
pub(crate) use self::target::interleaved;
pub use self::vsock::{VsockAddr, VsockAddrError};

use std::borrow::Cow;
use std::ffi::OsStr;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

/// An address to listen on or to connect to, or the address of a peer.
///
/// It is parsed from a URI and displayed as one: `tcp://127.0.0.1:9999`, `tcp://[::1]:9999`,
/// `udp://127.0.0.1:0`, `unix:///run/echo.sock`, `unixgram:///run/echo.dgram`. On Linux,
/// `unix://@NAME` or `unix:@NAME` is a socket whose name is outside the file system. A relative
/// path that begins with `@` is written `unix://./@NAME`. `vsock://CID:PORT` is between a virtual machine
/// and its host, on Linux, and `vsock://:PORT` listens for all machines. Percent signs in a path have no special
/// meaning. The interface of a link-local address is a number, as in `tcp://[fe80::1%2]:9999`.
///
/// Parsing accepts only numeric hosts and never uses the network. [`Address::resolve`] also looks
/// up the names of hosts, and of interfaces as in `tcp://[fe80::1%eth0]:9999`. An address has no
/// options: a question mark in a path is part of the path. Options belong to a [`Listen`].
///
/// ```
/// use serveloop::Address;
/// let address: Address = "tcp://127.0.0.1:9999".parse()?;
/// assert_eq!(address.to_string(), "tcp://127.0.0.1:9999");
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP socket, IPv4 or IPv6. With port 0 the system chooses a port.
    Tcp(SocketAddr),
    /// A UDP socket, IPv4 or IPv6. With port 0 the system chooses a port.
    Udp(SocketAddr),
    /// A Unix stream socket. The path is empty for a client that did not bind. For a Linux socket
    /// with a name outside the file system, it is a NUL followed by the name.
    Unix(PathBuf),
    /// A Unix datagram socket. The path is empty for a sender that did not bind. For a Linux socket
    /// with a name outside the file system, it is a NUL followed by the name.
    Unixgram(PathBuf),
    /// A stream between a virtual machine and its host, on Linux.
    Vsock(VsockAddr),
}

impl Address {
    /// Parses an address and, if the host is a name, looks it up. One name can have several
    /// addresses.
    ///
    /// This blocks during the lookup. Call it before serving, not from a protocol.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the text is not an address, `NotFound` if the name has no address,
    /// and the resolver's error if the lookup fails.
    pub fn resolve(text: &str) -> io::Result<Vec<Self>> {
        let error: AddressError = match text.parse() {
            Ok(address) => return Ok(vec![address]),
            Err(error) => error,
        };

        let (scheme, rest) = split_scheme(text)?;
        let make = match scheme {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return Err(error.into()),
        };

        let Some((host, port)) = split_port(rest) else {
            return Err(AddressError::new(text, "expected HOST:PORT").into());
        };

        let mut found: Vec<Self> = Vec::new();
        for addr in (&*host, port)
            .to_socket_addrs()
            .map_err(|error| io::Error::new(error.kind(), format!("{text}: {error}")))?
        {
            let address = make(addr);
            // A hosts file may list the same address twice, and not always in a row.
            if !found.contains(&address) {
                found.push(address);
            }
        }

        if found.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{text}: the name has no address"),
            ));
        }
        Ok(found)
    }

    /// Returns whether the address is that of a datagram socket rather than of a stream socket.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Unixgram(_))
    }

    /// Returns the IP address and port of a TCP or UDP address.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) | Self::Udp(addr) => Some(*addr),
            Self::Unix(_) | Self::Unixgram(_) | Self::Vsock(_) => None,
        }
    }

    /// Returns the path of a Unix address. It is empty for an unnamed socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::Unixgram(path) => Some(path),
            Self::Tcp(_) | Self::Udp(_) | Self::Vsock(_) => None,
        }
    }
}

impl fmt::Display for Address {
    /// Writes the URI. A path is escaped so that it stays on one line, whatever name a peer chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
            Self::Udp(addr) => write!(f, "udp://{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", Escaped(path)),
            Self::Unixgram(path) => write!(f, "unixgram://{}", Escaped(path)),
            Self::Vsock(addr) => write!(f, "vsock://{addr}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = split_scheme(text)?;
        match scheme {
            "tcp" => parse_ip(text, rest).map(Self::Tcp),
            "udp" => parse_ip(text, rest).map(Self::Udp),
            "unix" => parse_path(text, rest).map(Self::Unix),
            "unixgram" => parse_path(text, rest).map(Self::Unixgram),
            "vsock" => {
                let addr = rest.parse().map(Self::Vsock);
                addr.map_err(|_| AddressError::new(text, VsockAddrError::PROBLEM))
            }
            _ => Err(AddressError::new(
                text,
                "unknown scheme, expected tcp, udp, unix, unixgram or vsock",
            )),
        }
    }
}

/// The reason why a text is not an [`Address`] or a [`Listen`], or why the options of a [`Listen`]
/// do not fit its address. The message holds the text and the problem.
///
/// ```
/// use serveloop::Address;
///
/// let error = "http://127.0.0.1".parse::<Address>().unwrap_err();
/// assert!(error.to_string().contains("unknown scheme"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: Cow<'static, str>,
}

impl AddressError {
    fn new(text: &str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.to_owned(),
            problem: problem.into(),
        }
    }

    /// Returns the same problem with `text`, of which only a part was parsed.
    fn of(self, text: &str) -> Self {
        Self::new(text, self.problem)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.text, self.problem)
    }
}

impl std::error::Error for AddressError {}

impl From<AddressError> for io::Error {
    fn from(error: AddressError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Who the peer of a Unix stream is, as the system knows it: the user, the group and the process
/// that connected, or that listened if this process connected. What the process became later does
/// not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process. `None` if the system does not tell, or if the process cannot be seen from this
    /// one's namespace.
    pub pid: Option<u32>,
}

impl Credentials {
    /// Creates credentials, for tests and for drivers.
    #[must_use]
    pub fn new(uid: u32, gid: u32, pid: Option<u32>) -> Self {
        Self { uid, gid, pid }
    }
}

/// The peer of a session: where it is, which listener accepted it, and the connection's number.
///
/// Peers are equal if they have the same address, listener and proxy, whichever connection they are
/// of. The [`id`](Self::id) tells connections apart.
///
/// ```
/// use serveloop::Peer;
///
/// let peer = |id| Ok::<_, serveloop::net::AddressError>(Peer::new("unix:///run/a.sock".parse()?, Some(0)).with_id(id));
/// let (one, other) = (peer(7)?, peer(8)?);
/// assert_eq!(one, other);
/// assert_ne!(one.id(), other.id());
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Clone)]
pub struct Peer {
    place: Place,
    /// The id, and in the lower [`LISTENER_BITS`] the listener's number plus one, or 0 for none.
    /// Every idle connection stores it.
    numbers: u64,
}

/// Where a peer is. No larger than an address, because every idle connection stores it.
#[derive(Clone)]
enum Place {
    Direct(Address),
    Behind(Box<Proxied>),
}

/// A client, and the proxy that named it.
#[derive(Clone)]
struct Proxied {
    client: Address,
    proxy: Address,
}

/// One bit more than a listener's number has.
const LISTENER_BITS: u32 = 17;
const LISTENER_MASK: u64 = (1 << LISTENER_BITS) - 1;

impl Peer {
    /// Creates a peer at `address`, accepted by the listener with that number. `None` means that
    /// this process opened the connection. Its id is 0, which no connection of a server has.
    #[must_use]
    pub fn new(address: Address, listener: Option<u16>) -> Self {
        let numbers = listener.map_or(0, |listener| u64::from(listener) + 1);
        let place = Place::Direct(address);
        Self { place, numbers }
    }

    /// Returns the same peer with the connection's number, which has at most 47 bits; higher ones
    /// are dropped. A driver calls this once for each session.
    #[must_use]
    pub fn with_id(mut self, id: u64) -> Self {
        self.numbers = id << LISTENER_BITS | (self.numbers & LISTENER_MASK);
        self
    }

    /// Returns the number of the connection or datagram. No other one that this process accepts,
    /// opens or receives has the same number, on whichever loop, thread or forked process it is
    /// served. Later connections have greater numbers, with gaps. Lines of the log have it as the
    /// key `id`.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.numbers >> LISTENER_BITS
    }

    /// Returns the peer's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        match &self.place {
            Place::Direct(address) => address,
            Place::Behind(proxied) => &proxied.client,
        }
    }

    /// Returns the number of the listener that accepted the peer, counted from 0 in the order of
    /// binding. `None` means that this process opened the connection.
    #[must_use]
    pub fn listener(&self) -> Option<usize> {
        let number = usize::try_from(self.numbers & LISTENER_MASK).ok()?;
        number.checked_sub(1)
    }

    /// Returns the address of the proxy that the connection comes from, if one has named the peer
    /// as its client. [`address`](Self::address) is the client's then.
    #[must_use]
    pub fn via(&self) -> Option<&Address> {
        match &self.place {
            Place::Direct(_) => None,
            Place::Behind(proxied) => Some(&proxied.proxy),
        }
    }

    /// Names `client` as the one that this peer is a proxy for. The address so far is the proxy's
    /// if drivers know it (`is_known`), and otherwise only the one before it.
    pub(crate) fn stand_for(&mut self, client: Address, is_known: bool) {
        let proxy = match self.via() {
            _ if is_known => Some(self.address()),
            earlier => earlier,
        };
        self.place = match proxy.cloned() {
            Some(proxy) => Place::Behind(Box::new(Proxied { client, proxy })),
            None => Place::Direct(client),
        };
    }

    /// Returns the peer as it was before a proxy named its client.
    pub(crate) fn before(&self) -> Option<Self> {
        let place = Place::Direct(self.via()?.clone());
        let numbers = self.numbers;
        Some(Self { place, numbers })
    }

    /// Returns whether this session is one datagram and its reply.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        self.address().is_datagram()
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        (self.address(), self.via(), self.listener())
            == (other.address(), other.via(), other.listener())
    }
}

impl Eq for Peer {}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("address", self.address())
            .field("via", &self.via())
            .field("listener", &self.listener())
            .field("id", &self.id())
            .finish()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), AddressError> {
    let name = |(_, rest): &(&str, &str)| rest.starts_with('@');
    let short = || text.split_once(':').filter(name);
    text.split_once("://").or_else(short).ok_or_else(|| {
        AddressError::new(text, "no scheme, expected for example tcp://127.0.0.1:9999")
    })
}

/// Splits `rest` into host and port, if it has both. An IPv6 address is in brackets. Its interface
/// may be a name, which follows `%` as usual or `%25` as in RFC 6874.
fn split_port(rest: &str) -> Option<(Cow<'_, str>, u16)> {
    let (host, port) = rest.rsplit_once(':')?;
    let port = port.parse().ok()?;

    let inner = host.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    let host = match inner {
        None => Cow::Borrowed(host),
        Some(inner) => {
            let ip = inner.filter(|inner| inner.contains(':'))?;
            match ip.split_once("%25") {
                Some((ip, zone)) => Cow::Owned(format!("{ip}%{zone}")),
                None => Cow::Borrowed(ip),
            }
        }
    };

    (!host.is_empty()).then_some((host, port))
}

fn parse_ip(text: &str, rest: &str) -> Result<SocketAddr, AddressError> {
    rest.parse().map_err(|_| {
        AddressError::new(
            text,
            "expected IP:PORT, for example 127.0.0.1:9999 or [::1]:9999",
        )
    })
}

fn check_path(text: &str, path: &str) -> Result<(), AddressError> {
    if path.is_empty() {
        return Err(AddressError::new(text, "no path"));
    }
    if path.contains('\0') {
        return Err(AddressError::new(text, "a path cannot contain a NUL"));
    }
    Ok(())
}

fn parse_path(text: &str, rest: &str) -> Result<PathBuf, AddressError> {
    check_path(text, rest)?;
    match rest.strip_prefix('@') {
        Some("") if HAS_NAMES => Err(AddressError::new(text, "no name after the @")),
        Some(name) if HAS_NAMES => Ok(PathBuf::from(format!("\0{name}"))),
        _ => Ok(PathBuf::from(rest)),
    }
}

/// Returns the path of a Unix socket whose `sun_path` is `field`, filled up with NULs: the path up
/// to the first NUL, or a name outside the file system behind a NUL. It is empty for an unnamed
/// socket.
pub(crate) fn unix_path(field: &[u8]) -> PathBuf {
    let name = match field.first() {
        Some(0) => {
            let last = field.iter().rposition(|byte| *byte != 0);
            &field[..last.map_or(0, |last| last + 1)]
        }
        _ => field.split(|byte| *byte == 0).next().unwrap_or_default(),
    };
    OsStr::from_bytes(name).into()
}

/// Whether Unix sockets can have names outside the file system.
const HAS_NAMES: bool = cfg!(target_os = "linux");

/// Returns whether a path is a name outside the file system, which goes away with its socket.
pub(crate) fn is_name(path: &Path) -> bool {
    HAS_NAMES && path.as_os_str().as_encoded_bytes().starts_with(b"\0")
}

/// The most bytes of a displayed path. The path of a socket has at most 108 before escaping.
const SHOWN_MOST: usize = 256;

const CUT: &str = "...";

/// A path displayed on one line, whatever bytes it has. A sender chooses its own path.
struct Escaped<'a>(&'a Path);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = SHOWN_MOST;
        let mut bytes = self.0.as_os_str().as_encoded_bytes();
        if HAS_NAMES {
            if let Some(name) = bytes.strip_prefix(b"\0") {
                f.write_str("@")?;
                bytes = name;
            } else if bytes.starts_with(b"@") {
                f.write_str("./")?;
            }
        }

        for chunk in bytes.utf8_chunks() {
            let valid = chunk.valid().chars();
            let valid = valid.map(|next| next.escape_debug().to_string());
            let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            for piece in valid.chain(invalid) {
                if piece.len() + CUT.len() > room {
                    return f.write_str(CUT);
                }
                room -= piece.len();
                f.write_str(&piece)?;
            }
        }
        Ok(())
    }
}
