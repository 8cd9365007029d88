//! The corpus of malformed, ambiguous and excessive requests, with the answer that each must get.

use std::collections::BTreeSet;
use std::sync::Arc;

use serveloop::testing::MemorySession;
use serveloop::{Config, Limits};
use serveloop_http::{Handler, Http, Reply, Request, Response, Settings};

use crate::support::{dateless, read_responses};

const CORPUS: &str = include_str!("../corpus/requests.txt");

#[derive(Debug)]
struct Entry {
    name: &'static str,
    statuses: Vec<u16>,
    is_open: bool,
    stream: Vec<u8>,
}

fn entries() -> Vec<Entry> {
    let lines = CORPUS
        .lines()
        .filter(|line| !line.starts_with("# ") && *line != "#");
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        if let Some(title) = line.strip_prefix("== ") {
            let (name, expected) = title.rsplit_once(": ").expect("what is expected");
            let (statuses, end) = expected.rsplit_once(' ').expect("an end");
            entries.push(Entry {
                name,
                statuses: statuses
                    .split(' ')
                    .map(|status| status.parse().expect(name))
                    .collect(),
                is_open: match end {
                    "open" => true,
                    "closed" => false,
                    _ => panic!("{name}: {end}"),
                },
                stream: Vec::new(),
            });
        } else if let Some(entry) = entries.last_mut() {
            entry.stream.extend(decode(line));
        }
    }
    entries
}

/// Turns `\r`, `\xHH` and `{3*abc}` into what they stand for.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '\\' => {
                let (byte, after) = escape(rest);
                bytes.push(byte);
                rest = after;
            }
            '{' => {
                let (count, after) = rest.split_once('*').expect("a number");
                let end = matching_brace(after);
                let once = decode(&after[..end]);
                bytes.extend(once.repeat(count.parse().expect("a number")));
                rest = &after[end + 1..];
            }
            _ => bytes.extend(next.to_string().bytes()),
        }
    }
    bytes
}

fn escape(rest: &str) -> (u8, &str) {
    let byte = match rest.as_bytes()[0] {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'\\' => b'\\',
        b'x' => {
            let byte = u8::from_str_radix(&rest[1..3], 16).expect("two digits");
            return (byte, &rest[3..]);
        }
        other => panic!("\\{}", char::from(other)),
    };
    (byte, &rest[1..])
}

fn matching_brace(text: &str) -> usize {
    let mut depth = 0;
    for (at, next) in text.char_indices() {
        match next {
            '{' => depth += 1,
            '}' if depth == 0 => return at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("no brace closes {text}");
}

fn answer(request: &Request<'_>) -> Reply {
    match request.method {
        "POST" => Reply::collect(100, |_| Response::text("posted\n")),
        _ => Response::text("ok\n").into(),
    }
}

fn http() -> Http<impl Handler> {
    let settings = Settings {
        max_head: 1_000,
        max_fields: 10,
        max_body: Some(100),
        ..dateless()
    };
    Http::new(answer).with_settings(&Arc::new(settings))
}

/// Sends `pieces` and then the end of the stream. Returns the output, and whether the connection was
/// still open before the end.
fn run(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let limits = Limits {
        max_line: 200,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let mut session = MemorySession::with_config(http(), config);
    for piece in pieces {
        session.receive(piece);
    }
    let mut sent = session.sent();
    let is_open = session.reason().is_none();
    session.receive_eof();
    sent.extend(session.sent());
    (sent, is_open)
}

#[test]
fn each_request_gets_its_answer() {
    let entries = entries();
    let names: BTreeSet<_> = entries.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), entries.len(), "every name is there once");
    let refused = entries.iter().filter(|entry| !entry.is_open).count();
    assert!(refused >= 100, "{refused} only");

    for entry in &entries {
        let heads: Vec<usize> = entry
            .stream
            .starts_with(b"HEAD")
            .then_some(0)
            .into_iter()
            .collect();
        let (sent, is_open) = run(&[&entry.stream]);
        let seen = read_responses(&sent, &heads);
        let statuses: Vec<u16> = seen.iter().map(|seen| seen.status).collect();
        assert_eq!(statuses, entry.statuses, "{}: {seen:?}", entry.name);

        // A stream that only ends too early is open until then.
        let ends_early = entry.name.starts_with("the input ends");
        assert_eq!(
            is_open,
            entry.is_open || ends_early,
            "{}: {seen:?}",
            entry.name
        );
        let is_last_closed = seen.last().and_then(|seen| seen.field("connection")) == Some("close");
        assert_eq!(is_last_closed, !entry.is_open, "{}: {seen:?}", entry.name);
    }
}

#[test]
fn the_answers_do_not_depend_on_how_requests_are_cut() {
    for entry in entries() {
        let stream = &entry.stream;
        let (expected, _) = run(&[stream]);
        let expected = String::from_utf8_lossy(&expected).into_owned();
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        let cuts = (1..stream.len()).map(|at| vec![&stream[..at], &stream[at..]]);
        for pieces in cuts.chain([single]) {
            let (sent, _) = run(&pieces);
            assert_eq!(
                String::from_utf8_lossy(&sent),
                expected,
                "{}: {pieces:?}",
                entry.name
            );
        }
    }
}

/// Every refusal says what is wrong.
#[test]
fn each_refusal_has_a_reason() {
    for entry in entries()
        .iter()
        .filter(|entry| entry.statuses.iter().any(|status| *status >= 400))
    {
        if entry.stream.starts_with(b"HEAD") {
            continue;
        }
        let (sent, _) = run(&[&entry.stream]);
        let seen = read_responses(&sent, &[]);
        let last = seen.last().expect("an answer");
        let (status, problem) = last.text().split_once(": ").expect("a reason");
        assert!(
            status.starts_with(&last.status.to_string()),
            "{}: {status}",
            entry.name
        );
        assert!(
            problem.ends_with('\n') && problem.len() > 10,
            "{}: {problem}",
            entry.name
        );
    }
}
