//! Channels: what one client publishes goes to all that listen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serveloop::service::{Group, Lagging, Outbox};
use serveloop::{Limits, Transport};

use crate::number;
use crate::reply::pushed;
use crate::store::clients::Client;
use crate::store::glob;

/// What a channel or a pattern takes for one client in bytes, besides its name: the places in which it
/// is kept.
const SUBSCRIPTION: usize = 200;

/// A client that listens may be silent for so long while nothing is published, unless others may be silent for
/// longer. Without any limit, one whose machine has gone would never end.
const SILENCE: Duration = Duration::from_secs(60 * 60);

/// What a client listens to: channels by their names, or all whose names match a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    /// Returns the group's name for a channel or a pattern.
    fn topic(self, name: &[u8]) -> Vec<u8> {
        let mark: &[u8] = match self {
            Self::Channel => b"c",
            Self::Pattern => b"p",
        };
        [mark, name].concat()
    }
}

/// Returns what a message was published for: the channel or the pattern in it.
fn addressed(message: &[u8]) -> Option<(Kind, &[u8])> {
    let (kind, rest) = match message {
        [b'*', b'3', _, _, rest @ ..] => (Kind::Channel, rest),
        [b'*', b'4', _, _, rest @ ..] => (Kind::Pattern, rest),
        _ => return None,
    };
    let (_, rest) = bulk(rest)?;
    Some((kind, bulk(rest)?.0))
}

/// Splits a bulk string off.
fn bulk(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\r')?;
    let length = number::integer(data[..end].strip_prefix(b"$")?)?;
    let length = usize::try_from(length).ok()?;
    let text = data[end..].strip_prefix(b"\r\n")?;
    Some((text.get(..length)?, text.get(length + 2..)?))
}

/// All channels and patterns that clients listen to.
#[derive(Debug)]
pub(super) struct Channels {
    members: Group,
    /// Patterns, with how many clients listen to each.
    patterns: Mutex<BTreeMap<Vec<u8>, usize>>,
}

impl Channels {
    pub(super) fn new() -> Self {
        Self {
            // As in Redis: a client that does not keep up notices it.
            members: Group::new(Lagging::Close),
            patterns: Mutex::default(),
        }
    }

    /// Sends a message to all that listen to a channel, and returns how many that are. A client that
    /// listens in several ways is sent it several times.
    pub(super) fn publish(&self, channel: &[u8], message: &[u8]) -> usize {
        let topic = Kind::Channel.topic(channel);
        let told = self
            .members
            .publish(topic, pushed(&[b"message", channel, message]));
        let mut count = told.sent;

        let patterns: Vec<_> = {
            let patterns = self.patterns();
            let matching = patterns
                .keys()
                .filter(|pattern| glob::matches(pattern, channel));
            matching.cloned().collect()
        };
        for pattern in patterns {
            let message = pushed(&[b"pmessage", &pattern, channel, message]);
            count += self
                .members
                .publish(Kind::Pattern.topic(&pattern), message)
                .sent;
        }
        count
    }

    /// Returns the channels that clients listen to by their names.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        let topics = self.members.topics_with_members();
        let channels = topics.iter().filter_map(|topic| topic.strip_prefix(b"c"));
        channels.map(<[u8]>::to_vec).collect()
    }

    /// Returns how many clients listen to a channel by its name.
    pub(super) fn members_of(&self, channel: &[u8]) -> usize {
        self.members.members(Kind::Channel.topic(channel))
    }

    /// Returns how many patterns clients listen to.
    pub(super) fn pattern_count(&self) -> usize {
        self.patterns().len()
    }

    fn join(&self, kind: Kind, name: &[u8], outbox: &Outbox) {
        self.members.join(kind.topic(name), outbox);
        if kind == Kind::Pattern {
            *self.patterns().entry(name.to_vec()).or_default() += 1;
        }
    }

    fn leave(&self, kind: Kind, name: &[u8], id: u64) {
        self.members.leave(kind.topic(name), id);
        if kind == Kind::Pattern {
            let mut patterns = self.patterns();
            match patterns.get_mut(name) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(patterns.remove(name)),
            }
        }
    }

    fn patterns(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, usize>> {
        self.patterns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one client listens to.
#[derive(Debug)]
pub(super) struct Listening {
    client: Arc<Client>,
    outbox: Outbox,
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    bytes: usize,
    /// Whether it has left some, for which messages may still be on their way.
    has_left: bool,
    /// The connection's limits before, which also end one that sends nothing.
    limits: Arc<Limits>,
}

impl Listening {
    /// Begins to listen to nothing yet. From now on the client may be silent for long.
    pub(super) fn begin(client: &Arc<Client>, transport: &mut Transport<'_>) -> Self {
        let limits = Arc::new(transport.limits().clone());
        let patient = Limits {
            idle_timeout: limits.idle_timeout.map(|timeout| timeout.max(SILENCE)),
            ..Limits::clone(&limits)
        };
        // They are as consistent as before.
        let _ = transport.set_limits(Arc::new(patient));
        Self {
            client: Arc::clone(client),
            outbox: transport.outbox(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            bytes: 0,
            has_left: false,
            limits,
        }
    }

    /// Ends all of it.
    pub(super) fn end(mut self, channels: &Channels, transport: &mut Transport<'_>) {
        self.leave_all(channels);
        let _ = transport.set_limits(self.limits);
    }

    pub(super) fn join(&mut self, kind: Kind, name: &[u8], channels: &Channels) {
        if self.names_mut(kind).insert(name.to_vec()) {
            self.bytes += SUBSCRIPTION + name.len() * 2;
            channels.join(kind, name, &self.outbox);
            self.note();
        }
    }

    pub(super) fn leave(&mut self, kind: Kind, name: &[u8], channels: &Channels) {
        if self.names_mut(kind).remove(name) {
            self.bytes -= SUBSCRIPTION + name.len() * 2;
            self.note_left();
            channels.leave(kind, name, self.outbox.id());
            self.note();
        }
    }

    /// Notes that messages for channels that were left may still be on their way.
    pub(super) fn note_left(&mut self) {
        self.has_left = true;
    }

    /// Leaves everything when the connection has ended.
    pub(super) fn leave_all(&mut self, channels: &Channels) {
        for kind in [Kind::Channel, Kind::Pattern] {
            for name in self.names(kind) {
                self.leave(kind, &name, channels);
            }
        }
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<Vec<u8>> {
        let names = match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
        };
        names.iter().cloned().collect()
    }

    /// Returns whether a message is for a channel or a pattern that was not left.
    pub(super) fn is_for(&self, message: &[u8]) -> bool {
        !self.has_left
            || addressed(message).is_some_and(|(kind, name)| match kind {
                Kind::Channel => self.channels.contains(name),
                Kind::Pattern => self.patterns.contains(name),
            })
    }

    /// Returns how many channels and patterns there are.
    pub(super) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Returns how many bytes of memory all of it takes.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    fn names_mut(&mut self, kind: Kind) -> &mut BTreeSet<Vec<u8>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    fn note(&self) {
        self.client
            .note_subscriptions(self.channels.len(), self.patterns.len());
    }
}
