//! `serveloop bench` with servers that do not echo.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{bench, measured, results};
use crate::support::served::{Outcome, Served};

const LISTEN: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

fn serve(arguments: &[&str]) -> Served {
    Served::new(&[arguments, &LISTEN].concat())
}

/// A server that answers each piece of data with the reply of that number, counted by connection, and
/// ends with the process of the test. Returns its URI.
fn answering(reply: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", listener.local_addr().expect("its address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let reply = reply.clone();
            thread::spawn(move || {
                let mut data = [0; 4_096];
                let mut numbers = 0..;
                while stream.read(&mut data).is_ok_and(|size| size > 0) {
                    let reply = numbers.next().map(&reply).unwrap_or_default();
                    let _ = stream.write_all(&reply);
                }
            });
        }
    });
    uri
}

/// The benchmark of one connection has failed. Returns what it says.
#[track_caller]
fn failure(uri: &str, arguments: &[&str]) -> String {
    let target = ["--target", uri, "--connections", "1", "--timeout", "500ms"];
    let outcome = bench(&[&target, arguments].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(uri), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    outcome.stderr
}

const PING: [&str; 4] = ["--send", "PING\\r\\n", "--until", "\\r\\n"];

#[test]
fn servers_of_ours_speak_each_protocol() {
    for protocol in ["echo", "http", "resp", "websocket"] {
        let results = results(&[
            "--protocol",
            protocol,
            "--connections",
            "3",
            "--depth",
            "4",
            "--compare",
            "event-loop,workers=2,threaded",
        ]);
        assert_eq!(results.len(), 3);
        for result in &results {
            assert_eq!(result["protocol"], protocol);
            assert!(measured(result, "/per_second/median") > 0.0, "{protocol}");
            assert!(measured(result, "/server_microseconds_per_message/median") > 0.0);
        }
    }
}

#[test]
fn paces_are_kept_by_each_protocol() {
    for protocol in ["http", "resp", "websocket"] {
        for pace in [
            &["--churn"][..],
            &["--rate", "200"],
            &["--idle", "3", "--connections", "2"],
        ] {
            let common = ["--protocol", protocol, "--compare", "event-loop"];
            let mut arguments = [&common, pace].concat();
            if !pace.contains(&"--connections") {
                arguments.extend(["--connections", "2"]);
            }
            let results = results(&arguments);
            assert!(
                measured(&results[0], "/per_second/median") > 0.0,
                "{protocol} {pace:?}"
            );
        }
    }
}

#[test]
fn a_model_that_cannot_share_keys_says_so() {
    let results = results(&[
        "--protocol",
        "resp",
        "--compare",
        "forking",
        "--connections",
        "1",
    ]);
    assert_eq!(results[0]["skipped"], "processes do not share the keys");
}

#[test]
fn running_servers_are_asked_in_their_protocol() {
    for protocol in ["http", "resp", "websocket"] {
        let server = serve(&[protocol]);
        let process = server.process_id().to_string();
        let target = ["--target", server.uri(0), "--process", &process];
        let results =
            results(&[&target[..], &["--protocol", protocol, "--connections", "2"]].concat());
        assert!(measured(&results[0], "/per_second/median") > 0.0);
        assert!(measured(&results[0], "/server_microseconds_per_message/median") > 0.0);
        assert!(measured(&results[0], "/server_bytes_per_connection/median") >= 0.0);
    }
}

#[test]
fn any_protocol_can_be_typed() {
    let resp = serve(&["resp"]);
    let pong = ["--send", "PING\\r\\n", "--until", "+PONG\\r\\n"];
    let depth = ["--depth", "1,16", "--connections", "4"];
    let pinged = results(&[&["--target", resp.uri(0)], &pong[..], &depth].concat());
    assert_eq!(pinged.len(), 2);
    assert_eq!(pinged[0]["protocol"], "text");
    assert_eq!(pinged[0]["size"], 6);

    let memcached = serve(&["memcached"]);
    let stats = [
        "--send",
        "stats\\r\\n",
        "--until",
        "END\\r\\n",
        "--any-reply",
    ];
    let asked = results(
        &[
            &["--target", memcached.uri(0), "--connections", "2"],
            &stats[..],
        ]
        .concat(),
    );
    assert!(measured(&asked[0], "/per_second/median") > 0.0);

    // Texts that echo answers too, and lengths of every width.
    for width in ["u8", "u16", "u32", "u64"] {
        let common = ["--compare", "event-loop", "--connections", "2"];
        let prefixed = results(
            &[
                &common[..],
                &["--send", "a\\x00b", "--length-prefix", width],
            ]
            .concat(),
        );
        let bytes = 3 + width[1..].parse::<u64>().expect("a number") / 8;
        assert_eq!(prefixed[0]["size"], bytes);
        let dashes = results(&[&common[..], &["--send", "--", "--until", "--"]].concat());
        assert!(measured(&dashes[0], "/per_second/median") > 0.0);
    }
}

#[test]
fn a_reply_may_come_in_pieces_of_any_size() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", listener.local_addr().expect("its address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_nodelay(true).expect("a socket");
            let mut data = [0; 64];
            while stream.read(&mut data).is_ok_and(|size| size > 0) {
                let mut bytes = b"+PONG\r\n".iter();
                let _ = bytes.try_for_each(|byte| stream.write_all(&[*byte]));
            }
        }
    });
    let results = results(&[&["--target", &uri, "--connections", "1"], &PING[..]].concat());
    assert!(measured(&results[0], "/per_second/median") > 0.0);
}

