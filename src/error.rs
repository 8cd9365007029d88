//! What can go wrong with one connection, and how each connection ended.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The peer broke the protocol. A protocol returns it; the session sends what was written before
/// and closes that one connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProtocolError {
    /// What arrived cannot be a message; the text says what and where.
    Malformed(Cow<'static, str>),
    /// A message is longer than allowed. Both in bytes; `length` is what the peer announced or
    /// what had arrived when the limit was passed.
    TooLong {
        /// What was announced or had arrived.
        length: u64,
        /// The most that is allowed.
        limit: usize,
    },
    /// The stream ended inside a message.
    Truncated {
        /// How many bytes of the unfinished message had arrived.
        unread: usize,
    },
    /// Anything else that a protocol finds wrong.
    Other(Box<dyn Error + Send + Sync>),
}

impl ProtocolError {
    /// A malformed message, with a text that says what is wrong and where.
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// Any error of the protocol's own.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

impl fmt::Display for ProtocolError {
    /// One line without control characters, whatever of it comes from a peer, and short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "malformed: {}", Excerpt::of(text)),
            Self::TooLong { length, limit } => {
                write!(
                    f,
                    "message too long: {length} bytes, at most {limit} allowed"
                )
            }
            Self::Truncated { unread } => {
                write!(
                    f,
                    "truncated: the stream ended {unread} bytes into a message"
                )
            }
            Self::Other(error) => Excerpt::of(error).fmt(f),
        }
    }
}

/// So that `?` works inside a protocol on what reading and writing give.
impl From<io::Error> for ProtocolError {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<Box<dyn Error + Send + Sync>> for ProtocolError {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::Other(error)
    }
}

/// A text says what is malformed, and where: `Err("a name has at least one letter")?`.
impl From<&'static str> for ProtocolError {
    fn from(text: &'static str) -> Self {
        Self::malformed(text)
    }
}

impl From<String> for ProtocolError {
    fn from(text: String) -> Self {
        Self::malformed(text)
    }
}

impl Error for ProtocolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Other(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

/// What a protocol's methods return: `Result` for those that have nothing to say but that all is well,
/// `Result<usize>` for [`data_received`](crate::Protocol::data_received).
///
/// ```
/// use serveloop::{Protocol, Result, Transport};
///
/// /// Adds one to each decimal number that arrives as a datagram.
/// struct Increment;
///
/// impl Protocol for Increment {
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         let text = std::str::from_utf8(data).map_err(|_| "a number has only digits")?;
///         let number: u32 = text.parse().map_err(|error| format!("{text}: {error}"))?;
///         transport.write(number.saturating_add(1).to_string().as_bytes());
///         Ok(data.len())
///     }
/// }
/// ```
pub type Result<T = (), E = ProtocolError> = std::result::Result<T, E>;

/// Which of the configured deadlines passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// `connect_timeout`: an outbound connection was not established.
    Connect,
    /// `first_message_timeout`: no complete message since the connection was made.
    FirstMessage,
    /// `message_timeout`: a message began and was not completed.
    Message,
    /// `idle_timeout`: no byte moved in either direction.
    Idle,
    /// `write_timeout`: output waited and the peer took none of it.
    Write,
    /// `drain_timeout`: the server was shutting down and could wait no longer.
    Drain,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "not connected in time",
            Self::FirstMessage => "no complete first message in time",
            Self::Message => "a message was not completed in time",
            Self::Idle => "idle for too long",
            Self::Write => "the peer took no output for too long",
            Self::Drain => "not finished when the server's shutdown had to end",
        })
    }
}

/// How a connection ended; told to [`connection_lost`](crate::Protocol::connection_lost) once.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The protocol closed it, and all its output was handed to the system.
    Closed,
    /// The peer ended its stream, and all that was owed to it was handed to the system.
    PeerClosed,
    /// The protocol aborted it.
    Aborted,
    /// The server is shutting down, and all that was owed was handed to the system.
    Shutdown,
    /// A deadline passed.
    TimedOut(Deadline),
    /// The protocol wrote more than `max_output` bytes that the peer had not taken.
    Overflow,
    /// All connections together kept more than [`max_buffered`](crate::Config::max_buffered) allows,
    /// and this is one of those that had to end for it.
    Shed,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// The connection's socket failed, for example because the peer reset it.
    Io(io::Error),
    /// An outbound connection could not be made; there was no `connection_made`.
    ConnectFailed(io::Error),
    /// The protocol panicked. Never in a program that is built with `panic = "abort"`, which ends.
    Panicked,
    /// The connection's own process ended it with an error, which the text describes, or was
    /// killed. Told to [`handle_error`](crate::Factory::handle_error) in the parent process.
    Process(String),
}

