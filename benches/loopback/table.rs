//! The samples of several rounds, and how they are printed.

use serveloop_measure::{Figure, Sample, line};

const WIDTHS: [usize; 8] = [10, 15, 22, 10, 22, 7, 7, 9];

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

    /// Messages or connections per second.
    pub(crate) fn rates(&self) -> Vec<f64> {
        self.of(|sample| sample.rate)
    }

    /// Microseconds of the server's processor time for each of them.
    pub(crate) fn times(&self) -> Vec<f64> {
        self.of(|sample| sample.processor.unwrap_or(f64::NAN))
    }
}

/// The figure of what was measured in one round at least.
pub(crate) fn figure(values: Vec<f64>) -> Figure {
    Figure::of(values).expect("at least one round")
}

/// Each value to its neighbour in the same round.
pub(crate) fn ratio(values: &[f64], bases: &[f64]) -> Figure {
    Figure::ratio(values, bases).expect("at least one round")
}

/// Prints the rows, each compared round by round with the first. `unit` is what is counted.
pub(crate) fn print(title: &str, unit: &str, rows: &[Row]) {
    let Some(base) = rows.first() else {
        return;
    };
    println!("\n{title}");
    let (rate, range) = (format!("{unit}/s"), "ratio (min..max)");
    let titles = [
        "",
        &rate,
        range,
        "CPU us",
        range,
        "user",
        "system",
        "generator",
    ];
    println!("{}", line(WIDTHS, titles));

    for row in rows {
        let time = figure(row.times()).median;
        // The kernel's ticks are too few in one round for a median.
        let user = time * mean(&row.of(|sample| sample.user_share.unwrap_or(f64::NAN)));
        let relative = |values: fn(&Row) -> Vec<f64>| match row.name == base.name {
            true => "1.00".to_owned(),
            false => ratio(&values(row), &values(base)).to_string(),
        };

        let cells = [
            row.name.to_owned(),
            format!("{:.0}", figure(row.rates()).median),
            relative(Row::rates),
            format!("{time:.2}"),
            relative(Row::times),
            format!("{user:.2}"),
            format!("{:.2}", time - user),
            format!("{:.2}", figure(row.of(own_time)).median),
        ];
        println!("{}", line(WIDTHS, cells));
    }
}

/// Microseconds of the generator's processor time for each message.
fn own_time(sample: &Sample) -> f64 {
    sample.generator_busy / sample.rate * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "there are few rounds")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
