//! What the log says at each level, and that it does not have to be read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use socket2::SockRef;

use crate::support::served::{MODELS, Served, serveloop};
use crate::support::sockets::{clogged, socket_addr};

/// Serves one client of `protocol` and returns the whole log.
fn log_of(protocol: &str, prepare: impl FnOnce(&mut Command)) -> Vec<String> {
    let mut command = serveloop(&["serve", protocol, "--listen", "tcp://127.0.0.1:0"]);
    prepare(&mut command);
    let served = Served::spawn(command);
    let mut client = served.connect();
    client.send("secret");
    client.finish();
    if protocol == "echo" {
        client.expect("secret");
        client.expect_end();
    } else {
        client.expect("Welcome!");
    }
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    assert!(!log.iter().any(|line| line.contains("secret")), "{log:?}");
    log
}

fn mentions_connections(log: &[String]) -> bool {
    log.iter().any(|line| line.contains(": accepted"))
}

#[test]
fn who_wants_warnings_hears_of_no_connection() {
    let log = log_of("echo", |command| {
        command.env("RUST_LOG", "warn");
    });
    assert_eq!(log, [""; 0]);
}

#[test]
fn verbose_logs_connections() {
    assert!(mentions_connections(&log_of("echo", |command| {
        command.arg("-v");
    })));
}

#[test]
fn the_environment_chooses_the_level_too() {
    assert!(mentions_connections(&log_of("echo", |command| {
        command.env("RUST_LOG", "debug");
    })));
}

#[test]
fn quiet_silences_whatever_the_environment_says() {
    let log = log_of("hello", |command| {
        command.arg("-q").env("RUST_LOG", "debug");
    });
    assert_eq!(log, [""; 0]);
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let (ours, theirs) = clogged();
    let mut command = serveloop(&["serve", "hello", "--listen", "tcp://127.0.0.1:0", "-vv"]);
    command.stderr(theirs);
    let served = Served::spawn(command);
    greet(&served);
    greet(&served);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    drop(ours);
}

/// Runs a server whose log is full at first, and has room later. Returns the log from then on.
fn unclogged(arguments: &[&str]) -> String {
    let (mut ours, theirs) = clogged();
    let mut command = serveloop(arguments);
    command.stderr(theirs);
    let served = Served::spawn(command);
    greet(&served);
    ours.set_nonblocking(true).expect("a pipe");
    let mut filling = vec![0; 1 << 20];
    while ours.read(&mut filling).is_ok() {}
    ours.set_nonblocking(false).expect("a pipe");
    greet(&served);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    let mut log = String::new();
    ours.read_to_string(&mut log).expect("a text");
    log
}

#[test]
fn a_log_that_is_full_for_a_while_says_how_much_is_missing() {
    let log = unclogged(&["serve", "hello", "--listen", "tcp://127.0.0.1:0"]);
    let first = log.lines().next().unwrap();
    assert!(first.ends_with("log lines were dropped)"), "{log}");
    assert!(log.contains("shutting down"), "{log}");
}

#[test]
fn a_log_whose_reader_is_gone_holds_up_nobody() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = serveloop(&["serve", "hello", "--listen", "tcp://127.0.0.1:0", "-v"]);
    command.stderr(Stdio::from(writer));
    let served = Served::spawn(command);
    greet(&served);
    greet(&served);
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

/// Half of a crowd's lines come at its end, within a moment.
fn log_of_a_crowd(arguments: &[&str]) -> Vec<String> {
    let listen = ["hello", "--listen", "tcp://127.0.0.1:0"];
    let served = Served::new(&[&listen[..], arguments].concat());
    let mut crowd: Vec<_> = (0..CROWD).map(|_| served.connect()).collect();
    for client in &mut crowd {
        client.expect("Welcome!");
    }
    served.signal(Signal::TERM);
    for client in &mut crowd {
        client.expect_end();
    }
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(0));
    let summary = log.last().expect("a summary");
    assert!(summary.contains(&format!("accepted {CROWD}")), "{summary}");
    log
}

