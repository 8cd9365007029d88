//! A protocol for one HTTP request and its response.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::fetch::body::Body;
use crate::fetch::head::Head;
use crate::fetch::head_reader::HeadReader;
use crate::outbound::Ending;

/// How many interim responses may come before the final one.
const INTERIM_MOST: usize = 16;

/// The receiver of a response.
pub(crate) trait Recipient {
    /// Receives the head. Returns whether the body is wanted.
    ///
    /// # Errors
    /// Fails if the response is not what was asked for.
    fn head_received(&mut self, head: Head) -> Result<bool, ProtocolError>;

    /// Receives a piece of the body.
    ///
    /// # Errors
    /// Fails if the piece cannot be written. Nothing more is read then.
    fn body_received(&mut self, content: &[u8]) -> Result<(), ProtocolError>;
}

impl<R: Recipient> Recipient for Rc<RefCell<R>> {
    fn head_received(&mut self, head: Head) -> Result<bool, ProtocolError> {
        self.borrow_mut().head_received(head)
    }

    fn body_received(&mut self, content: &[u8]) -> Result<(), ProtocolError> {
        self.borrow_mut().body_received(content)
    }
}

/// Sends a request and passes the response to `recipient`.
#[derive(Debug)]
pub(crate) struct Get<R> {
    request: Vec<u8>,
    recipient: R,
    ending: Ending,
    deadline: Option<Instant>,
    interim: usize,
    heads: HeadReader,
    /// `None` until the head has come.
    body: Option<Body>,
}

impl<R: Recipient> Get<R> {
    /// Returns a protocol that sends `request`. The response must be complete by `deadline`.
    pub(crate) fn new(
        request: Vec<u8>,
        deadline: Option<Instant>,
        recipient: R,
        ending: Ending,
    ) -> Self {
        Self {
            request,
            recipient,
            ending,
            deadline,
            interim: 0,
            heads: HeadReader::default(),
            body: None,
        }
    }

    fn receive_head(&mut self, data: &[u8]) -> Result<usize, ProtocolError> {
        let Some((head, length)) = self.heads.read(data)? else {
            return Ok(0);
        };

        if head.is_interim() {
            self.interim += 1;
            if self.interim > INTERIM_MOST {
                return Err(ProtocolError::malformed("too many interim responses"));
            }
            return Ok(length);
        }

        let body = head.body();
        let is_wanted = self.recipient.head_received(head)?;
        self.body = Some(if is_wanted { body } else { Body::Sized(0) });
        Ok(length)
    }
}

impl<R: Recipient> Protocol for Get<R> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        transport.write(&self.request);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let taken = match &mut self.body {
            None => self.receive_head(data)?,
            Some(body) => {
                let piece = body.decode(data)?;
                self.recipient.body_received(piece.content)?;
                piece.taken
            }
        };

        if self.body.as_ref().is_some_and(Body::is_complete) {
            transport.close();
        }
        Ok(taken)
    }

    fn eof_received(
        &mut self,
        _: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let early = ProtocolError::other("the connection ended before the head of the response");
        self.body.as_ref().ok_or(early)?.end()?;
        transport.close();
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.ending
            .fail("the download was not complete within --max-time");
        transport.abort();
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.ending.note(ended.reason());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use serveloop::testing::{MemorySession, SplitChecker};
    use serveloop::{CloseReason, Config, Limits};

    use super::*;
    use crate::fetch::head_reader::HEAD_MOST;

    /// Records what a recipient was told.
    #[derive(Debug, Default)]
    struct Told(Vec<u8>);

    impl Recipient for Told {
        fn head_received(&mut self, head: Head) -> Result<bool, ProtocolError> {
            self.0.extend_from_slice(format!("({head})").as_bytes());
            Ok(head.is_success())
        }

        fn body_received(&mut self, content: &[u8]) -> Result<(), ProtocolError> {
            self.0.extend_from_slice(content);
            Ok(())
        }
    }

    /// A recipient that checks on drop that it was told the same as all others.
    struct Compared(Told);

    impl Recipient for Compared {
        fn head_received(&mut self, head: Head) -> Result<bool, ProtocolError> {
            self.0.head_received(head)
        }

        fn body_received(&mut self, content: &[u8]) -> Result<(), ProtocolError> {
            self.0.body_received(content)
        }
    }

    impl Drop for Compared {
        fn drop(&mut self) {
            if !thread::panicking() {
                assert_eq!(String::from_utf8_lossy(&self.0.0), "(200 OK)hello");
            }
        }
    }

    fn get() -> Get<Told> {
        Get::new(b"GET".to_vec(), None, Told::default(), Ending::default())
    }

    fn received(response: &str) -> (String, String) {
        let mut session = MemorySession::new(get());
        assert_eq!(session.sent(), b"GET");
        session.receive(response.as_bytes());
        session.receive_eof();
        let told = String::from_utf8_lossy(&session.protocol().recipient.0).into_owned();
        (told, session.reason().expect("an end").to_string())
    }

    const WELL: [&str; 8] = [
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\r\nX: a\r\n\tb\nContent-Length: 5,\r\n\nhello",
        "HTTP/1.1 102 \n\n\nHTTP/1.1  200 OK\nTransfer-Encoding : chunked\n\n5\nhello\n0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
    ];

    #[test]
    fn bodies_end_where_they_should() {
        for response in WELL {
            let (told, reason) = received(response);
            assert_eq!(told, "(200 OK)hello", "{response}");
            assert!(reason.starts_with("closed"), "{reason}");
        }

        let (told, _) = received("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(told, "(204 No Content)");
        let (told, _) = received("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(told, "(200 OK)");
    }

    #[test]
    fn responses_do_not_depend_on_how_they_are_cut() {
        for response in WELL {
            let get = || {
                let recipient = Compared(Told::default());
                Get::new(b"GET".to_vec(), None, recipient, Ending::default())
            };
            SplitChecker::new(get)
                .stream()
                .check(&[response.as_bytes()]);
        }
    }

    #[test]
    fn an_end_that_comes_early_is_an_error() {
        let cases = [
            ("", "before the head"),
            ("HTTP/1.1 200 OK\r\n", "before the head"),
            ("HTTP/1.1 100 Continue\r\n\r\n", "before the head"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
                "4 bytes before the end of the body",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                "before the last chunk",
            ),
        ];

        for (response, problem) in cases {
            let (_, reason) = received(response);
            assert!(reason.contains(problem), "{reason}");
        }
    }

    #[test]
    fn heads_have_a_limit() {
        let (_, reason) = received(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MOST)));
        assert!(reason.contains("message too long"), "{reason}");
        let (_, reason) = received(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(17));
        assert!(reason.contains("too many interim responses"), "{reason}");
    }

    #[test]
    fn a_response_that_takes_too_long_is_given_up() {
        let ending = Ending::default();
        let start = Instant::now();
        let deadline = start + Duration::from_secs(60);
        let get = Get::new(Vec::new(), Some(deadline), Told::default(), ending.clone());
        let config = Config {
            limits: Limits {
                first_message_timeout: None,
                message_timeout: None,
                idle_timeout: None,
                ..Limits::default()
            },
            ..Config::default()
        };

        let mut session = MemorySession::with_config(get, config);
        session.receive(b"HTTP/1.1 200 OK\r\n");
        session.advance(Duration::from_secs(58));
        assert!(session.reason().is_none());
        session.advance(Duration::from_secs(3));
        assert!(matches!(session.reason(), Some(CloseReason::Aborted)));
        assert!(format!("{ending:?}").contains("not complete within --max-time"));
    }
}
