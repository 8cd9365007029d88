//! Output that is not read, that is full or that is missing delays no server and no end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::served::{MODELS, Outcome, PATIENCE, Served, by_shell, serveloop};
use crate::support::sockets::{Directory, Stream};
use crate::support::terminal::terminal;

/// More lines than any terminal or pipe holds here.
const CLIENTS: usize = 300;

/// What a stop may take that waits for a second for a reader, and not for anything else.
const PROMPT: Duration = Duration::from_secs(8);

const GREET: [&str; 4] = ["serve", "greet", "--listen", "tcp://127.0.0.1:0"];

/// Serves greetings with its log at `stderr`, and ends.
#[track_caller]
fn greets_all(stderr: Stdio, model: &[&str], level: &[&str]) {
    let mut command = serveloop(&[&GREET[..], model, level].concat());
    command.stderr(stderr);
    let served = Served::spawn(command);
    for _ in 0..CLIENTS {
        served.connect().expect("connected");
    }
    let began = Instant::now();
    served.signal(Signal::TERM);
    let status = served.expect_exit();
    assert_eq!(status.code(), Some(0), "{model:?}");
    assert!(began.elapsed() < PROMPT, "{model:?}");
}

#[test]
fn a_terminal_that_nobody_reads_stops_no_server() {
    for model in MODELS {
        for level in [&[][..], &["-vv"]] {
            let (person, terminal) = terminal();
            greets_all(terminal, model, level);
            drop(person);
        }
    }
}

#[test]
fn a_terminal_that_was_stopped_by_ctrl_s_stops_no_server() {
    for model in MODELS {
        let (mut person, terminal) = terminal();
        person.write_all(&[0x13]).expect("a terminal");
        greets_all(terminal, model, &[]);
    }
}

/// A terminal's own side cannot be opened again. Its mode is shared with other processes, which change it when
/// they like: nothing may depend on it.
#[test]
fn a_terminal_that_cannot_be_opened_again_and_is_changed_by_others_stops_no_server() {
    for model in MODELS {
        for level in [&[][..], &["-v"]] {
            let (person, _terminal) = terminal();
            let shared = person.try_clone().expect("a descriptor");
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let _ends = SetAtEnd(&done);
                scope.spawn(|| keep_blocking(&shared, &done));
                greets_all(Stdio::from(person), model, level);
            });
        }
    }
}

/// Has writes to `shared` wait, whatever others say meanwhile.
fn keep_blocking(shared: &File, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let flags = fcntl_getfl(shared).expect("a descriptor");
        let blocking = flags.difference(OFlags::NONBLOCK);
        fcntl_setfl(shared, blocking).expect("a descriptor");
    }
}

/// True from the end of its scope on, be it a panic.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is written to the input of a server is no client's, but would be read as one's.
#[test]
fn a_log_is_not_written_into_a_pipe_that_is_only_read() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    greets_all(
        Stdio::from(reader.try_clone().expect("a descriptor")),
        &[],
        &["-v"],
    );
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("a pipe");
    assert_eq!(text, "");
}

/// A pipe's room may be gone between the question and the write.
#[test]
fn a_pipe_that_nobody_reads_stops_no_server() {
    for model in MODELS {
        let (reader, writer) = io::pipe().expect("a pipe");
        greets_all(Stdio::from(writer), model, &["-v"]);
        drop(reader);
    }
}

#[test]
fn the_mode_of_a_pipe_that_others_share_is_left_alone() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let shared = writer.try_clone().expect("a descriptor");
    greets_all(Stdio::from(writer), &[], &["-v"]);
    let flags = fcntl_getfl(&shared).expect("a descriptor");
    assert!(!flags.contains(OFlags::NONBLOCK));
    drop(reader);
}

/// A terminal that is read again has whole lines, and a line that says how many are missing.
#[test]
fn what_a_terminal_missed_is_counted() {
    let (mut person, terminal) = terminal();
    let mut command = serveloop(&[&GREET[..], &["-v"]].concat());
    command.stderr(terminal).env("NO_COLOR", "1");
    let served = Served::spawn(command);
    for _ in 0..CLIENTS {
        served.connect().expect("connected");
    }
    let mut text = Vec::new();
    let mut piece = [0; 4_096];
    while !String::from_utf8_lossy(&text).contains("log lines were dropped)\r\n") {
        served.connect().expect("connected");
        let count = person.read(&mut piece).expect("a terminal");
        text.extend_from_slice(&piece[..count]);
    }
    served.signal(Signal::TERM);
    assert_eq!(served.expect_exit().code(), Some(0));
    let text = String::from_utf8_lossy(&text);
    let whole = |line: &str| line.starts_with('[') || line.starts_with('(');
    let (lines, _) = text.rsplit_once("\r\n").expect("lines");
    assert!(lines.split("\r\n").all(whole), "{text}");
}

