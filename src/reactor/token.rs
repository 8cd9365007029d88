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

/// Generations of connections are below this. Sessions of datagrams have the others, so that their
/// tokens differ.
pub(super) const FIRST_OF_SESSIONS: usize = FIRST_TOKEN / 2;

/// Returns whether the token is one of a connection: neither below all of them nor of a session. As signed
/// numbers, tokens of sessions are negative, so that one comparison answers both.
#[inline]
#[expect(clippy::cast_possible_wrap, reason = "the sign is what is asked for")]
pub(super) fn is_of_connection(token: usize) -> bool {
    token as isize >= FIRST_TOKEN as isize
}

/// Returns whether the token is one of a session of datagrams.
pub(super) fn is_of_session(token: usize) -> bool {
    token >> SLOT_BITS >= FIRST_OF_SESSIONS
}
