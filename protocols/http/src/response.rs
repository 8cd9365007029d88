//! Responses: what a handler makes, and the head that is made of it.

use std::fmt;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use crate::LOG_TARGET;
use crate::body::is_token;
use crate::date::push_date;
use crate::settings::{Dates, Settings};
use crate::source::{Reading, Source};

/// A response: a status, header fields and a body.
///
/// How the body is framed is decided when it is sent, so the fields `Content-Length`,
/// `Transfer-Encoding`, `Connection` and `Date` are not for a handler to set. The body is left out
/// where HTTP has none: for HEAD, and with the statuses 204 and 304.
///
/// ```
/// use serveloop_http::Response;
///
/// let page = Response::new(200).header("Content-Type", "text/html").body("<p>hello");
/// let moved = Response::new(301).header("Location", "/new");
/// let plain = Response::text("hello\n");
/// # let _ = (page, moved, plain);
/// ```
#[derive(Debug)]
pub struct Response {
    status: u16,
    /// Header fields as they are sent, a line each.
    fields: Vec<u8>,
    body: Body,
    closes: bool,
    /// What is wrong with it. It is answered with 500 then.
    fault: Option<&'static str>,
}

/// The body of a response.
pub enum Body {
    /// Bytes that are in the program.
    Static(&'static [u8]),
    /// Bytes that this response owns.
    Owned(Vec<u8>),
    /// Bytes that several responses share. They are not copied before they are sent.
    Shared(Arc<[u8]>),
    /// Bytes that are made while they are sent, and how many there will be, if that is known.
    Stream(Box<dyn Source>, Option<u64>),
}

impl Response {
    /// Creates a response without a body. The status has three digits and is not less than 200.
    #[must_use]
    pub fn new(status: u16) -> Self {
        let is_valid = (200..=999).contains(&status);
        Self {
            status,
            fields: Vec::new(),
            body: Body::Static(b""),
            closes: false,
            fault: (!is_valid).then_some("its status is not one of a response"),
        }
    }

    /// Creates a response with the status 200 and a text, `text/plain; charset=utf-8`.
    #[must_use]
    pub fn text(text: impl Into<Body>) -> Self {
        Self::new(200)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body(text)
    }

    /// Creates a response with another status and a text that says what it means.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let text = format!("{status} {}\n", reason(status));
        Self::text(text).with_status(status)
    }

    /// Creates the response that changes to `protocol`, 101, for
    /// [`Reply::upgrade`](crate::Reply::upgrade). The fields `Connection` and `Upgrade` are set.
    #[must_use]
    pub fn switch_to(protocol: &str) -> Self {
        let response = Self {
            status: 101,
            fault: None,
            ..Self::new(200)
        };
        response
            .field("Connection", b"Upgrade")
            .header("Upgrade", protocol)
    }

