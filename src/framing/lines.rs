//! A framing for messages that end with a line feed.

use crate::error::ProtocolError;
use crate::framing::search::{checked_length, find_byte, find_from};
use crate::framing::{Decoder, Encoder, Frame};

/// Lines that end with LF or CRLF. A protocol receives them without the ending, and LF is added to
/// lines that it sends. NUL, and a CR elsewhere, are ordinary bytes; a CR at the end of a line that is sent
/// becomes a part of its ending. No encoding is assumed.
///
/// ```
/// use serveloop::framing::{Decoder, Lines};
///
/// let mut lines = Lines::new(80);
/// let frame = lines.decode(b"one\r\ntwo")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 5));
/// assert_eq!(lines.decode(b"two")?, None);
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    max: usize,
    scanned: usize,
    last_unterminated: bool,
}

impl Lines {
    /// Creates a framing for lines of at most `max` bytes, not counting the ending.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            scanned: 0,
            last_unterminated: false,
        }
    }

    /// Accepts an unterminated last line at the end of the stream. This is off by default, because
    /// half a command can be a different command.
    #[must_use]
    pub fn accept_unterminated(mut self) -> Self {
        self.last_unterminated = true;
        self
    }
}

impl Lines {
    /// Works like [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed). The
    /// message borrows only from `data`.
    ///
    /// # Errors
    /// Fails like the method of [`Decoder`].
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        let Some(end) = find_from(data, &mut self.scanned, b"\n") else {
            // One byte beyond the limit may be the CR of an ending that has not arrived completely.
            if data.len() > self.max.saturating_add(1) {
                checked_length(data.len() as u64, self.max)?;
            }
            return Ok(None);
        };

        let line = &data[..end];
        let payload = line.strip_suffix(b"\r").unwrap_or(line);
        checked_length(payload.len() as u64, self.max)?;
        Ok(Some(Frame {
            message: payload,
            taken: end + 1,
        }))
    }

    /// Works like [`Decoder::decode_eof`]. The message borrows only from `unread`.
    ///
    /// # Errors
    /// Fails like the method of [`Decoder`].
    pub fn decode_eof<'a>(
        &mut self,
        unread: &'a [u8],
    ) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        self.scanned = 0;
        match unread.len() {
            0 => Ok(None),
            taken if self.last_unterminated => {
                checked_length(taken as u64, self.max)?;
                Ok(Some(Frame {
                    message: unread,
                    taken,
                }))
            }
            unread => Err(ProtocolError::Truncated { unread }),
        }
    }
}

impl Decoder for Lines {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }

    fn decode_eof<'a>(
        &'a mut self,
        unread: &'a [u8],
    ) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode_eof(self, unread)
    }
}

impl Encoder for Lines {
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        checked_length(payload.len() as u64, self.max)?;
        if find_byte(payload, b'\n').is_some() {
            return Err(ProtocolError::malformed(
                "a line cannot contain a line feed",
            ));
        }
        write(payload);
        write(b"\n");
        Ok(())
    }
}
