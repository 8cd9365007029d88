//! What the clients make of odd input: each row of `odd_input.md` is run.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::support::running::{Running, Said};
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::terminal::terminal;

const TABLE: &str = include_str!("odd_input.md");

/// The cells of the rows below a heading, as bytes.
fn rows<const N: usize>(heading: &str) -> Vec<[Vec<u8>; N]> {
    let (_, section) = TABLE
        .split_once(&format!("\n## {heading}\n"))
        .expect("a heading");
    let section = section.split("\n## ").next().expect("a section");
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<_> = lines.map(row).collect();
    assert!(rows.len() > 10, "{heading}");
    rows
}

fn row<const N: usize>(line: &str) -> [Vec<u8>; N] {
    let cells = line.trim_matches('|').split(" | ").map(|cell| {
        let cell = cell.trim();
        let code = cell
            .strip_prefix('`')
            .and_then(|cell| cell.strip_suffix('`'));
        bytes(code.unwrap_or(cell))
    });
    let cells: Vec<_> = cells.collect();
    cells
        .try_into()
        .unwrap_or_else(|_| panic!("other cells: {line}"))
}

/// The bytes that a cell means.
fn bytes(cell: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), cell);
    while let Some(next) = rest.chars().next() {
        if let Some((count, text, after)) = repeated(rest) {
            bytes.extend(self::bytes(text).repeat(count));
            rest = after;
        } else if let Some(escape) = rest.strip_prefix('\\') {
            let (byte, length) = match escape.as_bytes()[0] {
                b'r' => (b'\r', 1),
                b'n' => (b'\n', 1),
                b't' => (b'\t', 1),
                b'0' => (b'\0', 1),
                b'x' => (
                    u8::from_str_radix(&escape[1..3], 16).expect("two digits"),
                    3,
                ),
                other => (other, 1),
            };
            bytes.push(byte);
            rest = &escape[length..];
        } else {
            bytes.extend(next.to_string().bytes());
            rest = &rest[next.len_utf8()..];
        }
    }
    bytes
}

/// `{3*abc}` and what follows it.
fn repeated(text: &str) -> Option<(usize, &str, &str)> {
    let (inside, after) = text.strip_prefix('{')?.split_once('}')?;
    let (count, text) = inside.split_once('*')?;
    Some((count.parse().ok()?, text, after))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("a cell of text")
}

/// What a row says, besides its input.
struct Expected {
    stdout: Vec<u8>,
    status: String,
    stderr: String,
}

impl Expected {
    /// All that is different.
    fn compare(&self, row: &str, said: &Said) -> Option<String> {
        let stderr = said.stderr.lines().count();
        let is_told = match (&*self.status, stderr) {
            ("0", count) => count == 0 && self.stderr.is_empty(),
            // One line; a mistake in the command line also has a hint.
            ("1", count) => count == 1 && !self.stderr.is_empty(),
            _ => !self.stderr.is_empty(),
        };
        let code = said.code.map(|code| code.to_string());
        let is_same = said.stdout == self.stdout && code.as_deref() == Some(&*self.status);
        let has_text = said.stderr.contains(&self.stderr);
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
        let is_right = is_told && is_same && has_text;
        (!is_right).then(|| {
            format!(
                "{row}: {:?}, {}, {}",
                said.code,
                shown(&said.stdout),
                said.stderr
            )
        })
    }
}

/// A server that answers every client until it is dropped.
struct Answering {
    at: String,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// `answer` makes a response of a request's head.
    fn new(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("a socket").to_string();
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let serve = move || {
            while let Ok((stream, _)) = listener.accept() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                serve(&stream, &answer);
            }
        };
        Self {
            at,
            is_over,
            thread: Some(thread::spawn(serve)),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // So that it looks.
        drop(TcpStream::connect(&self.at));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: &TcpStream, answer: impl Fn(&str) -> Vec<u8>) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut head, mut lines) = (String::new(), BufReader::new(stream));
    while !head.ends_with("\r\n\r\n") {
        if !lines.read_line(&mut head).is_ok_and(|count| count > 0) {
            return;
        }
    }
    // The client may have seen enough; what it does not read is no reset.
    let _ = stream.write_all(&answer(&head));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn responses() {
    let mut wrong = Vec::new();
    for [response, stdout, status, stderr, _] in rows::<5>("Responses") {
        let row = response[..response.len().min(200)]
            .escape_ascii()
            .to_string();
        let server = Answering::new(move |_| response.clone());
        let url = format!("http://{}/x", server.at);
        let said = Running::spawn(serveloop(&["fetch", &url])).end();
        let expected = Expected {
            stdout,
            status: text(&status),
            stderr: text(&stderr),
        };
        wrong.extend(expected.compare(&row, &said));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn urls() {
    let server = Answering::new(|head| {
        let target = head.split(' ').nth(1).expect("a target");
        let host = head.lines().find_map(|line| line.strip_prefix("Host: "));
        let host = host.expect("a host");
        format!("HTTP/1.1 200 OK\r\n\r\n{target} {host}").into_bytes()
    });
    let (_, port) = server.at.rsplit_once(':').expect("a port");
    let filled = |cell: &[u8]| {
        text(cell)
            .replace("{at}", &server.at)
            .replace("{port}", port)
    };
    let mut wrong = Vec::new();
    for [url, stdout, status, stderr, _] in rows::<5>("URLs") {
        let url = filled(&url);
        let said = Running::spawn(serveloop(&["fetch", &url])).end();
        let expected = Expected {
            stdout: filled(&stdout).into_bytes(),
            status: text(&status),
            stderr: text(&stderr),
        };
        wrong.extend(expected.compare(&url, &said));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn input() {
    let echo = Served::new(&[
        "echo",
        "--listen",
        "tcp://127.0.0.1:0",
        "--max-output",
        "64MiB",
    ]);
    let mut wrong = Vec::new();
    for [input, options, stdout, status, stderr, _] in rows::<6>("Input to connect") {
        let row = input[..input.len().min(40)].escape_ascii().to_string();
        let options = text(&options);
        let options: Vec<_> = options.split_whitespace().collect();
        let mut command = serveloop(&["connect", echo.uri(0)]);
        command.args(options);
        let expected = Expected {
            stdout,
            status: text(&status),
            stderr: text(&stderr),
        };
        wrong.extend(expected.compare(&row, &talk(command, &input)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs a client with that input, which may be the name of one.
fn talk(mut command: Command, input: &[u8]) -> Said {
    match input {
        b"<null>" => Running::spawn(command).end(),
        b"<closed>" => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" <&-", "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            shell.stdout(Stdio::piped()).stderr(Stdio::piped());
            Running::spawn(shell).end()
        }
        b"<directory>" => {
            command.stdin(File::open("/").expect("a directory"));
            Running::spawn(command).end()
        }
        b"<terminal>" => {
            let (mut person, terminal) = terminal();
            command.stdin(terminal);
            let mut client = Running::spawn(command);
            person.write_all(b"hi\n\x04").expect("a terminal");
            client.end()
        }
        bytes => {
            command.stdin(Stdio::piped());
            Running::spawn(command).finish(bytes)
        }
    }
}
