//! Several deadlines of one protocol.

use std::collections::BTreeMap;
use std::time::Instant;

/// The deadlines of a protocol, or of a factory, that has several: each has a key, and the earliest
/// one answers [`poll_timeout`](crate::Protocol::poll_timeout).
///
/// Deadlines pass in the order of their moments, and those of the same moment in the order in which
/// they were set. Setting, cancelling and taking one takes time in proportion to the logarithm of their
/// number. Without a deadline it needs no memory of its own.
///
/// ```
/// use serveloop::service::Deadlines;
/// use serveloop::testing::MemorySession;
/// use serveloop::{Protocol, Result, Transport};
/// use std::time::{Duration, Instant};
///
/// #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
/// enum Due {
///     /// Ask whether the peer is still there.
///     Ping,
///     /// It has not answered.
///     GiveUp,
/// }
///
/// #[derive(Default)]
/// struct Lively(Deadlines<Due>);
///
/// impl Lively {
///     fn wait(&mut self, now: Instant) {
///         self.0.set(Due::Ping, now + Duration::from_secs(20));
///         self.0.set(Due::GiveUp, now + Duration::from_secs(30));
///     }
/// }
///
/// impl Protocol for Lively {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         self.wait(transport.now());
///         Ok(())
///     }
///
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         self.wait(transport.now());
///         Ok(data.len())
///     }
///
///     fn poll_timeout(&self) -> Option<Instant> {
///         self.0.poll_timeout()
///     }
///
///     fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
///         while let Some(due) = self.0.take_due(transport.now()) {
///             match due {
///                 Due::Ping => transport.write(b"ping\n"),
///                 Due::GiveUp => transport.close(),
///             }
///         }
///     }
/// }
///
/// let mut session = MemorySession::new(Lively::default());
/// session.receive(b"hello\n");
/// session.advance(Duration::from_secs(20));
/// assert_eq!(session.sent(), b"ping\n");
/// session.receive(b"pong\n");
/// session.advance(Duration::from_secs(29));
/// assert_eq!(session.sent(), b"ping\n");
/// assert!(session.reason().is_none());
/// session.advance(Duration::from_secs(1));
/// assert!(session.reason().is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    /// The keys by moment, and by number of those of the same moment.
    keys: BTreeMap<(Instant, u64), K>,
    places: BTreeMap<K, (Instant, u64)>,
    next: u64,
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Creates a value without deadlines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline of `key`, in place of the one that it has. Returns that one. A moment in the
    /// past is due at once.
    pub fn set(&mut self, key: K, at: Instant) -> Option<Instant> {
        let before = self.cancel(&key);
        let place = (at, self.next);
        self.next += 1;
        self.keys.insert(place, key.clone());
        self.places.insert(key, place);
        before
    }

    /// Removes the deadline of `key`, and returns it. `None` if it has none.
    pub fn cancel(&mut self, key: &K) -> Option<Instant> {
        let place = self.places.remove(key)?;
        self.keys.remove(&place);
        Some(place.0)
    }

    /// Removes all deadlines.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.places.clear();
    }

    /// Returns the deadline of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Instant> {
        self.places.get(key).map(|(at, _)| *at)
    }

    /// Returns the earliest deadline: what a protocol's `poll_timeout` returns.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.keys.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes the earliest deadline if it has passed, and returns its key. A protocol calls it in
    /// `handle_timeout` until it returns `None`: what is due and stays makes `handle_timeout` be called
    /// again a millisecond later.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        let first = self.keys.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let key = first.remove();
        self.places.remove(&key);
        Some(key)
    }

    /// Returns how many deadlines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there is no deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the deadlines in the order in which they pass.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Instant)> {
        self.keys.iter().map(|((at, _), key)| (key, *at))
    }
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            places: BTreeMap::new(),
            next: 0,
        }
    }
}
