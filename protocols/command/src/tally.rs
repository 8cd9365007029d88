//! Counts of requests by outcome, for the log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::{Outcome, Report};

/// Counts requests by their outcome. Displayed as in `programs run 2, not started 0; requests refused
/// 1`.
#[derive(Debug, Default)]
pub struct Tally {
    run: AtomicU64,
    not_started: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// Counts a request by its report. A request that waited until its client was gone counts as
    /// refused.
    pub(crate) fn count(&self, report: &Report) {
        let counter = match (&report.outcome, report.took) {
            (Outcome::NotStarted(_), _) => &self.not_started,
            (_, None) => &self.refused,
            (_, Some(_)) => &self.run,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [run, not_started, refused] =
            [&self.run, &self.not_started, &self.refused].map(|it| it.load(Ordering::Relaxed));
        write!(
            f,
            "programs run {run}, not started {not_started}; requests refused {refused}"
        )
    }
}
