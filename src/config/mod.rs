//! What a server is told: limits, deadlines and socket options, each with its unit and its default.
//!
//! A [`Config`] is for a server and its loops, and the [`Limits`] in it are for each connection.
//!
//! This room imports `address`.

mod limits;
mod udp;

pub use self::limits::Limits;
pub use self::udp::UdpOptions;

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use crate::LOG_TARGET;
use crate::address::{KEEPALIVE_MOST, MODE_MOST, NetworkList, is_group};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The most bytes of one read. A buffer of this size stays in the processor's cache, and a message of
/// 64 KiB with its header does not fill it: a read that fills its buffer is followed by one that may
/// find nothing.
const READ_AT_ONCE: usize = 128 * KIB;

/// How long a trusted client may be silent before the system asks whether it is still there.
const TRUSTED_KEEPALIVE: Duration = Duration::from_secs(60);

/// The largest `read_per_turn`: one connection must not occupy a turn for seconds.
const READ_MOST: usize = 1024 * MIB;

/// The limits of a server, and the [`Limits`] of each of its connections.
///
/// Every limit has a default that is in force unless you change it. A deadline of `None` is off.
/// Change only the fields that you need:
///
/// ```
/// use serveloop::Config;
/// let config = Config { max_connections: 12_000, max_per_peer: 64, ..Config::default() };
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most connections that one loop has open at a time, accepted and outbound together. A
    /// connection beyond the limit is accepted, closed at once, and counted. The limit in force is
    /// lower when the process's descriptor limit, less `reserved_descriptors`, is lower. On 32-bit
    /// systems it and `max_sessions` together are at most 65,535, and lowering it is logged when the
    /// server binds. Default 10,000.
    pub max_connections: usize,
    /// How many of the `max_connections` places are kept for outbound connections: clients are refused
    /// when the others are taken, so that a server that is full still reaches the servers behind it.
    /// Must be less than `max_connections`, and is lowered with it. Default 0.
    pub reserved_outbound: usize,
    /// The most connections that one loop has open at a time from one peer. A peer is an IPv4
    /// address or an IPv6 /64 network, all of which a single machine may control. A connection
    /// beyond the limit is refused like one beyond `max_connections`. Default 256.
    pub max_per_peer: usize,
    /// The load balancers and proxies whose connections do not count towards `max_per_peer`, since
    /// many clients come through each of them. When a header has named the client (see
    /// [`layer::proxy`](crate::layer::proxy)), the connection counts for that client, even if its
    /// address is in this list too, and ends if the client has too many
    /// ([`Refused`](crate::CloseReason::Refused)). A listener can have
    /// [others](crate::net::ListenOptions::trusted_proxies), and if neither names any, the
    /// [factory](crate::Factory::trusted_proxies) may. Default none.
    pub trusted_proxies: NetworkList,
    /// Also applies the limits per peer (`max_per_peer`, `reply_factor`, `replies_per_second`) to
    /// clients on this machine: those with loopback addresses, and those of Unix sockets, which all
    /// count as one peer. When this is off, a single forged datagram can make two servers on
    /// loopback that answer replies, such as two echo servers, exchange datagrams without end. When
    /// it is on, `replies_per_second` slows them down. Default false.
    pub limit_loopback: bool,
    /// The most child processes at a time when each connection has its own process. Further
    /// connections wait. On 32-bit systems it is at most 32,766. Default 40.
    pub max_children: usize,
    /// The number of descriptors that connections leave free for all other uses. Default 32.
    pub reserved_descriptors: usize,
    /// Raises the process's soft limit of descriptors to its hard limit when the server binds.
    /// Default true.
    pub raise_descriptor_limit: bool,

    /// The most connections that one listener accepts per turn. Default 16.
    pub accepts_per_turn: usize,
    /// How long a listener pauses after the system had no descriptor or no memory for another
    /// connection. Default 100 ms.
    pub accept_pause: Duration,
    /// The most bytes read from one connection per turn, in reads of at most 128 KiB. After each
    /// read, what the protocol has written is sent; more is read only if the peer takes all of it.
    /// Default 256 KiB.
    pub read_per_turn: usize,
    /// The most bytes written to one connection per turn. Default 256 KiB.
    pub write_per_turn: usize,
    /// The most messages that one session takes, counted as calls of `data_received`, before other
    /// sessions have their turn, and the most that it takes in addition within its calls
    /// ([`has_turn`](crate::Transport::has_turn)). The count starts again with each of the reads that make up
    /// `read_per_turn`. Default 64.
    pub messages_per_turn: usize,
    /// The most connections whose [layer](crate::layer) goes on with its handshake per turn, since a
    /// handshake of TLS takes as long as hundreds of messages. Others wait for the next turn. Default
    /// 4.
    pub handshakes_per_turn: usize,
    /// The most datagrams answered per socket and turn. Default 64.
    pub datagrams_per_turn: usize,
    /// The most deadlines acted on per turn. Default 1,000.
    pub timeouts_per_turn: usize,
    /// A turn of the loop that takes longer than this is counted and logged as a warning, because a
    /// slow handler makes all other connections wait. `None` turns the check off. It applies only
    /// where the loop itself serves the connections. Default 250 ms.
    pub slow_turn: Option<Duration>,
    /// How long a loop polls the system for events without sleeping before it waits, for example
    /// 100 us. Replies come sooner, since no thread has to be woken, but a processor is busy
    /// meanwhile. After polling in vain, the loop sleeps at once whenever it waits, until a wait
    /// ends with an event within twice this time. `None` never polls this way. Default `None`.
    pub busy_poll: Option<Duration>,

    /// The limits of each connection: sizes, marks and deadlines. A listener may have others
    /// ([`ListenOptions`](crate::net::ListenOptions)), and so may a connection
    /// ([`set_limits`](crate::Transport::set_limits)).
    pub limits: Limits,
    /// The most memory, in bytes, that the connections of one loop hold together: the capacity of
    /// the buffers for unread input and waiting output, and what protocols report that they keep
    /// themselves ([`Transport::charge`](crate::Transport::charge)). Above 95 % of the limit, the
    /// connections that hold the most are ended one after the other, until less than 90 % is in use
    /// ([`Shed`](crate::CloseReason::Shed)). With threads the limit applies to all of them
    /// together, and with processes to each; there, a connection ends when it needs more than what
    /// is left. A message longer than this limit cannot arrive, whatever `max_frame` allows. Must
    /// be at least `max_output`. Default 256 MiB.
    pub max_buffered: usize,

    /// The longest reply to a datagram, as a multiple of the datagram's own length. A longer reply
    /// is dropped and counted, so that a sender with a forged address gains nothing. Default 1.
    pub reply_factor: usize,
    /// The most replies to datagrams per second for one peer, as defined by `max_per_peer`.
    /// Datagrams that the peer sends in the rest of that second are dropped and counted. Where
    /// threads or processes answer datagrams, every datagram counts as answered. Default 1,000.
    pub replies_per_second: usize,

    /// Gives each peer of a datagram socket a session, which is shown all datagrams of that peer
    /// ([`datagram_received`](crate::Protocol::datagram_received)) and can send at any time. It ends
    /// when the protocol closes it, or when no datagram came or went for `idle_timeout`. A peer that
    /// has sent only one datagram is forgotten after `first_message_timeout` already. Sessions need
    /// the event loop: with threads or processes, and one connection at a time, a server with such a
    /// socket refuses to begin. Default false: each datagram is a session of its own. A socket can
    /// choose for itself ([`ListenOptions::sessions`](crate::net::ListenOptions::sessions)).
    pub sessions: bool,
    /// The most sessions of datagrams that one loop has at a time. Peers that have sent only one
    /// datagram get at most half of them, because their addresses may be forged. A datagram of a new
    /// peer for whom there is no room is a session of its own, as without `sessions`.
    /// `max_per_peer` limits the sessions of one peer in the same way. On 32-bit systems it is at most
    /// 32,767. Default 10,000.
    pub max_sessions: usize,

    /// How long an outbound connection may take to be established. Default 10 s.
    pub connect_timeout: Option<Duration>,
    /// How long connections may stay open after the first shutdown request. `None` waits until the
    /// last one ends. Default 10 s.
    pub drain_timeout: Option<Duration>,
    /// How long after it was accepted a connection still gets to send its first message when the server
    /// shuts down, and to open a layer such as TLS before that. A client that has just connected would
    /// lose its request otherwise, since the request is still on its way. The protocol is told of the shutdown
    /// ([`shutdown_requested`](crate::Protocol::shutdown_requested)) as soon as that message was served,
    /// or this time has passed. Zero tells it at once. Default 1 s.
    pub drain_grace: Duration,

    /// The most connections that the system queues for one listener before they are accepted. The
    /// system may allow fewer. Default 1,024.
    pub backlog: i32,
    /// Binds a TCP port even if earlier connections on it still linger (SO_REUSEADDR).
    /// Default true.
    pub reuse_address: bool,
    /// Shares a port with other sockets that have this option set too (SO_REUSEPORT).
    /// Default false.
    pub reuse_port: bool,
    /// Accepts IPv4 clients too at the address `[::]` of TCP or UDP (IPV6_V6ONLY off). Other
    /// addresses are of one family. A [`Peer`](crate::Peer) shows such a client with its IPv4
    /// address, and limits per peer count it like any IPv4 client. Default false.
    pub dual_stack: bool,
    /// How long a TCP connection, accepted or outbound, may be silent before the system probes
    /// whether its peer is still there (SO_KEEPALIVE), at most 32,767 s; a fraction of a second is
    /// rounded up. Where the system allows it, a probe follows every quarter of this time, but at
    /// least every 75 s, and after four without an answer the connection ends with an error of the
    /// kind `TimedOut`: after about twice this time. Probes do not count as activity, so
    /// `idle_timeout` is not affected. `None` sends no probes. Default `None`.
    pub keepalive: Option<Duration>,
    /// The permissions of the file of a Unix socket, which decide who may connect: at most 0o777,
    /// whatever the process's umask is. On Linux the file has them from its first moment. On other
    /// systems they are set right after binding: no client can connect before, but a datagram may
    /// come before if the umask allows it. Default 0o600, the owner alone.
    pub socket_mode: u32,
    /// The group of the file of a Unix socket: a name that the system knows, or a number. A process
    /// without privileges can name only groups that it is in. The file grants the group nothing
    /// before it is the right one. `None` leaves the choice to the system. Default `None`.
    pub socket_group: Option<String>,
    /// Sends small writes at once (TCP_NODELAY). Default true.
    pub nodelay: bool,
    /// The size of the system's send buffer per socket, in bytes (SO_SNDBUF). `None` leaves the
    /// choice to the system. Default `None`.
    pub send_buffer: Option<usize>,
    /// The size of the system's receive buffer per socket, in bytes (SO_RCVBUF). `None` leaves the
    /// choice to the system. Default `None`.
    pub receive_buffer: Option<usize>,
    /// How UDP sockets receive from groups, and send.
    pub udp: UdpOptions,
}

