//! Limits of a single connection: how much it may keep and how long it may wait.

use std::time::Duration;

use super::{ConfigError, KIB, MIB, expect};
use crate::address::ListenOptions;

/// The limits of one connection: sizes, marks and deadlines. A deadline of `None` is off.
///
/// Those of a server are in its [`Config`](crate::Config). A listener may have limits of its own,
/// which its [options](ListenOptions) or its URI name. A protocol may change those of its
/// connection, for example after a login ([`set_limits`](crate::Transport::set_limits)).
///
/// ```
/// use serveloop::{Config, Limits, Server};
///
/// let limits = Limits { max_line: 1_024, idle_timeout: None, ..Limits::default() };
/// let config = Config { limits, ..Config::default() };
///
/// // Connections of the second listener may be silent for five minutes.
/// let listens = ["tcp://127.0.0.1:0".parse()?, "tcp://127.0.0.1:0?idle-timeout=5m".parse()?];
/// let server = Server::bind_with(&listens, config)?;
/// # let _ = server;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When at least this many bytes of output wait for the peer, no more of its input is read.
    /// Default 64 KiB.
    pub high_water: usize,
    /// When waiting output has fallen to this many bytes, reading continues and `resume_writing` is
    /// called. Must be less than `high_water`. Default 32 KiB.
    pub low_water: usize,
    /// When more than this many bytes of output wait for the peer, no call of the protocol may add
    /// any: that ends the connection. Must be at least `high_water`. Default 1 MiB.
    pub max_output: usize,
    /// The most bytes of output that may wait after a single call of the protocol, so that one reply
    /// may be longer than `max_output`. The server's [`max_buffered`](crate::Config::max_buffered)
    /// limits it too. Less than `max_output` counts as `max_output`. Default 256 MiB.
    pub max_reply: usize,
    /// The most bytes that may wait in the connection's
    /// [outbox](crate::Transport::outbox). Default 512 KiB.
    pub max_posted: usize,
    /// The longest message of a framed protocol, in bytes without its header. It is also the most,
    /// apart from some room for a header, that a session keeps for a protocol that reports its
    /// input as incomplete. Default 1 MiB.
    pub max_frame: usize,
    /// The longest line of a line protocol, in bytes without the line ending. Default 8 KiB.
    pub max_line: usize,

    /// How long the handshake of a [layer](crate::layer), for example of TLS, may take. Default
    /// 10 s.
    pub handshake_timeout: Option<Duration>,
    /// How long an accepted connection may take to send its first complete message. With a layer
    /// the time begins when the handshake is done. With `None` the first message is like any other:
    /// once begun, it has `message_timeout`. Default 10 s.
    pub first_message_timeout: Option<Duration>,
    /// How long each later message, or any message on an outbound connection, may take from its
    /// first byte to its last. Default 30 s.
    pub message_timeout: Option<Duration>,
    /// How long a connection may be idle, without a byte in either direction, while the protocol
    /// accepts input. Default 60 s.
    pub idle_timeout: Option<Duration>,
    /// How long output may wait without the peer accepting any of it. Default 30 s.
    pub write_timeout: Option<Duration>,
    /// The fewest bytes per second, averaged over each `min_rate_grace`, that a peer must send while its
    /// message is incomplete, and must take while output waits for it. A slower one is ended as if
    /// `message_timeout`, `first_message_timeout` or `write_timeout` had passed. Bytes that a protocol takes
    /// at once, such as parts of a body, do not count as an incomplete message. 0 is no limit. Default 0.
    pub min_bytes_per_second: usize,
    /// The time over which `min_bytes_per_second` is averaged, and so how long a peer may be slow. Must be
    /// more than 0. Default 10 s.
    pub min_rate_grace: Duration,
    /// After we close first: how long a silent peer may take to close too. Closing the socket
    /// earlier could reset the connection and destroy our last reply. `None` closes the socket
    /// without waiting. Default 5 s.
    pub linger_timeout: Option<Duration>,
    /// The longest that the wait of `linger_timeout` may take in total, however much the peer
    /// sends. Default 30 s.
    pub linger_limit: Duration,
    /// The limit that replaces a longer `linger_timeout` while the server shuts down.
    /// Default 250 ms.
    pub linger_draining: Duration,
    /// The most bytes of input discarded during the wait of `linger_timeout` before the connection
    /// is closed anyway. Default 256 KiB.
    pub linger_bytes: usize,
}

