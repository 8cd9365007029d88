//! What was measured, printed with the goals that it has to meet.

use serveloop_measure::{Figure, line};

const WIDTHS: [usize; 4] = [12, 16, 22, 14];

/// What a ratio has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    Stated,
}

/// One figure of each server, in the same unit. The first server is this library.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// Each with its values, one for each round, and what this library's ratio to it has to be.
    pub(crate) rows: Vec<(&'static str, Vec<f64>, Goal)>,
}

impl Comparison {
    /// Prints the figures, with the ratio of the first server to each of the others.
    pub(crate) fn print(&self) {
        println!("\n{}", self.title);
        let titles = ["", self.unit, "ratio of ours to it", "goal"];
        println!("{}", line(WIDTHS, titles));

        let Some((_, ours, _)) = self.rows.first() else {
            return;
        };
        for (place, (name, values, goal)) in self.rows.iter().enumerate() {
            let Some(figure) = Figure::of(values.iter().copied()) else {
                continue;
            };
            let ratio = Figure::ratio(ours, values).filter(|_| place > 0);
            let shown = ratio.map_or_else(String::new, |ratio| ratio.to_string());
            let judged = ratio.map_or_else(String::new, |ratio| goal.judge(ratio.median));
            let cells = [(*name).to_owned(), value(figure.median), shown, judged];
            println!("{}", line(WIDTHS, cells));
        }
    }
}

impl Goal {
    fn judge(self, ratio: f64) -> String {
        match self {
            Self::AtMost(most) if ratio <= most => format!("{most:.2} met"),
            Self::AtMost(most) => format!("{most:.2} missed"),
            Self::Stated => String::new(),
        }
    }
}

fn value(value: f64) -> String {
    if value < 1_000.0 {
        return format!("{value:.2}");
    }
    format!("{value:.0}")
}
