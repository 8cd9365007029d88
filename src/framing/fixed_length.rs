//! A framing for messages that all have the same length.

use crate::error::{ProtocolError, counted};
use crate::framing::{Decoder, Encoder, Frame};

/// Messages of a fixed length, with nothing between them.
///
/// A message of any other length cannot be encoded. Bytes that do not make up a whole message at the end
/// of the stream are [`Truncated`](ProtocolError::Truncated).
///
/// ```
/// use serveloop::framing::{Decoder, Encoder, FixedLength};
///
/// let mut framing = FixedLength::new(3);
/// let frame = framing.decode(b"onetw")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 3));
/// assert_eq!(framing.decode(b"tw")?, None);
///
/// let mut sent = Vec::new();
/// framing.encode(b"two", |piece| sent.extend_from_slice(piece))?;
/// assert_eq!(sent, b"two");
/// assert!(framing.encode(b"three", |_| ()).is_err());
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FixedLength {
    length: usize,
}

impl FixedLength {
    /// Creates a framing for messages of exactly `length` bytes. A connection whose
    /// [`max_frame`](crate::Limits::max_frame) is smaller than that ends with its first message.
    ///
    /// # Panics
    /// Panics if `length` is 0.
    #[must_use]
    pub fn new(length: usize) -> Self {
        assert!(
            length > 0,
            "a message of a fixed length has at least one byte"
        );
        Self { length }
    }
}

impl FixedLength {
    /// Works like [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed). The
    /// message borrows only from `data`.
    ///
    /// # Errors
    /// Never fails: any bytes are messages.
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Ok(data.get(..self.length).map(|message| Frame {
            message,
            taken: self.length,
        }))
    }
}

impl Decoder for FixedLength {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }

    fn announced(&self, _: &[u8]) -> Option<usize> {
        Some(self.length)
    }
}

impl Encoder for FixedLength {
    #[inline]
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        match payload.len() {
            length if length == self.length => write(payload),
            length if length > self.length => {
                return Err(ProtocolError::TooLong {
                    length: length as u64,
                    limit: self.length,
                });
            }
            length => {
                let length = counted(length, "byte", "bytes");
                return Err(ProtocolError::malformed(format!(
                    "a message of {length}, where each has {}",
                    self.length
                )));
            }
        }
        Ok(())
    }
}