#[test]
fn a_wrong_command_line_ends_though_nobody_reads_why() {
    let (_person, stderr) = stopped_terminal();
    let mut command = serveloop(&["serve", "nonsense"]);
    command.stderr(stderr);
    assert_eq!(Served::spawn_unheard(command).expect_exit().code(), Some(2));
    let (_person, stderr) = stopped_terminal();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", taken.local_addr().expect("a port"));
    let mut command = serveloop(&["serve", "echo", "--listen", &uri]);
    command.stderr(stderr);
    assert_eq!(Served::spawn_unheard(command).expect_exit().code(), Some(1));
}

fn stopped_terminal() -> (File, Stdio) {
    let (mut person, terminal) = terminal();
    person.write_all(&[0x13]).expect("a terminal");
    (person, terminal)
}

#[test]
fn where_it_listens_is_no_news_to_wait_for() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let (_person, stdout) = stopped_terminal();
    let mut command = serveloop(&["serve", "echo", "--listen", &uri]);
    command.stdout(stdout);
    let served = Served::spawn_unheard(command);
    served.logged("cannot write to standard output: operation would block");
    Stream::connect(&uri)
        .echoes()
        .then_some(())
        .expect("an echo");
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

/// What was printed before is lost, and said to be.
#[test]
fn print_ends_though_its_terminal_is_stopped() {
    for model in MODELS {
        let directory = Directory::new();
        let uri = directory.uri("unix", "socket");
        let (mut person, stdout) = terminal();
        let print = ["serve", "print", "--listen", &uri, "--drain-timeout", "1s"];
        let mut command = serveloop(&[&print[..], model].concat());
        command.stdout(stdout);
        let served = Served::spawn_unheard(command);
        let mut heard = [0; 64];
        let count = person.read(&mut heard).expect("a line");
        assert!(heard[..count].starts_with(b"listening on unix://"));
        person.write_all(&[0x13]).expect("a terminal");
        let mut client = Stream::connect(&uri);
        client.send_bytes(&[b'x'; 4_096]);
        served.logged("accepted");
        served.signal(Signal::TERM);
        served.expect_exit();
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        return skip("/dev/full");
    };
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["serve", "echo", "-h"],
        &["help", "serve"],
        &["completions", "bash"],
        &["man"],
    ] {
        let mut command = serveloop(arguments);
        command.stdout(full.try_clone().expect("a descriptor"));
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, Some(1), "{arguments:?}");
        let said = "cannot write to standard output: No space left on device";
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    }
}

#[test]
fn help_whose_reader_has_seen_enough_is_no_failure() {
    for arguments in [&["--help"][..], &["man", "serve"], &["completions", "zsh"]] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = serveloop(arguments);
        command.stdout(writer);
        let outcome = Outcome::of(command);
        assert_eq!(
            (outcome.code, &*outcome.stderr),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

/// Another process that shares the pipe may have made it so.
#[test]
fn help_is_whole_on_a_pipe_that_does_not_block() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("two sockets");
    theirs.set_nonblocking(true).expect("a socket");
    rustix::net::sockopt::set_socket_send_buffer_size(&theirs, 4_096).expect("a socket");
    let mut command = serveloop(&["completions", "bash"]);
    command.stdout(OwnedFd::from(theirs));
    let running = Served::spawn_unheard(command);
    std::thread::sleep(Duration::from_millis(100));
    ours.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut found = String::new();
    (&ours).read_to_string(&mut found).expect("text");
    assert_eq!(running.expect_exit().code(), Some(0));
    let whole = Outcome::new(&["completions", "bash"]).stdout;
    assert_eq!(found.trim_end(), whole.trim_end());
}

/// A socket that got the number of standard error would be sent the log.
#[test]
fn descriptors_that_are_closed_at_the_start_stay_out_of_the_way() {
    for closed in ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let directory = Directory::new();
        let uri = directory.uri("unix", "socket");
        let close = format!("exec {closed}");
        let command = by_shell(&close, &["-vv", "serve", "echo", "--listen", &uri]);
        let served = Served::spawn_unheard(command);
        let began = Instant::now();
        let mut client = loop {
            if let Ok(stream) = std::os::unix::net::UnixStream::connect(directory.path("socket")) {
                break stream;
            }
            assert!(began.elapsed() < PATIENCE, "{closed}");
            std::thread::yield_now();
        };
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client
            .write_all(b"nothing else")
            .expect("an open connection");
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("a socket");
        let mut found = String::new();
        client.read_to_string(&mut found).expect("an end");
        assert_eq!(found, "nothing else", "{closed}");
        served.signal(Signal::TERM);
        assert_eq!(served.expect_exit().code(), Some(0), "{closed}");
    }
}

/// Neither the signal for it nor the error ends a server.
#[test]
fn a_log_that_may_not_grow_is_no_reason_to_end() {
    let directory = Directory::new();
    let log = directory.path("log");
    let prepare = format!("ulimit -f 1; exec 2>{}", log.display());
    let served = Served::spawn(by_shell(&prepare, &[&GREET[..], &["-v"]].concat()));
    for _ in 0..100 {
        served.connect().expect("connected");
    }
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
    assert!(fs::metadata(log).expect("a log").len() <= 1_024);
}

