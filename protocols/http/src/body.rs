//! Where the body of a request ends, and which of its bytes are content.

use memchr::memchr;

use crate::rejection::Rejection;

use serveloop::protocols::counted;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes. A request without a body has 0.
    Length(u64),
    /// It comes in chunks, and the last one is empty.
    Chunked,
}

impl Framing {
    /// Returns the length in bytes, if it is known.
    pub(crate) fn length(self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// The longest line with the size of a chunk, in bytes with its extensions.
const SIZE_LINE_MOST: usize = 256;

/// The most digits of a chunk's size: 15, so that no sum overflows.
const SIZE_DIGITS_MOST: usize = 15;

/// A body that is arriving. [`skip`](Self::skip) takes what frames it, and [`content`](Self::content)
/// says how many bytes after that are content.
#[derive(Debug)]
pub(crate) struct Incoming {
    state: State,
    max_body: u64,
    /// How many bytes of content may still come.
    allowance: u64,
    /// How many bytes trailers may still have.
    trailer_room: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Content { left: u64 },
    Size,
    Chunk { left: u64 },
    ChunkEnd,
    Trailers,
    Done,
}

impl Incoming {
    /// Creates the body of a request, which may have `max_body` bytes of content and `max_trailers`
    /// bytes of trailers.
    pub(crate) fn new(
        framing: Framing,
        max_body: u64,
        max_trailers: usize,
    ) -> Result<Self, Rejection> {
        let state = match framing {
            Framing::Length(left) if left > max_body => return Err(too_large(max_body)),
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Content { left },
            Framing::Chunked => State::Size,
        };
        Ok(Self {
            state,
            max_body,
            allowance: max_body,
            trailer_room: max_trailers,
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes no more input.
    pub(crate) fn give_up(&mut self) {
        self.state = State::Done;
    }

    /// Returns how many bytes of content are known to be missing, or `None` if chunks follow.
    pub(crate) fn missing(&self) -> Option<u64> {
        match self.state {
            State::Content { left } => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Returns how many bytes at the start of `data` are content. They begin where `skip` has ended.
    pub(crate) fn content(&self, data: &[u8]) -> usize {
        match self.state {
            State::Content { left } | State::Chunk { left } => {
                usize::try_from(left).map_or(data.len(), |left| left.min(data.len()))
            }
            _ => 0,
        }
    }

    /// Notes that `count` bytes of content were taken.
    pub(crate) fn take(&mut self, count: usize) {
        match &mut self.state {
            State::Content { left } | State::Chunk { left } => *left -= count as u64,
            _ => debug_assert_eq!(count, 0, "no content is here"),
        }
    }

    /// Takes what frames the content at the start of `data`, and returns how many bytes that is. What
    /// is left then is content, belongs to the next request, or is incomplete.
    pub(crate) fn skip(&mut self, data: &[u8]) -> Result<usize, Rejection> {
        let mut at = 0;
        loop {
            let rest = &data[at..];
            let taken = match self.state {
                State::Content { left: 0 } => {
                    self.state = State::Done;
                    0
                }
                State::Chunk { left: 0 } => {
                    self.state = State::ChunkEnd;
                    0
                }
                State::Content { .. } | State::Chunk { .. } | State::Done => return Ok(at),
                State::Size => self.skip_size(rest)?,
                State::ChunkEnd => self.skip_chunk_end(rest)?,
                State::Trailers => self.skip_trailer(rest)?,
            };

            at += taken;
            let waits = matches!(self.state, State::Size | State::ChunkEnd | State::Trailers);
            if taken == 0 && waits && (rest.is_empty() || self.is_incomplete(rest)) {
                return Ok(at);
            }
        }
    }

    /// Returns whether `rest` has no whole line, or not the two bytes that end a chunk.
    fn is_incomplete(&self, rest: &[u8]) -> bool {
        match self.state {
            State::ChunkEnd => rest.len() < 2,
            _ => memchr(b'\n', rest).is_none(),
        }
    }

    fn skip_size(&mut self, data: &[u8]) -> Result<usize, Rejection> {
        let Some((line, taken)) = split_line(data, SIZE_LINE_MOST, "the size of a chunk")? else {
            return Ok(0);
        };
        let size = parse_size(line)?;
        if size > self.allowance {
            return Err(too_large(self.max_body));
        }

        self.allowance -= size;
        self.state = match size {
            0 => State::Trailers,
            left => State::Chunk { left },
        };
        Ok(taken)
    }

    fn skip_chunk_end(&mut self, data: &[u8]) -> Result<usize, Rejection> {
        if !b"\r\n".starts_with(&data[..data.len().min(2)]) {
            return Err(Rejection::bad("a chunk is longer than its size"));
        }
        if data.len() < 2 {
            return Ok(0);
        }
        self.state = State::Size;
        Ok(2)
    }

    /// Takes a trailer, of which nobody is told, or the empty line after the last one.
    fn skip_trailer(&mut self, data: &[u8]) -> Result<usize, Rejection> {
        let most = self.trailer_room;
        let Some((line, taken)) = split_line(data, most, "the trailers of a chunked body")? else {
            return Ok(0);
        };
        if line.is_empty() {
            self.state = State::Done;
            return Ok(taken);
        }

        let mut fields = [httparse::EMPTY_HEADER; 1];
        let text = [line, b"\r\n\r\n"].concat();
        match httparse::parse_headers(&text, &mut fields) {
            Ok(status) if status.is_complete() => {}
            _ => return Err(Rejection::bad("a trailer is not a header field")),
        }
        self.trailer_room -= taken.min(most);
        Ok(taken)
    }
}

fn too_large(most: u64) -> Rejection {
    let most = counted(most, "byte", "bytes");
    Rejection::new(413, format!("the body has more than {most}"))
}

/// Returns the line at the start of `data`, and its length with the CR and LF at its end, if it is
/// complete.
fn split_line<'a>(
    data: &'a [u8],
    most: usize,
    what: &str,
) -> Result<Option<(&'a [u8], usize)>, Rejection> {
    let end = memchr(b'\n', data);
    if end.unwrap_or(data.len()) > most.saturating_add(1) {
        return Err(Rejection::new(
            431,
            format!("{what} takes more than {}", counted(most, "byte", "bytes")),
        ));
    }
    let Some(end) = end else {
        return Ok(None);
    };
    match data[..end].strip_suffix(b"\r") {
        Some(line) => Ok(Some((line, end + 1))),
        None => Err(Rejection::bad(format!(
            "a line of {what} ends without a CR"
        ))),
    }
}

/// Reads the size of a chunk: hexadecimal digits, and then extensions, which are checked and dropped.
fn parse_size(line: &[u8]) -> Result<u64, Rejection> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits == 0 {
        return Err(Rejection::bad(
            "the size of a chunk is not a hexadecimal number",
        ));
    }
    if digits > SIZE_DIGITS_MOST {
        return Err(Rejection::bad("the size of a chunk has too many digits"));
    }
    if !are_extensions(&line[digits..]) {
        return Err(Rejection::bad(
            "what follows the size of a chunk is not an extension",
        ));
    }

    let text = std::str::from_utf8(&line[..digits]).unwrap_or("");
    u64::from_str_radix(text, 16).map_err(|_| Rejection::bad("the size of a chunk is not a number"))
}

/// Returns whether `rest` is any number of `;name`, `;name=token` or `;name="text"`, without blanks
/// between them.
fn are_extensions(mut rest: &[u8]) -> bool {
    while let Some(after) = rest.strip_prefix(b";") {
        let name = after.iter().take_while(|byte| is_token(**byte)).count();
        if name == 0 {
            return false;
        }
        rest = &after[name..];

        if let Some(value) = rest.strip_prefix(b"=") {
            let length = match value.first() {
                Some(b'"') => quoted(value),
                _ => value.iter().take_while(|byte| is_token(**byte)).count(),
            };
            if length == 0 {
                return false;
            }
            rest = &value[length..];
        }
    }
    rest.is_empty()
}

/// Returns the length of the quoted text at the start of `value`, or 0 if it is not valid.
fn quoted(value: &[u8]) -> usize {
    let mut is_escaped = false;
    for (at, byte) in value.iter().enumerate().skip(1) {
        match byte {
            0..=8 | 10..=31 | 127 => return 0,
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    0
}

pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
