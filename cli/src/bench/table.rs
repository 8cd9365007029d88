//! The results as a table on the terminal.

use std::fmt::Write;

use serveloop_measure::figure::{number, spread, time};
use serveloop_measure::line;

use crate::bench::results::{Handshakes, Measured, Outcome, Results};

use serveloop::protocols::counted;

const TITLES: [&str; 12] = [
    "", "", "spread", "ratio", "p50", "p90", "p99", "p99.9", "max", "CPU each", "per conn", "calls",
];
const WIDTHS: [usize; TITLES.len()] = [12, 13, 7, 6, 8, 8, 8, 8, 8, 9, 9, 6];

/// The fraction of the time that the generator may wait for its core before figures mean little.
const DISTURBED: f64 = 0.05;

/// Formats the results as a table, followed by the notes needed to read it.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::new();
    for group in groups(results) {
        let scenario = group[0].scenario;
        let _ = writeln!(text, "{scenario}");

        let mut titles = TITLES.map(str::to_owned);
        titles[1] = format!("{}/s", scenario.unit());
        let _ = writeln!(text, "{}", line(WIDTHS, titles));

        let base = group.iter().find_map(rate);
        for outcome in group {
            let _ = writeln!(text, "{}", row(outcome, base));
        }
        text.push('\n');
    }
    for note in notes(results) {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// Groups the outcomes by scenario.
pub(crate) fn groups(results: &Results) -> impl Iterator<Item = &[Outcome]> {
    results
        .results
        .chunk_by(|one, other| one.scenario == other.scenario)
}

/// Returns the notes that a reader needs to judge the figures, one sentence each.
pub(crate) fn notes(results: &Results) -> Vec<String> {
    let ended = results.ended.as_ref();
    let ended = ended.map(|why| format!("not everything was measured: {why}"));
    let mut notes: Vec<_> = ended.into_iter().collect();

    for outcome in &results.results {
        let Some(measured) = &outcome.measured else {
            continue;
        };
        let what = format!("{}, {}", outcome.server, outcome.scenario);
        if let Some(skipped) = &outcome.skipped {
            notes.push(format!("{what}: {skipped}"));
        }
        if measured.rate_was_kept == Some(false) {
            notes.push(format!("{what}: the rate was not kept"));
        }
        if let Some(handshakes) = measured.handshakes_per_second {
            notes.push(format!("{what}: {}", kinds(handshakes)));
        }
        if let Some(deliveries) = measured.deliveries {
            let lost = counted(deliveries.lost, "delivery", "deliveries");
            let late = deliveries.reordered;
            notes.push(format!("{what}: {lost} lost, {late} out of order"));
        }
        if measured.generator_was_the_limit {
            notes.push(format!("{what}: {}", limit(measured)));
        }
    }

    if results.method.system_calls_counted == Some(false) {
        notes.push("system calls: not counted, because strace cannot be run".to_owned());
    }
    notes.extend(disturbance(results));
    if results
        .method
        .server_cores
        .contains(&results.method.generator_core)
    {
        let note = "servers and generator shared one core, and took time from each other";
        notes.push(note.to_owned());
    }
    notes
}

/// Returns a note if other processes took the generator's core for too long.
fn disturbance(results: &Results) -> Option<String> {
    let measured = results.results.iter().filter_map(|it| it.measured.as_ref());
    let waited = measured.map(|measured| measured.generator_waited);
    let most = waited.fold(0.0, f64::max);
    let percent = most * 100.0;
    (most >= DISTURBED).then(|| {
        format!(
            "the machine was busy with other work: the generator waited up to {percent:.0} % of the \
             time for its core, so the figures mean little"
        )
    })
}

/// Describes how many TLS handshakes were full, and how many resumed a session.
fn kinds(handshakes: Handshakes) -> String {
    let [full, resumed] = [handshakes.full, handshakes.resumed].map(|it| number(it.median));
    format!("{full} full and {resumed} resumed TLS handshakes/s")
}

/// Describes how far the generator was the limit.
fn limit(measured: &Measured) -> String {
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let generator = percent(measured.generator_busy);
    match measured.server_busy {
        Some(server) => format!(
            "the generator was the limit (it used {generator} of its core, the server {} of its cores)",
            percent(server)
        ),
        None => format!("the generator may have been the limit (it used {generator} of its core)"),
    }
}

fn rate(outcome: &Outcome) -> Option<f64> {
    Some(outcome.measured.as_ref()?.per_second.median)
}

fn row(outcome: &Outcome, base: Option<f64>) -> String {
    let Some(measured) = &outcome.measured else {
        let reason = outcome.skipped.as_deref().unwrap_or("not measured");
        let (name, width) = (&outcome.server, WIDTHS[0]);
        return format!("{name:<width$} {:>13}  {reason}", "-");
    };

    let times = &measured.latency_microseconds;
    let rate = measured.per_second;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let processor = measured.server_microseconds_per_message;
    let cells = [
        outcome.server.clone(),
        number(rate.median),
        spread(rate.spread()),
        or_dash(base.map(|base| format!("{:.2}", rate.median / base))),
        time(times.p50.median),
        time(times.p90.median),
        time(times.p99.median),
        time(times.p999.median),
        time(times.max),
        or_dash(processor.map(|figure| time(figure.median))),
        or_dash(outcome.memory()),
        or_dash(measured.system_calls_per_message.map(number)),
    ];
    line(WIDTHS, cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serveloop_measure::{Pace, Rates, Sample};

    use crate::bench::contender::{Contender, Model};
    use crate::bench::results::tests::{results, sample, scenario};

    #[test]
    fn every_server_has_a_row_below_its_load() {
        let text = table(&results());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1 connection, 64 B");
        assert!(
            lines[1]
                .trim_start()
                .starts_with("messages/s  spread  ratio"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("event-loop         100,000     ±0%   1.00"),
            "{text}"
        );
        assert!(
            lines[3].starts_with("sequential          50,000     ±0%   0.50"),
            "{text}"
        );

        assert_eq!(lines[5], "100 connections, 64 B");
        assert_eq!(
            lines[8],
            "sequential               -  serves one connection at a time"
        );
        assert_eq!(lines.len(), 10, "{text}");
    }

    #[test]
    fn what_makes_figures_doubtful_is_said() {
        let mut results = results();
        assert_eq!(notes(&results), [""; 0]);

        let handshakes = Some(Rates {
            full: 12.0,
            resumed: 3_456.0,
        });
        let secured = Sample {
            handshakes,
            ..sample(3_468.0)
        };
        let load = scenario(Pace::Churn, 7);
        let contender = Contender::Model(Model::EventLoop);
        results.results = vec![Outcome::new(&contender, &load, &[secured])];
        let shown = notes(&results);
        let expected = "12.0 full and 3,456 resumed TLS handshakes/s";
        assert!(shown[0].ends_with(expected), "{shown:?}");

        let slow = Sample {
            generator_busy: 0.99,
            generator_waited: 0.25,
            server_busy: Some(0.5),
            ..sample(1e5)
        };
        let load = scenario(Pace::Open(200_000), 7);
        let contender = Contender::Model(Model::EventLoop);
        results.results = vec![Outcome::new(&contender, &load, &[slow])];
        results.method.server_cores = vec![1];
        results.method.system_calls_counted = Some(false);

        let notes = notes(&results);
        for (place, part) in [
            "the rate was not kept",
            "the generator was the limit (it used 99 % of its core, the server 50 % of its cores)",
            "servers and generator shared one core",
            "strace cannot be run",
            "the generator waited up to 25 % of the time",
        ]
        .iter()
        .enumerate()
        {
            let place = notes
                .iter()
                .position(|note| note.contains(part))
                .unwrap_or(place + 99);
            assert!(place < notes.len(), "{part}: {notes:?}");
        }
    }
}
