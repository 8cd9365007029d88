//! `/metrics`, `/healthz` and `/readyz`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use rustix::process::Signal;

use crate::monitoring::{Monitored, Scraper, TCP, get, request, value};
use crate::support::outside::require;
use crate::support::served::{MODELS, Outcome, Served};
use crate::support::sockets::{Directory, Stream};

#[track_caller]
fn check_with_promtool(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("a reader");
    drop(stdin);
    let output = promtool.wait_with_output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[track_caller]
fn check_equation(text: &str) {
    let begun = value(text, "serveloop_connections_accepted_total")
        + value(text, "serveloop_connections_connected_total");
    let open = value(text, "serveloop_connections_open");
    let closed: u64 = text
        .lines()
        .filter(|line| line.starts_with("serveloop_connections_closed_total{"))
        .map(|line| {
            let (_, count) = line.rsplit_once(' ').expect("a value");
            count.parse::<u64>().expect("a number")
        })
        .sum();
    assert_eq!(begun, open + closed, "{text}");
}

#[test]
fn every_model_has_pages() {
    for model in MODELS {
        let server = Monitored::echo(model);
        server.await_status("/readyz", 200);
        let mut client = server.served.connect();
        client.send("hello");
        client.expect("hello");

        let begin = std::time::Instant::now();
        let page = loop {
            let page = server.get("/metrics");
            check_equation(&page.body);
            if page.value("serveloop_connections_open") == 1 {
                break page;
            }
            assert!(begin.elapsed().as_secs() < 20, "{model:?}: {page:?}");
        };
        assert_eq!(page.status, 200, "{model:?}");
        assert!(page.head.contains("text/plain; version=0.0.4"), "{page:?}");
        assert_eq!(page.value("serveloop_connections_accepted_total"), 1);
        assert_eq!(page.value("serveloop_loops_unanswered"), 0, "{model:?}");
        let loops = if model.contains(&"2") { 2 } else { 1 };
        assert_eq!(page.value("serveloop_loops"), loops, "{model:?}");
        if require("promtool") {
            check_with_promtool(&page.body);
        }
        assert_eq!(server.get("/healthz").body, "ok\n", "{model:?}");

        drop(client);
        let metrics = server.metrics.clone();
        let log = server.end().join("\n");
        // Pages are no clients of the server.
        assert_eq!(log.matches(": accepted\n").count(), 1, "{model:?}: {log}");
        assert!(log.contains("] accepted 1, "), "{model:?}: {log}");
        let gone = std::net::TcpStream::connect(&metrics["tcp://".len()..]);
        assert!(gone.is_err(), "{model:?}: pages outlive the server");
    }
}

fn churn(uri: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = Stream::connect(uri);
        client.send("hello");
        client.expect("hello");
    }
}

#[test]
fn a_thousand_scrapes_under_churn_keep_the_equation() {
    for model in [&[][..], &["--workers", "2"], &["--model", "threaded"]] {
        let server = Monitored::echo(model);
        server.await_status("/readyz", 200);
        let (stop, uri) = (AtomicBool::new(false), server.served.uri(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| churn(uri, &stop));
            }
            let mut scraper = Scraper::connect(&server.metrics);
            let (mut last, mut changes) = (0, 0);
            for _ in 0..1_000 {
                let text = scraper.metrics();
                check_equation(&text);
                let accepted = value(&text, "serveloop_connections_accepted_total");
                assert!(accepted >= last, "{model:?}: counters never fall");
                changes += u32::from(accepted > last);
                last = accepted;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(changes > 10, "{model:?}: {changes} changes were seen");
        });
        server.served.signal(Signal::TERM);
        server.served.status();
    }
}

#[test]
fn readiness_ends_with_the_delay_of_a_drain() {
    for model in MODELS {
        let server = Monitored::echo(&[model, &["--drain-delay", "2s"]].concat());
        server.await_status("/readyz", 200);
        server.served.signal(Signal::TERM);
        server.await_status("/readyz", 503);
        // Clients are served on, and the server is as healthy as before.
        let mut client = server.served.connect();
        client.send("hello");
        client.expect("hello");
        assert_eq!(server.get("/healthz").status, 200, "{model:?}");
        assert_eq!(server.get("/metrics").value("serveloop_leaving"), 1);
        drop(client);
        let log = server.served.status_and_log().join("\n");
        assert!(log.contains("--drain-delay"), "{model:?}: {log}");
    }
}

/// Pages are there as long as connections are.
#[test]
fn pages_go_on_during_a_drain() {
    for model in MODELS {
        let server = Monitored::echo(&[model, &["--drain-timeout", "3s"]].concat());
        // A client that takes nothing of what it is owed keeps the drain from ending.
        let client = server.served.connect();
        let Stream::Tcp(stream) = &client else {
            panic!("a TCP address");
        };
        stream.set_nonblocking(true).expect("a socket");
        let (much, begin) = (vec![b'x'; 1 << 20], std::time::Instant::now());
        let mut sent = 0;
        let mut last = std::time::Instant::now();
        while last.elapsed().as_millis() < 300 && begin.elapsed().as_secs() < 20 {
            match (&*stream).write(&much) {
                Ok(count) => {
                    sent += count;
                    last = std::time::Instant::now();
                }
                Err(_) => thread::sleep(std::time::Duration::from_millis(5)),
            }
        }

        assert!(sent > 0, "{model:?}");
        server.served.signal(Signal::TERM);
        server.await_status("/readyz", 503);
        let page = server.get("/metrics");
        assert_eq!(page.status, 200, "{model:?}");
        assert_eq!(page.value("serveloop_leaving"), 1, "{model:?}");
        assert_eq!(page.value("serveloop_connections_open"), 1, "{model:?}");
        drop(client);
        server.served.status();
    }
}