impl Config {
    /// Returns the limits for clients that the server trusts: a pool of another program that keeps idle
    /// connections, subscribers that only listen, or many connections from one address. What protects
    /// from strangers alone is off, and what protects from faults stays on:
    ///
    /// - `first_message_timeout` and `idle_timeout` are `None`: a connection may be silent from its
    ///   beginning, and for as long as it likes.
    /// - `max_per_peer` is as high as `max_connections`: one address may have all connections.
    /// - `keepalive` is 60 s, because otherwise a connection whose machine has vanished would never
    ///   end. The system ends it after about two minutes.
    ///
    /// A message that was begun still has to be completed, output has to be accepted, and sizes, memory
    /// and the number of connections are limited as by default. A Unix socket needs no probes and
    /// has none: its peer cannot vanish.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Config, protocols::Echo};
    /// use std::time::Duration;
    ///
    /// let mut session = MemorySession::with_config(Echo, Config::trusted());
    /// session.advance(Duration::from_secs(86_400));
    /// session.receive(b"good morning");
    /// assert_eq!(session.sent(), b"good morning");
    /// ```
    #[must_use]
    pub fn trusted() -> Self {
        let limits = Limits {
            first_message_timeout: None,
            idle_timeout: None,
            ..Limits::default()
        };
        let usual = Self::default();
        Self {
            max_per_peer: usual.max_connections,
            keepalive: Some(TRUSTED_KEEPALIVE),
            limits,
            ..usual
        }
    }

