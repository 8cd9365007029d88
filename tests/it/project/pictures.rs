//! The pictures of the documents, light and dark. Their figures are read from docs/BENCHMARKS.md, so that
//! neither can change without the other.
//!
//! `SERVELOOP_DRAW=1 cargo test --test it pictures` draws them again.

use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

/// The width of a drawing. It is scaled to the width that is available, on a phone to three quarters.
const WIDTH: f64 = 480.0;
/// Where bars begin, and the longest of them ends.
const LEFT: f64 = 136.0;
const RIGHT: f64 = 376.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
const TITLE: f64 = 34.0;

/// The colours for a light page, and for a dark one: of text, less important text, what is shown, what it
/// is compared with, and boxes.
const THEMES: [(&str, [&str; 5]); 2] = [
    (
        "light",
        ["#1f2328", "#59636e", "#0969da", "#9aa4ae", "#f3f6f9"],
    ),
    (
        "dark",
        ["#f0f6fc", "#9ba4ae", "#4c9bff", "#6e7781", "#1b222b"],
    ),
];

/// One value of a chart, with its bar's length relative to the longest.
struct Row {
    name: &'static str,
    value: f64,
    text: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/pictures")
}

fn style([text, quiet, shown, other, fill]: [&str; 5]) -> String {
    format!(
        "text{{font:15px system-ui,sans-serif;fill:{text}}}.title{{font-weight:600}}\
         .quiet{{fill:{quiet};font-size:13px}}.shown{{fill:{shown}}}.other{{fill:{other}}}\
         .strong{{font-weight:600}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}\
         .box{{fill:{fill};stroke:{other}}}.core{{fill:{fill};stroke:{shown};stroke-width:2}}\
         .line{{stroke:{quiet};stroke-width:1.5;fill:none}}"
    )
}

/// Returns the cells of the row of the first table that begins with `label`.
fn cells<'a>(page: &'a str, label: &str) -> Vec<&'a str> {
    let begin = format!("| {label}");
    let row = page.lines().find(|line| line.starts_with(&begin));
    let row = row.unwrap_or_else(|| panic!("docs/BENCHMARKS.md has no row {label:?}"));
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Returns the number that follows `word` in `text`.
fn number_after(text: &str, word: &str) -> f64 {
    let (_, rest) = text
        .split_once(word)
        .unwrap_or_else(|| panic!("no {word:?} in {text:?}"));
    let digits = rest
        .trim_start()
        .split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let digits = digits.into_iter().next().unwrap_or_default();
    digits.trim_end_matches('.').parse().unwrap()
}

/// Writes a number with a comma between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the throughput with a number of connections. The table has ours, and its ratio to the others'.
fn throughput(page: &str, connections: usize) -> Vec<Row> {
    let label = format!("messages/s, {connections} connections, to the best");
    let compared = cells(page, &label)[4];
    let ours = number_after(compared, "");
    let threads = format!("messages/s, {connections} connections, to a thread for each");
    let threads = ours / number_after(cells(page, &threads)[2], "");

    let others = [
        (
            "loop in C (epoll)",
            ours / number_after(compared, "to edge"),
        ),
        ("loop on mio", ours / number_after(compared, "to mio")),
        ("tokio", ours / number_after(compared, "to tokio")),
        ("thread for each", threads),
    ];
    let rows = [("serveloop", ours)].into_iter().chain(others);
    let row = |(name, value)| Row {
        name,
        value,
        text: grouped(value),
    };
    rows.map(row).collect()
}

fn memory(page: &str) -> Vec<Row> {
    let compared = cells(page, "resident bytes per idle connection")[4];
    let ours = number_after(page, "**Idle connections** cost");
    let rows = [
        ("serveloop", ours),
        ("loop on mio", number_after(compared, "mio")),
        ("tokio", number_after(compared, "tokio")),
        ("thread for each", number_after(compared, "threads")),
    ];
    let row = |(name, value)| Row {
        name,
        value,
        text: format!("{} B", grouped(value)),
    };
    rows.into_iter().map(row).collect()
}

fn chart(svg: &mut String, top: f64, title: &str, note: &str, rows: &[Row]) -> f64 {
    let most = rows.iter().map(|row| row.value).fold(0.0, f64::max);
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"0\" y=\"{:.0}\">{title}</text>\
         <text class=\"quiet end\" x=\"{WIDTH}\" y=\"{:.0}\">{note}</text>",
        top + 18.0,
        top + 18.0,
    );

    let mut middle = top + TITLE + ROW / 2.0;
    for (at, row) in rows.iter().enumerate() {
        let (class, weight) = match at {
            0 => ("shown", " class=\"strong\""),
            _ => ("other", ""),
        };
        let length = ((RIGHT - LEFT) * row.value / most).max(2.0);
        let _ = writeln!(
            svg,
            "<text{weight} x=\"0\" y=\"{base:.0}\">{}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <text{weight} x=\"{:.1}\" y=\"{base:.0}\">{}</text>",
            row.name,
            middle - BAR / 2.0,
            LEFT + length + 8.0,
            row.text,
            base = middle + 5.0,
        );
        middle += ROW;
    }
    middle - ROW / 2.0
}

/// Draws what a message and an idle connection cost, by the tables of docs/BENCHMARKS.md.
fn cost(page: &str, colours: [&str; 5]) -> String {
    let mut body = String::new();
    let title = "Messages per second";
    let end = chart(
        &mut body,
        0.0,
        title,
        "echo, 1,000 connections, one core",
        &throughput(page, 1_000),
    );
    let title = "Memory of an idle connection";
    let end = chart(&mut body, end + 14.0, title, "used once", &memory(page));

    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" \
         aria-label=\"serveloop compared with other ways of serving\">\n<style>{}</style>\n{body}</svg>\n",
        end + 6.0,
        style(colours)
    )
}

/// Puts the colours of a theme into a drawing that was made by hand.
fn coloured(drawing: &str, colours: [&str; 5]) -> String {
    let (head, rest) = drawing.split_once("<style>").unwrap();
    let (_, body) = rest.split_once("</style>").unwrap();
    format!("{head}<style>{}</style>{body}", style(colours))
}

#[test]
fn pictures_show_what_the_benchmarks_say() {
    let page = fs::read_to_string(folder().join("../BENCHMARKS.md")).unwrap();
    let architecture = fs::read_to_string(folder().join("architecture.svg")).unwrap();

    for (theme, colours) in THEMES {
        let drawings = [
            ("cost", cost(&page, colours)),
            ("architecture", coloured(&architecture, colours)),
        ];
        for (name, drawn) in drawings {
            let file = folder().join(format!("{name}-{theme}.svg"));
            if env::var_os("SERVELOOP_DRAW").is_some() {
                fs::write(&file, &drawn).unwrap();
            }
            let kept = fs::read_to_string(&file).unwrap_or_default();
            let file = file.display();
            assert!(
                kept == drawn,
                "{file} is outdated: SERVELOOP_DRAW=1 cargo test --test it pictures"
            );
        }
    }
}

#[test]
fn figures_are_read_from_the_tables() {
    let page = "| messages/s, 100 connections, to the best of the peers (edge) | at least 0.98 | 0.50 (0.4..0.6) \
                | met | 1200/s; to epoll 1.00, to edge 0.50, to mio 2.00, to tokio 4.00 |\n\
                | messages/s, 100 connections, to a thread for each | at least 1.6 | 8.00 (1..9) | met |  |\n";
    let rows = throughput(page, 100);
    let values: Vec<_> = rows.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(values, ["1,200", "2,400", "600", "300", "150"]);
}
