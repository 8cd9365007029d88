//! Where a server listens and who the other side is.

use std::borrow::Cow;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

/// A place to listen at or to connect to, or where a peer is.
///
/// Written and read as a URI: `tcp://127.0.0.1:9999`, `tcp://[::1]:9999`, `udp://127.0.0.1:0`,
/// `unix:///run/echo.sock`, `unixgram:///run/echo.dgram`. On Linux `unix://@NAME`, or `unix:@NAME`,
/// is a socket with a name outside the file system; a relative path that begins with `@` is written
/// `unix://./@NAME`. A path is taken as it is written, percent signs included. The interface of a
/// link-local address is a number, as in `tcp://[fe80::1%2]:9999`.
///
/// Parsing takes numeric hosts only and never touches the network; [`Address::resolve`] also looks
/// up names of hosts, and of interfaces as in `tcp://[fe80::1%eth0]:9999`.
///
/// ```
/// use serveloop::Address;
/// let address: Address = "tcp://127.0.0.1:9999".parse()?;
/// assert_eq!(address.to_string(), "tcp://127.0.0.1:9999");
/// # Ok::<(), serveloop::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP socket, IPv4 or IPv6. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A UDP socket, IPv4 or IPv6. Port 0 lets the system choose.
    Udp(SocketAddr),
    /// A Unix stream socket by its path. A client that did not bind has an empty path; a socket with
    /// a name outside the file system, which Linux has, a NUL and that name.
    Unix(PathBuf),
    /// A Unix datagram socket by its path. A sender that did not bind has an empty path; one with a
    /// name outside the file system, which Linux has, a NUL and that name.
    Unixgram(PathBuf),
}

impl Address {
    /// Reads an address, looking the host up where it is a name; one name can give several.
    ///
    /// # Errors
    /// `InvalidInput` where the text is no address, and what the resolver says of the name. The
    /// lookup blocks: call it before serving, not from a protocol.
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
            // What a file of hosts says twice is one address, also if not in a row.
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{text}: no address"),
            ));
        }
        Ok(found)
    }

    /// Whether messages are datagrams, each on its own, rather than one stream of bytes.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Unixgram(_))
    }

    /// The IP address and port, of TCP and UDP.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) | Self::Udp(addr) => Some(*addr),
            Self::Unix(_) | Self::Unixgram(_) => None,
        }
    }

    /// The path, of Unix sockets; empty for an unnamed one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::Unixgram(path) => Some(path),
            Self::Tcp(_) | Self::Udp(_) => None,
        }
    }
}

impl fmt::Display for Address {
    /// The URI. A path is escaped so that it stays on one line, whatever a peer called itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "tcp://{addr}"),
            Self::Udp(addr) => write!(f, "udp://{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", Escaped(path)),
            Self::Unixgram(path) => write!(f, "unixgram://{}", Escaped(path)),
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
            _ => Err(AddressError::new(
                text,
                "unknown scheme, expected tcp, udp, unix or unixgram",
            )),
        }
    }
}

/// Why a text is not an [`Address`]; the message names the text and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl AddressError {
    fn new(text: &str, problem: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            problem,
        }
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

/// The other side of a session, and by which listener it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    address: Address,
    listener: Option<u16>,
}

impl Peer {
    /// A peer at `address` that came in by the listener with that number (none: we connected).
    #[must_use]
    pub fn new(address: Address, listener: Option<u16>) -> Self {
        Self { address, listener }
    }

    /// Where the peer is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The listener that it came in by, counted from 0 in the order of binding; none for a
    /// connection that we opened.
    #[must_use]
    pub fn listener(&self) -> Option<usize> {
        self.listener.map(usize::from)
    }

    /// Whether this session is one datagram and its reply.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        self.address.is_datagram()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), AddressError> {
    let name = |(_, rest): &(&str, &str)| rest.starts_with('@');
    let short = || text.split_once(':').filter(name);
    text.split_once("://").or_else(short).ok_or_else(|| {
        AddressError::new(text, "no scheme, expected for example tcp://127.0.0.1:9999")
    })
}

/// The host and the port, if there are both. In brackets is an IPv6 address, whose interface may be
/// written by its name, after `%` as everywhere or after `%25` as in RFC 6874.
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

fn parse_path(text: &str, rest: &str) -> Result<PathBuf, AddressError> {
    if rest.is_empty() {
        return Err(AddressError::new(text, "no path"));
    }
    if rest.contains('\0') {
        return Err(AddressError::new(text, "a path cannot hold a NUL"));
    }
    match rest.strip_prefix('@') {
        Some("") if HAS_NAMES => Err(AddressError::new(text, "no name after the @")),
        Some(name) if HAS_NAMES => Ok(PathBuf::from(format!("\0{name}"))),
        _ => Ok(PathBuf::from(rest)),
    }
}

/// Whether Unix sockets can have names outside the file system.
const HAS_NAMES: bool = cfg!(target_os = "linux");

/// The most bytes that a path is displayed with; a socket's has at most 108, before escaping.
const SHOWN_MOST: usize = 256;

const CUT: &str = "...";

/// A path on one line, whatever is in it: a sender chooses its own.
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
