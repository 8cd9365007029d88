//! Where one message ends and the next begins, in a stream that may be cut anywhere.
//!
//! A [`Framing`] looks at unread bytes and says which of them are the first frame; it copies
//! nothing, allocates nothing because of a length that a peer announced, and scans no byte twice.
//! A protocol over frames is written against [`FrameProtocol`](crate::FrameProtocol) and served
//! through [`Framed`](crate::Framed).

mod framed;

pub use self::framed::{FrameProtocol, FrameTransport, Framed};

use crate::error::ProtocolError;

/// A rule that cuts a stream into frames.
pub trait Framing {
    /// Finds the first frame in `data`, which is all that is unread. `None`: it is incomplete.
    ///
    /// # Errors
    /// The frame is longer than allowed, or what is there can be no frame.
    fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<'a>>, ProtocolError>;

    /// The last frame, when the stream has ended with `unread` left. By default there is none.
    ///
    /// # Errors
    /// By default [`ProtocolError::Truncated`] if anything is left.
    fn decode_eof<'a>(&mut self, unread: &'a [u8]) -> Result<Option<Frame<'a>>, ProtocolError> {
        match unread.len() {
            0 => Ok(None),
            unread => Err(ProtocolError::Truncated { unread }),
        }
    }

    /// Hands what makes `payload` a frame to `write`, piece by piece.
    ///
    /// # Errors
    /// The payload does not fit this framing: it is longer than allowed, or holds the delimiter.
    fn encode(&self, payload: &[u8], write: impl FnMut(&[u8])) -> Result<(), ProtocolError>;
}

/// One frame, found in unread bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message, without header or delimiter.
    pub payload: &'a [u8],
    /// How many unread bytes it takes up, header and delimiter included.
    pub taken: usize,
}

/// The order of the bytes of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The most significant byte first, as is usual in network protocols.
    BigEndian,
    /// The least significant byte first.
    LittleEndian,
}

/// A message after its length: an unsigned integer of 1, 2, 4 or 8 bytes that counts the message
/// alone. A length with the sign bit set is simply too long.
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefix {
    width: usize,
    order: ByteOrder,
    max: usize,
}

impl LengthPrefix {
    /// A length of `width` bytes, for messages of at most `max` bytes.
    ///
    /// # Panics
    /// When `width` is not 1, 2, 4 or 8.
    #[must_use]
    pub fn new(width: usize, order: ByteOrder, max: usize) -> Self {
        assert!(
            matches!(width, 1 | 2 | 4 | 8),
            "a length has 1, 2, 4 or 8 bytes, not {width}"
        );
        Self { width, order, max }
    }

    /// The most common one: four bytes, big-endian.
    #[must_use]
    pub fn u32(max: usize) -> Self {
        Self::new(4, ByteOrder::BigEndian, max)
    }

    fn length(&self, header: &[u8]) -> u64 {
        let join = |length: u64, byte: &u8| length << 8 | u64::from(*byte);
        match self.order {
            ByteOrder::BigEndian => header.iter().fold(0, join),
            ByteOrder::LittleEndian => header.iter().rev().fold(0, join),
        }
    }

    fn largest(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.width)
    }
}

impl Framing for LengthPrefix {
    #[inline]
    fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<'a>>, ProtocolError> {
        let Some((header, rest)) = data.split_at_checked(self.width) else {
            return Ok(None);
        };
        let announced = self.length(header);
        let length = checked_length(announced, self.max)?;
        Ok(rest.get(..length).map(|payload| Frame {
            payload,
            taken: self.width + length,
        }))
    }

    #[inline]
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        let length = payload.len() as u64;
        checked_length(
            length,
            self.max
                .min(usize::try_from(self.largest()).unwrap_or(usize::MAX)),
        )?;
        match self.order {
            ByteOrder::BigEndian => write(&length.to_be_bytes()[8 - self.width..]),
            ByteOrder::LittleEndian => write(&length.to_le_bytes()[..self.width]),
        }
        write(payload);
        Ok(())
    }
}

/// Lines that end with LF or CRLF; what a protocol sees has neither, what it sends gets LF. A CR
/// elsewhere and NUL are ordinary bytes. No encoding is assumed.
#[derive(Clone, Debug)]
pub struct Lines {
    max: usize,
    scanned: usize,
    last_unterminated: bool,
}

