//! Counts of what the clients did and saw.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) exchanges: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) attacks: AtomicU64,
    pub(crate) mismatches: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Tally {
    pub(crate) fn is_bad(&self) -> bool {
        self.mismatches.load(Relaxed) + self.failures.load(Relaxed) > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [exchanges, mib, attacks, mismatches, failures, lost] = [
            &self.exchanges,
            &self.bytes,
            &self.attacks,
            &self.mismatches,
            &self.failures,
            &self.lost,
        ]
        .map(|count| count.load(Relaxed));

        let mib = mib >> 20;
        write!(
            f,
            "{exchanges} exchanges, {mib} MiB, {attacks} attacks, {lost} datagrams lost; {mismatches} mismatches, {failures} failures"
        )
    }
}
