//! The client side of the protocols in which each line gets one reply.

use std::mem;
use std::time::Duration;

use clap::ValueEnum;
use serveloop::ProtocolError;
use serveloop::protocols::counted;
use serveloop_command::READY;

use crate::protocols::Wire;

/// How long nothing must follow a length in digits for it to be complete, since it has no
/// terminator.
///
/// The server sends the length in one piece, and then nothing until it is told to go on. A piece
/// that is late is taken for a part of the output, and detected because the output is then too
/// long. To detect that, the client waits just as long after the output.
///
/// It also waits if the output is empty: a server that takes whatever it reads for one message must
/// read `ready` before the next command arrives.
const QUIET: Duration = Duration::from_millis(50);

/// The most digits of a length. No valid length has more.
const DIGITS_MOST: usize = 20;

/// The protocol that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineClient {
    /// Replies with Welcome! at first, then with Hello,NAME to each name; exit ends the conversation
    Hello,
    /// Replies with the same line
    Echo,
    /// Replies with the time and the same line; an empty line ends the conversation
    Timestamp,
    /// A person replies; each piece of data that arrives is printed as a line
    Operator,
    /// Replies with the output of the command; quit ends the conversation
    Command,
}

/// What to do with a line that was typed.
#[derive(Debug)]
pub(crate) enum Saying {
    Skip,
    Quit,
    Send(Vec<u8>, Reply),
}

/// The part of a reply that is still to come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// This many bytes, printed as a line.
    Line(u64),
    /// This many bytes, printed as they are.
    Output(Wire, u64),
    /// A length, followed by the output. The bytes are those of the length so far.
    Header(Wire, Vec<u8>),
    /// The next piece that comes, printed as a line.
    Piece,
    /// The end of the connection by the peer.
    End,
}

/// What to do after some of a reply has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Receive,
    /// If nothing more comes for this long, call [`Reply::quiet`].
    Await(Duration),
    Done,
}

impl LineClient {
    /// Returns the reply that the server sends before any request.
    pub(crate) fn greeting(self) -> Option<Reply> {
        (self == Self::Hello).then_some(Reply::Line(b"Welcome!".len() as u64))
    }

    /// Returns whether the server may send messages unasked.
    pub(crate) fn is_spontaneous(self) -> bool {
        self == Self::Operator
    }

    pub(crate) fn say(self, line: &[u8], wire: Wire) -> Saying {
        let length = line.len() as u64;
        let reply = match (self, line) {
            (Self::Timestamp, b"") | (Self::Command, b"quit") => return Saying::Quit,
            (_, b"") => return Saying::Skip,
            (Self::Hello, b"exit") => Reply::End,
            (Self::Hello, _) => Reply::Line(b"Hello,".len() as u64 + length),
            (Self::Echo, _) => Reply::Line(length),
            (Self::Timestamp, _) => {
                Reply::Line(b"[Thu Jan  1 00:00:00 1970] ".len() as u64 + length)
            }
            (Self::Operator, _) => Reply::Piece,
            (Self::Command, _) => Reply::Header(wire, Vec::new()),
        };

        Saying::Send(self.request(line, wire), reply)
    }

    fn request(self, line: &[u8], wire: Wire) -> Vec<u8> {
        if self != Self::Command || wire != Wire::Framed {
            return line.to_vec();
        }
        // Lines are far shorter, since `Unit::Line` limits them.
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes(), line].concat()
    }
}

impl Reply {
    /// Takes the bytes of this reply from the front of `data`, and appends to `printed` what is to
    /// be printed. Refuses output of more than `most` bytes.
    pub(crate) fn receive(
        &mut self,
        data: &mut &[u8],
        printed: &mut Vec<u8>,
        most: usize,
    ) -> Result<Next, ProtocolError> {
        match self {
            Self::Line(left) => {
                let done = pass(data, printed, left);
                printed.extend_from_slice(if done { b"\n" } else { b"" });
                Ok(if done { Next::Done } else { Next::Receive })
            }
            Self::Output(Wire::Ready, 0) if !data.is_empty() => {
                let more = counted(data.len(), "byte", "bytes");
                let problem = format!("{more} more than the announced length");
                Err(ProtocolError::malformed(problem))
            }
            Self::Output(wire, left) => Ok(match (pass(data, printed, left), wire) {
                (false, _) => Next::Receive,
                (true, Wire::Ready) => Next::Await(QUIET),
                (true, _) => Next::Done,
            }),

            Self::Piece => {
                printed.extend_from_slice(mem::take(data));
                printed.push(b'\n');
                Ok(Next::Done)
            }
            Self::End => Err(ProtocolError::malformed("an unexpected reply to exit")),

            Self::Header(Wire::Ready, digits) => read_digits(data, digits),
            Self::Header(wire, header) => {
                let (wire, count) = (*wire, 4 - header.len().min(4));
                header.extend(data.split_off(..count.min(data.len())).unwrap_or_default());
                let Ok(header) = <[u8; 4]>::try_from(&header[..]) else {
                    return Ok(Next::Receive);
                };

                *self = Self::Output(wire, checked(length(header, wire)?, most)?);
                self.receive(data, printed, most)
            }
        }
    }

