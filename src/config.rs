//! Every limit, deadline and socket option, with its unit and its default.

use std::io;
use std::time::Duration;

use crate::LOG_TARGET;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What is read at once: a buffer of this size stays in the processor's cache.
const READ_AT_ONCE: usize = 64 * KIB;

/// A turn is meant for all connections, so that one cannot have it for seconds.
const READ_MOST: usize = 1024 * MIB;

/// The limits of a server and of each of its sessions. All are on from the start; a deadline of
/// `None` is off. Change what you need:
///
/// ```
/// use serveloop::Config;
/// let config = Config { max_connections: 12_000, idle_timeout: None, ..Config::default() };
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most connections at a time, in and out, by each loop. One more is accepted and closed
    /// at once, and counted. The number in force is smaller where descriptors do not suffice: the
    /// process's limit less `reserved_descriptors`. On systems of 32 bits it is at most 65,535,
    /// which is said at the start. Default 10,000.
    pub max_connections: usize,
    /// The most connections at a time that come from one peer: an IPv4 address, or a network of
    /// IPv6 addresses (/64), which one machine can have all to itself. One more is refused like one
    /// beyond `max_connections`, by each loop. Default 256.
    pub max_per_peer: usize,
    /// Apply the limits on single peers (`max_per_peer`, `reply_factor`, `replies_per_second`) to
    /// this machine's own clients too: those of loopback addresses, and those of Unix sockets, which
    /// count as one peer. Without it one forged datagram can make two servers on loopback that answer
    /// each other's replies, two echos, talk for ever; with it `replies_per_second` slows them down.
    /// Default false.
    pub limit_loopback: bool,
    /// The most processes at a time, where each connection has its own; further connections wait. On
    /// systems of 32 bits at most 32,766. Default 40.
    pub max_children: usize,
    /// Descriptors that connections leave free for everything else. Default 32.
    pub reserved_descriptors: usize,
    /// Raise the process's soft limit of descriptors to its hard limit when binding. Default true.
    pub raise_descriptor_limit: bool,

    /// Accepted connections per listener and turn. Default 16.
    pub accepts_per_turn: usize,
    /// How long a listener waits after the system had no descriptor or memory for one more
    /// connection. Default 100 ms.
    pub accept_pause: Duration,
    /// Bytes read from one connection per turn, at most 64 KiB at once. After each read what the
    /// protocol has written is sent, and only if the peer takes all of it more is read. Default
    /// 256 KiB.
    pub read_per_turn: usize,
    /// Bytes written to one connection per turn. Default 256 KiB.
    pub write_per_turn: usize,
    /// Messages that one session takes, which is how often its `data_received` is called, before
    /// others have their turn; once for each 64 KiB of `read_per_turn`. Default 64.
    pub messages_per_turn: usize,
    /// Datagrams answered per socket and turn. Default 64.
    pub datagrams_per_turn: usize,
    /// Deadlines acted on per turn. Default 1,000.
    pub timeouts_per_turn: usize,
    /// A turn of the loop that takes longer than this is counted and warned about: a handler keeps
    /// everybody waiting. `None` does not look. Default 250 ms.
    pub slow_turn: Option<Duration>,
    /// How long a loop asks the system for news again and again before it sleeps, for example
    /// 100 us: replies come sooner, since nobody has to be woken, and a processor is busy meanwhile.
    /// Only as long as that pays: after asking in vain the loop sleeps at once, until news has come
    /// within twice this time. `None` never asks again. Default `None`.
    pub busy_poll: Option<Duration>,

    /// From this many bytes of untaken output on, no more of the peer's input is read.
    /// Default 64 KiB.
    pub high_water: usize,
    /// Reading goes on, and `resume_writing` is called, when untaken output has fallen to this
    /// many bytes. Default 32 KiB.
    pub low_water: usize,
    /// More untaken output than this, in bytes, ends the connection. Default 1 MiB.
    pub max_output: usize,
    /// What the connections of one loop keep together, in bytes: unread input and untaken output, as
    /// much memory as their buffers have, and what protocols say that they keep themselves
    /// ([`Transport::charge`](crate::Transport::charge)). Past 95 % of it the connections that keep the most are
    /// ended, one after the other, until it is below 90 %: [`Shed`](crate::CloseReason::Shed). With
    /// threads the limit is on all of them together, with processes on each; there the connection
    /// ends that keeps more than was left. A message longer than this cannot arrive, whatever
    /// `max_frame` says. Default 256 MiB.
    pub max_buffered: usize,
    /// The longest message of a framed protocol, in bytes without its header; the most that a
    /// session keeps for a protocol that calls everything incomplete. Default 1 MiB.
    pub max_frame: usize,
    /// The longest line of a line protocol, in bytes without its end. Default 8 KiB.
    pub max_line: usize,

    /// A reply to a datagram is at most this many times as long as the datagram, or it is dropped
    /// and counted: who sends in another's name must not gain by it. Default 1.
    pub reply_factor: usize,
    /// Replies to datagrams for one peer, as `max_per_peer` understands it, in a second; what it
    /// sends in the rest of the second is dropped and counted. Where datagrams are answered by
    /// threads or processes, each counts as answered. Default 1,000.
    pub replies_per_second: usize,

    /// From connecting to an established outbound connection. Default 10 s.
    pub connect_timeout: Option<Duration>,
    /// From the connection's beginning to its first complete message. Default 10 s.
    pub first_message_timeout: Option<Duration>,
    /// From a later message's first byte to its last. Default 30 s.
    pub message_timeout: Option<Duration>,
    /// Without a byte in either direction, while the protocol is ready for input. Default 60 s.
    pub idle_timeout: Option<Duration>,
    /// With output waiting of which the peer takes nothing. Default 30 s.
    pub write_timeout: Option<Duration>,
    /// After we ended our side first: without a byte from the peer, whose end we await so that
    /// late input does not destroy our last reply. `None` closes without waiting. Default 5 s.
    pub linger_timeout: Option<Duration>,
    /// The same wait, however much the peer sends. Default 30 s.
    pub linger_limit: Duration,
    /// The same wait, while the server shuts down. Default 250 ms.
    pub linger_draining: Duration,
    /// Bytes thrown away during that wait before the connection is closed all the same.
    /// Default 256 KiB.
    pub linger_bytes: usize,
    /// From the first request to shut down to the end of the connections still open; `None` waits
    /// for as long as they take. Default 10 s.
    pub drain_timeout: Option<Duration>,

    /// Connections that the system queues for one listener before they are accepted; the system
    /// may allow fewer. Default 1,024.
    pub backlog: i32,
    /// Take over a TCP port whose former connections still linger (SO_REUSEADDR). Default true.
    pub reuse_address: bool,
    /// Share a port with other sockets that say the same (SO_REUSEPORT). Default false.
    pub reuse_port: bool,
    /// Send small writes at once (TCP_NODELAY). Default true.
    pub nodelay: bool,
    /// The system's send buffer per socket, in bytes (SO_SNDBUF); `None` leaves it to the system.
    /// Default `None`.
    pub send_buffer: Option<usize>,
    /// The system's receive buffer per socket, in bytes (SO_RCVBUF); `None` leaves it to the
    /// system. Default `None`.
    pub receive_buffer: Option<usize>,
}

