//! Where the oracles read a header differently from us, and why.

use std::str;

use serveloop::layer::proxy::{Header, ProxyError, tlv};

use super::Parsed;
use super::oracles::{Oracle, Reading, ours, read};

/// A difference between an oracle and us, of which the specification says that we are right, or
/// leaves to us what we do.
#[derive(Debug)]
pub struct Difference {
    /// Who reads it differently.
    pub oracle: Oracle,
    /// What is read differently, and why.
    pub reason: &'static str,
    /// The section of the specification.
    pub section: &'static str,
    /// A header that is read differently.
    pub example: &'static [u8],
    applies: fn(&Case<'_>) -> bool,
}

/// A header that is read differently.
struct Case<'a> {
    data: &'a [u8],
    parsed: &'a Parsed<'a>,
    theirs: &'a Reading,
}

impl Case<'_> {
    fn is_text(&self) -> bool {
        self.data.starts_with(b"PROXY")
    }

    /// The line without its end, as far as it is there.
    fn line(&self) -> &[u8] {
        let end = self.data.windows(2).position(|pair| pair == b"\r\n");
        &self.data[..end.unwrap_or(self.data.len())]
    }

    fn is_unknown(&self) -> bool {
        self.data.starts_with(b"PROXY UNKNOWN")
    }

    /// The family and transport of a binary header of a client.
    fn family(&self) -> Option<(u8, u8)> {
        let is_binary = self.data.first() == Some(&b'\r') && self.data.get(12) == Some(&0x21);
        let byte = self.data.get(13).filter(|_| is_binary)?;
        Some((byte >> 4, byte & 0x0f))
    }

    fn header(&self) -> Option<&Header<'_>> {
        let (header, _) = self.parsed.as_ref().ok()?.as_ref()?;
        Some(header)
    }

    fn error(&self) -> Option<&ProxyError> {
        self.parsed.as_ref().err()
    }

    fn is_accepted(&self) -> bool {
        matches!(self.theirs, Reading::Header(_))
    }

    /// Both found a header of the same length, and the other found these addresses or none.
    fn is_same_but_for_tlvs(&self) -> bool {
        let (Ok(Some((header, length))), Reading::Header(facts)) = (self.parsed, self.theirs)
        else {
            return false;
        };
        let theirs = facts.addresses.as_ref().map(|(source, _)| source);
        *length == facts.length && header.source() == theirs
    }

    /// A port has a sign or leading zeros.
    fn has_odd_port(&self) -> bool {
        let mut ports = self.line().split(|byte| *byte == b' ').skip(4);
        self.is_text() && ports.any(|port| matches!(port, [b'+', ..] | [b'0', _, ..]))
    }

    /// The line is a possible one so far.
    fn is_cut_line(&self) -> bool {
        self.is_text() && *self.parsed == Ok(None)
    }

    fn is_local(&self) -> bool {
        let is_local = self.data.first() == Some(&b'\r') && self.data.get(12) == Some(&0x20);
        is_local && self.error().is_none() && (!self.is_accepted() || self.is_same_but_for_tlvs())
    }

    fn is_half_unspecified(&self) -> bool {
        let is_half = self
            .family()
            .is_some_and(|(family, transport)| (family == 0) != (transport == 0));
        is_half && self.error().is_none() && (!self.is_accepted() || self.is_same_but_for_tlvs())
    }

    fn has_no_tlvs(&self) -> bool {
        self.header()
            .is_some_and(|header| header.tlvs().next().is_none())
    }
}

/// A value, or one inside another, is not what its type asks for.
fn has_odd_value(header: &Header<'_>) -> bool {
    fn is_odd((kind, value): (u8, &[u8])) -> bool {
        match kind {
            tlv::AUTHORITY | tlv::NETNS | tlv::SSL_VERSION..=tlv::SSL_KEY_ALG => {
                str::from_utf8(value).is_err()
            }
            tlv::CRC32C => value.len() != 4,
            tlv::SSL => value.len() < 5,
            _ => false,
        }
    }
    let inside = header.tlvs().filter(|(kind, _)| *kind == tlv::SSL);
    let mut inside = inside.flat_map(|(_, value)| inside_of(value));
    header.tlvs().any(is_odd) || inside.any(is_odd)
}

/// The TLVs in the value of an SSL TLV, which are well-formed.
fn inside_of(value: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = &value[5..];
    let mut found = Vec::new();
    while let [kind, high, low, behind @ ..] = rest {
        let length = u16::from_be_bytes([*high, *low]);
        let (value, behind) = behind.split_at(length.into());
        found.push((*kind, value));
        rest = behind;
    }
    found
}

/// Compares what an oracle reads in `data` with what we do. Returns the difference if it is a known
/// one.
pub(super) fn compare(
    oracle: Oracle,
    data: &[u8],
    parsed: &Parsed<'_>,
) -> Result<Option<&'static Difference>, String> {
    let theirs = read(oracle, data);
    let ours = ours(oracle, parsed);
    // We refuse as soon as no more bytes could help; they wait for a minimum of bytes.
    if ours == theirs || (ours == Reading::Refused && theirs == Reading::Partial) {
        return Ok(None);
    }

    let case = Case {
        data,
        parsed,
        theirs: &theirs,
    };
    let mut known = DIFFERENCES.iter().filter(|known| known.oracle == oracle);
    let known = known.find(|known| (known.applies)(&case));
    let unknown = || format!("we read {ours:?}, they read {theirs:?}");
    known.map(Some).ok_or_else(unknown)
}

