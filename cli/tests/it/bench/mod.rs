//! `serveloop bench`: what it measures, what it refuses, what it leaves behind.

mod compared;
mod exchanged;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(feature = "tls")]
mod secured;
mod subscribed;
#[cfg(target_os = "linux")]
mod trouble;

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::served::{Outcome, PATIENCE, Served, serveloop};
use crate::support::sockets::Directory;

/// As little as can be measured.
const SHORT: [&str; 5] = ["bench", "--duration", "50ms", "--rounds", "1"];

fn bench(arguments: &[&str]) -> Outcome {
    Outcome::new(&[&SHORT, arguments].concat())
}

/// Runs a benchmark that must succeed, and returns its results.
#[track_caller]
fn results(arguments: &[&str]) -> Vec<Value> {
    let outcome = bench(&[arguments, &["--json"]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let all: Value = serde_json::from_str(&outcome.stdout).expect("one object of JSON");
    assert_eq!(all["format"], 1);
    assert_eq!(all["method"]["rounds"], 1);
    all["results"].as_array().expect("a list").clone()
}

#[track_caller]
fn measured(result: &Value, what: &str) -> f64 {
    let value = result["measured"].pointer(what).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {what} in {result}"))
}

#[test]
fn models_are_compared_over_connections() {
    let results = results(&["--connections", "1,4", "--compare", "event-loop,threaded"]);
    let shown: Vec<_> = results
        .iter()
        .map(|result| (result["server"].as_str(), result["connections"].as_u64()))
        .collect();
    let expected = [
        (Some("event-loop"), Some(1)),
        (Some("threaded"), Some(1)),
        (Some("event-loop"), Some(4)),
        (Some("threaded"), Some(4)),
    ];
    assert_eq!(shown, expected);
    for result in &results {
        assert!(measured(result, "/per_second/median") > 0.0);
        assert!(measured(result, "/server_microseconds_per_message/median") > 0.0);
        let times = ["p50", "p90", "p99", "p99.9"]
            .map(|part| measured(result, &format!("/latency_microseconds/{part}/median")));
        assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
        assert!(measured(result, "/latency_microseconds/max") >= times[3] * 0.99);
        assert_eq!(result["load"], "closed");
    }
}

#[test]
fn every_model_is_measured_or_says_why_not() {
    let models = "event-loop,workers=2,threaded,forking,sequential";
    let results = results(&["--connections", "8", "--depth", "4", "--compare", models]);
    for result in &results[..4] {
        assert!(measured(result, "/per_second/median") > 0.0);
        assert!(measured(result, "/server_bytes_per_connection/median") >= 0.0);
    }
    let forked = measured(&results[3], "/server_bytes_per_connection/median");
    assert!(forked > 4_096.0, "a process for each: {forked}");
    assert_eq!(results[4]["measured"], Value::Null);
    assert_eq!(results[4]["skipped"], "serves one connection at a time");
}

#[test]
fn a_steady_rate_is_kept() {
    let results = results(&[
        "--connections",
        "5",
        "--rate",
        "200",
        "--compare",
        "event-loop",
    ]);
    assert_eq!(results[0]["load"], "open");
    assert_eq!(results[0]["rate"], 200);
    // 50 ms have ten messages; a machine that has no time for us may not get that far.
    let rate = measured(&results[0], "/per_second/median");
    assert!((1.0..=260.0).contains(&rate), "{rate}");
}

#[test]
fn connections_come_and_go() {
    let results = results(&[
        "--churn",
        "--connections",
        "3",
        "--compare",
        "event-loop,forking",
    ]);
    for result in &results {
        assert_eq!(result["load"], "churn");
        assert!(measured(result, "/per_second/median") > 0.0);
        assert_eq!(
            result["measured"]["server_bytes_per_connection"],
            Value::Null
        );
    }
}

#[test]
fn idle_connections_stand_beside_the_active() {
    let results = results(&[
        "--connections",
        "2",
        "--idle",
        "50",
        "--compare",
        "threaded",
    ]);
    assert_eq!(results[0]["idle"], 50);
    let each = measured(&results[0], "/server_bytes_per_connection/median");
    assert!(each > 4_096.0, "a stack for each: {each}");
}

#[test]
fn targets_are_measured_over_tcp_and_unix() {
    let directory = Directory::new();
    let path = directory.uri("unix", "socket");
    let server = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0", "--listen", &path]);
    let arguments = ["--target", server.uri(0), "--target", server.uri(1)];
    let results = results(&[&arguments[..], &["--connections", "3", "--size", "100KiB"]].concat());
    assert_eq!(results[0]["server"], server.uri(0));
    assert_eq!(results[1]["server"], server.uri(1));
    for result in &results {
        assert!(measured(result, "/per_second/median") > 0.0);
        let unknown = &result["measured"]["server_microseconds_per_message"];
        assert_eq!(unknown, &Value::Null);
    }
}

#[test]
fn a_server_that_does_not_echo_is_a_failure() {
    let silent = Served::new(&["discard", "--listen", "tcp://127.0.0.1:0"]);
    let outcome = bench(&["--target", silent.uri(0), "--timeout", "300ms"]);
    assert_eq!(outcome.code, Some(1));
    let expected =
        "no server sent back the first message for 300ms: it must send back what it receives";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(silent.uri(0)), "{}", outcome.stderr);

    let other = Served::new(&["hello", "--listen", "tcp://127.0.0.1:0"]);
    let outcome = bench(&["--target", other.uri(0)]);
    assert_eq!(outcome.code, Some(1));
    let expected = "the echo differs from what was sent";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn a_target_that_is_not_there_is_a_failure() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "nobody");
    let outcome = bench(&["--target", &uri]);
    assert_eq!(outcome.code, Some(1));
    let text = outcome.stderr;
    assert!(
        text.contains(&uri) && text.contains("cannot connect"),
        "{text}"
    );
}

