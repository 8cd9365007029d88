//! The replies of one connection.

use crate::load::exchange::websocket::opened;
use crate::load::exchange::{Check, QUOTED_MOST, Reader, Talk, Wrong, quoted};

/// Reads the replies of one connection, one after the other.
#[derive(Debug)]
pub(crate) struct Replies {
    /// Whether the answer to the opening has yet to come.
    is_opening: bool,
    reader: Reader,
    check: Check,
}

/// What some data contained.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// How many bytes are done with.
    pub(crate) taken: usize,
    /// How many replies ended.
    pub(crate) complete: u64,
    /// Whether the opening was answered.
    pub(crate) has_opened: bool,
    /// What the peer has to be sent.
    pub(crate) answer: Vec<u8>,
}

impl Replies {
    pub(crate) fn new(talk: &Talk) -> Self {
        Self {
            is_opening: talk.opening().is_some(),
            reader: talk.exchange.ends.reader(),
            check: Check::default(),
        }
    }

    /// Reads replies to `requests` requests that are not answered yet.
    ///
    /// # Errors
    /// Fails if a reply is wrong, or if there are more than requests.
    #[inline]
    pub(crate) fn read(&mut self, data: &[u8], requests: u64, talk: &Talk) -> Result<Read, Wrong> {
        let mut read = Read::default();
        if self.is_opening {
            let Some(size) = opened(data)? else {
                return Ok(read);
            };
            (self.is_opening, read.taken, read.has_opened) = (false, size, true);
        }

        while read.taken < data.len() {
            let rest = &data[read.taken..];
            if read.complete == requests && self.reader.checks_all_bytes() {
                return Err(format!(
                    "{} came without a request, unless replies end later",
                    quoted(rest)
                ));
            }
            if let Some(size) = self.known(rest, talk) {
                read.taken += size;
                read.complete += 1;
                continue;
            }

            let step = self
                .reader
                .read(rest, &mut self.check, talk, &mut read.answer)?;
            read.taken += step.taken;
            read.complete += u64::from(step.ended);
            if read.complete > requests {
                return Err("a reply came without a request".to_owned());
            }
            if step.taken == 0 {
                break;
            }
        }
        Ok(read)
    }

    /// Returns the size of the next reply, if it is the expected one as a whole.
    #[inline]
    fn known(&self, data: &[u8], talk: &Talk) -> Option<usize> {
        let model = talk.model().filter(|_| !talk.takes_any())?;
        let is_whole = self.reader.checks_all_bytes() && self.check.is_at_start();
        (is_whole && data.starts_with(model)).then_some(model.len())
    }
}

