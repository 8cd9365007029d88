//! Invalid command lines, and those that ask for help.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::Signal;

use crate::support::served::{Outcome, Served};
use crate::support::sockets::Directory;

/// Runs an invalid command line. Returns what is said about it.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let outcome = Outcome::new(arguments);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    outcome.stderr
}

#[track_caller]
fn help(arguments: &[&str]) -> String {
    let outcome = Outcome::new(arguments);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}

#[test]
fn bad_values_are_refused_with_their_option() {
    let values = [
        ("--max-frame", "99999999999999999999"),
        ("--max-frame", "99999999999GiB"),
        ("--max-frame", "big"),
        ("--max-connections", "many"),
        ("--max-connections", "-1"),
        ("--idle-timeout", "10"),
        ("--idle-timeout", "soon"),
        ("--idle-timeout", "99999999999999999999s"),
        ("--reuse-port", "perhaps"),
        ("--send-buffer", "4GiB"),
        ("--backlog", "2147483648"),
    ];
    for (option, value) in values {
        let text = refused(&["serve", "echo", &format!("{option}={value}")]);
        assert!(text.starts_with("error: invalid value"), "{text}");
        assert!(text.contains(option) && text.contains(value), "{text}");
    }
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let text = refused(&["serve", "echo", "--low-water", "1MiB", "--high-water=1MiB"]);
    assert!(
        text.contains("--low-water must be less than --high-water"),
        "{text}"
    );
    for (one, other) in [
        ("--max-frame=512MiB", "--max-buffered=256MiB"),
        ("--max-line=2MiB", "--max-frame=1MiB"),
        ("--high-water=2MiB", "--max-output=1MiB"),
        ("--high-water=2MiB", "--max-buffered=1MiB"),
        ("--max-output=512MiB", "--max-buffered=256MiB"),
    ] {
        let named = |option: &'static str| option.split('=').next().unwrap();
        let expected = format!("{} must be at least {}", named(other), named(one));
        for arguments in [["serve", "echo", one, other], ["serve", other, "echo", one]] {
            let text = refused(&arguments);
            assert!(text.contains(&expected), "{arguments:?}: {text}");
        }
    }
    for (options, expected) in [
        (
            &["--max-output", "0"][..],
            "--max-output must be at least 1",
        ),
        (
            &["--max-buffered", "0"],
            "--max-buffered must be at least 1",
        ),
        (
            &["--low-water=2MiB", "--max-output=1MiB"],
            "--max-output must be more than --low-water",
        ),
    ] {
        let text = refused(&[&["serve", "echo"], options].concat());
        assert!(text.contains(expected), "{options:?}: {text}");
        assert!(!text.contains("high-water"), "{options:?}: {text}");
    }
    let text = refused(&[
        "serve",
        "command",
        "--allow",
        "ls",
        "--max-request",
        "2MiB",
        "--max-frame",
        "1MiB",
    ]);
    assert!(
        text.contains("--max-frame must be at least --max-request"),
        "{text}"
    );
    let text = refused(&["serve", "echo", "--read-per-turn", "1000000GiB"]);
    assert!(
        text.contains("--read-per-turn must be at most 1 GiB"),
        "{text}"
    );
}

#[test]
fn addresses_that_are_none_are_refused() {
    for uri in [
        "127.0.0.1:9999",
        "http://127.0.0.1:80",
        "tcp://127.0.0.1",
        "unix://",
    ] {
        let text = refused(&["serve", "echo", "--listen", uri]);
        assert!(text.contains(uri), "{text}");
    }
}

#[test]
fn an_unknown_protocol_is_answered_with_the_known_ones() {
    let text = refused(&["serve", "gopher"]);
    assert!(text.contains("gopher"), "{text}");
    assert!(text.contains("echo, discard, hello"), "{text}");
    let text = refused(&["server", "echo"]);
    assert!(text.contains("serve"), "{text}");
}

#[test]
fn nothing_to_do_is_a_mistake() {
    assert!(refused(&[]).contains("Usage:"));
    assert!(refused(&["serve"]).contains("Usage:"));
}