#[test]
fn a_target_that_ends_is_a_failure() {
    let server = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let before = sockets(&server);
    let target = [
        "bench",
        "--target",
        server.uri(0),
        "--duration",
        "1h",
        "--connections",
        "2",
    ];
    let running = Served::spawn_unheard(serveloop(&target));
    let begun = Instant::now();
    while sockets(&server) < before + 2 {
        assert!(begun.elapsed() < PATIENCE, "no client connects");
        thread::sleep(Duration::from_millis(5));
    }
    server.signal(Signal::KILL);
    let (status, log) = running.end();
    assert_eq!(status.code(), Some(1));
    assert!(
        log.iter().any(|line| line.contains(server.uri(0))),
        "{log:?}"
    );
}

#[test]
fn a_server_of_ours_that_dies_is_a_failure() {
    let models = ["bench", "--compare", "event-loop", "--duration", "1h"];
    let running = Served::spawn_unheard(serveloop(&models));
    let server = family(running.process_id(), 1)[0];
    let server = Pid::from_raw(i32::try_from(server).expect("a process")).expect("a process");
    kill_process(server, Signal::KILL).expect("it still runs");
    let (status, log) = running.end();
    assert_eq!(status.code(), Some(1));
    let expected = "from the event-loop server, which ended with signal: 9";
    assert!(log.iter().any(|line| line.contains(expected)), "{log:?}");
}

