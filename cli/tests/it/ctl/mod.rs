//! `serveloop ctl`: looks into a running server, and steers it.

use std::fs;
use std::io::Write;

use rustix::process::Signal;
use serde_json::Value;

use crate::monitoring::Monitored;
use crate::support::served::{MODELS, Outcome, Served};
use crate::support::sockets::Directory;

impl Monitored {
    /// Runs `serveloop ctl` for this server.
    #[track_caller]
    fn ctl(&self, arguments: &[&str]) -> Outcome {
        Outcome::new(&[&["ctl", "--admin", &self.admin], arguments].concat())
    }

    /// Runs `serveloop ctl --json`, which has to work.
    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> Value {
        let outcome = self.ctl(&[&["--json"], arguments].concat());
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        serde_json::from_str(&outcome.stdout).expect("JSON")
    }

    /// Waits until that many connections are listed.
    #[track_caller]
    fn await_listed(&self, count: usize) -> Vec<Value> {
        let begin = std::time::Instant::now();
        loop {
            let answer = self.ask(&["ls"]);
            let listed = answer["connections"].as_array().expect("a list");
            if listed.len() == count {
                return listed.clone();
            }
            assert!(begin.elapsed().as_secs() < 20, "{answer}");
        }
    }
}

#[test]
fn connections_are_listed_shown_and_ended_in_every_model() {
    for model in MODELS {
        let server = Monitored::echo(model);
        let mut client = server.served.connect();
        client.send("hello");
        client.expect("hello");

        let listed = server.await_listed(1);
        let id = listed[0]["id"].to_string();
        assert_eq!(listed[0]["peer"], client.name(), "{model:?}");
        assert_eq!(listed[0]["local"], server.served.uri(0), "{model:?}");
        assert_eq!(
            server.ask(&["show", &id])["peer"],
            client.name(),
            "{model:?}"
        );
        let text = server.ctl(&["ls"]).stdout;
        assert!(text.starts_with("ID  PEER"), "{model:?}: {text}");
        assert!(text.contains(&client.name()), "{model:?}: {text}");
        let text = server.ctl(&["show", &id]).stdout;
        assert!(text.contains(&client.name()), "{model:?}: {text}");

        let unknown = server.ctl(&["end", "999999"]);
        assert_eq!(unknown.code, Some(1), "{model:?}");
        assert!(
            unknown
                .stderr
                .contains("no open connection has the id 999999")
        );
        assert_eq!(server.ctl(&["show", "999999"]).code, Some(1), "{model:?}");
        let unknown = server.ctl(&["--json", "show", "999999"]);
        assert_eq!(unknown.code, Some(1), "{model:?}");
        assert_eq!(
            unknown.stdout, r#"{"unknown":"no open connection has the id 999999"}"#,
            "{model:?}"
        );

        let ended = server.ctl(&["end", &id]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), ""),
            "{model:?}"
        );
        client.expect_end();
        drop(client);
        server.await_listed(0);
        assert_eq!(server.ctl(&["end", &id]).code, Some(1), "{model:?}");

        let mut client = server.served.connect();
        client.send("hello");
        client.expect("hello");
        let id = server.await_listed(1)[0]["id"].to_string();
        assert_eq!(
            server.ctl(&["end", "--abort", &id]).code,
            Some(0),
            "{model:?}"
        );
        client.expect_cut();
        let log = server.end().join("\n");
        assert!(log.contains("is ended on request"), "{model:?}: {log}");
    }
}

