//! The tokens of connections.
//!
//! A token holds a slot in its lower half and a generation in its upper. The generation changes
//! with every connection, so that an event for an earlier owner of the slot is recognised.
//! Generation 0 is never used: tokens below [`FIRST_TOKEN`] are free for others.

pub(super) const SLOT_BITS: u32 = usize::BITS / 2;
pub(super) const SLOT_MASK: usize = FIRST_TOKEN - 1;
pub(super) const FIRST_TOKEN: usize = 1 << SLOT_BITS;

/// A token that no connection has: a datagram's session ends before anything could wake it.
pub(crate) const NOBODY: usize = usize::MAX;
