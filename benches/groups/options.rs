//! The options of the command line.

use std::str::FromStr;
use std::{io, slice};

use serveloop_measure::arguments::{self, invalid, list, value};

use crate::message::LEAST;
use crate::servers::Kind;

const USAGE: &str = "\
usage: cargo bench --bench groups -- [options]

  --mode counts,memory,lagging    what to measure (counts needs valgrind and strace)
  --servers epoll,queues,broadcast,group
                                  which servers to measure (lagging: the group only)
  --members 1000                  how many members a group has
  --size 100                      bytes per message
  --messages 20                   how many messages are counted (counts)
  --lagging 500                   how many members never read (lagging)
  --long 10000                    bytes per message that they do not read (lagging)
  --rounds 3                      how many times each group is timed (lagging)
  --keep                          leave the files of callgrind for callgrind_annotate (counts)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Counts,
    Memory,
    Lagging,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) modes: Vec<Mode>,
    pub(crate) servers: Vec<Kind>,
    pub(crate) members: usize,
    pub(crate) size: usize,
    pub(crate) messages: u64,
    pub(crate) lagging: usize,
    pub(crate) long: usize,
    pub(crate) rounds: usize,
    pub(crate) keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            modes: vec![Mode::Counts, Mode::Memory, Mode::Lagging],
            servers: vec![Kind::Epoll, Kind::Queues, Kind::Broadcast, Kind::Group],
            members: 1_000,
            size: 100,
            messages: 20,
            lagging: 500,
            long: 10_000,
            rounds: 3,
            keep: false,
        }
    }
}

impl arguments::Options for Options {
    const USAGE: &'static str = USAGE;

    fn smoke() -> Self {
        Self {
            modes: vec![Mode::Memory, Mode::Lagging],
            members: 30,
            lagging: 10,
            rounds: 1,
            ..Self::default()
        }
    }

    fn set(&mut self, flag: &str, rest: &mut slice::Iter<'_, String>) -> io::Result<bool> {
        match flag {
            "--mode" => self.modes = list(flag, rest.next())?,
            "--servers" => self.servers = list(flag, rest.next())?,
            "--members" => self.members = value(flag, rest.next())?,
            "--size" => self.size = value(flag, rest.next())?,
            "--messages" => self.messages = value(flag, rest.next())?,
            "--lagging" => self.lagging = value(flag, rest.next())?,
            "--long" => self.long = value(flag, rest.next())?,
            "--rounds" => self.rounds = value(flag, rest.next())?,
            "--keep" => self.keep = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self) -> io::Result<()> {
        if [self.members, self.lagging, self.rounds].contains(&0) || self.messages == 0 {
            return Err(invalid("numbers must be at least 1".to_owned()));
        }
        if self.size < LEAST || self.long < LEAST {
            return Err(invalid(format!("a message has at least {LEAST} bytes")));
        }
        Ok(())
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "counts" => Ok(Self::Counts),
            "memory" => Ok(Self::Memory),
            "lagging" => Ok(Self::Lagging),
            _ => Err(()),
        }
    }
}
