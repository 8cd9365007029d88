//! The results as one self-contained HTML page, without scripts or network access.

use std::fmt::Write;

use serveloop_measure::Figure;
use serveloop_measure::figure::{bytes, number, spread, time};

use crate::bench::chart::{Group, Row, Strip, bars, escape, strips};
use crate::bench::comparison::{Comparison, TITLES};
use crate::bench::results::{Measured, Outcome, Results};
use crate::bench::table::{groups, notes};
use crate::bench::timeline::lines;

use serveloop::protocols::counted;

const STYLE: &str = include_str!("page.css");

/// The most characters of a reason shown in a chart.
const REASON_MOST: usize = 60;

const HEADINGS: [&str; 11] = [
    "server",
    "per second",
    "spread",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "max",
    "CPU each",
    "memory per connection",
    "system calls each",
];

/// Makes the page of the results, with what they are compared with.
pub(super) fn page(results: &Results, comparison: Option<&Comparison>) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n");
    let title = title(results);
    let _ = write!(
        html,
        "<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"quiet\">{} &middot; {} &middot; {}</p>\n",
        escape(&results.machine.processor),
        counted(results.machine.cores, "core", "cores"),
        escape(&results.date),
    );

    html += &warnings(results);
    if let Some(comparison) = comparison {
        compared(&mut html, comparison);
    }
    let families = results
        .results
        .chunk_by(|one, other| one.scenario.family() == other.scenario.family());
    families.for_each(|family| section(&mut html, family));
    html += &method(results);
    html + "</main>\n</body>\n</html>\n"
}

fn title(results: &Results) -> String {
    let mut servers: Vec<_> = results.results.iter().map(|it| &it.server).collect();
    servers.sort();
    servers.dedup();
    match servers[..] {
        [server] => format!("Echo server {}, measured", escape(server)),
        _ => format!("{} echo servers, compared", servers.len()),
    }
}

/// Writes the tables of a comparison, and what limits its meaning.
fn compared(html: &mut String, comparison: &Comparison) {
    let _ = write!(
        html,
        "<section>\n<h2>Compared with {}</h2>\n<p class=\"quiet\">Ratios are now to then; for CPU, memory and \
         times, less is better.</p>\n<div class=\"wide\">\n",
        escape(&comparison.name)
    );

    for rows in comparison.groups() {
        let caption = escape(&rows[0].scenario.to_string());
        let _ = write!(html, "<table>\n<caption>{caption}</caption>\n<tr>");
        for title in TITLES.iter().chain(&[""]) {
            let _ = write!(html, "<th scope=\"col\">{title}</th>");
        }
        *html += "</tr>\n";

        for row in rows {
            *html += "<tr>";
            for cell in row.cells() {
                let _ = write!(html, "<td>{}</td>", escape(&cell));
            }
            let verdict = row.verdict();
            let _ = writeln!(
                html,
                "<td class=\"{}\">{verdict}</td></tr>",
                verdict.replace(' ', "-")
            );
        }
        *html += "</table>\n";
    }

    *html += "</div>\n";
    for note in &comparison.notes {
        let _ = writeln!(html, "<p class=\"quiet\">{}</p>", escape(note));
    }
    *html += "</section>\n";
}

