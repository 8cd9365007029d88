//! How the output of a datagram's session is cut into datagrams.
//!
//! What is written in one event is one datagram, unless the protocol asks for several. Only a session
//! with more than one datagram in its output stores where they end.

use std::collections::VecDeque;

/// The lengths of the complete datagrams at the front of the output.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    lengths: VecDeque<usize>,
    sum: usize,
}

impl Cuts {
    /// Ends a datagram where `length` bytes of output end.
    pub(super) fn push(&mut self, length: usize) {
        self.lengths.push_back(length - self.sum);
        self.sum = length;
    }

    /// Returns the length of the first datagram.
    pub(super) fn first(&self) -> Option<usize> {
        self.lengths.front().copied()
    }

    /// Notes that the first datagram has left the output. Returns false if there is none.
    pub(super) fn pop(&mut self) -> bool {
        let length = self.lengths.pop_front();
        self.sum -= length.unwrap_or(0);
        length.is_some()
    }
}
