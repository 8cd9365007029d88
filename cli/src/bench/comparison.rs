//! Two results compared: what has become faster or slower, and by how much.

use std::collections::BTreeSet;
use std::fmt::Write;

use serveloop_measure::figure::number;
use serveloop_measure::{Figure, Scenario, line};

use crate::bench::results::{Measured, Outcome, Results};

use serveloop::protocols::counted;

pub(super) const TITLES: [&str; 8] = [
    "", "now/s", "then/s", "ratio", "p50", "p99", "CPU each", "per conn",
];
const WIDTHS: [usize; TITLES.len()] = [20, 11, 11, 7, 7, 7, 9, 9];

/// The smallest difference that is called one.
const LEAST: f64 = 0.05;

/// Results, and earlier ones of the same servers under the same loads.
pub(super) struct Comparison {
    /// Where the earlier ones are from.
    pub(super) name: String,
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
}

/// One server under one load. Ratios are now to then.
pub(super) struct Row {
    pub(super) scenario: Scenario,
    pub(super) server: String,
    now: Figure,
    then: Figure,
    p50: f64,
    p99: f64,
    processor: Option<f64>,
    memory: Option<f64>,
}

impl Comparison {
    /// Compares `now` with `then`, which is from a file of this name.
    ///
    /// # Errors
    /// Says what each has if no server was measured under the same load in both.
    pub(super) fn new(name: String, now: &Results, then: &Results) -> Result<Self, String> {
        let pairs = now.results.iter().filter_map(|outcome| {
            let earlier = then.results.iter().find(|it| is_same(it, outcome))?;
            Some((
                outcome,
                outcome.measured.as_ref()?,
                earlier.measured.as_ref()?,
            ))
        });
        let rows: Vec<_> = pairs
            .map(|(outcome, now, then)| Row::new(outcome, now, then))
            .collect();

        if rows.is_empty() && now.ended.is_none() {
            return Err(nothing_in_common(&name, &labels(now), &labels(then)));
        }
        let notes = notes(&name, now, then);
        Ok(Self { name, rows, notes })
    }

    /// Formats the comparison as tables, with what limits its meaning below.
    pub(super) fn table(&self) -> String {
        let mut text = format!("compared with {}; ratios are now to then\n\n", self.name);
        for rows in self.groups() {
            let _ = writeln!(text, "{}", rows[0].scenario);
            let titles = line(WIDTHS, TITLES.map(str::to_owned));
            let _ = writeln!(text, "{titles}");
            for row in rows {
                let cells = line(WIDTHS, row.cells());
                let _ = writeln!(text, "{cells}  {}", row.verdict());
            }
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// Returns the rows by their load.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[Row]> {
        self.rows
            .chunk_by(|one, other| one.scenario == other.scenario)
    }
}

impl Row {
    fn new(outcome: &Outcome, now: &Measured, then: &Measured) -> Self {
        let ratio = |now: Option<Figure>, then: Option<Figure>| {
            let (now, then) = (now?.median, then?.median);
            (then > 0.0).then_some(now / then)
        };
        let (times, earlier) = (&now.latency_microseconds, &then.latency_microseconds);
        Self {
            scenario: outcome.scenario,
            server: outcome.server.clone(),
            now: now.per_second,
            then: then.per_second,
            p50: times.p50.median / earlier.p50.median,
            p99: times.p99.median / earlier.p99.median,
            processor: ratio(
                now.server_microseconds_per_message,
                then.server_microseconds_per_message,
            ),
            // Below a page, the system does not tell one from the other.
            memory: ratio(outcome.known_memory(now), outcome.known_memory(then)),
        }
    }

    pub(super) fn cells(&self) -> [String; TITLES.len()] {
        let ratio = |value: f64| format!("{value:.2}");
        let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), ratio);
        [
            self.server.clone(),
            number(self.now.median),
            number(self.then.median),
            ratio(self.now.median / self.then.median),
            ratio(self.p50),
            ratio(self.p99),
            or_dash(self.processor),
            or_dash(self.memory),
        ]
    }

    /// Says whether the throughput differs by more than its rounds do.
    pub(super) fn verdict(&self) -> &'static str {
        let ratio = self.now.median / self.then.median;
        match ratio {
            ratio if ratio >= 1.0 + LEAST && self.now.least > self.then.most => "faster",
            ratio if ratio <= 1.0 - LEAST && self.now.most < self.then.least => "slower",
            _ => "no difference",
        }
    }
}

/// Checks that there will be something to compare, before anything is measured.
///
/// # Errors
/// The same as for [`Comparison::new`].
pub(super) fn check(name: &str, planned: &BTreeSet<String>, then: &Results) -> Result<(), String> {
    let earlier = labels(then);
    match planned.is_disjoint(&earlier) {
        true => Err(nothing_in_common(name, planned, &earlier)),
        false => Ok(()),
    }
}

/// Names a server and its load.
pub(super) fn label(server: &str, scenario: &Scenario) -> String {
    format!("{server}, {scenario}")
}

fn is_same(one: &Outcome, other: &Outcome) -> bool {
    one.server == other.server && one.scenario == other.scenario
}

