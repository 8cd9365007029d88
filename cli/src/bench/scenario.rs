//! One kind of load.

use std::fmt;
use std::time::Duration;

use crate::units::Size;

/// Connections that ended keep their port for a minute; a server at so many addresses has ports
/// for all that are made meanwhile.
const CHURN_LISTENERS: usize = 16;

/// Connections that a server may still have to end while as many new ones come.
const SLACK: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) pace: Pace,
    /// Connections that are active.
    pub(crate) connections: usize,
    /// Connections beside them that were used once and stand idle.
    pub(crate) idle: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Messages under way at a time on each connection, at most.
    pub(crate) depth: usize,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When one has come back.
    Closed,
    /// At a moment of its own; so many messages a second.
    Open(u64),
    /// With a new connection, when one has come back.
    Churn,
}

impl Scenario {
    /// All connections that stand at a time.
    pub(crate) fn total(&self) -> usize {
        self.connections + self.idle
    }

    /// All connections that a server may see at a time: with churn it hears late that some ended.
    pub(crate) fn standing_most(&self) -> usize {
        match self.pace {
            Pace::Churn => 2 * self.total() + SLACK,
            Pace::Closed | Pace::Open(_) => self.total() + SLACK,
        }
    }

    /// At how many addresses a server of ours listens.
    pub(crate) fn listeners(&self) -> usize {
        match self.pace {
            Pace::Churn => CHURN_LISTENERS,
            Pace::Closed | Pace::Open(_) => 1,
        }
    }

    /// What a message is called: with churn it is a whole connection.
    pub(crate) fn unit(&self) -> &'static str {
        match self.pace {
            Pace::Churn => "connections",
            Pace::Closed | Pace::Open(_) => "messages",
        }
    }

    /// What is the same whatever the number of connections.
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

    /// How long nothing may be sent because nothing is due.
    pub(crate) fn distance(self) -> Duration {
        let nanos = self.rate().map(|rate| 1_000_000_000 / rate);
        Duration::from_nanos(nanos.unwrap_or(0))
    }

    /// Messages per second that were asked for.
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