#[test]
fn a_delay_over_datagrams_is_refused() {
    for uri in ["udp://127.0.0.1:0", "unixgram:///nowhere/socket"] {
        let text = refused(&["serve", "hello", "--listen", uri]);
        assert!(
            text.contains("hello over datagrams needs --delay 0"),
            "{text}"
        );
    }
}

#[test]
fn help_teaches_by_example() {
    assert!(help(&["--help"]).contains("$ nc 127.0.0.1 9999"));
    assert!(help(&["serve", "--help"]).contains("$ serveloop serve echo --listen"));
    for command in ["connect", "fetch", "completions", "man"] {
        let text = help(&[command, "--help"]);
        assert!(text.contains(&format!("$ serveloop {command}")), "{text}");
    }
    for protocol in [
        "echo",
        "discard",
        "hello",
        "greet",
        "print",
        "timestamp",
        "dispatch",
        "resp",
    ] {
        let text = help(&["serve", protocol, "--help"]);
        assert!(
            text.contains(&format!("$ serveloop serve {protocol}")),
            "{text}"
        );
        assert!(text.contains("$ nc 127.0.0.1 9999"), "{text}");
    }
}

/// The ports and paths of the examples may be taken here; all else is run as it is printed.
#[test]
fn examples_work_as_printed() {
    let pages: [&[&str]; 15] = [
        &["--help"],
        &["serve", "--help"],
        &["serve", "echo", "--help"],
        &["serve", "discard", "--help"],
        &["serve", "hello", "--help"],
        &["serve", "greet", "--help"],
        &["serve", "print", "--help"],
        &["serve", "timestamp", "--help"],
        &["serve", "dispatch", "--help"],
        &["serve", "operator", "--help"],
        &["serve", "memcached", "--help"],
        &["serve", "resp", "--help"],
        &["serve", "websocket", "--help"],
        &["serve", "http", "--help"],
        &["serve", "chat", "--help"],
    ];
    for page in pages {
        let text = help(page);
        let examples: Vec<_> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("$ serveloop serve "))
            .filter(|example| cfg!(feature = "tls") || !example.contains("tls://"))
            .collect();
        assert!(!examples.is_empty(), "{page:?}");
        examples.into_iter().for_each(check_example);
    }
}

/// The same for the document that leads from tutorials to here. What `command` needs is up to the
/// machine, so it is left out.
#[test]
fn tutorials_work_as_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorials.md");
    let text = fs::read_to_string(path).expect("the document");
    let examples: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("serveloop serve "))
        .filter(|example| !example.starts_with("command "))
        .collect();
    assert!(examples.len() > 10, "{examples:?}");
    examples.into_iter().for_each(check_example);
}

/// Runs a server as it is printed, but at addresses of our own.
#[track_caller]
pub(crate) fn check_example(example: &str) {
    let directory = Directory::new();
    let mut arguments: Vec<_> = example
        .split(' ')
        .map(|argument| own_place(argument.trim_matches('\''), &directory))
        .collect();
    // A file that the server writes belongs to the test.
    let record = arguments.iter().position(|argument| argument == "--record");
    if let Some(file) = record.and_then(|place| arguments.get_mut(place + 1)) {
        *file = directory.path(file).display().to_string();
    }
    if !arguments.iter().any(|argument| argument == "--listen") {
        arguments.extend(["--listen", "tcp://127.0.0.1:0"].map(str::to_owned));
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let served = Served::new(&arguments);
    for (option, line) in [("--metrics", "metrics on "), ("--admin", "admin on ")] {
        if arguments.contains(&option) {
            assert!(served.printed().starts_with(line), "{example}");
        }
    }
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0), "{example}");
}