/// The clients are told, and the server serves on.
#[test]
fn an_output_that_may_not_grow_is_an_error_that_is_said() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "socket");
    let prepare = format!("ulimit -f 1; exec >{}", directory.path("output").display());
    let served = Served::spawn_unheard(by_shell(&prepare, &["serve", "print", "--listen", &uri]));
    let began = Instant::now();
    while UnixStream::connect(directory.path("socket")).is_err() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let mut client = Stream::connect(&uri);
    client.send_if_wanted(&"x".repeat(3_000));
    served.logged("cannot write to standard output: File too large");
    served.signal(Signal::TERM);
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn what_the_environment_says_of_the_log_may_be_nonsense() {
    let full = OpenOptions::new().write(true).open("/dev/full");
    for (value, wrong) in [
        ("no=such=thing", true),
        ("debug,serveloop=loud", true),
        ("loud", false),
        ("", false),
        (",,", false),
        ("info/[", true),
    ] {
        let mut command = serveloop(&GREET);
        command.env("RUST_LOG", value);
        let served = Served::spawn(command);
        served.connect().expect("connected");
        served.signal(Signal::TERM);
        let (status, log) = served.end();
        assert_eq!(status.code(), Some(0), "{value}");
        let warned = log
            .iter()
            .any(|line| line.contains("RUST_LOG: cannot understand"));
        assert_eq!(warned, wrong, "{value} {log:?}");
        let Ok(full) = &full else { continue };
        let mut command = serveloop(&GREET);
        command
            .env("RUST_LOG", value)
            .stderr(full.try_clone().expect("a descriptor"));
        let served = Served::spawn(command);
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{value}");
    }
}

#[test]
fn colours_are_for_terminals_that_have_them() {
    for (name, value, coloured) in [
        ("TERM", "xterm", true),
        ("TERM", "dumb", false),
        ("NO_COLOR", "1", false),
        ("NO_COLOR", "", true),
    ] {
        let (mut person, terminal) = terminal();
        let mut command = serveloop(&GREET);
        command
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env(name, value)
            .stderr(terminal);
        let served = Served::spawn(command);
        served.signal(Signal::TERM);
        let mut text = [0; 4_096];
        let count = person.read(&mut text).expect("a line");
        let text = String::from_utf8_lossy(&text[..count]);
        assert_eq!(text.contains('\x1b'), coloured, "{name}={value} {text}");
        served.expect_exit();
    }
}

#[test]
fn words_that_are_no_text_are_a_mistake() {
    use std::os::unix::ffi::OsStrExt;
    let word = std::ffi::OsStr::from_bytes(b"tcp://\xff:1");
    for before in [&["serve", "echo", "--listen"][..], &["serve"], &[]] {
        let mut command = serveloop(before);
        command.arg(word).env("HOME", word).env("RUST_LOG", word);
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, Some(2), "{before:?}");
        assert!(!outcome.stderr.is_empty());
    }
}

/// A shell has background jobs that write to its terminal stopped, if its user wants that, and those
/// that read from it always: no client must wait for that.
#[test]
fn a_background_job_is_not_stopped_by_its_terminal() {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/clients/background_job.py"
    );
    if std::process::Command::new("python3")
        .arg("-V")
        .output()
        .is_err()
    {
        return skip("python3");
    }
    for protocol in ["echo", "operator"] {
        let mut command = std::process::Command::new("python3");
        command
            .args([script, env!("CARGO_BIN_EXE_serveloop")])
            .args(["serve", protocol, "--listen", "tcp://127.0.0.1:0", "-v"])
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let served = Served::spawn(command);
        let mut client = served.connect();
        if protocol == "echo" {
            assert!(client.echoes());
        }
        client.finish();
        assert_eq!(client.receive_rest(), b"", "{protocol}");
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{protocol}");
    }
}

#[test]
fn a_benchmark_ends_though_its_terminal_is_stopped() {
    let (_person, stderr) = stopped_terminal();
    let mut command = serveloop(&["bench", "--connections", "1", "--duration", "1h"]);
    command.stderr(stderr).env("TERM", "xterm");
    let running = Served::spawn_unheard(command);
    // Its signals are caught before anything else is begun.
    let status = format!("/proc/{}/status", running.process_id());
    let began = Instant::now();
    let int = 1 << (libc::SIGINT - 1);
    while !fs::read_to_string(&status).is_ok_and(|text| {
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught.is_some_and(|set| u64::from_str_radix(set.trim(), 16).unwrap_or(0) & int != 0)
    }) {
        if !fs::exists("/proc/self/status").unwrap_or(false) {
            return skip("/proc");
        }
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    running.signal(Signal::INT);
    assert_eq!(running.expect_exit().code(), Some(130));
}
