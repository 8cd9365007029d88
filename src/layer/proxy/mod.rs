//! The PROXY protocol, versions 1 and 2: reads and writes the header in which a load balancer or
//! proxy states the addresses of the client's connection.
//!
//! A server behind HAProxy, nginx or a cloud's load balancer sees the balancer as the peer of every
//! connection. If the balancer is told to (`send-proxy-v2` in HAProxy, `proxy_protocol on` in
//! nginx), it sends one header before the client's first byte. [`Header::parse`] reads it from the
//! front of what arrived: [`Header::source`] is the client, and what follows the header is the
//! client's.
//!
//! ```
//! use serveloop::layer::proxy::Header;
//!
//! let data = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nhello";
//! let (header, length) = Header::parse(data)?.expect("a whole header");
//! assert_eq!(header.source().unwrap().to_string(), "tcp://192.0.2.7:56324");
//! assert_eq!(&data[length..], b"hello");
//!
//! // A part of a header is no error: wait for more.
//! assert_eq!(Header::parse(&data[..10])?, None);
//! // Anything else is an error at its first wrong byte.
//! let error = Header::parse(b"GET / HTTP/1.1\r\n").unwrap_err();
//! assert_eq!(error.to_string(), "no PROXY header: unexpected byte 0x47 at position 0");
//! # Ok::<(), serveloop::layer::proxy::ProxyError>(())
//! ```
//!
//! # Trust
//! **A header is a claim that every client can make.** A client that can reach the server without
//! the balancer could write a header of its own, and with it the address that logs, access lists
//! and limits per peer see. So two rules hold (sections 2 and 5 of the specification):
//!
//! - Read a header only from a peer that you trust: compare the address of the *connection*, not
//!   that of the header, with a list such as [`NetworkList`](crate::net::NetworkList). Do not read
//!   one from other peers, not even to ignore it.
//! - Do not guess whether there is a header. A listener that expects headers from its trusted peers
//!   closes a connection of theirs that has none. "If it looks like a header, it is one" lets the
//!   clients behind a proxy that sends no headers choose their addresses.
//!
//! The checksum of version 2 protects from damage, not from forgery.
//!
//! ```
//! use serveloop::layer::proxy::{Header, ProxyError};
//! use serveloop::{Address, net::NetworkList};
//!
//! /// Returns the client behind `peer`, and how many bytes of `data` its header has.
//! fn client(
//!     peer: &Address,
//!     data: &[u8],
//!     trusted: &NetworkList,
//! ) -> Result<Option<(Address, usize)>, ProxyError> {
//!     if !trusted.contains(peer) {
//!         return Ok(Some((peer.clone(), 0)));
//!     }
//!     let header = Header::parse(data)?;
//!     Ok(header.map(|(header, length)| (header.source().unwrap_or(peer).clone(), length)))
//! }
//!
//! let trusted = "10.0.0.0/8".parse()?;
//! let data = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nhello";
//!
//! let balancer = "tcp://10.0.0.1:4711".parse()?;
//! let (address, length) = client(&balancer, data, &trusted)?.unwrap();
//! assert_eq!((address.to_string().as_str(), length), ("tcp://192.0.2.7:56324", 45));
//!
//! let stranger = "tcp://203.0.113.5:4711".parse()?;
//! let (address, length) = client(&stranger, data, &trusted)?.unwrap();
//! assert_eq!((address, length), (stranger, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Source
//! The specification is [`doc/proxy-protocol.txt`][spec] of HAProxy. "Section" in this module is a
//! section there.
//!
//! [spec]: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

mod binary;
pub(crate) mod checksum;
mod error;
mod preface;
mod text;
pub mod tlv;

pub use self::error::ProxyError;
pub use self::preface::{Proxy, Reader};
pub use self::tlv::{Ssl, Tlvs};

use std::borrow::Cow;

use crate::address::Address;

/// The most bytes of a header that [`Header::parse`] accepts: 4 KiB, as nginx does
/// (`NGX_PROXY_PROTOCOL_MAX_HEADER`). Without TLVs a header has at most 232 bytes. A client
/// certificate in a TLV can need more; see [`Header::parse_within`].
pub const DEFAULT_LIMIT: usize = 4096;

/// The most bytes that a header can have: 16 and the greatest length that version 2 can state
/// (section 2.2).
pub const LIMIT_MOST: usize = binary::FIXED + u16::MAX as usize;

/// The format of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text (section 2.1), at most 107 bytes.
    V1,
    /// Binary, with room for TLVs (section 2.2).
    V2,
}

/// What a header says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The proxy opened the connection itself, for example to check the server's health. The
    /// addresses of the connection are the true ones.
    Local,
    /// The proxy relays a connection of a client. Every header of version 1 says so.
    Proxy,
}