impl Talk {
    /// Keeps the end of what came and is no whole reply.
    #[cold]
    pub(crate) fn keep(&self, data: &[u8]) {
        let from = data.len().saturating_sub(QUOTED_MOST);
        *self.partial.borrow_mut() = data[from..].to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::exchange::{Exchange, Width};

    /// Gives a connection `stream` in pieces of `cut` bytes, together with what it left before. Returns
    /// how many replies there were, and what the server is answered.
    fn read(
        talk: &Talk,
        stream: &[u8],
        cut: usize,
        requests: u64,
    ) -> Result<(u64, Vec<u8>), Wrong> {
        let mut replies = Replies::new(talk);
        let (mut unread, mut complete, mut answer) = (Vec::new(), 0, Vec::new());
        for piece in stream.chunks(cut) {
            unread.extend_from_slice(piece);
            let read = replies.read(&unread, requests - complete, talk)?;
            unread.drain(..read.taken);
            complete += read.complete;
            answer.extend(read.answer);
        }
        assert!(unread.is_empty() || complete < requests, "{unread:?}");
        Ok((complete, answer))
    }

    /// All replies are read, however the stream is cut.
    #[track_caller]
    fn are_read(exchange: &Exchange, stream: &[u8], requests: u64) {
        for cut in 1..=stream.len() {
            let talk = Talk::new(exchange);
            let read = read(&talk, stream, cut, requests);
            assert_eq!(read.map(|it| it.0), Ok(requests), "in pieces of {cut}");
        }
    }

    /// The stream is refused for this reason, however it is cut.
    #[track_caller]
    fn is_refused(exchange: &Exchange, stream: &[u8], requests: u64, reason: &str) {
        for cut in 1..=stream.len() {
            let talk = Talk::new(exchange);
            let problem = read(&talk, stream, cut, requests).expect_err("wrong");
            assert!(problem.contains(reason), "{problem}, in pieces of {cut}");
        }
    }

    fn text(until: &str) -> Exchange {
        Exchange::text(b"x".to_vec(), until.as_bytes()).unwrap()
    }

    fn http() -> Exchange {
        Exchange::http("here", "/").unwrap()
    }

    #[test]
    fn texts_end_where_they_are_said_to() {
        are_read(&text("\r\n"), b"+PONG\r\n+PONG\r\n+PONG\r\n", 3);
        are_read(&text("END\r\n"), b"a\r\nEEND\r\na\r\nEEND\r\n", 2);
        are_read(&text("1").allow_any_reply(), b"1001,1xx1", 4);
        is_refused(
            &text("\r\n"),
            b"+PONG\r\n-ERR\r\n",
            2,
            "the first one at byte 1",
        );
        is_refused(&text("\n"), b"same\nsam\n", 2, "byte 4");
        is_refused(&text("\n"), b"sam\nsame\n", 2, "byte 4");
        is_refused(&text("\n"), b"one\nmore", 1, "\"m");
    }

    #[test]
    fn one_connection_sets_what_all_have_to_be_sent() {
        let talk = Talk::new(&text("\n"));
        assert!(read(&talk, b"one\n", 1, 1).is_ok());
        assert!(read(&talk, b"one\n", 1, 1).is_ok());
        assert!(read(&talk, b"two\n", 1, 1).is_err());

        // Two connections whose first replies come at the same time.
        let talk = Talk::new(&text("\n"));
        let (mut one, mut other) = (Replies::new(&talk), Replies::new(&talk));
        assert_eq!(one.read(b"on", 1, &talk).unwrap().taken, 2);
        assert_eq!(other.read(b"tw", 1, &talk).unwrap().taken, 2);
        assert_eq!(one.read(b"e\n", 1, &talk).unwrap().complete, 1);
        let problem = other.read(b"o\n", 1, &talk).unwrap_err();
        assert!(
            problem.contains("\"two\\n\" came instead of \"one\\n\""),
            "{problem}"
        );
    }

    #[test]
    fn lengths_have_their_width() {
        for (width, number) in [
            (Width::U8, &[3][..]),
            (Width::U16, &[0, 3]),
            (Width::U32, &[0, 0, 0, 3]),
            (Width::U64, &[0, 0, 0, 0, 0, 0, 0, 3]),
        ] {
            let exchange = Exchange::length_prefixed(b"abc", width).unwrap();
            let message = [number, b"abc"].concat();
            assert_eq!(exchange.request(), message);
            are_read(&exchange, &message.repeat(3), 3);

            let empty = vec![0; width.bytes()];
            are_read(&exchange, &empty, 1);
        }
        let exchange = Exchange::length_prefixed(b"abc", Width::U16).unwrap();
        is_refused(&exchange, b"\0\x01a\0\x02ab", 2, "byte 2");
        is_refused(&exchange, b"\0\x01a\0\x01b", 2, "byte 3");
        let any = exchange.allow_any_reply();
        are_read(&any, b"\0\x01a\0\x02ab\0\0", 3);
        assert!(Exchange::length_prefixed(&[0; 256], Width::U8).is_err());
        assert!(Exchange::length_prefixed(&[0; 255], Width::U8).is_ok());
    }

    #[test]
    fn bodies_of_http_have_a_length_or_chunks() {
        let dated = |second: u8, rest: &str| {
            format!("HTTP/1.1 200 OK\r\nDate: {second}\r\ncontent-LENGTH: 5\r\n\r\n{rest}")
        };
        let same = [dated(1, "hello"), dated(2, "hello")].concat();
        are_read(&http(), same.as_bytes(), 2);
        let other = [dated(1, "hello"), dated(2, "hellO")].concat();
        is_refused(&http(), other.as_bytes(), 2, "byte 5");
        are_read(&http().allow_any_reply(), other.as_bytes(), 2);

        let head = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        for body in [
            "5\r\nhello\r\n0\r\n\r\n",
            "2;x=y\r\nhe\r\n03\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n",
        ] {
            let stream = [head, body, &dated(3, "hello")].concat();
            are_read(&http(), stream.as_bytes(), 2);
        }
        is_refused(
            &http(),
            [head, "2\r\nhello\r\n0\r\n\r\n"].concat().as_bytes(),
            1,
            "longer",
        );
        is_refused(&http(), [head, "z\r\n"].concat().as_bytes(), 1, "chunk");
        are_read(&http(), b"HTTP/1.1 204 No Content\r\n\r\n", 1);
    }

    #[test]
    fn other_statuses_are_no_success() {
        for (reply, reason) in [
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                "status 404",
            ),
            ("HTTP/1.1 101 Switching\r\n\r\n", "status 101"),
            ("HTTP/1.1 200 OK\r\n\r\n", "without a length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "gzip"),
            ("HTTP/2 200 OK\r\n\r\n", "no reply of HTTP/1.1"),
            ("-ERR unknown\r\n", "no reply of HTTP/1.1"),
        ] {
            is_refused(&http(), reply.as_bytes(), 1, reason);
        }
        let head = [b"HTTP/1.1 200 OK\r\n", &[b'x'; 70_000][..]].concat();
        let talk = Talk::new(&http());
        assert!(read(&talk, &head, 1_000, 1).is_err());
    }

    const OPENED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn texts_of_a_web_socket_may_come_in_fragments() {
        let exchange = Exchange::websocket("here", "/", 3).unwrap();
        let frames = [
            &b"\x81\x03abc"[..],
            b"\x01\x01a\x00\x00\x89\x02hi\x80\x02bc",
            b"\x8a\x00\x81\x7e\x00\x03abc",
            b"\x81\x7f\0\0\0\0\0\0\0\x03abc",
        ];
        let stream = [OPENED, &frames.concat()].concat();
        are_read(&exchange, &stream, 4);

        let talk = Talk::new(&exchange);
        let (_, answer) = read(&talk, &stream, 7, 4).unwrap();
        assert_eq!(answer, b"\x8a\x82\0\0\0\0hi");

        for (frame, reason) in [
            (&b"\x81\x03abd"[..], "byte 3"),
            (b"\x81\x02ab", "byte 3"),
            (b"\x81\x04abcd", "byte 4"),
            (b"\x82\x03abc", "opcode 2"),
            (b"\x80\x03abc", "opcode 0"),
            (b"\xc1\x03abc", "extension"),
            (b"\x81\x83\0\0\0\0abc", "mask"),
            (b"\x88\x02\x03\xe9", "status 1001"),
            (b"\x88\x00", "closes"),
        ] {
            let stream = [OPENED, frame].concat();
            is_refused(&exchange, &stream, 1, reason);
        }
    }

    #[test]
    fn a_handshake_has_to_be_answered() {
        let exchange = Exchange::websocket("here", "/", 3).unwrap();
        let opened = String::from_utf8(OPENED.to_vec()).unwrap();
        for (from, to, reason) in [
            ("101 Switching Protocols", "426 Upgrade Required", "426"),
            ("s3pP", "s3pQ", "another Sec-WebSocket-Accept"),
            ("WebSocket\r", "h2c\r", "without Upgrade"),
            ("keep-alive, Upgrade", "close", "without Upgrade"),
        ] {
            let stream = opened.replace(from, to);
            is_refused(&exchange, stream.as_bytes(), 1, reason);
        }
        let frame = Exchange::websocket("here", "/", 70_000).unwrap();
        assert_eq!(
            frame.request()[..10],
            [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x70]
        );
        let frame = Exchange::websocket("here", "/", 300).unwrap();
        assert_eq!(frame.request()[..4], [0x81, 0xfe, 1, 0x2c]);
    }

    #[test]
    fn a_request_cannot_be_changed_by_its_parts() {
        for (host, path) in [
            ("a\r\nX: y", "/"),
            ("a", "/ HTTP/1.0"),
            ("a", ""),
            ("a", "x"),
        ] {
            assert!(Exchange::http(host, path).is_err(), "{host:?} {path:?}");
            assert!(Exchange::websocket(host, path, 1).is_err());
        }
    }

    #[test]
    fn pong_is_known_before_it_comes() {
        are_read(&Exchange::resp(), b"+PONG\r\n+PONG\r\n", 2);
        is_refused(&Exchange::resp(), b"-ERR\r\n", 1, "what the protocol says");
    }
}
