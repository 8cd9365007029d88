//! The options of the command line.

use std::str::FromStr;
use std::time::Duration;
use std::{io, slice};

use serveloop_measure::arguments::{self, invalid, list, seconds, value};

use crate::servers::Kind;

const USAGE: &str = "\
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

impl arguments::Options for Options {
    const USAGE: &'static str = USAGE;

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

    fn set(&mut self, flag: &str, rest: &mut slice::Iter<'_, String>) -> io::Result<bool> {
        match flag {
            "--keep" => self.keep = true,
            "--mode" => self.modes = list(flag, rest.next())?,
            "--servers" => self.servers = list(flag, rest.next())?,
            "--rounds" => self.rounds = value(flag, rest.next())?,
            "--idle" => self.idle = value(flag, rest.next())?,
            "--messages" => self.messages = value(flag, rest.next())?,
            "--clients" => self.clients = value(flag, rest.next())?,
            "--seconds" => self.duration = seconds(flag, rest.next())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> io::Result<()> {
        let positive = [self.rounds, self.idle, self.clients];
        if positive.contains(&0) || self.messages < 2 || self.duration.is_zero() {
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
