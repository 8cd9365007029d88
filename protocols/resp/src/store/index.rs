//! The hash index: finds the slot of a key by its hash, and visits slots in the order of hashes.
//!
//! It is an extendible hash table. A bucket holds the hashes with a common prefix, and the directory
//! has the bucket for each prefix. A full bucket is split in two, so no single insertion is slow. A
//! cursor is a position among all hashes: it stays true when buckets are split and merged, so a scan
//! visits each slot that is there from its beginning to its end exactly once.

/// A bucket with this many slots is split.
const FULL: usize = 32;

/// Two neighbours with this many slots together become one.
const SPARSE: usize = 8;

/// The directory has at least this many places, and otherwise no more than there are slots. With hashes
/// that do not differ enough, buckets grow instead.
const DIRECTORY_LEAST: usize = 64;

/// What an entry takes here, in bytes, on average: buckets are two thirds full.
pub(super) const BYTES_PER_SLOT: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Item {
    hash: u32,
    slot: u32,
}

#[derive(Debug, Default)]
struct Bucket {
    /// How many bits its hashes have in common.
    depth: u32,
    items: Vec<Item>,
}

#[derive(Debug)]
pub(super) struct Index {
    /// The number of a bucket for each prefix of `depth` bits.
    directory: Vec<u32>,
    depth: u32,
    buckets: Vec<Bucket>,
    /// The numbers of buckets that are not in use.
    free: Vec<u32>,
    /// How many slots there are.
    count: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            directory: vec![0],
            depth: 0,
            buckets: vec![Bucket::default()],
            free: Vec::new(),
            count: 0,
        }
    }

    /// Returns the slot with this hash that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut items = self.buckets[self.bucket_of(hash)].items.iter();
        items
            .find(|item| item.hash == hash && is_it(item.slot))
            .map(|item| item.slot)
    }

    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        self.count += 1;
        loop {
            let number = self.bucket_of(hash);
            let bucket = &mut self.buckets[number];
            let places = self.directory.len();
            let is_largest =
                bucket.depth == self.depth && places >= self.count.max(DIRECTORY_LEAST);
            if bucket.items.len() < FULL || is_largest {
                return bucket.items.push(Item { hash, slot });
            }
            self.split(number, hash);
        }
    }

    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        self.count -= 1;
        let number = self.bucket_of(hash);
        let items = &mut self.buckets[number].items;
        if let Some(at) = items.iter().position(|item| item.slot == slot) {
            items.swap_remove(at);
        }
        if items.len() <= SPARSE {
            self.merge(number, hash);
        }
    }

    /// Notes that what was in `slot` is in another one now.
    pub(super) fn relocate(&mut self, hash: u32, slot: u32, to: u32) {
        let number = self.bucket_of(hash);
        let mut items = self.buckets[number].items.iter_mut();
        if let Some(item) = items.find(|item| item.slot == slot) {
            item.slot = to;
        }
    }

    /// Shows a few slots from the position `cursor` on, and returns the position behind them, or `None`
    /// if there is nothing more.
    pub(super) fn scan(&self, cursor: u32, mut show: impl FnMut(u32)) -> Option<u32> {
        let bucket = &self.buckets[self.bucket_of(cursor)];
        let rest = bucket.items.iter().filter(|item| item.hash >= cursor);
        rest.for_each(|item| show(item.slot));

        let prefix = prefix(cursor, bucket.depth) as u64;
        u32::try_from((prefix + 1) << (u32::BITS - bucket.depth)).ok()
    }

    #[inline]
    fn bucket_of(&self, hash: u32) -> usize {
        self.directory[prefix(hash, self.depth)] as usize
    }

    /// Splits the bucket of `hash` by the next bit of its hashes.
    fn split(&mut self, number: usize, hash: u32) {
        let depth = self.buckets[number].depth;
        if depth == self.depth {
            self.directory = self.directory.iter().flat_map(|it| [*it; 2]).collect();
            self.depth += 1;
        }

        let bit = 1 << (u32::BITS - 1 - depth);
        let items = std::mem::take(&mut self.buckets[number].items);
        let (upper, lower) = items
            .into_iter()
            .partition(|item: &Item| item.hash & bit != 0);
        self.buckets[number] = Bucket {
            depth: depth + 1,
            items: lower,
        };

        let other = self.add(Bucket {
            depth: depth + 1,
            items: upper,
        });
        self.point(hash | bit, depth + 1, other);
    }

    /// Makes the bucket of `hash` one with its neighbour, if both together are sparse.
    fn merge(&mut self, number: usize, hash: u32) {
        let depth = self.buckets[number].depth;
        if depth == 0 {
            return;
        }
        let other = self.bucket_of(hash ^ 1 << (u32::BITS - depth));
        let together = self.buckets[number].items.len() + self.buckets[other].items.len();
        if self.buckets[other].depth != depth || together > SPARSE {
            return;
        }

        let items = std::mem::take(&mut self.buckets[other].items);
        self.free.push(other as u32);
        let bucket = &mut self.buckets[number];
        bucket.items.extend(items);
        bucket.depth = depth - 1;
        self.point(hash, depth - 1, number as u32);
    }

    fn add(&mut self, bucket: Bucket) -> u32 {
        if let Some(number) = self.free.pop() {
            self.buckets[number as usize] = bucket;
            return number;
        }
        self.buckets.push(bucket);
        (self.buckets.len() - 1) as u32
    }

    /// Points the directory to a bucket for all hashes that have `depth` bits in common with `hash`.
    fn point(&mut self, hash: u32, depth: u32, number: u32) {
        let width = self.depth - depth;
        let first = prefix(hash, depth) << width;
        self.directory[first..first + (1 << width)].fill(number);
    }
}

