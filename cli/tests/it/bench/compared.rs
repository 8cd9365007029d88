//! Results compared with earlier ones, and shown again.

use std::fs;

use serde_json::Value;

use crate::bench::bench;
use crate::support::outside::skip;
use crate::support::served::{Outcome, serveloop};
use crate::support::sockets::Directory;

/// Measures the loop with one connection, into a file. Returns its path.
fn measured(directory: &Directory, name: &str) -> String {
    let path = directory.path(name).display().to_string();
    let arguments = ["--compare", "event-loop", "--connections", "1"];
    let outcome = bench(&[&arguments[..], &["--json", &path]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    path
}

#[test]
fn results_are_compared_with_earlier_ones() {
    let directory = Directory::new();
    let old = measured(&directory, "old.json");
    let report = directory.path("page.html").display().to_string();
    let arguments = ["--compare", "event-loop,threaded", "--connections", "1"];
    let more = ["--compare-with", &old, "--report", &report];
    let outcome = bench(&[&arguments[..], &more].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);

    let (_, compared) = outcome
        .stdout
        .split_once("compared with ")
        .expect("a table");
    assert!(compared.starts_with(&old), "{compared}");
    let row = compared.lines().find(|line| line.starts_with("event-loop"));
    assert!(
        row.expect("a row").split_whitespace().count() >= 8,
        "{compared}"
    );
    assert!(
        compared.contains("only now: threaded, 1 connection, 64 B"),
        "{compared}"
    );
    let page = fs::read_to_string(&report).expect("a page");
    assert!(page.contains("Compared with") && page.contains("Latency over time"));
}

#[test]
fn kept_results_are_shown_without_measuring() {
    let directory = Directory::new();
    let path = measured(&directory, "kept.json");
    let outcome = Outcome::new(&["bench", "--from", &path, "--compare-with", &path]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stdout.starts_with("measured at 2"),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains("event-loop"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("no difference"),
        "{}",
        outcome.stdout
    );

    let again = Outcome::new(&["bench", "--from", &path, "--json"]);
    let kept = fs::read_to_string(&path).expect("the results");
    assert_eq!(again.stdout, kept.trim_end());

    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        return skip("/dev/full");
    };
    let mut command = serveloop(&["bench", "--from", &path]);
    command.stdout(full);
    let lost = Outcome::of(command);
    assert_eq!(lost.code, Some(1));
    assert!(
        lost.stderr
            .starts_with("serveloop: cannot write to standard output: "),
        "{}",
        lost.stderr
    );
}

#[test]
fn a_round_has_twenty_slices() {
    let directory = Directory::new();
    let path = measured(&directory, "kept.json");
    let text = fs::read_to_string(path).expect("the results");
    let results: Value = serde_json::from_str(&text).expect("JSON");
    let slices = results["results"][0]["measured"]["timeline"]
        .as_array()
        .expect("a list");
    assert_eq!(slices.len(), 20);
    let seconds: Vec<_> = slices
        .iter()
        .filter_map(|it| it["seconds"].as_f64())
        .collect();
    assert!(seconds.is_sorted() && seconds[19] >= 0.05, "{seconds:?}");
    let messages: u64 = slices.iter().filter_map(|it| it["messages"].as_u64()).sum();
    assert!(
        messages > 0 && slices.iter().any(|it| it["p99"].is_f64()),
        "{slices:?}"
    );
}

/// Before anything is measured, and with the file's name.
#[test]
fn files_that_are_no_earlier_results_are_refused() {
    let directory = Directory::new();
    let file = |name: &str, text: &str| {
        let path = directory.path(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let text = fs::read_to_string(measured(&directory, "old.json")).expect("the results");
    let of_others = text.replace("\"event-loop\"", "\"tcp://192.0.2.1:9\"");
    let of_the_future = text.replacen("\"format\": 1", "\"format\": 9", 1);

    for (path, code, said) in [
        (
            file("empty.json", ""),
            2,
            "no result of `serveloop bench --json`",
        ),
        (file("other.json", "{}"), 2, "it has no \"format\""),
        (
            file("future.json", &of_the_future),
            2,
            "it has the format 9, and this version reads 1",
        ),
        (
            file("others.json", &of_others),
            2,
            "it has tcp://192.0.2.1:9, 1 connection, 64 B",
        ),
        (
            directory.path("none.json").display().to_string(),
            1,
            "No such file or directory",
        ),
    ] {
        // It would take an hour to measure.
        let arguments = [
            "bench",
            "--duration",
            "1h",
            "--connections",
            "1",
            "--compare",
            "event-loop",
        ];
        let outcome = Outcome::new(&[&arguments[..], &["--compare-with", &path]].concat());
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(&path), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
    let both = Outcome::new(&["bench", "--from", "x.json", "--churn"]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}