/// Ctrl-C, and an end that nothing can be done about.
#[test]
fn no_server_outlives_the_benchmark() {
    for (signal, status) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let models = [
            "bench",
            "--compare",
            "forking",
            "--connections",
            "3",
            "--duration",
            "1h",
        ];
        let running = Served::spawn_unheard(serveloop(&models));
        let descendants = family(running.process_id(), 4);
        running.signal(signal);
        assert_eq!(running.exit_code(), status);
        let begun = Instant::now();
        while descendants.iter().any(|process| is_alive(*process)) {
            assert!(begun.elapsed() < PATIENCE, "still there after {signal:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn results_are_kept_in_files() {
    let directory = Directory::new();
    let [json, html] = ["results.json", "results.html"].map(|name| directory.path(name));
    let [json, html] = [&json, &html].map(|path| path.to_str().expect("a path"));
    let outcome = bench(&[
        "--compare",
        "event-loop",
        "--connections",
        "1",
        "--json",
        json,
        "--report",
        html,
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stdout.contains("1 connection, 64 B"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("\nevent-loop "),
        "{}",
        outcome.stdout
    );
    let all: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(
        all["command"]
            .as_str()
            .unwrap()
            .starts_with("serveloop bench --duration 50ms")
    );
    assert_eq!(all["results"][0]["server"], "event-loop");
    let page = fs::read_to_string(html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains("<svg") && page.contains("serveloop bench --duration 50ms"));
}

#[test]
fn a_file_that_cannot_be_written_is_a_failure_at_once() {
    let outcome = Outcome::new(&[
        "bench",
        "--duration",
        "1h",
        "--report",
        "/nowhere/page.html",
    ]);
    assert_eq!(outcome.code, Some(1));
    let expected = "serveloop: /nowhere/page.html: ";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}

#[test]
fn system_calls_are_counted_or_said_not_to_be() {
    let arguments = [
        "--compare",
        "event-loop",
        "--connections",
        "20",
        "--syscalls",
    ];
    let outcome = bench(&[&arguments[..], &["--json"]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let all: Value = serde_json::from_str(&outcome.stdout).expect("one object of JSON");
    if all["method"]["system_calls_counted"] == false {
        assert_eq!(
            all["results"][0]["measured"]["system_calls_per_message"],
            Value::Null
        );
        return;
    }
    // A read and a write for each message, and a share of a wait.
    let calls = measured(&all["results"][0], "/system_calls_per_message");
    assert!((1.9..3.1).contains(&calls), "{calls}");
}

/// The ports and paths of the examples may be taken here, and minutes would be too long; all else
/// is run as it is printed.
#[test]
fn examples_work_as_printed() {
    let help = Outcome::new(&["bench", "--help"]);
    let examples: Vec<_> = help
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("$ serveloop "))
        .collect();
    assert!(examples.len() >= 7, "{examples:?}");
    let directory = Directory::new();
    let path = directory.uri("unix", "socket");
    let mut server = None;
    for example in examples {
        let example = example.replace("unix:///tmp/echo.sock", &path);
        // As printed, but for crowds that take a busy machine too long.
        let example = example.replace("000", "0");
        if example.contains("tls://") {
            // The test of TLS runs it, with a certificate.
            continue;
        }
        let example = example.replace("unix:///tmp/resp.sock", &path);
        // What is in quotes is one word.
        let parts = example.split('\'').enumerate();
        let words = parts.flat_map(|(number, part)| match number % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        });
        let arguments: Vec<_> = words.collect();
        if arguments[0] == "serve" {
            drop(server.take());
            server = Some(Served::new(&arguments[1..]));
            continue;
        }
        let mut command = serveloop(&arguments);
        if !example.contains("--from ") {
            command.args(["--rounds", "1", "--duration", "10ms"]);
        }
        command.current_dir(directory.path("."));
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, Some(0), "{example}: {}", outcome.stderr);
    }
    assert!(server.is_some());
    assert!(directory.path("results.html").exists());
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    for (arguments, problem) in [
        (
            &["--target", "udp://127.0.0.1:7"][..],
            "only streams can be measured",
        ),
        (
            &["--compare", "tokio"],
            "expected event-loop, workers=NUMBER",
        ),
        (&["--churn", "--depth", "2"], "--depth must be 1"),
        (
            &["--connections", "1000000"],
            "1000000 connections are too many for one process: they need 1000064 descriptors",
        ),
        (
            &["--compare", "threaded,threaded"],
            "threaded is given twice",
        ),
        (
            &["--compare", "event-loop,workers=9999"],
            "--compare workers=9999: 9999 workers are too many for one process",
        ),
    ] {
        let outcome = bench(arguments);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}

/// Waits until this many processes descend from `process`, and returns them.
#[track_caller]
fn family(process: u32, count: usize) -> Vec<u32> {
    let begun = Instant::now();
    loop {
        let found = descendants(process);
        if found.len() >= count {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "only {found:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn descendants(process: u32) -> Vec<u32> {
    let pairs: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("a list of processes")
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((id, fields(id)?.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![process];
    let mut place = 0;
    while let Some(parent) = found.get(place).copied() {
        let children = pairs.iter().filter(|pair| pair.1 == parent);
        found.extend(children.map(|pair| pair.0));
        place += 1;
    }
    found.split_off(1)
}

/// A process that has ended may stay in the table until its parent looks.
fn is_alive(process: u32) -> bool {
    fields(process).is_some_and(|fields| !fields.starts_with(['Z', 'X']))
}

/// What the system says of a process, from its state on.
fn fields(process: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.to_owned())
}

/// How many sockets a server has.
fn sockets(server: &Served) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.process_id()));
    let is_socket = |entry: io::Result<fs::DirEntry>| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        target.to_str()?.starts_with("socket:").then_some(())
    };
    let sockets = descriptors.expect("a running server").filter_map(is_socket);
    sockets.count()
}
