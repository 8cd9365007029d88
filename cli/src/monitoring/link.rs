//! The pipe between a server that forks and the process that serves its pages.
//!
//! A process that forks may have no second thread, since its children would inherit the locks that the
//! thread holds. So the pages have a process of their own, which was forked first. It asks over a pipe, and
//! the server's loop answers between two turns.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::monitoring::Question;
use crate::monitoring::asking::Numbered;
use crate::monitoring::source::Source;
use crate::threads::lock;

/// How often the loop looks for questions.
const EVERY: Duration = Duration::from_millis(50);

/// How long the loop may take to list its connections.
const LISTED_WITHIN: Duration = Duration::from_secs(1);

/// The server's end of the pipe, if it has one.
static LINK: OnceLock<Mutex<Link>> = OnceLock::new();

/// The end of the pipe at which questions are answered.
struct Link {
    stream: UnixStream,
    source: Source,
    heard: Vec<u8>,
    /// What the pipe had no room for.
    owed: Vec<u8>,
    /// The question that is next, and since when.
    pending: Option<(Numbered<Question>, Instant)>,
}

/// Lets the loop of this process answer what comes through `stream`.
///
/// # Errors
/// Fails if the system refuses.
pub(super) fn answer_at(stream: UnixStream, source: Source) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // A process has one server.
    let _ = LINK.set(Mutex::new(Link {
        stream,
        source,
        heard: Vec::new(),
        owed: Vec::new(),
        pending: None,
    }));
    Ok(())
}

/// Answers what was asked over the pipe. Returns how soon to look again, if there is a pipe. Costs one
/// atomic load if there is none.
#[inline]
pub(crate) fn look() -> Option<Duration> {
    let link = LINK.get()?;
    lock(link).look();
    Some(EVERY)
}

/// Ends the pipe, so that the process at its other end ends too.
pub(super) fn close() {
    if let Some(link) = LINK.get() {
        // It may have ended before.
        let _ = lock(link).stream.shutdown(Shutdown::Both);
    }
}

impl Link {
    fn look(&mut self) {
        self.hear();
        while self.pending.is_some() || self.take_question() {
            if !self.answer() {
                break;
            }
        }
        self.send();
    }

    /// Reads what is there. What goes wrong ends the other process, which is noticed there.
    fn hear(&mut self) {
        let mut room = [0; 4_096];
        while let Ok(count @ 1..) = self.stream.read(&mut room) {
            self.heard.extend_from_slice(&room[..count]);
        }
    }

    /// Takes the next question, if a whole one is there.
    fn take_question(&mut self) -> bool {
        let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') else {
            return false;
        };
        let line: Vec<_> = self.heard.drain(..=end).collect();
        let question = serde_json::from_slice(&line).ok();
        self.pending = question.map(|question| (question, Instant::now()));
        self.pending.is_some()
    }

    /// Answers the question. Returns false if that takes another turn.
    fn answer(&mut self) -> bool {
        let Some((question, since)) = &self.pending else {
            return false;
        };
        let needs_list = matches!(
            question.what,
            Question::Ls(_) | Question::Show { .. } | Question::End { .. }
        );
        let waits = since.elapsed() < LISTED_WITHIN;
        if needs_list && waits && !self.source.is_listed_since(*since) {
            return false;
        }

        let answer = Numbered {
            number: question.number,
            what: self.source.ask(&question.what),
        };
        self.pending = None;
        if let Ok(mut line) = serde_json::to_vec(&answer) {
            line.push(b'\n');
            self.owed.extend(line);
        }
        true
    }

    fn send(&mut self) {
        while !self.owed.is_empty() {
            match self.stream.write(&self.owed) {
                Ok(count @ 1..) => drop(self.owed.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => return self.owed.clear(),
            }
        }
    }
}
