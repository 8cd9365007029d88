//! Places for connections, in chunks. A chunk that has become empty is given back, so that a crowd that
//! has left leaves no memory behind, even if some of it stay.

use std::ops::{Index, IndexMut};

/// How many places a chunk has. A single connection keeps a whole chunk, some twenty thousand bytes.
const CHUNK: usize = 128;

/// How many chunks one word of the map of free places stands for.
const WORD: usize = u64::BITS as usize;

/// A table of values by their places. A value goes to the lowest chunk with room.
pub(super) struct Slots<T> {
    chunks: Vec<Chunk<T>>,
    len: usize,
    /// A bit for each chunk that has room.
    roomy: Vec<u64>,
    /// The lowest chunk that has room, or how many there are.
    first: usize,
    /// A chunk that is empty and was kept, so that one connection that comes and goes allocates nothing.
    spare: Option<usize>,
    /// How many chunks were given back since the last question.
    freed: usize,
}

struct Chunk<T> {
    /// `None` if it was given back, or never needed.
    entries: Option<Box<[Entry<T>; CHUNK]>>,
    /// The place of the first free entry.
    vacant: u32,
    used: u32,
}

enum Entry<T> {
    /// The place of the next free entry.
    Vacant(u32),
    Occupied(T),
}

impl<T> Chunk<T> {
    fn new() -> Self {
        Self {
            entries: None,
            vacant: 0,
            used: 0,
        }
    }

    fn insert(&mut self, value: T) {
        let place = self.vacant as usize % CHUNK;
        let entries = self.entries.get_or_insert_with(vacant_entries);
        if let Entry::Vacant(next) = entries[place] {
            self.vacant = next;
        }
        entries[place] = Entry::Occupied(value);
        self.used += 1;
    }

