//! Errors of one connection, the reasons for which connections end, and counts in such texts.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A violation of the protocol by the peer. When a protocol returns it, the session sends what was
/// already written and closes that one connection.
///
/// ```
/// use serveloop::ProtocolError;
///
/// let error = ProtocolError::malformed("no digit at byte 3");
/// assert_eq!(error.to_string(), "malformed: no digit at byte 3");
///
/// // What `?` converts.
/// let error: ProtocolError = std::str::from_utf8(b"\xff").map_err(ProtocolError::other).unwrap_err();
/// assert!(matches!(error, ProtocolError::Other(_)));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The bytes that arrived cannot be a message. The text says what is wrong and where.
    Malformed(Cow<'static, str>),
    /// A message is longer than the limit.
    TooLong {
        /// The length in bytes that the peer announced, or that had arrived when the limit was
        /// passed.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The stream ended inside a message.
    Truncated {
        /// How many bytes of the unfinished message had arrived.
        unread: usize,
    },
    /// Any other error of the protocol.
    Other(Box<dyn Error + Send + Sync>),
}

impl ProtocolError {
    /// Creates a [`Malformed`](Self::Malformed) error with a text that says what is wrong and
    /// where.
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// Creates an [`Other`](Self::Other) error from any error.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

impl fmt::Display for ProtocolError {
    /// Writes one short line without control characters, whatever text the peer sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "malformed: {}", Excerpt::of(text)),
            Self::TooLong { length, limit } => {
                let length = counted(*length, "byte", "bytes");
                write!(f, "message too long: {length}, at most {limit} allowed")
            }
            Self::Truncated { unread } => {
                let unread = counted(*unread, "byte", "bytes");
                write!(f, "truncated: the stream ended {unread} into a message")
            }
            Self::Other(error) => Excerpt::of(error).fmt(f),
        }
    }
}

/// Makes `?` work inside a protocol on the results of reading and writing.
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

/// Makes a [`Malformed`](ProtocolError::Malformed) error of a text that says what is wrong and
/// where: `Err("a name has at least one letter")?`.
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

/// The result of a protocol's methods: `Result` for those that return nothing, and `Result<usize>`
/// for [`data_received`](crate::Protocol::data_received).
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

/// One of the configured deadlines, as the reason for a timeout.
///
/// ```
/// use serveloop::{CloseReason, Deadline};
///
/// let is_ours = |reason: &CloseReason| matches!(reason, CloseReason::TimedOut(Deadline::Write));
/// assert!(!is_ours(&CloseReason::TimedOut(Deadline::Idle)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// `connect_timeout`: an outbound connection was not established.
    Connect,
    /// `handshake_timeout`: a [layer](crate::layer) had not finished its handshake.
    Handshake,
    /// `first_message_timeout`: no complete message arrived after the connection was made.
    FirstMessage,
    /// `message_timeout`: a message began and was not completed.
    Message,
    /// `idle_timeout`: no byte moved in either direction.
    Idle,
    /// `write_timeout`: output waited and the peer accepted none of it.
    Write,
    /// `drain_timeout`: the server was shutting down and could not wait longer.
    Drain,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "not connected in time",
            Self::Handshake => "the handshake was not completed in time",
            Self::FirstMessage => "no complete first message in time",
            Self::Message => "a message was not completed in time",
            Self::Idle => "idle for too long",
            Self::Write => "the peer accepted no output for too long",
            Self::Drain => "not finished at the end of the server's shutdown",
        })
    }
}

