//! The keys that clients watch: whether one was changed since.

use std::collections::{BTreeMap, HashMap};

/// What a watched key takes for one client in bytes, besides its name: the places in which it is kept.
const WATCH: usize = 150;

/// All keys that clients watch. How often each was changed is counted while anybody watches it.
#[derive(Debug, Default)]
pub(super) struct WatchedKeys {
    keys: HashMap<Box<[u8]>, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    clients: usize,
    changes: u64,
}

impl WatchedKeys {
    /// Returns how many keys are watched.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Counts a change of a key.
    #[inline]
    pub(super) fn note_change(&mut self, key: &[u8]) {
        if !self.keys.is_empty() {
            self.count_change(key);
        }
    }

    /// Counts a change of all keys for which `is_changed` holds.
    pub(super) fn note_changes(&mut self, is_changed: impl Fn(&[u8]) -> bool) {
        let changed = self.keys.iter_mut().filter(|(key, _)| is_changed(key));
        changed.for_each(|(_, watched)| watched.changes += 1);
    }

    /// Notes that one more client watches a key. Returns how many changes were counted so far.
    pub(super) fn watch(&mut self, key: &[u8]) -> u64 {
        let watched = self.keys.entry(key.into()).or_default();
        watched.clients += 1;
        watched.changes
    }

    /// Notes that a client watches a key no longer.
    pub(super) fn unwatch(&mut self, key: &[u8]) {
        match self.keys.get_mut(key) {
            Some(watched) if watched.clients > 1 => watched.clients -= 1,
            _ => drop(self.keys.remove(key)),
        }
        if self.keys.is_empty() {
            self.keys = HashMap::new();
        }
    }

    /// Returns how many changes of a watched key were counted so far.
    pub(super) fn changes(&self, key: &[u8]) -> u64 {
        self.keys.get(key).map_or(0, |watched| watched.changes)
    }

    #[cold]
    fn count_change(&mut self, key: &[u8]) {
        if let Some(watched) = self.keys.get_mut(key) {
            watched.changes += 1;
        }
    }
}

/// The keys that one client watches, with how many changes had been counted when it began.
#[derive(Debug, Default)]
pub(super) struct Watches {
    keys: BTreeMap<Box<[u8]>, u64>,
    bytes: usize,
}

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn contain(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    pub(super) fn add(&mut self, key: &[u8], changes: u64) {
        if self.keys.insert(key.into(), changes).is_none() {
            self.bytes += Self::size_of(key);
        }
    }

    /// Returns how many bytes of memory they take.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// Returns how many bytes of memory one takes.
    pub(super) fn size_of(key: &[u8]) -> usize {
        WATCH + key.len() * 2
    }
}

impl IntoIterator for Watches {
    type Item = (Box<[u8]>, u64);
    type IntoIter = std::collections::btree_map::IntoIter<Box<[u8]>, u64>;

    fn into_iter(self) -> Self::IntoIter {
        self.keys.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_while_a_key_is_watched() {
        let mut keys = WatchedKeys::default();
        keys.note_change(b"a");
        assert_eq!(keys.watch(b"a"), 0);
        keys.note_change(b"a");
        keys.note_change(b"b");
        assert_eq!((keys.watch(b"a"), keys.watch(b"b")), (1, 0));
        keys.note_changes(|key| key == b"b");
        assert_eq!((keys.changes(b"a"), keys.changes(b"b")), (1, 1));

        keys.unwatch(b"a");
        keys.note_change(b"a");
        assert_eq!(keys.changes(b"a"), 2);
        keys.unwatch(b"a");
        keys.unwatch(b"b");
        assert_eq!(keys.len(), 0);
        assert_eq!(keys.watch(b"a"), 0);
    }

    #[test]
    fn a_key_is_watched_once_by_a_client() {
        let mut watches = Watches::default();
        watches.add(b"key", 7);
        watches.add(b"key", 7);
        assert!(watches.contain(b"key") && !watches.is_empty());
        assert_eq!((watches.len(), watches.held()), (1, 156));
        let all: Vec<_> = watches.into_iter().collect();
        assert_eq!(all, [(b"key"[..].into(), 7)]);
    }
}
