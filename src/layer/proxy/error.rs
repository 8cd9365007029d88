//! Why bytes are not a header of the PROXY protocol.

use std::error::Error;
use std::fmt;

use crate::error::ProtocolError;

/// The reason why bytes are not a PROXY header, or why a header cannot be written. Positions are
/// counted in bytes from the beginning of the header, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The bytes begin like no header of either version.
    Signature {
        /// Where the first byte is that fits neither version.
        position: usize,
        /// That byte.
        byte: u8,
    },
    /// A line of version 1 is wrong.
    Line {
        /// Where the field begins, or the byte is, that is wrong.
        position: usize,
        /// What was expected there.
        problem: &'static str,
    },
    /// The binary header states this version, and not 2.
    Version(u8),
    /// The binary header states this command, and not LOCAL (0) or PROXY (1).
    Command(u8),
    /// The binary header states this address family, and not UNSPEC (0), INET (1), INET6 (2) or
    /// UNIX (3).
    Family(u8),
    /// The binary header states this transport protocol, and not UNSPEC (0), STREAM (1) or DGRAM
    /// (2).
    Transport(u8),
    /// The length in the binary header has no room for the addresses of its family.
    Addresses {
        /// The stated length in bytes, without the first 16 bytes.
        length: usize,
        /// The length in bytes of the addresses.
        needed: usize,
    },
    /// A TLV is wrong.
    Tlv {
        /// Where the TLV begins.
        position: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The checksum in the header is not that of the header.
    Checksum {
        /// The checksum in the header.
        stated: u32,
        /// The checksum of the header.
        computed: u32,
    },
    /// The header states a length over the limit.
    TooLong {
        /// The stated length in bytes, with the first 16 bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The header that was asked for cannot be written, for this reason.
    Unencodable(&'static str),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Signature { position, byte } = self {
            return write!(
                f,
                "no PROXY header: unexpected byte 0x{byte:02x} at position {position}"
            );
        }

        f.write_str("PROXY header: ")?;
        match self {
            Self::Signature { .. } => Ok(()),
            Self::Line { position, problem } => write!(f, "{problem} at position {position}"),
            Self::Version(version) => write!(f, "version {version}, expected 2"),
            Self::Command(command) => write!(f, "command {command}, expected 0 or 1"),
            Self::Family(family) => write!(f, "address family {family}, expected 0 to 3"),
            Self::Transport(transport) => {
                write!(f, "transport protocol {transport}, expected 0 to 2")
            }
            Self::Addresses { length, needed } => {
                write!(f, "length {length}, but the addresses need {needed} bytes")
            }
            Self::Tlv { position, problem } => {
                write!(f, "TLV at position {position}: {problem}")
            }
            Self::Checksum { stated, computed } => {
                write!(f, "checksum {stated:08x}, expected {computed:08x}")
            }
            Self::TooLong { length, limit } => {
                write!(f, "{length} bytes, at most {limit} allowed")
            }
            Self::Unencodable(problem) => f.write_str(problem),
        }
    }
}

impl Error for ProxyError {}

/// Makes `?` work inside a protocol: a [`Malformed`](ProtocolError::Malformed) error with the text
/// of this one, whatever its kind.
impl From<ProxyError> for ProtocolError {
    fn from(error: ProxyError) -> Self {
        Self::malformed(error.to_string())
    }
}
