//! Headers of frames (RFC 6455, section 5.2), and the mask of a client.

use crate::close_code::CloseCode;

/// The most bytes of a control frame's payload.
pub(crate) const CONTROL_MOST: usize = 125;

/// The reserved bits of the first byte of a frame.
pub(crate) const RESERVED: u8 = 0x70;

/// The one of them that says that a message is compressed, if that was agreed on.
pub(crate) const COMPRESSED: u8 = 0x40;

/// The most bytes of the header of a frame that a server sends.
const HEADER_MOST: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) opcode: Opcode,
    /// Whether this is the last frame of its message.
    pub(crate) is_last: bool,
    /// Whether the message is compressed. Only its first frame says so.
    pub(crate) is_compressed: bool,
    pub(crate) mask: Mask,
    /// How many bytes of payload follow.
    pub(crate) length: u64,
    /// How many bytes the header has.
    pub(crate) size: usize,
}

impl Header {
    /// Parses the header at the front of `data`, or returns `None` if it is incomplete. `reserved` are the
    /// bits of the first byte that must not be set in the first frame of a message.
    ///
    /// # Errors
    /// Returns what is wrong, as soon as the byte is there that is wrong.
    pub(crate) fn parse(data: &[u8], reserved: u8) -> Result<Option<Self>, &'static str> {
        let Some((&first, rest)) = data.split_first() else {
            return Ok(None);
        };
        let opcode = Opcode::of(first & 0x0f);
        let begins = matches!(opcode, Some(Opcode::Text | Opcode::Binary));
        if first & if begins { reserved } else { RESERVED } != 0 {
            return Err("a reserved bit of a frame is set");
        }
        let opcode = opcode.ok_or("a frame of a reserved type")?;
        let is_last = first & 0x80 != 0;
        if opcode.is_control() && !is_last {
            return Err("a control frame in fragments");
        }

        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err("a frame without a mask");
        }
        if opcode.is_control() && usize::from(second & 0x7f) > CONTROL_MOST {
            return Err("a control frame of more than 125 bytes");
        }

        let Some((length, rest)) = Self::length(second & 0x7f, rest)? else {
            return Ok(None);
        };
        let Some((key, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };

        Ok(Some(Self {
            opcode,
            is_last,
            is_compressed: first & COMPRESSED != 0,
            mask: Mask(*key),
            length,
            size: data.len() - rest.len(),
        }))
    }

    /// Returns the length that begins with seven bits, and what follows it.
    fn length(bits: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, &'static str> {
        let (length, rest, least) = match bits {
            126 => match rest.split_first_chunk() {
                Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest, 126),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest, 1 << 16),
                None => return Ok(None),
            },
            _ => (u64::from(bits), rest, 0),
        };

        if length < least {
            return Err("the length of a frame in more bytes than it needs");
        }
        if length > i64::MAX as u64 {
            return Err("the length of a frame has its highest bit set");
        }
        Ok(Some((length, rest)))
    }
}

/// The header of a frame that a server sends: a whole message, or a control frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentHeader {
    bytes: [u8; HEADER_MOST],
    size: usize,
}

impl SentHeader {
    pub(crate) fn new(opcode: Opcode, length: usize) -> Self {
        let mut bytes = [0; HEADER_MOST];
        bytes[0] = 0x80 | opcode as u8;

        let size = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => {
                bytes[1] = short;
                2
            }
            (_, Ok(middle)) => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&middle.to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
                HEADER_MOST
            }
        };
        Self { bytes, size }
    }

    /// Says that the message is compressed.
    pub(crate) fn compressed(mut self) -> Self {
        self.bytes[0] |= COMPRESSED;
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// A whole close frame of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CloseFrame {
    bytes: [u8; 2 + CONTROL_MOST],
    size: usize,
}

impl CloseFrame {
    /// Creates a frame with as much of `reason` as fits. A code that no frame may say is left out, and the
    /// reason with it.
    pub(crate) fn new(code: CloseCode, reason: &str) -> Self {
        let mut bytes = [0; 2 + CONTROL_MOST];
        let mut size = 2;
        if code.is_sendable() {
            let reason = cut(reason, CONTROL_MOST - 2);
            size = 4 + reason.len();
            bytes[2..4].copy_from_slice(&code.number().to_be_bytes());
            bytes[4..size].copy_from_slice(reason.as_bytes());
        }
        let header = SentHeader::new(Opcode::Close, size - 2);
        bytes[..2].copy_from_slice(header.as_bytes());
        Self { bytes, size }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Returns whether bytes that a server sends are a close frame.
pub(crate) fn is_close(frame: &[u8]) -> bool {
    frame.first() == Some(&(0x80 | Opcode::Close as u8))
}

/// Returns the first `most` bytes of `text`, or a little less, so that no character is cut.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The key with which a client has masked a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask([u8; 4]);

impl Mask {
    /// Takes the mask off `data`, and turns the key so that it fits the byte after them.
    pub(crate) fn take_off(&mut self, data: &mut [u8]) {
        let [a, b, c, d] = self.0;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);

        let mut words = data.chunks_exact_mut(8);
        for word in &mut words {
            if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
                word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
            }
        }

        let rest = words.into_remainder();
        for (byte, key) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= key;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_is_cut() {
        assert_eq!(cut("", 3), "");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("ab\u{20ac}", 3), "ab");
        assert_eq!(cut("ab\u{20ac}", 4), "ab");
        assert_eq!(cut("ab\u{20ac}", 5), "ab\u{20ac}");
    }

    #[test]
    fn lengths_are_read_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40] {
            let mut bytes = SentHeader::new(Opcode::Binary, length).as_bytes().to_vec();
            bytes[1] |= 0x80;
            bytes.extend([1, 2, 3, 4]);
            for cut in 0..bytes.len() {
                assert_eq!(
                    Header::parse(&bytes[..cut], RESERVED),
                    Ok(None),
                    "{length} {cut}"
                );
            }
            let header = Header::parse(&bytes, RESERVED).unwrap().unwrap();
            assert_eq!((header.length, header.size), (length as u64, bytes.len()));
            assert_eq!(header.opcode, Opcode::Binary);
        }
    }

    #[test]
    fn what_is_wrong_is_wrong_at_once() {
        for (bytes, problem) in [
            (&[0xc1][..], "a reserved bit of a frame is set"),
            (&[0x83], "a frame of a reserved type"),
            (&[0x8b], "a frame of a reserved type"),
            (&[0x09], "a control frame in fragments"),
            (&[0x81, 0x05], "a frame without a mask"),
            (&[0x88, 0xfe], "a control frame of more than 125 bytes"),
            (
                &[0x82, 0xfe, 0, 125],
                "the length of a frame in more bytes than it needs",
            ),
            (
                &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                "the length of a frame in more bytes than it needs",
            ),
            (
                &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
                "the length of a frame has its highest bit set",
            ),
        ] {
            assert_eq!(Header::parse(bytes, RESERVED), Err(problem));
        }
    }

    #[test]
    fn a_mask_goes_on_where_the_last_piece_ended() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();

        for cut in 0..masked.len() {
            let (mut data, mut mask) = (masked.clone(), Mask(key));
            let (before, after) = data.split_at_mut(cut);
            mask.take_off(before);
            mask.take_off(after);
            assert_eq!(data, plain, "{cut}");
        }
    }
}
