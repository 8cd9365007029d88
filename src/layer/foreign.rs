//! Detection of the other protocols that a browser speaks to whatever port a web page names: HTTP,
//! TLS and STUN.
//!
//! A page of any site can send a request to a server on its reader's own machine, and choose most
//! of its content. A protocol that acts on lines would skip each line of the head as a mistake and
//! act on the body.

use std::fmt;

/// The number of bytes that tell which protocol it is, leading blanks not counted.
pub(super) const ENOUGH: usize = 16;

/// The methods of HTTP/1.1 and WebDAV, and the first word of HTTP/2.
const METHODS: [&[u8]; 18] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PRI",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
];

/// What a version begins with in the first line of a message of HTTP and related protocols.
const VERSIONS: [&[u8]; 3] = [b"HTTP/", b"RTSP/", b"SIP/"];

/// The magic cookie of STUN, and its offsets over TCP: with and without a length in front of the
/// header.
const STUN_MARK: &[u8] = &[0x21, 0x12, 0xa4, 0x42];
const STUN_PLACES: [usize; 2] = [4, 6];

/// Something that a browser sends to a server of another protocol.
///
/// ```
/// use serveloop::layer::Foreign;
///
/// assert_eq!(Foreign::of_line(b"POST /run HTTP/1.1"), Some(Foreign::Request));
/// assert_eq!(Foreign::of_line(b"Host: localhost"), Some(Foreign::Header));
/// assert_eq!(Foreign::of_line(b"ls -l"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// The first line of a request of HTTP, or of a protocol that is built like it.
    Request,
    /// A header line of such a request.
    Header,
    /// A TLS handshake.
    Tls,
    /// A STUN message.
    Stun,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "an HTTP request",
            Self::Header => "a header line of HTTP",
            Self::Tls => "a TLS handshake",
            Self::Stun => "a STUN message",
        })
    }
}

impl Foreign {
    /// Recognises a line of HTTP or a related protocol, anywhere in a stream. Its line end may be
    /// missing. Browsers only begin streams this way, but proxies may send it later.
    ///
    /// A line such as `name: value` is a [`Header`](Self::Header), whatever the name is.
    #[must_use]
    pub fn of_line(line: &[u8]) -> Option<Self> {
        // Other implementations also end a line at a CR alone.
        let mut lines = line.split(|byte| *byte == b'\r').map(<[u8]>::trim_ascii);
        let line = lines.find(|line| !line.is_empty())?;

        let mut words = line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|word| !word.is_empty());
        let first = words.next()?;

        if METHODS.contains(&first) || is_versioned(words) || is_version(first) {
            return Some(Self::Request);
        }
        is_field_name(line).then_some(Self::Header)
    }

    /// Judges a stream by its first `bytes`, without leading blanks. An incomplete method counts if
    /// it has at least `method_least` bytes.
    pub(super) fn of_beginning(bytes: &[u8], method_least: usize) -> Judgement {
        match bytes {
            [] | [0x16] => return Judgement::Open,
            [0x16, 3, ..] => return Judgement::Foreign(Self::Tls),
            _ => {}
        }

        let has_mark = |place: usize| bytes.get(place..place + 4) == Some(STUN_MARK);
        if STUN_PLACES.into_iter().any(has_mark) {
            return Judgement::Foreign(Self::Stun);
        }

        for method in METHODS {
            let common = method.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            let follows = bytes.get(common).is_none_or(u8::is_ascii_whitespace);
            let is_whole = common == method.len() && bytes.len() > common;
            if follows && (is_whole || common == bytes.len() && common >= method_least) {
                return Judgement::Foreign(Self::Request);
            }
        }

        if bytes.len() < ENOUGH {
            Judgement::Open
        } else {
            Judgement::Ours
        }
    }
}

/// Returns whether `words`, which follow a method of any name, are a target and a version.
fn is_versioned<'a>(words: impl Iterator<Item = &'a [u8]>) -> bool {
    let words: Vec<_> = words.collect();
    let [target, .., version] = words[..] else {
        return false;
    };
    let has_scheme = target.windows(3).any(|three| three == b"://");
    (has_scheme || target.starts_with(b"/") || target == b"*") && is_version(version)
}

fn is_version(word: &[u8]) -> bool {
    VERSIONS.into_iter().any(|name| {
        let begins = word.get(..name.len());
        begins.is_some_and(|begin| begin.eq_ignore_ascii_case(name))
            && word.get(name.len()).is_some_and(u8::is_ascii_digit)
    })
}

/// Returns whether a line begins with a name, a colon and a blank, as header lines do.
fn is_field_name(line: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let length = line.iter().take_while(|byte| is_part(byte)).count();
    let rest = &line[length..];
    length > 0 && matches!(rest, [b':'] | [b':', b' ' | b'\t', ..])
}

/// A judgement of a stream's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Foreign(Foreign),
    /// Not clear yet: more bytes have to come.
    Open,
    Ours,
}
