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

    /// Returns the datagrams at the front that have the length of the first, up to `most` and up to
    /// `bytes` together: how many they are, and how many bytes. A shorter one may be the last of them.
    pub(super) fn run(&self, most: usize, bytes: usize) -> (usize, usize) {
        let first = self.first().unwrap_or(0);
        let (mut count, mut sum) = (0, 0);
        for &length in self.lengths.iter().take(most) {
            if length > first || length == 0 || sum + length > bytes {
                break;
            }
            (count, sum) = (count + 1, sum + length);
            if length < first {
                break;
            }
        }
        (count, sum)
    }

    /// Notes that the first datagram has left the output. Returns false if there is none.
    pub(super) fn pop(&mut self) -> bool {
        let length = self.lengths.pop_front();
        self.sum -= length.unwrap_or(0);
        length.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lengths: &[usize], most: usize, bytes: usize) -> (usize, usize) {
        let mut cuts = Cuts::default();
        let mut end = 0;
        for length in lengths {
            end += length;
            cuts.push(end);
        }
        cuts.run(most, bytes)
    }

    #[test]
    fn a_run_has_one_length_and_a_rest() {
        assert_eq!(run(&[], 9, 999), (0, 0));
        assert_eq!(run(&[0, 5], 9, 999), (0, 0));
        assert_eq!(run(&[5], 9, 999), (1, 5));
        assert_eq!(run(&[5, 5, 5], 9, 999), (3, 15));
        assert_eq!(run(&[5, 5, 3, 5], 9, 999), (3, 13));
        assert_eq!(run(&[5, 6], 9, 999), (1, 5));
        assert_eq!(run(&[5, 0, 5], 9, 999), (1, 5));
        assert_eq!(run(&[5, 5, 5], 2, 999), (2, 10));
        assert_eq!(run(&[5, 5, 5], 9, 14), (2, 10));
    }
}
