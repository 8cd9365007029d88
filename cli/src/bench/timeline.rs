//! Latency over time, as SVG: a line for each server, on which a stall is a peak or a gap.

use std::fmt::Write;

use serveloop_measure::figure::time;

use crate::bench::chart::{COLOURS, Scale, WIDTH, escape, stroke, text};
use crate::bench::results::{Outcome, Slice};

const TITLE: f64 = 30.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 6.0;
/// The height of the lines, and of what is below them: the seconds, and the names of the servers.
const HEIGHT: f64 = 110.0;
const BELOW: f64 = 20.0;
const NAME: f64 = 18.0;
/// How many names are side by side.
const COLUMNS: usize = 2;

/// Draws the 99th percentile over time for each number of connections. The rounds follow each other.
/// Returns nothing if nothing is known, as with results of earlier versions.
pub(super) fn lines(title: &str, groups: &[(String, &[Outcome])]) -> String {
    let known: Vec<_> = groups.iter().filter(|(_, group)| has_line(group)).collect();
    if known.is_empty() {
        return String::new();
    }

    let heights: Vec<_> = known.iter().map(|(_, group)| height(group)).collect();
    let (title, sum) = (escape(title), heights.iter().sum::<f64>());
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {sum}" role="img" aria-label="{title}"><title>{title}</title>"#
    );

    let mut top = 0.0;
    for ((name, group), height) in known.iter().zip(heights) {
        draw(&mut svg, name, group, top);
        top += height;
    }
    svg + "</svg>"
}

fn slices(outcome: &Outcome) -> &[Slice] {
    let measured = outcome.measured.as_ref();
    measured.map_or(&[], |measured| &measured.timeline)
}

fn p99(outcome: &Outcome) -> impl Iterator<Item = f64> {
    slices(outcome).iter().filter_map(|slice| slice.moment.p99)
}

fn has_line(group: &[Outcome]) -> bool {
    group.iter().any(|outcome| p99(outcome).next().is_some())
}

#[expect(clippy::cast_precision_loss, reason = "a page has few servers")]
fn height(group: &[Outcome]) -> f64 {
    let names = group.iter().filter(|it| p99(it).next().is_some()).count();
    TITLE + HEIGHT + BELOW + names.div_ceil(COLUMNS) as f64 * NAME + NAME / 2.0
}