    /// Handles silence for as long as [`Next::Await`] said: a length in digits, or the output after
    /// one, is complete. Returns what to send, and what to do next.
    pub(crate) fn quiet(&mut self, most: usize) -> Result<(&'static [u8], Next), ProtocolError> {
        let Self::Header(_, digits) = self else {
            return Ok((b"", Next::Done));
        };
        let too_long = ProtocolError::TooLong {
            length: u64::MAX,
            limit: most,
        };

        let length = String::from_utf8_lossy(digits).parse();
        let length = checked(length.map_err(|_| too_long)?, most)?;
        *self = Self::Output(Wire::Ready, length);

        let next = match length {
            0 => Next::Await(QUIET),
            _ => Next::Receive,
        };
        Ok((READY, next))
    }
}

/// Moves up to `left` bytes from `data` to `printed`, and reduces `left` by their number. Returns
/// whether none are left.
fn pass(data: &mut &[u8], printed: &mut Vec<u8>, left: &mut u64) -> bool {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let (piece, rest) = data.split_at(data.len().min(most));
    printed.extend_from_slice(piece);
    *data = rest;
    *left -= piece.len() as u64;
    *left == 0
}

fn read_digits(data: &mut &[u8], digits: &mut Vec<u8>) -> Result<Next, ProtocolError> {
    let piece = mem::take(data);
    if !piece.iter().all(u8::is_ascii_digit) {
        let found = String::from_utf8_lossy(piece);
        let text = format!("expected a length in digits, found \"{found}\"");
        return Err(ProtocolError::malformed(text));
    }

    digits.extend_from_slice(piece);
    if digits.len() > DIGITS_MOST {
        return Err(ProtocolError::malformed("a length with too many digits"));
    }
    Ok(Next::Await(QUIET))
}

fn length(header: [u8; 4], wire: Wire) -> Result<u64, ProtocolError> {
    if wire == Wire::Framed {
        return Ok(u32::from_be_bytes(header).into());
    }
    let length = i32::from_le_bytes(header);
    u64::try_from(length)
        .map_err(|_| ProtocolError::malformed(format!("a negative length: {length}")))
}