/// Why a datagram did not arrive: [`datagram_undelivered`](crate::Protocol::datagram_undelivered).
///
/// ```
/// use serveloop::net::DeliveryError;
/// use std::io::{Error, ErrorKind};
///
/// let error = DeliveryError::Reported(Error::from(ErrorKind::ConnectionRefused));
/// assert_eq!(error.to_string(), "the network reports: connection refused");
/// let error = DeliveryError::TooLong { mtu: Some(1_280) };
/// assert!(error.to_string().contains("at most 1280 bytes"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The network reports it (ICMP): `ECONNREFUSED` if no program listens at the peer's port,
    /// `EHOSTUNREACH` and `ENETUNREACH` if there is no way to the peer, `EACCES` if a router forbids it.
    /// Whoever knows both addresses can forge such a report.
    Reported(io::Error),
    /// It was longer than the path allows. The system splits what follows, if it has learned this from
    /// the network. Such a report can be forged too.
    TooLong {
        /// The most bytes that a packet on the path can have, headers included, if that is known.
        mtu: Option<u32>,
    },
    /// This machine could not send it, for example because it has no route, a firewall forbids it, or the
    /// peer's Unix socket is gone or full.
    NotSent(io::Error),
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(error) => write!(f, "the network reports: {error}"),
            Self::TooLong { mtu: Some(mtu) } => {
                write!(
                    f,
                    "too long for the path, whose packets have at most {mtu} bytes"
                )
            }
            Self::TooLong { mtu: None } => f.write_str("too long for the path"),
            Self::NotSent(error) => write!(f, "not sent: {error}"),
        }
    }
}

impl Error for DeliveryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Reported(error) | Self::NotSent(error) => Some(error),
            Self::TooLong { .. } => None,
        }
    }
}

/// The reason for which a connection ended: [`Ended::reason`](crate::Ended::reason), which
/// [`connection_lost`](crate::Protocol::connection_lost) is told once.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The protocol closed the connection, and all its output was handed to the system.
    Closed,
    /// The peer ended its stream, and all output owed to it was handed to the system.
    PeerClosed,
    /// The protocol aborted the connection.
    Aborted,
    /// The peer ended its stream without the end mark that its [layer](crate::layer) has, so an
    /// attacker may have cut it short. Many clients end like this, so it is not an error, but
    /// `eof_received` is not called.
    Truncated,
    /// The connection was refused after it was accepted: by a factory inside a
    /// [layer](crate::layer), or because the client that a proxy named has too many.
    Refused,
    /// The server is shutting down, and all output owed to the peer was handed to the system.
    Shutdown,
    /// A deadline passed.
    TimedOut(Deadline),
    /// Too much output would have waited for the peer: more than `max_reply` bytes, or any after
    /// more than `max_output`.
    Overflow,
    /// More than [`max_posted`](crate::Limits::max_posted) bytes would have waited in the connection's outbox,
    /// and it was a member of a group that [ends such members](crate::service::Lagging::Close).
    Lagging,
    /// All connections together held more memory than [`max_buffered`](crate::Config::max_buffered)
    /// allows, and this one was ended to free some.
    Shed,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// The connection's socket failed, for example because the peer reset the connection.
    Io(io::Error),
    /// An outbound connection could not be made. `connection_made` was not called.
    ConnectFailed(io::Error),
    /// What the protocol was to [send](crate::Transport::send) could not be read. The peer sees a
    /// reset, so that it does not take the beginning for the whole.
    SourceFailed(io::Error),
    /// The protocol panicked. Does not occur in a program built with `panic = "abort"`, which ends.
    Panicked,
    /// The process that served only this connection ended with an error, which the text describes,
    /// or was killed. Passed to [`handle_error`](crate::Factory::handle_error) in the parent
    /// process.
    Process(String),
}

impl CloseReason {
    /// Returns whether the end concerns an operator, which is true for all but orderly ends and
    /// idle peers.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !matches!(
            self,
            Self::Closed
                | Self::PeerClosed
                | Self::Aborted
                | Self::Truncated
                | Self::Refused
                | Self::Shutdown
                | Self::TimedOut(Deadline::Idle)
        )
    }

    /// Returns whether connections end like this in everyday operation, for reasons that no server
    /// can prevent. That is true for orderly ends and idle peers, and also if the peer or the
    /// network reset or lost the connection ([`Io`](Self::Io) with one of the errors for that), if
    /// the peer sent no complete first message in time, or if it ended its stream within a message.
    /// Port scans, health checks and closed browsers cause such ends.
    ///
    /// [`Statistics`](crate::Statistics) has counters for resets (`peer_resets`) and for connections that
    /// ended before a byte came (`probes`).
    ///
    /// If such an end [is an error](Self::is_error) on an incoming connection, it is counted, and
    /// logged at the level debug instead of as a warning.
    /// [`handle_error`](crate::Factory::handle_error) is still called for it.
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
            Self::TimedOut(Deadline::FirstMessage | Deadline::Handshake)
            | Self::Protocol(ProtocolError::Truncated { .. }) => true,
            _ => !self.is_error(),
        }
    }
}