impl Limits {
    /// Checks that the limits are consistent with each other.
    ///
    /// # Errors
    /// Returns the first problem, with the field that has it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (low, high, most) = (self.low_water, self.high_water, self.max_output);
        expect(high > 0, "high_water", "at least 1", high)?;

        let rule = format!("less than high_water ({high})");
        expect(low < high, "low_water", rule, low)?;
        let rule = format!("at least high_water ({high})");
        expect(most >= high, "max_output", rule, most)?;

        let grace = self.min_rate_grace;
        let shown = format!("{grace:?}");
        expect(!grace.is_zero(), "min_rate_grace", "more than 0", shown)
    }

    /// Returns whether the limits fit a loop whose connections may hold `buffered` bytes together.
    pub(crate) fn fit(&self, buffered: usize) -> Result<(), ConfigError> {
        let output = self.max_output;
        let rule = format!("at least max_output ({output})");
        expect(buffered >= output, "max_buffered", rule, buffered)
    }

    /// Returns the limits with the options of a listener in place of those for all.
    pub(crate) fn with(&self, options: &ListenOptions) -> Self {
        let mut limits = self.clone();
        let sizes = [
            (&mut limits.high_water, options.high_water),
            (&mut limits.low_water, options.low_water),
            (&mut limits.max_output, options.max_output),
            (&mut limits.max_reply, options.max_reply),
            (&mut limits.max_posted, options.max_posted),
            (&mut limits.max_frame, options.max_frame),
            (&mut limits.max_line, options.max_line),
            (&mut limits.linger_bytes, options.linger_bytes),
            (
                &mut limits.min_bytes_per_second,
                options.min_bytes_per_second,
            ),
        ];
        for (limit, size) in sizes {
            *limit = size.unwrap_or(*limit);
        }

        let timeouts = [
            (&mut limits.handshake_timeout, options.handshake_timeout),
            (
                &mut limits.first_message_timeout,
                options.first_message_timeout,
            ),
            (&mut limits.message_timeout, options.message_timeout),
            (&mut limits.idle_timeout, options.idle_timeout),
            (&mut limits.write_timeout, options.write_timeout),
            (&mut limits.linger_timeout, options.linger_timeout),
        ];
        for (limit, timeout) in timeouts {
            if let Some(timeout) = timeout {
                *limit = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
        }

        limits.min_rate_grace = options.min_rate_grace.unwrap_or(limits.min_rate_grace);
        limits.linger_limit = options.linger_limit.unwrap_or(limits.linger_limit);
        limits.linger_draining = options.linger_draining.unwrap_or(limits.linger_draining);
        limits
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            high_water: 64 * KIB,
            low_water: 32 * KIB,
            max_output: MIB,
            max_reply: 256 * MIB,
            max_posted: 512 * KIB,
            max_frame: MIB,
            max_line: 8 * KIB,

            handshake_timeout: Some(Duration::from_secs(10)),
            first_message_timeout: Some(Duration::from_secs(10)),
            message_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(60)),
            write_timeout: Some(Duration::from_secs(30)),
            min_bytes_per_second: 0,
            min_rate_grace: Duration::from_secs(10),
            linger_timeout: Some(Duration::from_secs(5)),
            linger_limit: Duration::from_secs(30),
            linger_draining: Duration::from_millis(250),
            linger_bytes: 256 * KIB,
        }
    }
}
