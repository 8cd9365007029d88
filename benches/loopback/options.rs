//! The options of the command line.

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serveloop_measure::arguments::{invalid, list, seconds, value};

use crate::servers::Kind;

pub(crate) const USAGE: &str = "\
usage: cargo bench --bench loopback -- [options]

  --mode echo,churn,bulk,memory   what to measure; also: pipelined (16 messages under way), framing,
                                  workers, busy (polling), crowd (few active among many), limit (out of
                                  descriptors; needs prlimit), counts (needs valgrind and strace),
                                  guard (counts against their limits), targets (all in one table)
  --servers epoll,edge,mio,tokio,serveloop
                                  which servers to measure, compared with the first one; also: multi
                                  (tokio's two threads), workers (two loops), threads, framed, lines,
                                  busy
  --connections 1,100,1000        how many connections are busy at a time (one number: the second)
  --size 64                       bytes per message
  --depth 1                       messages under way per connection
  --rounds 5                      how many times every server is measured
  --seconds 0.5                   how long one measurement takes, without its warm-up
  --idle 5000                     how many connections are idle (memory)
  --crowd 15000                   how many connections are open (crowd)
  --messages 40000                how many messages are counted (counts)
  --same-core                     server and generator on one core
  --keep                          leave the files of callgrind for callgrind_annotate (counts)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Echo,
    Pipelined,
    Churn,
    Bulk,
    Memory,
    Framing,
    Workers,
    Busy,
    Crowd,
    Limit,
    Counts,
    Guard,
    Targets,
}

const MODES: [(&str, Mode); 13] = [
    ("echo", Mode::Echo),
    ("pipelined", Mode::Pipelined),
    ("churn", Mode::Churn),
    ("bulk", Mode::Bulk),
    ("memory", Mode::Memory),
    ("framing", Mode::Framing),
    ("workers", Mode::Workers),
    ("busy", Mode::Busy),
    ("crowd", Mode::Crowd),
    ("limit", Mode::Limit),
    ("counts", Mode::Counts),
    ("guard", Mode::Guard),
    ("targets", Mode::Targets),
];

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) modes: Vec<Mode>,
    pub(crate) servers: Vec<Kind>,
    pub(crate) connections: Vec<usize>,
    pub(crate) size: usize,
    pub(crate) depth: usize,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) idle: usize,
    pub(crate) crowd: usize,
    pub(crate) messages: u64,
    pub(crate) same_core: bool,
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
            modes: vec![Mode::Echo, Mode::Churn, Mode::Bulk, Mode::Memory],
            servers: vec![
                Kind::Epoll,
                Kind::Edge,
                Kind::Mio,
                Kind::Tokio,
                Kind::Serveloop,
            ],
            connections: vec![1, 100, 1_000],
            size: 64,
            depth: 1,
            rounds: 5,
            duration: Duration::from_millis(500),
            idle: 5_000,
            crowd: 15_000,
            messages: 40_000,
            same_core: false,
            keep: false,
        }
    }
}

impl Options {
    /// The number of connections where only one number is measured.
    pub(crate) fn few(&self) -> usize {
        let numbers = &self.connections;
        numbers.get(1).or(numbers.first()).copied().unwrap_or(1)
    }

    /// Enough to see that everything still works.
    pub(crate) fn smoke() -> Self {
        let counted = [Mode::Counts, Mode::Guard, Mode::Targets];
        let modes = MODES.iter().map(|(_, mode)| *mode);
        let mut servers = Self::default().servers;
        servers.extend([Kind::Multi, Kind::Workers, Kind::Threads]);
        Self {
            modes: modes.filter(|mode| !counted.contains(mode)).collect(),
            servers,
            connections: vec![10],
            rounds: 1,
            duration: Duration::from_millis(20),
            idle: 50,
            crowd: 200,
            ..Self::default()
        }
    }
}

/// Reads the arguments. `cargo bench` says `--bench`; without it the benchmark is being tested, with
/// arguments that are meant for a test harness.
pub(crate) fn parse(arguments: &[String]) -> io::Result<Command> {
    match arguments {
        [flag, name, host] if flag == "--serve" => {
            return Ok(Command::Serve(
                value(flag, Some(name))?,
                value(flag, Some(host))?,
            ));
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
            "--same-core" => options.same_core = true,
            "--keep" => options.keep = true,
            "--mode" => options.modes = list(flag, rest.next())?,
            "--servers" => options.servers = list(flag, rest.next())?,
            "--connections" => options.connections = list(flag, rest.next())?,
            "--size" => options.size = value(flag, rest.next())?,
            "--depth" => options.depth = value(flag, rest.next())?,
            "--rounds" => options.rounds = value(flag, rest.next())?,
            "--idle" => options.idle = value(flag, rest.next())?,
            "--crowd" => options.crowd = value(flag, rest.next())?,
            "--messages" => options.messages = value(flag, rest.next())?,
            "--seconds" => options.duration = seconds(flag, rest.next())?,
            _ => return Err(invalid(format!("unknown option {flag}\n\n{USAGE}"))),
        }
    }
    check(&options)?;
    Ok(Command::Measure(options))
}

fn check(options: &Options) -> io::Result<()> {
    let positive = [options.size, options.depth, options.rounds, options.idle];
    if positive.contains(&0) || options.connections.contains(&0) || options.duration.is_zero() {
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