impl Config {
    /// Checks that the limits make sense together; everything that takes a `Config` calls it.
    ///
    /// # Errors
    /// `InvalidInput`, with a message that names the field.
    pub fn validate(&self) -> io::Result<()> {
        let positive = [
            ("max_connections", self.max_connections),
            ("max_per_peer", self.max_per_peer),
            ("max_children", self.max_children),
            ("accepts_per_turn", self.accepts_per_turn),
            ("read_per_turn", self.read_per_turn),
            ("write_per_turn", self.write_per_turn),
            ("messages_per_turn", self.messages_per_turn),
            ("datagrams_per_turn", self.datagrams_per_turn),
            ("timeouts_per_turn", self.timeouts_per_turn),
            ("high_water", self.high_water),
            ("reply_factor", self.reply_factor),
            ("replies_per_second", self.replies_per_second),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(invalid(format!("{name} must be at least 1")));
        }
        if self.read_per_turn > READ_MOST {
            return Err(invalid("read_per_turn must be at most 1 GiB".to_owned()));
        }
        if self.accept_pause.is_zero() {
            return Err(invalid("accept_pause must be more than 0".to_owned()));
        }
        if self.backlog < 1 {
            return Err(invalid("backlog must be at least 1".to_owned()));
        }
        let buffers = [
            ("send_buffer", self.send_buffer),
            ("receive_buffer", self.receive_buffer),
        ];
        let too_large = |size: Option<usize>| size.is_some_and(|size| i32::try_from(size).is_err());
        if let Some((name, _)) = buffers.iter().find(|(_, size)| too_large(*size)) {
            return Err(invalid(format!("{name} must be less than 2 GiB")));
        }
        if self.low_water >= self.high_water {
            return Err(invalid("low_water must be less than high_water".to_owned()));
        }
        if self.max_output < self.high_water {
            return Err(invalid("max_output must be at least high_water".to_owned()));
        }
        if self.max_buffered < self.max_output {
            return Err(invalid(
                "max_buffered must be at least max_output".to_owned(),
            ));
        }
        Ok(())
    }

