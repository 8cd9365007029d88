//! What a client sends that is no echo, and how the replies are told apart and checked.

mod check;
mod http;
mod length;
mod replies;
mod until;
mod websocket;

pub(crate) use self::check::Check;
pub(crate) use self::replies::{Read, Replies};
pub(crate) use self::websocket::{handshake, masked, opened, pong};

use std::cell::{OnceCell, RefCell};

use self::http::{HttpReader, get};
use self::length::LengthReader;
use self::until::{Pattern, UntilReader};
use self::websocket::FrameReader;

use serveloop::protocols::counted;

/// The longest reply that is kept to compare others with it, in bytes.
const REPLY_MOST: usize = 16 << 20;
/// The most bytes of a peer that an error quotes.
const QUOTED_MOST: usize = 64;

/// The width of the number in front of a message that says how long the rest is. The most significant
/// byte comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
}

/// A request, and what is a reply to it. Every reply has to be the same as the first one, or as the
/// protocol says, unless [`allow_any_reply`](Self::allow_any_reply) is called.
///
/// ```
/// use serveloop_measure::Exchange;
///
/// let ping = Exchange::text(b"PING\r\n".to_vec(), b"+PONG\r\n")?;
/// assert_eq!(ping.request().len(), 6);
/// assert!(Exchange::text(b"PING\r\n".to_vec(), b"").is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What comes before all requests of a connection and has its own answer.
    opening: Option<Box<[u8]>>,
    request: Box<[u8]>,
    ends: Ends,
    /// What every reply contains, if that is known before the first one.
    expected: Option<Box<[u8]>>,
    takes_any: bool,
}

/// How the end of a reply is recognized.
#[derive(Clone, Debug)]
enum Ends {
    Until(Pattern),
    Length(Width),
    Http,
    WebSocket,
}

/// What a reply must be and is not, in words for the user.
pub(crate) type Wrong = String;

/// What the clients of a load share about their exchange.
#[derive(Debug)]
pub(crate) struct Talk {
    exchange: Exchange,
    /// What every reply has to be.
    model: OnceCell<Box<[u8]>>,
    /// The end of what came last that is no whole reply, for the error about a silent server.
    pub(crate) partial: RefCell<Vec<u8>>,
}

impl Width {
    /// Returns how many bytes the number has.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }
}

impl Exchange {
    /// Sends `request`, and takes everything up to and including `until` for the reply.
    ///
    /// # Errors
    /// Fails if either is empty.
    pub fn text(request: Vec<u8>, until: &[u8]) -> Result<Self, String> {
        if request.is_empty() {
            return Err("nothing would be sent".to_owned());
        }
        if until.is_empty() {
            return Err("every reply would end before its first byte".to_owned());
        }
        Ok(Self::new(request, Ends::Until(Pattern::new(until))))
    }

    /// Sends `payload` behind its length, and takes messages of the same form for replies.
    ///
    /// # Errors
    /// Fails if the number is too small for the length.
    pub fn length_prefixed(payload: &[u8], width: Width) -> Result<Self, String> {
        let length = (payload.len() as u64).to_be_bytes();
        let (zeros, number) = length.split_at(length.len() - width.bytes());
        if zeros.iter().any(|byte| *byte != 0) {
            let bytes = counted(payload.len(), "byte is", "bytes are");
            let count = counted(width.bytes(), "byte", "bytes");
            return Err(format!("{bytes} too many for a length of {count}"));
        }
        Ok(Self::new([number, payload].concat(), Ends::Length(width)))
    }

    /// Sends a GET of HTTP/1.1 for `path`. The reply must have a status from 200 to 299.
    ///
    /// # Errors
    /// Fails if the host or the path would change the request.
    pub fn http(host: &str, path: &str) -> Result<Self, String> {
        Ok(Self::new(get(host, path, "")?, Ends::Http))
    }

    /// Sends PING to a server that speaks RESP, as Redis does. The reply must be +PONG.
    #[must_use]
    pub fn resp() -> Self {
        let ends = Ends::Until(Pattern::new(b"\r\n"));
        Self {
            expected: Some(b"+PONG\r\n"[..].into()),
            ..Self::new(b"*1\r\n$4\r\nPING\r\n".to_vec(), ends)
        }
    }