fn checked(length: u64, limit: usize) -> Result<u64, ProtocolError> {
    if length > limit as u64 {
        return Err(ProtocolError::TooLong { length, limit });
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1_000;

    /// Passes `pieces` to the reply to `line`. Returns what is printed until the reply is complete.
    #[track_caller]
    fn printed(talk: LineClient, wire: Wire, line: &str, pieces: &[&[u8]]) -> String {
        let Saying::Send(_, mut reply) = talk.say(line.as_bytes(), wire) else {
            panic!("nothing is sent");
        };
        let (mut printed, mut next) = (Vec::new(), Next::Receive);
        for piece in pieces {
            if piece.is_empty() {
                assert_eq!(next, Next::Await(QUIET));
                let (request, then) = reply.quiet(MOST).unwrap();
                assert_eq!(request.is_empty(), then == Next::Done);
                next = then;
            }

            let mut data = *piece;
            while !data.is_empty() {
                assert_ne!(next, Next::Done, "there is more");
                next = reply.receive(&mut data, &mut printed, MOST).unwrap();
            }
        }
        assert_eq!(next, Next::Done, "{reply:?}");
        String::from_utf8(printed).unwrap()
    }

    /// Checks a reply as a whole, and cut in two at every place.
    #[track_caller]
    fn check(talk: LineClient, wire: Wire, line: &str, reply: &[u8], expected: &str) {
        assert_eq!(printed(talk, wire, line, &[reply]), expected);
        for at in 1..reply.len() {
            let (first, rest) = reply.split_at(at);
            assert_eq!(printed(talk, wire, line, &[first, rest]), expected, "{at}");
        }
    }

    #[test]
    fn replies_end_where_their_length_is_known() {
        let wire = Wire::default();
        check(
            LineClient::Hello,
            wire,
            "Michael",
            b"Hello,Michael",
            "Hello,Michael\n",
        );
        check(
            LineClient::Echo,
            wire,
            "\u{e9}t\u{e9}",
            "\u{e9}t\u{e9}".as_bytes(),
            "\u{e9}t\u{e9}\n",
        );

        let stamped = "[Thu Jan  1 00:00:00 1970] hi";
        check(
            LineClient::Timestamp,
            wire,
            "hi",
            stamped.as_bytes(),
            &format!("{stamped}\n"),
        );
    }

    #[test]
    fn outputs_end_where_their_length_says() {
        check(
            LineClient::Command,
            Wire::Framed,
            "ls",
            b"\0\0\0\x03a\nb",
            "a\nb",
        );
        check(
            LineClient::Command,
            Wire::Struct,
            "ls",
            b"\x03\0\0\0a\nb",
            "a\nb",
        );

        check(LineClient::Command, Wire::Framed, "true", b"\0\0\0\0", "");
        check(LineClient::Command, Wire::Struct, "true", b"\0\0\0\0", "");
    }

    /// An empty piece represents the silence after the digits.
    #[test]
    fn digits_end_when_nothing_follows() {
        let pieces: [&[&[u8]]; 3] = [
            &[b"12", b"", b"hello, world", b""],
            &[b"1", b"2", b"", b"hello,", b" world", b""],
            &[b"00000000000000000012", b"", b"hello, world", b""],
        ];

        for pieces in pieces {
            let found = printed(LineClient::Command, Wire::Ready, "greet", pieces);
            assert_eq!(found, "hello, world");
        }
        assert_eq!(
            printed(LineClient::Command, Wire::Ready, "true", &[b"0", b"", b""]),
            ""
        );
    }

    #[test]
    fn digits_that_are_late_are_found_out() {
        let mut reply = Reply::Header(Wire::Ready, b"1".to_vec());
        reply.quiet(MOST).unwrap();
        let mut printed = Vec::new();
        let next = reply.receive(&mut &b"2"[..], &mut printed, MOST).unwrap();
        assert_eq!(next, Next::Await(QUIET));

        let more = reply.receive(&mut &b"hello, world"[..], &mut printed, MOST);
        let problem = more.unwrap_err().to_string();
        assert_eq!(
            problem,
            "malformed: 12 bytes more than the announced length"
        );
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let refused = |wire, mut data: &[u8]| {
            let mut reply = Reply::Header(wire, Vec::new());
            let outcome = reply.receive(&mut data, &mut Vec::new(), MOST);
            let outcome = outcome.and_then(|_| reply.quiet(MOST));
            outcome.unwrap_err().to_string()
        };
        assert_eq!(
            refused(Wire::Struct, b"\xff\xff\xff\xff"),
            "malformed: a negative length: -1"
        );
        assert_eq!(
            refused(Wire::Struct, b"\xff\xff\xff\x7f"),
            "message too long: 2147483647 bytes, at most 1000 allowed"
        );
        assert_eq!(
            refused(Wire::Framed, b"\xff\xff\xff\xff"),
            "message too long: 4294967295 bytes, at most 1000 allowed"
        );

        assert!(refused(Wire::Ready, b"1001").starts_with("message too long: 1001 bytes"));
        assert!(refused(Wire::Ready, b"99999999999999999999").starts_with("message too long"));
        assert_eq!(
            refused(Wire::Ready, b"-5"),
            "malformed: expected a length in digits, found \"-5\""
        );
        assert_eq!(
            refused(Wire::Ready, &[b'0'; 21]),
            "malformed: a length with too many digits"
        );
    }

    #[test]
    fn some_lines_are_not_sent() {
        let quits = |talk: LineClient, line: &str| {
            matches!(talk.say(line.as_bytes(), Wire::Framed), Saying::Quit)
        };
        assert!(quits(LineClient::Timestamp, ""));
        assert!(quits(LineClient::Command, "quit"));
        assert!(!quits(LineClient::Echo, "quit"));

        for talk in [
            LineClient::Hello,
            LineClient::Echo,
            LineClient::Operator,
            LineClient::Command,
        ] {
            assert!(matches!(talk.say(b"", Wire::Framed), Saying::Skip));
        }
    }

    #[test]
    fn commands_are_framed_where_the_wire_says_so() {
        assert_eq!(
            LineClient::Command.request(b"ls", Wire::Framed),
            b"\0\0\0\x02ls"
        );
        assert_eq!(LineClient::Command.request(b"ls", Wire::Struct), b"ls");
        assert_eq!(LineClient::Command.request(b"ls", Wire::Ready), b"ls");
        assert_eq!(LineClient::Echo.request(b"ls", Wire::Framed), b"ls");
    }
}
