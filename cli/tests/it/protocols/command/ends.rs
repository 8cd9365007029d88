//! `serve command`: what becomes of programs whose client, connection or server is gone.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;

use crate::protocols::command::limits::expect_dead;
use crate::protocols::command::{Client, framed, serve};
use crate::support::outside::skip;
use crate::support::served::{PATIENCE, Served};
use crate::support::sockets::Directory;

const MODELS: [&[&str]; 4] = [
    &["--model", "event-loop"],
    &["--workers", "2"],
    &["--model", "sequential"],
    &["--model", "threaded"],
];

/// How late a program may be dead whose client is gone, on a machine that does other things too.
const PROMPT: Duration = Duration::from_secs(5);

/// A program with a child of its own, and their numbers.
struct Family {
    ids: Vec<String>,
}

impl Family {
    /// Has `client` ask for it, and waits until it runs.
    #[track_caller]
    fn new(client: &mut Client, directory: &Directory) -> Self {
        let list = directory.path("ids");
        client.send(format!(
            "sh -c 'sleep 60 & echo $$ $! > {0}.new; mv {0}.new {0}; wait'",
            list.display()
        ));
        let ids = wait_for(&list);
        let ids: Vec<_> = ids.split_whitespace().map(str::to_owned).collect();
        assert_eq!(ids.len(), 2);
        Self { ids }
    }

    #[track_caller]
    fn expect_dead(&self) {
        self.ids.iter().for_each(|id| expect_dead(id));
    }
}