/// An argument with a place of our own if it is a place or a file, and with its options but for the group
/// and for files of certificates.
fn own_place(argument: &str, directory: &Directory) -> String {
    if argument == "hello.toml" {
        let path = directory.path(argument);
        fs::write(&path, "protocol = \"hello\"\n").expect("a file");
        return path.to_str().expect("a path").to_owned();
    }
    let is_written = argument.ends_with(".record") || argument.ends_with(".pid");
    if let Some(name) = Path::new(argument).file_name().filter(|_| is_written) {
        let path = directory.path(name.to_str().expect("a name"));
        return path.to_str().expect("a path").to_owned();
    }
    // Documents are read at the root of the repository.
    if argument == "docs" {
        return concat!(env!("CARGO_MANIFEST_DIR"), "/../docs").to_owned();
    }
    let Some((scheme, rest)) = argument.split_once("://") else {
        return argument.to_owned();
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (rest, String::new()),
    };
    let host = match place.rsplit_once(':') {
        Some((host @ ("" | "[::]" | "239.1.2.3"), _)) => host,
        _ => "127.0.0.1",
    };
    let own_group = fs::metadata(directory.path("")).expect("a directory").gid();
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/it/layer/tls/certificates"
    );
    let query = query
        .replace("www-data", &own_group.to_string())
        .replace("=eth0", "=lo")
        .replace("=cert.pem", &format!("={folder}/localhost.pem"))
        .replace("=key.pem", &format!("={folder}/localhost.key"))
        .replace("=ca.pem", &format!("={folder}/authority.pem"));
    match scheme {
        "unix" | "unixgram" => directory.uri(scheme, &format!("{scheme}{query}")),
        _ => format!("{scheme}://{host}:0{query}"),
    }
}

/// The limits have a page of their own, so that they do not bury the help of each protocol.
#[test]
fn limits_are_grouped_and_show_defaults() {
    let text = help(&["help", "limits"]);
    let headings = [
        "Connections:",
        "Budgets per turn:",
        "Buffers and messages:",
        "Deadlines:",
        "Sockets:",
    ];
    for heading in headings {
        assert!(text.contains(&format!("\n{heading}\n")), "{heading}");
    }
    for default in ["10000", "64KiB", "1MiB", "1m", "250ms", "system"] {
        assert!(text.contains(&format!("[default: {default}]")), "{default}");
    }
}

#[test]
fn help_of_a_protocol_leads_to_the_limits() {
    for page in [
        &["serve", "--help"][..],
        &["serve", "-h"],
        &["serve", "echo", "--help"],
        &["serve", "echo", "-h"],
        &["serve", "http", "--help"],
        &["help", "serve", "resp"],
        &["--help"],
    ] {
        let text = help(page);
        assert!(text.contains("serveloop help limits"), "{page:?}: {text}");
        assert!(!text.contains("\n      --max-frame"), "{page:?}: {text}");
        assert!(!text.contains("\n      --rate-burst"), "{page:?}: {text}");
    }
    let lines = help(&["serve", "echo", "--help"]).lines().count();
    assert!(lines < 180, "{lines} lines");
}

#[test]
fn limits_are_searched() {
    let found = help(&["help", "limits", "IDLE", "timeout"]);
    assert!(found.contains("--idle-timeout <DURATION>"), "{found}");
    assert!(!found.contains("--max-frame"), "{found}");
    let found = help(&["-q", "help", "limits", "so_sndbuf"]);
    assert!(found.contains("--send-buffer"), "{found}");

    let text = refused(&["help", "limits", "nonsense"]);
    assert!(text.contains("no limit is about \"nonsense\""), "{text}");
    assert!(refused(&["help", "limits", "--nonsense"]).contains("--nonsense"));
    assert!(refused(&["help", "limit"]).contains("limit"));
}

/// They are hidden from help, and accepted in any place like every other option.
#[test]
fn limits_are_options_wherever_they_are_listed() {
    let text = help(&["help", "limits"]);
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("      --"));
    let names: Vec<_> = names.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 45, "{names:?}");
    for name in names {
        let text = refused(&["serve", "echo", &format!("--{name}")]);
        let said = format!("a value is required for '--{name} <");
        assert!(text.contains(&said), "{text}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(
        help(&["--version"]),
        concat!("serveloop ", env!("CARGO_PKG_VERSION"))
    );
}
