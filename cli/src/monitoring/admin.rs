//! The protocol of `--admin`: a question in each line, and an answer in a line, as JSON.

use std::sync::Arc;

use serveloop::ProtocolError;
use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};

use crate::monitoring::places::Place;
use crate::monitoring::source::Source;
use crate::monitoring::{Answer, Question};

/// The longest question, in bytes.
const QUESTION_MOST: usize = 4 * 1024;

/// Answers the questions of one client. The first line that is none ends the connection: a browser that
/// was made to send something here gets no further than the first line of its request.
#[derive(Debug)]
pub(super) struct Admin {
    source: Source,
    place: Arc<Place>,
}

impl Admin {
    pub(super) fn framed(source: Source, place: Arc<Place>) -> Framed<Self> {
        Framed::new(Lines::new(QUESTION_MOST), Self { source, place })
    }
}

impl FrameProtocol for Admin {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        let question: Question = serde_json::from_slice(line)
            .map_err(|error| ProtocolError::malformed(format!("not a question: {error}")))?;
        send(&self.source.ask(&question), frames)?;
        self.place.note_question();
        Ok(())
    }

    fn input_rejected(&mut self, error: &ProtocolError, frames: &mut FrameTransport<'_, Lines>) {
        // The connection ends anyway.
        let _ = send(&Answer::Error(error.to_string()), frames);
    }
}

fn send(answer: &Answer, frames: &mut FrameTransport<'_, Lines>) -> Result<(), ProtocolError> {
    let written = serde_json::to_vec(answer);
    let mut line = written.map_err(|error| ProtocolError::Other(error.into()))?;
    line.push(b'\n');
    frames.transport().write_owned(line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serveloop::testing::MemorySession;
    use serveloop::{Config, Server};

    use super::*;
    use crate::monitoring::About;
    use crate::signals::Leaving;

    fn session() -> MemorySession<Framed<Admin>> {
        let server = Server::bind(
            &["tcp://127.0.0.1:0".parse().expect("an address")],
            Config::default(),
        );
        let monitor = server.expect("a server").monitor();
        let about = About {
            protocol: "echo",
            uris: Vec::new(),
        };
        let source = Source::new(monitor, Leaving::default(), about);
        MemorySession::new(Admin::framed(source, Place::of_its_own()))
    }

    #[test]
    fn a_line_is_answered_by_a_line() {
        let mut session = session();
        session.receive(b"{\"do\":\"stats\"}\n{\"do\":\"show\",\"id\":7}\n");
        let sent = String::from_utf8(session.sent()).expect("text");
        let lines: Vec<_> = sent.lines().collect();
        assert_eq!(lines.len(), 2, "{sent}");
        assert!(lines[0].starts_with("{\"ok\":{"), "{sent}");
        assert_eq!(
            lines[1],
            "{\"unknown\":\"no open connection has the id 7\"}"
        );
        assert!(session.reason().is_none());
    }

    /// What follows such a line, as the body of a request that a page made a browser send, has no effect.
    #[test]
    fn a_browser_gets_no_further_than_its_first_line() {
        let mut session = session();
        session.receive(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n{\"do\":\"stats\"}\n");
        let sent = String::from_utf8(session.sent()).expect("text");
        assert_eq!(sent.lines().count(), 1, "{sent}");
        assert!(sent.starts_with("{\"error\":\""), "{sent}");
        assert!(session.reason().is_some());
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let mut session = session();
        session.receive(&vec![b'x'; 2 * QUESTION_MOST]);
        let sent = String::from_utf8(session.sent()).expect("text");
        assert!(sent.starts_with("{\"error\":\""), "{sent}");
        assert!(session.reason().is_some());
    }
}
