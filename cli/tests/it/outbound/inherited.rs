//! What a client inherits from its parent: standard descriptors that are closed, signals that
//! are ignored, and a limit on descriptors.

use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;
use std::sync::mpsc;

use rustix::io::Errno;
use rustix::process::Signal;

use crate::support::running::{Running, Said};
use crate::support::scripts::{Scripted, expect};
use crate::support::served::{PATIENCE, Served, by_shell};
use crate::support::sockets::Directory;

/// A server that answers `count` requests.
fn hello(count: usize) -> Scripted {
    Scripted::several(count, |mut stream| {
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).expect("a request") > 0);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

fn end(command: Command) -> Said {
    Running::spawn(command).end()
}

#[test]
fn what_is_written_to_a_closed_output_is_not_lost_without_a_word() {
    let echo = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let server = hello(4);
    let url = format!("http://{}/", server.at());
    let greet = format!("echo hi | \"$0\" connect {} >&-; exit $?", echo.uri(0));
    let greet_in_turns = greet.replace(" >&-", " --protocol echo >&-");
    let cases: [(&str, &[&str]); 9] = [
        ("exec >&-", &["fetch", &url]),
        ("exec >&-", &["fetch", &url, "-o", "-"]),
        ("exec >&-", &["fetch", &url, "-o", "/dev/stdout"]),
        ("exec >&-", &["fetch", &url, "-o", "/dev/fd/1"]),
        (&greet, &[]),
        (&greet_in_turns, &[]),
        ("exec >&-", &["completions", "bash"]),
        ("exec >&-", &["man"]),
        ("exec >&-", &["--help"]),
    ];
    for (prepare, arguments) in cases {
        let text = end(by_shell(prepare, arguments)).badly();
        assert!(
            text.contains("standard output: Bad file descriptor"),
            "{arguments:?}: {text}"
        );
    }
    server.end();
}

#[test]
fn a_closed_standard_error_takes_no_body() {
    let server = hello(1);
    let url = format!("http://{}/", server.at());
    let said = end(by_shell("exec 2>&-", &["fetch", &url, "-o", "/dev/stderr"]));
    assert_eq!(said.code, Some(1), "{said:?}");
    server.end();
}

/// Output that goes nowhere on purpose is no failure, however it was opened.
#[test]
fn an_output_to_nowhere_is_one() {
    let server = hello(3);
    let url = format!("http://{}/", server.at());
    for nowhere in [
        "exec >/dev/null",
        "exec 1<>/dev/null",
        "exec >/dev/null <&- 2>&-",
    ] {
        let said = end(by_shell(nowhere, &["fetch", &url]));
        assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{nowhere}");
    }
    server.end();
}

#[test]
fn a_closed_output_matters_only_to_what_is_written_there() {
    let directory = Directory::new();
    let path = directory.path("file");
    let server = hello(1);
    let url = format!("http://{}/", server.at());
    let arguments = ["fetch", &url, "-o", path.to_str().expect("a path")];
    let said = end(by_shell("exec >&- <&-", &arguments));
    assert_eq!((said.code, &*said.stderr), (Some(0), ""));
    assert_eq!(fs::read(&path).expect("a file"), b"hello");
    server.end();
}

/// A server that begins a response, and ends it when it is told to.
fn pausing() -> (Scripted, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let server = Scripted::new(move |mut stream| {
        expect(&stream, b"G");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
        begun.send(()).expect("a test");
        let _ = gone.recv_timeout(PATIENCE);
        let _ = stream.write_all(b"llo");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (server, begins, go)
}

#[test]
fn signals_that_were_ignored_still_are() {
    for (names, signals) in [
        ("INT TERM", vec![Signal::INT, Signal::TERM]),
        ("HUP", vec![Signal::HUP]),
        (
            "QUIT USR1 ALRM",
            vec![Signal::QUIT, Signal::USR1, Signal::ALARM],
        ),
    ] {
        let (server, begins, go) = pausing();
        let url = format!("http://{}/", server.at());
        let mut client = Running::spawn(by_shell(&format!("trap '' {names}"), &["fetch", &url]));
        begins.recv_timeout(PATIENCE).expect("a request");
        for signal in signals {
            client.signal(signal);
        }
        go.send(()).expect("a server");
        assert_eq!(client.end().well(), "hello", "{names}");
        server.end();
    }

    let echo = Served::new(&["echo", "--listen", "tcp://127.0.0.1:0"]);
    let mut command = by_shell("trap '' INT TERM", &["connect", echo.uri(0)]);
    command.stdin(std::process::Stdio::piped());
    let mut client = Running::spawn(command);
    let (mut stdin, mut stdout) = (client.stdin(), client.stdout());
    for text in [b"one\n", b"two\n"] {
        stdin.write_all(text).expect("a client");
        let mut answer = [0; 4];
        stdout.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, text);
        client.signal(Signal::INT);
        client.signal(Signal::TERM);
    }
    drop(stdin);
    assert_eq!(client.end().code, Some(0));
}

#[test]
fn what_a_small_limit_on_descriptors_is_in_the_way_of_is_told() {
    let echo = Served::new(&[
        "echo",
        "--listen",
        "tcp://127.0.0.1:0",
        "--listen",
        "udp://127.0.0.1:0",
    ]);
    let url = "http://127.0.0.1:1/";
    for limit in 5..9 {
        let prepare = format!("ulimit -n {limit}");
        let connects = [&["connect", echo.uri(0)][..], &["connect", echo.uri(1)]];
        for arguments in [&["fetch", url][..]].into_iter().chain(connects) {
            let said = end(by_shell(&prepare, arguments));
            if said.code == Some(0) {
                continue;
            }
            let text = said.badly();
            let whats = [arguments[1], "cannot watch for signals"];
            let is_named = |what: &&str| text.starts_with(&format!("serveloop: {what}: "));
            assert!(whats.iter().any(is_named), "{limit} {text}");
        }
    }
    let text = end(by_shell("ulimit -n 8", &["fetch", url])).badly();
    let why = io::Error::from(Errno::MFILE);
    assert!(text.contains(&format!("cannot connect: {why}")), "{text}");
    assert!(text.contains("may have 8 open descriptors"), "{text}");
}
