//! The limit on log lines about connections.

use std::mem;
use std::time::{Duration, Instant};

/// The most lines per second. A reader cannot follow more, and a flood of clients would hide
/// everything else in the log and fill the disk.
pub(crate) const LINES_PER_SECOND: u32 = 100;

const SECOND: Duration = Duration::from_secs(1);

/// Counts the lines written in the current second, and those left out.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    second: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogBudget {
    /// Takes one line at `now`. Returns false and counts it as left out if the budget is spent.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let current = self
            .second
            .is_some_and(|began| now.saturating_duration_since(began) < SECOND);

        if !current {
            self.second = Some(now);
            self.lines = 0;
        }

        if self.lines == LINES_PER_SECOND {
            self.left_out += 1;
            return false;
        }

        self.lines += 1;
        true
    }

    /// Returns the number of lines left out since the last call.
    pub(crate) fn take_left_out(&mut self) -> u64 {
        mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_until_the_next_second() {
        let mut budget = LogBudget::default();
        let begin = Instant::now();
        for _ in 0..LINES_PER_SECOND {
            assert!(budget.spend(begin));
        }

        let end = begin + SECOND;
        for _ in 0..3 {
            assert!(!budget.spend(end - Duration::from_nanos(1)));
        }

        assert!(budget.spend(end));
        assert_eq!(budget.take_left_out(), 3);
        assert_eq!(budget.take_left_out(), 0);
        for _ in 1..LINES_PER_SECOND {
            assert!(budget.spend(end));
        }
        assert!(!budget.spend(end));
    }

    #[test]
    fn a_quiet_second_saves_nothing_for_later() {
        let mut budget = LogBudget::default();
        let begin = Instant::now();
        assert!(budget.spend(begin));
        let later = begin + 60 * SECOND;
        let allowed = (0..500).filter(|_| budget.spend(later));
        assert_eq!(allowed.count(), 100);
    }
}