/// Returns the first `depth` bits.
#[inline]
fn prefix(hash: u32, depth: u32) -> usize {
    (u64::from(hash) >> (u32::BITS - depth)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Numbers that look random, the same in every run.
    fn hashes() -> impl Iterator<Item = u32> {
        let mut state = 1_u64;
        std::iter::from_fn(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            Some((state >> 32) as u32)
        })
    }

    fn scanned(index: &Index) -> Vec<u32> {
        let mut slots = Vec::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = index.scan(from, |slot| slots.push(slot));
        }
        slots
    }

    #[test]
    fn it_is_a_map() {
        let mut index = Index::new();
        let mut model = BTreeMap::new();
        let mut random = hashes();
        for slot in 0..20_000 {
            let hash = random.next().unwrap();
            index.insert(hash, slot);
            model.insert(slot, hash);
            // Grows, shrinks to nothing, and grows again.
            while slot % 4_000 >= 2_000 && model.len() > (4_000 - slot as usize % 4_000) {
                let (slot, hash) = model.pop_first().unwrap();
                index.remove(hash, slot);
                assert_eq!(index.find(hash, |it| it == slot), None);
            }
        }
        for (slot, hash) in &model {
            assert_eq!(index.find(*hash, |it| it == *slot), Some(*slot));
        }
        let mut all = scanned(&index);
        all.sort_unstable();
        assert!(
            all.iter().eq(model.keys()),
            "{} and {}",
            all.len(),
            model.len()
        );
    }

    #[test]
    fn removed_slots_leave_no_buckets() {
        let mut index = Index::new();
        let hashes: Vec<_> = hashes().take(10_000).collect();
        hashes
            .iter()
            .zip(0..)
            .for_each(|(hash, slot)| index.insert(*hash, slot));
        assert!(index.buckets.len() > 400, "{}", index.buckets.len());
        hashes
            .iter()
            .zip(0..)
            .for_each(|(hash, slot)| index.remove(*hash, slot));
        assert_eq!(index.buckets.len() - index.free.len(), 1);
    }

    #[test]
    fn the_same_hash_can_be_there_often() {
        let mut index = Index::new();
        (0..100).for_each(|slot| index.insert(7, slot));
        (0..100).for_each(|slot| assert_eq!(index.find(7, |it| it == slot), Some(slot)));
        assert_eq!(scanned(&index).len(), 100);
        assert!(index.directory.len() <= 128, "{}", index.directory.len());
        (0..100).for_each(|slot| index.remove(7, slot));
        assert_eq!(scanned(&index), []);
    }

    #[test]
    fn a_scan_sees_what_stays_once_while_the_index_changes() {
        let mut index = Index::new();
        let hashes: Vec<_> = hashes().take(60_000).collect();
        let (stays, comes) = hashes.split_at(1_000);
        stays
            .iter()
            .zip(0..)
            .for_each(|(hash, slot)| index.insert(*hash, slot));

        let mut seen = vec![0; 1_000];
        let (mut cursor, mut calls) = (Some(0), 0);
        while let Some(from) = cursor {
            cursor = index.scan(from, |slot| {
                if let Some(count) = seen.get_mut(slot as usize) {
                    *count += 1;
                }
            });
            // It grows for a while, and then it shrinks.
            let change = comes
                .iter()
                .zip(1_000..)
                .skip(calls * 100 % 50_000)
                .take(100);
            match calls {
                ..20 => change.for_each(|(hash, slot)| index.insert(*hash, slot)),
                20..30 => {}
                _ => comes
                    .iter()
                    .zip(1_000..)
                    .skip((calls - 30) * 20)
                    .take(20)
                    .for_each(|(hash, slot)| index.remove(*hash, slot)),
            }
            calls += 1;
        }
        assert!(calls > 50, "{calls}");
        assert_eq!(seen, vec![1; 1_000]);
    }
}
