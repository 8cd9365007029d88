//! TLVs: the further facts that a header of version 2 states, each with a type, a length and a
//! value (sections 2.2 and 2.2.1 to 2.2.8).
//!
//! The constants are the registered types. Those whose names begin with `SSL_` occur inside a
//! [`SSL`] TLV only. Types from 0xE0 to 0xEF are for applications, and clouds use some of them.

use std::iter::FusedIterator;
use std::str;

use super::ProxyError;

/// The application protocol, as in TLS.
pub const ALPN: u8 = 0x01;
/// The host name that the client asked for, in UTF-8.
pub const AUTHORITY: u8 = 0x02;
/// A checksum of the header, in 4 bytes.
pub const CRC32C: u8 = 0x03;
/// Padding, to be ignored.
pub const NOOP: u8 = 0x04;
/// An identifier of the connection, of at most [`UNIQUE_ID_MOST`] bytes.
pub const UNIQUE_ID: u8 = 0x05;
/// The client's TLS connection: see [`Ssl`].
pub const SSL: u8 = 0x20;
/// The name of the client's network namespace, in ASCII.
pub const NETNS: u8 = 0x30;

/// In a [`SSL`] TLV: the version of TLS, in ASCII.
pub const SSL_VERSION: u8 = 0x21;
/// In a [`SSL`] TLV: the Common Name of the client's certificate, in UTF-8.
pub const SSL_CN: u8 = 0x22;
/// In a [`SSL`] TLV: the name of the cipher, in ASCII.
pub const SSL_CIPHER: u8 = 0x23;
/// In a [`SSL`] TLV: the algorithm that signed the proxy's certificate, in ASCII.
pub const SSL_SIG_ALG: u8 = 0x24;
/// In a [`SSL`] TLV: the algorithm of the key of the proxy's certificate, in ASCII.
pub const SSL_KEY_ALG: u8 = 0x25;
/// In a [`SSL`] TLV: the group of the key exchange, in ASCII.
pub const SSL_GROUP: u8 = 0x26;
/// In a [`SSL`] TLV: the scheme of the handshake's signature, in ASCII.
pub const SSL_SIG_SCHEME: u8 = 0x27;
/// In a [`SSL`] TLV: the client's certificate, in DER.
pub const SSL_CLIENT_CERT: u8 = 0x28;

/// The most bytes of a [`UNIQUE_ID`] (section 2.2.5).
pub const UNIQUE_ID_MOST: usize = 128;

/// The bytes of a TLV before its value: the type, and the length in two bytes.
pub(super) const FIXED: usize = 3;

/// The bytes of a checksum.
pub(super) const CHECKSUM_LENGTH: usize = 4;

/// The bytes of a [`SSL`] TLV before its own TLVs.
const SSL_FIXED: usize = 5;

/// An iterator over TLVs as (type, value), in their order. A type can occur several times.
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

impl<'a> Tlvs<'a> {
    /// Reads `bytes` up to their end, or up to what is not a whole TLV.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn find(mut self, kind: u8) -> Option<&'a [u8]> {
        self.find_map(|(other, value)| (other == kind).then_some(value))
    }

    pub(super) fn find_text(self, kind: u8) -> Option<&'a str> {
        self.find(kind).and_then(|value| str::from_utf8(value).ok())
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, high, low, rest @ ..] = self.rest else {
            return None;
        };
        let length = u16::from_be_bytes([*high, *low]);
        let (value, rest) = rest.split_at_checked(length.into())?;
        self.rest = rest;
        Some((*kind, value))
    }
}

impl FusedIterator for Tlvs<'_> {}

/// What the proxy knows of the client's TLS connection.
///
/// ```
/// use serveloop::layer::proxy::{Header, tlv};
///
/// // TLS, with a certificate that was verified, and two TLVs inside.
/// let value = b"\x03\0\0\0\0\x21\x00\x07TLSv1.3\x22\x00\x05alice";
/// let header = Header::unknown().with_tlv(tlv::SSL, value)?;
/// let ssl = header.ssl().expect("the TLV");
/// assert!(ssl.is_encrypted() && ssl.is_verified());
/// assert_eq!((ssl.version(), ssl.common_name()), (Some("TLSv1.3"), Some("alice")));
/// # Ok::<(), serveloop::layer::proxy::ProxyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'a> {
    client: u8,
    verify: u32,
    tlvs: &'a [u8],
}

impl<'a> Ssl<'a> {
    pub(super) fn new(value: &'a [u8]) -> Option<Self> {
        let (fixed, tlvs) = value.split_first_chunk::<SSL_FIXED>()?;
        let [client, verify @ ..] = *fixed;
        Some(Self {
            client,
            verify: u32::from_be_bytes(verify),
            tlvs,
        })
    }

