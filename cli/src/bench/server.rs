//! One of the command's own servers, as a child process.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;

use serveloop::Address;
use serveloop::service::{activation, notify};
use serveloop_measure::{Cores, Family, Launched, Scenario, Tracer, launch};

use crate::bench::contender::Model;
use crate::bench::interrupt::Interrupt;
use crate::bench::spoken::Spoken;
use crate::bench::trouble::explained;
use crate::threads;

/// How long a server that stopped answering may take to end.
const DYING: Duration = Duration::from_secs(1);
/// How many lines of the server's log are shown when it fails.
const LAST_LINES: usize = 8;

/// A server process. Dropping it kills the server and everything that it started.
#[derive(Debug)]
pub(crate) struct Server {
    model: Model,
    process: Launched,
    log: Option<JoinHandle<VecDeque<String>>>,
    pub(crate) addresses: Vec<Address>,
}

impl Server {
    /// Starts a server and waits until it listens. With a `tracer`, the server runs under it.
    ///
    /// # Errors
    /// Fails if the server does not start or listen in time, or after a signal.
    pub(crate) fn start(
        model: Model,
        spoken: &Spoken,
        scenario: &Scenario,
        cores: &Cores,
        tracer: Option<&Tracer>,
        interrupt: &Interrupt,
    ) -> io::Result<Self> {
        let mut command = launch::command(&["bench"], tracer, &cores.servers)?;
        for variable in activation::VARIABLES.iter().chain(&notify::VARIABLES) {
            command.env_remove(variable);
        }
        command
            .arg(env::current_exe()?)
            .args(model.arguments(spoken, scenario))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());

        let process = Launched::spawn(&mut command).map_err(|error| {
            let error = explained(error);
            io::Error::new(
                error.kind(),
                format!("cannot start the {model} server: {error}"),
            )
        })?;

        let mut server = Self {
            model,
            process,
            log: None,
            addresses: Vec::new(),
        };

        // From here on, every failure drops `server` and so ends the child.
        let log = server.process.stderr.take();
        server.log = log.map(last_lines).transpose()?;
        match server.process.addresses(scenario.listeners(), interrupt) {
            Ok(addresses) => Ok(Self {
                addresses,
                ..server
            }),
            Err(error) => Err(server.explain(error)),
        }
    }

    pub(crate) fn family(&self) -> Family {
        Family {
            forks: self.model.forks(),
            ..self.process.family()
        }
    }

    /// Adds the server's exit status and the end of its log to an error. Returns an `Interrupted`
    /// error unchanged, since the server is not its cause.
    pub(crate) fn explain(mut self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::Interrupted {
            return error;
        }

        let status = self.process.end_within(DYING);
        self.process.kill();
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
    /// Fails if the server does not end in time.
    pub(crate) fn end_traced(self) -> io::Result<()> {
        self.process.end_traced()
    }
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
