//! The errors of clients: on one line, without control characters, soon, and with advice that
//! helps.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::outside::skip;
use crate::support::running::run;
use crate::support::scripts::Scripted;
use crate::support::sockets::Directory;

#[test]
fn arguments_in_errors_stay_on_their_line() {
    let directory = Directory::new();
    let socket = directory.uri("unix", "a\nb\x1b[31m");
    let file = directory.path("none/\x1b[31m\r\n").display().to_string();
    let link = "\u{202e}http";
    let cases: [(&[&str], i32, &str); 7] = [
        (&["connect", &socket], 1, r"a\nb\u{1b}[31m: "),
        (
            &["fetch", "http://127.0.0.1:1/", "-o", &file],
            1,
            r"\u{1b}[31m\r\n: ",
        ),
        (&["fetch", "no\x1b[31m\nurl"], 2, r"no\u{1b}[31m\nurl: "),
        (&["fetch", link], 2, r"\u{202e}http: "),
        (
            &["fetch", "http://a/", "--timeout", "\x1b[31m\n"],
            2,
            r"'\u{1b}[31m\n'",
        ),
        (&["\x1b[31m\n"], 2, r"'\u{1b}[31m\n'"),
        (
            &[
                "serve",
                "echo",
                "--listen",
                &socket.replace("unix:", "\x1b"),
            ],
            2,
            r"\u{1b}//",
        ),
    ];
    for (arguments, status, expected) in cases {
        let said = run(arguments, "");
        let text = &said.stderr;
        assert_eq!(said.code, Some(status), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(['\x1b', '\r', '\u{202e}']), "{text:?}");
        assert!(status == 2 || text.lines().count() == 1, "{text}");
    }
}

/// A peer that makes no sense gets no second to say more.
#[test]
fn a_length_that_is_too_long_is_told_at_once() {
    let cases: [(&[&str], &[u8]); 3] = [
        (&["--framing", "length"], b"\x80\0\0\0"),
        (&["--protocol", "command"], b"\x80\0\0\0"),
        (&["--protocol", "echo"], b"and more than was asked for"),
    ];
    for (options, bytes) in cases {
        // A machine with other things to do may be late, but not each time.
        let is_soon = (0..5).any(|_| time_until_told(options, bytes) < Duration::from_millis(900));
        assert!(is_soon, "{options:?}");
    }
}

fn time_until_told(options: &[&str], bytes: &'static [u8]) -> Duration {
    let server = Scripted::new(move |mut stream| {
        let _ = stream.write_all(bytes);
        // Only the client ends it.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let uri = server.uri();
    let began = Instant::now();
    run(&[&["connect", &uri], options].concat(), "x\n").badly();
    let took = began.elapsed();
    server.end();
    took
}

#[test]
fn a_line_that_no_datagram_holds_is_told_with_the_limit() {
    for length in [65_508, 66_000, 300_000] {
        let text = run(&["connect", "udp://127.0.0.1:9"], "x".repeat(length)).badly();
        assert!(text.contains("a line is longer than 65507 bytes"), "{text}");
    }
}

#[test]
fn a_line_without_an_end_is_told_with_the_limit() {
    let server = Scripted::new(|mut stream| {
        let _ = stream.write_all(&[b'x'; 2_000]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let options = ["--framing", "line", "--max-message", "1000"];
    let uri = server.uri();
    let text = run(&[&["connect", &uri], &options[..]].concat(), "").badly();
    assert!(text.contains("at most 1000 allowed"), "{text}");
    server.end();
}

/// In a network of its own, which has one port for clients.
#[test]
fn a_lack_of_local_ports_is_explained() {
    let script = "ip link set lo up && cd /proc/sys/net/ipv4 && echo 40000 40000 > ip_local_port_range \
        && echo 0 > tcp_tw_reuse || exit 77\n\
        \"$0\" serve echo --listen tcp://127.0.0.1:7000 >/dev/null 2>&1 & server=$!\n\
        tries=0\n\
        until echo a | \"$0\" connect tcp://127.0.0.1:7000 2>/dev/null; do\n\
        tries=$((tries + 1)); [ $tries -lt 500 ] || break; sleep 0.01; done\n\
        echo b | \"$0\" connect tcp://127.0.0.1:7000; status=$?\n\
        kill $server; wait $server; exit $status";
    let output = Command::new("timeout")
        .args(["30", "unshare", "-n", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_serveloop"))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return skip("timeout");
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let is_without = matches!(output.status.code(), Some(77 | 126 | 127));
    if is_without || text.contains("unshare:") {
        return skip(&format!("unshare and ip, as root: {text}"));
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no local port is free"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
