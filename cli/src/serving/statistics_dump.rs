//! Statistics for the log: at the end of a server, and when SIGUSR1 asks for them.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serveloop::protocols::counted;
use serveloop::{Actions, ShutdownHandle, Statistics};

use crate::logger::TARGET;
use crate::signals::dumps;
use crate::threads::lock;

/// How soon to wake the loops again of which one has not reported yet.
const AGAIN: Duration = Duration::from_millis(20);

/// After which time a loop is left out that has not reported: a handler holds it up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reports the counters of one loop when all are asked for. Each clone is for one loop.
#[derive(Debug)]
pub(super) struct StatisticsDump {
    shared: Arc<Shared>,
    number: usize,
    /// How many requests this loop has seen.
    seen: usize,
    /// When this loop wakes the others again and when it gives them up, if it waits for their reports.
    waits: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Shared {
    handle: ShutdownHandle,
    reports: Mutex<Reports>,
}

/// What each loop has reported to the last request.
#[derive(Debug, Default)]
struct Reports {
    request: usize,
    by_loop: Vec<Report>,
    is_told: bool,
}

/// What is known of one loop.
#[derive(Clone, Debug)]
enum Report {
    /// It has not reported.
    Owed,
    Made(Box<Statistics>),
    /// It has ended, or never served.
    Gone,
}

impl StatisticsDump {
    /// Creates the report of the first loop of the server that `handle` shuts down.
    pub(super) fn new(handle: ShutdownHandle) -> Self {
        let shared = Shared {
            handle,
            reports: Mutex::default(),
        };
        Self::of(Arc::new(shared))
    }

    fn of(shared: Arc<Shared>) -> Self {
        let mut reports = shared.reports();
        let number = reports.by_loop.len();
        reports.by_loop.push(Report::Owed);
        drop(reports);
        Self {
            shared,
            number,
            seen: 0,
            waits: None,
        }
    }

    /// Reports if there is a new request. Costs one atomic load if there is none.
    #[inline]
    pub(super) fn look<P>(&mut self, actions: &mut Actions<'_, P>) {
        if dumps() != self.seen || self.waits.is_some() {
            self.report(actions);
        }
    }

    #[cold]
    fn report<P>(&mut self, actions: &mut Actions<'_, P>) {
        let mut reports = self.shared.reports();
        // Read under the lock, so that no loop goes back to a request before the last.
        let request = dumps();
        let is_new = self.seen != request;
        self.seen = request;
        let now = actions.now();
        if is_new {
            self.waits = Some((now, now + PATIENCE));
            reports.begin(request);
            reports.by_loop[self.number] = Report::Made(Box::new(*actions.statistics()));
        }

        let owes = |report: &Report| matches!(report, Report::Owed);
        let is_complete = !reports.by_loop.iter().any(owes);
        let is_late = self.waits.is_none_or(|(_, until)| now >= until);
        if !reports.is_told && (is_complete || is_late) {
            reports.tell();
        }
        if reports.is_told {
            self.waits = None;
            return;
        }

        drop(reports);
        if let Some((next, _)) = &mut self.waits {
            if *next <= now {
                *next = now + AGAIN;
                self.shared.handle.wake();
            }
            // Also if an earlier call was asked for, which this turn may be.
            actions.call_again(next.saturating_duration_since(now));
        }
    }
}

impl Clone for StatisticsDump {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.shared))
    }
}

impl Drop for StatisticsDump {
    fn drop(&mut self) {
        self.shared.reports().by_loop[self.number] = Report::Gone;
    }
}

impl Shared {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        lock(&self.reports)
    }
}

impl Reports {
    /// Begins a request that no loop has reported to, unless it has begun.
    fn begin(&mut self, request: usize) {
        if self.request != request {
            self.request = request;
            self.is_told = false;
            let made = |report: &&mut Report| matches!(report, Report::Made(_));
            self.by_loop
                .iter_mut()
                .filter(made)
                .for_each(|report| *report = Report::Owed);
        }
    }

    /// Logs the sum of what was reported.
    fn tell(&mut self) {
        self.is_told = true;
        let (mut sum, mut count, mut all) = (Statistics::default(), 0, 0);
        for report in &self.by_loop {
            if let Report::Made(statistics) = report {
                sum += statistics;
                count += 1;
            }
            all += usize::from(!matches!(report, Report::Gone));
        }

        let open = (sum.accepted + sum.connected).saturating_sub(sum.closed());
        let line = statistics_line(&sum);
        if count == all {
            log::info!(target: TARGET, "SIGUSR1: open {open}, {line}");
        } else {
            let all = counted(all, "loop", "loops");
            log::info!(target: TARGET, "SIGUSR1: {count} of {all}: open {open}, {line}");
        }
    }
}

/// Lists the counters and their values. Leaves out those that are 0, except the traffic counters,
/// and those that tell a user little.
pub(crate) fn statistics_line(statistics: &Statistics) -> String {
    let told = |(name, count): &(&str, u64)| match *name {
        "accepted" | "bytes_read" | "bytes_written" => true,
        "turns" | "stale_events" => false,
        _ => *count > 0,
    };

    let counts: Vec<_> = statistics
        .iter()
        .filter(told)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_what_happened() {
        let mut statistics = Statistics::default();
        assert_eq!(
            statistics_line(&statistics),
            "accepted 0, bytes_read 0, bytes_written 0"
        );

        statistics.accepted = 2;
        statistics.bytes_read = 10;
        statistics.closed_by_peer = 2;
        statistics.turns = 7;
        let expected = "accepted 2, bytes_read 10, bytes_written 0, closed_by_peer 2";
        assert_eq!(statistics_line(&statistics), expected);
    }
}
