//! The commands: what a line asks for, and the answer.

use crate::answer::{
    Answer, BAD_BLOCK, BAD_DELETE, BAD_DELTA, BAD_EXPTIME, BAD_FORMAT, NO_MEMORY, NO_NUMBER,
    Refusal, TOO_LARGE, UNKNOWN, block_length, key,
};
use crate::item::{Direction, Mode, New, NoCounter, Outcome};
use crate::items::Items;
use crate::meta::Meta;
use crate::numbers::{self, number};

/// The memcached whose commands these are. Clients decide by it what they may use.
const VERSION: &str = "1.6.18";

/// What a line asks for. The data block that follows some lines is not part of it.
#[derive(Debug)]
pub(crate) enum Command<'a> {
    Store {
        key: &'a [u8],
        new: New<'a>,
        length: usize,
    },
    Delete(&'a [u8]),
    Count(&'a [u8], Direction, u64),
    Touch(&'a [u8], i64),
    Flush(i64),
    Statistics(Option<&'a [u8]>),
    Version,
    Verbosity(u32),
    Meta(Meta<'a>),
    Nothing,
    Quit,
}

/// A command, and whether its client wants no reply.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) command: Command<'a>,
    pub(crate) is_quiet: bool,
}

impl<'a> Request<'a> {
    /// Returns what the words of a line ask for.
    pub(crate) fn parse(words: &[&'a [u8]]) -> Result<Self, Refusal> {
        if let [[b'm', verb], ..] = words {
            return Self::parse_meta(*verb, words);
        }

        let is_asked = words.len() > 1 && words.last() == Some(&&b"noreply"[..]);
        match Command::parse(words) {
            Ok(command) => {
                let is_quiet = is_asked && command.can_be_quiet();
                Ok(Self { command, is_quiet })
            }
            Err(text) => Err(Refusal {
                text,
                is_quiet: is_asked && text != UNKNOWN,
                skip: 0,
            }),
        }
    }

    fn parse_meta(verb: u8, words: &[&'a [u8]]) -> Result<Self, Refusal> {
        let command = match verb {
            b'n' => Command::Nothing,
            _ => Command::Meta(Meta::parse(verb, words)?),
        };
        Ok(Self {
            command,
            is_quiet: false,
        })
    }

    /// Returns the size of the data block that follows the line, with its end.
    pub(crate) fn block_size(&self) -> usize {
        match &self.command {
            Command::Store { length, .. } => length + 2,
            Command::Meta(meta) => meta.block_length().map_or(0, |length| length + 2),
            _ => 0,
        }
    }

    /// Refuses an item that is too long before it arrives. The old one must not stay in its place.
    pub(crate) fn check_size(&self, items: &mut Items) -> Result<(), Refusal> {
        let (key, length, replaces) = match &self.command {
            Command::Store { key, new, length } => (*key, *length, new.mode == Mode::Set),
            Command::Meta(meta) => match meta.block_length() {
                Some(length) => (meta.key(), length, true),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        if items.admits(key, length) {
            return Ok(());
        }

        items.statistics.store_too_large += 1;
        if replaces {
            items.discard(key);
        }
        Err(Refusal {
            text: TOO_LARGE,
            is_quiet: self.is_quiet,
            skip: self.block_size(),
        })
    }

    /// Carries the command out. `block` is the data block with its end, if the command has one.
    pub(crate) fn run(&self, block: &[u8], items: &mut Items) -> Answer {
        let block = match block.split_last_chunk() {
            Some((value, b"\r\n")) => value,
            None if self.block_size() == 0 => block,
            _ if self.is_quiet => return Answer::Nothing,
            _ => return Answer::Text(BAD_BLOCK),
        };

        match self.command.run(block, items) {
            Answer::End => Answer::End,
            _ if self.is_quiet => Answer::Nothing,
            answer => answer,
        }
    }
}

impl<'a> Command<'a> {
    fn parse(words: &[&'a [u8]]) -> Result<Self, &'static str> {
        Ok(match *words {
            [name, word, flags, exptime, length, ref rest @ ..]
                if rest.len() < 2 && mode(name).is_some() =>
            {
                let mode = mode(name).ok_or(UNKNOWN)?;
                Self::store(mode, word, [flags, exptime, length], None)?
            }
            [b"cas", word, flags, exptime, length, unique, ref rest @ ..] if rest.len() < 2 => {
                Self::store(Mode::Set, word, [flags, exptime, length], Some(unique))?
            }
            [b"delete", word]
            | [b"delete", word, b"0" | b"noreply"]
            | [b"delete", word, b"0", b"noreply"] => Self::Delete(key(word)?),
            [b"delete", _, _] | [b"delete", _, _, _] => return Err(BAD_DELETE),
            [b"incr", word, delta, ref rest @ ..] if rest.len() < 2 => {
                Self::Count(key(word)?, Direction::Up, number(delta).ok_or(BAD_DELTA)?)
            }
            [b"decr", word, delta, ref rest @ ..] if rest.len() < 2 => {
                Self::Count(key(word)?, Direction::Down, number(delta).ok_or(BAD_DELTA)?)
            }
            [b"touch", word, exptime, ref rest @ ..] if rest.len() < 2 => {
                Self::Touch(key(word)?, number(exptime).ok_or(BAD_EXPTIME)?)
            }
            [b"flush_all"] | [b"flush_all", b"noreply"] => Self::Flush(0),
            [b"flush_all", delay] | [b"flush_all", delay, _] => {
                Self::Flush(number(delay).ok_or(BAD_EXPTIME)?)
            }
            [b"verbosity", level] | [b"verbosity", level, _] => {
                Self::Verbosity(number(level).ok_or(BAD_FORMAT)?)
            }
            [b"stats", ref rest @ ..] => Self::Statistics(rest.first().copied()),
            [b"version", ..] => Self::Version,
            [b"quit", ..] => Self::Quit,
            _ => return Err(UNKNOWN),
        })
    }

    fn store(
        mode: Mode,
        word: &'a [u8],
        [flags, exptime, length]: [&'a [u8]; 3],
        unique: Option<&'a [u8]>,
    ) -> Result<Self, &'static str> {
        let unique = unique.map(|unique| number(unique).ok_or(BAD_FORMAT));
        let new = New {
            mode,
            value: b"",
            flags: number(flags).ok_or(BAD_FORMAT)?,
            exptime: number(exptime).ok_or(BAD_FORMAT)?,
            unique: unique.transpose()?,
            invalidates: false,
            has_binary_key: false,
        };
        Ok(Self::Store {
            key: key(word)?,
            new,
            length: block_length(length)?,
        })
    }

    /// Returns whether `noreply` has a meaning after this command.
    fn can_be_quiet(&self) -> bool {
        !matches!(self, Self::Version | Self::Statistics(_) | Self::Quit)
    }

    fn run(&self, block: &[u8], items: &mut Items) -> Answer {
        match self {
            Self::Store { key, new, .. } => {
                let new = New {
                    value: block,
                    ..*new
                };
                Answer::Text(match items.store(key, new) {
                    Outcome::Stored => "STORED\r\n",
                    Outcome::NotStored => "NOT_STORED\r\n",
                    Outcome::Exists => "EXISTS\r\n",
                    Outcome::NotFound => "NOT_FOUND\r\n",
                    Outcome::NoMemory => NO_MEMORY,
                })
            }
            Self::Delete(key) if items.delete(key) => Answer::Text("DELETED\r\n"),
            Self::Delete(_) => Answer::Text("NOT_FOUND\r\n"),
            Self::Count(key, direction, delta) => count(items, key, *direction, *delta),
            Self::Touch(key, exptime) if items.touch(key, *exptime).is_some() => {
                Answer::Text("TOUCHED\r\n")
            }
            Self::Touch(..) => Answer::Text("NOT_FOUND\r\n"),
            Self::Flush(delay) => {
                items.flush_after(*delay);
                Answer::Text("OK\r\n")
            }
            Self::Statistics(what) => statistics(items, *what),
            Self::Version => Answer::Bytes(format!("VERSION {VERSION}\r\n").into()),
            Self::Verbosity(level) => {
                items.verbosity = *level;
                Answer::Text("OK\r\n")
            }
            Self::Meta(meta) => meta.run(block, items),
            Self::Nothing => Answer::Text("MN\r\n"),
            Self::Quit => Answer::End,
        }
    }
}

/// Returns how the storage command with this name treats what is there.
fn mode(name: &[u8]) -> Option<Mode> {
    match name {
        b"set" => Some(Mode::Set),
        b"add" => Some(Mode::Add),
        b"replace" => Some(Mode::Replace),
        b"append" => Some(Mode::Append),
        b"prepend" => Some(Mode::Prepend),
        _ => None,
    }
}

fn count(items: &mut Items, key: &[u8], direction: Direction, delta: u64) -> Answer {
    match items.count(key, direction, delta, None) {
        Ok(number) => {
            let mut line = Vec::new();
            numbers::push(&mut line, number);
            line.extend_from_slice(b"\r\n");
            Answer::Bytes(line)
        }
        Err(NoCounter::NotNumeric) => Answer::Text(NO_NUMBER),
        Err(NoCounter::NotFound | NoCounter::Exists) => Answer::Text("NOT_FOUND\r\n"),
    }
}

/// Answers `stats`, or `stats WHAT`.
fn statistics(items: &mut Items, what: Option<&[u8]>) -> Answer {
    let settings = items.settings;
    let pairs: Vec<(&str, String)> = match what {
        None => general(items),
        Some(b"settings") => vec![
            ("maxbytes", settings.max_memory.to_string()),
            ("verbosity", items.verbosity.to_string()),
            ("evictions", "on".to_owned()),
            ("cas_enabled", "yes".to_owned()),
            ("item_size_max", settings.max_item.to_string()),
            ("flush_enabled", "yes".to_owned()),
        ],
        // What is kept for each class of sizes, of which there are none here.
        Some(b"items" | b"slabs" | b"sizes") => Vec::new(),
        Some(b"reset") => {
            items.statistics = Default::default();
            return Answer::Text("RESET\r\n");
        }
        Some(_) => return Answer::Text(UNKNOWN),
    };

    let mut text = String::new();
    for (name, value) in pairs {
        text.extend(["STAT ", name, " ", &value, "\r\n"]);
    }
    text.push_str("END\r\n");
    Answer::Bytes(text.into())
}

fn general(items: &Items) -> Vec<(&'static str, String)> {
    let (count, bytes) = items.size();
    let server = concat!("serveloop-memcached/", env!("CARGO_PKG_VERSION"));
    let mut pairs = vec![
        ("pid", std::process::id().to_string()),
        ("uptime", items.uptime().as_secs().to_string()),
        ("time", items.unix_time().to_string()),
        ("version", VERSION.to_owned()),
        ("server", server.to_owned()),
        ("pointer_size", usize::BITS.to_string()),
        ("curr_connections", items.connections.to_string()),
        ("curr_items", count.to_string()),
        ("bytes", bytes.to_string()),
        ("limit_maxbytes", items.settings.max_memory.to_string()),
    ];
    let counters = items.statistics.named();
    pairs.extend(counters.map(|(name, count)| (name, count.to_string())));
    pairs
}
