//! A framing for messages that follow their length.

use crate::error::{ProtocolError, counted};
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

/// Messages preceded by their length: an unsigned integer of 1 to 8 bytes. By default it counts the
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
///
/// If the length counts itself too, or anything else but the message, say so:
///
/// ```
/// use serveloop::framing::{Decoder, Encoder, LengthPrefix};
///
/// let mut framing = LengthPrefix::u24(1_000).counting_itself();
/// let frame = framing.decode(b"\0\0\x06one")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 6));
/// assert!(framing.decode(b"\0\0\x02").is_err(), "less than the length itself");
///
/// // A length of 0 means one byte, so that one byte announces up to 256.
/// let mut sent = Vec::new();
/// LengthPrefix::u8(256).length_adjustment(1).encode(&[b'x'; 256], |piece| sent.extend_from_slice(piece))?;
/// assert_eq!((sent[0], sent.len()), (255, 257));
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
///
/// [`LengthField`](crate::framing::LengthField) is for a length inside a longer header.
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefix {
    length: Length,
    max: usize,
}

impl LengthPrefix {
    /// Creates a framing with lengths of `width` bytes, for messages of at most `max` bytes, not
    /// counting the length.
    ///
    /// # Panics
    /// Panics if `width` is 0 or more than 8.
    #[must_use]
    pub fn new(width: usize, order: ByteOrder, max: usize) -> Self {
        let length = Length::new(width, order);
        Self { length, max }
    }

    /// Creates a framing with a length of one byte, for messages of at most `max` bytes.
    #[must_use]
    pub fn u8(max: usize) -> Self {
        Self::new(1, ByteOrder::BigEndian, max)
    }

    /// Creates a framing with a length of two bytes, big-endian, for messages of at most `max` bytes.
    #[must_use]
    pub fn u16(max: usize) -> Self {
        Self::new(2, ByteOrder::BigEndian, max)
    }

    /// Creates a framing with a length of three bytes, big-endian, for messages of at most `max`
    /// bytes.
    #[must_use]
    pub fn u24(max: usize) -> Self {
        Self::new(3, ByteOrder::BigEndian, max)
    }

    /// Creates the most common framing: a length of four bytes, big-endian, for messages of at most
    /// `max` bytes.
    #[must_use]
    pub fn u32(max: usize) -> Self {
        Self::new(4, ByteOrder::BigEndian, max)
    }

    /// Makes the lengths count their own bytes too. A length that is smaller than that is malformed.
    /// This is an [adjustment](Self::length_adjustment) by the negative width.
    #[must_use]
    pub fn counting_itself(self) -> Self {
        self.length_adjustment(-(self.length.width() as i32))
    }

    /// Sets what is added to a length to get the number of bytes in the message, 0 by default. Negative
    /// if the length counts more than the message, positive if it counts less.
    ///
    /// A length that announces fewer than 0 bytes is malformed, and so is a message to encode that is
    /// shorter than a positive adjustment.
    ///
    /// # Panics
    /// Panics if even the largest length announces fewer than 0 bytes.
    #[must_use]
    pub fn length_adjustment(mut self, adjustment: i32) -> Self {
        self.length.adjust(adjustment);
        self
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
        let width = self.length.width();
        let Some((field, rest)) = data.split_at_checked(width) else {
            return Ok(None);
        };
        let announced = self.length.read(field, self.max)?;
        let length = checked_length(announced, self.max)?;
        Ok(rest.get(..length).map(|payload| Frame {
            message: payload,
            taken: width + length,
        }))
    }
}

impl Decoder for LengthPrefix {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }

    fn announced(&self, data: &[u8]) -> Option<usize> {
        let width = self.length.width();
        let length = self.length.read(data.get(..width)?, self.max).ok()?;
        width.checked_add(usize::try_from(length).ok()?)
    }
}

impl Encoder for LengthPrefix {
    #[inline]
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        let length = payload.len() as u64;
        let most = usize::try_from(self.length.most()).unwrap_or(usize::MAX);
        checked_length(length, self.max.min(most))?;

        let field = self.length.written(length)?;
        write(&field[..self.length.width()]);
        write(payload);
        Ok(())
    }
}

/// How the number of bytes behind a length is written: the length's size, its byte order, and the
/// difference between the two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    width: u8,
    order: ByteOrder,
    adjustment: i32,
}

impl Length {
    pub(super) fn new(width: usize, order: ByteOrder) -> Self {
        assert!(
            matches!(width, 1..=8),
            "a length has 1 to 8 bytes, not {width}"
        );
        Self {
            width: width as u8,
            order,
            adjustment: 0,
        }
    }

    pub(super) fn adjust(&mut self, adjustment: i32) {
        let least = u64::from(adjustment.min(0).unsigned_abs());
        let width = self.width;
        assert!(
            least <= self.largest(),
            "a length of {} cannot count {} besides the message",
            counted(width, "byte", "bytes"),
            counted(least, "byte", "bytes")
        );
        self.adjustment = adjustment;
    }

    #[inline]
    fn largest(self) -> u64 {
        u64::MAX >> (64 - 8 * self.width)
    }

    #[inline]
    pub(super) fn width(self) -> usize {
        self.width.into()
    }

    /// Returns how many bytes follow the length that `field` holds. `limit` is for the error if that
    /// exceeds a `u64`.
    #[inline]
    pub(super) fn read(self, field: &[u8], limit: usize) -> Result<u64, ProtocolError> {
        let join = |length: u64, byte: &u8| length << 8 | u64::from(*byte);
        // Four bytes are by far the most common.
        let length = match (<[u8; 4]>::try_from(field), self.order) {
            (Ok(four), ByteOrder::BigEndian) => u32::from_be_bytes(four).into(),
            (Ok(four), ByteOrder::LittleEndian) => u32::from_le_bytes(four).into(),
            (_, ByteOrder::BigEndian) => field.iter().fold(0, join),
            (_, ByteOrder::LittleEndian) => field.iter().rev().fold(0, join),
        };

        let adjusted = length.checked_add_signed(self.adjustment.into());
        adjusted.ok_or_else(|| self.impossible(length, limit))
    }

    #[cold]
    fn impossible(self, length: u64, limit: usize) -> ProtocolError {
        if self.adjustment > 0 {
            let length = u64::MAX;
            return ProtocolError::TooLong { length, limit };
        }
        let least = self.adjustment.unsigned_abs();
        ProtocolError::malformed(format!("a length of {length}, which is at least {least}"))
    }

    /// Returns the largest number of bytes that can be announced.
    #[inline]
    pub(super) fn most(self) -> u64 {
        let adjustment = self.adjustment.into();
        self.largest().saturating_add_signed(adjustment)
    }

    /// Returns the length to write before `following` bytes, of which there are at most
    /// [`most`](Self::most): the first bytes of what is returned, as many as a length has.
    #[inline]
    pub(super) fn written(self, following: u64) -> Result<[u8; 8], ProtocolError> {
        let Some(length) = following.checked_add_signed(-i64::from(self.adjustment)) else {
            return Err(self.too_short(following));
        };
        Ok(match self.order {
            ByteOrder::BigEndian => (length << (64 - 8 * self.width)).to_be_bytes(),
            ByteOrder::LittleEndian => length.to_le_bytes(),
        })
    }

    #[cold]
    fn too_short(self, following: u64) -> ProtocolError {
        let (following, least) = (counted(following, "byte", "bytes"), self.adjustment);
        ProtocolError::malformed(format!(
            "{following} behind a length, which announces at least {least}"
        ))
    }
}
