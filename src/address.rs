//! Where a server listens and who the other side is.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A place to listen at or to connect to, or where a peer is.
///
/// Written and read as a URI: `tcp://127.0.0.1:9999`, `tcp://[::1]:9999`, `udp://127.0.0.1:0`,
/// `unix:///run/echo.sock`, `unixgram:///run/echo.dgram`. Parsing takes numeric hosts only and
/// never touches the network; [`Address::resolve`] also looks names up.
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
    /// A Unix stream socket by its path. A client that did not bind has an empty path.
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
        if !has_port(rest) {
            return Err(AddressError::new(text, "expected HOST:PORT").into());
        }
        let mut found: Vec<Self> = rest
            .to_socket_addrs()
            .map_err(|error| io::Error::new(error.kind(), format!("{text}: {error}")))?
            .map(make)
            .collect();
        found.dedup();
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
    text.split_once("://").ok_or_else(|| {
        AddressError::new(text, "no scheme, expected for example tcp://127.0.0.1:9999")
    })
}

fn has_port(rest: &str) -> bool {
    rest.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
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
    Ok(PathBuf::from(rest))
}

/// The most bytes that a path is displayed with; a socket's has at most 108, before escaping.
const SHOWN_MOST: usize = 256;

const CUT: &str = "...";

/// A path on one line, whatever is in it: a sender chooses its own.
struct Escaped<'a>(&'a Path);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = SHOWN_MOST;
        for chunk in self.0.as_os_str().as_encoded_bytes().utf8_chunks() {
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
