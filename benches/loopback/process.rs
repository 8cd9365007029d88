//! A server as a child process.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::machine::{Cores, Usage, resident};
use crate::servers::Kind;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// The server itself, which is not the child when a tracer runs it.
    process: u32,
    pub(crate) address: SocketAddr,
    output: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(kind: Kind, cores: Cores) -> io::Result<Self> {
        let list = cores.list();
        let pin = ["taskset", "-c", &list];
        Self::start_under(if cores.pinned { &pin } else { &[] }, kind)
    }

    /// Starts the server by another program, whose command line `before` begins.
    pub(crate) fn start_under(before: &[&str], kind: Kind) -> io::Result<Self> {
        let itself = env::current_exe()?;
        let mut command = match before {
            [] => Command::new(itself),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(itself);
                command
            }
        };
        command.args(["--serve", kind.name()]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        match announcement(&mut child) {
            Ok((port, process, output)) => Ok(Self {
                child,
                process,
                address: (Ipv4Addr::LOCALHOST, port).into(),
                output: Some(output),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(crate) fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.process)
    }

    pub(crate) fn resident(&self) -> io::Result<u64> {
        resident(self.process)
    }

    /// What the server says after its announcement.
    pub(crate) fn take_output(&mut self) -> Option<BufReader<ChildStdout>> {
        self.output.take()
    }

    /// Ends the server so that a tracer still writes down what it has counted.
    pub(crate) fn terminate(mut self) -> io::Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.process.to_string()])
            .status()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn announcement(child: &mut Child) -> io::Result<(u16, u32, BufReader<ChildStdout>)> {
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    line.trim()
        .split_once(' ')
        .and_then(|(port, process)| Some((port.parse().ok()?, process.parse().ok()?)))
        .map(|(port, process)| (port, process, output))
        .ok_or_else(|| io::Error::other(format!("the server did not start: {line:?}")))
}
