//! The end of the pipe at which the process that serves pages asks its server.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::monitoring::{Answer, Question};

/// How long the server may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// A question or an answer with the number of the question, since one that comes too late is skipped.
#[derive(Deserialize, Serialize)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) what: T,
}

/// The end of the pipe at which is asked.
#[derive(Debug)]
pub(super) struct Asking {
    stream: BufReader<UnixStream>,
    number: u64,
}

impl Asking {
    /// Creates the end of the process that asks.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
        stream.set_write_timeout(Some(ANSWERED_WITHIN))?;
        let stream = BufReader::new(stream);
        Ok(Self { stream, number: 0 })
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, question: &Question) -> Answer {
        let answer = self.exchange(question);
        answer.unwrap_or_else(|error| match error.kind() {
            ErrorKind::WouldBlock => Answer::Error("the server does not answer".to_owned()),
            _ => Answer::Error(format!("the server does not answer: {error}")),
        })
    }

    fn exchange(&mut self, question: &Question) -> io::Result<Answer> {
        self.number += 1;
        let question = Numbered {
            number: self.number,
            what: question,
        };
        let mut line = serde_json::to_vec(&question)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;

        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let answer: Numbered<Answer> = serde_json::from_str(&line)?;
            if answer.number == self.number {
                return Ok(answer.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_that_comes_too_late_is_skipped() {
        let (ours, mut server) = UnixStream::pair().expect("a pair of sockets");
        let mut asking = Asking::new(ours).expect("a pipe");
        let answering = thread::spawn(move || {
            let lines = b"{\"number\":0,\"what\":{\"ok\":\"old\"}}\n{\"number\":1,\"what\":{\"ok\":\"new\"}}\n";
            server.write_all(lines).expect("room");
            let mut line = String::new();
            let _ = BufReader::new(server).read_line(&mut line);
            line
        });
        let answer = asking.ask(&Question::Stats).into_result();
        assert_eq!(answer.expect("an answer"), "new");
        let line = answering.join().expect("no panic");
        assert_eq!(line, "{\"number\":1,\"what\":{\"do\":\"stats\"}}\n");
        assert!(matches!(asking.ask(&Question::Stats), Answer::Error(_)));
    }
}
