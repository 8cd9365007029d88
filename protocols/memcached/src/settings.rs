//! How much a store keeps.

/// How much a [`Store`](crate::Store) keeps.
///
/// ```
/// use serveloop_memcached::{Settings, Store};
///
/// let store = Store::new(Settings { max_memory: 256 << 20, ..Settings::default() });
/// # let _ = store;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most memory for all items, in bytes: their keys, their values, and 160 bytes for each, which
    /// is about what the tables take. When it is used up, the items that were not used for longest make
    /// room. Default 64 MiB.
    pub max_memory: usize,
    /// The longest item, in bytes: its key, its value and 59 bytes, as memcached counts it. Default
    /// 1 MiB.
    pub max_item: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_memory: 64 << 20,
            max_item: 1 << 20,
        }
    }
}
