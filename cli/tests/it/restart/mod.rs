//! A server is replaced by a new process of its program, and its clients notice nothing.

mod chatting;
mod going_on;
mod handover;
mod load;
mod pages;
mod refused;
mod told;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::served::{PATIENCE, Served, by_script};
use crate::support::sockets::{Directory, Stream};

/// Is set when it is dropped, also by a panic, so that others do not go on without end.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A server whose program is a link in a directory of its own, which can be made to lead elsewhere. All
/// its processes are killed when the test ends.
pub(crate) struct Site {
    pub(crate) served: Served,
    current: Cell<u32>,
    directory: Directory,
}

impl Site {
    #[track_caller]
    fn new(arguments: &[&str]) -> Self {
        Self::after("", arguments)
    }

    /// Starts it as a shell does that was told to `prepare` what it inherits.
    #[track_caller]
    pub(crate) fn after(prepare: &str, arguments: &[&str]) -> Self {
        Self::in_directory(Directory::new(), prepare, arguments)
    }

    /// Starts it on TCP and on a Unix socket.
    #[track_caller]
    fn on_tcp_and_unix(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let unix = directory.uri("unix", "socket");
        let listen = ["--listen", "tcp://127.0.0.1:0", "--listen", &unix];
        Self::in_directory(directory, "", &[arguments, &listen].concat())
    }

    #[track_caller]
    fn in_directory(directory: Directory, prepare: &str, arguments: &[&str]) -> Self {
        let (program, file) = (directory.path("server"), directory.path("pid"));
        symlink(env!("CARGO_BIN_EXE_serveloop"), &program).expect("a new name");
        let program = program.display();
        let mut command = by_script(&format!("{prepare}\nexec '{program}' serve \"$@\""));
        command.args(arguments).arg("--pid-file").arg(&file);
        let served = Served::spawn(command);
        let site = Self {
            current: Cell::new(served.process_id()),
            served,
            directory,
        };
        assert_eq!(site.noted(), site.process());
        site
    }

    fn process(&self) -> u32 {
        self.current.get()
    }

    fn file(&self) -> PathBuf {
        self.directory.path("pid")
    }

    /// The number in the file.
    fn noted(&self) -> u32 {
        let text = fs::read_to_string(self.file()).expect("a file");
        text.trim().parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.process().cast_signed()).expect("a number");
        kill_process(process, signal).expect("it still runs");
    }

    /// Puts a script in place of the program.
    #[track_caller]
    fn replace(&self, script: &str) {
        // This process never has the file open for writing, or a child of another test could have it.
        let write =
            "printf '%s' \"$1\" >\"$2.new\" && chmod 755 \"$2.new\" && mv \"$2.new\" \"$2\"";
        let script = format!("#!/bin/sh\n{script}\n");
        let status = Command::new("sh")
            .args(["-c", write, "sh", &script])
            .arg(self.directory.path("server"))
            .status();
        assert!(status.expect("a shell").success());
    }

    /// Makes the new process another one: the command with these arguments.
    #[track_caller]
    fn change(&self, arguments: &str) {
        let program = env!("CARGO_BIN_EXE_serveloop");
        let file = self.file().display().to_string();
        self.replace(&format!(
            "exec '{program}' serve {arguments} --pid-file '{file}'"
        ));
    }

    /// Replaces the process, and waits until the new one serves.
    #[track_caller]
    pub(crate) fn restart(&self) {
        self.signal(Signal::USR2);
        let line = self.served.logged("serves now");
        let number = line
            .split_whitespace()
            .skip_while(|word| *word != "process");
        let number = number.skip(1).find_map(|word| word.parse().ok());
        self.current.set(number.expect("a number"));
        let until = Instant::now() + PATIENCE;
        while self.noted() != self.process() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(self.noted(), self.process());
    }

    /// Waits for the line about a failed attempt.
    #[track_caller]
    fn fails(&self, part: &str) {
        self.signal(Signal::USR2);
        let line = self.served.logged("not restarted");
        assert!(line.contains(part), "{line}");
        assert!(line.contains("this process goes on"), "{line}");
        assert_eq!(self.noted(), self.process());
        for uri in self.served.uris() {
            if uri.starts_with("tcp:") || uri.starts_with("unix:") {
                assert!(Stream::connect(uri).echoes(), "{uri}");
            }
        }
    }

    /// Waits for the end of the first process.
    #[track_caller]
    pub(crate) fn old_ends(&mut self) -> ExitStatus {
        self.served.wait_for_exit()
    }

    /// Ends the process that serves now, and returns what was logged and not waited for.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while self.runs() {
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(self.old_ends().code(), Some(0));
        assert!(!self.file().exists(), "the file is left");
        self.served.log()
    }

    /// Whether the process that serves now has not ended.
    fn runs(&self) -> bool {
        let process = Pid::from_raw(self.process().cast_signed()).expect("a number");
        let state = fs::read_to_string(format!("/proc/{}/stat", self.process()));
        // A process that has ended and is not waited for is there too.
        let is_over = state.is_ok_and(|state| state.contains(") Z "));
        test_kill_process(process).is_ok() && !is_over
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended by itself.
        let process = Pid::from_raw(self.process().cast_signed()).expect("a number");
        let _ = kill_process(process, Signal::KILL);
    }
}
