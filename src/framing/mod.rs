//! Framings: where one message ends and the next begins, in a stream that may be cut anywhere.
//!
//! A [`Framing`] is a [`Decoder`] and an [`Encoder`]. The decoder looks at unread bytes and finds
//! the first message. It copies nothing, allocates nothing because of a length that a peer
//! announced, and scans no byte twice. A protocol over messages implements [`FrameProtocol`] and is
//! served through [`Framed`].
//!
//! | framing | on the wire |
//! |---|---|
//! | [`LengthPrefix`] | a length of 1 to 8 bytes, then the message |
//! | [`LengthField`] | a header with a length in it, then the rest of the message |
//! | [`Varint`] | a length of as many bytes as it needs, then the message |
//! | [`Lines`] | the message, then LF or CRLF |
//! | [`Delimited`] | the message, then a delimiter |
//! | [`Netstring`] | the length in digits, a colon, the message, then a comma |
//! | [`FixedLength`] | the message, whose length is always the same |
//!
//! A framing's limit is for what it hands over. [`max_frame`](crate::Limits::max_frame) limits what a
//! connection keeps of a message that is still incomplete, whatever the framing allows.
//!
//! This room imports `error` and `session`, and knows no socket, thread or clock.

mod delimited;
mod fixed_length;
mod framed;
mod length_field;
mod length_prefix;
mod lines;
mod netstring;
mod search;
mod varint;

pub use self::delimited::Delimited;
pub use self::fixed_length::FixedLength;
pub use self::framed::{FrameProtocol, FrameTransport, Framed};
pub use self::length_field::LengthField;
pub use self::length_prefix::{ByteOrder, LengthPrefix};
pub use self::lines::Lines;
pub use self::netstring::Netstring;
pub use self::varint::Varint;

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
    /// The message as the protocol receives it: usually its bytes, `&'a [u8]`, or what the decoder
    /// found in them, so that nothing is parsed twice. It may borrow from the unread bytes and from
    /// the decoder.
    type Message<'a>
    where
        Self: 'a;

    /// Finds the first message in `data`, which holds all unread bytes. Returns `None` if the
    /// message is incomplete; the next call shows the same bytes and more.
    ///
    /// # Errors
    /// Returns an error if the message is longer than allowed, or if the bytes cannot be a message.
    fn decode<'a>(
        &'a mut self,
        data: &'a [u8],
    ) -> Result<Option<Frame<Self::Message<'a>>>, ProtocolError>;

    /// Returns how many bytes the first message takes up, header or delimiter included, if its beginning
    /// in `data` says so. Called when [`decode`](Self::decode) has found it incomplete. By default
    /// returns `None`.
    ///
    /// A long message is then read straight into the memory of the connection, and `decode` is called
    /// again only when all of it is there ([`Transport::expect`](crate::Transport::expect)).
    fn announced(&self, data: &[u8]) -> Option<usize> {
        let _ = data;
        None
    }

    /// Finds the last message when the stream has ended with `unread` left over. By default there
    /// is no such message. In a [session](crate::Config::sessions) of a peer's datagrams, it is the
    /// end of one datagram, and the next call of `decode` begins with another.
    ///
    /// # Errors
    /// By default, returns [`ProtocolError::Truncated`] if `unread` is not empty.
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

/// Encodes messages for the stream.
///
/// ```
/// use serveloop::ProtocolError;
/// use serveloop::framing::Encoder;
///
/// /// Messages that end with a semicolon.
/// struct Statements;
///
/// impl Encoder for Statements {
///     fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
///         if payload.contains(&b';') {
///             return Err("a statement has no semicolon".into());
///         }
///         write(payload);
///         write(b";");
///         Ok(())
///     }
/// }
///
/// let mut sent = Vec::new();
/// Statements.encode(b"one", |piece| sent.extend_from_slice(piece))?;
/// assert_eq!(sent, b"one;");
/// # Ok::<(), ProtocolError>(())
/// ```
pub trait Encoder {
    /// Passes the encoded form of `payload` to `write`, piece by piece.
    ///
    /// # Errors
    /// Returns an error if the payload does not fit this framing, because it is longer than allowed
    /// or contains the delimiter. `write` is not called then.
    fn encode(&self, payload: &[u8], write: impl FnMut(&[u8])) -> Result<(), ProtocolError>;
}

/// A rule that cuts a stream into messages: a decoder for input and an encoder for output.
///
/// Every type that implements [`Decoder`], [`Encoder`] and `Clone` is a framing. Implement this
/// trait for a framing whose two halves are different types.
///
/// ```
/// use serveloop::framing::{Decoder, Framing, LengthPrefix, Lines};
///
/// /// Lines come in, and messages behind their length go out.
/// struct Gateway;
///
/// impl Framing for Gateway {
///     type Decoder = Lines;
///     type Encoder = LengthPrefix;
///
///     fn into_parts(self) -> (Lines, LengthPrefix) {
///         (Lines::new(80), LengthPrefix::u32(80))
///     }
/// }
///
/// let (mut decoder, _) = Gateway.into_parts();
/// assert_eq!(decoder.decode(b"one\n")?.unwrap().message, b"one");
/// # Ok::<(), serveloop::ProtocolError>(())
/// ```
pub trait Framing {
    /// The half that finds messages in the input.
    type Decoder: Decoder;
    /// The half that encodes messages for the output.
    type Encoder: Encoder;

    /// Returns the two halves, for one connection.
    fn into_parts(self) -> (Self::Decoder, Self::Encoder);
}

impl<T: Decoder + Encoder + Clone> Framing for T {
    type Decoder = T;
    type Encoder = T;

    fn into_parts(self) -> (T, T) {
        (self.clone(), self)
    }
}

/// The type of the messages that a framing finds, for use in signatures.
pub type Message<'a, F> = <<F as Framing>::Decoder as Decoder>::Message<'a>;

/// One message, found in unread bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// The message, without header or delimiter.
    pub message: M,
    /// How many unread bytes the message takes up, including its header or delimiter.
    pub taken: usize,
}
