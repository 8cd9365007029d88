//! The outcome of a request, and how the reply tells it.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use humantime::format_duration;

use crate::memory_quota::Share;
use crate::quoted::Quoted;
use crate::shlex::Unsplit;
use crate::size::Size;

use serveloop::protocols::counted;

/// How a request ended. Displayed in brackets on the last line of the reply, unless the program
/// exited with status 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Exited(i32),
    Killed(i32),
    /// It wrote more than this many bytes.
    CutOff(usize),
    /// It was cut off after the first number of bytes, because all output together reached the
    /// second.
    Crowded(usize, usize),
    TimedOut(Duration),
    /// The client's stream has ended, so the client may be gone.
    Stopped,
    /// The connection has ended, so no reply is sent.
    Abandoned,
    NotStarted(String),
    NotAllowed(Vec<u8>),
    Malformed(Unsplit),
    TooLong(u64, usize),
    /// This many programs run and wait already.
    Busy(usize),
    /// This many bytes of output wait to be taken already.
    Full(usize),
    /// This many requests of one connection wait already.
    Flooded(usize),
}

impl Outcome {
    /// Returns how a process ended by itself.
    pub(crate) fn of_process(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }

    fn is_well(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::CutOff(most) => write!(f, "output cut off at {}", Size(*most)),
            Self::Crowded(kept, most) => write!(
                f,
                "output cut off at {}: {} wait to be taken",
                Size(*kept),
                Size(*most)
            ),
            Self::TimedOut(after) => write!(f, "timed out after {}", format_duration(*after)),
            Self::Stopped => f.write_str("stopped: the client's stream has ended"),
            Self::Abandoned => f.write_str("killed: its connection has ended"),
            Self::NotStarted(problem) => write!(f, "could not be started: {problem}"),
            Self::NotAllowed(program) => write!(f, "not allowed: {}", Quoted(program)),
            Self::Malformed(problem) => write!(f, "bad request: {problem}"),
            Self::TooLong(length, most) => {
                let length = counted(*length, "byte", "bytes");
                write!(f, "request too long: {length}, at most {most} allowed")
            }
            Self::Busy(count) => {
                let count = counted(*count, "program runs or waits", "programs run or wait");
                write!(f, "busy: {count} already")
            }
            Self::Full(most) => {
                write!(f, "busy: {} of output wait to be taken", Size(*most))
            }
            Self::Flooded(count) => {
                write!(
                    f,
                    "too many requests: {count} of this connection wait already"
                )
            }
        }
    }
}

/// The result of a request: the program's output, and how it ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    pub(crate) output: Vec<u8>,
    /// The share of the memory quota that the output takes.
    pub(crate) share: Option<Share>,
    /// How long the program ran, or `None` if no program ran.
    pub(crate) took: Option<Duration>,
}

impl Report {
    /// Returns the report of a request that no program was run for.
    pub(crate) fn refused(outcome: Outcome) -> Self {
        Self {
            outcome,
            output: Vec::new(),
            share: None,
            took: None,
        }
    }

    /// Returns the reply: the output as it came, then a line that tells how the program ended,
    /// unless it ended well.
    pub(crate) fn into_reply(self) -> Vec<u8> {
        let mut reply = self.output;
        if self.outcome.is_well() {
            return reply;
        }

        let is_open = reply.last().is_some_and(|byte| *byte != b'\n');
        let begin = if is_open { "\n" } else { "" };
        let end = format!("{begin}[{}]\n", self.outcome);
        // Reserves exactly, because the output may already take much of the memory.
        reply.reserve_exact(end.len());
        reply.extend(end.bytes());
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(output: &str, outcome: Outcome) -> String {
        let report = Report {
            outcome,
            output: output.into(),
            share: None,
            took: None,
        };
        String::from_utf8(report.into_reply()).unwrap()
    }

    #[test]
    fn what_went_well_is_the_output_alone() {
        assert_eq!(reply("", Outcome::Exited(0)), "");
        assert_eq!(reply("a\nb", Outcome::Exited(0)), "a\nb");
    }

    #[test]
    fn what_did_not_is_said_on_a_line_of_its_own() {
        assert_eq!(reply("", Outcome::Exited(3)), "[exit status 3]\n");
        assert_eq!(
            reply("a\n", Outcome::Killed(9)),
            "a\n[killed by signal 9]\n"
        );

        assert_eq!(reply("a", Outcome::Exited(1)), "a\n[exit status 1]\n");
        let text = reply("a", Outcome::CutOff(1 << 20));
        assert_eq!(text, "a\n[output cut off at 1MiB]\n");
        let text = reply("", Outcome::TimedOut(Duration::from_secs(30)));
        assert_eq!(text, "[timed out after 30s]\n");
        let text = reply("", Outcome::NotAllowed(b"r\nm".into()));
        assert_eq!(text, "[not allowed: \"r\\nm\"]\n");
        let text = reply("", Outcome::Malformed(Unsplit::Open(5)));
        assert_eq!(text, "[bad request: the quote at byte 5 is not closed]\n");
    }

    #[test]
    fn a_process_ends_by_itself_or_by_a_signal() {
        let of_raw = |raw| Outcome::of_process(ExitStatus::from_raw(raw));
        assert_eq!(of_raw(0), Outcome::Exited(0));
        assert_eq!(of_raw(3 << 8), Outcome::Exited(3));
        assert_eq!(of_raw(9), Outcome::Killed(9));
    }
}
