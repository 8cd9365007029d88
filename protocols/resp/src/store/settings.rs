//! What the author of a server decides about a store.

/// The limits of a store.
///
/// ```
/// use serveloop_resp::store::{Eviction, Settings};
///
/// let settings = Settings {
///     max_memory: Some(64 << 20),
///     eviction: Eviction::NoEviction,
///     ..Settings::default()
/// };
/// assert_eq!(settings.max_value, 1 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most memory for keys and values, in bytes, with what it takes to find them. `None` is no
    /// limit. A transaction may exceed it by `max_transaction`. Default 256 MiB.
    pub max_memory: Option<usize>,
    /// What makes room for new data when the memory is used up.
    pub eviction: Eviction,
    /// The longest value, in bytes. A reply with it has to fit in `max_reply`, besides the `high_water`
    /// bytes that may wait before it. Default 1 MiB.
    pub max_value: usize,
    /// The most memory for what one client queues in a transaction, in bytes, with 8 for each command and
    /// each of its words; and for the names of the keys that it watches, with 150 for each. Default 16 MiB.
    pub max_transaction: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_memory: Some(256 << 20),
            eviction: Eviction::default(),
            max_value: 1 << 20,
            max_transaction: 16 << 20,
        }
    }
}

/// Which keys are given up when the memory is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None: commands that need memory are refused.
    NoEviction,
    /// Those that were not used for long: the least recently used one of a few that are chosen at
    /// random.
    #[default]
    AllkeysLru,
    /// Those that expire soonest. Without any, commands that need memory are refused.
    VolatileTtl,
}

impl Eviction {
    /// Returns the name of the policy in Redis.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllkeysLru => "allkeys-lru",
            Self::VolatileTtl => "volatile-ttl",
        }
    }
}
