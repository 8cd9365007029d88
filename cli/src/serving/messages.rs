//! Message framing for protocols that let the user choose it: the option `--framing`.

use clap::ValueEnum;
use serveloop::ProtocolError;
use serveloop::framing::{Decoder, Encoder, Frame, Lines};

/// Cuts a stream into the pieces in which it arrives, or into lines.
#[derive(Clone, Debug)]
pub(crate) enum Messages {
    /// Each piece as it arrives, without a newline at its end. Sent pieces get none. An empty
    /// datagram is an empty message.
    Pieces,
    /// Each line. What is sent becomes a line, of any length.
    Lines(Lines),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MessageKind {
    /// Each piece of data as it arrives
    Raw,
    /// Each line
    Line,
}

impl Messages {
    /// Cuts messages as `cut` says, with lines of at most `max_line` bytes.
    pub(crate) fn new(cut: MessageKind, max_line: usize) -> Self {
        match cut {
            MessageKind::Raw => Self::Pieces,
            MessageKind::Line => Self::Lines(Lines::new(max_line)),
        }
    }
}

impl Decoder for Messages {
    type Message<'a> = &'a [u8];

    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        match self {
            Self::Pieces => {
                let piece = data.strip_suffix(b"\n").unwrap_or(data);
                let payload = piece.strip_suffix(b"\r").unwrap_or(piece);
                let taken = data.len();

                Ok(Some(Frame {
                    message: payload,
                    taken,
                }))
            }
            Self::Lines(lines) => lines.decode(data),
        }
    }

    fn decode_eof<'a>(
        &'a mut self,
        unread: &'a [u8],
    ) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        match self {
            Self::Pieces if unread.is_empty() => Ok(None),
            Self::Pieces => self.decode(unread),
            Self::Lines(lines) => lines.decode_eof(unread),
        }
    }
}

impl Encoder for Messages {
    fn encode(&self, payload: &[u8], mut write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        if matches!(self, Self::Lines(_)) && payload.contains(&b'\n') {
            return Err(ProtocolError::malformed(
                "a line cannot contain a line feed",
            ));
        }
        write(payload);
        if matches!(self, Self::Lines(_)) {
            write(b"\n");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(messages: &mut Messages, data: &[u8], expected: Option<(&[u8], usize)>) {
        let frame = messages.decode(data).unwrap();
        assert_eq!(frame.map(|frame| (frame.message, frame.taken)), expected);
    }

    #[test]
    fn a_piece_is_a_message_less_one_newline() {
        let mut pieces = Messages::new(MessageKind::Raw, 1);
        check(&mut pieces, b"", Some((b"", 0)));

        check(&mut pieces, b"bob", Some((b"bob", 3)));
        check(&mut pieces, b"bob\n", Some((b"bob", 4)));
        check(&mut pieces, b"bob\r\n", Some((b"bob", 5)));
        check(&mut pieces, b"bob\n\n", Some((b"bob\n", 5)));
        assert_eq!(pieces.decode_eof(b"").unwrap(), None);
    }

    #[test]
    fn lines_have_a_limit_that_replies_do_not() {
        let mut lines = Messages::new(MessageKind::Line, 3);
        check(&mut lines, b"bob", None);
        check(&mut lines, b"bob\r\nann", Some((b"bob", 5)));
        assert!(lines.decode(b"robert\n").is_err());

        let mut sent = Vec::new();
        lines
            .encode(b"robert", |piece| sent.extend_from_slice(piece))
            .unwrap();
        assert_eq!(sent, b"robert\n");
        assert!(lines.encode(b"two\nlines", |_| ()).is_err());
    }
}
