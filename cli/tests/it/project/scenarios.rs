//! What servers have to survive, provoked on the built command where the kernel matters. The table in
//! `docs/RELIABILITY.md` says which test has which scenario. `SERVELOOP_FULL=1` has them in full size.
//!
//! Every scenario ends by [`Subject::end`], which checks what must hold after each of them.

mod binding;
mod calls;
mod closing;
mod descriptors;
mod logs;
mod models;
mod noise;
mod pressure;
mod signals;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;

use crate::support::memory::kib;
use crate::support::outside::skip;
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::sockets::socket_addr;

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

/// `full` if full sizes are asked for, else `modest`.
fn size(full: usize, modest: usize) -> usize {
    if env::var_os("SERVELOOP_FULL").is_some() {
        full
    } else {
        modest
    }
}

/// A server on TCP that a fault is done to.
struct Subject {
    served: Served,
    began: Instant,
    /// Descriptors before it served a client.
    descriptors: usize,
}

impl Subject {
    /// `serveloop serve` with these arguments on a TCP port of its own.
    #[track_caller]
    fn new(arguments: &[&str]) -> Self {
        let mut command = serveloop(&["serve"]);
        command.args(arguments).args(TCP);
        Self::of(Served::spawn(command))
    }

    /// A server that listens.
    #[track_caller]
    fn of(served: Served) -> Self {
        let mut subject = Self {
            served,
            began: Instant::now(),
            descriptors: 0,
        };
        // What a loop opens last is its waker.
        subject.wait("ready", |subject| {
            let mut opened = subject.opened().into_iter();
            opened.any(|what| what.contains("[eventfd]"))
        });
        subject.descriptors = subject.open_descriptors();
        subject
    }

    fn addr(&self) -> SocketAddr {
        socket_addr(self.served.uri(0))
    }

    /// A client that fails rather than waits without end.
    #[track_caller]
    fn client(&self) -> TcpStream {
        connect(self.addr())
    }

    fn open_descriptors(&self) -> usize {
        self.opened().len()
    }

    /// What the server has open. What it closes while we look is left out.
    fn opened(&self) -> Vec<String> {
        let path = format!("/proc/{}/fd", self.served.process_id());
        let entries = fs::read_dir(path).expect("a process").flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.map(|link| link.display().to_string()).collect()
    }

    /// Time that the server has had on a processor.
    fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/schedstat", self.served.process_id());
        let text = fs::read_to_string(path).expect("a process");
        let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
        Duration::from_nanos(nanos.expect("a number"))
    }

    /// Memory that the server has in use, in bytes.
    fn memory(&self) -> usize {
        kib(self.served.process_id(), "VmRSS").expect("a process") << 10
    }

    /// Waits until the server looks like that.
    #[track_caller]
    fn wait(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < until, "never {what}");
            thread::yield_now();
        }
    }

    /// A new client is served by an echo server.
    #[track_caller]
    fn serves(&self) {
        visit(self.addr());
    }

    /// [`end`](Self::end) of a server that was told to log nothing, and so tells no counts.
    #[track_caller]
    fn end_quietly(self) {
        self.let_go();
        let (status, log) = self.served.end();
        assert_eq!(status.code(), Some(0));
        assert_eq!(log, [""; 0]);
    }

    /// Waits until no connection holds a descriptor, and tells the server to end.
    #[track_caller]
    fn let_go(&self) {
        let before = self.descriptors;
        self.wait("as few descriptors as before", |subject| {
            subject.open_descriptors() <= before
        });
        self.served.signal(Signal::TERM);
    }

    /// After whatever happened: no connection has left a descriptor behind, nothing keeps the server
    /// from ending in order, each connection has ended for one reason, and the log was no flood.
    #[track_caller]
    fn end(self) -> Counts {
        self.let_go();
        let (status, log) = self.served.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        let counts = Counts::of(&log);
        assert_eq!(counts.number("accepted"), counts.closed(), "{counts:?}");
        let warnings = log.iter().filter(|line| line.contains("WARN")).count();
        let seconds = usize::try_from(self.began.elapsed().as_secs()).expect("a short test");
        assert!(warnings <= 2 * (seconds + 2), "{log:#?}");
        counts
    }
}

/// The counters that a server's last line tells.
#[derive(Debug)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    #[track_caller]
    fn of(log: &[String]) -> Self {
        let (_, counts) = log
            .last()
            .and_then(|line| line.split_once("] "))
            .expect("a summary");
        let counts = counts.split(", ").map(|count| {
            let (name, number) = count.split_once(' ').expect("a name and a number");
            (name.to_owned(), number.parse().expect("a number"))
        });
        Self(counts.collect())
    }

    /// A counter's value. What did not happen is not told.
    fn number(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn closed(&self) -> u64 {
        let ends = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with("closed_"));
        ends.map(|(_, count)| count).sum()
    }
}

#[track_caller]
fn connect(addr: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(addr).expect("a listener"))
}

/// One connection to an echo server, from its beginning to its end.
#[track_caller]
fn visit(addr: SocketAddr) {
    let mut client = connect(addr);
    echoes(&mut client, b"still there?");
    client.shutdown(Shutdown::Write).expect("a connection");
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

#[track_caller]
fn echoes(client: &mut TcpStream, message: &[u8]) {
    client.write_all(message).expect("an open connection");
    expect(client, message);
}

#[track_caller]
fn expect(client: &mut TcpStream, expected: &[u8]) {
    let mut found = vec![0; expected.len()];
    client.read_exact(&mut found).expect("this many bytes");
    assert!(found == expected, "other bytes than expected");
}

/// Closes a connection with a reset.
fn reset(client: TcpStream) {
    let at_once = Some(Duration::ZERO);
    SockRef::from(&client)
        .set_linger(at_once)
        .expect("a socket");
}

/// The command, run by another program that changes what it finds: `before` and its arguments.
fn run_by(before: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(before[0]);
    command
        .args(&before[1..])
        .arg(env!("CARGO_BIN_EXE_serveloop"))
        .arg("serve")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Whether a program can do what is asked of it here.
fn can(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        skip(&format!("{program} that can {arguments:?}"));
    }
    can
}
