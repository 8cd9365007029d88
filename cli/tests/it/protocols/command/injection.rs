//! `serve command`: attempts to have it do more than run one program with its arguments.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::protocols::command::{Client, serve};
use crate::support::outside::skip;
use crate::support::served::Served;
use crate::support::sockets::Directory;

const CORPUS: &str = include_str!("../../../corpus/injection.txt");

/// The attempts that there are, at least; a corpus that shrinks unnoticed tests nothing.
const ATTEMPTS_LEAST: usize = 500;

fn attempts(canary: &Path) -> Vec<Vec<u8>> {
    let canary = canary.display().to_string();
    let lines = CORPUS.lines().filter_map(|line| line.strip_prefix("> "));
    let attempts: Vec<_> = lines
        .map(|line| unescape(&repeat(line).replace("@CANARY@", &canary)))
        .collect();
    assert!(attempts.len() >= ATTEMPTS_LEAST);
    attempts
}

/// Writes `@REPEAT:TEXT:COUNT@` out.
pub(crate) fn repeat(line: &str) -> String {
    let Some((begin, rest)) = line.split_once("@REPEAT:") else {
        return line.to_owned();
    };
    let (text, rest) = rest.split_once(':').expect("a text");
    let (count, rest) = rest.split_once('@').expect("an end");
    let count = count.parse().expect("a number");
    format!("{begin}{}{rest}", text.repeat(count))
}

#[track_caller]
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let escape = rest.next().unwrap_or_else(|| panic!("{text}"));
        let mut hex = |digits: usize| {
            let number: String = rest.by_ref().take(digits).collect();
            u32::from_str_radix(&number, 16).unwrap_or_else(|_| panic!("{text}"))
        };
        match escape {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            '\\' => bytes.push(b'\\'),
            'x' => bytes.push(u8::try_from(hex(2)).expect("two digits")),
            'u' => {
                let letter = char::from_u32(hex(4)).expect("a character");
                bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            }
            _ => panic!("{text}"),
        }
    }
    bytes
}

/// One word that means `text`, whatever is in it.
fn quoted(text: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = text.split(|byte| *byte == b'\'').collect();
    [b"'", &parts.join(&br"'\''"[..])[..], b"'"].concat()
}

/// Only this program is allowed. It prints each of its arguments as it is, and a NUL after it.
fn serve_printf() -> Served {
    serve(&["printf"], &[])
}

#[test]
fn no_attempt_runs_what_is_not_allowed() {
    let directory = Directory::new();
    let canary = directory.path("canary");
    let served = serve_printf();
    let mut client = Client::new(&served);
    for attempt in attempts(&canary) {
        let reply = ask(&mut client, &attempt);
        assert_refused(&attempt, &reply);
        assert!(!canary.exists(), "{}", attempt.escape_ascii());
    }
}

/// In the raw forms a line end separates requests, each of which is looked at.
#[test]
fn no_line_of_an_attempt_runs_what_is_not_allowed() {
    let directory = Directory::new();
    let canary = directory.path("canary");
    let served = serve(&["printf"], &["--wire", "struct"]);
    let mut client = Client::new(&served);
    for attempt in attempts(&canary) {
        client.write(&attempt);
        for line in attempt.split_inclusive(|byte| *byte == b'\n') {
            let header = client.read(4).try_into().expect("four bytes");
            let length = usize::try_from(i32::from_le_bytes(header)).expect("a length");
            assert_refused(line, &client.read(length));
        }
        assert!(!canary.exists(), "{}", attempt.escape_ascii());
    }
}

/// Whether a request was refused, unless it names the program that is allowed, as quotes may make
/// of it too.
#[track_caller]
fn assert_refused(request: &[u8], reply: &[u8]) {
    let refused = reply.starts_with(b"[not allowed: ") || reply.starts_with(b"[bad request: ");
    let mut words = request.split(u8::is_ascii_whitespace);
    let first = words.find(|word| !word.is_empty()).unwrap_or_default();
    let named = first.windows(6).any(|part| part == b"printf");
    let (request, reply) = (request.escape_ascii(), reply.escape_ascii());
    assert!(refused || named, "{request} {reply}");
}

#[test]
fn quoted_attempts_are_one_argument_each() {
    let directory = Directory::new();
    let canary = directory.path("canary");
    let served = serve_printf();
    let mut client = Client::new(&served);
    for attempt in attempts(&canary) {
        let reply = ask(
            &mut client,
            &[br"printf '%s\0' ", &quoted(&attempt)[..]].concat(),
        );
        if attempt.contains(&0) {
            assert!(reply.starts_with(b"[bad request: NUL at byte "));
        } else {
            let expected = [&attempt[..], b"\0"].concat();
            assert_eq!(
                reply.escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
        }
        assert!(!canary.exists(), "{}", attempt.escape_ascii());
    }
}

/// What Python's `shlex.split` makes of each text; `None` where it refuses one, and NULs apart.
fn split_by_python(texts: &[Vec<u8>]) -> Option<Vec<Option<Vec<u8>>>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/shlex_split.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let lines: String = texts.iter().map(|text| hex(text) + "\n").collect();
    let mut stdin = python.stdin.take().expect("a pipe");
    let writer = thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = python.wait_with_output().expect("our child");
    writer.join().expect("it ends").expect("a reader");
    let printed = String::from_utf8(output.stdout).expect("text");
    let words = |line: &str| {
        line.split(' ')
            .skip(1)
            .map(unhex)
            .map(terminated)
            .collect::<Vec<_>>()
    };
    let splits = printed
        .lines()
        .map(|line| (line != "!").then(|| words(line).concat()));
    Some(splits.collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits
        .map(|pair| u8::from_str_radix(pair, 16).expect("digits"))
        .collect()
}

fn terminated(word: Vec<u8>) -> Vec<u8> {
    [&word[..], b"\0"].concat()
}

#[test]
fn words_are_those_of_python() {
    let directory = Directory::new();
    let canary = directory.path("canary");
    let mut attempts = attempts(&canary);
    attempts.retain(|attempt| !attempt.contains(&0));
    let Some(splits) = split_by_python(&attempts) else {
        return skip("python3");
    };
    assert_eq!(splits.len(), attempts.len());
    let served = serve_printf();
    let mut client = Client::new(&served);
    for (attempt, split) in attempts.iter().zip(splits) {
        let reply = ask(
            &mut client,
            &[br"printf '%s\0' begin ", &attempt[..]].concat(),
        );
        match split {
            Some(words) => {
                let expected = [b"begin\0", &words[..]].concat();
                assert_eq!(
                    reply.escape_ascii().to_string(),
                    expected.escape_ascii().to_string()
                );
            }
            None => assert!(
                reply.starts_with(b"[bad request: "),
                "{}",
                reply.escape_ascii()
            ),
        }
    }
    assert!(!canary.exists());
}

#[track_caller]
fn ask(client: &mut Client, request: &[u8]) -> Vec<u8> {
    client.send(request);
    client.reply()
}
