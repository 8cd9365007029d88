//! The store that all clients share: one lock around the items.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::items::Items;
use crate::settings::Settings;

/// The items of a server. A clone is the same store.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop_memcached::{Memcached, Settings, Store};
///
/// let store = Store::new(Settings::default());
/// let mut one = MemorySession::new(Memcached::new(&store));
/// let mut other = MemorySession::new(Memcached::new(&store.clone()));
///
/// one.receive(b"set counter 0 0 1 noreply\r\n7\r\n");
/// other.receive(b"incr counter 3\r\n");
/// assert_eq!(other.sent(), b"10\r\n");
/// ```
#[derive(Clone, Debug)]
pub struct Store(Arc<Mutex<Items>>);

impl Store {
    /// Creates an empty store. Reads the system's clock, this once: absolute expiration times are
    /// counted from then on by the clock of the server.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix = unix.unwrap_or_default().as_secs();
        let items = Items::new(settings, Instant::now(), unix);
        Self(Arc::new(Mutex::new(items)))
    }

    /// Counts a client.
    pub(crate) fn join(&self) {
        let mut items = self.items();
        items.connections += 1;
        items.statistics.total_connections += 1;
    }

    pub(crate) fn leave(&self) {
        self.items().connections -= 1;
    }

    /// Returns the items for one command, at the time `now`.
    pub(crate) fn at(&self, now: Instant) -> MutexGuard<'_, Items> {
        let mut items = self.items();
        items.set_time(now);
        items
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        // A panic ends its connection and leaves whole items: each change is made by one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
