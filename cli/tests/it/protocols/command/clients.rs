//! `serve command` and clients as the tutorials have them, in Python.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::protocols::command::serve;
use crate::support::outside::skip;
use crate::support::sockets::socket_addr;

/// Runs one of our scripts against a server of one form, types `input`, and returns what it prints.
#[track_caller]
fn python(script: &str, wire: &str, input: &str) -> Option<String> {
    if Command::new("python3").arg("--version").output().is_err() {
        skip("python3");
        return None;
    }
    let served = serve(&["echo", "head", "true", "sh"], &["--wire", wire]);
    let address = socket_addr(served.uri(0));
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let mut client = Command::new("python3")
        .arg(script)
        .args([address.ip().to_string(), address.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program that is installed");
    use std::io::Write;
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("a reader");
    drop(stdin);
    let output = client.wait_with_output().expect("our child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// Small replies, none at all, and one of more than any `recv` takes; an empty line is skipped.
const INPUT: &str = "echo hello\n\ntrue\nsh -c 'exit 3'\nhead -c 300000 /dev/zero\nrm x\nquit\n";

#[track_caller]
fn check(printed: Option<String>) {
    let Some(printed) = printed else {
        return;
    };
    let zeros = "\0".repeat(300_000);
    let expected = format!("hello\n[exit status 3]\n{zeros}[not allowed: \"rm\"]\n");
    assert!(printed == expected, "{} bytes", printed.len());
}

#[test]
fn the_struct_client() {
    check(python("command_struct.py", "struct", INPUT));
}

#[test]
fn the_ready_client() {
    check(python("command_ready.py", "ready", INPUT));
}

#[test]
fn a_client_of_the_framed_form() {
    check(python("command_framed.py", "framed", INPUT));
}
