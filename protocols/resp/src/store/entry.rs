//! A key with its value, and what they take.

use crate::store::index::BYTES_PER_SLOT;

/// The deadline of a key that has none. No deadline is so late.
pub(super) const NEVER: u64 = u64::MAX;

/// What a key takes in bytes besides its text and its value: its entry, its place in the index, and
/// what the allocator keeps for two blocks.
const ENTRY: usize = size_of::<Entry>() + BYTES_PER_SLOT + 32;

/// What a deadline takes in bytes.
pub(super) const DEADLINE: usize = 32;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    pub(super) value: Vec<u8>,
    /// In milliseconds since 1970.
    pub(super) deadline: u64,
    pub(super) hash: u32,
    /// The number of the last access.
    pub(super) used: u32,
}

impl Entry {
    /// Returns how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let deadline = if self.deadline == NEVER { 0 } else { DEADLINE };
        ENTRY + self.key.len() + self.value.capacity() + deadline
    }

    /// Returns how many bytes a key and its value take at most.
    #[inline]
    pub(super) fn size_of(key: &[u8], value: usize) -> usize {
        ENTRY + DEADLINE + key.len() + value
    }
}