    /// Lowers limits that are beyond what the system can number, and says so: on systems of 32 bits
    /// there are fewer tokens than somebody may ask for.
    pub(crate) fn cap(&mut self, connections: usize, children: usize) {
        let limits = [
            ("max_connections", &mut self.max_connections, connections),
            ("max_children", &mut self.max_children, children),
        ];
        for (name, limit, most) in limits {
            if *limit > most {
                log::warn!(
                    target: LOG_TARGET, "{name} is {most}, not {limit}: this system has no more numbers for them"
                );
                *limit = most;
            }
        }
    }

    /// How often one connection may be read from in one turn, and how many bytes each time.
    pub(crate) fn reads_per_turn(&self) -> (usize, usize) {
        let reads = self.read_per_turn.div_ceil(READ_AT_ONCE).max(1);
        (reads, self.read_per_turn.div_ceil(reads))
    }
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_per_peer: 256,
            limit_loopback: false,
            max_children: 40,
            reserved_descriptors: 32,
            raise_descriptor_limit: true,
            accepts_per_turn: 16,
            accept_pause: Duration::from_millis(100),
            read_per_turn: 256 * KIB,
            write_per_turn: 256 * KIB,
            messages_per_turn: 64,
            datagrams_per_turn: 64,
            timeouts_per_turn: 1_000,
            slow_turn: Some(Duration::from_millis(250)),
            busy_poll: None,
            high_water: 64 * KIB,
            low_water: 32 * KIB,
            max_output: MIB,
            max_buffered: 256 * MIB,
            max_frame: MIB,
            max_line: 8 * KIB,
            reply_factor: 1,
            replies_per_second: 1_000,
            connect_timeout: Some(Duration::from_secs(10)),
            first_message_timeout: Some(Duration::from_secs(10)),
            message_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(60)),
            write_timeout: Some(Duration::from_secs(30)),
            linger_timeout: Some(Duration::from_secs(5)),
            linger_limit: Duration::from_secs(30),
            linger_draining: Duration::from_millis(250),
            linger_bytes: 256 * KIB,
            drain_timeout: Some(Duration::from_secs(10)),
            backlog: 1_024,
            reuse_address: true,
            reuse_port: false,
            nodelay: true,
            send_buffer: None,
            receive_buffer: None,
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
        config.cap(100_000, 32_766);
        assert_eq!(config.max_connections, 100_000);
        config.cap(65_535, 30);
        assert_eq!((config.max_connections, config.max_children), (65_535, 30));
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

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        Config::default().validate().unwrap();
        let zero = Config {
            read_per_turn: 0,
            ..Config::default()
        };
        assert_eq!(
            zero.validate().unwrap_err().to_string(),
            "read_per_turn must be at least 1"
        );
        let crossed = Config {
            low_water: 9,
            high_water: 8,
            ..Config::default()
        };
        assert!(
            crossed
                .validate()
                .unwrap_err()
                .to_string()
                .starts_with("low_water")
        );
        let small = Config {
            max_output: 10,
            ..Config::default()
        };
        assert!(
            small
                .validate()
                .unwrap_err()
                .to_string()
                .starts_with("max_output")
        );
        let scarce = Config {
            max_buffered: MIB - 1,
            ..Config::default()
        };
        assert!(
            scarce
                .validate()
                .unwrap_err()
                .to_string()
                .starts_with("max_buffered")
        );
    }
}
