//! Every command of the documents that a stranger reads is run, or this file says why it is not.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::project::usage::check_example;
use crate::support::served::{Outcome, Served, serveloop};
use crate::support::sockets::Directory;

/// Commands that are not run here, by how they begin, and why.
const NOT_RUN: [(&str, &str); 8] = [
    ("cargo test", "this is it"),
    (
        "cargo add ",
        "it changes a manifest; a release and its dependencies are in an index",
    ),
    (
        "cargo install ",
        "it compiles everything once more; `.ci/run` builds the command",
    ),
    (
        "openssl req ",
        "it makes a certificate; the tests have their own",
    ),
    ("install ", "it needs the rights of an administrator"),
    ("cp ", "it needs the rights of an administrator"),
    (
        "systemctl ",
        "it needs systemd, which packaging.rs gives the same files",
    ),
    (
        "curl ",
        "it needs the server of the line before; http.rs runs it",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the documents whose commands are run: the READMEs, the guide and the cookbook.
fn documents() -> Vec<PathBuf> {
    let named = ["README.md", "cli/README.md", "docs/cookbook.md"];
    let mut found: Vec<_> = named.iter().map(|name| root().join(name)).collect();
    let guide = fs::read_dir(root().join("docs/guide")).expect("the guide");
    let pages = guide.map(|entry| entry.expect("a page").path());
    found.extend(pages.filter(|path| path.extension().is_some_and(|end| end == "md")));
    found.sort();
    found
}

/// Returns the commands in blocks of the language `sh`, each on one line and without its comment.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut is_shell, mut begun) = (Vec::new(), false, String::new());
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_shell = language == "sh";
            continue;
        }
        if !is_shell || line.trim().is_empty() {
            continue;
        }
        begun += line.split(" #").next().unwrap_or_default().trim();
        match begun.strip_suffix('\\') {
            Some(rest) => begun = format!("{} ", rest.trim_end()),
            None => found.push(std::mem::take(&mut begun)),
        }
    }
    found.retain(|command| !command.is_empty() && !command.starts_with('#'));
    found
}

/// Returns the arguments of `serveloop`, as a shell splits them.
fn arguments(command: &str) -> Vec<String> {
    let words = command
        .split('\'')
        .enumerate()
        .flat_map(|(place, part)| match place % 2 {
            0 => part
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        });
    words.collect()
}

#[test]
fn commands_of_the_documents_are_run() {
    let mut count = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for command in commands(&text) {
            count += 1;
            let from_source = command.strip_prefix("cargo run --release -- ");
            let from_source = from_source.map(|rest| format!("serveloop {rest}"));
            let command = from_source.unwrap_or(command);
            let place = document.display();
            match command.strip_prefix("serveloop ") {
                Some(rest) => run(rest, &format!("{place}: {command}")),
                None => {
                    let known = NOT_RUN.iter().any(|(begin, _)| command.starts_with(begin));
                    assert!(known, "{place}: nothing runs `{command}`");
                }
            }
        }
    }
    assert!(count > 15, "{count} commands only");
}

/// Runs a command of ours as it is printed, but at places of our own and within moments.
#[track_caller]
fn run(command: &str, what: &str) {
    if !cfg!(feature = "tls") && (command.contains("tls://") || command.contains("https://")) {
        return;
    }
    let words = arguments(command);
    match &*words[0] {
        "serve" => check_example(command.trim_start_matches("serve ")),
        "help" | "man" | "completions" => {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let outcome = Outcome::new(&words);
            assert_eq!(outcome.code, Some(0), "{what}: {}", outcome.stderr);
            assert!(!outcome.stdout.is_empty(), "{what}");
        }
        "bench" => bench(&words, what),
        // Their servers are elsewhere; the line is understood if only the connection fails.
        "connect" | "fetch" => {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let outcome = Outcome::new(&[&words[..1], &["--help"], &words[1..]].concat());
            assert_eq!(outcome.code, Some(0), "{what}: {}", outcome.stderr);
        }
        other => panic!("{what}: what is {other}?"),
    }
}

/// Measures for moments, with few connections, and against a server of ours in place of a target.
#[track_caller]
fn bench(words: &[String], what: &str) {
    let directory = Directory::new();
    let server = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    if what.contains("tls://") {
        // The test of TLS runs it, with a certificate.
        return;
    }
    let own = |(place, word): (usize, &String)| match &*words[place.saturating_sub(1)] {
        "--target" => server.uri(0).to_owned(),
        "--connections" => "1,2".to_owned(),
        "--idle" => "20".to_owned(),
        _ => word.clone(),
    };
    let own: Vec<_> = words.iter().enumerate().map(own).collect();
    let own: Vec<_> = own.iter().map(String::as_str).collect();

    let mut command = serveloop(&own);
    command.current_dir(directory.path("."));
    command.args(["--rounds", "1", "--duration", "10ms"]);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(0), "{what}: {}", outcome.stderr);
}

/// The README has all protocols.
#[test]
fn what_can_be_served_is_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let help = Outcome::new(&["serve", "-h"]).stdout;
    let (_, protocols) = help.split_once("Protocols:\n").expect("a list");
    let names = protocols.lines().map_while(|line| line.strip_prefix("  "));
    let names: Vec<_> = names.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 12, "{help}");
    for name in names
        .into_iter()
        .filter(|name| !["", "help"].contains(name))
    {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}

/// `docs/pictures/record` makes it: asciicast v2, a header and then events in their order.
#[test]
fn the_recorded_session_can_be_played() {
    let path = root().join("docs/pictures/session.cast");
    let text = fs::read_to_string(path).expect("the recording");
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().expect("a header")).expect("JSON");
    assert_eq!(header["version"], 2);
    assert!(header["width"].as_u64() > Some(80) && header["height"].is_u64());

    let (mut before, mut screen) = (0.0, String::new());
    for line in lines {
        let event: (f64, String, String) = serde_json::from_str(line).expect("an event");
        assert!(event.0 >= before && event.1 == "o", "{line}");
        before = event.0;
        screen += &event.2;
    }
    for part in [
        "serveloop serve echo",
        "listening on tcp://",
        "serveloop bench",
        "messages/s",
        "serveloop top",
        "order: traffic",
    ] {
        assert!(screen.contains(part), "{part}");
    }
    assert!(before < 60.0, "nobody watches {before} seconds");
}

#[test]
fn commands_are_found_where_they_are() {
    let text = "run `x`\n```sh\n# why\nserveloop serve echo   # what\nopenssl req \\\n    -x509\n\n```\n```rust\nlet a;\n```\n";
    assert_eq!(
        commands(text),
        ["serveloop serve echo", "openssl req -x509"]
    );
    assert_eq!(
        arguments("serve echo 'a b' c"),
        ["serve", "echo", "a b", "c"]
    );
}
