//! Texts that say a count agree with it: `1 connection`, `2 connections`.

use std::fs;
use std::path::{Path, PathBuf};

/// What is counted in texts for people.
const NOUNS: [&str; 34] = [
    "addresses",
    "attempts",
    "bytes",
    "children",
    "clients",
    "connections",
    "cores",
    "datagrams",
    "days",
    "descriptors",
    "fields",
    "frames",
    "hours",
    "jobs",
    "lines",
    "listeners",
    "loops",
    "members",
    "messages",
    "minutes",
    "peers",
    "processes",
    "programs",
    "redirections",
    "replies",
    "requests",
    "rounds",
    "seconds",
    "sessions",
    "steps",
    "subscribers",
    "threads",
    "times",
    "workers",
];

/// Texts whose count is never 1, and why.
const NEVER_ONE: &[(&str, &str)] = &[
    ("a process with {threads} threads", "said of more than one"),
    ("{bytes} bytes of memory", "what a limit on memory leaves"),
    ("--max-buffered is {before} bytes", "more than the limit"),
    (
        "--max-buffered is lowered to {fitting} bytes",
        "a part of the limit",
    ),
    ("--max-output is {most} bytes", "more than the limit"),
    ("with {reserved} descriptors reserved", "a setting"),
    ("whose packets have at most {mtu} bytes", "a network's"),
    ("the addresses need {needed} bytes", "12 or more"),
    (
        "{length} bytes, at most {limit} allowed",
        "more than a limit",
    ),
    ("a reply of {} bytes", "an object in JSON"),
    ("{rate} messages/s", "a rate"),
    ("none of its {count} addresses", "one alone has other words"),
    ("expected at most {INT_MOST} bytes", "a constant"),
];

/// Returns the files of the library, the command, the load generator and the protocols.
fn sources() -> Vec<PathBuf> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "cli/src", "measure/src"] {
        collect(&root.join(folder), &mut found);
    }
    // What a simulation says is for developers.
    found.retain(|path| !path.starts_with(root.join("src/testing/simulation")));
    for protocol in fs::read_dir(root.join("protocols")).unwrap() {
        collect(&protocol.unwrap().path().join("src"), &mut found);
    }
    found
}

/// Returns the nouns that follow a placeholder in a line of code, in the plural whatever the count is.
/// Names in capitals are constants.
fn miscounted(line: &str) -> Vec<&str> {
    let after = line.match_indices('{').filter_map(|(at, _)| {
        let (name, rest) = line[at + 1..].split_once("} ")?;
        let is_variable = name
            .chars()
            .all(|it| it.is_ascii_lowercase() || "_.:0123456789".contains(it));
        let noun = rest.split(|it: char| !it.is_ascii_lowercase()).next()?;
        (is_variable && NOUNS.contains(&noun)).then_some(noun)
    });
    after.collect()
}

#[test]
fn a_count_and_its_noun_agree() {
    assert_eq!(
        miscounted(r#"format!("{count} bytes, {} loops")"#),
        ["bytes", "loops"]
    );
    assert!(miscounted(r#"format!("{LIMIT} bytes, {count} s, {count} bytesize")"#).is_empty());

    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        // Tests at the end of a file write what they like.
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            let is_for_developers = ["panic!", "assert", "\"client {", "\"\\n  {}"]
                .iter()
                .any(|it| line.contains(it));
            let is_never_one = NEVER_ONE.iter().any(|(text, _)| line.contains(text));
            if !is_comment && !is_for_developers && !is_never_one && !miscounted(line).is_empty() {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "use `protocols::counted`, or say above why the count is never 1:\n{}",
        wrong.join("\n")
    );
}
