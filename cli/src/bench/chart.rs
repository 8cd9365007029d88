//! Charts as SVG, drawn for the width of a phone. Each server has a row, and rows are grouped by
//! the number of connections. The style of the page sets the colours.

use std::fmt::Write;

use serveloop_measure::Figure;
use serveloop_measure::figure::time;

/// The width of the drawing. All lengths are in its units, and it is scaled to the available width.
pub(super) const WIDTH: f64 = 360.0;
const LEFT: f64 = 98.0;
const RIGHT: f64 = 286.0;
const ROW: f64 = 20.0;
const TITLE: f64 = 24.0;
const BAR: f64 = 12.0;
/// The most letters of a server's name that fit to the left of its bar.
const NAME_MOST: usize = 14;
/// The number of colours.
pub(super) const COLOURS: usize = 6;

/// The rows for one number of connections.
pub(crate) struct Group<T> {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row<T>>,
}

/// The row of one server.
pub(crate) struct Row<T> {
    pub(crate) name: String,
    /// The value, or why there is none.
    pub(crate) value: Result<T, String>,
    /// The value as text.
    pub(crate) text: String,
}

/// The latencies of one server, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Draws a bar for each median, with a line from the smallest round to the largest.
pub(crate) fn bars(title: &str, groups: &[Group<Figure>]) -> String {
    let largest = values(groups).map(|figure| figure.most).fold(0.0, f64::max);
    let place = |value: f64| LEFT + (RIGHT - LEFT) * value / largest.max(f64::MIN_POSITIVE);

    draw(title, groups, 0.0, |svg, figure, y| {
        let (top, width) = (y - BAR / 2.0, (place(figure.median) - LEFT).max(1.0));
        let _ = write!(
            svg,
            r#"<rect class="mark" x="{LEFT}" y="{top:.1}" width="{width:.1}" height="{BAR}" rx="2"/>"#
        );
        if figure.most > figure.least {
            let (least, most) = (place(figure.least), place(figure.most));
            stroke(svg, "spread", (least, y), (most, y));
        }
    })
}

/// A logarithmic scale of whole decades, for times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The first and the last power of ten, and where they are drawn.
    powers: (f64, f64),
    places: (f64, f64),
}

impl Scale {
    /// Makes a scale for these times, from the place of the smallest to that of the largest.
    pub(super) fn of(times: impl Iterator<Item = f64>, begin: f64, end: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for time in times {
            (least, most) = (least.min(time), most.max(time));
        }

        let first = least.clamp(0.001, 1e12).log10().floor();
        let last = most.max(0.001).log10().ceil().max(first + 1.0);
        Self {
            powers: (first, last),
            places: (begin, end),
        }
    }

    pub(super) fn place(&self, micros: f64) -> f64 {
        let ((first, last), (begin, end)) = (self.powers, self.places);
        let part = (micros.max(0.001).log10() - first) / (last - first);
        begin + (end - begin) * part.clamp(0.0, 1.0)
    }

    /// Returns powers of ten, at most five, with their places.
    pub(super) fn labels(&self) -> Vec<(f64, String)> {
        let (first, last) = self.powers;
        let mut labels = Vec::new();
        let mut power = first;
        while power <= last {
            let round = time(10_f64.powf(power))
                .replace(".00", "")
                .replace(".0", "");
            labels.push((self.place(10_f64.powf(power)), round));
            power += ((last - first) / 4.0).ceil().max(1.0);
        }
        labels
    }
}

/// Draws a line from the median to the maximum for each row, on a logarithmic scale.
pub(crate) fn strips(title: &str, groups: &[Group<Strip>]) -> String {
    if values(groups).next().is_none() {
        return String::new();
    }

    let times = values(groups).flat_map(|strip| [strip.p50, strip.max]);
    let scale = Scale::of(times, LEFT, RIGHT);
    let place = |micros: f64| scale.place(micros);

    let bottom = height(groups);
    let mut svg = draw(title, groups, ROW, |svg, strip, y| {
        stroke(svg, "path", (place(strip.p50), y), (place(strip.max), y));
        for tick in [strip.p90, strip.p999] {
            stroke(svg, "path", (place(tick), y - 4.0), (place(tick), y + 4.0));
        }

        let (from, to) = (place(strip.p50), place(strip.max));
        let _ = write!(
            svg,
            r#"<circle class="mark" cx="{from:.1}" cy="{y}" r="4"/>"#
        );
        let _ = write!(
            svg,
            r#"<circle class="hollow" cx="{to:.1}" cy="{y}" r="3.5"/>"#
        );

        let (middle, size) = (place(strip.p99), 5.0);
        let _ = write!(
            svg,
            r#"<path class="mark" d="M{:.1} {y}L{middle:.1} {:.1}L{:.1} {y}L{middle:.1} {:.1}Z"/>"#,
            middle - size,
            y - size,
            middle + size,
            y + size
        );
    });

    svg.truncate(svg.len() - "</svg>".len());
    decades(&mut svg, &scale, bottom);
    svg + "</svg>"
}

fn values<T: Copy>(groups: &[Group<T>]) -> impl Iterator<Item = T> {
    let rows = groups.iter().flat_map(|group| &group.rows);
    rows.filter_map(|row| row.value.as_ref().ok().copied())
}

