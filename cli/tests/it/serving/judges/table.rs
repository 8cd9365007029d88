//! The rows of `table.md`.

use std::fs;

use rustix::process::Signal;

use crate::serving::judges::cases::{CASES, Case, Judge};
use crate::serving::judges::talk::Act;
use crate::serving::judges::{MODELS, closed, is_full};
use crate::support::served::Served;
use crate::support::sockets::socket_addr;

const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// What a program sees in a case, and what the server says of it.
struct Row {
    judge: String,
    /// One version, or both with a comma between them.
    versions: String,
    case: String,
    result: String,
    reason: String,
    counter: String,
}

impl Row {
    fn of(line: &str) -> Self {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        let cells: Vec<_> = cells.map(str::to_owned).collect();
        let Ok([judge, versions, case, result, reason, counter]) = <[String; 6]>::try_from(cells)
        else {
            panic!("no row: {line}");
        };
        Self {
            judge,
            versions,
            case,
            result,
            reason,
            counter,
        }
    }

    fn has(&self, version: &str) -> bool {
        self.versions.split(", ").any(|it| it == version)
    }

    /// Whether the program cannot do it. The result says why.
    fn is_left_out(&self) -> bool {
        self.counter == "-"
    }

    fn case(&self) -> &'static Case {
        let case = CASES.iter().find(|case| case.name == self.case);
        case.unwrap_or_else(|| panic!("no case {:?}", self.case))
    }
}

fn rows() -> Vec<Row> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/serving/judges/table.md"
    );
    let table = fs::read_to_string(path).expect("the table");
    let lines = table.lines().filter(|line| line.starts_with("| "));
    lines.skip(1).map(Row::of).collect()
}

/// Every program, version and case has one row.
#[test]
fn the_table_is_complete() {
    let rows = rows();
    for judge in Judge::ALL {
        for case in &CASES {
            for version in VERSIONS {
                let is_it = |row: &&Row| {
                    row.judge == judge.name() && row.case == case.name && row.has(version)
                };
                let count = rows.iter().filter(is_it).count();
                assert_eq!(count, 1, "{}, {}, {version}", judge.name(), case.name);
            }
        }
    }
    let versions: usize = VERSIONS
        .iter()
        .map(|version| rows.iter().filter(|row| row.has(version)).count())
        .sum();
    assert_eq!(versions, Judge::ALL.len() * CASES.len() * VERSIONS.len());
}

#[test]
fn openssl() {
    rows_are_true_of(Judge::Openssl);
}

#[test]
fn curl() {
    rows_are_true_of(Judge::Curl);
}

#[test]
fn python() {
    rows_are_true_of(Judge::Python);
}

#[test]
fn stunnel() {
    rows_are_true_of(Judge::Stunnel);
}

#[test]
fn haproxy() {
    rows_are_true_of(Judge::Haproxy);
}

#[test]
fn nginx() {
    rows_are_true_of(Judge::Nginx);
}

#[track_caller]
fn rows_are_true_of(judge: Judge) {
    if !judge.is_there() {
        return;
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    for row in rows() {
        if row.judge != judge.name() || row.is_left_out() {
            continue;
        }
        for version in VERSIONS.into_iter().filter(|version| row.has(version)) {
            for model in models(count) {
                for problem in run(judge, &row, version, model) {
                    wrong.push(format!("{version}, {}, {model:?}: {problem}", row.case));
                }
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The models in which the case of this number is tried.
fn models(number: usize) -> &'static [&'static [&'static str]] {
    if is_full() {
        return &MODELS;
    }
    // Not the same one for each case of a version.
    let at = (number + number / MODELS.len()) % MODELS.len();
    &MODELS[at..=at]
}

/// Tries a row. Returns what differs from it.
fn run(judge: Judge, row: &Row, version: &'static str, model: &[&str]) -> Vec<String> {
    println!("{} {version} {} {model:?}", row.judge, row.case);
    let case = row.case();
    let listen = ["-v", "--listen", &case.listener()];
    let served = Served::new(&[case.protocol, &listen, model].concat());
    let order = case.order(socket_addr(served.uri(0)), version);
    let (said, tunnel) = judge.act(&order);

    let log = Log::until_ended(&served, case.connections());
    // Only now, since it may still have had an end to pass on.
    let told = tunnel.map(|it| it.end()).unwrap_or_default();
    served.signal(Signal::TERM);
    let last = served.status_and_log().pop().expect("its counters");

    let mut wrong = Vec::new();
    let mut opened = log.opened.join(" ");
    if case.act == Act::Resume && !opened.ends_with(", resumed") {
        opened += ", not resumed";
    }
    let all = plainly(&format!("{said} {opened} {told}"));
    let mut parts = row.result.split(": ").map(plainly);
    if !all.starts_with(&parts.next().unwrap_or_default()) || !parts.all(|it| all.contains(&it)) {
        let last = told.lines().rev().take(6).collect::<Vec<_>>();
        wrong.push(format!("result: {said}; {opened}; {last:?}"));
    }
    if !log
        .opened
        .iter()
        .all(|it| it.starts_with(&format!("TLS {version}")))
    {
        wrong.push(format!("version: {opened}"));
    }
    if !log.ends.iter().all(|end| end.contains(&row.reason)) {
        wrong.push(format!("reason: {:?}", log.ends));
    }
    let counted = format!("{} {}", row.counter, case.connections());
    if closed(&last) != [counted] {
        wrong.push(format!("counter: {last}"));
    }
    wrong
}

/// Returns the text in the form in which programs of all versions say it.
fn plainly(text: &str) -> String {
    text.to_lowercase().replace(['_', '\n'], " ")
}

/// What the server logs of its connections, without their addresses.
#[derive(Default)]
struct Log {
    opened: Vec<String>,
    ends: Vec<String>,
}

impl Log {
    /// Waits until this many connections have ended.
    fn until_ended(served: &Served, connections: usize) -> Self {
        let mut log = Self::default();
        while log.ends.len() < connections {
            let line = served.logged("tcp://127.0.0.1:");
            let (_, rest) = line.split_once("tcp://").expect("an address");
            let (_, text) = rest.split_once(": ").expect("a text");
            match text {
                "accepted" => {}
                text if text.starts_with("TLS 1.") => log.opened.push(text.to_owned()),
                text => log.ends.push(text.to_owned()),
            }
        }
        log
    }
}
