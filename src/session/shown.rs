//! What a protocol is shown, as far as it may be sent from where it is.

use std::ops::Range;

/// Data of at least this many bytes is worth the way past the output. It begins nothing: shorter data is
/// copied in less time than it takes to see whose it is.
pub(crate) const LENT_LEAST: usize = 2 * 1024;

/// What a protocol is shown, and which part of that it has written. As long as it writes nothing else,
/// that part is sent from here.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) data: &'a [u8],
    pub(super) written: Range<usize>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            written: 0..0,
        }
    }

    /// Returns where `piece` is in the data, if it is a part of it.
    pub(super) fn place_of(&self, piece: &[u8]) -> Option<Range<usize>> {
        let start = piece
            .as_ptr()
            .addr()
            .checked_sub(self.data.as_ptr().addr())?;
        let end = start.checked_add(piece.len())?;
        (end <= self.data.len()).then_some(start..end)
    }
}