const CROWD: usize = 150;

fn left_out(line: &str) -> Option<usize> {
    let (_, count) = line.split_once('(')?;
    let texts = [
        " line about a connection was left out)",
        " lines about connections were left out)",
    ];
    let count = texts.iter().find_map(|text| count.strip_suffix(text))?;
    count.parse().ok()
}

#[test]
fn a_flood_of_connections_is_no_flood_of_lines() {
    for arguments in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let log = log_of_a_crowd(arguments);
        let written = log.iter().filter(|line| line.contains("serveloop] tcp://"));
        let counts: Vec<_> = log.iter().filter_map(|line| left_out(line)).collect();
        let told = written.count();
        assert!(!counts.is_empty(), "{arguments:?} {log:?}");
        let all = told + counts.iter().sum::<usize>();
        assert_eq!(all, 2 * CROWD, "{arguments:?} {log:?}");
    }
}

#[test]
fn who_asks_for_every_connection_gets_it() {
    let log = log_of_a_crowd(&["-v"]);
    let written = log.iter().filter(|line| line.contains("serveloop] tcp://"));
    assert_eq!(written.count(), 2 * CROWD);
    assert_eq!(log.iter().find_map(|line| left_out(line)), None);
}

#[track_caller]
fn greet(served: &Served) {
    let mut client = served.connect();
    client.expect("Welcome!");
    client.send("exit");
    client.expect_end();
}

/// Returns the lines of a log as objects.
fn objects(log: &[String]) -> Vec<serde_json::Value> {
    let parse = |line: &String| serde_json::from_str(line).expect(line);
    log.iter().map(parse).collect()
}

