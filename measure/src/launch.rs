//! Servers as child processes: pinned to their cores, asked to end in order or killed with all that
//! they started, and never outliving the benchmark.
//!
//! A program that starts servers has an option `--launch`, which prepares the new process and then
//! becomes the server.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serveloop::Address;
use socket2::{Domain, Socket, Type};

use crate::counts::Tracer;
use crate::family::Family;
use crate::load::Interrupt;
use crate::platform::{end_with_parent, pin};

/// How long a server may take to listen, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);
/// The interval at which signals and the end of the server are checked.
const STEP: Duration = Duration::from_millis(20);

/// Replaces the benchmark's process number if the server runs under a tracer. The server then ends
/// with its parent, whichever process that is.
const ANY_PARENT: u32 = 0;

/// Returns the command that starts a server on `cores`, under `tracer` if there is one. The
/// server's program and its arguments are to be added. This program does the launching, when it
/// gets the arguments `asked`, `--launch`, a process, the cores and `--`.
///
/// # Errors
/// Fails if the system does not tell where this program is.
pub fn command(asked: &[&str], tracer: Option<&Tracer>, cores: &[usize]) -> io::Result<Command> {
    let itself = env::current_exe()?;
    let mut command = Command::new(&itself);
    command.args(words(asked, process::id(), cores));

    if let Some(tracer) = tracer {
        command.args(tracer.words());
        if tracer.forks() {
            command.arg(&itself).args(words(asked, ANY_PARENT, cores));
        }
    }
    Ok(command)
}

fn words(asked: &[&str], parent: u32, cores: &[usize]) -> Vec<OsString> {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let (parent, cores) = (parent.to_string(), cores.join(","));
    let launch = ["--launch", &parent, &cores, "--"];
    asked.iter().chain(&launch).map(OsString::from).collect()
}

/// Becomes `server`, a program with its arguments, after `options`: the process that it must not
/// outlive, and its cores. Returns only if that fails.
pub fn launch(options: &[String], server: &[impl AsRef<OsStr>]) -> io::Error {
    prepare(options)
        .err()
        .unwrap_or_else(|| become_server(server))
}

fn prepare(options: &[String]) -> io::Result<()> {
    let [parent, cores] = options else {
        return Err(io::ErrorKind::InvalidInput.into());
    };

    let parent: u32 = number(parent)?;
    end_with_parent((parent != ANY_PARENT).then_some(parent))?;

    let cores = cores
        .split(',')
        .map(number)
        .collect::<io::Result<Vec<_>>>()?;
    pin(&cores)
}

fn number<T: FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn become_server(server: &[impl AsRef<OsStr>]) -> io::Error {
    let Some((program, arguments)) = server.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    let error = Command::new(program).args(arguments).exec();
    let program = program.as_ref().display();
    io::Error::new(error.kind(), format!("{program}: {error}"))
}

/// A server process. Dropping it kills the server and everything that it started.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    is_killed: bool,
    /// The lines that the server prints, as they come.
    pub lines: Receiver<String>,
    /// Its standard input, if that is a pipe.
    pub stdin: Option<ChildStdin>,
    /// Its standard error, if that is a pipe.
    pub stderr: Option<ChildStderr>,
}

impl Launched {
    /// Starts `command` as the leader of a process group of its own.
    ///
    /// # Errors
    /// Fails if there is no such program, or if the system has no process or thread left.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn()?;
        let (output, (sender, lines)) = (child.stdout.take(), mpsc::channel());
        let launched = Self {
            stdin: child.stdin.take(),
            stderr: child.stderr.take(),
            child,
            is_killed: false,
            lines,
        };

