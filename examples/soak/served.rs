//! A server in its own process, and the resources that the system says it holds.

use crate::holdings::Holdings;
use serveloop::Address;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Served {
    pub(crate) model: &'static str,
    pub(crate) addresses: Vec<Address>,
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    start: Holdings,
}

impl Served {
    pub(crate) fn start(model: &'static str, directory: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command
            .args(["serve", model])
            .arg(directory)
            .stdout(Stdio::piped());

        let mut child = command.spawn().expect("this program");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));

        let lines = output.by_ref().lines().map_while(Result::ok);
        let lines = lines.take_while(|line| line != "ready");
        let addresses = lines
            .map(|line| line.parse().expect("an address"))
            .collect();

        let start = Holdings::of(child.id());
        Self {
            model,
            addresses,
            child,
            output,
            start,
        }
    }

    /// Records what the server holds once it is stable. It must return to this at the end.
    pub(crate) fn note_start(&mut self) {
        let mut before = None;
        while before
            .replace(self.start)
            .is_none_or(|before| before != self.start)
        {
            std::thread::sleep(Duration::from_millis(300));
            self.start = Holdings::of(self.child.id());
        }
    }

    /// Waits until the server has released what clients used, then ends it. Returns whether all is
    /// well.
    pub(crate) fn finish(&mut self) -> bool {
        let patience = Instant::now() + Duration::from_secs(20);
        let is_back = || Holdings::of(self.child.id()).is_back_at(&self.start);
        while !is_back() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(100));
        }

        let flat = is_back();
        print!("  {self}; ");
        let end = self
            .addresses
            .last()
            .and_then(Address::path)
            .expect("a path");
        drop(UnixStream::connect(end));

        let mut counted = String::new();
        let _ = self.output.read_line(&mut counted);
        let ended = self.child.wait().is_ok_and(|status| status.success());
        println!(
            "{}; {}",
            counted.trim(),
            if flat { "flat" } else { "NOT FLAT" }
        );
        flat && ended && counted.trim().ends_with(" 0 of them open")
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Holdings::of(self.child.id());
        write!(f, "{:10} {}", self.model, self.start.and_now(&now))
    }
}
