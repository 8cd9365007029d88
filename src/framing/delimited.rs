//! A framing for messages that end with a delimiter of any length.

use crate::error::ProtocolError;
use crate::framing::search::{checked_length, find, find_from};
use crate::framing::{Decoder, Encoder, Frame};

/// Messages that end with a delimiter of one or more bytes. A message cannot contain the delimiter.
///
/// ```
/// use serveloop::framing::{Decoder, Delimited};
///
/// let mut framing = Delimited::new(*b"--", 80);
/// let frame = framing.decode(b"one--two-")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 5));
/// assert_eq!(framing.decode(b"two-")?, None);
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Box<[u8]>,
    max: usize,
    scanned: usize,
}

impl Delimited {
    /// Creates a framing for messages of at most `max` bytes, not counting the `delimiter`.
    ///
    /// # Panics
    /// Panics if `delimiter` is empty.
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

impl Delimited {
    /// Works like [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed). The
    /// message borrows only from `data`.
    ///
    /// # Errors
    /// Fails like [`Decoder::decode`].
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        let Some(end) = find_from(data, &mut self.scanned, &self.delimiter) else {
            let begun = self.delimiter.len() - 1;
            if data.len() > self.max.saturating_add(begun) {
                checked_length(data.len() as u64, self.max)?;
            }
            return Ok(None);
        };

        checked_length(end as u64, self.max)?;
        Ok(Some(Frame {
            message: &data[..end],
            taken: end + self.delimiter.len(),
        }))
    }
}

impl Decoder for Delimited {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }
}

impl Encoder for Delimited {
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        checked_length(payload.len() as u64, self.max)?;
        // The delimiter's own bytes may complete a delimiter that the end of the payload began.
        let framed = [payload, &self.delimiter].concat();
        if find(&framed, &self.delimiter) != Some(payload.len()) {
            return Err(ProtocolError::malformed(
                "a message cannot contain its delimiter",
            ));
        }

        write(&framed);
        Ok(())
    }
}
