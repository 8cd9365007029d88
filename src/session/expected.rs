//! What a protocol has said about input that is to come.

use std::ops::Range;

/// What a protocol has said about its input.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// How many unread bytes are to be there before any are shown.
    pub(super) count: usize,
    /// Where the unread bytes are that are being shown, if their memory can be given away.
    pub(super) shown: Range<usize>,
    /// Which of them the protocol wants to have.
    pub(super) claimed: Range<usize>,
    /// Whether it was shown all that was there when it said so.
    pub(super) is_seen: bool,
    /// What it has claimed, until it takes it.
    pub(super) input: Option<Vec<u8>>,
}