    /// Adds a header field. A name or a value that would break the head, such as one with a line
    /// end, makes the response one with the status 500, and an error in the log says so.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let is_ours = OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours));
        match is_ours {
            true => self.with_fault("it sets a field that the protocol sets"),
            false => self.field(name, value.as_ref()),
        }
    }

    fn field(mut self, name: &str, value: &[u8]) -> Self {
        if name.is_empty() || !name.bytes().all(is_token) {
            return self.with_fault("the name of a header field is not valid");
        }
        if value
            .iter()
            .any(|byte| matches!(byte, 0..=8 | 10..=31 | 127))
        {
            return self.with_fault("the value of a header field is not valid");
        }
        self.fields
            .reserve(name.len() + value.len() + b": \r\n".len());
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.fields.extend_from_slice(part);
        }
        self
    }

    fn with_fault(self, fault: &'static str) -> Self {
        Self {
            fault: self.fault.or(Some(fault)),
            ..self
        }
    }

    /// Sets the body: text, bytes, or a shared `Arc<[u8]>`.
    #[must_use]
    pub fn body(self, body: impl Into<Body>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    /// Sets a body that is produced while it is sent, in chunks, or, for a client of HTTP/1.0, until
    /// the connection ends.
    #[must_use]
    pub fn stream(self, source: impl Source + 'static) -> Self {
        self.body(Body::Stream(Box::new(source), None))
    }

    /// Sets a body that is produced while it is sent and has `length` bytes. If the source ends
    /// earlier, the connection is reset. What is beyond is not sent.
    #[must_use]
    pub fn stream_of_length(self, length: u64, source: impl Source + 'static) -> Self {
        self.body(Body::Stream(Box::new(source), Some(length)))
    }

    /// Sets a body that is read while it is sent. The reader must not wait on a loop.
    #[must_use]
    pub fn reader(self, reader: impl BufRead + Send + 'static) -> Self {
        self.stream(Reading(reader))
    }

    /// Ends the connection after this response.
    #[must_use]
    pub fn close(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// Returns the status.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status
    }

    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Returns the protocol that [`switch_to`](Self::switch_to) was called with.
    pub(crate) fn upgrade_field(&self) -> &[u8] {
        let mut lines = self.fields.split(|byte| matches!(byte, b'\r' | b'\n'));
        lines
            .find_map(|line| line.strip_prefix(b"Upgrade: "))
            .unwrap_or(b"")
    }

    /// Returns whether the connection ends after this response.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Returns this response, or one with the status 500 if a handler has made a mistake.
    pub(crate) fn checked(self, is_upgrade: bool) -> Self {
        let fault = match is_upgrade == (self.status == 101) {
            true => self.fault,
            false => Some("its status is not one of what it answers"),
        };
        let Some(fault) = fault else {
            return self;
        };
        log::error!(target: LOG_TARGET, "a response with the status {} is not sent: {fault}", self.status);
        Self::status(500)
    }

    /// Appends the head to `head`, and returns the body and how it is framed.
    pub(crate) fn encode(
        self,
        request: Asked,
        settings: &Settings,
        now: Instant,
        head: &mut Vec<u8>,
    ) -> (Body, Framed) {
        let has_content = !matches!(self.status, 101 | 204 | 304);
        push_status(head, self.status);
        head.extend_from_slice(&self.fields);
        if settings.dates == Dates::Sent && self.status != 101 {
            push_date(head, now);
        }

        let mut framed = Framed::Plain(self.body.len());
        match self.body.len() {
            Some(length) if has_content => push_length(head, length),
            None if has_content && request.takes_chunks => {
                head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                framed = Framed::Chunked;
            }
            _ => {}
        }
        match request.connection {
            _ if self.status == 101 => {}
            Connection::Close => head.extend_from_slice(b"Connection: close\r\n"),
            Connection::KeepAlive => head.extend_from_slice(b"Connection: keep-alive\r\n"),
            Connection::Persistent => {}
        }
        head.extend_from_slice(b"\r\n");

        match has_content && !request.is_head {
            true => (self.body, framed),
            false => (Body::Static(b""), Framed::Plain(Some(0))),
        }
    }

    /// Returns whether the end of the body is the end of the connection.
    pub(crate) fn ends_with_connection(&self, takes_chunks: bool) -> bool {
        self.body.len().is_none() && !takes_chunks && !matches!(self.status, 101 | 204 | 304)
    }
}

/// What a request says about the response to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) is_head: bool,
    pub(crate) takes_chunks: bool,
    pub(crate) connection: Connection,
}

/// What the response says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Close,
    /// The connection goes on, which a client of HTTP/1.0 has to be told.
    KeepAlive,
    Persistent,
}

/// How the end of a response's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    /// By its length in bytes, or by the end of the connection.
    Plain(Option<u64>),
    Chunked,
}

/// Fields that the protocol sets.
const OURS: [&str; 4] = ["content-length", "transfer-encoding", "connection", "date"];

fn push_status(head: &mut Vec<u8>, status: u16) {
    if status == 200 {
        return head.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    // Writing to memory does not fail.
    let _ = write!(head, "HTTP/1.1 {status} {}\r\n", reason(status));
}

fn push_length(head: &mut Vec<u8>, length: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    head.extend_from_slice(b"Content-Length: ");
    head.extend_from_slice(&digits[at..]);
    head.extend_from_slice(b"\r\n");
}

impl Body {
    /// Returns the length in bytes, if it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Stream(_, length) => *length,
            other => Some(other.bytes().len() as u64),
        }
    }

    /// Returns the bytes of a body that is complete.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Stream(..) => &[],
        }
    }

    /// Returns how many bytes of memory only this response keeps.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Static(_) | Self::Shared(_) => 0,
            Self::Owned(bytes) => bytes.capacity(),
            Self::Stream(source, _) => source.held(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?} bytes)", self.len())
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

/// Returns the usual words for a status.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
