//! A framing for messages that follow their length in a variable number of bytes.

use crate::error::ProtocolError;
use crate::framing::search::checked_length;
use crate::framing::{Decoder, Encoder, Frame};

/// The most bytes of a varint: ten groups of seven bits hold a `u64`.
const VARINT_MOST: usize = 10;

/// Messages preceded by their length as a varint, as Protocol Buffers writes delimited messages: seven
/// bits in each byte, the lowest first, and the top bit set in all bytes but the last (LEB128).
///
/// Each length has one encoding, the shortest: a longer one, such as `80 00` for 0, is malformed. A
/// length above the limit is refused as soon as its bytes say so, before the message arrives.
///
/// ```
/// use serveloop::ProtocolError;
/// use serveloop::framing::{Decoder, Encoder, Varint};
///
/// let mut framing = Varint::new(300);
/// let frame = framing.decode(b"\x03one\x03tw")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 4));
/// assert_eq!(framing.decode(b"\x03tw")?, None);
///
/// let overlong = framing.decode(b"\x83\x00one").unwrap_err();
/// assert!(matches!(overlong, ProtocolError::Malformed(_)));
/// let too_long = framing.decode(b"\xad\x02").unwrap_err();
/// assert!(matches!(too_long, ProtocolError::TooLong { length: 301, limit: 300 }));
///
/// let mut sent = Vec::new();
/// framing.encode(&[b'x'; 300], |piece| sent.extend_from_slice(piece))?;
/// assert_eq!((&sent[..2], sent.len()), (&b"\xac\x02"[..], 302));
/// # Ok::<(), ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Varint {
    max: usize,
}

impl Varint {
    /// Creates a framing for messages of at most `max` bytes, not counting the length.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max }
    }

    /// Reads the length of the message in front of `data`, and returns it with the length of the
    /// varint. Returns `None` if the varint is incomplete.
    #[inline]
    fn header(self, data: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
        let mut length = 0_u64;

        for (at, byte) in data.iter().enumerate() {
            // Of the tenth group of bits, only the lowest has room in a `u64`.
            if at + 1 == VARINT_MOST && *byte > 1 {
                let (length, limit) = (u64::MAX, self.max);
                return Err(ProtocolError::TooLong { length, limit });
            }
            length |= u64::from(byte & 0x7f) << (7 * at);
            let so_far = checked_length(length, self.max)?;

            match byte {
                0 if at > 0 => {
                    let problem = "the length of a message is a varint with superfluous bytes";
                    return Err(ProtocolError::malformed(problem));
                }
                0..0x80 => return Ok(Some((so_far, at + 1))),
                _ => (),
            }
        }
        Ok(None)
    }
}

impl Varint {
    /// Works like [`Decoder::decode`], for use without a [`Framed`](crate::framing::Framed). The
    /// message borrows only from `data`.
    ///
    /// # Errors
    /// Fails like [`Decoder::decode`].
    #[inline]
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        let Some((length, header)) = self.header(data)? else {
            return Ok(None);
        };
        Ok(data[header..].get(..length).map(|message| Frame {
            message,
            taken: header + length,
        }))
    }
}

impl Decoder for Varint {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }

    fn announced(&self, data: &[u8]) -> Option<usize> {
        let (length, header) = self.header(data).ok()??;
        header.checked_add(length)
    }
}

impl Encoder for Varint {
    #[inline]
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        checked_length(payload.len() as u64, self.max)?;

        let mut header = [0; VARINT_MOST];
        let mut rest = payload.len() as u64;
        let mut last = 0;
        while rest >= 0x80 {
            header[last] = rest as u8 | 0x80;
            rest >>= 7;
            last += 1;
        }
        header[last] = rest as u8;

        write(&header[..=last]);
        write(payload);
        Ok(())
    }
}