impl Lines {
    /// Lines of at most `max` bytes, their end not counted.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            scanned: 0,
            last_unterminated: false,
        }
    }

    /// Takes what the stream ends with as a line though its end is missing. Not the default: half a
    /// command can be a different command.
    #[must_use]
    pub fn accept_unterminated(mut self) -> Self {
        self.last_unterminated = true;
        self
    }
}

impl Framing for Lines {
    #[inline]
    fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<'a>>, ProtocolError> {
        let Some(end) = find_from(data, &mut self.scanned, b"\n") else {
            // One more than the limit may be the CR of an end that has not arrived.
            checked_length(data.len() as u64, self.max.saturating_add(1))?;
            return Ok(None);
        };
        let line = &data[..end];
        let payload = line.strip_suffix(b"\r").unwrap_or(line);
        checked_length(payload.len() as u64, self.max)?;
        Ok(Some(Frame {
            payload,
            taken: end + 1,
        }))
    }

    fn decode_eof<'a>(&mut self, unread: &'a [u8]) -> Result<Option<Frame<'a>>, ProtocolError> {
        match unread.len() {
            0 => Ok(None),
            taken if self.last_unterminated => {
                checked_length(taken as u64, self.max)?;
                Ok(Some(Frame {
                    payload: unread,
                    taken,
                }))
            }
            unread => Err(ProtocolError::Truncated { unread }),
        }
    }

    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        checked_length(payload.len() as u64, self.max)?;
        if payload.contains(&b'\n') {
            return Err(ProtocolError::malformed("a line cannot hold a line feed"));
        }
        write(payload);
        write(b"\n");
        Ok(())
    }
}

/// Messages that end with a delimiter of one or more bytes, which no message may hold.
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Box<[u8]>,
    max: usize,
    scanned: usize,
}

impl Delimited {
    /// Messages of at most `max` bytes before each `delimiter`.
    ///
    /// # Panics
    /// When `delimiter` is empty.
    #[must_use]
    pub fn new(delimiter: impl Into<Box<[u8]>>, max: usize) -> Self {
        let delimiter = delimiter.into();
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        Self {
            delimiter,
            max,
            scanned: 0,
        }
    }
}

impl Framing for Delimited {
    fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<'a>>, ProtocolError> {
        let Some(end) = find_from(data, &mut self.scanned, &self.delimiter) else {
            let begun = self.delimiter.len() - 1;
            checked_length(data.len() as u64, self.max.saturating_add(begun))?;
            return Ok(None);
        };
        checked_length(end as u64, self.max)?;
        Ok(Some(Frame {
            payload: &data[..end],
            taken: end + self.delimiter.len(),
        }))
    }

    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        checked_length(payload.len() as u64, self.max)?;
        // The delimiter's own bytes may complete one that the payload's last bytes began.
        let framed = [payload, &self.delimiter].concat();
        if find(&framed, &self.delimiter) != Some(payload.len()) {
            return Err(ProtocolError::malformed(
                "a message cannot hold its delimiter",
            ));
        }
        write(&framed);
        Ok(())
    }
}

fn checked_length(length: u64, limit: usize) -> Result<usize, ProtocolError> {
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or(ProtocolError::TooLong { length, limit })
}

/// Finds `needle`, going on from where the last search of the same unread bytes stopped.
#[inline]
fn find_from(data: &[u8], scanned: &mut usize, needle: &[u8]) -> Option<usize> {
    let from = (*scanned).min(data.len());
    match find(&data[from..], needle) {
        Some(at) => {
            *scanned = 0;
            Some(from + at)
        }
        None => {
            *scanned = data.len().saturating_sub(needle.len() - 1);
            None
        }
    }
}

fn find(data: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return find_byte(data, *byte);
    }
    let mut from = 0;
    while let Some(at) = find_byte(&data[from..], needle[0]) {
        from += at;
        if data[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

/// Sixteen bytes at a time, which the compiler turns into vector instructions.
#[inline]
fn find_byte(data: &[u8], byte: u8) -> Option<usize> {
    let mut chunks = data.chunks_exact(16);
    let mut done = 0;
    for chunk in &mut chunks {
        if chunk
            .iter()
            .fold(false, |found, other| found | (*other == byte))
        {
            return chunk
                .iter()
                .position(|other| *other == byte)
                .map(|at| done + at);
        }
        done += 16;
    }
    let rest = chunks.remainder();
    rest.iter()
        .position(|other| *other == byte)
        .map(|at| done + at)
}