#[test]
fn a_wrong_reply_is_a_failure() {
    let later = answering(|number| match number {
        9 => b"-ERR busy\r\n".to_vec(),
        _ => b"+PONG\r\n".to_vec(),
    });
    let text = failure(&later, &PING);
    let expected = "connection 1: a wrong reply, which differs from the first one at byte 1: \
                    \"-ERR busy\\r\\n\" came instead of \"+PONG\\r\\n\"";
    assert!(text.contains(expected), "{text}");
    let text = failure(&later, &["--send", "x", "--until", "+PONG\\r\\n"]);
    let expected = "\"-ERR busy\\r\\n\" came instead of \"+PONG\\r\\n\"";
    assert!(text.contains(expected), "{text}");

    let any = ["--target", &later, "--connections", "1", "--any-reply"];
    assert_eq!(bench(&[&any[..], &PING].concat()).code, Some(0));

    let two = answering(|number| b"+PONG\r\n".repeat(1 + usize::from(number == 7)));
    let text = failure(&two, &PING);
    assert!(
        text.contains("\"+PONG\\r\\n\" came without a request"),
        "{text}"
    );

    let never = answering(|_| b"-ERR unknown command\r\n".to_vec());
    let text = failure(&never, &["--send", "PING\\r\\n", "--until", "+PONG\\r\\n"]);
    assert!(
        text.contains("no reply ended with \"+PONG\\r\\n\""),
        "{text}"
    );
    assert!(
        text.contains("what came last was \"-ERR unknown command\\r\\n\""),
        "{text}"
    );
    let text = failure(&never, &["--protocol", "resp"]);
    assert!(
        text.contains("differs from what the protocol says"),
        "{text}"
    );
}

