//! Clients as tutorials of Python's `socket` write them, against the servers that replace theirs.
//!
//! `docs/tutorials.md` shows how each system is run. Besides the Python clients here, each is spoken
//! to byte by byte:
//!
//! | system | command | tests |
//! |---|---|---|
//! | print server | `serve print` | `print` |
//! | greeting, plain, forking, threading | `serve greet` | `greet` |
//! | time-stamped echo | `serve timestamp` | `timestamp` |
//! | Welcome, Hello, exit | `serve hello` | `protocols::hello_*`, `crowd` |
//! | IPv6, low ports, one bind per port | any | `listening` |
//! | datagrams keep boundaries | `serve print`, `echo` with `udp://` | `print`, `protocols` |
//! | operator reply | `serve operator` | `operator` |
//! | echo | `serve echo` | `protocols::echo_*` |
//! | JSON actions | `serve dispatch` | `dispatch` |
//! | four kinds of sockets | any | `protocols`, `models` |
//! | what the originals get wrong | | `faults` |

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::served::{Served, serveloop};
use crate::support::sockets::socket_addr;

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// Runs a client against `served` with `typed` on its standard input. Returns what it printed.
/// Nothing if there is no Python.
#[track_caller]
fn run(script: &str, served: &Served, typed: &str) -> Option<String> {
    let address = socket_addr(served.uri(0));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let child = Command::new("python3")
        .arg(path.join(script))
        .args([address.ip().to_string(), address.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skip("python3");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(typed.as_bytes()).expect("a reader");
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn print() {
    let served = Served::new(&[&["print"], &TCP[..]].concat());
    for _ in 0..3 {
        if run("print_client.py", &served, "").is_none() {
            return;
        }
        served.logged("accepted");
        served.logged("closed by the peer");
    }
    served.signal(Signal::TERM);
    assert_eq!(served.printed(), "hello from client".repeat(3));
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn greet() {
    for model in ["sequential", "threaded", "forking", "event-loop"] {
        let served = Served::new(&[&["greet", "--model", model], &TCP[..]].concat());
        let printed = run("greet_client.py", &served, "");
        assert!(printed.is_none_or(|it| it == "connected\n"), "{model}");
    }
}

#[test]
fn timestamp() {
    let served = Served::new(&[&["timestamp"], &TCP[..]].concat());
    let Some(printed) = run("timestamp_client.py", &served, "one\ntwo\n\nnot sent\n") else {
        return;
    };
    // The prompt has no newline of its own.
    let replies: Vec<_> = printed.split("> ").collect();
    let [_, one, two, ""] = replies[..] else {
        panic!("{printed}");
    };
    for (reply, data) in [(one, "one"), (two, "two")] {
        let stamp = reply.strip_suffix(&format!("] {data}\n"));
        assert_eq!(stamp.expect("an answer").len(), 1 + 24, "{reply}");
    }
    served.logged("closed by the peer");
}

#[test]
fn hello() {
    let delay = ["hello", "--delay", "50ms"];
    let served = Served::new(&[&delay, &TCP[..]].concat());
    let expected = "Welcome!\nHello,Michael\nHello,Tracy\nHello,Chenqi\n";
    let printed = run("hello_client.py", &served, "");
    assert!(printed.is_none_or(|it| it == expected));
}

#[test]
fn datagrams() {
    let served = Served::new(&["echo", "--listen", "udp://127.0.0.1:0"]);
    let printed = run("udp_client.py", &served, "");
    assert!(printed.is_none_or(|it| it == "5 hello\n5 world\n0 \n4 egon\n"));
}

#[test]
fn operator() {
    let mut command = serveloop(&["serve", "operator"]);
    command.args(TCP).stdin(Stdio::piped());
    let mut served = Served::spawn(command);
    let mut stdin = served.take_stdin();
    stdin.write_all(b"yes\nsee you\n").expect("a reader");
    let typed = "anybody there?\nthank you\nexit\n";
    let printed = run("operator_client.py", &served, typed);
    let expected = ">>> server: yes\n>>> server: see you\n>>> ";
    assert!(printed.is_none_or(|it| it == expected));
}

#[test]
fn echo() {
    let served = Served::new(&[&["echo"], &TCP[..]].concat());
    let printed = run("echo_client.py", &served, "one\n\n  \ntwo\nexit\n");
    let expected = "message: one\nmessage: message: message: two\nmessage: ";
    assert!(printed.is_none_or(|it| it == expected));
}

#[test]
fn dispatch() {
    let served = Served::new(&[&["dispatch"], &TCP[..]].concat());
    let printed = run("dispatch_client.py", &served, "");
    let expected = "{'message': 'hello'}\n6\nunknown_action\n";
    assert!(printed.is_none_or(|it| it == expected));
}
