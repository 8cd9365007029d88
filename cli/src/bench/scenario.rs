//! One kind of load that servers are measured under.

use std::fmt;
use std::time::Duration;

use crate::units::Size;

/// How many addresses a server listens at with churn. A port stays in use for a minute after its
/// connection, and this many addresses provide enough ports for that time.
const CHURN_LISTENERS: usize = 16;

/// How many ended connections a server may still hold while as many new ones arrive.
const SLACK: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) pace: Pace,
    /// The number of active connections.
    pub(crate) connections: usize,
    /// The number of additional connections, which are used once and then idle.
    pub(crate) idle: usize,
    /// The size of a message, in bytes.
    pub(crate) size: usize,
    /// The most messages in flight on each connection.
    pub(crate) depth: usize,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When the previous one has come back.
    Closed,
    /// At a steady rate of this many messages per second.
    Open(u64),
    /// On a new connection, when the previous message has come back.
    Churn,
}

impl Scenario {
    /// Returns how many connections are open at a time.
    pub(crate) fn total(&self) -> usize {
        self.connections + self.idle
    }

    /// Returns how many connections a server may see at a time. With churn, it learns late that
    /// some have ended.
    pub(crate) fn standing_most(&self) -> usize {
        match self.pace {
            Pace::Churn => 2 * self.total() + SLACK,
            Pace::Closed | Pace::Open(_) => self.total() + SLACK,
        }
    }

    /// Returns at how many addresses one of the command's own servers listens.
    pub(crate) fn listeners(&self) -> usize {
        match self.pace {
            Pace::Churn => CHURN_LISTENERS,
            Pace::Closed | Pace::Open(_) => 1,
        }
    }

    /// Returns what the load counts: messages, or with churn, connections.
    pub(crate) fn unit(&self) -> &'static str {
        match self.pace {
            Pace::Churn => "connections",
            Pace::Closed | Pace::Open(_) => "messages",
        }
    }

    /// Describes the load without its number of active connections.
    pub(crate) fn family(&self) -> String {
        let mut text = format!("{} B", self.size);
        if self.size >= 1_024 {
            text = Size::from(self.size).to_string();
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
            text += &format!(", beside {} idle", self.idle);
        }
        text
    }
}

impl Pace {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::Churn => "churn",
        }
    }

    /// Returns the interval between two messages of an open loop, during which nothing is sent. It
    /// is zero for other loads.
    pub(crate) fn distance(self) -> Duration {
        let nanos = self.rate().map(|rate| 1_000_000_000 / rate);
        Duration::from_nanos(nanos.unwrap_or(0))
    }

    /// Returns the messages per second that an open loop asks for.
    pub(crate) fn rate(self) -> Option<u64> {
        match self {
            Self::Open(rate) => Some(rate),
            Self::Closed | Self::Churn => None,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.connections == 1 { "" } else { "s" };
        let family = self.family();
        write!(f, "{} connection{plural}, {family}", self.connections)
    }
}
