//! A framing for messages that have their length inside a header.

use crate::error::{ProtocolError, counted};
use crate::framing::length_prefix::Length;
use crate::framing::search::checked_length;
use crate::framing::{ByteOrder, Decoder, Encoder, Frame};

/// Messages with a header that has their length at a fixed offset. The message is the whole frame:
/// what precedes the length, the length itself, and what follows it.
///
/// An unsigned integer of 1 to 8 bytes counts, by default, the bytes that follow it. The names are
/// those that other libraries have for such formats:
///
/// | protocol | offset | width | length adjustment |
/// |---|---|---|---|
/// | HTTP/2: length of the payload, then 6 other bytes of header | 0 | 3 | 6 |
/// | MySQL: length of the payload (little-endian), a sequence number | 0 | 3 | 1 |
/// | PostgreSQL: a type, a length that counts itself | 1 | 4 | -4, `counting_itself` |
/// | TPKT: two bytes, a length that counts the frame | 2 | 2 | -4, `counting_frame` |
///
/// A protocol that sends a message builds its header with any bytes in place of the length; the framing
/// writes the length there. [`LengthPrefix`](crate::framing::LengthPrefix) is for messages that have no
/// other header.
///
/// ```
/// use serveloop::framing::{ByteOrder, Decoder, Encoder, LengthField};
///
/// // As in PostgreSQL: a type, and a length that counts itself.
/// let mut framing = LengthField::new(1, 4, ByteOrder::BigEndian, 1_000).counting_itself();
/// let frame = framing.decode(b"Q\0\0\0\x0dSELECT 1;X\0\0")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"Q\0\0\0\x0dSELECT 1;"[..], 14));
/// assert!(framing.decode(b"X\0\0\0\x03").is_err(), "less than the length itself");
///
/// let mut sent = Vec::new();
/// framing.encode(b"X????", |piece| sent.extend_from_slice(piece))?;
/// assert_eq!(sent, b"X\0\0\0\x04");
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LengthField {
    offset: usize,
    length: Length,
    max: usize,
}

impl LengthField {
    /// Creates a framing with lengths of `width` bytes that follow `offset` bytes of header, for
    /// messages of at most `max` bytes, header and length included.
    ///
    /// # Panics
    /// Panics if `width` is 0 or more than 8, and if `max` has no room for the length.
    #[must_use]
    pub fn new(offset: usize, width: usize, order: ByteOrder, max: usize) -> Self {
        let length = Length::new(width, order);
        let header = offset.saturating_add(width);
        assert!(
            header <= max,
            "a message of at most {} has no room for a length after {}",
            counted(max, "byte", "bytes"),
            counted(offset, "byte", "bytes")
        );
        Self {
            offset,
            length,
            max,
        }
    }

    /// Makes the lengths count their own bytes too. This is an
    /// [adjustment](Self::length_adjustment) by the negative width.
    #[must_use]
    pub fn counting_itself(self) -> Self {
        self.length_adjustment(-(self.length.width() as i32))
    }

    /// Makes the lengths count the whole frame, from its first byte on. This is an
    /// [adjustment](Self::length_adjustment) by the negative sum of offset and width.
    ///
    /// # Panics
    /// Panics if the header is longer than the largest length, or than 2 GiB.
    #[must_use]
    pub fn counting_frame(self) -> Self {
        let header = i32::try_from(self.header()).expect("a header of less than 2 GiB");
        self.length_adjustment(-header)
    }

    /// Sets what is added to a length to get the number of bytes that follow it, 0 by default. Negative
    /// if the length counts more than that, positive if it counts less.
    ///
    /// A length that announces fewer than 0 bytes is malformed, and so is a message to encode that is
    /// shorter than its header or than a positive adjustment.
    ///
    /// # Panics
    /// Panics if even the largest length announces fewer than 0 bytes.
    #[must_use]
    pub fn length_adjustment(mut self, adjustment: i32) -> Self {
        self.length.adjust(adjustment);
        self
    }

    /// Returns the number of bytes up to the end of the length.
    #[inline]
    fn header(self) -> usize {
        self.offset + self.length.width()
    }
}

impl LengthField {
    /// Works like [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed). The
    /// message borrows only from `data`.
    ///
    /// # Errors
    /// Fails like [`Decoder::decode`].
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        let Some(field) = data.get(self.offset..self.header()) else {
            return Ok(None);
        };

        let following = self.length.read(field, self.max)?;
        let announced = following.checked_add(self.header() as u64);
        let announced = announced.ok_or(ProtocolError::TooLong {
            length: u64::MAX,
            limit: self.max,
        })?;

        let taken = checked_length(announced, self.max)?;
        Ok(data.get(..taken).map(|message| Frame { message, taken }))
    }
}

impl Decoder for LengthField {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }

    fn announced(&self, data: &[u8]) -> Option<usize> {
        let field = data.get(self.offset..self.header())?;
        let following = self.length.read(field, self.max).ok()?;
        self.header().checked_add(usize::try_from(following).ok()?)
    }
}

impl Encoder for LengthField {
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        let Some((header, rest)) = payload.split_at_checked(self.header()) else {
            let (given, header) = (counted(payload.len(), "byte", "bytes"), self.header());
            let problem = format!("a message of {given}, without the {header} of its header");
            return Err(ProtocolError::malformed(problem));
        };
        let most = self.length.most().saturating_add(header.len() as u64);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        checked_length(payload.len() as u64, self.max.min(most))?;

        let field = self.length.written(rest.len() as u64)?;
        write(&header[..self.offset]);
        write(&field[..self.length.width()]);
        write(rest);
        Ok(())
    }
}
