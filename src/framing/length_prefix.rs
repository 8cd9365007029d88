//! A framing for messages that follow their length.

use crate::error::ProtocolError;
use crate::framing::search::checked_length;
use crate::framing::{Decoder, Encoder, Frame};

/// The byte order of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The most significant byte first, as is usual in network protocols.
    BigEndian,
    /// The least significant byte first.
    LittleEndian,
}

/// Messages preceded by their length: an unsigned integer of 1, 2, 4 or 8 bytes that counts the
/// message alone. A length with the sign bit set has no special meaning and is simply large.
///
/// ```
/// use serveloop::framing::{ByteOrder, Decoder, LengthPrefix};
///
/// let mut framing = LengthPrefix::new(2, ByteOrder::LittleEndian, 1_000);
/// let frame = framing.decode(b"\x03\x00one\x03")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 5));
/// assert!(framing.decode(b"\xff\xff").is_err(), "longer than allowed");
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefix {
    width: usize,
    order: ByteOrder,
    max: usize,
}

impl LengthPrefix {
    /// Creates a framing with lengths of `width` bytes, for messages of at most `max` bytes.
    ///
    /// # Panics
    /// Panics if `width` is not 1, 2, 4 or 8.
    #[must_use]
    pub fn new(width: usize, order: ByteOrder, max: usize) -> Self {
        assert!(
            matches!(width, 1 | 2 | 4 | 8),
            "a length has 1, 2, 4 or 8 bytes, not {width}"
        );
        Self { width, order, max }
    }

    /// Creates the most common framing: a length of four bytes, big-endian, for messages of at most
    /// `max` bytes.
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

impl LengthPrefix {
    /// Works like [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed). The
    /// message borrows only from `data`.
    ///
    /// # Errors
    /// Fails like [`Decoder::decode`].
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        let Some((header, rest)) = data.split_at_checked(self.width) else {
            return Ok(None);
        };
        let announced = self.length(header);
        let length = checked_length(announced, self.max)?;
        Ok(rest.get(..length).map(|payload| Frame {
            message: payload,
            taken: self.width + length,
        }))
    }
}

impl Decoder for LengthPrefix {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }
}

impl Encoder for LengthPrefix {
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