/// Waits until a file exists, and returns its content.
#[track_caller]
fn wait_for(path: &Path) -> String {
    let began = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        assert!(began.elapsed() < PATIENCE, "no {}", path.display());
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_model_runs_programs() {
    for model in MODELS {
        let served = serve(&["echo", "sh"], model);
        let mut client = Client::new(&served);
        client.write(&[framed(b"echo a"), framed(b"sh -c 'sleep 0.1; exit 7'")].concat());
        assert_eq!(client.reply(), b"a\n", "{model:?}");
        assert_eq!(client.reply_text(), "[exit status 7]\n", "{model:?}");
        client.finish();
        client.expect_end();
        served.signal(Signal::TERM);
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn a_client_that_is_gone_takes_its_program_with_it() {
    for model in MODELS {
        for reset in [false, true] {
            let directory = Directory::new();
            let served = serve(&["sh"], &[model, &["--grace-after-eof", "100ms"]].concat());
            let mut client = Client::new(&served);
            let family = Family::new(&mut client, &directory);
            if reset {
                let now = Some(Duration::ZERO);
                SockRef::from(&client.0).set_linger(now).expect("a socket");
            }
            let began = Instant::now();
            drop(client);
            family.expect_dead();
            let took = began.elapsed();
            assert!(took < PROMPT, "{model:?} {reset} {took:?}");
        }
    }
}

#[test]
fn a_client_with_nothing_more_to_say_gets_its_replies() {
    let served = serve(&["echo", "sleep"], &["--grace-after-eof", "200ms"]);
    let mut client = Client::new(&served);
    client.write(&[framed(b"echo a"), framed(b"sleep 60"), framed(b"echo b")].concat());
    client.finish();
    assert_eq!(client.reply(), b"a\n");
    let stopped = "[stopped: the client's stream has ended]\n";
    assert_eq!(client.reply_text(), stopped);
    assert_eq!(client.reply(), b"b\n");
    client.expect_end();
}

/// However much they asked for before, or tried to.
#[test]
fn a_client_that_is_gone_is_noticed_behind_all_its_requests() {
    let options = ["--max-commands", "1", "--grace-after-eof", "100ms"];
    let served = serve(&["sleep", "echo"], &options);
    let mut flood = Client::new(&served);
    flood.write(&framed(b"sleep 60"));
    flood.write(&framed(b"echo a").repeat(100));
    flood.write(&framed(b"sleep 60"));
    let began = Instant::now();
    drop(flood);
    assert_eq!(Client::new(&served).ask("echo b"), "b\n");
    assert!(began.elapsed() < PROMPT);

    let mut long = Client::new(&served);
    long.write(&[framed(b"sleep 60"), framed(&[b'x'; 9_000])].concat());
    drop(long);
    assert_eq!(Client::new(&served).ask("echo b"), "b\n");
    assert!(began.elapsed() < 2 * PROMPT);
}

#[test]
fn half_a_request_is_none() {
    let served = serve(&["echo"], &["-v"]);
    let mut client = Client::new(&served);
    client.write(&framed(b"echo a")[..7]);
    client.finish();
    client.expect_end();
    served.logged("truncated: the stream ended 7 bytes into a message");
}

/// Whether it comes at once or later, and in every model.
#[test]
fn half_a_request_takes_no_reply_along() {
    for model in MODELS {
        for pause in [Duration::ZERO, Duration::from_millis(30)] {
            let served = serve(&["echo", "sh"], &[model, &["-v"]].concat());
            let mut client = Client::new(&served);
            client.write(&[framed(b"sh -c 'sleep 0.1; echo a'"), framed(b"echo b")].concat());
            thread::sleep(pause);
            client.write(&framed(b"echo c")[..7]);
            client.finish();
            assert_eq!(client.reply(), b"a\n", "{model:?} {pause:?}");
            assert_eq!(client.reply(), b"b\n", "{model:?} {pause:?}");
            client.expect_end();
            served.logged("the stream ended 7 bytes into a message");
        }
    }
}

#[test]
fn a_shutdown_waits_for_programs_that_run() {
    for model in MODELS {
        let directory = Directory::new();
        let served = serve(&["cat"], model);
        let fifo = directory.path("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status();
        assert!(made.expect("a program that is everywhere").success());
        let mut client = Client::new(&served);
        client.send(format!("cat {}", fifo.display()));
        let mut held = fs::File::options()
            .write(true)
            .open(&fifo)
            .expect("a reader");
        served.signal(Signal::TERM);
        if model.contains(&"event-loop") {
            served.logged("shutting down");
        }
        held.write_all(b"finished\n").expect("a reader");
        drop(held);
        assert_eq!(client.reply(), b"finished\n", "{model:?}");
        client.expect_end();
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn the_end_of_the_drain_is_the_end_of_programs() {
    for model in MODELS {
        let directory = Directory::new();
        let served = serve(&["sh"], &[model, &["--drain-timeout", "200ms"]].concat());
        let mut client = Client::new(&served);
        let family = Family::new(&mut client, &directory);
        served.signal(Signal::TERM);
        client.expect_end();
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
        family.expect_dead();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_is_killed_takes_its_programs_with_it() {
    let directory = Directory::new();
    let served = serve(&["sh"], &[]);
    let mut client = Client::new(&served);
    let family = Family::new(&mut client, &directory);
    served.signal(Signal::KILL);
    expect_dead(&family.ids[0]);
    // Only the program itself can be told of the server's death.
    let orphan = rustix::process::Pid::from_raw(family.ids[1].parse().expect("an id"));
    let _ = rustix::process::kill_process(orphan.expect("an id"), Signal::KILL);
}

#[test]
fn a_thousand_commands_leave_nothing_behind() {
    let served = serve(&["true", "sh"], &[]);
    let mut client = Client::new(&served);
    client.ask("true");
    let before = inventory(&served);
    for number in 0..1_000 {
        let request = if number % 10 == 0 {
            "sh -c 'sleep 60 & exit 1'"
        } else {
            "true"
        };
        let reply = client.ask(request);
        assert!(reply.is_empty() || reply == "[exit status 1]\n", "{reply}");
    }
    // A thread that has done its work takes a moment to be gone, after the first command too.
    let began = Instant::now();
    let is_back = |(descriptors, threads, children): (usize, usize, String)| {
        descriptors <= before.0 && threads <= before.1 && children.is_empty()
    };
    while !is_back(inventory(&served)) {
        assert!(
            began.elapsed() < PATIENCE,
            "{before:?} {:?}",
            inventory(&served)
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Orphans are left to the first process, and no other process notices their ends.
#[cfg(target_os = "linux")]
#[test]
fn the_first_process_of_a_container_keeps_no_zombies() {
    let Some(served) = serve_contained(&["--allow", "sh"]) else {
        return skip("unshare, or no right to use it");
    };
    let mut client = Client::new(&served);
    for _ in 0..20 {
        let reply = client.ask("sh -c 'sleep 60 & sh -c \"sleep 60; :\" & exit 3'");
        assert_eq!(reply, "[exit status 3]\n");
    }
    let processes = client.ask("sh -c 'cat /proc/[0-9]*/stat'");
    assert!(processes.contains("(serveloop) "), "{processes}");
    assert!(!processes.contains(") Z "), "{processes}");
}

/// A process that joins a group after it was killed, and before its first process is reaped, is an orphan
/// that goes on.
#[cfg(target_os = "linux")]
#[test]
fn the_first_process_of_a_container_waits_for_no_orphan() {
    if !Path::new("/usr/bin/perl").exists() {
        return skip("perl");
    }
    let options = ["--allow", "perl", "--max-commands", "1"];
    let Some(served) = serve_contained(&options) else {
        return skip("unshare, or no right to use it");
    };
    let mut client = Client::new(&served);
    let latecomers = "perl -e '$group = $$; for my $late (0..40) { next if fork; \
                      if ($late % 2) { sleep 60; exit } \
                      setpgrp(0, 0); 1 while getppid == $group; for (1..$late * 50) {} \
                      setpgrp(0, $group); sleep 60 } \
                      select(undef, undef, undef, 0.1)'";
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(client.ask(latecomers), "");
    }
    assert!(began.elapsed() < PATIENCE);
}

/// A server that is the first process of a container; none where there can be no such thing.
#[cfg(target_os = "linux")]
fn serve_contained(options: &[&str]) -> Option<Served> {
    let contained = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let tried = contained(&["true"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let server = env!("CARGO_BIN_EXE_serveloop");
    let arguments = [server, "serve", "command", "--listen", "tcp://127.0.0.1:0"];
    Some(Served::spawn(contained(&[&arguments, options].concat())))
}

/// How many descriptors, threads and children the server has.
fn inventory(served: &Served) -> (usize, usize, String) {
    let process = format!("/proc/{}", served.process_id());
    let entries = |of: &str| {
        let directory = match fs::read_dir(format!("{process}/{of}")) {
            // Only root may look into it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Vec::new(),
            directory => directory,
        };
        directory
            .expect("it runs")
            .map(|entry| entry.expect("it runs").path())
            .collect::<Vec<_>>()
    };
    let threads = entries("task");
    let children = threads
        .iter()
        .map(|thread| fs::read_to_string(thread.join("children")).unwrap_or_default());
    (entries("fd").len(), threads.len(), children.collect())
}
