//! Counts and times collected by the clients of a load.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that can be recorded, in nanoseconds: one hour.
const LONGEST: u64 = 3_600_000_000_000;
/// The significant digits of recorded times, which are exact to within a tenth of a percent.
const DIGITS: u8 = 3;

#[derive(Debug)]
pub(crate) struct Tally {
    /// Messages that came back in full, or with churn, connections.
    pub(crate) messages: u64,
    /// Connections whose first message came back.
    pub(crate) settled: usize,
    /// TLS handshakes that were completed.
    pub(crate) handshakes: Handshakes,
    /// Connections to be replaced by new ones.
    pub(crate) reopen: usize,
    /// Why the run is invalid, if it is.
    pub(crate) failure: Option<String>,
    times: Histogram<u64>,
}

/// How many TLS handshakes of each kind were completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Those with a certificate and its signature.
    pub full: u64,
    /// Those that continued an earlier session.
    pub resumed: u64,
}

/// Percentiles of how long messages took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The longest time.
    pub max: f64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Self {
            messages: 0,
            settled: 0,
            handshakes: Handshakes::default(),
            reopen: 0,
            failure: None,
            times: times.expect("bounds that a histogram can have"),
        }
    }

    /// Counts a message that came back, `time` after it was sent or should have been sent.
    #[inline]
    pub(crate) fn record(&mut self, time: Duration) {
        self.messages += 1;
        self.record_time(time);
    }

    /// Records a time without counting a message, for a message that is still missing after `time`.
    #[inline]
    pub(crate) fn record_time(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(LONGEST);
        self.times.saturating_record(nanos);
    }

    /// Resets the counts and times, but keeps the failure.
    pub(crate) fn reset(&mut self) {
        self.messages = 0;
        self.handshakes = Handshakes::default();
        self.times.reset();
    }

    /// Records a failure. Only the first is kept, since those that follow are its consequences.
    #[cold]
    pub(crate) fn fail(&mut self, why: impl FnOnce() -> String) {
        self.failure.get_or_insert_with(why);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "an hour has fewer than 2^52 nanoseconds"
    )]
    pub(crate) fn latency(&self) -> Latency {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let part = |part: f64| micros(self.times.value_at_quantile(part));
        Latency {
            p50: part(0.5),
            p90: part(0.9),
            p99: part(0.99),
            p999: part(0.999),
            max: micros(self.times.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut tally = Tally::new();
        for micros in 1..=1_000 {
            tally.record(Duration::from_micros(micros));
        }

        let latency = tally.latency();
        for (found, expected) in [
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p999, 999.0),
            (latency.max, 1_000.0),
        ] {
            assert!((found / expected - 1.0).abs() < 0.002, "{found} {expected}");
        }
        tally.reset();
        assert_eq!(tally.messages, 0);
        assert_eq!(tally.latency(), Latency::default());
    }

    #[test]
    fn the_first_failure_is_kept() {
        let mut tally = Tally::new();
        tally.fail(|| "cause".to_owned());
        tally.fail(|| "consequence".to_owned());

        tally.reset();
        assert_eq!(tally.failure.as_deref(), Some("cause"));
    }
}