/// A header of the PROXY protocol.
///
/// A parsed header borrows its TLVs from the bytes that it was parsed from, and parsing allocates
/// nothing but the paths of Unix sockets. [`into_owned`](Self::into_owned) makes one to keep.
///
/// A proxy builds a header and writes it before anything else, in one call:
///
/// ```
/// use serveloop::layer::proxy::{Header, tlv};
///
/// let client = "tcp://[2001:db8::7]:56324".parse()?;
/// let server = "tcp://[2001:db8::1]:443".parse()?;
/// let header = Header::proxied(client, server)?
///     .with_tlv(tlv::AUTHORITY, b"example.com")?
///     .with_checksum()?;
///
/// let mut output = Vec::new();
/// header.encode_v2(&mut output);
/// let (parsed, length) = Header::parse(&output)?.expect("a whole header");
/// assert_eq!(parsed.authority(), Some("example.com"));
/// assert_eq!(length, output.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    version: Version,
    command: Command,
    /// Source and destination, of the same kind. None if the connection's own ones are meant.
    addresses: Option<(Address, Address)>,
    /// Well-formed TLVs.
    tlvs: Cow<'a, [u8]>,
}

impl<'a> Header<'a> {
    /// Parses the header at the front of `data`, in either version, of at most [`DEFAULT_LIMIT`]
    /// bytes. Returns it and its length, or `None` if more bytes are needed.
    ///
    /// The result does not depend on how the bytes arrived: what can be the beginning of a header
    /// is `None`, and what cannot is an error, as early as its first wrong byte is known. Fields of
    /// version 1 are judged when their line is complete (section 2.1), and TLVs when the header is.
    ///
    /// Call it with everything that arrived so far, each time from the beginning. The session's
    /// limits (`max_frame`, `first_message_timeout`) bound how long a peer can take.
    ///
    /// # Errors
    /// Fails if `data` is no header, or if the header breaks a rule of the specification. The
    /// connection then has to be closed (sections 2.1 and 2.2.3). Nothing of it may be served.
    pub fn parse(data: &'a [u8]) -> Result<Option<(Self, usize)>, ProxyError> {
        Self::parse_within(data, DEFAULT_LIMIT)
    }

    /// Works like [`parse`](Self::parse) for headers of at most `limit` bytes. The limit concerns
    /// version 2, and is known to be exceeded after 16 bytes. A header of version 1 has at most 107
    /// bytes. A limit above [`LIMIT_MOST`] is no limit.
    ///
    /// # Errors
    /// Fails like [`parse`](Self::parse), and with [`ProxyError::TooLong`] for a header that states
    /// a greater length.
    pub fn parse_within(data: &'a [u8], limit: usize) -> Result<Option<(Self, usize)>, ProxyError> {
        match data.first() {
            None => Ok(None),
            Some(b'P') => text::parse(data),
            Some(b'\r') => binary::parse(data, limit),
            Some(byte) => Err(ProxyError::Signature {
                position: 0,
                byte: *byte,
            }),
        }
    }

    /// Returns the version in which the header was parsed. A header that was built is of version 2
    /// until it is written.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns what the header says about its connection.
    #[must_use]
    pub fn command(&self) -> Command {
        self.command
    }

    /// Returns the address of the client, if the header states it. Otherwise use the address of the
    /// connection's peer. That concerns the command LOCAL, and clients whose address the proxy does
    /// not know or cannot state (UNKNOWN in version 1, UNSPEC in version 2).
    ///
    /// The address is only as true as the proxy is trusted.
    #[must_use]
    pub fn source(&self) -> Option<&Address> {
        self.addresses.as_ref().map(|(source, _)| source)
    }

    /// Returns the address that the client connected to, if the header states it. It is of the same
    /// kind as the [source](Self::source).
    #[must_use]
    pub fn destination(&self) -> Option<&Address> {
        let addresses = self.addresses.as_ref();
        addresses.map(|(_, destination)| destination)
    }

    /// Returns the TLVs in their order, which are further facts that a proxy states in version 2.
    #[must_use]
    pub fn tlvs(&self) -> Tlvs<'_> {
        Tlvs::new(&self.tlvs)
    }

    /// Returns the value of the first TLV of a type, such as [`tlv::ALPN`].
    #[must_use]
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find(kind)
    }

    /// Returns the application protocol that the client negotiated with the proxy (section 2.2.1).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(tlv::ALPN)
    }

    /// Returns the host name that the client asked for, usually in its TLS handshake (section
    /// 2.2.2). The name is the client's choice. A value that is not UTF-8 counts as none.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.tlvs().find_text(tlv::AUTHORITY)
    }

    /// Returns the proxy's identifier of the connection, of at most 128 bytes (section 2.2.5).
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(tlv::UNIQUE_ID)
    }

    /// Returns what the proxy knows of the client's TLS connection (section 2.2.6).
    #[must_use]
    pub fn ssl(&self) -> Option<Ssl<'_>> {
        self.tlv(tlv::SSL).and_then(Ssl::new)
    }

    /// Returns the name of the client's network namespace (section 2.2.7). A value that is not
    /// UTF-8 counts as none.
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        self.tlvs().find_text(tlv::NETNS)
    }

    /// Copies the TLVs, so that the header can be kept when the bytes that it was parsed from are
    /// gone.
    #[must_use]
    pub fn into_owned(self) -> Header<'static> {
        Header {
            version: self.version,
            command: self.command,
            addresses: self.addresses,
            tlvs: Cow::Owned(self.tlvs.into_owned()),
        }
    }
}