#[test]
fn each_event_is_one_object_with_its_fields_in_every_model() {
    for model in [
        &[][..],
        &["--workers", "2"],
        &["--model", "threaded"],
        &["--model", "forking"],
        &["--model", "sequential"],
    ] {
        let arguments = [
            "echo",
            "--listen",
            "tcp://127.0.0.1:0",
            "--log-format",
            "json",
        ];
        let served = Served::new(&[&arguments[..], model].concat());
        let uri = served.uri(0).to_owned();
        let mut client = served.connect();
        let name = client.name();
        client.send("hello");
        client.expect("hello");
        client.finish();
        client.expect_end();
        served.signal(Signal::TERM);
        let objects = objects(&served.status_and_log());

        let of = |event: &str| {
            let found = objects.iter().find(|object| object["event"] == event);
            found.unwrap_or_else(|| panic!("{model:?}: no {event} in {objects:?}"))
        };
        let (accepted, ended) = (of("accepted"), of("ended"));
        for object in [accepted, ended] {
            assert_eq!(object["level"], "info");
            assert_eq!(object["id"], 1);
            assert_eq!(object["peer"], *name);
            assert_eq!(object["listener"], *uri);
            assert_eq!(object["protocol"], "echo");
            assert!(
                object["time"]
                    .as_str()
                    .is_some_and(|time| time.ends_with('Z'))
            );
        }
        assert_eq!(ended["reason"], "closed by the peer");
        assert_eq!(ended["read"], 5);
        assert_eq!(ended["written"], 5);
        assert!(
            ended["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0)
        );
        let said = ended["message"].as_str();
        assert_eq!(
            said,
            Some(&*format!("{name}: closed by the peer")),
            "{model:?}"
        );
    }
}

/// How a health check ends, and others that say nothing whole: by a reset if the second is true.
const VISITS: [(&[u8], bool); 8] = [
    (b"", false),
    (b"", true),
    (b"PROXY UNKNOWN\r\n", false),
    (b"PROXY UNKNOWN\r\nhello", true),
    (LOCAL_HEADER, false),
    (LOCAL_HEADER, true),
    (b"PROXY TC", false),
    (b"nonsense", false),
];

/// What HAProxy sends on the connection of a health check, in version 2.
const LOCAL_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn each_connection_that_was_accepted_has_one_end_in_the_log() {
    for model in MODELS {
        let arguments = [
            &["echo", "--listen", "tcp://127.0.0.1:0"][..],
            &["--proxy", "required", "--trust", "127.0.0.0/8"],
            &["--log-format", "json"],
            model,
        ];
        let served = Served::new(&arguments.concat());
        for (said, resets) in VISITS {
            let mut client = TcpStream::connect(socket_addr(served.uri(0))).expect("a server");
            client.write_all(said).expect("room");
            if resets {
                let linger = Some(Duration::ZERO);
                SockRef::from(&client).set_linger(linger).expect("a socket");
            }
        }
        // Those before it were accepted.
        let mut last = served.connect();
        last.send("PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\nhello");
        last.expect("hello");
        drop(last);
        served.signal(Signal::TERM);

        let objects = objects(&served.status_and_log());
        let of = |event: &str| {
            let about = objects.iter().filter(|object| object["event"] == event);
            let mut ids: Vec<_> = about.map(|it| it["id"].as_u64().expect("an id")).collect();
            ids.sort_unstable();
            ids
        };
        let accepted = of("accepted");
        assert_eq!(accepted, of("ended"), "{model:?}: {objects:#?}");
        assert!(!accepted.is_empty(), "{model:?}");
        if model.is_empty() {
            assert_eq!(accepted.len(), VISITS.len() + 1, "{objects:#?}");
        }
    }
}

#[test]
fn refusals_warnings_and_mistakes_are_objects_too() {
    let listen = ["--listen", "tcp://127.0.0.1:0", "--log-format", "json"];
    let deny = ["echo", "--deny", "127.0.0.1", "--max-line", "10"];
    let mut command = serveloop(&["serve"]);
    command
        .args(deny)
        .args(listen)
        .env("RUST_LOG", "info,nonsense=nonsense");
    let served = Served::spawn(command);
    served.connect().expect_cut();
    let refused = objects(&[served.logged("refused")]).remove(0);
    assert_eq!(refused["event"], "refused");
    assert_eq!(refused["reason"], "deny lists it");
    assert_eq!(refused["protocol"], "echo");
    served.signal(Signal::TERM);
    objects(&served.status_and_log());
}

/// A peer may choose a part of a line: the path of a Unix socket, or what a header names.
#[test]
fn peers_cannot_forge_an_object() {
    use std::os::unix::net::UnixDatagram;
    let directory = crate::support::sockets::Directory::new();
    let uri = directory.uri("unixgram", "server");
    let arguments = [
        "hello",
        "--delay",
        "0",
        "--log-format",
        "json",
        "-vv",
        "--listen",
        &uri,
    ];
    let served = Served::new(&arguments);
    let evil = directory.path("x\n{\"event\":\"forged\"}\u{1b}[2J");
    let client = UnixDatagram::bind(&evil).expect("a path");
    client
        .send_to(&[b'x'; 4], directory.path("server"))
        .expect("room");
    let mut room = [0; 64];
    client.recv(&mut room).expect("a reply");
    served.signal(Signal::TERM);
    for object in objects(&served.status_and_log()) {
        assert_ne!(object["event"], "forged");
    }
}

#[test]
fn what_is_dropped_is_told_by_an_object() {
    let arguments = [
        "serve",
        "hello",
        "--listen",
        "tcp://127.0.0.1:0",
        "--log-format",
        "json",
    ];
    let log = unclogged(&arguments);
    let lines: Vec<_> = log.lines().map(str::to_owned).collect();
    let first = objects(&lines).remove(0);
    assert!(
        first["message"]
            .as_str()
            .unwrap()
            .ends_with("log lines were dropped")
    );
}
