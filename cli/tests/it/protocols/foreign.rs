//! Servers that act on requests, and what browsers can be made to send to them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use rustix::process::Signal;

use crate::protocols::command::injection::{repeat, unescape};
use crate::protocols::command::serve;
use crate::support::served::{PATIENCE, Served};
use crate::support::sockets::{Directory, socket_addr};

const TABLE: &str = include_str!("../../corpus/hostile.txt");

/// The rows that there are for a server, at least; a table that shrinks unnoticed tests nothing.
const ROWS_LEAST: usize = 8;

struct Row<'a> {
    servers: &'a str,
    input: Vec<u8>,
    is_closed: bool,
    reason: &'a str,
    counter: &'a str,
}

impl<'a> Row<'a> {
    #[track_caller]
    fn of(line: &'a str) -> Self {
        let (servers, rest) = line.split_once(" | ").expect("servers");
        let mut fields = rest.rsplitn(4, " | ");
        let counter = fields.next().expect("a counter");
        let reason = fields.next().expect("a reason");
        let is_closed = match fields.next() {
            Some("closed") => true,
            Some("open") => false,
            _ => panic!("closed or open: {line}"),
        };
        let input = fields.next().expect("an input");
        Self {
            servers,
            input: unescape(&repeat(input)),
            is_closed,
            reason,
            counter,
        }
    }

    fn is_for(&self, server: &str) -> bool {
        self.servers.split(' ').any(|name| name == server)
    }
}

#[track_caller]
fn connect(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(socket_addr(served.uri(0))).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Sends a row's input and a line that acts, and waits for the end. Only where the connection goes on
/// is it ended by us.
#[track_caller]
fn attempt(served: &Served, row: &Row<'_>, canary: &Path) {
    let mut client = connect(served);
    let name = client.local_addr().expect("a socket");
    let act = format!("\r\ntouch {0}\ntouch {0}\n", canary.display());
    let acts = row.is_closed && !row.is_for("dispatch");
    let input = [&row.input[..], if acts { act.as_bytes() } else { b"" }].concat();
    client.write_all(&input).expect("an open connection");
    if !row.is_closed {
        client.shutdown(Shutdown::Write).expect("a connection");
    }
    // A reset is an end, too.
    let _ = client.read_to_end(&mut Vec::new());
    served.logged(&format!("tcp://{name}: {}", expected(row)));
}

fn expected(row: &Row<'_>) -> String {
    if row.counter == "closed_malformed" {
        let between = if row.reason == "malformed" {
            ""
        } else {
            "malformed: "
        };
        return format!("protocol error: {between}{}", row.reason);
    }
    row.reason.to_owned()
}

#[track_caller]
fn check(server: &str, served: Served) {
    let directory = Directory::new();
    let canary = directory.path("canary");
    let lines = TABLE.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<_> = lines
        .map(Row::of)
        .filter(|row| row.is_for(server))
        .collect();
    assert!(rows.len() >= ROWS_LEAST);

    let mut counters = BTreeMap::new();
    for row in &rows {
        attempt(&served, row, &canary);
        *counters.entry(row.counter).or_insert(0) += 1;
        assert!(!canary.exists(), "{}", row.input.escape_ascii());
    }

    served.signal(Signal::TERM);
    let summary = served.logged("accepted ");
    for (counter, count) in counters {
        let expected = format!("{counter} {count}");
        let mut parts = summary.split([',', ';', ' ']).collect::<Vec<_>>();
        parts.retain(|part| !part.is_empty());
        let found = parts.windows(2).any(|pair| pair.join(" ") == expected);
        assert!(found, "{expected} in {summary}");
    }
}

#[test]
fn what_browsers_send_runs_nothing_by_any_wire() {
    for wire in ["framed", "struct", "ready"] {
        check(wire, serve(&["touch", "cat"], &["--wire", wire, "-v"]));
    }
}

#[test]
fn what_browsers_send_calls_no_action() {
    let served = Served::new(&["dispatch", "--listen", "tcp://127.0.0.1:0", "-v"]);
    check("dispatch", served);
}

/// As it comes when each byte is a segment of its own, and so a request of its own until it is clear.
#[test]
fn a_request_line_that_comes_byte_by_byte_is_recognised() {
    for wire in ["framed", "struct", "ready"] {
        let served = serve(&["echo"], &["--wire", wire]);
        let mut client = connect(&served);
        for byte in b"POST / HTTP/1.1\r\n" {
            // The server may have ended it meanwhile.
            if client.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let _ = client.read_to_end(&mut Vec::new());
        served.logged("protocol error: malformed");
    }
}

#[test]
fn a_web_page_is_warned_of_once() {
    let served = serve(&["echo"], &["--wire", "struct"]);
    for _ in 0..3 {
        let mut client = connect(&served);
        client.write_all(b"GET / HTTP/1.1\r\n").expect("a socket");
        let _ = client.read_to_end(&mut Vec::new());
    }
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert!(status.success());
    let warnings = log.iter().filter(|line| line.contains("A web page can"));
    assert_eq!(warnings.count(), 1, "{log:?}");
}

#[test]
fn an_echo_of_http_is_an_echo() {
    let served = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let mut client = served.connect();
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(request);
    client.expect(request);
}