#[test]
fn what_is_no_page_is_refused() {
    let server = Monitored::echo(&[]);
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/metrics/").status, 404);
    assert_eq!(server.get("/metrics?name=x").status, 200);

    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
        for path in ["/", "/metrics", "/healthz", "/readyz", "/live"] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n");
            let page = request(&server.metrics, &head);
            assert_eq!(page.status, 405, "{method} {path}");
            assert!(page.head.contains("Allow: GET, HEAD"), "{page:?}");
        }
    }
    let head = request(&server.metrics, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("Content-Length: "), "{head:?}");
    assert_eq!(
        request(&server.metrics, "GET /metrics HTTP/1.1\r\n").status,
        400
    );
    server.end();
}

#[test]
fn a_socket_with_a_file_has_pages_that_only_its_owner_reads() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "metrics");
    for model in MODELS {
        let served = Served::new(&[&["echo"], &TCP[..], &["--metrics", &uri], model].concat());
        assert_eq!(served.printed(), format!("metrics on {uri}"));
        let mode = fs::metadata(directory.path("metrics")).expect("a file");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{model:?}");
        let page = get(&uri, "/metrics");
        assert_eq!(page.status, 200, "{model:?}");
        served.signal(Signal::TERM);
        served.status_and_log();
        assert!(!directory.path("metrics").exists(), "{model:?}");
    }
}

/// Nothing is served that would be open to others without a word.
#[test]
fn addresses_that_make_no_sense_are_usage_errors() {
    let directory = Directory::new();
    let open = directory.uri("unix", "admin") + "?mode=0666";
    for (options, part) in [
        (&["--metrics", "nonsense"][..], "nonsense"),
        (&["--metrics", "udp://127.0.0.1:9"], "udp://127.0.0.1:9"),
        (&["--metrics", "tcp://127.0.0.1:99999"], "99999"),
        (&["--metrics", "tcp://127.0.0.1:0?frist=1"], "frist"),
        (&["--metrics", "tls://127.0.0.1:0"], "tls://127.0.0.1:0"),
        (&["--admin", "tcp://0.0.0.0:0"], "no password"),
        (&["--admin", "tcp://:0"], "no password"),
        (&["--admin", "unix:@serveloop-test"], "permissions"),
        (&["--admin", "unixgram:///tmp/x"], "unixgram"),
        (&["--admin", &open], "mode"),
        (&["--metrics-control"], "--metrics"),
        (
            &["--metrics", "tcp://0.0.0.0:0", "--metrics-control"],
            "no password",
        ),
    ] {
        let outcome = Outcome::new(&[&["serve", "echo"], &TCP[..], options].concat());
        assert_eq!(outcome.code, Some(2), "{options:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(part),
            "{options:?}: {}",
            outcome.stderr
        );
        assert_eq!(outcome.stdout, "", "{options:?}");
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", taken.local_addr().expect("a port"));
    for model in MODELS {
        let options = [&["serve", "echo"], &TCP[..], &["--metrics", &uri], model].concat();
        let outcome = Outcome::new(&options);
        assert_eq!(outcome.code, Some(1), "{model:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(&uri),
            "{model:?}: {}",
            outcome.stderr
        );
        assert_eq!(outcome.stdout, "", "{model:?}");
    }
}

#[test]
fn others_who_can_see_pages_are_warned_of() {
    let options = [&["echo"], &TCP[..], &["--metrics", "tcp://0.0.0.0:0"]].concat();
    let served = Served::new(&options);
    served.logged("other machines can see who is connected");
    served.signal(Signal::TERM);
    served.status();
}

/// Its children hold what it had open, but not its pages.
#[test]
fn a_killed_server_that_forked_leaves_no_pages_behind() {
    let server = Monitored::echo(&["--model", "forking"]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");
    server.served.signal(Signal::KILL);
    let begin = std::time::Instant::now();
    let addr = server.metrics["tcp://".len()..].to_owned();
    while std::net::TcpStream::connect(&addr).is_ok() {
        assert!(begin.elapsed().as_secs() < 20, "pages outlive the server");
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let _: Stream = client;
}

/// The process of the pages says what its server said last, as the threads of other models do.
#[test]
fn pages_of_a_server_that_forks_answer_while_it_is_held_up() {
    let server = Monitored::echo(&["--model", "forking"]);
    server.await_status("/readyz", 200);
    assert_eq!(
        server.get("/metrics").value("serveloop_loops_unanswered"),
        0
    );
    server.served.signal(Signal::STOP);

    let begin = std::time::Instant::now();
    let pages = ["/healthz", "/readyz", "/metrics"].map(|path| server.get(path));
    let took = begin.elapsed();
    thread::sleep(std::time::Duration::from_secs(11));
    let stuck = ["/healthz", "/readyz"].map(|path| server.get(path));
    server.served.signal(Signal::CONT);

    assert!(took.as_secs() < 2, "{took:?}");
    for page in &pages {
        assert_eq!(page.status, 200, "{page:?}");
    }
    assert_eq!(pages[2].value("serveloop_loops_unanswered"), 1);
    for page in stuck {
        assert_eq!(page.status, 503, "{page:?}");
        let part = "1 of 1 loop without an answer";
        assert!(page.body.contains(part), "{page:?}");
    }
    server.await_status("/healthz", 200);
    assert_eq!(
        server.get("/metrics").value("serveloop_loops_unanswered"),
        0
    );
    server.end();
}
