//! A server in a process of its own, and what that process has.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use serveloop::{Address, Statistics};
use socket2::Socket;

use crate::support::model_server::{End, connect, finish, read_to, try_connect};
use crate::support::transcripts::Host;
use crate::support::{PATIENCE, seconds};

/// A server in a process, as its tests see it.
pub(crate) struct Isolated {
    pub(crate) process: Child,
    pub(crate) addresses: Vec<Address>,
    lines: Receiver<String>,
}

impl Isolated {
    pub(crate) fn new(model: &str, what: &str, at: &str) -> Self {
        let itself = env::current_exe().unwrap();
        Self::run(&mut Command::new(itself), model, what, at)
    }

    pub(crate) fn run(command: &mut Command, model: &str, what: &str, at: &str) -> Self {
        let control = "tcp://127.0.0.1:0";
        command.args(["serve", model, what, at, control]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        let mut server = Self {
            process,
            addresses: Vec::new(),
            lines,
        };
        for _ in 0..2 {
            let at = server.line("at ");
            server.addresses.push(at.parse().unwrap());
        }
        server
    }

    /// The rest of the next line that begins like this.
    #[track_caller]
    pub(crate) fn line(&self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap();
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn client(&self) -> Socket {
        connect(&self.addresses[0])
    }

    /// Shuts it down if it still listens, and returns its counts.
    #[track_caller]
    pub(crate) fn end(mut self) -> Statistics {
        self.shutdown();
        self.counts()
    }

    #[track_caller]
    pub(crate) fn counts(&mut self) -> Statistics {
        let mut statistics = Statistics::default();
        let names: Vec<_> = statistics.iter().map(|(name, _)| name).collect();
        for name in names {
            let count = self.line(&format!("count {name} ")).parse().unwrap();
            set(&mut statistics, name, count);
        }
        assert!(self.process.wait().unwrap().success());
        assert_eq!(statistics.accepted, statistics.closed(), "{statistics:?}");
        statistics
    }

    /// How many it has after it has served a client that has left.
    pub(crate) fn descriptors(&self) -> usize {
        let mut client = self.client();
        finish(&client);
        assert_eq!(read_to(&mut client).1, End::Eof);
        // A child's descriptor goes a moment after the child.
        let alone = |usage: &Usage| usage.threads == 1 && usage.children.is_empty();
        let first = self.wait("alone", alone).descriptors;
        first.min(self.wait("alone", alone).descriptors)
    }

    pub(crate) fn wait(&self, what: &str, reached: impl Fn(&Usage) -> bool) -> Usage {
        let until = Instant::now() + seconds(60);
        loop {
            let usage = Usage::of(self.process.id());
            if reached(&usage) {
                return usage;
            }
            assert!(Instant::now() < until, "never {what}: {usage:?}");
            thread::yield_now();
        }
    }
}

/// Counters can only be set where they are named.
fn set(statistics: &mut Statistics, name: &str, count: u64) {
    let place = match name {
        "accepted" => &mut statistics.accepted,
        "refused_by_system" => &mut statistics.refused_by_system,
        "closed_by_protocol" => &mut statistics.closed_by_protocol,
        "closed_by_peer" => &mut statistics.closed_by_peer,
        "closed_refused" => &mut statistics.closed_refused,
        "closed_malformed" => &mut statistics.closed_malformed,
        "closed_aborted" => &mut statistics.closed_aborted,
        "closed_shed" => &mut statistics.closed_shed,
        "closed_by_shutdown" => &mut statistics.closed_by_shutdown,
        "closed_timeout_first_message" => &mut statistics.closed_timeout_first_message,
        "closed_timeout_message" => &mut statistics.closed_timeout_message,
        "closed_timeout_idle" => &mut statistics.closed_timeout_idle,
        "closed_timeout_write" => &mut statistics.closed_timeout_write,
        "closed_timeout_drain" => &mut statistics.closed_timeout_drain,
        "closed_overflow" => &mut statistics.closed_overflow,
        "closed_too_long" => &mut statistics.closed_too_long,
        "closed_truncated" => &mut statistics.closed_truncated,
        "bytes_read" => &mut statistics.bytes_read,
        "closed_protocol_error" => &mut statistics.closed_protocol_error,
        "closed_panicked" => &mut statistics.closed_panicked,
        "closed_killed" => &mut statistics.closed_killed,
        "panics" => &mut statistics.panics,
        _ => return,
    };
    *place = count;
}

impl Host for Isolated {
    fn address(&self) -> &Address {
        &self.addresses[0]
    }

    fn error(&mut self) {
        self.line("error ");
    }

    fn shutdown(&mut self) {
        // It may have been shut down before.
        if let Ok(mut client) = try_connect(&self.addresses[1]) {
            assert_eq!(read_to(&mut client).1, End::Eof);
        }
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a process has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    pub(crate) children: Vec<String>,
    pub(crate) memory_kib: usize,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Self {
        let count = |what| {
            fs::read_dir(format!("/proc/{process}/{what}"))
                .unwrap()
                .count()
        };
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.unwrap().trim().trim_end_matches(" kB");
        Self {
            threads: count("task"),
            descriptors: count("fd"),
            children: children(process),
            memory_kib: memory.parse().unwrap(),
        }
    }
}

/// The numbers of all children, zombies included.
fn children(process: u32) -> Vec<String> {
    let parent = process.to_string();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // After the name in parentheses come the state and the parent.
        let of = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (of == parent).then_some(name)
    });
    numbers.collect()
}