    /// Makes the connection a WebSocket and sends a text of `size` bytes. The reply must be a text
    /// with the same bytes.
    ///
    /// # Errors
    /// Fails if the host or the path would change the request.
    pub fn websocket(host: &str, path: &str, size: usize) -> Result<Self, String> {
        let text: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
        Ok(Self {
            opening: Some(handshake(host, path)?.into()),
            expected: Some(text.clone().into()),
            ..Self::new(masked(&text), Ends::WebSocket)
        })
    }

    fn new(request: Vec<u8>, ends: Ends) -> Self {
        Self {
            opening: None,
            request: request.into(),
            ends,
            expected: None,
            takes_any: false,
        }
    }

    /// Accepts replies that differ from the first one, as long as each is a whole reply.
    #[must_use]
    pub fn allow_any_reply(self) -> Self {
        Self {
            takes_any: true,
            expected: None,
            ..self
        }
    }

    /// Returns the bytes of a request.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    pub(crate) fn opening(&self) -> Option<&[u8]> {
        self.opening.as_deref()
    }

    /// Describes what is waited for if no reply comes.
    fn awaited(&self) -> String {
        match &self.ends {
            Ends::Until(until) => format!("no reply ended with {}", quoted(until.text())),
            Ends::Length(width) => {
                let length = counted(width.bytes(), "byte", "bytes");
                format!("no whole reply came behind a length of {length}")
            }
            Ends::Http => "no whole reply of HTTP came".to_owned(),
            Ends::WebSocket => "no whole reply of WebSocket came".to_owned(),
        }
    }
}

impl Ends {
    fn reader(&self) -> Reader {
        match self {
            Self::Until(until) => Reader::Until(UntilReader::new(until.clone())),
            Self::Length(width) => Reader::Length(LengthReader::new(*width)),
            Self::Http => Reader::Http(HttpReader::default()),
            Self::WebSocket => Reader::WebSocket(FrameReader::default()),
        }
    }
}

impl Talk {
    pub(crate) fn new(exchange: &Exchange) -> Self {
        let model = OnceCell::new();
        if let Some(expected) = &exchange.expected {
            let _ = model.set(expected.clone());
        }
        Self {
            exchange: exchange.clone(),
            model,
            partial: RefCell::default(),
        }
    }

    pub(crate) fn opening(&self) -> Option<&[u8]> {
        self.exchange.opening()
    }

    /// Explains why a server that does not answer has failed.
    pub(crate) fn silence(&self) -> String {
        let awaited = self.exchange.awaited();
        let partial = self.partial.borrow();
        match partial.is_empty() {
            true => awaited,
            false => format!("{awaited}; what came last was {}", quoted(&partial)),
        }
    }
}

/// Finds the ends of replies, one after the other.
#[derive(Debug)]
enum Reader {
    Until(UntilReader),
    Length(LengthReader),
    Http(HttpReader),
    WebSocket(FrameReader),
}

/// How far a reader got with some data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    /// How many bytes are done with. With none, the rest of something has yet to come.
    taken: usize,
    /// Whether a reply ends there.
    ended: bool,
}

impl Reader {
    /// Reads until the end of a reply or of the data. What the peer has to be answered is appended to
    /// `answer`.
    fn read(
        &mut self,
        data: &[u8],
        check: &mut Check,
        talk: &Talk,
        answer: &mut Vec<u8>,
    ) -> Result<Step, Wrong> {
        match self {
            Self::Until(reader) => reader.read(data, check, talk),
            Self::Length(reader) => reader.read(data, check, talk),
            Self::Http(reader) => reader.read(data, check, talk),
            Self::WebSocket(reader) => reader.read(data, check, talk, answer),
        }
    }

    /// Returns whether all bytes that come are those of replies, and all of them are checked. Then equal
    /// bytes are an equal reply.
    fn checks_all_bytes(&self) -> bool {
        matches!(self, Self::Until(_) | Self::Length(_))
    }
}

/// Quotes bytes for an error, at most a few.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let (shown, cut) = match bytes.get(..QUOTED_MOST) {
        Some(shown) if bytes.len() > QUOTED_MOST => (shown, "..."),
        _ => (bytes, ""),
    };
    format!("\"{}{cut}\"", shown.escape_ascii())
}
