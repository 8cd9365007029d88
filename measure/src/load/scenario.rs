//! One kind of load that servers are measured under.

use std::fmt;
use std::time::Duration;

use crate::figure::size;

use serveloop::protocols::counted;

/// How many addresses a server listens at with churn. A port stays in use for a minute after its
/// connection, and this many addresses provide enough ports for that time.
const CHURN_LISTENERS: usize = 16;

/// How many ended connections a server may still hold while as many new ones arrive.
const SLACK: usize = 512;

/// The name of an echo, which is not told.
const ECHO: &str = "echo";

/// One kind of load. The default is one connection that sends messages of 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// When messages are sent.
    pub pace: Pace,
    /// The number of active connections.
    pub connections: usize,
    /// The number of additional connections, which are used once and then idle.
    pub idle: usize,
    /// The size of a message, in bytes. With churn it may be 0: then a connection has no message, but
    /// ends as soon as it is established, and counts when the server has ended it too.
    pub size: usize,
    /// The most messages in flight on each connection.
    pub depth: usize,
    /// What the bytes of a message are.
    pub shape: Shape,
    /// What the generator does while no reply is there.
    pub waiting: Waiting,
    /// The name of what is exchanged, for those who read the results.
    pub protocol: &'static str,
    /// Who is sent what a client says.
    pub audience: Audience,
}

/// Who is sent what a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The client itself.
    Sender,
    /// All other connections, which say nothing. What is sent is one more.
    All,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When the previous one has come back.
    Closed,
    /// At a steady rate of this many messages per second.
    Open(u64),
    /// On a new connection, when the previous message has come back.
    Churn,
}

/// What makes the bytes of a message one for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any bytes.
    Plain,
    /// The first four bytes are the length of the rest, the most significant first.
    Length,
    /// The last byte is a line feed, and no other.
    Line,
}

/// What the generator does while no reply is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Sleeps, so that the system has to wake it.
    Sleep,
    /// Asks again at once, so that no measurement contains the time for waking it.
    Spin,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            pace: Pace::Closed,
            connections: 1,
            idle: 0,
            size: 64,
            depth: 1,
            shape: Shape::Plain,
            waiting: Waiting::Sleep,
            protocol: ECHO,
            audience: Audience::Sender,
        }
    }
}

impl Scenario {
    /// Returns how many connections are open at a time.
    #[must_use]
    pub fn total(&self) -> usize {
        self.connections + self.idle
    }

    /// Returns how many connections a server may see at a time. With churn, it learns late that
    /// some have ended.
    #[must_use]
    pub fn standing_most(&self) -> usize {
        match self.pace {
            Pace::Churn => 2 * self.total() + SLACK,
            Pace::Closed | Pace::Open(_) => self.total() + SLACK,
        }
    }

    /// Returns at how many addresses a server that is started for this load listens.
    #[must_use]
    pub fn listeners(&self) -> usize {
        match self.pace {
            Pace::Churn => CHURN_LISTENERS,
            Pace::Closed | Pace::Open(_) => 1,
        }
    }

    /// Returns what the load counts: messages, or with churn, connections.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self.pace {
            Pace::Churn => "connections",
            _ if self.audience == Audience::All => "deliveries",
            Pace::Closed | Pace::Open(_) => "messages",
        }
    }

    /// Describes the load without its number of active connections.
    #[must_use]
    pub fn family(&self) -> String {
        let mut text = format!("{} B", self.size);
        if self.size >= 1_024 {
            text = size(self.size);
        }
        match self.audience {
            Audience::All => text = format!("{}, one to all, {text}", self.protocol),
            Audience::Sender if self.protocol != ECHO => {
                text = format!("{}, {text}", self.protocol);
            }
            Audience::Sender => {}
        }

        if self.depth > 1 {
            text += &format!(", depth {}", self.depth);
        }
        match self.pace {
            Pace::Closed => {}
            Pace::Open(rate) => text += &format!(", {rate} messages/s"),
            Pace::Churn => text += ", connect, one exchange, close",
        }
        if self.idle > 0 {
            text += &format!(", plus {} idle", self.idle);
        }
        text
    }
}

impl Pace {
    /// Returns the name of the pace: closed, open or churn.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::Churn => "churn",
        }
    }

    /// Returns the pace with this name, at this rate if it has one.
    #[must_use]
    pub fn named(name: &str, rate: Option<u64>) -> Option<Self> {
        match (name, rate) {
            ("closed", None) => Some(Self::Closed),
            ("open", Some(rate)) => Some(Self::Open(rate)),
            ("churn", None) => Some(Self::Churn),
            _ => None,
        }
    }

    /// Returns the messages per second that an open loop asks for.
    #[must_use]
    pub fn rate(self) -> Option<u64> {
        match self {
            Self::Open(rate) => Some(rate),
            Self::Closed | Self::Churn => None,
        }
    }

    /// Returns the interval between two messages of an open loop, during which nothing is sent. It
    /// is zero for other loads.
    pub(crate) fn distance(self) -> Duration {
        let nanos = self.rate().map(|rate| 1_000_000_000 / rate);
        Duration::from_nanos(nanos.unwrap_or(0))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = counted(self.connections, "connection", "connections");
        write!(f, "{connections}, {}", self.family())
    }
}