    /// Checks that the limits are valid on their own and consistent with each other. Servers, loops
    /// and the tools for tests do this when they are given a `Config`.
    ///
    /// # Errors
    /// Returns the first problem, with the field that has it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("max_connections", self.max_connections),
            ("max_per_peer", self.max_per_peer),
            ("max_children", self.max_children),
            ("accepts_per_turn", self.accepts_per_turn),
            ("read_per_turn", self.read_per_turn),
            ("write_per_turn", self.write_per_turn),
            ("messages_per_turn", self.messages_per_turn),
            ("handshakes_per_turn", self.handshakes_per_turn),
            ("datagrams_per_turn", self.datagrams_per_turn),
            ("timeouts_per_turn", self.timeouts_per_turn),
            ("reply_factor", self.reply_factor),
            ("replies_per_second", self.replies_per_second),
            ("max_sessions", self.max_sessions),
        ];
        for (field, value) in positive {
            expect(value > 0, field, "at least 1", value)?;
        }

        let (read, pause) = (self.read_per_turn, self.accept_pause);
        expect(read <= READ_MOST, "read_per_turn", "at most 1 GiB", read)?;
        expect(
            !pause.is_zero(),
            "accept_pause",
            "more than 0",
            format_args!("{pause:?}"),
        )?;
        expect(self.backlog > 0, "backlog", "at least 1", self.backlog)?;

        let (reserved, most) = (self.reserved_outbound, self.max_connections);
        let rule = format!("less than max_connections ({most})");
        expect(reserved < most, "reserved_outbound", rule, reserved)?;

        self.validate_sockets()?;
        self.udp.validate()?;
        self.validate_buffers()
    }

    fn validate_sockets(&self) -> Result<(), ConfigError> {
        if let Some(idle) = self.keepalive {
            let (shown, rule) = (format!("{idle:?}"), "more than 0 and at most 32767s");
            let is_possible = !idle.is_zero() && idle <= KEEPALIVE_MOST;
            expect(is_possible, "keepalive", rule, shown)?;
        }

        let mode = self.socket_mode;
        let shown = format!("{mode:#o}");
        expect(mode <= MODE_MOST, "socket_mode", "at most 0o777", shown)?;

        let group = self.socket_group.as_deref().unwrap_or("0");
        let rule = "a name or a number";
        expect(
            is_group(group),
            "socket_group",
            rule,
            format_args!("{group:?}"),
        )
    }

    fn validate_buffers(&self) -> Result<(), ConfigError> {
        let systems = [
            ("send_buffer", self.send_buffer),
            ("receive_buffer", self.receive_buffer),
        ];
        for (field, size) in systems {
            let size = size.unwrap_or(0);
            expect(i32::try_from(size).is_ok(), field, "less than 2 GiB", size)?;
        }

        self.limits.validate()?;
        self.limits.fit(self.max_buffered)
    }

    /// Lowers limits to what the system can number, and logs a warning for each one that it lowers: a
    /// table of connections or sessions has this many `slots`. Tokens are scarce on 32-bit systems.
    pub(crate) fn cap(&mut self, slots: usize, children: usize) {
        // Connections for datagrams have their slots among the sessions, and all may be for datagrams.
        lower("max_sessions", &mut self.max_sessions, slots / 2);
        let connections = slots - self.max_sessions;
        lower("max_connections", &mut self.max_connections, connections);
        lower("max_children", &mut self.max_children, children);

        // It was less than `max_connections` before.
        let reserved = self.max_connections.saturating_sub(1);
        lower("reserved_outbound", &mut self.reserved_outbound, reserved);
    }

    /// Returns how many reads one connection may have per turn, and how many bytes each may return.
    pub(crate) fn reads_per_turn(&self) -> (usize, usize) {
        let reads = self.read_per_turn.div_ceil(READ_AT_ONCE).max(1);
        (reads, self.read_per_turn.div_ceil(reads))
    }
}