    /// Returns whether the client connected over TLS (`PP2_CLIENT_SSL`).
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.client & 0x01 != 0
    }

    /// Returns whether the client presented a certificate on this connection
    /// (`PP2_CLIENT_CERT_CONN`).
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.client & 0x02 != 0
    }

    /// Returns whether the client presented a certificate at least once in the TLS session that the
    /// connection belongs to (`PP2_CLIENT_CERT_SESS`).
    #[must_use]
    pub fn has_session_certificate(&self) -> bool {
        self.client & 0x04 != 0
    }

    /// Returns whether the client presented a certificate, on this connection or earlier in its TLS
    /// session, and the proxy verified it. A result of 0 without a certificate verifies nothing:
    /// some proxies send it.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verify == 0 && (self.has_certificate() || self.has_session_certificate())
    }

    /// Returns the proxy's result of verifying the certificate. It is 0 for success, and otherwise
    /// a number of the proxy's own.
    #[must_use]
    pub fn verify_result(&self) -> u32 {
        self.verify
    }

    /// Returns the version of TLS, for example `TLSv1.3`.
    #[must_use]
    pub fn version(&self) -> Option<&'a str> {
        self.tlvs().find_text(SSL_VERSION)
    }

    /// Returns the Common Name of the client's certificate. It means something only if the
    /// certificate [is verified](Self::is_verified).
    #[must_use]
    pub fn common_name(&self) -> Option<&'a str> {
        self.tlvs().find_text(SSL_CN)
    }

    /// Returns the name of the cipher, for example `ECDHE-RSA-AES128-GCM-SHA256`.
    #[must_use]
    pub fn cipher(&self) -> Option<&'a str> {
        self.tlvs().find_text(SSL_CIPHER)
    }

    /// Returns the algorithm that signed the proxy's certificate, for example `RSA-SHA256`.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<&'a str> {
        self.tlvs().find_text(SSL_SIG_ALG)
    }

    /// Returns the algorithm of the key of the proxy's certificate, for example `RSA2048`.
    #[must_use]
    pub fn key_algorithm(&self) -> Option<&'a str> {
        self.tlvs().find_text(SSL_KEY_ALG)
    }

    /// Returns all TLVs inside, in their order.
    #[must_use]
    pub fn tlvs(&self) -> Tlvs<'a> {
        Tlvs::new(self.tlvs)
    }
}

/// Appends a TLV whose value has at most 65,535 bytes.
pub(super) fn push(output: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    output.push(kind);
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(value);
}

/// Checks TLVs that begin at `position` of their header. Returns the position of the value of the
/// checksum, if there is one.
pub(super) fn check(bytes: &[u8], position: usize) -> Result<Option<usize>, ProxyError> {
    let mut checksum = None;
    walk(bytes, position, |position, kind, value| {
        let problem = match kind {
            CRC32C if value.len() != CHECKSUM_LENGTH => "a checksum has 4 bytes",
            CRC32C if checksum.is_some() => "a second checksum",
            CRC32C => {
                checksum = Some(position + FIXED);
                return Ok(());
            }
            UNIQUE_ID if value.len() > UNIQUE_ID_MOST => "a unique id has at most 128 bytes",
            SSL if value.len() < SSL_FIXED => "an SSL TLV has at least 5 bytes",
            SSL => {
                let at = position + FIXED + SSL_FIXED;
                return walk(&value[SSL_FIXED..], at, |_, _, _| Ok(()));
            }
            _ => return Ok(()),
        };
        Err(ProxyError::Tlv { position, problem })
    })?;
    Ok(checksum)
}

/// Returns whether `bytes` are TLVs up to their end, whatever is in them.
pub(super) fn are_whole(bytes: &[u8]) -> bool {
    walk(bytes, 0, |_, _, _| Ok(())).is_ok()
}

/// Shows each TLV to `visit` with its position.
fn walk(
    bytes: &[u8],
    mut position: usize,
    mut visit: impl FnMut(usize, u8, &[u8]) -> Result<(), ProxyError>,
) -> Result<(), ProxyError> {
    let mut tlvs = Tlvs::new(bytes);
    for (kind, value) in tlvs.by_ref() {
        visit(position, kind, value)?;
        position += FIXED + value.len();
    }

    let problem = match tlvs.rest.len() {
        0 => return Ok(()),
        1 | 2 => "it ends before its length",
        _ => "its length goes beyond the end",
    };
    Err(ProxyError::Tlv { position, problem })
}