    fn remove(&mut self, place: usize) -> Option<T> {
        let entry = &mut self.entries.as_mut()?[place];
        if matches!(entry, Entry::Vacant(_)) {
            return None;
        }
        let entry = std::mem::replace(entry, Entry::Vacant(self.vacant));
        self.vacant = narrow(place);
        self.used -= 1;
        match entry {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    fn is_full(&self) -> bool {
        self.used as usize == CHUNK
    }
}

fn vacant_entries<T>() -> Box<[Entry<T>; CHUNK]> {
    let entries: Box<[Entry<T>]> = (1..=CHUNK)
        .map(|next| Entry::Vacant(narrow(next)))
        .collect();
    let entries = entries.try_into();
    entries.unwrap_or_else(|_| unreachable!("as many entries as a chunk has"))
}

/// What a value takes in the table.
#[cfg(test)]
pub(super) fn place_bytes<T>() -> usize {
    size_of::<Entry<T>>()
}

fn narrow(place: usize) -> u32 {
    u32::try_from(place).expect("a place in a chunk")
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
            roomy: Vec::new(),
            first: 0,
            spare: None,
            freed: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the place of the next value.
    pub(super) fn vacant_key(&self) -> usize {
        let vacant = self.chunks.get(self.first).map_or(0, |chunk| chunk.vacant);
        self.first * CHUNK + vacant as usize
    }

    /// Adds a value, and returns its place.
    pub(super) fn insert(&mut self, value: T) -> usize {
        let slot = self.vacant_key();
        let first = self.first;
        if first == self.chunks.len() {
            self.chunks.push(Chunk::new());
            self.roomy.resize(self.chunks.len().div_ceil(WORD), 0);
            self.roomy[first / WORD] |= 1 << (first % WORD);
        }
        if self.spare == Some(first) {
            self.spare = None;
        }

        let chunk = &mut self.chunks[first];
        chunk.insert(value);
        self.len += 1;
        if chunk.is_full() {
            self.roomy[first / WORD] &= !(1 << (first % WORD));
            self.first = self.next_roomy(first / WORD);
        }
        slot
    }

    /// Returns the lowest chunk with room whose bit is not before the word.
    fn next_roomy(&self, from: usize) -> usize {
        let words = self.roomy.iter().enumerate().skip(from);
        let mut found = words.filter(|(_, word)| **word != 0);
        found.next().map_or(self.chunks.len(), |(place, word)| {
            place * WORD + word.trailing_zeros() as usize
        })
    }

    /// Removes the value at a place.
    ///
    /// # Panics
    /// Panics if there is none.
    pub(super) fn remove(&mut self, slot: usize) -> T {
        let place = slot / CHUNK;
        let chunk = self.chunks.get_mut(place);
        let value = chunk.and_then(|chunk| chunk.remove(slot % CHUNK));
        let value = value.expect("a value at this place");

        self.len -= 1;
        self.roomy[place / WORD] |= 1 << (place % WORD);
        self.first = self.first.min(place);
        if self.chunks[place].used == 0 {
            self.give_back(place);
        }
        value
    }

    /// Frees an empty chunk, unless it is the only one that is empty.
    fn give_back(&mut self, place: usize) {
        if self.spare.is_none() {
            self.spare = Some(place);
            return;
        }
        self.chunks[place] = Chunk::new();
        self.freed += 1;
        while self
            .chunks
            .last()
            .is_some_and(|chunk| chunk.entries.is_none())
        {
            self.chunks.pop();
            let last = self.chunks.len();
            self.roomy[last / WORD] &= !(1 << (last % WORD));
        }
        self.first = self.first.min(self.chunks.len());
    }

    /// Returns how many bytes were given back since the last call.
    pub(super) fn take_freed(&mut self) -> usize {
        std::mem::take(&mut self.freed) * size_of::<[Entry<T>; CHUNK]>()
    }

    /// Returns a place that is above those of all values.
    pub(super) fn end(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&T> {
        let entries = self.chunks.get(slot / CHUNK)?.entries.as_ref()?;
        match &entries[slot % CHUNK] {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        let entries = self.chunks.get_mut(slot / CHUNK)?.entries.as_mut()?;
        match &mut entries[slot % CHUNK] {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    /// Returns all values with their places, the lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let chunks = (0..).step_by(CHUNK).zip(&self.chunks);
        chunks.flat_map(|(first, chunk)| {
            let entries = chunk.entries.iter().flat_map(|entries| entries.iter());
            (first..)
                .zip(entries)
                .filter_map(|(slot, entry)| match entry {
                    Entry::Occupied(value) => Some((slot, value)),
                    Entry::Vacant(_) => None,
                })
        })
    }

    /// Returns all values with their places, the lowest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let chunks = (0..).step_by(CHUNK).zip(&mut self.chunks);
        chunks.flat_map(|(first, chunk)| {
            let entries = chunk
                .entries
                .iter_mut()
                .flat_map(|entries| entries.iter_mut());
            (first..)
                .zip(entries)
                .filter_map(|(slot, entry)| match entry {
                    Entry::Occupied(value) => Some((slot, value)),
                    Entry::Vacant(_) => None,
                })
        })
    }

    /// Removes all values.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let chunks = std::mem::replace(self, Self::new()).chunks;
        let entries = chunks
            .into_iter()
            .filter_map(|chunk| Some(chunk.entries? as Box<[_]>));
        let entries = entries.flat_map(|entries: Box<[Entry<T>]>| entries.into_vec());
        entries.filter_map(|entry| match entry {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        })
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;

    fn index(&self, slot: usize) -> &T {
        self.get(slot).expect("a value at this place")
    }
}

impl<T> IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, slot: usize) -> &mut T {
        self.get_mut(slot).expect("a value at this place")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn chunks<T>(slots: &Slots<T>) -> usize {
        let kept = slots.chunks.iter().filter(|chunk| chunk.entries.is_some());
        kept.count()
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::with_cases(50)
        })]

        /// Each step adds this many values, and then removes some, of which there are more and more.
        #[test]
        fn agrees_with_a_map_over_many_changes(steps in vec((0..600_usize, 0..700_usize), 0..12)) {
            let (mut slots, mut model) = (Slots::new(), BTreeMap::new());
            let mut next = 0_usize;
            for (added, removed) in steps {
                for _ in 0..added {
                    let expected = slots.vacant_key();
                    let slot = slots.insert(next);
                    prop_assert_eq!(slot, expected);
                    prop_assert_eq!(model.insert(slot, next), None);
                    next += 1;
                }
                for turn in 0..removed.min(model.len()) {
                    let place = turn * 7_919 % model.len();
                    let slot = *model.keys().nth(place).expect("a place");
                    prop_assert_eq!(Some(slots.remove(slot)), model.remove(&slot));
                    prop_assert!(slots.get(slot).is_none());
                }

                prop_assert_eq!(slots.len(), model.len());
                let all: BTreeMap<_, _> = slots.iter().map(|(slot, value)| (slot, *value)).collect();
                prop_assert_eq!(&all, &model);
                prop_assert!(model.keys().all(|slot| *slot < slots.end()));
                let used: std::collections::BTreeSet<_> =
                    model.keys().map(|slot| slot / CHUNK).collect();
                prop_assert!(chunks(&slots) <= used.len() + 1);
            }
            let all: Vec<_> = slots.drain().collect();
            prop_assert_eq!(all, model.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_crowd_that_has_left_keeps_only_the_chunks_of_those_that_stay() {
        let mut slots = Slots::new();
        let crowd: Vec<_> = (0..100_000).map(|name| slots.insert(name)).collect();
        assert_eq!(chunks(&slots), 100_000_usize.div_ceil(CHUNK));
        slots.take_freed();
        for slot in crowd.iter().copied().filter(|slot| slot % 10_000 != 0) {
            slots.remove(slot);
        }
        assert_eq!((slots.len(), chunks(&slots)), (10, 11));
        let freed = 100_000_usize.div_ceil(CHUNK) - 11;
        assert_eq!(slots.take_freed(), freed * CHUNK * size_of::<Entry<i32>>());

        for slot in (0..100_000).step_by(10_000) {
            slots.remove(slot);
        }
        assert_eq!((slots.len(), chunks(&slots)), (0, 1));
        assert_eq!(slots.insert(0), 0);
    }

    #[test]
    fn who_comes_and_goes_at_the_border_of_a_chunk_allocates_nothing() {
        let mut slots = Slots::new();
        for name in 0..CHUNK {
            slots.insert(name);
        }
        for name in 0..100 {
            let slot = slots.insert(name);
            slots.remove(slot);
        }
        assert_eq!((chunks(&slots), slots.take_freed()), (2, 0));
    }
}
