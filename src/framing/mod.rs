//! Where one message ends and the next begins, in a stream that may be cut anywhere.
//!
//! A [`Framing`] is a [`Decoder`] and an [`Encoder`]. The decoder looks at unread bytes and says
//! which of them are the first message; it copies nothing, allocates nothing because of a length
//! that a peer announced, and scans no byte twice. A protocol over messages implements
//! [`FrameProtocol`] and is served through [`Framed`].
//!
//! | framing | on the wire |
//! |---|---|
//! | [`LengthPrefix`] | a length of 1, 2, 4 or 8 bytes, then the message |
//! | [`Lines`] | the message, then LF or CRLF |
//! | [`Delimited`] | the message, then a delimiter |
//!
//! This room imports `error` and `session`, and knows no socket, thread or clock.

mod delimited;
mod framed;
mod length_prefix;
mod lines;
mod search;

pub use self::delimited::Delimited;
pub use self::framed::{FrameProtocol, FrameTransport, Framed};
pub use self::length_prefix::{ByteOrder, LengthPrefix};
pub use self::lines::Lines;

use crate::error::ProtocolError;

/// Finds messages in a stream.
///
/// ```
/// use serveloop::framing::{Decoder, Frame};
/// use serveloop::ProtocolError;
///
/// /// Messages of three bytes each.
/// #[derive(Clone)]
/// struct Triples;
///
/// impl Decoder for Triples {
///     type Message<'a> = &'a [u8];
///
///     fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
///         Ok(data.get(..3).map(|message| Frame { message, taken: 3 }))
///     }
/// }
///
/// assert_eq!(Triples.decode(b"ab").unwrap(), None);
/// assert_eq!(Triples.decode(b"abcd").unwrap().unwrap().message, b"abc");
/// ```
pub trait Decoder {
    /// What a protocol is given: usually the bytes of the message, `&'a [u8]`, or what the decoder
    /// found in them, so that nothing is parsed twice. It may borrow from the unread bytes and from
    /// the decoder.
    type Message<'a>
    where
        Self: 'a;

    /// Finds the first message in `data`, which is all that is unread. `None` if it is incomplete:
    /// the next call shows the same bytes and more.
    ///
    /// # Errors
    /// The message is longer than allowed, or the bytes cannot be a message.
    fn decode<'a>(
        &'a mut self,
        data: &'a [u8],
    ) -> Result<Option<Frame<Self::Message<'a>>>, ProtocolError>;

    /// Finds the last message, when the stream has ended and `unread` is left of it. By default
    /// there is none.
    ///
    /// # Errors
    /// By default [`ProtocolError::Truncated`] if anything is left.
    fn decode_eof<'a>(
        &'a mut self,
        unread: &'a [u8],
    ) -> Result<Option<Frame<Self::Message<'a>>>, ProtocolError> {
        match unread.len() {
            0 => Ok(None),
            unread => Err(ProtocolError::Truncated { unread }),
        }
    }
}

/// Turns messages into bytes for the stream.
pub trait Encoder {
    /// Hands what makes `payload` a message on the wire to `write`, piece by piece.
    ///
    /// # Errors
    /// The payload does not fit this framing: it is longer than allowed, or holds the delimiter.
    /// Nothing was handed to `write` then.
    fn encode(&self, payload: &[u8], write: impl FnMut(&[u8])) -> Result<(), ProtocolError>;
}

/// A rule that cuts a stream into messages: a decoder for what arrives, an encoder for what is sent.
///
/// Every type that is both, and `Clone`, is a framing. Implement this trait for a framing whose two
/// halves are types of their own.
pub trait Framing {
    /// Finds messages in what arrives.
    type Decoder: Decoder;
    /// Makes messages of what is sent.
    type Encoder: Encoder;

    /// The two halves, for one connection.
    fn into_parts(self) -> (Self::Decoder, Self::Encoder);
}

impl<T: Decoder + Encoder + Clone> Framing for T {
    type Decoder = T;
    type Encoder = T;

    fn into_parts(self) -> (T, T) {
        (self.clone(), self)
    }
}

/// The messages that a framing finds, for signatures.
pub type Message<'a, F> = <<F as Framing>::Decoder as Decoder>::Message<'a>;

/// One message, found in unread bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// The message, without header or delimiter.
    pub message: M,
    /// How many unread bytes it takes up, header and delimiter included.
    pub taken: usize,
}
