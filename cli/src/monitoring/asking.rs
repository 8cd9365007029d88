//! The end of the pipe at which the process that serves pages asks its server.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};

use crate::monitoring::stuck::{STUCK, stuck};
use crate::monitoring::{Answer, Question};

/// How long the server may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// How long it may take if there is something to say without it: what a monitor waits for a loop, and the
/// time between two looks of the server at its pipe.
const PAGE_WITHIN: Duration = Duration::from_millis(300);

/// A question or an answer with the number of the question, since one that comes too late is skipped.
#[derive(Deserialize, Serialize)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) what: T,
}

/// The end of the pipe at which is asked.
#[derive(Debug)]
pub(super) struct Asking {
    stream: UnixStream,
    /// What has come, and how much of it has no end of a line.
    heard: Vec<u8>,
    searched: usize,
    number: u64,
    last: Last,
    /// When the oldest question was asked that the server owes an answer to. Nothing has come since.
    silent_since: Option<Instant>,
    refreshes: u64,
}

impl Asking {
    /// Creates the end of the process that asks.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(ANSWERED_WITHIN))?;
        Ok(Self {
            stream,
            heard: Vec::new(),
            searched: 0,
            number: 0,
            last: Last::new(),
            silent_since: None,
            refreshes: 0,
        })
    }

    /// Asks, and waits for the answer. If none comes in time, says what is known without it.
    pub(super) fn ask(&mut self, question: &Question) -> Answer {
        let begin = Instant::now();
        match self.exchange(question, begin) {
            Ok(Some(answer)) => {
                self.last.note(question, &answer);
                answer
            }
            Ok(None) => {
                self.silent_since.get_or_insert(begin);
                self.last.instead_of(question)
            }
            Err(error) => Answer::Error(format!("the server does not answer: {error}")),
        }
    }

    /// Asks for what is to be known while the server does not answer.
    pub(super) fn refresh(&mut self) {
        self.refreshes += 1;
        let _ = match self.refreshes % 2 {
            0 => self.ask(&Question::Ready),
            _ => self.ask(&Question::Metrics),
        };
    }

    /// Returns the answer, unless it takes too long.
    fn exchange(&mut self, question: &Question, begin: Instant) -> io::Result<Option<Answer>> {
        self.hear(Duration::ZERO)?;
        while self.next_answer()?.is_some() {}

        let until = match self.silent_since {
            None if is_page(question) => begin + PAGE_WITHIN,
            None => begin + ANSWERED_WITHIN,
            // Who holds the server up must not hold up all pages, too.
            Some(_) if is_page(question) => return Ok(None),
            Some(since) => since + ANSWERED_WITHIN,
        };
        if until <= begin {
            return Ok(None);
        }

        self.send(question)?;
        loop {
            while let Some(answer) = self.next_answer()? {
                if answer.number == self.number {
                    return Ok(Some(answer.what));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.hear(left)?;
        }
    }

    fn send(&mut self, question: &Question) -> io::Result<()> {
        self.number += 1;
        let question = Numbered {
            number: self.number,
            what: question,
        };
        let mut line = serde_json::to_vec(&question)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }

    /// Waits until something has come, and takes all that has.
    fn hear(&mut self, patience: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(patience).ok();
        let mut waits = [PollFd::new(&self.stream, PollFlags::IN)];
        retry_on_intr(|| poll(&mut waits, timeout.as_ref()))?;

        let (mut room, before) = ([0; 16 * 1024], self.heard.len());
        loop {
            match recv(&self.stream, &mut room, RecvFlags::DONTWAIT) {
                // What has come before the end is answered first.
                Ok((_, 0)) if self.heard.len() > before => return Ok(()),
                Ok((_, 0)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok((_, count)) => self.heard.extend_from_slice(&room[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the next answer, if a whole one has come.
    fn next_answer(&mut self) -> io::Result<Option<Numbered<Answer>>> {
        let unseen = &self.heard[self.searched..];
        let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.heard.len();
            return Ok(None);
        };
        let line: Vec<_> = self.heard.drain(..=self.searched + end).collect();
        self.searched = 0;
        (self.last.heard, self.silent_since) = (Instant::now(), None);
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// Returns whether there is something to say without the server.
fn is_page(question: &Question) -> bool {
    matches!(
        question,
        Question::Health | Question::Ready | Question::Metrics
    )
}

/// What the server has said last, and when.
#[derive(Debug)]
struct Last {
    heard: Instant,
    metrics: Option<(Answer, Instant)>,
    readiness: Option<Answer>,
}

impl Last {
    fn new() -> Self {
        Self {
            heard: Instant::now(),
            metrics: None,
            readiness: None,
        }
    }

    fn note(&mut self, question: &Question, answer: &Answer) {
        match question {
            Question::Metrics => self.metrics = Some((answer.clone(), self.heard)),
            Question::Ready => self.readiness = Some(answer.clone()),
            _ => {}
        }
    }

    /// Returns what is to be said if the server does not answer: what a monitor says of one loop that
    /// does not.
    fn instead_of(&self, question: &Question) -> Answer {
        let age = self.heard.elapsed();
        let known = match question {
            Question::Health | Question::Ready if age >= STUCK => {
                Some(Answer::Error(stuck(1, 1, age)))
            }
            Question::Health => Some(Answer::of(&"ok")),
            Question::Ready => self.readiness.clone(),
            Question::Metrics => self.metrics.clone().map(|(answer, told)| {
                let text = answer.into_result();
                let text = text.map(|it| aged(it.as_str().unwrap_or_default(), told.elapsed()));
                text.map_or_else(
                    |error| Answer::Error(error.to_string()),
                    |it| Answer::of(&it),
                )
            }),
            _ => None,
        };
        known.unwrap_or_else(|| Answer::Error("the server does not answer".to_owned()))
    }
}

/// Returns an earlier text for Prometheus, in which the server's only loop has not answered since.
fn aged(text: &str, age: Duration) -> String {
    let mut aged = String::with_capacity(text.len());
    for line in text.lines() {
        match line.split_once(' ') {
            Some((name @ "serveloop_loops_unanswered", _)) => aged.push_str(&format!("{name} 1")),
            Some((name @ "serveloop_snapshot_age_seconds", _)) => {
                aged.push_str(&format!("{name} {}", age.as_secs_f64()));
            }
            _ => aged.push_str(line),
        }
        aged.push('\n');
    }
    aged
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_that_comes_too_late_is_skipped() {
        let (ours, mut server) = UnixStream::pair().expect("a pair of sockets");
        let mut asking = Asking::new(ours).expect("a pipe");
        let answering = thread::spawn(move || {
            let mut line = String::new();
            let mut questions = BufReader::new(server.try_clone().expect("a pipe"));
            let _ = questions.read_line(&mut line);
            let lines = b"{\"number\":0,\"what\":{\"ok\":\"old\"}}\n{\"number\":1,\"what\":{\"ok\":\"new\"}}\n";
            server.write_all(lines).expect("room");
            line
        });
        let answer = asking.ask(&Question::Stats).into_result();
        assert_eq!(answer.expect("an answer"), "new");
        let line = answering.join().expect("no panic");
        assert_eq!(line, "{\"number\":1,\"what\":{\"do\":\"stats\"}}\n");
        assert!(matches!(asking.ask(&Question::Stats), Answer::Error(_)));
    }
    /// Answers the next questions.
    fn answer(server: &UnixStream, answers: &[(u64, &str)]) {
        let mut questions = BufReader::new(server);
        for (number, text) in answers {
            let _ = questions.read_line(&mut String::new());
            let line = format!("{{\"number\":{number},\"what\":{{\"ok\":{text:?}}}}}\n");
            let mut server = server;
            server.write_all(line.as_bytes()).expect("room");
        }
    }

    #[test]
    fn pages_are_told_what_is_known_of_a_server_that_does_not_answer() {
        let (ours, server) = UnixStream::pair().expect("a pair of sockets");
        let mut asking = Asking::new(ours).expect("a pipe");
        let text = "serveloop_connections_open 7\nserveloop_loops_unanswered 0\n\
                    serveloop_snapshot_age_seconds 0\n";
        thread::scope(|scope| {
            scope.spawn(|| answer(&server, &[(1, text), (2, "ready")]));
            for question in [Question::Metrics, Question::Ready] {
                asking.ask(&question).into_result().expect("an answer");
            }
        });
        let mut said = |question| asking.ask(&question).into_result().expect("an answer");

        let begin = Instant::now();
        assert_eq!(said(Question::Health), "ok");
        assert!(begin.elapsed() >= PAGE_WITHIN);
        let metrics = said(Question::Metrics);
        let metrics = metrics.as_str().expect("a text");
        let expected = "serveloop_connections_open 7\nserveloop_loops_unanswered 1\n";
        assert!(metrics.starts_with(expected), "{metrics}");
        assert!(!metrics.contains("age_seconds 0\n"), "{metrics}");
        assert_eq!(said(Question::Ready), "ready");
        // Only the first one waits.
        assert!(begin.elapsed() < 2 * PAGE_WITHIN);

        asking.last.heard -= STUCK;
        for question in [Question::Health, Question::Ready] {
            let problem = asking.ask(&question).into_result().expect_err("stuck");
            let part = "1 of 1 loop without an answer, one for 10 s";
            assert!(problem.to_string().contains(part), "{problem}");
        }

        answer(&server, &[(3, "late")]);
        thread::scope(|scope| {
            scope.spawn(|| answer(&server, &[(4, "new")]));
            let answer = asking.ask(&Question::Health).into_result();
            assert_eq!(answer.expect("an answer"), "new");
        });
    }
}
