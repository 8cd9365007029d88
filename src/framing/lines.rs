//! Messages that end with a line feed.

use crate::error::ProtocolError;
use crate::framing::search::{checked_length, find_from};
use crate::framing::{Decoder, Encoder, Frame};

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

impl Lines {
    /// As [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed): the message borrows only from
    /// `data`.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        let Some(end) = find_from(data, &mut self.scanned, b"\n") else {
            // One more than the limit may be the CR of an end that has not arrived.
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

    /// As [`Decoder::decode_eof`]; the message borrows only from `unread`.
    ///
    /// # Errors
    /// As there.
    pub fn decode_eof<'a>(
        &mut self,
        unread: &'a [u8],
    ) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
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
        if payload.contains(&b'\n') {
            return Err(ProtocolError::malformed("a line cannot hold a line feed"));
        }
        write(payload);
        write(b"\n");
        Ok(())
    }
}