#[expect(clippy::cast_precision_loss, reason = "a page has few rows")]
fn height<T>(groups: &[Group<T>]) -> f64 {
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    rows as f64 * ROW + groups.len() as f64 * TITLE
}

/// Draws the frame of a chart: names on the left, values on the right, and what `mark` draws
/// between them at the height of the row. Leaves a space of `below` at the bottom.
fn draw<T: Copy>(
    title: &str,
    groups: &[Group<T>],
    below: f64,
    mark: impl Fn(&mut String, T, f64),
) -> String {
    let (title, height) = (escape(title), height(groups) + below);
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}"><title>{title}</title>"#
    );

    let mut y = 0.0;
    for group in groups {
        let _ = write!(
            svg,
            r#"<text class="group" x="0" y="{}">{}</text>"#,
            y + TITLE - 8.0,
            escape(&group.title)
        );
        y += TITLE;

        for (place, row) in group.rows.iter().enumerate() {
            let middle = y + ROW / 2.0;
            name(&mut svg, &row.name, middle);
            match &row.value {
                Ok(value) => {
                    let _ = write!(svg, r#"<g class="s{}">"#, place % COLOURS);
                    mark(&mut svg, *value, middle);
                    svg += "</g>";
                    text(&mut svg, "value", (WIDTH, middle), &row.text);
                }
                Err(reason) => text(&mut svg, "quiet", (LEFT, middle), reason),
            }
            y += ROW;
        }
    }
    svg + "</svg>"
}

/// Draws ticks at powers of ten, with labels below. Full lines behind the rows would cross the
/// reasons.
fn decades(svg: &mut String, scale: &Scale, bottom: f64) {
    stroke(svg, "axis", (LEFT, bottom + 2.0), (RIGHT, bottom + 2.0));
    for (x, label) in scale.labels() {
        stroke(svg, "axis", (x, bottom), (x, bottom + 5.0));
        text(svg, "quiet middle", (x, bottom + 12.0), &label);
    }
}

fn name(svg: &mut String, name: &str, y: f64) {
    let letters: Vec<char> = name.chars().collect();
    let shown = match letters.len() {
        0..=NAME_MOST => name.to_owned(),
        count => {
            letters[count - NAME_MOST + 1..]
                .iter()
                .fold("…".to_owned(), |mut end, letter| {
                    end.push(*letter);
                    end
                })
        }
    };

    text(svg, "name", (0.0, y), &shown);
}

/// Writes text vertically centred on `y`. Letters are drawn on their baseline, so they are moved
/// down by a third of their size.
pub(super) fn text(svg: &mut String, class: &str, (x, y): (f64, f64), text: &str) {
    let (y, text) = (y + 4.0, escape(text));
    let _ = write!(
        svg,
        r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#
    );
}

pub(super) fn stroke(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = write!(
        svg,
        r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    );
}

/// Escapes text for HTML and SVG, including quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, letter| {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            _ => escaped.push(letter),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group<T>(values: Vec<Result<T, String>>) -> [Group<T>; 1] {
        let row = |(place, value)| Row {
            name: format!("server-{place}"),
            value,
            text: "text".to_owned(),
        };
        [Group {
            title: "100 connections".to_owned(),
            rows: values.into_iter().enumerate().map(row).collect(),
        }]
    }

    fn figure(median: f64) -> Figure {
        Figure {
            median,
            least: median / 2.0,
            most: median,
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let values = vec![
            Ok(figure(100.0)),
            Ok(figure(50.0)),
            Err("cannot <do> it".to_owned()),
        ];
        let svg = bars("throughput", &group(values));
        assert!(svg.contains(r#"width="188.0""#), "{svg}");
        assert!(svg.contains(r#"width="94.0""#), "{svg}");
        assert!(svg.contains("cannot &lt;do&gt; it"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
        assert_eq!(svg.matches("<title>throughput</title>").count(), 1);
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        let svg = bars("zero", &group(vec![Ok(figure(0.0))]));
        assert!(
            svg.contains(r#"width="1.0""#) && !svg.contains("NaN"),
            "{svg}"
        );
        let none: [Group<Strip>; 1] = group(vec![Err("no".to_owned())]);
        assert_eq!(strips("none", &none), "");
    }

    #[test]
    fn times_lie_on_a_logarithmic_scale() {
        let strip = Strip {
            p50: 10.0,
            p90: 50.0,
            p99: 100.0,
            p999: 500.0,
            max: 1_000.0,
        };
        let svg = strips("latency", &group(vec![Ok(strip)]));
        // There are two decades between 98 and 286, so the 99th percentile is in the middle.
        assert!(svg.contains(r#"<circle class="mark" cx="98.0""#), "{svg}");

        assert!(svg.contains("L192.0 "), "{svg}");
        assert!(
            svg.contains(r#"<circle class="hollow" cx="286.0""#),
            "{svg}"
        );
        for text in ["10 us", "100 us", "1 ms"] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text}: {svg}");
        }
    }

    #[test]
    fn long_names_keep_their_end() {
        let mut svg = String::new();
        name(&mut svg, "tcp://127.0.0.1:9999", 0.0);
        assert!(
            svg.contains(">…127.0.0.1:9999<") || svg.contains(">…27.0.0.1:9999<"),
            "{svg}"
        );
    }
}
