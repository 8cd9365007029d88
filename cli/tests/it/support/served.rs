//! The command as a process of its own for one test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::sockets::Stream;

/// What `serve` is asked for every model with.
pub(crate) const MODELS: [&[&str]; 5] = [
    &[],
    &["--workers", "2"],
    &["--model", "sequential"],
    &["--model", "threaded"],
    &["--model", "forking"],
];

/// How long a test waits for what must come, on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The command, with nothing inherited that would change its log or the servers that it asks.
pub(crate) fn serveloop(arguments: &[&str]) -> Command {
    let mut command = piped(env!("CARGO_BIN_EXE_serveloop"));
    command.args(arguments);
    command
}

/// Copies a program that is to be run. Another process does it: a child of another test could inherit this
/// process's descriptor of the copy, and a program that is open for writing cannot be run.
pub(crate) fn copy_program(from: impl AsRef<OsStr>, to: &Path) {
    let mut copy = Command::new("cp");
    let status = copy.arg("-p").arg(from).arg(to).status();
    assert!(status.expect("cp").success(), "{}", to.display());
}

/// A shell that runs `script`, in which `$0` is the command. It inherits as little.
pub(crate) fn by_script(script: &str) -> Command {
    let mut command = piped("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_serveloop")]);
    command
}

fn piped(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("RUST_LOG")
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .env_remove("HTTPS_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Whether this process ignores `signal`, as under `nohup`, and so what it starts: a test of that signal
/// has nothing to see then.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & 1 << (signal.as_raw() - 1) != 0)
}

/// How a message ends that has this error, whose words before the number differ between C libraries.
pub(crate) fn number_of(error: Errno) -> String {
    format!("(os error {})", error.raw_os_error())
}

/// The command as a shell starts it that was told to `prepare` what it inherits. The process is the
/// same.
pub(crate) fn by_shell(prepare: &str, arguments: &[&str]) -> Command {
    let mut command = by_script(&format!("{prepare}\nexec \"$0\" \"$@\""));
    command.args(arguments);
    command
}

/// A running `serveloop serve`, killed when the test ends.
pub(crate) struct Served {
    child: Child,
    uris: Vec<String>,
    stdout: Lines,
    stderr: Lines,
}

impl Served {
    /// Runs `serveloop serve` with `arguments`, and waits until it listens at every `--listen`.
    #[track_caller]
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut command = serveloop(&["serve"]);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Runs a command that was prepared, and waits until it listens at every `--listen`.
    #[track_caller]
    pub(crate) fn spawn(command: Command) -> Self {
        let listeners = command.get_args().filter(|arg| *arg == "--listen").count();
        let mut served = Self::spawn_unheard(command);
        for _ in 0..listeners {
            let line = served.stdout.next().expect("it ended before it listened");
            let uri = line.strip_prefix("listening on ").expect("another line");
            served.uris.push(uri.to_owned());
        }
        served
    }

    /// Runs a command whose output may go elsewhere.
    pub(crate) fn spawn_unheard(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the built command");
        Self {
            uris: Vec::new(),
            stdout: Lines::new(child.stdout.take()),
            stderr: Lines::new(child.stderr.take()),
            child,
        }
    }

    /// Where the listener with that number really listens.
    pub(crate) fn uri(&self, number: usize) -> &str {
        &self.uris[number]
    }

    pub(crate) fn uris(&self) -> &[String] {
        &self.uris
    }

    /// Connects to the first listener.
    #[track_caller]
    pub(crate) fn connect(&self) -> Stream {
        Stream::connect(self.uri(0))
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it still runs");
    }

    /// Waits for the next line on standard output, or for its end.
    #[track_caller]
    pub(crate) fn printed_if_any(&self) -> Option<String> {
        self.stdout.next()
    }

    /// Waits for the next line on standard output.
    #[track_caller]
    pub(crate) fn printed(&self) -> String {
        self.stdout.next().expect("it ended without another line")
    }

    /// Where the person at its terminal types, if its standard input was made a pipe.
    #[track_caller]
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// Waits for a line of the log that contains `part`.
    #[track_caller]
    pub(crate) fn logged(&self, part: &str) -> String {
        loop {
            let line = self.stderr.next().expect("it ended without that line");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits only for the end of the process, even if others still hold its output open.
    #[track_caller]
    pub(crate) fn expect_exit(mut self) -> ExitStatus {
        self.wait_for_exit()
    }

    /// Waits for the end of the process. What others say that it has started is still heard.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("it does not end");
    }

    /// Waits for the end. Gives the exit status, and what the log says that was not waited for.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        assert_eq!(self.stdout.rest(), [""; 0], "more on standard output");
        let log = self.stderr.rest();
        (self.child.wait().expect("our child"), log)
    }

    /// Waits for the end. Gives the exit status and the lines of standard error and standard output.
    #[track_caller]
    pub(crate) fn all(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        (self.child.wait().expect("our child"), stderr, stdout)
    }

    /// Waits until no more lines come, and returns the lines that were not waited for.
    #[track_caller]
    pub(crate) fn log(&self) -> Vec<String> {
        self.stderr.rest()
    }

    /// Waits for an orderly end, and returns the log lines that were not waited for.
    #[track_caller]
    pub(crate) fn status_and_log(self) -> Vec<String> {
        let (status, log) = self.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        log
    }

    /// Waits for the end, whatever was written before.
    #[track_caller]
    pub(crate) fn status(mut self) -> ExitStatus {
        self.stdout.rest();
        self.stderr.rest();
        self.child.wait().expect("our child")
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    pub(crate) fn exit_code(self) -> Option<i32> {
        self.end().0.code()
    }
}

/// The outcome of a command line that ends by itself.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Runs `serveloop` with `arguments` to its end.
    #[track_caller]
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::of(serveloop(arguments))
    }

    /// Runs a command that was prepared to its end.
    #[track_caller]
    pub(crate) fn of(command: Command) -> Self {
        let mut running = Served::spawn_unheard(command);
        Self {
            stdout: running.stdout.rest().join("\n"),
            stderr: running.stderr.rest().join("\n"),
            code: running.child.wait().expect("our child").code(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines that come from a process, each waited for with patience.
struct Lines(Receiver<String>);

impl Lines {
    fn new(source: Option<impl Read + Send + 'static>) -> Self {
        let (sender, receiver) = mpsc::channel();
        if let Some(source) = source {
            thread::spawn(move || {
                let lines = BufReader::new(source).lines().map_while(Result::ok);
                lines.map(|line| sender.send(line)).all(|sent| sent.is_ok())
            });
        }
        Self(receiver)
    }

    /// The next line; `None` when the process has closed its side.
    #[track_caller]
    fn next(&self) -> Option<String> {
        match self.0.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing came"),
        }
    }

    /// All lines until the process closes its side.
    #[track_caller]
    fn rest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.next() {
            lines.push(line);
        }
        lines
    }
}