/// The other connections go on, so that only the end shows it.
#[test]
fn a_reply_that_is_missing_is_a_failure() {
    let silent = answering(|number| match number {
        20.. => Vec::new(),
        _ => b"+PONG\r\n".to_vec(),
    });
    let target = [
        "--target",
        &silent,
        "--connections",
        "1",
        "--timeout",
        "300ms",
    ];
    let outcome = bench(&[&target[..], &PING].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);

    let first = Arc::new(AtomicUsize::new(0));
    let one_of_two = answering(move |number| {
        let quiet = number == 5 && first.fetch_add(1, Ordering::Relaxed) == 0;
        if quiet {
            Vec::new()
        } else {
            b"+PONG\r\n".to_vec()
        }
    });
    let target = [
        "--target",
        &one_of_two,
        "--connections",
        "2",
        "--timeout",
        "300ms",
    ];
    let outcome = bench(&[&target[..], &PING].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("1 reply is missing"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn http_has_to_succeed() {
    let files = serve(&["http", "--root", "/"]);
    let text = failure(
        files.uri(0),
        &["--protocol", "http", "--path", "/nowhere/at/all"],
    );
    assert!(text.contains("status 404"), "{text}");

    let changing = answering(|number| {
        let body = if number == 6 { "b" } else { "a" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nDate: {number}\r\n\r\n{body}").into_bytes()
    });
    let text = failure(&changing, &["--protocol", "http"]);
    assert!(text.contains("\"b\" came instead of \"a\""), "{text}");
    let any = [
        "--target",
        &changing,
        "--connections",
        "1",
        "--protocol",
        "http",
        "--any-reply",
    ];
    assert_eq!(bench(&any).code, Some(0));

    let http = serve(&["http"]);
    let text = failure(http.uri(0), &["--protocol", "websocket"]);
    assert!(
        text.contains("handshake is answered with the status 200"),
        "{text}"
    );
    let websocket = serve(&["websocket"]);
    let text = failure(websocket.uri(0), &["--protocol", "http"]);
    assert!(text.contains("status 4"), "{text}");
}

#[test]
fn the_host_and_the_path_are_those_of_the_user() {
    let (tell, told) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut stream = listener.accept().expect("a client").0;
        let mut data = [0; 4_096];
        let size = stream.read(&mut data).expect("a request");
        tell.send(String::from_utf8_lossy(&data[..size]).into_owned())
            .expect("the test");
    });
    let uri = format!("tcp://localhost:{port}");
    let outcome = bench(&[
        "--target",
        &uri,
        "--protocol",
        "http",
        "--path",
        "/a?b=c",
        "--connections",
        "1",
    ]);
    assert_eq!(outcome.code, Some(1));
    let request = told
        .recv_timeout(Duration::from_secs(20))
        .expect("a request");
    assert_eq!(
        request,
        format!("GET /a?b=c HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")
    );
}

/// The system takes it for whoever asks.
#[test]
fn no_process_has_the_number_0() {
    let target = ["--target", "tcp://127.0.0.1:9", "--process", "0"];
    let outcome = Outcome::new(&[&["bench"], &target[..]].concat());
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let part = "--process 0: there is no such process";
    assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (arguments, part) in [
        (
            &["--send", "x"][..],
            "--send needs --until or --length-prefix",
        ),
        (&["--until", "x"], "--until needs --send"),
        (&["--length-prefix", "u8"], "--length-prefix needs --send"),
        (
            &["--send", "x", "--until", "y", "--length-prefix", "u8"],
            "--until cannot be used with --length-prefix",
        ),
        (
            &["--send", "x", "--until", "y", "--protocol", "http"],
            "--send cannot be used with --protocol",
        ),
        (
            &["--send", "", "--until", "y"],
            "--send: nothing would be sent",
        ),
        (
            &["--send", "x", "--until", ""],
            "--until: every reply would end",
        ),
        (&["--send", "x\\q", "--until", "y"], "\\q at byte 2"),
        (&["--send", "x", "--until", "\\x1"], "\\x at byte 1"),
        (&["--send", "x", "--length-prefix", "u24"], "u24"),
        (&["--protocol", "gopher"], "gopher"),
        (
            &["--protocol", "echo", "--until", "x"],
            "--until needs --send",
        ),
        (
            &["--path", "/"],
            "--path needs --protocol http or websocket",
        ),
        (&["--protocol", "resp", "--path", "/"], "--path needs"),
        (
            &["--protocol", "http", "--path", "x"],
            "--path: a path begins with a slash",
        ),
        (&["--protocol", "http", "--path", "/a b"], "--path: a path"),
        (
            &["--protocol", "http", "--size", "5"],
            "--size is for echo and websocket",
        ),
        (
            &["--send", "x", "--until", "y", "--size", "5"],
            "--size is for",
        ),
        (&["--any-reply"], "--any-reply needs"),
        (&["--protocol", "resp", "--any-reply"], "--any-reply needs"),
        (&["--process", "1"], "--process needs a single server"),
        (
            &["--target", "tcp://127.0.0.1:9", "--process", "999999999"],
            "no such process",
        ),
    ] {
        let outcome = Outcome::new(&[&["bench"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(part),
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
    let long = "x".repeat(256);
    let outcome = Outcome::new(&["bench", "--send", &long, "--length-prefix", "u8"]);
    assert_eq!(outcome.code, Some(2));
    let expected = "--length-prefix: 256 bytes are too many for a length of 1 byte";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}

#[cfg(feature = "tls")]
#[test]
fn any_protocol_is_measured_in_tls() {
    use crate::support::secure::certificate;

    let [chain, key] = ["localhost.pem", "localhost.key"].map(certificate);
    let uri = format!("tls://127.0.0.1:0?cert={chain}&key={key}");
    for protocol in ["http", "resp", "websocket"] {
        let server = Served::new(&[protocol, "--listen", &uri]);
        let target = [
            "--target",
            server.uri(0),
            "--insecure",
            "--connections",
            "2",
        ];
        let results = results(&[&target[..], &["--protocol", protocol]].concat());
        assert!(measured(&results[0], "/per_second/median") > 0.0);
    }
}
