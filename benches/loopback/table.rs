//! Medians, spreads, and how they are printed.

use std::fmt;

/// What one measurement of one server gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Messages or connections per second.
    pub(crate) rate: f64,
    /// Microseconds of the server's processor time for each of them.
    pub(crate) cpu: f64,
    /// The part of that time spent in user space, from 0 to 1.
    pub(crate) user_share: f64,
}

/// The samples of one server, one per round.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// Of a server that was not measured yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            samples: Vec::new(),
        }
    }

    pub(crate) fn of(&self, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(value).collect()
    }
}

/// A median of quotients, with the smallest and the largest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    /// Each value to its neighbour in the same round.
    pub(crate) fn new(values: &[f64], bases: &[f64]) -> Self {
        let pairs = values.iter().zip(bases);
        let ratios: Vec<f64> = pairs.map(|(value, base)| value / base).collect();
        Self {
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            most: ratios.iter().copied().fold(0.0, f64::max),
            median: median(ratios),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            median,
            least,
            most,
        } = self;
        f.pad(&format!("{median:.2} ({least:.2}..{most:.2})"))
    }
}

/// Prints the rows, each compared round by round with the first. `unit` is what is counted.
pub(crate) fn print(title: &str, unit: &str, rows: &[Row]) {
    let Some(base) = rows.first() else {
        return;
    };
    println!("\n{title}");
    println!(
        "{:<10} {:>11} {:>22} {:>10} {:>22} {:>7} {:>7}",
        "",
        format!("{unit}/s"),
        "ratio (min..max)",
        "CPU us",
        "ratio (min..max)",
        "user",
        "system",
    );
    for row in rows {
        let cpu = median(row.of(|sample| sample.cpu));
        // The kernel's ticks are too few in one round for a median.
        let user = cpu * mean(&row.of(|sample| sample.user_share));
        println!(
            "{:<10} {:>11.0} {:>22} {:>10.2} {:>22} {:>7.2} {:>7.2}",
            row.name,
            median(row.of(|sample| sample.rate)),
            ratio(row, base, |sample| sample.rate),
            cpu,
            ratio(row, base, |sample| sample.cpu),
            user,
            cpu - user,
        );
    }
}

fn ratio(row: &Row, base: &Row, value: impl Fn(&Sample) -> f64) -> String {
    if row.name == base.name {
        return "1.00".to_owned();
    }
    Ratio::new(&row.of(&value), &base.of(&value)).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "there are few rounds")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The value that this part of all values, from 0 to 1, does not exceed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a vector that fits into memory"
)]
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * part).ceil() as usize;
    let value = values.get(place.saturating_sub(1));
    value.copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[upper],
        _ => f64::midpoint(values[upper - 1], values[upper]),
    }
}