/// Returns the servers that were measured, with their loads.
fn labels(results: &Results) -> BTreeSet<String> {
    let measured = results.results.iter().filter(|it| it.measured.is_some());
    measured.map(|it| label(&it.server, &it.scenario)).collect()
}

fn nothing_in_common(name: &str, now: &BTreeSet<String>, then: &BTreeSet<String>) -> String {
    let listed = |labels: &BTreeSet<String>| match labels.len() {
        0 => "nothing".to_owned(),
        1..=3 => labels.iter().cloned().collect::<Vec<_>>().join("; "),
        count => {
            let first: Vec<_> = labels.iter().take(2).cloned().collect();
            format!("{}; and {} more", first.join("; "), count - 2)
        }
    };
    format!(
        "{name} has no server under the same load, so nothing can be compared: it has {}, and this is {}",
        listed(then),
        listed(now)
    )
}

/// Returns what limits the meaning of a comparison, one sentence each.
fn notes(name: &str, now: &Results, then: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    let (machine, other) = (&now.machine, &then.machine);
    if machine != other {
        notes.push(format!(
            "the machines differ, and so may the figures for that reason alone: {machine}; then: {other}"
        ));
    }

    let method = |results: &Results| {
        let method = &results.method;
        let rounds = counted(method.rounds, "round", "rounds");
        format!("{rounds} of {} s", method.duration_seconds)
    };
    if method(now) != method(then) {
        notes.push(format!(
            "the method differs: {}; then: {}",
            method(now),
            method(then)
        ));
    }

    let (mine, theirs) = (labels(now), labels(then));
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>, place: &str| {
        let missing: Vec<_> = one.difference(other).cloned().collect();
        (!missing.is_empty()).then(|| format!("only {place}: {}", missing.join("; ")))
    };
    notes.extend(only(&mine, &theirs, "now"));
    notes.extend(only(&theirs, &mine, &format!("in {name}")));
    if then.ended.is_some() {
        notes.push(format!("{name} is of a benchmark that ended early"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::{Contender, Model};
    use crate::bench::results::tests::{results, sample, scenario};
    use serveloop_measure::Pace;

    fn of_rates(rates: &[f64]) -> Results {
        let samples: Vec<_> = rates.iter().map(|rate| sample(*rate)).collect();
        let load = scenario(Pace::Closed, 1);
        let mut results = results();
        results.results = vec![Outcome::new(
            &Contender::Model(Model::EventLoop),
            &load,
            &samples,
        )];
        results
    }

    #[test]
    fn only_a_difference_beyond_the_rounds_is_one() {
        for (now, then, verdict) in [
            (
                &[110.0, 120.0, 130.0][..],
                &[90.0, 100.0, 105.0][..],
                "faster",
            ),
            (&[60.0, 70.0, 80.0], &[90.0, 100.0, 105.0], "slower"),
            (
                &[100.0, 120.0, 130.0],
                &[90.0, 100.0, 105.0],
                "no difference",
            ),
            (&[103.0], &[100.0], "no difference"),
        ] {
            let (now, then) = (of_rates(now), of_rates(then));
            let comparison = Comparison::new("old.json".to_owned(), &now, &then).unwrap();
            assert_eq!(comparison.rows[0].verdict(), verdict);
        }
    }

    #[test]
    fn a_table_has_the_ratios_and_what_limits_them() {
        let (now, mut then) = (of_rates(&[200.0]), of_rates(&[100.0]));
        then.machine.cores = 4;
        then.method.rounds = 3;
        then.results.push(results().results[2].clone());
        let comparison = Comparison::new("old.json".to_owned(), &now, &then).unwrap();
        let table = comparison.table();
        assert!(table.starts_with("compared with old.json"), "{table}");
        assert!(table.contains("1 connection, 64 B\n"), "{table}");
        let row = table.lines().find(|line| line.starts_with("event-loop"));
        let words: Vec<_> = row.unwrap().split_whitespace().collect();
        let expected = [
            "event-loop",
            "200",
            "100",
            "2.00",
            "0.50",
            "0.50",
            "1.00",
            "-",
            "faster",
        ];
        assert_eq!(words, expected);
        for note in [
            "the machines differ",
            "the method differs: 1 round of 2 s; then: 3 rounds of 2 s",
            "only in old.json: event-loop, 100 connections, 64 B",
        ] {
            assert!(table.contains(note), "{note}: {table}");
        }
    }

    #[test]
    fn results_without_anything_in_common_are_refused() {
        let (now, mut then) = (of_rates(&[200.0]), of_rates(&[100.0]));
        then.results[0].server = "threaded".to_owned();
        let refused = Comparison::new("old.json".to_owned(), &now, &then);
        let problem = refused.err().unwrap();
        assert!(
            problem.contains("it has threaded, 1 connection, 64 B"),
            "{problem}"
        );

        let planned = BTreeSet::from(["threaded, 1 connection, 64 B".to_owned()]);
        assert_eq!(check("old.json", &planned, &then), Ok(()));
        assert!(check("old.json", &planned, &now).is_err());
    }
}
