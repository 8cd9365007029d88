//! The options of the command line.

use std::str::FromStr;
use std::time::Duration;
use std::{io, slice};

use serveloop_measure::arguments::{self, invalid, list, seconds, value};

use crate::servers::Kind;

const USAGE: &str = "\
usage: cargo bench --bench loopback -- [options]

  --mode echo,churn,bulk,memory   what to measure; also: pipelined (16 messages under way), framing,
                                  workers, busy (polling), crowd (few active among many), departed (memory
                                  after a crowd), spread (connections over loops), limit (out of
                                  descriptors; needs prlimit), counts (needs valgrind and strace),
                                  guard (counts against their limits), targets (all in one table)
  --servers epoll,edge,mio,tokio,serveloop
                                  which servers to measure, compared with the first one; also: multi
                                  (tokio's two threads), workers (two loops), threads, framed, lines,
                                  busy, command (the built command)
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
    Departed,
    Spread,
    Limit,
    Counts,
    Guard,
    Targets,
}

const MODES: [(&str, Mode); 15] = [
    ("echo", Mode::Echo),
    ("pipelined", Mode::Pipelined),
    ("churn", Mode::Churn),
    ("bulk", Mode::Bulk),
    ("memory", Mode::Memory),
    ("framing", Mode::Framing),
    ("workers", Mode::Workers),
    ("busy", Mode::Busy),
    ("crowd", Mode::Crowd),
    ("departed", Mode::Departed),
    ("spread", Mode::Spread),
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
}

impl arguments::Options for Options {
    const USAGE: &'static str = USAGE;

    fn smoke() -> Self {
        // These take long, whatever the numbers are.
        let counted = [Mode::Counts, Mode::Guard, Mode::Targets, Mode::Departed];
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

    fn set(&mut self, flag: &str, rest: &mut slice::Iter<'_, String>) -> io::Result<bool> {
        match flag {
            "--same-core" => self.same_core = true,
            "--keep" => self.keep = true,
            "--mode" => self.modes = list(flag, rest.next())?,
            "--servers" => self.servers = list(flag, rest.next())?,
            "--connections" => self.connections = list(flag, rest.next())?,
            "--size" => self.size = value(flag, rest.next())?,
            "--depth" => self.depth = value(flag, rest.next())?,
            "--rounds" => self.rounds = value(flag, rest.next())?,
            "--idle" => self.idle = value(flag, rest.next())?,
            "--crowd" => self.crowd = value(flag, rest.next())?,
            "--messages" => self.messages = value(flag, rest.next())?,
            "--seconds" => self.duration = seconds(flag, rest.next())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> io::Result<()> {
        let positive = [self.size, self.depth, self.rounds, self.idle];
        if positive.contains(&0) || self.connections.contains(&0) || self.duration.is_zero() {
            return Err(invalid("numbers must be at least 1".to_owned()));
        }
        Ok(())
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = MODES.iter().find(|(known, _)| *known == name);
        found.map(|(_, mode)| *mode).ok_or(())
    }
}
