//! The three wire formats of requests and replies.

use serveloop::ProtocolError;
use serveloop::framing::{Frame, LengthPrefix};

/// The word with which a client asks for a reply in the format [`Wire::Ready`], once it knows the
/// length.
pub const READY: &[u8] = b"ready";

/// The size of the length before a framed request, in bytes.
const LENGTH_SIZE: usize = 4;

/// How requests and replies travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// A length (4 bytes, big-endian) before each request and each reply. The only format that keeps
    /// requests apart however they arrive.
    #[default]
    Framed,
    /// The bare request, a segment or a line of its own. A length (4 bytes, signed, little-endian)
    /// before its reply.
    Struct,
    /// The bare request, a segment or a line of its own. The reply's length as decimal digits, which
    /// the client answers with [`READY`], and then the reply.
    Ready,
}

impl Wire {
    /// Returns the first request in `data`, or `None` while it is incomplete.
    ///
    /// # Errors
    /// Fails if the request is longer than `max` bytes.
    pub(crate) fn cut(
        self,
        data: &[u8],
        max: usize,
    ) -> Result<Option<Frame<&[u8]>>, ProtocolError> {
        match self {
            Self::Framed => LengthPrefix::u32(max).decode(data),
            Self::Struct | Self::Ready => cut_line(data, max).map(Some),
        }
    }

    /// Returns the size of the length before a request, if the format has one.
    pub(crate) fn length_size(self) -> Option<usize> {
        (self == Self::Framed).then_some(LENGTH_SIZE)
    }

    /// Returns what has arrived of the first `max` bytes of a request that is too long.
    pub(crate) fn beginning(self, data: &[u8], max: usize) -> &[u8] {
        let request = match self {
            Self::Framed => data.get(LENGTH_SIZE..).unwrap_or_default(),
            Self::Struct | Self::Ready => data,
        };
        &request[..request.len().min(max)]
    }

    /// Returns the bytes that go before a reply of `length` bytes.
    ///
    /// # Panics
    /// Panics if `length` exceeds an `i32`, which the limit on output excludes.
    pub(crate) fn header(self, length: usize) -> Vec<u8> {
        let length = i32::try_from(length).expect("the output is limited to 1 GiB");
        match self {
            Self::Framed => length.to_be_bytes().to_vec(),
            Self::Struct => length.to_le_bytes().to_vec(),
            Self::Ready => length.to_string().into_bytes(),
        }
    }
}

/// Returns the first line, whose end may be missing: a client that sends no line ends sends one
/// request at a time.
fn cut_line(data: &[u8], max: usize) -> Result<Frame<&[u8]>, ProtocolError> {
    let end = data.iter().position(|byte| *byte == b'\n');
    let line = &data[..end.unwrap_or(data.len())];
    if line.len() > max {
        return Err(ProtocolError::TooLong {
            length: line.len() as u64,
            limit: max,
        });
    }

    Ok(Frame {
        message: line.strip_suffix(b"\r").unwrap_or(line),
        taken: end.map_or(data.len(), |end| end + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(wire: Wire, data: &[u8]) -> Option<(&[u8], usize)> {
        let frame = wire.cut(data, 10).unwrap()?;
        Some((frame.message, frame.taken))
    }

    #[test]
    fn framed_requests_are_cut_by_their_length() {
        let data = b"\0\0\0\x05ls -l\0\0\0\x02id";
        for end in 0..9 {
            assert_eq!(cut(Wire::Framed, &data[..end]), None);
        }
        assert_eq!(cut(Wire::Framed, data), Some((&b"ls -l"[..], 9)));
        assert_eq!(cut(Wire::Framed, &data[9..]), Some((&b"id"[..], 6)));
    }

    #[test]
    fn raw_requests_are_pieces_or_lines() {
        for wire in [Wire::Struct, Wire::Ready] {
            assert_eq!(cut(wire, b"ls -l"), Some((&b"ls -l"[..], 5)));
            assert_eq!(cut(wire, b"ls -l\r\nid"), Some((&b"ls -l"[..], 7)));
            assert_eq!(cut(wire, b"\n"), Some((&b""[..], 1)));
        }
    }

    #[test]
    fn long_requests_are_refused() {
        for data in [&b"\0\0\0\x0b"[..], b"\xff\xff\xff\xff"] {
            assert!(Wire::Framed.cut(data, 10).is_err());
        }
        for data in [&b"0123456789a"[..], b"0123456789a\nls"] {
            assert!(Wire::Struct.cut(data, 10).is_err());
        }
    }

    #[test]
    fn lengths_are_what_each_client_unpacks() {
        let header = |wire: Wire| wire.header(0x0102);
        assert_eq!(header(Wire::Framed), [0, 0, 1, 2]);
        assert_eq!(header(Wire::Struct), [2, 1, 0, 0]);
        assert_eq!(header(Wire::Ready), b"258");
        assert_eq!(Wire::Ready.header(0), b"0");
        let most = [0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Wire::Struct.header(i32::MAX as usize), most);
    }
}
