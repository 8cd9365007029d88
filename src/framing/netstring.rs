//! A framing for netstrings: messages that follow their length in decimal digits.

use std::io::Write;

use crate::error::ProtocolError;
use crate::framing::search::checked_length;
use crate::framing::{Decoder, Encoder, Frame};

/// The most bytes of a header: the digits of a `u64`, and the colon.
const HEADER_MOST: usize = 21;

/// [Netstrings](https://cr.yp.to/proto/netstrings.txt): the length of the message in decimal digits,
/// a colon, the message, a comma. `12:hello world!,` is a netstring, and `0:,` an empty one. A length
/// has no sign, no spaces and no leading zeros.
///
/// The comma shows that sender and receiver agree about the length: a stream in which it is missing
/// is malformed, as is a header with anything but digits and a colon. A length above the limit is
/// refused as soon as its digits say so, before the message arrives.
///
/// ```
/// use serveloop::ProtocolError;
/// use serveloop::framing::{Decoder, Encoder, Netstring};
///
/// let mut framing = Netstring::new(80);
/// let frame = framing.decode(b"3:one,3:tw")?.unwrap();
/// assert_eq!((frame.message, frame.taken), (&b"one"[..], 6));
/// assert_eq!(framing.decode(b"3:tw")?, None);
///
/// let malformed = framing.decode(b"3:three,").unwrap_err();
/// assert!(matches!(malformed, ProtocolError::Malformed(_)));
/// let too_long = framing.decode(b"81").unwrap_err();
/// assert!(matches!(too_long, ProtocolError::TooLong { length: 81, limit: 80 }));
///
/// let mut sent = Vec::new();
/// framing.encode(b"three", |piece| sent.extend_from_slice(piece))?;
/// assert_eq!(sent, b"5:three,");
/// # Ok::<(), ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Netstring {
    max: usize,
}

impl Netstring {
    /// Creates a framing for messages of at most `max` bytes, not counting the length and the comma.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max }
    }

    /// Reads the length of the message in front of `data`, and returns it with the length of the
    /// header. Returns `None` if the header is incomplete.
    fn header(self, data: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
        let mut length = 0_usize;

        for (at, byte) in data.iter().enumerate() {
            match byte {
                b':' if at > 0 => return Ok(Some((length, at + 1))),
                b'0'..=b'9' if at > 0 && length == 0 => {
                    let problem = "the length of a netstring has a leading zero";
                    return Err(ProtocolError::malformed(problem));
                }
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let announced = (length as u64).checked_mul(10);
                    let announced = announced.and_then(|tens| tens.checked_add(digit));
                    let announced = announced.ok_or(ProtocolError::TooLong {
                        length: u64::MAX,
                        limit: self.max,
                    })?;
                    length = checked_length(announced, self.max)?;
                }
                byte => {
                    let problem = format!("byte 0x{byte:02x} in the length of a netstring");
                    return Err(ProtocolError::malformed(problem));
                }
            }
        }
        Ok(None)
    }
}

impl Netstring {
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
        let Some((message, rest)) = data[header..].split_at_checked(length) else {
            return Ok(None);
        };

        match rest.first() {
            None => Ok(None),
            Some(b',') => Ok(Some(Frame {
                message,
                taken: header + length + 1,
            })),
            Some(byte) => Err(ProtocolError::malformed(format!(
                "a netstring ends with byte 0x{byte:02x}, not with a comma"
            ))),
        }
    }
}

impl Decoder for Netstring {
    type Message<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        Self::decode(self, data)
    }

    fn announced(&self, data: &[u8]) -> Option<usize> {
        let (length, header) = self.header(data).ok()??;
        header.checked_add(length)?.checked_add(1)
    }
}

impl Encoder for Netstring {
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        checked_length(payload.len() as u64, self.max)?;

        let mut header = [0; HEADER_MOST];
        let mut room = &mut header[..];
        write!(room, "{}:", payload.len()).expect("room for the digits of every length");
        let left = room.len();

        write(&header[..HEADER_MOST - left]);
        write(payload);
        write(b",");
        Ok(())
    }
}
