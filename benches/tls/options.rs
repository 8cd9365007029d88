//! The options of the command line.

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serveloop_measure::arguments::{invalid, list, seconds, value};

use crate::servers::Kind;

pub(crate) const USAGE: &str = "\
usage: cargo bench --bench tls -- [options]

  --mode memory,counts,handshakes,bulk,burst
                      what to measure: bytes for an idle connection, instructions for a message and a
                      handshake (needs valgrind), processor time of handshakes and of bulk, and how
                      long others wait during a burst of handshakes
  --servers serveloop,tokio,nginx
                      what to measure, compared with the first one; nginx makes only handshakes, and is
                      left out if it is not installed. Also: rsa (serveloop with an RSA key), and for
                      burst accepts-1, accepts-4, accepts-64 (connections accepted in a turn)
  --rounds 5          how many times every server is measured
  --seconds 0.5       how long one measurement takes, without its warm-up
  --idle 2000         how many connections are idle (memory)
  --messages 20000    how many messages are counted (counts)
  --clients 1000      how many clients come at once (burst)
  --keep              leave the files of callgrind for callgrind_annotate (counts)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Memory,
    Counts,
    Handshakes,
    Bulk,
    Burst,
}

const MODES: [(&str, Mode); 5] = [
    ("memory", Mode::Memory),
    ("counts", Mode::Counts),
    ("handshakes", Mode::Handshakes),
    ("bulk", Mode::Bulk),
    ("burst", Mode::Burst),
];

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) modes: Vec<Mode>,
    pub(crate) servers: Vec<Kind>,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) idle: usize,
    pub(crate) messages: u64,
    pub(crate) clients: usize,
    pub(crate) keep: bool,
}

/// What this process is to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Measure(Options),
    /// Prepare this process and become the server that follows; this is how the benchmark starts its
    /// own children.
    Launch(Vec<String>, Vec<String>),
    /// Be the server, at this address.
    Serve(Kind, Ipv4Addr),
    Help,
    Nothing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            modes: MODES.map(|(_, mode)| mode).into(),
            servers: vec![Kind::Serveloop, Kind::Tokio, Kind::Nginx],
            rounds: 5,
            duration: Duration::from_millis(500),
            idle: 2_000,
            messages: 20_000,
            clients: 1_000,
            keep: false,
        }
    }
}

impl Options {
    /// Enough to see that everything still works.
    fn smoke() -> Self {
        Self {
            modes: vec![Mode::Memory, Mode::Handshakes, Mode::Bulk, Mode::Burst],
            rounds: 1,
            duration: Duration::from_millis(20),
            idle: 50,
            clients: 20,
            ..Self::default()
        }
    }
}

/// Reads the arguments. `cargo bench` says `--bench`; without it the benchmark is being tested, with
/// arguments that are meant for a test harness.
pub(crate) fn parse(arguments: &[String]) -> io::Result<Command> {
    match arguments {
        [flag, name, host] if flag == "--serve" => {
            let (kind, host) = (value(flag, Some(name))?, value(flag, Some(host))?);
            return Ok(Command::Serve(kind, host));
        }
        [flag, process, cores, _, server @ ..] if flag == "--launch" => {
            let options = vec![process.clone(), cores.clone()];
            return Ok(Command::Launch(options, server.to_vec()));
        }
        _ => {}
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return Ok(Command::Nothing);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(Command::Measure(Options::smoke()));
    }

    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            "--keep" => options.keep = true,
            "--mode" => options.modes = list(flag, rest.next())?,
            "--servers" => options.servers = list(flag, rest.next())?,
            "--rounds" => options.rounds = value(flag, rest.next())?,
            "--idle" => options.idle = value(flag, rest.next())?,
            "--messages" => options.messages = value(flag, rest.next())?,
            "--clients" => options.clients = value(flag, rest.next())?,
            "--seconds" => options.duration = seconds(flag, rest.next())?,
            _ => return Err(invalid(format!("unknown option {flag}\n\n{USAGE}"))),
        }
    }
    check(&options)?;
    Ok(Command::Measure(options))
}

fn check(options: &Options) -> io::Result<()> {
    let positive = [options.rounds, options.idle, options.clients];
    if positive.contains(&0) || options.messages < 2 || options.duration.is_zero() {
        return Err(invalid("numbers must be at least 1".to_owned()));
    }
    Ok(())
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = MODES.iter().find(|(known, _)| *known == name);
        found.map(|(_, mode)| *mode).ok_or(())
    }
}
