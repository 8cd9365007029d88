//! The framing of messages, in both directions of a conversation.

use serveloop::ProtocolError;
use serveloop::framing::{Decoder, Encoder, Frame, LengthPrefix, Lines, Netstring, Varint};

/// How input becomes bytes to send, and received bytes become messages to print.
#[derive(Clone, Debug)]
pub(crate) enum WireFraming {
    /// Bytes, as they come.
    Raw,
    /// Lines.
    Line(Lines),
    /// Each line after its length.
    Length(LengthPrefix),
    /// Each line after its length in a variable number of bytes.
    Varint(Varint),
    /// Each line after its length in digits.
    Netstring(Netstring),
}

impl WireFraming {
    /// Returns what is printed after each message.
    pub(crate) fn line_end(&self) -> &'static [u8] {
        match self {
            Self::Raw => b"",
            _ => b"\n",
        }
    }
}

impl Decoder for WireFraming {
    type Message<'a> = &'a [u8];

    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        match self {
            Self::Raw => Ok(Some(Frame {
                message: data,
                taken: data.len(),
            })),
            Self::Line(lines) => lines.decode(data),
            Self::Length(length) => length.decode(data),
            Self::Varint(varint) => varint.decode(data),
            Self::Netstring(netstring) => netstring.decode(data),
        }
    }
}

impl Encoder for WireFraming {
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        match self {
            Self::Raw => {
                write(payload);
                Ok(())
            }
            Self::Line(lines) => lines.encode(payload, write),
            Self::Length(length) => length.encode(payload, write),
            Self::Varint(varint) => varint.encode(payload, write),
            Self::Netstring(netstring) => netstring.encode(payload, write),
        }
    }
}
