//! How much may be said about connections.

use std::mem;
use std::time::{Duration, Instant};

/// Whoever reads the log follows less than this; a flood of clients would hide everything else in
/// it, and fill the disk.
pub(crate) const LINES_PER_SECOND: u32 = 100;

const SECOND: Duration = Duration::from_secs(1);

/// Counts the lines that were written in the current second, and those that were not.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    second: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Budget {
    /// Asks for a line at `now`. If it may be written, gives how many were left out since the last
    /// one.
    pub(crate) fn spend(&mut self, now: Instant) -> Option<u64> {
        let current = self
            .second
            .is_some_and(|began| now.saturating_duration_since(began) < SECOND);
        if !current {
            self.second = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(mem::take(&mut self.left_out))
    }

    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_with_the_next_seconds_first_line() {
        let mut budget = Budget::default();
        let begin = Instant::now();
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(budget.spend(begin), Some(0));
        }
        let end = begin + SECOND;
        for _ in 0..3 {
            assert_eq!(budget.spend(end - Duration::from_nanos(1)), None);
        }
        assert_eq!(budget.left_out(), 3);
        assert_eq!(budget.spend(end), Some(3));
        assert_eq!(budget.left_out(), 0);
        for _ in 1..LINES_PER_SECOND {
            assert_eq!(budget.spend(end), Some(0));
        }
        assert_eq!(budget.spend(end), None);
    }

    #[test]
    fn a_quiet_second_saves_nothing_for_later() {
        let mut budget = Budget::default();
        let begin = Instant::now();
        assert_eq!(budget.spend(begin), Some(0));
        let later = begin + 60 * SECOND;
        let allowed = (0..500).filter(|_| budget.spend(later).is_some());
        assert_eq!(allowed.count(), 100);
    }
}
