//! `serveloop top`: a running server on a terminal.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::monitoring::Monitored;
use crate::support::served::{Outcome, PATIENCE, serveloop};
use crate::support::terminal::terminal;

#[test]
fn a_pipe_is_no_terminal() {
    let server = Monitored::echo(&[]);
    let outcome = Outcome::new(&["top", "--admin", &server.admin]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("top needs a terminal"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("ctl --json"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    let hasty = Outcome::new(&["top", "--admin", &server.admin, "--every", "1ms"]);
    assert_eq!(hasty.code, Some(2));
    server.end();
}

#[test]
fn connections_are_shown_until_q_is_typed() {
    let server = Monitored::echo(&[]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");

    let (mut person, standard) = terminal();
    let mut command = serveloop(&["top", "--admin", &server.admin, "--every", "100ms"]);
    let output = person.try_clone().expect("a terminal");
    let mut top = command
        .env("TERM", "xterm")
        .stdin(standard)
        .stdout(std::process::Stdio::from(terminal_of(&person)))
        .spawn()
        .expect("the built command");

    let (sender, shown) = mpsc::channel();
    thread::spawn(move || {
        let (mut output, mut room) = (output, [0; 4_096]);
        while let Ok(count @ 1..) = output.read(&mut room) {
            let _ = sender.send(String::from_utf8_lossy(&room[..count]).into_owned());
        }
    });
    let mut all = String::new();
    let mut expect = |part: &str| {
        let begin = Instant::now();
        while !all.contains(part) {
            let left = PATIENCE.checked_sub(begin.elapsed()).expect("it is shown");
            all += &shown.recv_timeout(left).expect("it is shown");
        }
        all.clear();
    };
    expect("\x1b[?1049h");
    expect(&client.name());
    expect("order: traffic");
    person.write_all(b"o").expect("a terminal");
    expect("order: memory");
    expect(" B/s)");
    person.write_all(b"q").expect("a terminal");
    expect("\x1b[?1049l");
    assert_eq!(top.wait().expect("our child").code(), Some(0));
    drop(client);
    server.end();
}

/// The program's end of the terminal, opened once more.
fn terminal_of(person: &std::fs::File) -> std::fs::File {
    let name = rustix::pty::ptsname(person, Vec::new()).expect("a terminal");
    std::fs::File::options()
        .write(true)
        .open(name.to_str().expect("a path"))
        .expect("a terminal")
}
