//! The items: a table in the order of their use, and the rules by which they change.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::item::{Direction, Item, Mode, New, NoCounter, Outcome};
use crate::numbers;
use crate::settings::Settings;
use crate::statistics::Statistics;

/// What `max_item` counts for each item besides its key and value, as in memcached.
const HEADER: usize = 59;

/// What `max_memory` counts for each item besides its key and value: its entry and its share of the
/// table, measured.
const ENTRY: usize = 160;

/// How long after its last noted use an item that is read moves to the front of the order of use. Moving
/// it each time would touch its neighbours in memory for every `get`.
const PROMOTED_AFTER: Duration = Duration::from_secs(1);

/// A longer expiration time is not a number of seconds from now, but a time in Unix seconds.
const RELATIVE_MOST: i64 = 60 * 60 * 24 * 30;

/// The items of a store, at one moment.
pub(crate) struct Items {
    pub(crate) settings: Settings,
    pub(crate) statistics: Statistics,
    pub(crate) connections: u64,
    pub(crate) verbosity: u32,
    entries: LruCache<Box<[u8]>, Item, RandomState>,
    bytes: usize,
    last_unique: u64,
    flush_at: Option<Instant>,
    now: Instant,
    began: Instant,
    began_unix: u64,
}

impl Items {
    pub(crate) fn new(settings: Settings, now: Instant, unix: u64) -> Self {
        Self {
            settings,
            statistics: Statistics::default(),
            connections: 0,
            verbosity: 0,
            entries: LruCache::unbounded_with_hasher(RandomState::new()),
            bytes: 0,
            last_unique: 0,
            flush_at: None,
            now,
            began: now,
            began_unix: unix,
        }
    }

