//! Version 1 of the header: one line of text (section 2.1).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::borrow::Cow;
use std::io::Write;
use std::str;

use super::{Command, Header, ProxyError, Version, strip, strip_signature};
use crate::address::Address;

/// The most bytes of a line with its CRLF. The receiver must support as many, and declares the line
/// invalid if there is no CRLF among them.
const LINE_MOST: usize = 107;

const PREFIX: &[u8] = b"PROXY ";
const END: &[u8] = b"\r\n";

/// The words after the prefix, and what follows each.
const PROTOCOLS: [(&[u8], Protocol); 3] = [
    (b"TCP4 ", Protocol::Tcp4),
    (b"TCP6 ", Protocol::Tcp6),
    (b"UNKNOWN", Protocol::Unknown),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp4,
    Tcp6,
    Unknown,
}

pub(super) fn parse(data: &[u8]) -> Result<Option<(Header<'_>, usize)>, ProxyError> {
    let Some(rest) = strip_signature(data, PREFIX)? else {
        return Ok(None);
    };
    let Some((protocol, begin)) = protocol(rest)? else {
        return Ok(None);
    };
    let Some(end) = line_end(data, begin, protocol)? else {
        return Ok(None);
    };

    let addresses = match protocol {
        // Whatever the sender wrote before the end of the line is to be ignored.
        Protocol::Unknown => None,
        Protocol::Tcp4 | Protocol::Tcp6 => Some(addresses(&data[..end], begin, protocol)?),
    };
    let header = Header {
        version: Version::V1,
        command: Command::Proxy,
        addresses,
        tlvs: Cow::default(),
    };
    Ok(Some((header, end + END.len())))
}

/// Returns the protocol that `rest` begins with, and the position after it.
fn protocol(rest: &[u8]) -> Result<Option<(Protocol, usize)>, ProxyError> {
    let mut wrong = 0;
    let mut is_partial = false;
    for (word, protocol) in PROTOCOLS {
        match strip(rest, word) {
            Ok(Some(_)) => return Ok(Some((protocol, PREFIX.len() + word.len()))),
            Ok(None) => is_partial = true,
            Err(position) => wrong = wrong.max(position),
        }
    }

    if is_partial {
        return Ok(None);
    }
    Err(ProxyError::Line {
        position: PREFIX.len() + wrong,
        problem: "expected TCP4, TCP6 or UNKNOWN and one space",
    })
}

/// Returns the position of the CRLF that ends the line. The bytes before it are possible ones, as
/// far as that is known without decoding fields.
fn line_end(data: &[u8], begin: usize, protocol: Protocol) -> Result<Option<usize>, ProxyError> {
    let fail = |position, problem| Err(ProxyError::Line { position, problem });
    let line = &data[..data.len().min(LINE_MOST)];
    for (position, byte) in line.iter().enumerate().skip(begin) {
        match (byte, line.get(position + 1)) {
            (b'\r', Some(b'\n')) => return Ok(Some(position)),
            (b'\r', Some(_)) => return fail(position, "CR without LF"),
            (b'\r', None) => {}
            // A lone LF must not end the line, and ignored text must not hide one.
            (b'\n', _) => return fail(position, "LF without CR"),
            (byte, _) if protocol == Protocol::Unknown => {
                if position == begin && *byte != b' ' {
                    return fail(position, "expected a space or CRLF after UNKNOWN");
                }
            }
            (b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b'.' | b':' | b' ', _) => {}
            _ => return fail(position, "expected IP addresses and ports"),
        }
    }

    if data.len() >= LINE_MOST {
        return fail(LINE_MOST, "no CRLF in the first 107 bytes");
    }
    Ok(None)
}

/// Parses the four fields of a line that ends with its last one.
fn addresses(
    line: &[u8],
    begin: usize,
    protocol: Protocol,
) -> Result<(Address, Address), ProxyError> {
    let mut fields = Fields {
        line,
        position: begin,
    };

    let source = fields.next(|text| ip(text, protocol), SOURCE)?;
    let destination = fields.next(|text| ip(text, protocol), DESTINATION)?;
    let source_port = fields.next(port, SOURCE_PORT)?;
    let destination_port = fields.last(port, DESTINATION_PORT)?;

    let tcp = |ip, port| Address::Tcp(SocketAddr::new(ip, port));
    Ok((tcp(source, source_port), tcp(destination, destination_port)))
}

const SOURCE: &str = "expected a source address of the stated family";
const DESTINATION: &str = "expected a destination address of the stated family";
const SOURCE_PORT: &str = "expected a source port, 0 to 65535 without leading zeros,";
const DESTINATION_PORT: &str = "expected a destination port, 0 to 65535 without leading zeros,";

/// The fields of a line, with exactly one space between them.
struct Fields<'a> {
    line: &'a [u8],
    position: usize,
}

impl Fields<'_> {
    /// Parses the text up to the next space.
    fn next<T>(
        &mut self,
        parse: impl Fn(&str) -> Option<T>,
        problem: &'static str,
    ) -> Result<T, ProxyError> {
        let rest = &self.line[self.position.min(self.line.len())..];
        let length = rest.iter().position(|byte| *byte == b' ');
        let field = &rest[..length.unwrap_or(rest.len())];
        let value = self.value(field, parse, problem)?;
        self.position += field.len() + 1;
        Ok(value)
    }

    /// Parses everything that is left.
    fn last<T>(
        &self,
        parse: impl Fn(&str) -> Option<T>,
        problem: &'static str,
    ) -> Result<T, ProxyError> {
        let field = &self.line[self.position.min(self.line.len())..];
        self.value(field, parse, problem)
    }

    fn value<T>(
        &self,
        field: &[u8],
        parse: impl Fn(&str) -> Option<T>,
        problem: &'static str,
    ) -> Result<T, ProxyError> {
        let text = str::from_utf8(field).ok();
        text.and_then(parse).ok_or(ProxyError::Line {
            position: self.position.min(self.line.len()),
            problem,
        })
    }
}

/// Parses an address. IPv4 addresses have no leading zeros. IPv6 addresses may end in an IPv4
/// address, because `inet_ntop`, which senders use, writes them so.
fn ip(text: &str, protocol: Protocol) -> Option<IpAddr> {
    match protocol {
        Protocol::Tcp4 => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Protocol::Tcp6 => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        Protocol::Unknown => None,
    }
}

/// Parses a port: digits alone, of which the first is not 0 unless it is the only one.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| is_plain && !is_padded)
}

/// Appends the line of a connection with these addresses.
pub(super) fn write(addresses: Option<&(Address, Address)>, output: &mut Vec<u8>) {
    let written = match addresses {
        Some((Address::Tcp(source), Address::Tcp(destination))) => write!(
            output,
            "PROXY TCP{} {} {} {} {}\r\n",
            if source.is_ipv4() { 4 } else { 6 },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port(),
        ),
        _ => write!(output, "PROXY UNKNOWN\r\n"),
    };
    debug_assert!(written.is_ok(), "a vector takes everything");
}