/// Draws one chart, whose top is at this height: the lines, their scales, and whose they are.
fn draw(svg: &mut String, name: &str, group: &[Outcome], top: f64) {
    let _ = write!(
        svg,
        r#"<text class="group" x="0" y="{:.1}">{}</text>"#,
        top + TITLE - 14.0,
        escape(name)
    );

    let (first, last) = (top + TITLE, top + TITLE + HEIGHT);
    let all = group.iter().flat_map(p99);
    let scale = Scale::of(all, last, first);
    for (place, label) in scale.labels() {
        stroke(svg, "axis", (LEFT, place), (RIGHT, place));
        let (class, at) = ("quiet value", (LEFT - 6.0, place));
        text(svg, class, at, &label);
    }

    let seconds = group.iter().map(length).fold(0.0, f64::max);
    for (part, class) in [(0.0, "quiet"), (1.0, "quiet value")] {
        let at = (LEFT + (RIGHT - LEFT) * part, last + 12.0);
        text(
            svg,
            class,
            at,
            &time(seconds * part * 1e6).replace("0 us", "0 s"),
        );
    }

    let mut shown = 0;
    for (place, outcome) in group.iter().enumerate() {
        if p99(outcome).next().is_none() {
            continue;
        }
        let _ = write!(svg, r#"<g class="s{}">"#, place % COLOURS);
        let path = path(slices(outcome), seconds, &scale);
        let _ = write!(svg, r#"<path class="line" d="{path}"/>"#);
        key(svg, &outcome.server, shown, last + BELOW);
        *svg += "</g>";
        shown += 1;
    }
}

/// Writes whose line has this colour, below the chart.
#[expect(clippy::cast_precision_loss, reason = "a page has few servers")]
fn key(svg: &mut String, server: &str, number: usize, top: f64) {
    let x = LEFT + (RIGHT - LEFT) / COLUMNS as f64 * (number % COLUMNS) as f64;
    let y = top + NAME * (0.5 + (number / COLUMNS) as f64);
    let _ = write!(
        svg,
        r#"<rect class="mark" x="{x:.1}" y="{:.1}" width="12" height="4" rx="2"/>"#,
        y - 2.0
    );
    text(svg, "name", (x + 18.0, y), server);
}

/// Returns how long all rounds of a server took together, in seconds.
fn length(outcome: &Outcome) -> f64 {
    let slices = slices(outcome).iter();
    let ends = slices.zip(slices_after(outcome));
    let rounds = ends.filter(|(slice, next)| next.is_none_or(|next| next.round != slice.round));
    rounds.map(|(slice, _)| slice.moment.seconds).sum()
}

/// Returns the slice after each slice.
fn slices_after(outcome: &Outcome) -> impl Iterator<Item = Option<&Slice>> {
    let after = slices(outcome).iter().skip(1).map(Some);
    after.chain([None])
}

/// Returns the line through all slices. It is broken where nothing came back.
fn path(slices: &[Slice], seconds: f64, scale: &Scale) -> String {
    let (mut path, mut before, mut round, mut last) = (String::new(), 0.0, 1, 0.0);
    let mut is_open = false;
    for slice in slices {
        if slice.round != round {
            (round, before, last) = (slice.round, before + last, 0.0);
        }

        let middle = before + f64::midpoint(last, slice.moment.seconds);
        last = slice.moment.seconds;
        let x = LEFT + (RIGHT - LEFT) * middle / seconds.max(f64::MIN_POSITIVE);
        let Some(p99) = slice.moment.p99 else {
            is_open = false;
            continue;
        };
        // A slice between two gaps is a dot, which `h0` draws.
        let (step, dot) = if is_open { ("L", "") } else { ("M", "h0") };
        let _ = write!(path, "{step}{x:.1} {:.1}{dot}", scale.place(p99));
        is_open = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;
    use serveloop_measure::Moment;

    fn slice(round: usize, seconds: f64, p99: Option<f64>) -> Slice {
        let moment = Moment {
            seconds,
            p99,
            ..Moment::default()
        };
        Slice { round, moment }
    }

    #[test]
    fn a_line_goes_through_all_rounds_and_breaks_where_nothing_came_back() {
        let slices = [
            slice(1, 1.0, Some(10.0)),
            slice(1, 2.0, None),
            slice(2, 1.0, Some(1_000.0)),
            slice(2, 2.0, Some(100.0)),
        ];
        let scale = Scale::of([10.0, 1_000.0].into_iter(), 100.0, 0.0);
        let at = |part: f64| LEFT + (RIGHT - LEFT) * part;
        let expected = format!(
            "M{:.1} 100.0h0M{:.1} 0.0h0L{:.1} 50.0",
            at(0.125),
            at(0.625),
            at(0.875)
        );
        assert_eq!(path(&slices, 4.0, &scale), expected);
    }

    #[test]
    fn each_server_has_a_line_and_a_name() {
        let results = results();
        let groups = [
            ("1 connection".to_owned(), &results.results[..2]),
            ("100 connections".to_owned(), &results.results[2..]),
        ];
        let svg = lines("over time", &groups);
        assert_eq!(svg.matches(r#"class="line""#).count(), 3, "{svg}");
        assert_eq!(svg.matches(">event-loop<").count(), 2, "{svg}");
        assert!(
            svg.contains(">1 connection<") && !svg.contains("NaN"),
            "{svg}"
        );
        assert!(svg.contains(">2.00 s<"), "{svg}");
    }

    #[test]
    fn results_of_earlier_versions_have_no_lines() {
        let mut results = results();
        for outcome in &mut results.results {
            if let Some(measured) = &mut outcome.measured {
                measured.timeline.clear();
            }
        }
        assert_eq!(lines("none", &[(String::new(), &results.results)]), "");
    }
}
