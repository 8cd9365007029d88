//! The results as one page of HTML that needs nothing else: no network, no script.

use std::fmt::Write;

use crate::bench::chart::{Group, Row, Strip, bars, escape, strips};
use crate::bench::figure::{Figure, bytes, number, spread, time};
use crate::bench::results::{Measured, Outcome, Results};
use crate::bench::table::{groups, notes};

const STYLE: &str = include_str!("page.css");

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

pub(crate) fn page(results: &Results) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n");
    let title = title(results);
    let _ = write!(
        html,
        "<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"quiet\">{} &middot; {} cores &middot; {}</p>\n",
        escape(&results.machine.processor),
        results.machine.cores,
        escape(&results.date),
    );
    let families = results
        .results
        .chunk_by(|one, other| one.scenario.family() == other.scenario.family());
    families.for_each(|family| section(&mut html, family));
    html += &warnings(results);
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

/// All charts of one size, depth and pace.
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
                   The figure is p99, the scale logarithmic";
    figure(
        html,
        "Latency",
        caption,
        &strips("Latency", &strip_groups(family)),
    );
    let processor = bar_groups(family, |it| it.server_microseconds_per_message, time);
    if has_values(&processor) {
        let caption = format!("processor time of the server per {one}; less is better");
        figure(html, "CPU", &caption, &bars("CPU", &processor));
    }
    let memory = bar_groups(family, |it| it.server_bytes_per_connection, bytes);
    if has_values(&memory) {
        let caption =
            "resident memory of the server per connection that was used once; less is better";
        figure(html, "Memory", caption, &bars("Memory", &memory));
    }
    *html += "</div>\n<details>\n<summary>All figures</summary>\n<div class=\"wide\">\n";
    rows_by_scenario(family).for_each(|rows| table(html, rows));
    *html += "</div>\n</details>\n</section>\n";
}

fn rows_by_scenario(family: &[Outcome]) -> impl Iterator<Item = &[Outcome]> {
    family.chunk_by(|one, other| one.scenario == other.scenario)
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
    chart_groups(family, |measured| {
        let figure = value(measured).ok_or("not known")?;
        Ok((figure, show(figure.median)))
    })
}

fn strip_groups(family: &[Outcome]) -> Vec<Group<Strip>> {
    chart_groups(family, |measured| {
        let times = &measured.latency_microseconds;
        let strip = Strip {
            p50: times.p50.median,
            p90: times.p90.median,
            p99: times.p99.median,
            p999: times.p999.median,
            max: times.max,
        };
        Ok((strip, time(strip.p99)))
    })
}

fn chart_groups<T>(
    family: &[Outcome],
    value: impl Fn(&Measured) -> Result<(T, String), &'static str>,
) -> Vec<Group<T>> {
    let row = |outcome: &Outcome| {
        let shown = match &outcome.measured {
            Some(measured) => value(measured).map_err(str::to_owned),
            None => Err(outcome.skipped.clone().unwrap_or_default()),
        };
        let (value, text) = match shown {
            Ok((value, text)) => (Ok(value), text),
            Err(reason) => (Err(reason), String::new()),
        };
        Row {
            name: outcome.server.clone(),
            value,
            text,
        }
    };
    rows_by_scenario(family)
        .map(|outcomes| Group {
            title: connections(outcomes[0].connections),
            rows: outcomes.iter().map(row).collect(),
        })
        .collect()
}

fn has_values<T>(groups: &[Group<T>]) -> bool {
    groups
        .iter()
        .flat_map(|group| &group.rows)
        .any(|row| row.value.is_ok())
}

fn connections(count: usize) -> String {
    match count {
        1 => "1 connection".to_owned(),
        #[expect(clippy::cast_precision_loss, reason = "at most 20,000")]
        count => format!(
            "{} connections",
            number(count as f64).replace(".0", "").replace(".00", "")
        ),
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
            Some(measured) => cells(measured).into_iter().for_each(|cell| {
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

fn cells(measured: &Measured) -> [String; HEADINGS.len() - 1] {
    let times = &measured.latency_microseconds;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let median = |figure: Option<Figure>| figure.map(|figure| figure.median);
    [
        number(measured.per_second.median),
        spread(measured.per_second.spread()),
        time(times.p50.median),
        time(times.p90.median),
        time(times.p99.median),
        time(times.p999.median),
        time(times.max),
        or_dash(median(measured.server_microseconds_per_message).map(time)),
        or_dash(median(measured.server_bytes_per_connection).map(bytes)),
        or_dash(measured.system_calls_per_message.map(number)),
    ]
}

fn warnings(results: &Results) -> String {
    let notes = notes(results);
    if notes.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section>\n<h2>Read this first</h2>\n<ul>\n");
    for note in notes {
        let _ = writeln!(html, "<li>{}</li>", escape(&note));
    }
    html + "</ul>\n</section>\n"
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
            format!("{}, {} cores", escape(&machine.processor), machine.cores),
        ),
        ("Memory", memory),
        ("System", escape(&machine.system)),
        ("Servers on core", cores.join(", ")),
        ("Load on core", method.generator_core.to_string()),
        ("Rounds", method.rounds.to_string()),
        (
            "Each round",
            format!(
                "{} s, after {} s to warm up",
                method.duration_seconds, method.warm_up_seconds
            ),
        ),
    ];
    let mut html = String::from("<section>\n<h2>How it was measured</h2>\n<dl>\n");
    for (name, fact) in facts {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{fact}</dd>");
    }
    let scenario = groups(results).next().map(|group| group[0].load);
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
             was due, so that a stall is seen in every message that it delayed; those that never \
             came back are counted with the time that they had been missing."
        }
        "churn" => {
            "Each connection was made for one message and closed when that had come back. Times \
             count from the beginning of the connection to the last byte."
        }
        _ => {
            "Each connection sent its next message when one had come back. Times count from sending \
             to the last byte, as the load generator sees them: they contain its own queue."
        }
    };
    [
        pace,
        "Every server sends back what it gets; every byte was compared with what was sent. Servers \
         took turns, round by round, and who began changed with every round. Bars show the median of \
         all rounds, and the thin line on them reaches from the smallest round to the largest; \
         percentiles are medians of the rounds, the maximum is that of all.",
        "CPU is the processor time, user and system, of all processes of the server, divided by what \
         they answered meanwhile. Memory is what these processes grew by, shared pages counted once, \
         while connections were opened and used once, divided by their number; buffers of the \
         system's sockets are not in it, and with few connections it is no more than a few pages.",
        "All traffic stayed on one machine, by loopback: there was no network between, and what the \
         servers do beside echoing is nothing. The figures compare ways of serving; they do not \
         foretell a real service.",
        "Rounds differ by a few percent on a quiet machine, and by more on a virtual one, whose \
         neighbours nobody sees. A difference that is smaller than the spread, or than 5 %, means \
         nothing. Processor time per message and memory are steadier than throughput and the higher \
         percentiles.",
    ]
}
