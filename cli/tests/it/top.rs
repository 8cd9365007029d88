//! `serveloop top`: a running server on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

use crate::monitoring::Monitored;
use crate::support::served::{Outcome, PATIENCE, is_ignored, serveloop};
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

/// A running `top`, and the person at its terminal.
struct Shown {
    person: File,
    top: Child,
    parts: Receiver<String>,
    all: String,
}

impl Shown {
    fn new(server: &Monitored) -> Self {
        let (person, standard) = terminal();
        let mut command = serveloop(&["top", "--admin", &server.admin, "--every", "100ms"]);
        let mut output = person.try_clone().expect("a terminal");
        let top = command
            .env("TERM", "xterm")
            .stdin(standard)
            .stdout(Stdio::from(terminal_of(&person)))
            .spawn()
            .expect("the built command");

        let (sender, parts) = mpsc::channel();
        thread::spawn(move || {
            let mut room = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut room) {
                let _ = sender.send(String::from_utf8_lossy(&room[..count]).into_owned());
            }
        });
        Self {
            person,
            top,
            parts,
            all: String::new(),
        }
    }

    /// Waits until something new is shown that has this part.
    #[track_caller]
    fn expect(&mut self, part: &str) {
        let begin = Instant::now();
        while !self.all.contains(part) {
            let left = PATIENCE.checked_sub(begin.elapsed());
            let more = self.parts.recv_timeout(left.expect("it is shown"));
            self.all += &more.expect("it is shown");
        }
        self.all.clear();
    }

    fn send(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).expect("a terminal");
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.top);
        kill_process(process, signal).expect("a running command");
    }

    /// Waits until the terminal is as before and the command has ended. Returns its exit status.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        self.expect("\x1b[?25h\x1b[?1049l");
        let status = self.top.wait().expect("our child");
        let modes = tcgetattr(terminal_of(&self.person)).expect("a terminal");
        let usual = LocalModes::ICANON | LocalModes::ECHO;
        assert!(modes.local_modes.contains(usual), "{modes:?}");
        status.code()
    }
}

#[test]
fn connections_are_shown_until_q_is_typed() {
    let server = Monitored::echo(&[]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");

    let mut shown = Shown::new(&server);
    shown.expect("\x1b[?1049h");
    shown.expect(&client.name());
    shown.expect("order: traffic");
    shown.send("o");
    shown.expect("order: memory");
    shown.expect(" B/s)");
    shown.send("q");
    assert_eq!(shown.end(), Some(0));
    drop(client);
    server.end();
}

#[test]
fn keys_that_are_typed_together_all_count() {
    let server = Monitored::echo(&[]);
    let mut shown = Shown::new(&server);
    shown.expect("order: traffic");
    shown.send("oo");
    shown.expect("order: idle");
    shown.send("\x1b[A\x1bOAoq");
    assert_eq!(shown.end(), Some(0));
    server.end();
}

#[test]
fn a_signal_ends_it_as_it_ends_other_clients() {
    let server = Monitored::echo(&[]);
    let signals = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)];
    for (signal, code) in signals {
        if is_ignored(signal) {
            continue;
        }
        let mut shown = Shown::new(&server);
        shown.expect("order: traffic");
        shown.signal(signal);
        assert_eq!(shown.end(), Some(code));
    }
    server.end();
}

/// The server is stopped, so that it answers nothing.
#[test]
fn it_can_be_left_while_the_server_does_not_answer() {
    let server = Monitored::echo(&[]);
    let [mut typing, mut signalled] = [(); 2].map(|()| Shown::new(&server));
    typing.expect("order: traffic");
    signalled.expect("order: traffic");
    server.served.signal(Signal::STOP);
    // Both have asked by now, and wait.
    thread::sleep(Duration::from_millis(500));

    let begin = Instant::now();
    typing.send("o");
    typing.expect("order: memory");
    typing.send("q");
    assert_eq!(typing.end(), Some(0));
    signalled.signal(Signal::TERM);
    assert_eq!(signalled.end(), Some(143));
    let took = begin.elapsed();
    server.served.signal(Signal::CONT);
    assert!(took < Duration::from_secs(8), "{took:?}");
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
