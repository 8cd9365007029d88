//! Checks that a protocol does not depend on how its input is cut.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::address::{Address, Peer};
use crate::config::{Config, Limits};
use crate::error::{CloseReason, ProtocolError};
use crate::layer::{Event, Observe, Observed};
use crate::session::{Protocol, REPEAT};
use crate::testing::MemorySession;

/// How long a session may run after the end of its input, in virtual time.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Checks that a protocol gives the same answers however its input is cut.
///
/// The messages are sent one by one, all in one piece, cut in two at every position, and one byte
/// at a time. Each of these cuts runs four times: with output taken at once or three bytes at a
/// time under low water marks, and with or without pauses between the pieces. Every run must
/// produce the same output, end in the same way and consume the same bytes. No call of
/// `data_received` may end where none ends if the bytes come one at a time: that would be in the middle
/// of a message. A call may consume several messages, in a loop of its own.
///
/// If the connection ends before the input does, what its last call consumed is not compared: a
/// protocol that closes may take all that it was shown.
///
/// The number of runs grows with the number of bytes, so choose short messages, and include every
/// special one.
///
/// ```
/// use serveloop::protocols::Echo;
/// use serveloop::testing::SplitChecker;
///
/// SplitChecker::new(|| Echo).stream().check(&[b"hello", b"world"]);
/// ```
pub struct SplitChecker<M> {
    make: M,
    config: Config,
    stream: bool,
}

impl<M, P> SplitChecker<M>
where
    M: Fn() -> P,
    P: Protocol,
{
    /// Creates a checker for the protocols that `make` returns. Each call must return a fresh
    /// protocol. State left over from an earlier run would look like an answer that depends on the
    /// cut.
    pub fn new(make: M) -> Self {
        let config = Config {
            limits: Limits {
                first_message_timeout: None,
                message_timeout: None,
                idle_timeout: None,
                write_timeout: None,
                ..Limits::default()
            },
            ..Config::default()
        };

        Self {
            make,
            config,
            stream: false,
        }
    }

    /// Treats the protocol as a byte stream without messages. Only the sequence of consumed bytes
    /// must be the same in every run.
    #[must_use]
    pub fn stream(mut self) -> Self {
        self.stream = true;
        self
    }

    /// Runs all cuts of `messages`.
    ///
    /// # Panics
    /// Panics if two runs differ. The message shows how the input was cut, and both traces.
    #[track_caller]
    pub fn check(&self, messages: &[&[u8]]) {
        let glued = messages.concat();
        // One byte at a time shows where each message ends.
        let bytes: Vec<&[u8]> = glued.chunks(1).collect();
        let expected = self.run(&bytes, Pace::default());

        let mut cuts = vec![messages.to_vec(), vec![&glued[..]], bytes];
        cuts.extend((1..glued.len()).map(|at| vec![&glued[..at], &glued[at..]]));

        for pieces in &cuts {
            for pace in Pace::ALL {
                let trace = self.run(pieces, pace);
                assert!(
                    trace.agrees_with(&expected, self.stream),
                    "the answer depends on how the input is cut\npieces: {}\npace: {pace:?}\nexpected {expected:?}\ngot      {trace:?}",
                    Pieces(pieces),
                );
            }
        }
    }

    fn run(&self, pieces: &[&[u8]], pace: Pace) -> Trace {
        let mut config = self.config.clone();
        if pace.slow_output {
            (config.limits.high_water, config.limits.low_water) = (16, 8);
        }

        let recorder = Recorder { calls: Vec::new() };
        let recorded = Observed::new((self.make)(), recorder);
        // One peer, since the protocol may tell its own number.
        let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let peer = Peer::new(address, Some(0)).with_id(1);
        let mut session = MemorySession::with_peer(recorded, config, peer);
        if pace.slow_output {
            session.take_in_steps(3);
        }

        for piece in pieces {
            session.receive(piece);
            if pace.pauses {
                session.advance(Duration::from_millis(1));
            }
        }

        session.receive_eof();
        let end = session.now() + PATIENCE;
        while let Some(due) = session.deadline().filter(|due| *due < end) {
            let wait = due.saturating_duration_since(session.now());
            session.advance(wait.max(REPEAT));
        }

        Trace {
            output: session.sent(),
            calls: session.protocol().observer().calls.clone(),
        }
    }
}

impl<M> fmt::Debug for SplitChecker<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitChecker")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    slow_output: bool,
    pauses: bool,
}

impl Pace {
    const ALL: [Self; 4] = [
        Self {
            slow_output: false,
            pauses: false,
        },
        Self {
            slow_output: false,
            pauses: true,
        },
        Self {
            slow_output: true,
            pauses: false,
        },
        Self {
            slow_output: true,
            pauses: true,
        },
    ];
}

struct Trace {
    output: Vec<u8>,
    calls: Vec<Call>,
}

impl Trace {
    /// Returns whether the protocol did the same in this run as in the one in which the bytes came one
    /// at a time.
    fn agrees_with(&self, bytewise: &Self, is_stream: bool) -> bool {
        let is_other = |call: &&Call| !matches!(call, Call::Taken(_));
        let others = self.calls.iter().filter(is_other);
        if self.output != bytewise.output || !others.eq(bytewise.calls.iter().filter(is_other)) {
            return false;
        }

        let ((taken, ends), (all, all_ends)) = (self.taken(), bytewise.taken());
        let is_same = if self.has_eof() {
            taken == all
        } else {
            all.starts_with(&taken)
        };
        is_same && (is_stream || ends.iter().all(|end| all_ends.contains(end)))
    }