/// Writes the charts and tables of all scenarios with the same size, depth and pace.
fn section(html: &mut String, family: &[Outcome]) {
    let scenario = family[0].scenario;
    let (unit, name) = (scenario.unit(), escape(&scenario.family()));
    let one = unit.trim_end_matches('s');
    let _ = write!(
        html,
        "<section>\n<h2>Messages of {name}</h2>\n<div class=\"charts\">\n"
    );

    let rate = bar_groups(family, |measured| Some(measured.per_second), number);
    let caption = format!("{unit} per second; more is better");
    figure(html, "Throughput", &caption, &bars("Throughput", &rate));

    let caption = "&#9679; p50, | p90, &#9670; p99, | p99.9, &#9675; maximum; less is better. \
                   The number is p99; the scale is logarithmic";
    figure(
        html,
        "Latency",
        caption,
        &strips("Latency", &strip_groups(family)),
    );

    let svg = lines("Latency over time", &connection_groups(family));
    if !svg.is_empty() {
        let caption = "p99 of each twentieth of a round; the rounds follow each other. Less is better, and a \
                       gap means that nothing came back";
        figure(html, "Latency over time", caption, &svg);
    }

    let processor = bar_groups(family, |it| it.server_microseconds_per_message, time);
    if !processor.is_empty() {
        let caption = format!("the server's processor time per {one}; less is better");
        figure(html, "CPU", &caption, &bars("CPU", &processor));
    }

    let memory = chart_groups(family, |outcome, measured| {
        Some((measured.server_bytes_per_connection?, outcome.memory()?))
    });
    if !memory.is_empty() {
        let caption =
            "the server's resident memory per connection that was used once; less is better";
        figure(html, "Memory", caption, &bars("Memory", &memory));
    }

    *html += "</div>\n<details>\n<summary>All figures</summary>\n<div class=\"wide\">\n";
    rows_by_scenario(family).for_each(|rows| table(html, rows));
    *html += "</div>\n</details>\n</section>\n";
}

fn rows_by_scenario(family: &[Outcome]) -> impl Iterator<Item = &[Outcome]> {
    family.chunk_by(|one, other| one.scenario == other.scenario)
}

/// Returns the outcomes by their number of connections.
fn connection_groups(family: &[Outcome]) -> Vec<(String, &[Outcome])> {
    let groups = rows_by_scenario(family);
    groups
        .map(|rows| (connections(rows[0].connections), rows))
        .collect()
}

fn figure(html: &mut String, title: &str, caption: &str, svg: &str) {
    let _ = writeln!(
        html,
        "<figure>\n<figcaption><h3>{title}</h3><p>{caption}</p></figcaption>\n{svg}\n</figure>"
    );
}

fn bar_groups(
    family: &[Outcome],
    value: impl Fn(&Measured) -> Option<Figure>,
    show: impl Fn(f64) -> String,
) -> Vec<Group<Figure>> {
    chart_groups(family, |_, measured| {
        let figure = value(measured)?;
        Some((figure, show(figure.median)))
    })
}

fn strip_groups(family: &[Outcome]) -> Vec<Group<Strip>> {
    chart_groups(family, |_, measured| {
        let times = &measured.latency_microseconds;
        let strip = Strip {
            p50: times.p50.median,
            p90: times.p90.median,
            p99: times.p99.median,
            p999: times.p999.median,
            max: times.max,
        };
        Some((strip, time(strip.p99)))
    })
}

/// Makes one group per number of connections. Leaves out those without any value.
fn chart_groups<T>(
    family: &[Outcome],
    value: impl Fn(&Outcome, &Measured) -> Option<(T, String)>,
) -> Vec<Group<T>> {
    let row = |outcome: &Outcome| {
        let shown = outcome
            .measured
            .as_ref()
            .and_then(|measured| value(outcome, measured));

        let reason = || {
            let skipped = outcome.skipped.as_deref();
            shortened(skipped.unwrap_or("not known"))
        };

        let (value, text) = shown.unzip();
        Row {
            name: outcome.server.clone(),
            value: value.ok_or_else(reason),
            text: text.unwrap_or_default(),
        }
    };

    rows_by_scenario(family)
        .map(|outcomes| Group {
            title: connections(outcomes[0].connections),
            rows: outcomes.iter().map(row).collect(),
        })
        .filter(|group: &Group<T>| group.rows.iter().any(|row| row.value.is_ok()))
        .collect()
}

/// Shortens a reason to what fits into a chart. The tables show all of it.
fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON_MOST) {
        Some((end, _)) => format!("{}...", &reason[..end]),
        None => reason.to_owned(),
    }
}

fn connections(count: usize) -> String {
    match count {
        1 => "1 connection".to_owned(),
        #[expect(clippy::cast_precision_loss, reason = "at most 20,000")]
        count => number(count as f64).replace(".0", "").replace(".00", "") + " connections",
    }
}