        // From here on, every failure drops `launched` and so ends the child.
        if let Some(output) = output {
            thread::Builder::new()
                .name("a server's lines".to_owned())
                .spawn(move || tell(output, &sender))?;
        }
        Ok(launched)
    }

    /// Returns the number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the server's process, without those that it starts.
    #[must_use]
    pub fn family(&self) -> Family {
        Family {
            leader: self.id(),
            forks: false,
        }
    }

    /// Waits until the server has printed `count` lines with its addresses, each the URI alone or
    /// `listening on URI`.
    ///
    /// # Errors
    /// Fails if they do not come in time, or after a signal.
    pub fn addresses(&self, count: usize, interrupt: &dyn Interrupt) -> io::Result<Vec<Address>> {
        let deadline = Instant::now() + PATIENCE;
        let mut addresses = Vec::new();
        while addresses.len() < count {
            interrupt.check()?;
            match self.lines.recv_timeout(STEP) {
                Ok(line) => addresses.push(address(&line)?),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => return Err(io::Error::other("the server does not start to listen")),
            }
        }
        Ok(addresses)
    }

    /// Returns the exit status, or `None` if the server does not end within `time`.
    pub fn end_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            let status = self.child.try_wait().ok()?;
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::sleep(STEP);
        }
    }

    /// Ends a traced server in order, so that the tracer still writes its counts.
    ///
    /// # Errors
    /// Fails if the server does not end in time.
    pub fn end_traced(mut self) -> io::Result<()> {
        // Some tracers run the server as a child, others become it.
        let server = self.family().first_child().unwrap_or(self.id());
        let server = process(server).ok_or(io::ErrorKind::NotFound)?;
        kill_process(server, Signal::TERM)?;

        match self.end_within(PATIENCE) {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the server under strace does not end")),
        }
    }

    /// Kills the process group and reaps the child. It does so only once, since the system may
    /// reuse the number later. Killing fails only if all of its processes have already ended.
    pub fn kill(&mut self) {
        if mem::replace(&mut self.is_killed, true) {
            return;
        }
        if let Some(group) = process(self.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.kill();
    }
}

fn process(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// Before the address, where a server prints it.
const LISTENING: &str = "listening on ";

/// Prints where this process listens, for the one that launched it.
pub fn announce(address: &Address) {
    println!("{LISTENING}{address}");
}

/// Returns a listener at a port of the system's choice, with the options of the library's own, and
/// announces it. Accepted connections inherit `TCP_NODELAY` from it.
///
/// # Errors
/// The system has no descriptor or no port left.
pub fn listen(host: Ipv4Addr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((host, 0)).into())?;
    socket.listen(backlog)?;

    let listener: TcpListener = socket.into();
    announce(&Address::Tcp(listener.local_addr()?));
    Ok(listener)
}

fn address(line: &str) -> io::Result<Address> {
    let uri = line.strip_prefix(LISTENING).unwrap_or(line);
    Ok(uri.parse::<Address>()?)
}

/// Sends the lines of `source` as they come.
fn tell(source: impl Read, sender: &mpsc::Sender<String>) {
    let mut lines = BufReader::new(source).lines().map_while(Result::ok);
    while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Uninterrupted;

    fn shell(script: &str) -> Launched {
        Launched::spawn(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_server_says_where_it_listens() {
        let server =
            shell("echo listening on tcp://127.0.0.1:9; echo unix:///tmp/a; exec sleep 100");
        let addresses = server.addresses(2, &Uninterrupted).unwrap();
        let shown: Vec<_> = addresses.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["tcp://127.0.0.1:9", "unix:///tmp/a"]);
    }

    #[test]
    fn one_that_ends_or_says_something_else_is_an_error() {
        let error = shell("exit 3").addresses(1, &Uninterrupted).unwrap_err();
        assert_eq!(error.to_string(), "the server does not start to listen");
        let server = shell("echo nowhere; exec sleep 100");
        assert!(server.addresses(1, &Uninterrupted).is_err());
    }

    /// A killed process may remain in the table, but it has ended.
    #[test]
    fn nothing_that_it_started_is_left() {
        let server = shell("sleep 1000 & echo $!; wait");
        let child = server.lines.recv_timeout(PATIENCE).unwrap();
        drop(server);

        let begun = Instant::now();
        let is_alive = || {
            let status = std::fs::read_to_string(format!("/proc/{child}/stat"));
            status.is_ok_and(|line| !line.contains(") Z "))
        };
        while is_alive() {
            assert!(begun.elapsed() < PATIENCE, "{child} is still there");
            thread::sleep(STEP);
        }
    }

    #[test]
    fn the_options_of_a_launch_are_checked() {
        let none: [&str; 0] = [];
        for options in [&["0"][..], &["zero", "0"]] {
            let options: Vec<_> = options.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(launch(&options, &none).kind(), io::ErrorKind::InvalidInput);
        }
    }
}
