//! A client command as a process of its own, whose input and output are bytes.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::served::{PATIENCE, serveloop};

/// A running client, killed when the test ends.
pub(crate) struct Running(Child);

/// How a client ended, and all that it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Running {
    /// Runs the command with pipes on all sides.
    #[track_caller]
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut command = serveloop(arguments);
        command.stdin(Stdio::piped());
        Self::spawn(command)
    }

    #[track_caller]
    pub(crate) fn spawn(mut command: Command) -> Self {
        Self(command.spawn().expect("the built command"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    #[track_caller]
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("a pipe")
    }

    #[track_caller]
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("a pipe")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it still runs");
    }

    /// Gives it `input` and waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self, input: &[u8]) -> Said {
        let stdin = self.0.stdin.take();
        let feed = |mut stdin: ChildStdin| {
            // It may end before it has read everything.
            let _ = stdin.write_all(input);
        };
        thread::scope(|scope| {
            stdin.map(|stdin| scope.spawn(move || feed(stdin)));
            self.end()
        })
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Said {
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        thread::scope(|scope| {
            let stdout = scope.spawn(|| read(stdout));
            let stderr = scope.spawn(|| read(stderr));
            let code = self.wait();
            Said {
                code,
                stdout: stdout.join().expect("a pipe"),
                stderr: String::from_utf8_lossy(&stderr.join().expect("a pipe")).into_owned(),
            }
        })
    }

    #[track_caller]
    fn wait(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().expect("our child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(2));
        }
        // The readers of its output end with it.
        let _ = self.0.kill();
        panic!("it does not end");
    }
}

impl Said {
    /// Returns the output of a command that succeeded.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!((self.code, &*self.stderr), (Some(0), ""));
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The command failed and said why, on one line.
    #[track_caller]
    pub(crate) fn badly(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        self.stderr
    }
}

fn read(source: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut source) = source {
        source.read_to_end(&mut bytes).expect("a pipe");
    }
    bytes
}

/// Runs the command with `input` to its end.
#[track_caller]
pub(crate) fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Said {
    Running::new(arguments).finish(input.as_ref())
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes until nothing more is accepted for a while. Returns how much was accepted.
#[track_caller]
pub(crate) fn fill(mut to: impl Write, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match to.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    taken
}
