//! `serve command`: attempts to have it do more than run one program with its arguments.

use std::path::Path;

use crate::command::{Client, serve};
use crate::served::Served;
use crate::sockets::Directory;

const CORPUS: &str = include_str!("../corpus/injection.txt");

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
fn repeat(line: &str) -> String {
    let Some((begin, rest)) = line.split_once("@REPEAT:") else {
        return line.to_owned();
    };
    let (text, rest) = rest.split_once(':').expect("a text");
    let (count, rest) = rest.split_once('@').expect("an end");
    let count = count.parse().expect("a number");
    format!("{begin}{}{rest}", text.repeat(count))
}

#[track_caller]
fn unescape(text: &str) -> Vec<u8> {
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
        let first = attempt
            .split(u8::is_ascii_whitespace)
            .find(|word| !word.is_empty());
        let refused = reply.starts_with(b"[not allowed: ") || reply.starts_with(b"[bad request: ");
        // Quotes may make the program's very name of it.
        let named = first.is_some_and(|word| word.windows(6).any(|part| part == b"printf"));
        assert!(
            refused || named,
            "{} {}",
            attempt.escape_ascii(),
            reply.escape_ascii()
        );
        assert!(!canary.exists(), "{}", attempt.escape_ascii());
    }
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

/// What has neither quotes nor backslashes is split where there are spaces, and is otherwise kept.
#[test]
fn attempts_among_the_arguments_are_arguments() {
    let directory = Directory::new();
    let canary = directory.path("canary");
    let served = serve_printf();
    let mut client = Client::new(&served);
    let mut plain = 0;
    for attempt in attempts(&canary) {
        let reply = ask(
            &mut client,
            &[br"printf '%s\0' begin ", &attempt[..]].concat(),
        );
        assert!(!canary.exists(), "{}", attempt.escape_ascii());
        if attempt.iter().any(|byte| b"'\"\\\0".contains(byte)) {
            let known = reply.starts_with(b"begin\0") || reply.starts_with(b"[bad request: ");
            assert!(known, "{} {}", attempt.escape_ascii(), reply.escape_ascii());
            continue;
        }
        plain += 1;
        let separates = |byte: &u8| b" \t\r\n".contains(byte);
        let words = attempt.split(separates).filter(|word| !word.is_empty());
        let expected: Vec<_> = words.flat_map(|word| [word, b"\0"].concat()).collect();
        let expected = [b"begin\0", &expected[..]].concat();
        assert_eq!(
            reply.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
    assert!(plain > 200, "{plain}");
}

#[track_caller]
fn ask(client: &mut Client, request: &[u8]) -> Vec<u8> {
    client.send(request);
    client.reply()
}