#[test]
fn lists_are_selected_and_sorted() {
    let server = Monitored::echo(&[]);
    let mut clients: Vec<_> = (0..5).map(|_| server.served.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let text = "x".repeat(number + 1);
        client.send(&text);
        client.expect(&text);
    }
    server.await_listed(5);
    let received = |arguments: &[&str]| -> Vec<u64> {
        let answer = server.ask(arguments);
        let all = answer["connections"].as_array().expect("a list").clone();
        all.iter()
            .map(|it| it["received"].as_u64().expect("a number"))
            .collect()
    };
    assert_eq!(received(&["ls"]), [1, 2, 3, 4, 5]);
    assert_eq!(received(&["ls", "--by", "traffic", "--first", "2"]), [5, 4]);
    assert_eq!(
        received(&["ls", "--from", "127.0.0.0/8", "--by", "idle"]).len(),
        5
    );
    assert_eq!(received(&["ls", "--from", "192.0.2.0/24"]).len(), 0);
    assert_eq!(received(&["ls", "--listener", "1"]).len(), 0);
    assert_eq!(received(&["ls", "--older-than", "1h"]).len(), 0);
    assert_eq!(received(&["ls", "--idle-for", "1h"]).len(), 0);
    let text = server.ctl(&["ls", "--first", "1"]).stdout;
    assert!(text.ends_with("(4 more)"), "{text}");
    let wrong = server.ctl(&["--json", "ls", "--from", "10.0.0.0/99"]);
    assert!(wrong.stdout.starts_with(r#"{"error":"#), "{}", wrong.stdout);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("10.0.0.0/99"), "{}", wrong.stderr);
    drop(clients);
    server.end();
}

#[test]
fn statistics_are_shown() {
    let server = Monitored::echo(&["--workers", "2"]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");
    server.await_listed(1);
    let stats = server.ask(&["stats"]);
    assert_eq!(
        (&stats["open"], &stats["loops"]),
        (&1.into(), &2.into()),
        "{stats}"
    );
    assert_eq!(stats["process"], server.served.process_id());
    let text = server.ctl(&["stats"]).stdout;
    for part in ["protocol", "echo", "accepted", "loop lag p99", "bytes_read"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(client);
    server.end();
}

#[test]
fn drain_does_what_sigterm_does() {
    for model in MODELS {
        let server = Monitored::echo(model);
        assert_eq!(server.ctl(&["drain"]).code, Some(0), "{model:?}");
        let log = server.served.status_and_log().join("\n");
        assert!(
            log.contains("asked to end through --admin"),
            "{model:?}: {log}"
        );
        assert!(log.contains("shutting down: "), "{model:?}: {log}");
    }
}

#[test]
fn the_level_of_the_log_changes_while_the_server_runs() {
    for model in MODELS
        .into_iter()
        .filter(|model| !model.contains(&"forking"))
    {
        let server = Monitored::echo(model);
        let greet = || {
            let mut client = server.served.connect();
            client.send("hello");
            client.expect("hello");
            client.name()
        };
        let first = greet();
        server.served.logged(&format!("{first}: accepted"));
        server.await_listed(0);
        assert_eq!(server.ctl(&["log", "warn"]).code, Some(0), "{model:?}");
        let second = greet();
        server.await_listed(0);
        assert_eq!(server.ctl(&["log", "DEBUG"]).code, Some(0), "{model:?}");
        let third = greet();
        server.served.logged(&format!("{third}: accepted"));
        server.await_listed(0);
        let log = server.end().join("\n");
        assert!(!log.contains(&format!("{second}: ")), "{model:?}: {log}");
    }
}

#[test]
fn reload_does_what_sighup_does() {
    let directory = Directory::new();
    let list = directory.path("list");
    fs::write(&list, "127.0.0.0/8\n").expect("a file");
    let allow = format!("@{}", list.display());
    for model in MODELS {
        fs::write(&list, "127.0.0.0/8\n").expect("a file");
        let server = Monitored::echo(&[model, &["--allow", &allow]].concat());
        let mut client = server.served.connect();
        client.send("hello");
        client.expect("hello");
        drop(client);
        server.await_listed(0);
        fs::write(&list, "192.0.2.0/24\n").expect("a file");
        assert_eq!(server.ctl(&["reload"]).code, Some(0), "{model:?}");
        let begin = std::time::Instant::now();
        loop {
            let mut client = server.served.connect();
            client.send_if_wanted("hello");
            if !client.echoes() {
                break;
            }
            assert!(
                begin.elapsed().as_secs() < 20,
                "{model:?}: the old list is in force"
            );
        }
        server.served.signal(Signal::TERM);
        server.served.status();
    }
}

#[test]
fn who_does_not_answer_is_explained() {
    let directory = Directory::new();
    let nowhere = directory.uri("unix", "nowhere");
    for (admin, part) in [
        (nowhere.as_str(), "was one started with --admin"),
        ("tcp://127.0.0.1:1", "was one started with --admin"),
    ] {
        let outcome = Outcome::new(&["ctl", "--admin", admin, "ls"]);
        assert_eq!(outcome.code, Some(1), "{admin}");
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(admin), "{}", outcome.stderr);
    }

    for arguments in [
        &["ctl", "ls"][..],
        &["ctl", "--admin", "nonsense", "ls"],
        &["ctl", "--admin", "udp://127.0.0.1:9", "ls"],
        &["ctl", "--admin", &nowhere],
        &["ctl", "--admin", &nowhere, "show"],
        &["ctl", "--admin", &nowhere, "show", "-1"],
        &["ctl", "--admin", &nowhere, "log", "loud"],
        &["ctl", "--admin", &nowhere, "ls", "--by", "colour"],
        &["ctl", "--admin", &nowhere, "dance"],
    ] {
        let outcome = Outcome::new(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
    }

    // Something else that listens there.
    let uri = directory.uri("unix", "echo");
    let served = Served::new(&["echo", "--listen", &uri]);
    let outcome = Outcome::new(&["ctl", "--admin", &uri, "ls"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("no server's --admin"),
        "{}",
        outcome.stderr
    );
    served.signal(Signal::TERM);
    served.status();
}

/// The address may have the options that the server has it with.
#[test]
fn the_address_is_that_of_the_server() {
    let directory = Directory::new();
    let admin = directory.uri("unix", "admin") + "?mode=0660";
    let arguments = ["echo", "--listen", "tcp://127.0.0.1:0", "--admin", &admin];
    let served = Served::new(&arguments);
    let outcome = Outcome::new(&["ctl", "--admin", &admin, "--json", "stats"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    served.signal(Signal::TERM);
    served.status();
}

#[test]
fn a_server_that_closes_without_an_answer_is_named() {
    let directory = Directory::new();
    let path = directory.path("admin");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let closing = std::thread::spawn(move || {
        // One is closed before the question, and one with most of the question unread.
        drop(listener.accept().expect("a client"));
        let (mut stream, _) = listener.accept().expect("a client");
        std::io::Read::read_exact(&mut stream, &mut [0]).expect("a question");
    });
    let admin = format!("unix://{}", path.display());
    for _ in 0..2 {
        let outcome = Outcome::new(&["ctl", "--admin", &admin, "stats"]);
        assert_eq!(outcome.code, Some(1));
        let part = "the server has closed the connection without an answer";
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(&admin), "{}", outcome.stderr);
    }
    closing.join().expect("no panic");
}

/// What `ctl` prints, other programs ask for with a line of JSON.
#[test]
fn the_socket_speaks_lines_of_json() {
    let server = Monitored::echo(&[]);
    let path = &server.admin["unix://".len()..];
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("a socket");
    stream
        .write_all(b"{\"do\":\"show\",\"id\":77}\n{\"do\":\"dance\"}\n{\"do\":\"drain\"}\n")
        .expect("room");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).expect("an end");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        lines[0],
        r#"{"unknown":"no open connection has the id 77"}"#
    );
    assert!(
        lines[1].starts_with(r#"{"error":"#) && lines[1].contains("dance"),
        "{text}"
    );
    // What came after the line that is no question was not done.
    assert_eq!(server.ask(&["stats"])["phase"], "serving");
    server.end();
}
