//! The keys and their values, with deadlines and a limit on memory.

mod eviction;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use crate::error_reply::ErrorReply;
use crate::store::entry::{DEADLINE, Entry, NEVER};
use crate::store::index::Index;
use crate::store::settings::Settings;
use crate::store::watched::WatchedKeys;

/// A value larger than this keeps no spare memory when it is replaced.
const SPARE_MOST: usize = 64;

/// What has happened to keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
}

/// All keys. Entries are in one block without gaps, so that one of them is chosen at random at once;
/// the last moves into the place of one that is removed.
#[derive(Debug)]
pub(crate) struct Keyspace {
    entries: Vec<Entry>,
    index: Index,
    /// Deadlines and the slots that have them, soonest first.
    deadlines: BTreeSet<(u64, u32)>,
    /// The soonest deadline, or earlier.
    soonest: u64,
    hasher: RandomState,
    random: u64,
    accesses: u32,
    used_memory: usize,
    /// Whether a transaction is executed, which keeps all keys and may take more memory than others.
    is_together: bool,
    settings: Settings,
    now: u64,
    watched: WatchedKeys,
    pub(crate) counters: Counters,
}

impl Keyspace {
    pub(crate) fn new(settings: Settings) -> Self {
        let hasher = RandomState::new();
        Self {
            entries: Vec::new(),
            index: Index::new(),
            deadlines: BTreeSet::new(),
            soonest: NEVER,
            random: hasher.hash_one(0) | 1,
            hasher,
            accesses: 0,
            used_memory: 0,
            is_together: false,
            settings,
            now: 0,
            watched: WatchedKeys::default(),
            counters: Counters::default(),
        }
    }

    /// Sets the time, in milliseconds since 1970. It does not go back.
    #[inline]
    pub(crate) fn set_now(&mut self, now: i64) {
        self.now = self.now.max(now.max(0) as u64);
    }

    pub(crate) fn now(&self) -> i64 {
        self.now as i64
    }