impl Difference {
    /// Checks that the example is read differently, and that this is the known difference for it.
    ///
    /// # Errors
    /// Says what is read instead.
    pub fn check(&self) -> Result<(), String> {
        let known = compare(self.oracle, self.example, &super::parse(self.example))?;
        match known {
            Some(known) if known.reason == self.reason => Ok(()),
            other => Err(format!("{}: {other:?}", self.reason)),
        }
    }
}

/// A line of 108 bytes.
const LONG_LINE: &[u8] = b"PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";

/// A header whose unique id has 129 bytes.
const LONG_ID: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x90\0\0\0\0\0\0\0\0\0\0\0\0\
    \x05\0\x81xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
    xxxxxxxxxxxxxxxxxxx";

/// All known differences.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "any byte may follow PROXY; it is exactly one space",
        section: "2.1",
        example: b"PROXY!TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
        applies: |case| case.is_text() && case.is_accepted() && case.data[5] != b' ',
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "ports may have a sign or leading zeros; neither is permitted",
        section: "2.1",
        example: b"PROXY TCP4 192.0.2.7 192.0.2.8 080 +2\r\n",
        applies: |case| case.is_accepted() && case.error().is_some() && case.has_odd_port(),
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "a word may begin with UNKNOWN; the word is UNKNOWN",
        section: "2.1",
        example: b"PROXY UNKNOWNS\r\n",
        applies: |case| {
            case.is_unknown() && case.is_accepted() && !matches!(case.data[13], b' ' | b'\r')
        },
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "a line that comes at once may be long; it has at most 107 bytes",
        section: "2.1",
        example: LONG_LINE,
        applies: |case| case.is_unknown() && case.is_accepted() && case.line().len() > 105,
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "a lone LF may be in a line; it is not tolerated",
        section: "2.1",
        example: b"PROXY UNKNOWN \nHELO\r\n",
        applies: |case| case.is_unknown() && case.is_accepted() && case.line().contains(&b'\n'),
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "fields are judged as they come; they are decoded after the CRLF",
        section: "2.1",
        example: b"PROXY TCP4 192.0.2.300 ",
        applies: |case| case.is_cut_line() && *case.theirs == Reading::Refused,
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "the block of a LOCAL header is judged; it is discarded",
        section: "2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x20\xff\0\0",
        applies: |case| case.is_local(),
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "half an UNSPEC is refused; it is UNSPEC",
        section: "2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\x10\0\0",
        applies: |case| case.is_half_unspecified() && *case.theirs == Reading::Refused,
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "the block of an UNSPEC header has to be TLVs; addresses are ignored",
        section: "2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x01x",
        applies: |case| {
            case.family() == Some((0, 0)) && case.has_no_tlvs() && *case.theirs == Reading::Refused
        },
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "texts in TLVs are judged with the header; ours when they are read",
        section: "2.2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x04\x02\0\x01\xff",
        applies: |case| {
            *case.theirs == Reading::Refused && case.header().is_some_and(has_odd_value)
        },
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "a checksum is not computed; it has to be verified",
        section: "2.2.3",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x07\x03\0\x04\0\0\0\0",
        applies: |case| {
            case.is_accepted() && matches!(case.error(), Some(ProxyError::Checksum { .. }))
        },
    },
    Difference {
        oracle: Oracle::ProxyHeader,
        reason: "ids may be long, and checksums many; an id has at most 128 bytes",
        section: "2.2.5",
        example: LONG_ID,
        applies: |case| case.is_accepted() && matches!(case.error(), Some(ProxyError::Tlv { .. })),
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "a port may have a sign; it is a decimal integer",
        section: "2.1",
        example: b"PROXY TCP4 192.0.2.7 192.0.2.8 1 +2\r\n",
        applies: |case| case.is_accepted() && case.error().is_some() && case.has_odd_port(),
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "more than four fields after UNKNOWN have no end; they are ignored",
        section: "2.1",
        example: b"PROXY UNKNOWN a b c d e\r\n",
        applies: |case| {
            case.is_unknown() && case.header().is_some() && *case.theirs == Reading::Partial
        },
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "a lone LF may be in a line; it is not tolerated",
        section: "2.1",
        example: b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \n",
        applies: |case| case.is_text() && case.is_accepted() && case.line().contains(&b'\n'),
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "what follows UNKNOWN has to be UTF-8; it is ignored",
        section: "2.1",
        example: b"PROXY UNKNOWN \xff\r\n",
        applies: |case| {
            case.is_unknown() && case.error().is_none() && str::from_utf8(case.line()).is_err()
        },
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "fields are judged as they come; they are decoded after the CRLF",
        section: "2.1",
        example: b"PROXY TCP4 192.0.2.7 192.0.2.8 1 ",
        applies: |case| case.is_cut_line() && *case.theirs == Reading::Refused,
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "the block of a LOCAL header is judged; it is discarded",
        section: "2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x20\xff\0\0",
        applies: |case| case.is_local(),
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "half an UNSPEC has a block of known form; it is UNSPEC",
        section: "2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\x10\0\0",
        applies: |case| case.is_half_unspecified(),
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "an UNSPEC header has no TLVs; HAProxy sends them",
        section: "2.2",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x03\x04\0\0",
        applies: |case| case.family() == Some((0, 0)) && case.is_same_but_for_tlvs(),
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "a checksum is not computed; it has to be verified",
        section: "2.2.3",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\x04\0\0\0\0",
        applies: |case| {
            case.is_accepted() && matches!(case.error(), Some(ProxyError::Checksum { .. }))
        },
    },
    Difference {
        oracle: Oracle::Ppp,
        reason: "values are bytes; those of some types have a form",
        section: "2.2.3, 2.2.5, 2.2.6",
        example: b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\x20\0\x01\0",
        applies: |case| case.is_accepted() && matches!(case.error(), Some(ProxyError::Tlv { .. })),
    },
];
