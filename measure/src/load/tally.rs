//! Counts and times collected by the clients of a load.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time that can be recorded, in nanoseconds: one hour.
const LONGEST: u64 = 3_600_000_000_000;
/// The significant digits of recorded times, which are exact to within a tenth of a percent.
const DIGITS: u8 = 3;
/// The significant digits of the times within a slice. Its counts fit into the nearest cache, and are
/// reset within a microsecond, so that the slices do not show in what is measured.
const SLICE_DIGITS: u8 = 1;

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
    /// The messages of the current slice of time.
    slice: Histogram<u32>,
}

/// What came back in one slice of a measurement: a point of a chart over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When the slice ended, in seconds from the beginning of its round.
    pub seconds: f64,
    /// How many messages, or with churn connections, came back in it.
    pub messages: u64,
    /// The median, the 99th percentile and the longest of their times, in microseconds, with one
    /// significant digit. `None` if nothing came back.
    pub p50: Option<f64>,
    /// See `p50`.
    pub p99: Option<f64>,
    /// See `p50`.
    pub max: Option<f64>,
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
        let slice = Histogram::new_with_bounds(1, LONGEST, SLICE_DIGITS);
        Self {
            messages: 0,
            settled: 0,
            handshakes: Handshakes::default(),
            reopen: 0,
            failure: None,
            times: times.expect("bounds that a histogram can have"),
            slice: slice.expect("bounds that a histogram can have"),
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
        self.slice.saturating_record(nanos);
    }

    /// Ends the current slice of time, `seconds` after the beginning of the round.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an hour has fewer than 2^52 nanoseconds"
    )]
    pub(crate) fn end_slice(&mut self, seconds: f64) -> Moment {
        let messages = self.slice.len();
        let micros = |nanos: u64| (messages > 0).then_some(nanos as f64 / 1e3);
        let moment = Moment {
            seconds,
            messages,
            p50: micros(self.slice.value_at_quantile(0.5)),
            p99: micros(self.slice.value_at_quantile(0.99)),
            max: micros(self.slice.max()),
        };
        self.slice.reset();
        moment
    }

    /// Resets the counts and times, but keeps the failure.
    pub(crate) fn reset(&mut self) {
        self.messages = 0;
        self.handshakes = Handshakes::default();
        self.times.reset();
        self.slice.reset();
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
    fn each_slice_has_its_own_times() {
        let mut tally = Tally::new();
        (0..100).for_each(|_| tally.record(Duration::from_micros(100)));
        let first = tally.end_slice(0.5);
        let stalled = tally.end_slice(1.0);
        tally.record(Duration::from_millis(500));
        let last = tally.end_slice(1.5);

        assert_eq!((first.seconds, first.messages), (0.5, 100));
        assert!((first.p50.unwrap() / 100.0 - 1.0).abs() < 0.1, "{first:?}");
        assert_eq!((stalled.messages, stalled.p99), (0, None));
        assert!((last.max.unwrap() / 5e5 - 1.0).abs() < 0.1, "{last:?}");
        // The times of all slices together.
        assert!(tally.latency().p50 < 110.0);
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
