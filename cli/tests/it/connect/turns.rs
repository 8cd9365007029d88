//! `serveloop connect --protocol`: a line, its reply, the next line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::outside::skip;
use crate::support::running::{Running, run};
use crate::support::scripts::{Scripted, expect, noise, rest, trickle};
use crate::support::served::{Served, serveloop};
use crate::support::terminal::terminal;

#[test]
fn hello_is_talked_in_turns() {
    let served = Served::new(&["hello", "--delay", "20ms", "--listen", "tcp://127.0.0.1:0"]);
    let arguments = ["connect", served.uri(0), "--protocol", "hello"];
    let said = run(&arguments, "Michael\n\nTracy\nChenqi\nexit\n");
    let expected = "Welcome!\nHello,Michael\nHello,Tracy\nHello,Chenqi\n";
    assert_eq!(said.well(), expected);
    assert_eq!(run(&arguments, "").well(), "Welcome!\n");
}

#[test]
fn turns_do_not_depend_on_how_replies_are_cut() {
    let server = Scripted::new(|stream| {
        trickle(&stream, b"Welcome!");
        expect(&stream, b"Michael");
        trickle(&stream, b"Hello,Michael");
        expect(&stream, b"exit");
    });
    let arguments = ["connect", &server.uri(), "--protocol", "hello"];
    assert_eq!(
        run(&arguments, "Michael\nexit\n").well(),
        "Welcome!\nHello,Michael\n"
    );
    server.end();
}

#[test]
fn echo_and_operator_are_talked_in_turns() {
    let served = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let arguments = ["connect", served.uri(0), "--protocol", "echo"];
    assert_eq!(run(&arguments, "one\n\ntwo\n").well(), "one\ntwo\n");
    let server = Scripted::new(|mut stream| {
        for (question, answer) in [(b"how?", b"so"), (b"why?", b"ah")] {
            expect(&stream, question);
            stream.write_all(answer).unwrap();
        }
        assert_eq!(rest(&stream), b"");
    });
    let arguments = ["connect", &server.uri(), "--protocol", "operator"];
    assert_eq!(run(&arguments, "how?\n\nwhy?\n").well(), "so\nah\n");
    server.end();
}

#[test]
fn an_empty_line_ends_a_talk_about_time() {
    let server = Scripted::new(|mut stream| {
        expect(&stream, b"hi");
        stream.write_all(b"[Thu Jan  1 00:00:00 1970] hi").unwrap();
        assert_eq!(rest(&stream), b"");
    });
    let arguments = ["connect", &server.uri(), "--protocol", "timestamp"];
    let said = run(&arguments, "hi\n\nnever sent\n");
    assert_eq!(said.well(), "[Thu Jan  1 00:00:00 1970] hi\n");
    server.end();
}

/// Whether the line or the end of the server comes first is a matter of chance.
#[test]
fn a_line_that_gets_no_reply_is_a_failure_whoever_is_first() {
    for protocol in ["echo", "command", "timestamp", "operator", "hello"] {
        for input in ["line\n", "line", "one\ntwo\n"] {
            for delay in [0, 20] {
                let server = Scripted::new(move |stream| {
                    thread::sleep(Duration::from_millis(delay));
                    drop(stream);
                });
                let arguments = ["connect", &server.uri(), "--protocol", protocol];
                let text = run(&arguments, input).badly();
                assert!(text.contains(&server.uri()), "{text}");
                server.end();
            }
        }
    }
}

/// A line that comes later than the server's end got no reply either.
#[test]
fn a_server_that_ends_before_the_line_is_typed_gives_no_reply() {
    let server = Scripted::new(drop);
    let arguments = ["connect", &server.uri(), "--protocol", "echo"];
    let mut client = Running::new(&arguments);
    let mut stdin = client.stdin();
    server.end();
    stdin.write_all(b"line\n").unwrap();
    client.end().badly();

    // One that does not come is not waited for.
    let server = Scripted::new(drop);
    let mut client = Running::new(&["connect", &server.uri(), "--protocol", "echo"]);
    let stdin = client.stdin();
    let text = client.end().badly();
    assert!(text.contains("closed before the input ended"), "{text}");
    drop(stdin);
}

#[test]
fn where_there_is_no_line_a_server_may_end_first() {
    for delay in [0, 20] {
        let server = Scripted::new(move |stream| {
            thread::sleep(Duration::from_millis(delay));
            drop(stream);
        });
        let arguments = ["connect", &server.uri(), "--protocol", "echo"];
        assert_eq!(run(&arguments, "").well(), "");
        server.end();
    }
    let server = Scripted::new(|mut stream| {
        expect(&stream, b"hi");
        stream.write_all(b"hi").unwrap();
    });
    let arguments = ["connect", &server.uri(), "--protocol", "echo"];
    assert_eq!(run(&arguments, "hi\n").well(), "hi\n");
    server.end();
}