/// Lowers a limit to `most`, and logs a warning if it was higher.
fn lower(name: &str, limit: &mut usize, most: usize) {
    if *limit > most {
        log::warn!(
            target: LOG_TARGET, "{name} is lowered from {limit} to {most}, the most that this system supports"
        );
        *limit = most;
    }
}

/// Returns an error about `field` unless its value `holds` to the rule.
fn expect(
    holds: bool,
    field: &'static str,
    rule: impl fmt::Display,
    value: impl fmt::Display,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }

    let problem = format!("must be {rule}, not {value}");
    Err(ConfigError { field, problem })
}

/// A field of a [`Config`] with a value that makes no sense.
///
/// ```
/// use serveloop::{Config, ConfigError, Server};
///
/// let config = Config { max_connections: 0, ..Config::default() };
/// let error = config.validate().unwrap_err();
/// assert_eq!(error.field, "max_connections");
/// assert_eq!(error.to_string(), "max_connections must be at least 1, not 0");
///
/// // Where a server is made, it is inside an I/O error of the kind `InvalidInput`.
/// let error = Server::bind(&["tcp://127.0.0.1:0".parse()?], config).unwrap_err();
/// assert!(error.get_ref().is_some_and(|inner| inner.is::<ConfigError>()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The name of the field.
    pub field: &'static str,
    /// What its value must be and what it is, in words that follow the field's name. Sizes are in
    /// bytes. Other fields that it depends on are named, with their values.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

