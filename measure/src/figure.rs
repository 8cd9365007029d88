//! A figure measured in several rounds: its median and its range, and how figures are printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A figure of several rounds. Displayed, it is the median with the range behind it, as ratios are
/// shown: `0.98 (0.95..1.02)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The value in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Figure {
    /// Returns the median, the smallest and the largest of `values`, or `None` if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);

        let upper = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[upper],
            _ => f64::midpoint(values[upper - 1], values[upper]),
        };

        Some(Self {
            median,
            least,
            most,
        })
    }

    /// Returns the figure of the quotients of each value and the base of the same round, or `None`
    /// if there are none.
    #[must_use]
    pub fn ratio(values: &[f64], bases: &[f64]) -> Option<Self> {
        let pairs = values.iter().zip(bases);
        Self::of(pairs.map(|(value, base)| value / base))
    }

    /// Returns the distance from the median to the round farthest from it, as a fraction of the
    /// median.
    #[must_use]
    pub fn spread(self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.most - self.median).max(self.median - self.least) / self.median
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            median,
            least,
            most,
        } = self;
        f.pad(&format!("{median:.2} ({least:.2}..{most:.2})"))
    }
}

/// Formats a number with three digits, or as a whole number in groups of three digits.
#[must_use]
pub fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => grouped(&format!("{value:.0}")),
    }
}

/// Formats a time given in microseconds.
#[must_use]
pub fn time(micros: f64) -> String {
    match micros {
        micros if micros < 999.5 => format!("{} us", number(micros)),
        micros if micros < 999_500.0 => format!("{} ms", number(micros / 1e3)),
        micros => format!("{} s", number(micros / 1e6)),
    }
}

/// Formats a number of bytes.
#[must_use]
pub fn bytes(value: f64) -> String {
    const KIB: f64 = 1_024.0;
    match value {
        value if value < KIB => format!("{value:.0} B"),
        value if value < KIB * KIB => format!("{} KiB", number(value / KIB)),
        value if value < KIB * KIB * KIB => format!("{} MiB", number(value / KIB / KIB)),
        value => format!("{} GiB", number(value / KIB / KIB / KIB)),
    }
}

/// Formats a number of bytes exactly, in the largest unit that gives a whole number.
#[must_use]
pub fn size(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = |(factor, _): &&(usize, &str)| bytes > 0 && bytes.is_multiple_of(*factor);
    match units.iter().find(whole) {
        Some((factor, name)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Formats a fraction as a spread, in percent.
#[must_use]
pub fn spread(part: f64) -> String {
    format!("±{:.0}%", part * 100.0)
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(Figure::of([]), None);
        let odd = Figure::of([3.0, 1.0, 10.0]).unwrap();
        assert_eq!((odd.median, odd.least, odd.most), (3.0, 1.0, 10.0));
        let even = Figure::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.median, even.least, even.most), (2.5, 1.0, 4.0));
    }

    #[test]
    fn the_spread_is_that_of_the_farthest_round() {
        let figure = Figure::of([90.0, 100.0, 105.0]).unwrap();
        assert!((figure.spread() - 0.1).abs() < 1e-9);
        assert_eq!(spread(figure.spread()), "±10%");
        assert_eq!(Figure::of([0.0, 0.0]).unwrap().spread(), 0.0);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = Figure::ratio(&[2.0, 3.0, 8.0], &[1.0, 2.0, 2.0]).unwrap();
        assert_eq!(ratio.to_string(), "2.00 (1.50..4.00)");
        assert_eq!(Figure::ratio(&[], &[1.0]), None);
    }

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in [
            (0, "0"),
            (1_500, "1500"),
            (65_536, "64KiB"),
            (3 << 20, "3MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn figures_have_three_digits_at_least() {
        for (value, text) in [
            (0.0, "0"),
            (0.126, "0.13"),
            (9.99, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (999.4, "999"),
            (1_000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }

        assert_eq!(time(12.34), "12.3 us");
        assert_eq!(time(1_250.0), "1.25 ms");
        assert_eq!(time(2_500_000.0), "2.50 s");
        assert_eq!(bytes(170.2), "170 B");
        assert_eq!(bytes(21_504.0), "21.0 KiB");
        assert_eq!(bytes(3.5 * 1_048_576.0), "3.50 MiB");
        assert_eq!(bytes(24.0 * 1_073_741_824.0), "24.0 GiB");
    }
}
