//! The timeline of a simulated world: planned actions in the order of their time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Planned actions and their times since the start. Actions at the same time run in the order in
/// which they were planned.
#[derive(Debug)]
pub(super) struct Timeline<D> {
    planned: BinaryHeap<Reverse<(Duration, u64, D)>>,
    count: u64,
}

impl<D: Ord> Timeline<D> {
    pub(super) fn new() -> Self {
        Self {
            planned: BinaryHeap::new(),
            count: 0,
        }
    }

    pub(super) fn plan(&mut self, at: Duration, action: D) {
        self.count += 1;
        self.planned.push(Reverse((at, self.count, action)));
    }

    /// Returns when the next action is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.planned.peek().map(|Reverse((at, ..))| *at)
    }

    /// Returns the next action if it is due.
    pub(super) fn pop(&mut self, now: Duration) -> Option<D> {
        let is_due = self.next().is_some_and(|at| at <= now);
        let Reverse((_, _, action)) = is_due.then(|| self.planned.pop()).flatten()?;
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_come_in_the_order_of_time_and_then_of_planning() {
        let mut timeline = Timeline::new();
        let second = Duration::from_secs(1);
        for (at, action) in [(2, 'c'), (1, 'b'), (1, 'a'), (3, 'd')] {
            timeline.plan(second * at, action);
        }
        assert_eq!(timeline.next(), Some(second));
        let due: String = std::iter::from_fn(|| timeline.pop(second * 2)).collect();
        assert_eq!(due, "bac");
        assert_eq!(timeline.next(), Some(second * 3));
    }
}