fn table(html: &mut String, outcomes: &[Outcome]) {
    let title = connections(outcomes[0].connections);
    let _ = write!(html, "<table>\n<caption>{title}</caption>\n<tr>");
    for heading in HEADINGS {
        let _ = write!(html, "<th scope=\"col\">{heading}</th>");
    }
    *html += "</tr>\n";

    for outcome in outcomes {
        let _ = write!(html, "<tr><td>{}</td>", escape(&outcome.server));
        match &outcome.measured {
            Some(measured) => cells(outcome, measured).into_iter().for_each(|cell| {
                let _ = write!(html, "<td>{cell}</td>");
            }),
            None => {
                let reason = escape(outcome.skipped.as_deref().unwrap_or_default());
                let span = HEADINGS.len() - 1;
                let _ = write!(
                    html,
                    "<td class=\"reason\" colspan=\"{span}\">{reason}</td>"
                );
            }
        }
        *html += "</tr>\n";
    }
    *html += "</table>\n";
}

fn cells(outcome: &Outcome, measured: &Measured) -> [String; HEADINGS.len() - 1] {
    let times = &measured.latency_microseconds;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let processor = measured.server_microseconds_per_message;

    [
        number(measured.per_second.median),
        spread(measured.per_second.spread()),
        time(times.p50.median),
        time(times.p90.median),
        time(times.p99.median),
        time(times.p999.median),
        time(times.max),
        or_dash(processor.map(|figure| time(figure.median))),
        or_dash(outcome.memory()),
        or_dash(measured.system_calls_per_message.map(number)),
    ]
}

fn warnings(results: &Results) -> String {
    let notes = notes(results);
    if notes.is_empty() {
        return String::new();
    }
    let mut html = String::from("<aside>\n<ul>\n");
    for note in notes {
        let _ = writeln!(html, "<li>{}</li>", escape(&note));
    }
    html + "</ul>\n</aside>\n"
}

fn method(results: &Results) -> String {
    let (machine, method) = (&results.machine, &results.method);
    #[expect(clippy::cast_precision_loss, reason = "memory is below 2^52 bytes")]
    let memory = machine
        .memory_bytes
        .map_or("unknown".to_owned(), |it| bytes(it as f64));

    let cores: Vec<_> = method.server_cores.iter().map(usize::to_string).collect();
    let facts = [
        (
            "Command",
            format!("<code>{}</code>", escape(&results.command)),
        ),
        ("Date", escape(&results.date)),
        (
            "Processor",
            format!(
                "{}, {}",
                escape(&machine.processor),
                counted(machine.cores, "core", "cores")
            ),
        ),
        ("Memory", memory),
        ("System", escape(&machine.system)),
        ("Servers on core", cores.join(", ")),
        ("Load on core", method.generator_core.to_string()),
        ("Rounds", method.rounds.to_string()),
        (
            "Each round",
            format!(
                "{} s, after a warm-up of {} s",
                method.duration_seconds, method.warm_up_seconds
            ),
        ),
    ];

    let mut html = String::from("<section>\n<h2>How it was measured</h2>\n<dl>\n");
    for (name, fact) in facts {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{fact}</dd>");
    }

    let scenario = groups(results).next().map(|group| &*group[0].load);
    html += "</dl>\n";
    for paragraph in paragraphs(scenario.unwrap_or_default()) {
        let _ = writeln!(html, "<p>{paragraph}</p>");
    }
    html + "</section>\n"
}

