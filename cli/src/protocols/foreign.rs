//! Detection of the other protocols that a browser speaks to whatever port a web page names: HTTP,
//! TLS and STUN.
//!
//! A page of any site can send a request to a server on its reader's own machine, and choose most
//! of its content. A protocol that acts on lines would skip each line of the head as a mistake and
//! act on the body. So a client that begins like this is cut off before anything is done.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serveloop::{CloseReason, Peer, Protocol, ProtocolError, Transport};

use crate::logger::TARGET;

/// The number of bytes that tell which protocol it is, leading blanks not counted.
const ENOUGH: usize = 16;

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

/// A protocol that this server does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// The first line of a request.
    Request,
    /// A header line of a request.
    Header,
    Tls,
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
    /// Recognises a line of HTTP or a related protocol that came in place of a request.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
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
    fn of_beginning(bytes: &[u8], method_least: usize) -> Judgement {
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
enum Judgement {
    Foreign(Foreign),
    /// Not clear yet: more bytes have to come.
    Open,
    Ours,
}

/// The first bytes of a stream, however they arrive in pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Beginning {
    bytes: [u8; ENOUGH],
    length: usize,
}

impl Beginning {
    /// Appends bytes, up to [`ENOUGH`] in all.
    fn extend(&mut self, data: &[u8]) {
        let data = match self.length {
            0 => data.trim_ascii_start(),
            _ => data,
        };
        let count = data.len().min(ENOUGH - self.length);
        self.bytes[self.length..][..count].copy_from_slice(&data[..count]);
        self.length += count;
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Warns once per server that a web page may have tried to reach it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm(Arc<AtomicBool>);

impl Alarm {
    /// Warns about `foreign` from `peer`, unless it warned before, and returns the error that ends
    /// the connection.
    pub(crate) fn raise(&self, peer: &Peer, foreign: Foreign) -> ProtocolError {
        if !self.0.swap(true, Ordering::Relaxed) {
            log::warn!(
                target: TARGET, "{peer} sent {foreign}: its connection is closed. A web page can make a browser on this \
                 machine do that, even to loopback; a Unix socket is out of its reach. (This is said once.)"
            );
        }
        ProtocolError::malformed(format!("{foreign} in place of a request of this server"))
    }
}

/// A wrapper that keeps browsers' streams from its protocol.
#[derive(Debug)]
pub(crate) struct Screened<P> {
    protocol: P,
    peer: Peer,
    alarm: Alarm,
    method_least: usize,
    /// `None` once it is clear what the stream is.
    beginning: Option<Beginning>,
    /// Whether the protocol ends such a stream itself.
    answers: bool,
}

impl<P: Protocol> Screened<P> {
    /// Wraps `protocol` for `peer`. An incomplete HTTP method is recognised once it has `method_least`
    /// bytes, which must be so few only where the protocol acts on nothing shorter than that.
    /// `usize::MAX` recognises whole methods only.
    pub(crate) fn new(peer: &Peer, alarm: &Alarm, method_least: usize, protocol: P) -> Self {
        let is_stream = !peer.is_datagram();
        Self {
            protocol,
            peer: peer.clone(),
            alarm: alarm.clone(),
            method_least,
            beginning: is_stream.then(Beginning::default),
            answers: false,
        }
    }

    /// Leaves ending such a stream to the protocol, which must act on none of it and may send a
    /// reply.
    pub(crate) fn answering(self) -> Self {
        Self {
            answers: true,
            ..self
        }
    }

    /// Checks the arrived bytes until it is clear what the stream is.
    fn screen(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        let Some(mut seen) = self.beginning else {
            return Ok(());
        };
        seen.extend(data);

        match Foreign::of_beginning(seen.as_slice(), self.method_least) {
            Judgement::Foreign(foreign) => {
                self.beginning = None;
                let error = self.alarm.raise(&self.peer, foreign);
                if self.answers { Ok(()) } else { Err(error) }
            }
            Judgement::Ours => {
                self.beginning = None;
                Ok(())
            }
            Judgement::Open => Ok(()),
        }
    }
}

impl<P: Protocol> Protocol for Screened<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.protocol.connection_made(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.screen(data)?;
        let taken = self.protocol.data_received(data, transport)?;

        if let Some(beginning) = &mut self.beginning {
            beginning.extend(&data[..taken.min(data.len())]);
        }
        Ok(taken)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.protocol.eof_received(unread, transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.protocol.resume_writing(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.protocol.handle_timeout(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.protocol.woken(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.protocol.shutdown_requested(transport);
    }

    fn connection_lost(&mut self, reason: &CloseReason) {
        self.protocol.connection_lost(reason);
    }
}