    fn has_eof(&self) -> bool {
        self.calls.iter().any(|call| matches!(call, Call::Eof(_)))
    }

    /// Returns the bytes that were taken, and after how many each call ended. Without what the last
    /// call took, if the connection ended before the input.
    fn taken(&self) -> (Vec<u8>, Vec<usize>) {
        let pieces = self.calls.iter().filter_map(|call| match call {
            Call::Taken(data) => Some(data),
            _ => None,
        });
        let mut pieces: Vec<_> = pieces.collect();
        if !self.has_eof() {
            pieces.pop();
        }

        let mut ends = Vec::new();
        let mut taken = Vec::new();
        for piece in pieces {
            taken.extend_from_slice(piece);
            ends.push(taken.len());
        }
        (taken, ends)
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "output {:?}, calls {:?}",
            self.output.escape_ascii().to_string(),
            self.calls
        )
    }
}

struct Pieces<'a>(&'a [&'a [u8]]);

impl fmt::Display for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|piece| piece.escape_ascii().to_string()))
            .finish()
    }
}

#[derive(Clone, PartialEq)]
enum Call {
    Made,
    Taken(Vec<u8>),
    Eof(Vec<u8>),
    Lost(&'static str),
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made => f.write_str("made"),
            Self::Taken(data) => write!(f, "took \"{}\"", data.escape_ascii()),
            Self::Eof(unread) => write!(f, "eof \"{}\"", unread.escape_ascii()),
            Self::Lost(reason) => write!(f, "lost ({reason})"),
        }
    }
}

/// Records the events that a protocol sees.
struct Recorder {
    calls: Vec<Call>,
}

impl Observe for Recorder {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::ConnectionMade => self.calls.push(Call::Made),
            Event::Taken(data) if !data.is_empty() => self.calls.push(Call::Taken(data.to_vec())),
            Event::EofReceived(unread) => self.calls.push(Call::Eof(unread.to_vec())),
            Event::ConnectionLost(ended) => self.calls.push(Call::Lost(kind(ended.reason()))),
            _ => {}
        }
    }
}

/// Returns the kind of a close reason. The progress of a message and the text of its error may
/// depend on the cut, so they are left out.
fn kind(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Protocol(ProtocolError::Malformed(_)) => "malformed",
        CloseReason::Protocol(ProtocolError::TooLong { .. }) => "too long",
        CloseReason::Protocol(ProtocolError::Truncated { .. }) => "truncated",
        reason => reason.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Transport;

    /// Takes each piece for one message, a common mistake of those new to streams.
    struct Naive;

    impl Protocol for Naive {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport.write(b"got ");
            transport.write(data);
            Ok(data.len())
        }
    }

    #[test]
    #[should_panic(expected = "depends on how the input is cut")]
    fn finds_one_piece_taken_for_one_message() {
        SplitChecker::new(|| Naive).stream().check(&[b"ab"]);
    }

    /// Answers correctly, but counts the bytes it saw instead of those it consumed.
    #[derive(Default)]
    struct Forgetful(usize);

    impl Protocol for Forgetful {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            self.0 += data.len();
            if self.0 < 4 {
                return Ok(0);
            }
            transport.write(b"4");
            Ok(data.len())
        }
    }

    #[test]
    #[should_panic(expected = "depends on how the input is cut")]
    fn finds_state_that_counts_bytes_twice() {
        SplitChecker::new(Forgetful::default).check(&[b"abcd"]);
    }

    /// Answers all complete lines of one call in a loop of its own. `exit` closes, and takes what
    /// follows with it. A line must not begin with `!`.
    struct Looping;

    impl Protocol for Looping {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            let mut taken = 0;
            for line in data.split_inclusive(|byte| *byte == b'\n') {
                if line == b"exit\n" {
                    transport.close();
                    return Ok(data.len());
                }
                if line[0] == b'!' {
                    return Err(ProtocolError::malformed("a line begins with !"));
                }
                if line.ends_with(b"\n") {
                    transport.write(line);
                    taken += line.len();
                }
            }
            Ok(taken)
        }
    }

    #[test]
    fn a_loop_inside_data_received_is_no_fault() {
        SplitChecker::new(|| Looping).check(&[b"a\n", b"bc\n", b"\n"]);
        SplitChecker::new(|| Looping).check(&[b"a\n", b"bc\n", b"!\n"]);
    }

    #[test]
    fn what_the_call_that_closes_takes_is_not_compared() {
        SplitChecker::new(|| Looping).check(&[b"a\n", b"b\n", b"exit\n", b"more\n"]);
    }

    /// Takes the rest of the last line too, if its line end has not come yet.
    struct Hasty;

    impl Protocol for Hasty {
        fn data_received(
            &mut self,
            data: &[u8],
            _: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            let line = data.iter().position(|byte| *byte == b'\n');
            Ok(match line {
                Some(end) => end + 1,
                None if data.len() > 2 => data.len(),
                None => 0,
            })
        }
    }

    /// It answers nothing, so that only what it takes shows the fault.
    #[test]
    #[should_panic(expected = "depends on how the input is cut")]
    fn finds_a_message_that_is_taken_in_parts() {
        SplitChecker::new(|| Hasty).check(&[b"abcdef\n"]);
    }
}