fn paragraphs(load: &str) -> [&'static str; 5] {
    let pace = match load {
        "open" => {
            "Messages were sent at a steady rate. Times count from the moment at which a message \
             was due, so that a stall shows in every message that it delayed. Messages that never \
             came back count with the time for which they had been missing."
        }
        "churn" => {
            "Each connection was opened for one message, and closed after its reply. Times count \
             from the beginning of the connection to the last byte."
        }
        _ => {
            "Each connection sent its next message when the previous one had come back. Times count \
             from sending to the last byte, as the load generator sees them: they include its own \
             queue."
        }
    };
    [
        pace,
        "Every server sends back what it receives, and every byte was compared with what was sent. \
         Servers took turns, round by round, and a different one began each round. Bars show the \
         median of all rounds, and the thin line on a bar reaches from the smallest round to the \
         largest. Percentiles are medians of the rounds; the maximum is that of all rounds.",
        "CPU is the processor time, user and system, of all processes of the server, divided by the \
         number of messages that they answered. Memory is the growth of these processes while \
         connections were opened and used once, divided by their number, with shared pages counted \
         once and without those of files. It does not include the system's socket buffers, and with few \
         connections it is only a few pages.",
        "All traffic stayed on one machine, over loopback: there was no network, and the servers did \
         nothing except echo. The figures compare models of serving; they do not predict the speed of \
         a real service.",
        "Rounds differ by a few percent on a quiet machine, and by more on a virtual machine, which \
         shares its hardware with others. A difference smaller than the spread, or than 5 %, means \
         nothing. Processor time per message and memory are steadier than throughput and the higher \
         percentiles.",
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    /// Elements without an end tag.
    const EMPTY: [&str; 5] = ["meta", "rect", "circle", "line", "path"];

    /// Checks that the elements are properly nested and closed. Returns how often each occurs.
    fn elements(html: &str) -> Vec<(String, usize)> {
        let (mut open, mut counts) = (Vec::new(), Vec::<(String, usize)>::new());
        for tag in html.split('<').skip(2) {
            let (tag, _) = tag.split_once('>').expect("the end of a tag");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
                continue;
            }
            let name = tag.split([' ', '/']).next().expect("a name");
            match counts.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name.to_owned(), 1)),
            }
            if !EMPTY.contains(&name) {
                open.push(name);
            }
        }

        assert_eq!(open, [""; 0]);
        counts
    }

    #[test]
    fn the_page_has_a_chart_for_each_figure_and_all_figures_in_tables() {
        let html = page(&results(), None);
        let counts = elements(&html);
        let count = |name: &str| {
            let found = counts.iter().find(|(known, _)| known == name);
            found.map_or(0, |(_, count)| *count)
        };

        assert_eq!(count("svg"), 5);
        assert_eq!(count("table"), 2);
        // Three bars each for throughput and CPU, and one for memory; a colour for each line over time.
        assert_eq!(count("rect"), 3 + 3 + 1 + 3);
        assert_eq!(count("circle"), 2 * 3);

        assert!(html.contains("<dd>Some Processor, 2 cores</dd>"));
        assert!(html.contains("Linux 6.1 x86_64"));
        assert!(html.contains("2026-01-02T03:04:05Z"));
        assert!(html.contains("serves one connection at a time"));
        assert!(html.contains("prefers-color-scheme: dark"));
        assert!(html.contains("width=device-width"));
    }

    #[test]
    fn a_comparison_is_a_table_of_its_own() {
        let (now, then) = (results(), results());
        let name = "<old>.json".to_owned();
        let comparison = Comparison::new(name, &now, &then).unwrap();
        let html = page(&now, Some(&comparison));
        let counts = elements(&html);
        let tables = counts.iter().find(|(name, _)| name == "table");
        assert_eq!(tables.map(|(_, count)| *count), Some(2 + 2));
        assert!(html.contains("Compared with &lt;old&gt;.json"), "{html}");
        assert!(html.contains(">no difference<"), "{html}");
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let html = page(&results(), None);
        for part in [
            "http:", "https:", "<script", "<link", "<img", "src=", "url(", "@import",
        ] {
            assert!(!html.contains(part), "{part}");
        }
    }

    #[test]
    fn nothing_that_was_typed_becomes_markup() {
        let html = page(&results(), None);
        assert!(html.contains("--json &#39;&lt;file&gt;&#39;"));
        assert!(!html.contains("<file>"));
    }
}