/// A server as the tutorials write it, in Python, for one connection.
struct Python(Child);

impl Python {
    /// Runs the server of that name. Returns where it listens, or None without Python.
    fn new(name: &str) -> Option<(Self, String)> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/tutorial_servers.py"
        );
        let mut command = Command::new("python3");
        let spawned = command.args([script, name]).stdout(Stdio::piped()).spawn();
        let Ok(child) = spawned else {
            skip("python3");
            return None;
        };
        let mut python = Self(child);
        let mut port = String::new();
        let stdout = python.0.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut port).expect("a port");
        Some((python, format!("tcp://127.0.0.1:{}", port.trim())))
    }

    #[track_caller]
    fn end(mut self) {
        assert!(self.0.wait().expect("our child").success());
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Talks to the server of that name. Returns what is printed, or None without Python.
#[track_caller]
fn tutorial(name: &str, protocol: &[&str], input: &str) -> Option<String> {
    let (python, uri) = Python::new(name)?;
    let arguments = ["connect", &uri, "--protocol"];
    let arguments: Vec<_> = arguments.iter().chain(protocol).copied().collect();
    let printed = run(&arguments, input).well();
    python.end();
    Some(printed)
}

#[test]
fn servers_of_the_tutorials_are_talked_to() {
    let Some(printed) = tutorial("hello", &["hello"], "Michael\nTracy\nChenqi\nexit\n") else {
        return;
    };
    let expected = "Welcome!\nHello,Michael\nHello,Tracy\nHello,Chenqi\n";
    assert_eq!(printed, expected);
    let printed = tutorial("echo", &["echo"], "one\n\ntwo\n");
    assert_eq!(printed.unwrap(), "one\ntwo\n");
    let printed = tutorial("timestamp", &["timestamp"], "hi\n\n").unwrap();
    assert!(
        printed.starts_with('[') && printed.ends_with("] hi\n"),
        "{printed}"
    );
    assert_eq!(printed.len(), "[Thu Jan  1 00:00:00 1970] hi\n".len());
}

#[test]
fn commands_of_the_tutorials_have_all_their_output() {
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    for wire in ["ready", "struct"] {
        let input = "seq 100000\n\ntrue\nprintf last\nquit\n";
        let Some(printed) = tutorial(wire, &["command", "--wire", wire], input) else {
            return;
        };
        let rest = printed.strip_prefix(&numbers);
        assert_eq!(rest, Some("last"), "{wire}: {} bytes", printed.len());
    }
}

/// Talks to a server of commands: `ls` has an output of 300,000 bytes, `true` none.
#[track_caller]
fn commands(wire: &str, server: Scripted, output: &[u8]) {
    let arguments = [
        "connect",
        &server.uri(),
        "--protocol",
        "command",
        "--wire",
        wire,
    ];
    let said = run(&arguments, "\nls -l\ntrue\nquit\nnever sent\n");
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert!(said.stdout == output, "{} bytes", said.stdout.len());
    server.end();
}

/// The output of a command follows its length at once.
#[track_caller]
fn commands_after_lengths(wire: &str, requests: [&'static [u8]; 2], length: [u8; 4]) {
    let output = noise(300_000);
    let reply = output.clone();
    let server = Scripted::new(move |mut stream| {
        expect(&stream, requests[0]);
        trickle(&stream, &length);
        stream.write_all(&reply).expect("the client reads");
        expect(&stream, requests[1]);
        stream.write_all(&[0; 4]).expect("the client reads");
        assert_eq!(rest(&stream), b"");
    });
    commands(wire, server, &output);
}

#[test]
fn commands_are_framed() {
    let requests: [&[u8]; 2] = [b"\0\0\0\x05ls -l", b"\0\0\0\x04true"];
    commands_after_lengths("framed", requests, 300_000_u32.to_be_bytes());
}

#[test]
fn commands_are_answered_after_a_signed_length() {
    let requests: [&[u8]; 2] = [b"ls -l", b"true"];
    commands_after_lengths("struct", requests, 300_000_i32.to_le_bytes());
}

#[test]
fn commands_are_answered_when_the_client_is_ready() {
    let output = noise(300_000);
    let reply = output.clone();
    let server = Scripted::new(move |mut stream| {
        expect(&stream, b"ls -l");
        trickle(&stream, b"300000");
        expect(&stream, b"ready");
        stream.write_all(&reply).unwrap();
        expect(&stream, b"true");
        stream.write_all(b"0").unwrap();
        expect(&stream, b"ready");
        assert_eq!(rest(&stream), b"");
    });
    commands("ready", server, &output);
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let cases: [(&str, &[u8], &str); 4] = [
        (
            "framed",
            b"\xff\xff\xff\xff",
            "4294967295 bytes, at most 1073741824 allowed",
        ),
        ("struct", b"\xff\xff\xff\xff", "a negative length: -1"),
        ("ready", b"9999999999", "9999999999 bytes, at most"),
        ("ready", b"-1", "expected a length in digits"),
    ];
    for (wire, length, problem) in cases {
        let server = Scripted::new(move |mut stream| {
            stream.read_exact(&mut [0; 2]).unwrap();
            stream.write_all(length).unwrap();
            // It may be reset.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let arguments = [
            "connect",
            &server.uri(),
            "--protocol",
            "command",
            "--wire",
            wire,
        ];
        let text = run(&arguments, "ls\n").badly();
        assert!(text.contains(problem), "{wire}: {text}");
        server.end();
    }
}

#[test]
fn a_reply_that_is_cut_off_is_a_failure() {
    let cases: [(&str, &[u8]); 4] = [
        ("framed", b"\0\0\0\x09half"),
        ("struct", b"\x09\0\0\0half"),
        ("framed", b"\0\0"),
        ("ready", b""),
    ];
    for (wire, reply) in cases {
        let server = Scripted::new(move |mut stream| {
            let request: &[u8] = if wire == "framed" {
                b"\0\0\0\x02ls"
            } else {
                b"ls"
            };
            expect(&stream, request);
            stream.write_all(reply).unwrap();
        });
        let arguments = [
            "connect",
            &server.uri(),
            "--protocol",
            "command",
            "--wire",
            wire,
        ];
        let said = run(&arguments, "ls\n");
        assert_eq!(said.stdout, reply.get(4..).unwrap_or_default());
        let text = said.badly();
        assert!(
            text.contains("closed before the reply was complete"),
            "{text}"
        );
        server.end();
    }
}

#[test]
fn more_than_the_reply_is_a_failure() {
    let server = Scripted::new(|mut stream| {
        stream.write_all(b"Welcome! Bienvenue!").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let arguments = ["connect", &server.uri(), "--protocol", "hello"];
    let text = Running::new(&arguments).end().badly();
    assert!(text.contains("11 bytes more than the reply"), "{text}");
    server.end();
}

/// A prompt is for people: it goes to standard error, and only if a terminal is there to type at.
#[test]
fn a_terminal_is_asked_with_a_prompt() {
    let echo = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let arguments = ["connect", echo.uri(0), "--protocol", "echo", "--prompt"];
    assert_eq!(run(&arguments, "one\n").well(), "one\n");
    let (mut person, terminal) = terminal();
    let mut command = serveloop(&arguments);
    command.stdin(terminal);
    let mut client = Running::spawn(command);
    // The second line is the end of the input, Ctrl-D.
    person.write_all(b"one\n\x04").unwrap();
    let said = client.end();
    assert_eq!((said.code, &*said.stdout), (Some(0), &b"one\n"[..]));
    assert_eq!(said.stderr, "> > ");
}

/// A reply, or a datagram, does not command the terminal that it is shown on.
#[test]
fn a_terminal_gets_no_escape_sequences() {
    for (listen, options) in [
        ("tcp://127.0.0.1:0", &["--protocol", "operator"][..]),
        ("tcp://127.0.0.1:0", &[][..]),
        ("udp://127.0.0.1:0", &[][..]),
    ] {
        let echo = Served::new(&["echo", "--listen", listen]);
        let (mut person, terminal) = terminal();
        let mut command = serveloop(&["connect", echo.uri(0)]);
        command.args(options).stdin(Stdio::piped()).stdout(terminal);
        let mut client = Running::spawn(command);
        let mut stdin = client.stdin();
        stdin.write_all(b"\x1b]0;mine\x07\n").unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(b"\n") {
            let mut byte = [0];
            person.read_exact(&mut byte).unwrap();
            shown.extend(byte);
        }
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(shown, "\\u{1b}]0;mine\\u{7}\r\n");
    }
}

/// The end of the connection is as good as the quiet that would have to follow the output.
#[test]
fn an_output_may_be_the_last_thing_that_comes() {
    let server = Scripted::new(|mut stream| {
        expect(&stream, b"greet");
        stream.write_all(b"5").unwrap();
        expect(&stream, b"ready");
        stream.write_all(b"hello").unwrap();
    });
    let uri = server.uri();
    let arguments = ["connect", &uri, "--protocol", "command", "--wire", "ready"];
    assert_eq!(run(&arguments, "greet\n").well(), "hello");
    server.end();
}

/// Digits that came too late for the length make a wrong one, and that is not taken for an output.
#[test]
fn more_than_the_length_said_is_a_failure() {
    let server = Scripted::new(|mut stream| {
        expect(&stream, b"greet");
        stream.write_all(b"1").unwrap();
        expect(&stream, b"ready");
        stream.write_all(b"2").unwrap();
        stream.write_all(b"hello, world").unwrap();
        // The client may leave without a farewell.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let uri = server.uri();
    let arguments = ["connect", &uri, "--protocol", "command", "--wire", "ready"];
    let said = run(&arguments, "greet\n");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("more than the announced length"),
        "{said:?}"
    );
    server.end();
}
