//! An item, and what is asked of the items.

use std::sync::Arc;
use std::time::Instant;

use crate::statistics::Statistics;

/// A value and what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Arc<[u8]>,
    /// The client's flags, which mean nothing here.
    pub(crate) flags: u32,
    /// `None` if it does not expire.
    pub(crate) expires: Option<Instant>,
    /// Its last use, to a second.
    pub(crate) accessed: Instant,
    /// Changes with each change of the value.
    pub(crate) unique: u64,
    /// A client has read it.
    pub(crate) is_fetched: bool,
    /// A client has declared it out of date.
    pub(crate) is_stale: bool,
    /// A client was told to renew it, and no other one is.
    pub(crate) is_won: bool,
    /// Its key was sent in Base64, and is shown like that.
    pub(crate) has_binary_key: bool,
}

impl Item {
    pub(crate) fn new(value: Arc<[u8]>, now: Instant) -> Self {
        Self {
            value,
            flags: 0,
            expires: None,
            accessed: now,
            unique: 0,
            is_fetched: false,
            is_stale: false,
            is_won: false,
            has_binary_key: false,
        }
    }

    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// What a storage command does if there is an item, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

impl Mode {
    /// Returns whether the value is added to one that is there.
    pub(crate) fn extends(self) -> bool {
        matches!(self, Self::Append | Self::Prepend)
    }
}

/// An item to store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<'a> {
    pub(crate) mode: Mode,
    pub(crate) value: &'a [u8],
    pub(crate) flags: u32,
    pub(crate) exptime: i64,
    /// Store it only if this is the `unique` of what it replaces.
    pub(crate) unique: Option<u64>,
    /// If `unique` is that of an older item, store it as stale.
    pub(crate) invalidates: bool,
    pub(crate) has_binary_key: bool,
}

/// What became of an item to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    NotStored,
    Exists,
    NotFound,
    NoMemory,
}

/// Why a counter did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoCounter {
    NotFound,
    NotNumeric,
    Exists,
}

/// Whether a counter goes up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Direction {
    pub(crate) fn hits(self, statistics: &mut Statistics) -> &mut u64 {
        match self {
            Self::Up => &mut statistics.incr_hits,
            Self::Down => &mut statistics.decr_hits,
        }
    }

    pub(crate) fn misses(self, statistics: &mut Statistics) -> &mut u64 {
        match self {
            Self::Up => &mut statistics.incr_misses,
            Self::Down => &mut statistics.decr_misses,
        }
    }
}