    /// Moves the time forward, and flushes if that is due.
    pub(crate) fn set_time(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush();
        }
    }

    /// Returns how long the store exists.
    pub(crate) fn uptime(&self) -> Duration {
        self.now - self.began
    }

    /// Returns the time in Unix seconds.
    pub(crate) fn unix_time(&self) -> u64 {
        self.began_unix + self.uptime().as_secs()
    }

    /// Returns how many items there are, and how much memory they count.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// Returns when an item with this expiration time expires: never, at once if it is negative or in
    /// the past, after this many seconds, or at a time in Unix seconds.
    pub(crate) fn expiry(&self, exptime: i64) -> Option<Instant> {
        let seconds = match exptime {
            0 => return None,
            ..0 => 0,
            1..=RELATIVE_MOST => exptime as u64,
            _ => (exptime as u64).saturating_sub(self.unix_time()),
        };
        self.now.checked_add(Duration::from_secs(seconds))
    }

    /// Returns in how many seconds `item` expires, rounded up.
    pub(crate) fn time_to_live(&self, item: &Item) -> Option<u64> {
        let left = item.expires?.saturating_duration_since(self.now);
        Some(left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }

    /// Returns for how many seconds `item` was not used.
    pub(crate) fn idle(&self, item: &Item) -> u64 {
        self.now.saturating_duration_since(item.accessed).as_secs()
    }

    /// Returns how much of `max_item` an item takes.
    pub(crate) fn item_size(key: &[u8], length: usize) -> usize {
        key.len().saturating_add(length).saturating_add(HEADER)
    }

    /// Returns whether a value of this length may be stored.
    pub(crate) fn admits(&self, key: &[u8], length: usize) -> bool {
        Self::item_size(key, length) <= self.settings.max_item
    }

    /// Returns the item of `key`, unless it has expired. Its place in the order of use stays.
    pub(crate) fn peek(&mut self, key: &[u8]) -> Option<&mut Item> {
        if self.entries.peek(key)?.has_expired(self.now) {
            self.remove(key);
            return None;
        }
        self.entries.peek_mut(key)
    }

    /// Returns the item of `key` for a client that reads it, and notes that.
    pub(crate) fn fetch(&mut self, key: &[u8]) -> Option<Item> {
        let now = self.now;
        let item = self.entries.peek_mut(key)?;
        if item.has_expired(now) {
            self.statistics.get_expired += 1;
            self.remove(key);
            return None;
        }

        item.is_fetched = true;
        let was_idle = now.saturating_duration_since(item.accessed) >= PROMOTED_AFTER;
        if was_idle {
            item.accessed = now;
        }
        let found = item.clone();
        if was_idle {
            self.entries.promote(key);
        }
        Some(found)
    }

    /// Stores an item, or says why not.
    pub(crate) fn store(&mut self, key: &[u8], new: New<'_>) -> Outcome {
        self.statistics.cmd_set += 1;
        let old = self.unique(key);
        let is_stale = match self.may_store(old, new) {
            Ok(is_stale) => is_stale,
            Err(outcome) => {
                // An item that `add` finds was used.
                self.entries.promote(key);
                return outcome;
            }
        };

        let mut item = Item::new(new.value.into(), self.now);
        (item.flags, item.expires) = (new.flags, self.expiry(new.exptime));
        (item.is_stale, item.has_binary_key) = (is_stale, new.has_binary_key);
        if let Some(old) = new.mode.extends().then(|| self.peek(key)).flatten() {
            (item.flags, item.expires) = (old.flags, old.expires);
            item.has_binary_key = false;
            item.value = match new.mode {
                Mode::Append => [&old.value, new.value].concat().into(),
                _ => [new.value, &old.value].concat().into(),
            };
        }
        match self.admits(key, item.value.len()) {
            true => self.insert(key, item),
            false => Outcome::NotStored,
        }
    }

    /// Returns the unique number of the item of `key`, unless it has expired.
    fn unique(&mut self, key: &[u8]) -> Option<u64> {
        let item = self.entries.peek(key)?;
        let unique = item.unique;
        if item.has_expired(self.now) {
            self.remove(key);
            return None;
        }
        Some(unique)
    }

    /// Returns whether an item may be stored in place of one with the unique number `old`, and if so,
    /// whether it is stale.
    fn may_store(&mut self, old: Option<u64>, new: New<'_>) -> Result<bool, Outcome> {
        let replaces = matches!(new.mode, Mode::Set | Mode::Replace);
        let statistics = &mut self.statistics;

        match (old, new.unique) {
            (Some(_), _) if new.mode == Mode::Add => Err(Outcome::NotStored),
            (None, Some(_)) if replaces => {
                statistics.cas_misses += 1;
                Err(Outcome::NotFound)
            }
            (None, _) if !matches!(new.mode, Mode::Set | Mode::Add) => Err(Outcome::NotStored),
            (Some(old), Some(unique)) if unique == old => {
                statistics.cas_hits += 1;
                Ok(false)
            }
            (Some(old), Some(unique)) if replaces || unique != 0 => {
                let is_older = replaces && (1..old).contains(&unique);
                if new.invalidates && is_older {
                    return Ok(true);
                }
                statistics.cas_badval += 1;
                Err(Outcome::Exists)
            }
            _ => Ok(false),
        }
    }

    /// Creates an item that no client has sent, for one that found none.
    pub(crate) fn vivify(&mut self, key: &[u8], value: &[u8]) -> Outcome {
        self.insert(key, Item::new(value.into(), self.now))
    }

    /// Adds `delta` to the number in an item, which wraps around, or subtracts it, down to 0. Returns
    /// the new number.
    pub(crate) fn count(
        &mut self,
        key: &[u8],
        direction: Direction,
        delta: u64,
        unique: Option<u64>,
    ) -> Result<u64, NoCounter> {
        let Some(item) = self.peek(key) else {
            *direction.misses(&mut self.statistics) += 1;
            return Err(NoCounter::NotFound);
        };
        if unique.is_some_and(|unique| unique != 0 && unique != item.unique) {
            return Err(NoCounter::Exists);
        }

        let old = numbers::counter(&item.value).ok_or(NoCounter::NotNumeric)?;
        let number = match direction {
            Direction::Up => old.wrapping_add(delta),
            Direction::Down => old.saturating_sub(delta),
        };
        let mut value = Vec::new();
        numbers::push(&mut value, number);

        let mut changed = item.clone();
        if value.len() <= item.value.len() {
            value.resize(item.value.len(), b' ');
        } else {
            // As in memcached, a value that grows is a new item.
            let old = item.clone();
            changed = Item::new(Arc::default(), self.now);
            (changed.flags, changed.expires) = (old.flags, old.expires);
        }
        changed.value = value.into();
        *direction.hits(&mut self.statistics) += 1;
        self.insert(key, changed);
        Ok(number)
    }

    /// Returns an item for a client that asks for its value.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Item> {
        let found = self.fetch(key);
        self.statistics.count_get(found.is_some());
        found
    }

    /// Sets when an item expires, and returns it for a client that reads it.
    pub(crate) fn touch(&mut self, key: &[u8], exptime: i64) -> Option<Item> {
        let expires = self.expiry(exptime);
        let found = self.fetch(key);
        self.statistics.count_touch(found.is_some());
        if let Some(item) = self.entries.peek_mut(key) {
            item.expires = expires;
        }
        found
    }

    /// Removes an item in whose place another one should be.
    pub(crate) fn discard(&mut self, key: &[u8]) {
        self.remove(key);
    }

    /// Removes an item. Returns whether there was one.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let found = self.peek(key).is_some();
        if found {
            self.remove(key);
            self.statistics.delete_hits += 1;
        } else {
            self.statistics.delete_misses += 1;
        }
        found
    }

    /// Declares an item out of date.
    pub(crate) fn invalidate(&mut self, key: &[u8], exptime: Option<i64>) {
        let unique = self.next_unique();
        let expires = exptime.map(|exptime| self.expiry(exptime));
        let Some(item) = self.peek(key) else {
            return;
        };
        (item.is_stale, item.is_won, item.unique) = (true, false, unique);
        item.expires = expires.unwrap_or(item.expires);
    }

    /// Removes all items, now or when `delay` has passed.
    pub(crate) fn flush_after(&mut self, delay: i64) {
        self.statistics.cmd_flush += 1;
        self.flush_at = match delay {
            0 => Some(self.now),
            delay => self.expiry(delay),
        };
        self.set_time(self.now);
    }

    fn flush(&mut self) {
        self.entries.clear();
        (self.bytes, self.flush_at) = (0, None);
    }

    fn next_unique(&mut self) -> u64 {
        self.last_unique += 1;
        self.last_unique
    }

    /// Puts an item in place of the one that has its key, and removes those that were not used for
    /// longest until there is memory.
    fn insert(&mut self, key: &[u8], mut item: Item) -> Outcome {
        let size = memory(key, &item);
        if size > self.settings.max_memory {
            self.statistics.store_no_memory += 1;
            return Outcome::NoMemory;
        }

        item.unique = self.next_unique();
        self.bytes += size;
        self.statistics.total_items += 1;
        match self.entries.get_mut(key) {
            Some(old) => {
                self.bytes -= memory(key, old);
                *old = item;
            }
            None => _ = self.entries.put(key.into(), item),
        }

        while self.bytes > self.settings.max_memory {
            let (key, item) = self.entries.pop_lru().expect("an item counts its bytes");
            self.bytes -= memory(&key, &item);
            self.statistics.evictions += 1;
        }
        Outcome::Stored
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(item) = self.entries.pop(key) {
            self.bytes -= memory(key, &item);
        }
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("items", &self.entries.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Returns how much of `max_memory` an item takes.
fn memory(key: &[u8], item: &Item) -> usize {
    key.len() + item.value.len() + ENTRY
}