impl CloseReason {
    /// Returns whether the peer should see a reset rather than an orderly end.
    pub(crate) fn is_hard(&self) -> bool {
        matches!(
            self,
            Self::Aborted
                | Self::Overflow
                | Self::Lagging
                | Self::Shed
                | Self::SourceFailed(_)
                | Self::Panicked
                | Self::TimedOut(Deadline::Write | Deadline::Drain)
        )
    }

    /// Returns a short name for the kind, for counters and for limits on the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::PeerClosed => "peer closed",
            Self::Aborted => "aborted",
            Self::Truncated => "unterminated",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
            Self::TimedOut(_) => "timed out",
            Self::Overflow => "overflow",
            Self::Lagging => "lagging",
            Self::Shed => "shed",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
            Self::ConnectFailed(_) => "connect failed",
            Self::SourceFailed(_) => "source failed",
            Self::Panicked => "panicked",
            Self::Process(_) => "process",
        }
    }
}

/// Returns whether an error of a stream means that the peer, or the path to it, is gone.
fn is_of_the_network(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
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
            Self::Io(error) | Self::ConnectFailed(error) | Self::SourceFailed(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for CloseReason {
    /// Writes one short line without control characters, whatever text the peer sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Aborted => f.write_str("aborted"),
            Self::Truncated => f.write_str("ended by the peer without the end mark of its layer"),
            Self::Refused => f.write_str("refused"),
            Self::Shutdown => f.write_str("closed by the server's shutdown"),
            Self::TimedOut(deadline) => write!(f, "timed out: {deadline}"),
            Self::Overflow => f.write_str("too much output that the peer did not accept"),
            Self::Lagging => f.write_str(
                "did not keep up: more than max_posted of what others sent to it would wait",
            ),
            Self::Shed => f.write_str("ended to keep buffers within their limit"),
            Self::Protocol(error) => write!(f, "protocol error: {error}"),
            Self::Io(error) => write!(f, "connection failed: {}", Excerpt::of(error)),
            Self::ConnectFailed(error) => write!(f, "cannot connect: {}", Excerpt::of(error)),
            Self::SourceFailed(error) => {
                write!(f, "cannot read what is to be sent: {}", Excerpt::of(error))
            }
            Self::Panicked => f.write_str("the protocol panicked"),
            Self::Process(text) => write!(f, "in its own process: {}", Excerpt::of(text)),
        }
    }
}

/// Returns a count and its noun as text, for log lines, errors and replies: `one` if the count is 1, and
/// `many` otherwise. They may be more than a noun, so that a verb agrees too.
///
/// ```
/// use serveloop::protocols::counted;
///
/// let here = |clients: usize| counted(clients, "client is here", "clients are here").to_string();
/// assert_eq!(here(0), "0 clients are here");
/// assert_eq!(here(1), "1 client is here");
/// assert_eq!(here(2), "2 clients are here");
/// ```
pub fn counted<'a, N>(count: N, one: &'a str, many: &'a str) -> impl fmt::Display + use<'a, N>
where
    N: fmt::Display + PartialEq + From<u8>,
{
    let noun = if count == N::from(1) { one } else { many };
    Counted { count, noun }
}

/// What [`counted`] returns.
struct Counted<'a, N> {
    count: N,
    noun: &'a str,
}

impl<N: fmt::Display> fmt::Display for Counted<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.noun)
    }
}

/// The most bytes of a foreign text that are displayed.
const EXCERPT_MOST: usize = 256;

const CUT: &str = "...";

/// A text prepared for a log line: escaped, and cut if it is long.
#[derive(Default)]
struct Excerpt {
    text: String,
    /// Where to cut so that the mark still fits after it.
    end: usize,
    is_cut: bool,
}

impl Excerpt {
    fn of(text: impl fmt::Display) -> Self {
        let mut excerpt = Self::default();
        // Formatting fails only if the text itself fails, or panics because it is a user's type.
        // Whatever it wrote before is kept.
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