/// Building and writing headers.
impl<'a> Header<'a> {
    /// Creates the header of a connection that the proxy opened for itself.
    #[must_use]
    pub fn local() -> Self {
        Self::new(Command::Local, None)
    }

    /// Creates the header of a relayed connection of which the proxy does not state the addresses.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(Command::Proxy, None)
    }

    /// Creates the header of a relayed connection: from the client at `source` to `destination`.
    /// The interface of a link-local address is not carried.
    ///
    /// # Errors
    /// Fails if one address is of another kind than the other (TCP, UDP, Unix stream, Unix
    /// datagram) or of another IP version, and if the path of a Unix socket has more than 108 bytes
    /// or cannot be told from another one by its bytes.
    pub fn proxied(source: Address, destination: Address) -> Result<Self, ProxyError> {
        binary::check_addresses(&source, &destination)?;
        Ok(Self::new(Command::Proxy, Some((source, destination))))
    }

    fn new(command: Command, addresses: Option<(Address, Address)>) -> Self {
        Self {
            version: Version::V2,
            command,
            addresses,
            tlvs: Cow::default(),
        }
    }

    /// Adds a TLV. Types from 0xE0 to 0xEF are for applications (section 2.2.8).
    ///
    /// # Errors
    /// Fails if the value is not what its type asks for, if the header would be longer than
    /// [`LIMIT_MOST`], for [`tlv::CRC32C`], which [`with_checksum`](Self::with_checksum) adds, and
    /// if the command is LOCAL, whose receivers ignore everything after the first 16 bytes (section
    /// 2.2).
    pub fn with_tlv(self, kind: u8, value: &[u8]) -> Result<Self, ProxyError> {
        if kind == tlv::CRC32C {
            return Err(ProxyError::Unencodable("a checksum is computed, not given"));
        }
        self.appended(kind, value)
    }

    /// Adds a checksum of the whole header (section 2.2.3). It is computed when the header is
    /// written.
    ///
    /// # Errors
    /// Fails if the header has a checksum, and like [`with_tlv`](Self::with_tlv).
    pub fn with_checksum(self) -> Result<Self, ProxyError> {
        self.appended(tlv::CRC32C, &[0; 4])
    }

    fn appended(mut self, kind: u8, value: &[u8]) -> Result<Self, ProxyError> {
        if self.command == Command::Local {
            return Err(ProxyError::Unencodable("a LOCAL header has no TLVs"));
        }

        let length = binary::addresses_length(self.addresses.as_ref());
        let room = usize::from(u16::MAX) - length;
        if self.tlvs.len() + tlv::FIXED + value.len() > room {
            return Err(ProxyError::Unencodable("the TLVs are too long"));
        }

        let tlvs = self.tlvs.to_mut();
        tlv::push(tlvs, kind, value);
        tlv::check(tlvs, binary::FIXED + length)?;
        Ok(self)
    }

    /// Appends the header to `output` in version 1. Connections that this version cannot describe,
    /// which are those that are not TCP and those of the command LOCAL, become `PROXY UNKNOWN`
    /// (section 2.1).
    ///
    /// # Errors
    /// Fails if the header has TLVs, which version 1 cannot carry. Nothing is written then.
    pub fn encode_v1(&self, output: &mut Vec<u8>) -> Result<(), ProxyError> {
        if !self.tlvs.is_empty() {
            return Err(ProxyError::Unencodable("version 1 has no TLVs"));
        }
        text::write(self.addresses.as_ref(), output);
        Ok(())
    }

    /// Appends the header to `output` in version 2, with its checksum if it has one.
    pub fn encode_v2(&self, output: &mut Vec<u8>) {
        binary::write(self, output);
    }
}

/// Removes `expected` from the front of `data`. Returns `None` if `data` ends before that.
///
/// # Errors
/// Fails with the position of the first byte that differs.
fn strip<'a>(data: &'a [u8], expected: &[u8]) -> Result<Option<&'a [u8]>, usize> {
    let same = data
        .iter()
        .zip(expected)
        .take_while(|(is, should)| is == should)
        .count();
    match data.get(same) {
        _ if same == expected.len() => Ok(Some(&data[same..])),
        None => Ok(None),
        Some(_) => Err(same),
    }
}

/// Like [`strip`], for the bytes that every header of a version begins with.
fn strip_signature<'a>(data: &'a [u8], expected: &[u8]) -> Result<Option<&'a [u8]>, ProxyError> {
    strip(data, expected).map_err(|position| ProxyError::Signature {
        position,
        byte: data[position],
    })
}