impl CloseReason {
    /// Whether the connection ended in a way that an operator wants to hear of: all but an orderly
    /// end and an idle peer.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !matches!(
            self,
            Self::Closed
                | Self::PeerClosed
                | Self::Aborted
                | Self::Shutdown
                | Self::TimedOut(Deadline::Idle)
        )
    }

    /// Whether peers end connections like this every day, and no server can do anything about it: the
    /// peer or the network reset the connection or lost it ([`Io`](Self::Io) with one of the errors
    /// for that), sent no complete first message in time, or ended its stream within a message. A
    /// port scan, a health check and a closed browser look like this.
    ///
    /// For a connection that came in, such an end is counted and logged at the level debug instead
    /// of as a warning. It still [is an error](Self::is_error), of which
    /// [`handle_error`](crate::Factory::handle_error) hears.
    ///
    /// ```
    /// use serveloop::CloseReason;
    /// use std::io::{Error, ErrorKind};
    ///
    /// assert!(CloseReason::Io(Error::from(ErrorKind::ConnectionReset)).is_ordinary());
    /// assert!(!CloseReason::Io(Error::from(ErrorKind::OutOfMemory)).is_ordinary());
    /// assert!(!CloseReason::Overflow.is_ordinary());
    /// ```
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        match self {
            Self::Io(error) => is_of_the_network(error.kind()),
            Self::TimedOut(Deadline::FirstMessage)
            | Self::Protocol(ProtocolError::Truncated { .. }) => true,
            _ => !self.is_error(),
        }
    }
}

impl CloseReason {
    /// Whether the peer should see a reset rather than an orderly end.
    pub(crate) fn is_hard(&self) -> bool {
        matches!(
            self,
            Self::Aborted
                | Self::Overflow
                | Self::Shed
                | Self::Panicked
                | Self::TimedOut(Deadline::Write | Deadline::Drain)
        )
    }

    /// One word for each kind, for counting and for limiting the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::PeerClosed => "peer closed",
            Self::Aborted => "aborted",
            Self::Shutdown => "shutdown",
            Self::TimedOut(_) => "timed out",
            Self::Overflow => "overflow",
            Self::Shed => "shed",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
            Self::ConnectFailed(_) => "connect failed",
            Self::Panicked => "panicked",
            Self::Process(_) => "process",
        }
    }
}

/// Whether an error of a stream says that the peer is gone, or the way to it.
fn is_of_the_network(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

impl Error for CloseReason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Protocol(error) => Some(error),
            Self::Io(error) | Self::ConnectFailed(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for CloseReason {
    /// One line without control characters, whatever of it comes from a peer, and short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Aborted => f.write_str("aborted"),
            Self::Shutdown => f.write_str("closed by the server's shutdown"),
            Self::TimedOut(deadline) => write!(f, "timed out: {deadline}"),
            Self::Overflow => f.write_str("too much output that the peer did not take"),
            Self::Shed => f.write_str("ended to keep buffers within their limit"),
            Self::Protocol(error) => write!(f, "protocol error: {error}"),
            Self::Io(error) => write!(f, "connection failed: {}", Excerpt::of(error)),
            Self::ConnectFailed(error) => write!(f, "cannot connect: {}", Excerpt::of(error)),
            Self::Panicked => f.write_str("the protocol panicked"),
            Self::Process(text) => write!(f, "in its own process: {}", Excerpt::of(text)),
        }
    }
}

/// The most bytes of a text that somebody else made in what is displayed here.
const EXCERPT_MOST: usize = 256;

const CUT: &str = "...";

/// A text as a log line can hold it: escaped, and cut if it is long.
#[derive(Default)]
struct Excerpt {
    text: String,
    /// Where to cut so that the mark fits behind it.
    end: usize,
    is_cut: bool,
}

impl Excerpt {
    fn of(text: impl fmt::Display) -> Self {
        let mut excerpt = Self::default();
        // Only the text itself can fail here, or panic if it is a user's, and what it wrote until then is
        // kept.
        let _ = catch_unwind(AssertUnwindSafe(|| write!(excerpt, "{text}")));
        excerpt
    }

    fn push(&mut self, next: char) {
        match next {
            '\'' | '"' => self.text.push(next),
            _ => self.text.extend(next.escape_debug()),
        }
        if self.text.len() + CUT.len() <= EXCERPT_MOST {
            self.end = self.text.len();
        } else if self.text.len() > EXCERPT_MOST {
            self.text.truncate(self.end);
            self.text.push_str(CUT);
            self.is_cut = true;
        }
    }
}

impl fmt::Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for next in text.chars() {
            if self.is_cut {
                break;
            }
            self.push(next);
        }
        Ok(())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