    /// Returns how many keys there are. A key may count for a moment longer than it can be found.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many keys have a deadline.
    pub(crate) fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }

    /// Returns how many bytes the keys and values take.
    pub(crate) fn used_memory(&self) -> usize {
        self.used_memory
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the value of a key, which counts as a use.
    #[inline]
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        let Some(slot) = self.find(key) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        Some(&self.entries[slot as usize].value)
    }

    /// Returns the value of a key if it has one, without counting a hit or a miss.
    pub(crate) fn peek(&mut self, key: &[u8]) -> Option<&[u8]> {
        let slot = self.find(key)?;
        Some(&self.entries[slot as usize].value)
    }

    #[inline]
    pub(crate) fn contains(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Sets the value of a key. Its deadline is the new one, or what it was if that is
    /// [`Deadline::Kept`].
    ///
    /// # Errors
    /// Returns an error, and changes nothing, if the value is too long or there is no memory left.
    #[inline]
    pub(crate) fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        deadline: Deadline,
    ) -> Result<(), ErrorReply> {
        self.check_length(value.len())?;
        let slot = match self.find_for_value(key, value.len())? {
            Some(slot) => {
                self.edit_slot(slot, |old| {
                    if old.capacity() > value.len() * 2 + SPARE_MOST {
                        *old = Vec::new();
                    }
                    old.clear();
                    old.extend_from_slice(value);
                });
                slot
            }
            None => self.insert(key, value.to_vec()),
        };

        match deadline {
            Deadline::Kept => {}
            Deadline::Never => self.set_slot_deadline(slot, NEVER),
            Deadline::At(at) => self.set_slot_deadline(slot, at.max(0) as u64),
        }
        self.watched.note_change(key);
        Ok(())
    }

    /// Sets the value of a key, and removes its deadline, without a copy of the value.
    ///
    /// # Errors
    /// Fails like [`set`](Self::set).
    pub(crate) fn set_owned(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), ErrorReply> {
        self.check_length(value.len())?;
        let slot = match self.find_for_value(key, value.capacity())? {
            Some(slot) => {
                self.edit_slot(slot, |old| *old = value);
                slot
            }
            None => self.insert(key, value),
        };
        self.set_slot_deadline(slot, NEVER);
        self.watched.note_change(key);
        Ok(())
    }

    /// Changes the value of a key, which is `initial` if there is none, and keeps its deadline. The value
    /// may grow by `growth` bytes. The key itself may be evicted for them, and then begins anew.
    ///
    /// # Errors
    /// Returns an error, and changes nothing, if there is no memory left. An error of `change` means that
    /// it has changed nothing.
    pub(crate) fn edit<R>(
        &mut self,
        key: &[u8],
        initial: &[u8],
        growth: usize,
        change: impl FnOnce(&mut Vec<u8>) -> Result<R, ErrorReply>,
    ) -> Result<R, ErrorReply> {
        let slot = self.find_with_room(key, |old| match old {
            Some(_) => growth,
            None => Self::size_of(key, growth),
        })?;
        let slot = slot.unwrap_or_else(|| self.insert(key, initial.to_vec()));
        let result = self.edit_slot(slot, change)?;
        self.watched.note_change(key);
        Ok(result)
    }

    /// Removes a key, and returns its value.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let slot = self.find(key)?;
        Some(self.remove_slot(slot).value)
    }

    /// Returns when a key expires: `None` if there is no such key, [`Deadline::Never`] if it does not.
    pub(crate) fn deadline(&mut self, key: &[u8]) -> Option<Deadline> {
        let slot = self.find(key)?;
        Some(match self.entries[slot as usize].deadline {
            NEVER => Deadline::Never,
            at => Deadline::At(at as i64),
        })
    }

    /// Sets when a key expires, or that it does not. One that has passed removes it at once. Returns
    /// whether there is such a key.
    pub(crate) fn set_deadline(&mut self, key: &[u8], deadline: Option<i64>) -> bool {
        let Some(slot) = self.find(key) else {
            return false;
        };
        match deadline {
            Some(at) if at <= self.now() => drop(self.remove_slot(slot)),
            Some(at) => {
                self.set_slot_deadline(slot, at as u64);
                self.watched.note_change(key);
            }
            None if self.entries[slot as usize].deadline == NEVER => {}
            None => {
                self.set_slot_deadline(slot, NEVER);
                self.watched.note_change(key);
            }
        }
        true
    }

    /// Gives the value of one key, and its deadline, to another.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> bool {
        let Some(slot) = self.find(from) else {
            return false;
        };
        if from == to {
            return true;
        }
        let deadline = self.entries[slot as usize].deadline;
        let value = self.remove_slot(slot).value;
        self.remove(to);
        let slot = self.insert(to, value);
        self.set_slot_deadline(slot, deadline);
        self.watched.note_change(to);
        true
    }

    /// Removes all keys.
    pub(crate) fn clear(&mut self) {
        let mut watched = std::mem::take(&mut self.watched);
        watched.note_changes(|key| self.slot_of(key).is_some());
        self.watched = watched;

        self.entries = Vec::new();
        self.index = Index::new();
        self.deadlines = BTreeSet::new();
        self.soonest = NEVER;
        self.used_memory = 0;
    }

    /// Notes that one more client watches a key. Returns how many changes of it were counted so far.
    pub(crate) fn watch(&mut self, key: &[u8]) -> u64 {
        // That it expires later is a change, and that it was removed since is none.
        self.find(key);
        self.watched.watch(key)
    }

    /// Notes that a client watches a key no longer. Returns whether it was changed since it had that many changes.
    pub(crate) fn unwatch(&mut self, key: &[u8], changes: u64) -> bool {
        self.find(key);
        let is_changed = self.watched.changes(key) != changes;
        self.watched.unwatch(key);
        is_changed
    }

    /// Returns how many keys are watched.
    pub(crate) fn watched_count(&self) -> usize {
        self.watched.len()
    }

    /// Returns a key that is chosen at random.
    pub(crate) fn random_key(&mut self) -> Option<&[u8]> {
        while !self.entries.is_empty() {
            let slot = self.random_slot();
            if !self.has_expired(slot) {
                return Some(&self.entries[slot as usize].key);
            }
            self.expire_slot(slot);
        }
        None
    }

    /// Returns all keys, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let there = self
            .entries
            .iter()
            .filter(|entry| !self.is_past(entry.deadline));
        there.map(|entry| &*entry.key)
    }

    /// Shows a few keys from `cursor` on, and returns the next cursor, or `None` at the end. Whatever
    /// happens between the calls, a key that is there all the time is shown once.
    pub(crate) fn scan<'a>(&'a self, cursor: u32, mut show: impl FnMut(&'a [u8])) -> Option<u32> {
        self.index.scan(cursor, |slot| {
            let entry = &self.entries[slot as usize];
            if !self.is_past(entry.deadline) {
                show(&entry.key);
            }
        })
    }

    /// Removes up to `most` keys whose deadline has passed. Returns when the next is due: at once if
    /// there are more.
    pub(crate) fn expire(&mut self, most: usize) -> Option<i64> {
        for _ in 0..most {
            match self.deadlines.first() {
                Some((at, slot)) if self.is_past(*at) => self.expire_slot(*slot),
                first => {
                    self.soonest = first.map_or(NEVER, |(at, _)| *at);
                    break;
                }
            }
        }
        self.deadlines.first().map(|(at, _)| *at as i64)
    }

    /// Returns whether a deadline may have passed.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_past(self.soonest)
    }

    /// Returns the soonest deadline, or an earlier moment.
    pub(crate) fn soonest(&self) -> Option<i64> {
        i64::try_from(self.soonest).ok()
    }

    /// Returns how much memory a key and its value take at most.
    #[inline]
    pub(crate) fn size_of(key: &[u8], value: usize) -> usize {
        Entry::size_of(key, value)
    }

    /// Refuses a value that no reply would have room for.
    #[inline]
    pub(crate) fn check_length(&self, length: usize) -> Result<(), ErrorReply> {
        if length > self.settings.max_value {
            return Err(TOO_LONG);
        }
        Ok(())
    }

    /// Evicts keys until there are `more` bytes of memory. Returns whether it had to.
    #[inline]
    pub(crate) fn make_room(&mut self, more: usize) -> Result<bool, ErrorReply> {
        match self.settings.max_memory {
            Some(most) if self.used_memory + more > most => self.evict(more, most),
            _ => Ok(false),
        }
    }

    /// Returns the slot of a key, if it has one, when there is memory for what is to become of it: `more`
    /// bytes than now.
    #[inline]
    fn find_with_room(
        &mut self,
        key: &[u8],
        more: impl Fn(Option<&Entry>) -> usize,
    ) -> Result<Option<u32>, ErrorReply> {
        let mut slot = self.find(key);
        loop {
            let old = slot.map(|slot| &self.entries[slot as usize]);
            if !self.make_room(more(old))? {
                return Ok(slot);
            }
            // It may have been evicted itself, or be elsewhere.
            slot = self.find(key);
        }
    }

    /// Returns the slot of a key, if it has one, when there is memory for a value of `size` bytes in place of
    /// the one that it has.
    #[inline]
    fn find_for_value(&mut self, key: &[u8], size: usize) -> Result<Option<u32>, ErrorReply> {
        self.find_with_room(key, |old| match old {
            Some(old) => size.saturating_sub(old.value.capacity()) + DEADLINE,
            None => Self::size_of(key, size),
        })
    }

    /// Returns the slot of a key, which counts as a use. A key whose deadline has passed is removed.
    #[inline]
    fn find(&mut self, key: &[u8]) -> Option<u32> {
        let slot = self.slot_of(key)?;
        if self.has_expired(slot) {
            self.expire_slot(slot);
            return None;
        }

        self.accesses = self.accesses.wrapping_add(1);
        self.entries[slot as usize].used = self.accesses;
        Some(slot)
    }

    /// Returns the slot of a key, also if its deadline has passed.
    #[inline]
    fn slot_of(&self, key: &[u8]) -> Option<u32> {
        let is_it = |slot| *self.entries[slot as usize].key == *key;
        self.index.find(self.hash(key), is_it)
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    fn insert(&mut self, key: &[u8], value: Vec<u8>) -> u32 {
        let slot = u32::try_from(self.entries.len()).expect("fewer keys than 2^32");
        let hash = self.hash(key);
        self.accesses = self.accesses.wrapping_add(1);
        let entry = Entry {
            key: key.into(),
            value,
            deadline: NEVER,
            hash,
            used: self.accesses,
        };
        self.used_memory += entry.size();
        self.entries.push(entry);
        self.index.insert(hash, slot);
        slot
    }

    #[inline]
    fn edit_slot<R>(&mut self, slot: u32, change: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let value = &mut self.entries[slot as usize].value;
        let before = value.capacity();
        let result = change(value);
        self.used_memory = self.used_memory - before + value.capacity();
        result
    }

    #[inline]
    fn set_slot_deadline(&mut self, slot: u32, at: u64) {
        let entry = &mut self.entries[slot as usize];
        if entry.deadline == at {
            return;
        }

        self.used_memory -= entry.size();
        let before = std::mem::replace(&mut entry.deadline, at);
        self.used_memory += entry.size();
        if before != NEVER {
            self.deadlines.remove(&(before, slot));
        }
        if at != NEVER {
            self.deadlines.insert((at, slot));
            self.soonest = self.soonest.min(at);
        }
    }

    fn remove_slot(&mut self, slot: u32) -> Entry {
        self.set_slot_deadline(slot, NEVER);
        let entry = self.entries.swap_remove(slot as usize);
        self.used_memory -= entry.size();
        self.index.remove(entry.hash, slot);
        self.watched.note_change(&entry.key);

        if let Some(moved) = self.entries.get(slot as usize) {
            let from = self.entries.len() as u32;
            self.index.relocate(moved.hash, from, slot);
            if moved.deadline != NEVER {
                self.deadlines.remove(&(moved.deadline, from));
                self.deadlines.insert((moved.deadline, slot));
            }
        }
        entry
    }

    #[cold]
    fn expire_slot(&mut self, slot: u32) {
        self.remove_slot(slot);
        self.counters.expired += 1;
    }

    #[inline]
    fn has_expired(&self, slot: u32) -> bool {
        self.is_past(self.entries[slot as usize].deadline)
    }

    #[inline]
    fn is_past(&self, deadline: u64) -> bool {
        self.now > deadline
    }
}

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    Never,
    /// In milliseconds since 1970.
    At(i64),
    /// As it was.
    Kept,
}

const TOO_LONG: ErrorReply = ErrorReply::constant(
    "ERR",
    "string exceeds maximum allowed size (proto-max-bulk-len)",
);