impl Error for ConfigError {}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            reserved_outbound: 0,
            max_per_peer: 256,
            trusted_proxies: NetworkList::default(),
            limit_loopback: false,
            max_children: 40,
            reserved_descriptors: 32,
            raise_descriptor_limit: true,

            accepts_per_turn: 16,
            accept_pause: Duration::from_millis(100),
            read_per_turn: 256 * KIB,
            write_per_turn: 256 * KIB,
            messages_per_turn: 64,
            handshakes_per_turn: 4,
            datagrams_per_turn: 64,
            timeouts_per_turn: 1_000,
            slow_turn: Some(Duration::from_millis(250)),
            busy_poll: None,

            limits: Limits::default(),
            max_buffered: 256 * MIB,

            reply_factor: 1,
            replies_per_second: 1_000,
            sessions: false,
            max_sessions: 10_000,

            connect_timeout: Some(Duration::from_secs(10)),
            drain_timeout: Some(Duration::from_secs(10)),
            drain_grace: Duration::from_secs(1),

            backlog: 1_024,
            reuse_address: true,
            reuse_port: false,
            dual_stack: false,
            keepalive: None,
            socket_mode: 0o600,
            socket_group: None,
            nodelay: true,
            send_buffer: None,
            receive_buffer: None,
            udp: UdpOptions::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_beyond_what_can_be_numbered_are_lowered() {
        let mut config = Config {
            max_connections: 100_000,
            ..Config::default()
        };
        config.cap(usize::MAX, 32_766);
        assert_eq!(config.max_connections, 100_000);
        config.cap(SLOTS, 30);
        assert_eq!((config.max_connections, config.max_children), (55_535, 30));
    }

    /// The slots of a table where a token has 32 bits.
    const SLOTS: usize = 65_535;

    #[test]
    fn sessions_and_connections_for_datagrams_have_a_slot_each() {
        for (connections, sessions) in [
            (10_000, 10_000),
            (65_535, 1),
            (1, 65_535),
            (65_535, 65_535),
            (usize::MAX, usize::MAX),
        ] {
            let mut config = Config {
                max_connections: connections,
                max_sessions: sessions,
                ..Config::default()
            };
            config.cap(SLOTS, 30);
            let (connected, begun) = (config.max_connections, config.max_sessions);
            assert!(connected + begun <= SLOTS, "{connected}, {begun}");
            assert!(connected >= connections.min(SLOTS / 2), "{connected}");
            assert!(begun >= sessions.min(SLOTS / 2), "{begun}");
        }
    }

    #[test]
    fn a_lowered_limit_leaves_a_place_for_clients() {
        let mut config = Config {
            max_connections: 100_000,
            reserved_outbound: 70_000,
            ..Config::default()
        };
        config.cap(SLOTS, 30);
        assert!(config.reserved_outbound < config.max_connections);
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn a_turns_reads_make_up_its_budget() {
        for (budget, expected) in [
            (1, (1, 1)),
            (READ_AT_ONCE, (1, READ_AT_ONCE)),
            (READ_AT_ONCE + 1, (2, READ_AT_ONCE / 2 + 1)),
            (4 * READ_AT_ONCE, (4, READ_AT_ONCE)),
        ] {
            let config = Config {
                read_per_turn: budget,
                ..Config::default()
            };

            assert_eq!(config.reads_per_turn(), expected);
        }
    }
}
