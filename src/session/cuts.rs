//! How the output of a datagram's session is cut into datagrams.
//!
//! What is written in one event is one datagram, unless the protocol asks for several. Only a session
//! with more than one datagram in its output stores where they end.

use std::collections::VecDeque;

use crate::address::Ecn;

/// The lengths and marks of the complete datagrams at the front of the output.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    datagrams: VecDeque<Cut>,
    sum: usize,
    /// The mark of the datagrams that follow.
    ecn: Ecn,
}

/// The length of a datagram, above the two bits of its mark: no output has a quarter of all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut(usize);

impl Cut {
    fn new(length: usize, ecn: Ecn) -> Self {
        Self(length << 2 | usize::from(ecn.bits()))
    }

    fn length(self) -> usize {
        self.0 >> 2
    }

    fn bits(self) -> usize {
        self.0 & 3
    }

    fn ecn(self) -> Ecn {
        Ecn::from_bits(self.0 as u8)
    }
}

impl Cuts {
    /// Ends a datagram where `length` bytes of output end.
    pub(super) fn push(&mut self, length: usize) {
        let cut = Cut::new(length - self.sum, self.ecn);
        self.datagrams.push_back(cut);
        self.sum = length;
    }

    /// Sets the mark of the datagrams that end from now on.
    pub(super) fn set_ecn(&mut self, ecn: Ecn) {
        self.ecn = ecn;
    }

    /// Returns the mark of the first datagram, or of the one that was begun if none is complete.
    pub(super) fn ecn(&self) -> Ecn {
        self.datagrams.front().map_or(self.ecn, |cut| cut.ecn())
    }

    /// Returns how many bytes the complete datagrams have together.
    pub(super) fn sum(&self) -> usize {
        self.sum
    }

    /// Returns the length of the first datagram.
    pub(super) fn first(&self) -> Option<usize> {
        self.datagrams.front().map(|cut| cut.length())
    }

    /// Returns the datagrams at the front that have the length and the mark of the first, up to `most` and up to
    /// `bytes` together: how many they are, and how many bytes. A shorter one may be the last of them.
    pub(super) fn run(&self, most: usize, bytes: usize) -> (usize, usize) {
        let first = self.datagrams.front().copied().unwrap_or(Cut(0));
        let (first, bits) = (first.length(), first.bits());
        let (mut count, mut sum) = (0, 0);
        for cut in self.datagrams.iter().take(most) {
            let length = cut.length();
            let is_other = length > first || cut.bits() != bits;
            if is_other || length == 0 || sum + length > bytes {
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
        let cut = self.datagrams.pop_front();
        self.sum -= cut.map_or(0, Cut::length);
        cut.is_some()
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
    fn a_run_has_one_mark() {
        let mut cuts = Cuts::default();
        for (number, ecn) in [Ecn::Ect0, Ecn::Ect0, Ecn::Ect1, Ecn::NotEct]
            .into_iter()
            .enumerate()
        {
            cuts.set_ecn(ecn);
            cuts.push(5 * (number + 1));
        }
        cuts.set_ecn(Ecn::Ce);
        for (ecn, run) in [
            (Ecn::Ect0, (2, 10)),
            (Ecn::Ect0, (1, 5)),
            (Ecn::Ect1, (1, 5)),
            (Ecn::NotEct, (1, 5)),
        ] {
            assert_eq!((cuts.ecn(), cuts.run(9, 999)), (ecn, run));
            assert_eq!(cuts.first(), Some(5));
            assert!(cuts.pop());
        }
        assert_eq!(cuts.ecn(), Ecn::Ce);
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
