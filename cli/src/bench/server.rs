//! One of the command's own servers, as a child process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, mem};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serveloop::Address;

use crate::bench::contender::Model;
use crate::bench::cores::Cores;
use crate::bench::family::Family;
use crate::bench::interrupt::Interrupt;
use crate::bench::launch;
use crate::bench::scenario::Scenario;
use crate::bench::trouble::explained;
use crate::serving::VARIABLES;
use crate::threads;

/// How long a server may take to listen, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server that stopped answering may take to end.
const DYING: Duration = Duration::from_secs(1);
/// The interval at which signals and the end of the server are checked.
const STEP: Duration = Duration::from_millis(20);
/// How many lines of the server's log are shown when it fails.
const LAST_LINES: usize = 8;

/// A server process. Dropping it kills the server and everything that it started.
#[derive(Debug)]
pub(crate) struct Server {
    model: Model,
    child: Child,
    is_killed: bool,
    log: Option<JoinHandle<VecDeque<String>>>,
    pub(crate) addresses: Vec<Address>,
}

impl Server {
    /// Starts a server and waits until it listens. If `tracer`, a program and its arguments, is not
    /// empty, the server runs under it.
    ///
    /// # Errors
    /// Fails if the server does not start or listen in time, or after a signal.
    pub(crate) fn start(
        model: Model,
        scenario: &Scenario,
        cores: &Cores,
        tracer: &[OsString],
        interrupt: &Interrupt,
    ) -> io::Result<Self> {
        let itself = env::current_exe()?;
        let mut command = Command::new(&itself);
        command.args(launch::arguments(false, &cores.servers));
        if !tracer.is_empty() {
            command.args(tracer).arg(&itself);
            command.args(launch::arguments(true, &cores.servers));
        }
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command
            .arg(&itself)
            .args(model.arguments(scenario))
            .env_remove("RUST_LOG")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());

        let child = command.spawn().map_err(|error| {
            let error = explained(error);
            io::Error::new(
                error.kind(),
                format!("cannot start the {model} server: {error}"),
            )
        })?;

        let mut server = Self {
            model,
            child,
            is_killed: false,
            log: None,
            addresses: Vec::new(),
        };

        // From here on, every failure drops `server` and so ends the child.
        let announced = lines(server.child.stdout.take())?;
        server.log = server.child.stderr.take().map(last_lines).transpose()?;
        match server.wait(&announced, scenario.listeners(), interrupt) {
            Ok(()) => Ok(server),
            Err(error) => Err(server.explain(error)),
        }
    }

    pub(crate) fn family(&self) -> Family {
        Family {
            leader: self.child.id(),
            forks: self.model.forks(),
        }
    }

    /// Adds the server's exit status and the end of its log to an error. Returns an `Interrupted`
    /// error unchanged, since the server is not its cause.
    pub(crate) fn explain(mut self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::Interrupted {
            return error;
        }

        let status = self.end_within(DYING);
        self.kill();
        let log = self.log.take().and_then(|log| log.join().ok());
        let end = status.map_or(String::new(), |status| {
            format!(", which ended with {status}")
        });

        let mut text = format!("{error}, from the {} server{end}", self.model);
        for line in log.unwrap_or_default() {
            text += "\n  | ";
            text += &line;
        }
        io::Error::new(error.kind(), text)
    }

    /// Ends a traced server in order, so that the tracer still writes its counts.
    ///
    /// # Errors
    /// Fails if the server cannot be found, or does not end in time.
    pub(crate) fn end_traced(mut self) -> io::Result<()> {
        let server = self.family().first_child().and_then(process);
        let server = server.ok_or_else(|| io::Error::other("the tracer runs no server"))?;
        kill_process(server, Signal::TERM)?;

        match self.end_within(PATIENCE) {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the traced server does not end")),
        }
    }

    fn wait(
        &mut self,
        announced: &Receiver<String>,
        listeners: usize,
        interrupt: &Interrupt,
    ) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.addresses.len() < listeners {
            interrupt.check()?;
            match announced.recv_timeout(STEP) {
                Ok(line) => self.addresses.push(address(&line)?),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => return Err(io::Error::other("it does not listen")),
            }
        }
        Ok(())
    }

    fn end_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            let status = self.child.try_wait().ok()?;
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::sleep(STEP);
        }
    }

    /// Kills the process group and reaps the child. It does so only once, since the system may
    /// reuse the number later. Killing fails only if all of its processes have already ended.
    fn kill(&mut self) {
        if mem::replace(&mut self.is_killed, true) {
            return;
        }
        if let Some(group) = process(self.child.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn process(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

fn address(line: &str) -> io::Result<Address> {
    let uri = line.strip_prefix("listening on ").unwrap_or(line);
    Ok(uri.parse::<Address>()?)
}

/// Sends the lines of `source` as they come.
fn lines(source: Option<impl Read + Send + 'static>) -> io::Result<Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(source) = source {
        threads::spawn("a server's lines", move || {
            let lines = BufReader::new(source).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).all(|sent| sent.is_ok())
        })?;
    }
    Ok(receiver)
}

/// Keeps the last lines of `source`. It reads to the end, so that the server never blocks on
/// writing.
fn last_lines(source: impl Read + Send + 'static) -> io::Result<JoinHandle<VecDeque<String>>> {
    threads::spawn("a server's log", move || {
        let mut last = VecDeque::new();
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        last
    })
}
