//! A histogram of durations with fixed buckets.

use std::time::Duration;

/// The upper bounds of the buckets, in microseconds. What is longer than the last is in a bucket
/// without a bound.
const BOUNDS: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How many durations fell into each of twenty buckets, from 10 µs to 10 s and beyond.
///
/// The buckets are the same in every histogram, so that those of several loops, and of several
/// servers, can be added up.
///
/// ```
/// use serveloop::service::monitor::Histogram;
/// use std::time::Duration;
///
/// let mut histogram = Histogram::default();
/// histogram.record(Duration::from_micros(20));
/// histogram.record(Duration::from_micros(30));
/// histogram.record(Duration::from_secs(60));
/// assert_eq!(histogram.count(), 3);
/// assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(50)));
/// assert_eq!(histogram.quantile(1.0), Some(Duration::MAX));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts a duration, in the first bucket whose bound is not less.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound);
        self.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds what another histogram counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Returns how many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the upper bound of each bucket with the number of durations up to it, which includes
    /// those of the buckets before. The last bucket has no bound, and all are in it.
    ///
    /// ```
    /// use serveloop::service::monitor::Histogram;
    ///
    /// let buckets: Vec<_> = Histogram::default().cumulative().collect();
    /// assert_eq!(buckets.len(), 20);
    /// assert_eq!(buckets.last(), Some(&(None, 0)));
    /// ```
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|micros| Duration::from_micros(*micros));
        let mut sum = 0;
        let counts = self.counts.iter().map(move |count| {
            sum += count;
            sum
        });
        bounds.map(Some).chain([None]).zip(counts)
    }

    /// Returns a duration that the fraction `of` of all durations did not exceed: the bound of the
    /// bucket in which that one is, [`Duration::MAX`] if that has none, and `None` if nothing was
    /// counted. A fraction outside 0 to 1 counts as the nearer of the two.
    #[must_use]
    pub fn quantile(&self, of: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank only has to be near"
        )]
        let rank = ((of.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut buckets = self.cumulative();
        let (bound, _) = buckets.find(|(_, sum)| *sum >= rank)?;
        Some(bound.unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A duration is in the bucket whose bound it equals, and in the next if it is any longer.
    #[test]
    fn bounds_belong_to_their_bucket() {
        for (place, micros) in BOUNDS.into_iter().enumerate() {
            let bound = Duration::from_micros(micros);
            for (duration, expected) in
                [(bound, place), (bound + Duration::from_nanos(1), place + 1)]
            {
                let mut histogram = Histogram::default();
                histogram.record(duration);
                assert_eq!(histogram.counts[expected], 1, "{duration:?}");
            }
        }
    }

    #[test]
    fn sums_are_those_of_all() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(Duration::ZERO);
        other.record(Duration::from_secs(20));
        other.record(Duration::MAX);
        one.add(&other);
        assert_eq!(one.count(), 3);
        assert_eq!(one.sum(), Duration::MAX);
        let cumulative: Vec<_> = one.cumulative().map(|(_, sum)| sum).collect();
        assert_eq!(cumulative[..19], [1; 19]);
        assert_eq!(cumulative[19], 3);
    }

    #[test]
    fn quantiles_have_a_rank_of_at_least_one() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_millis(3));
        for of in [-1.0, 0.0, 0.5, 1.0, 7.0, f64::NAN] {
            assert_eq!(
                histogram.quantile(of),
                Some(Duration::from_millis(5)),
                "{of}"
            );
        }
    }
}
