//! The protocol of memcached, compared with an interpreter of the whole stream.

use std::collections::BTreeMap;

use serveloop::testing::MemorySession;
use serveloop_memcached::{Memcached, Settings, Store};

use crate::input::{Input, pieces, spelled};

/// What the bytes of a stream spell.
const WORDS: &[&str] = &[
    "set ",
    "add ",
    "replace ",
    "append ",
    "prepend ",
    "cas ",
    "get ",
    "gets ",
    "gat 0 ",
    "delete ",
    "incr ",
    "decr ",
    "touch ",
    "flush_all",
    "version",
    "a ",
    "b ",
    "0 ",
    "1 ",
    "2 ",
    "noreply",
    "\r\n",
    "a 0 0 1\r\nx\r\n",
    "b 7 0 2\r\n99\r\n",
    "mn\r\n",
    "mg ",
    "ms ",
    "md ",
    "ma ",
    "me ",
    "v ",
    "N9 ",
    "T9 ",
    "I ",
    "q ",
    "k ",
    "Oab ",
    "C1 ",
    "M+ ",
    "a 2 ",
    "YQ== ",
    "t ",
    "stats",
    "quit",
];

/// The longest item, in bytes: some are longer.
const ITEM_MOST: usize = 100;

/// What an item counts besides its key and its value.
const HEADER: usize = 59;

/// The places of the cuts, and the stream. The answers are the same in any pieces, and up to the first
/// meta command, which the model does not know, they are those of the model.
///
/// # Panics
/// When they are not.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let sizes = input.sizes();
    let stream = spelled(input.rest(), WORDS);

    let whole = answers(&[&stream]);
    let cut = answers(&pieces(&stream, &sizes));
    assert_eq!(
        whole.escape_ascii().to_string(),
        cut.escape_ascii().to_string()
    );

    let mut model = Model::default();
    let knows_all = model.run(&stream);
    let expected = model.answers.escape_ascii().to_string();
    let whole = whole.escape_ascii().to_string();
    match knows_all {
        true => assert_eq!(whole, expected),
        false => assert!(whole.starts_with(&expected), "{whole} for {expected}"),
    }
}

fn answers(pieces: &[&[u8]]) -> Vec<u8> {
    let store = Store::new(Settings {
        max_item: ITEM_MOST,
        ..Settings::default()
    });
    let mut session = MemorySession::new(Memcached::new(&store));
    for piece in pieces {
        session.receive(piece);
    }
    without_time(&session.sent())
}

/// The answers without the time of day, which is another one each second.
fn without_time(answers: &[u8]) -> Vec<u8> {
    let lines = answers.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.starts_with(b"STAT time "));
    lines.collect::<Vec<_>>().concat()
}

#[derive(Clone, Debug)]
struct Item {
    flags: u32,
    value: Vec<u8>,
    unique: u64,
}

#[derive(Debug, Default)]
struct Model {
    items: BTreeMap<Vec<u8>, Item>,
    unique: u64,
    answers: Vec<u8>,
    /// The client wants no reply to the command at hand.
    is_quiet: bool,
}

type Answer = Result<&'static str, &'static str>;

const FORMAT: &str = "CLIENT_ERROR bad command line format";

impl Model {
    /// Carries out a stream. Returns whether it knew all of its commands.
    fn run(&mut self, mut stream: &[u8]) -> bool {
        while let Some(end) = stream.iter().position(|byte| *byte == b'\n') {
            let line = stream[..end].strip_suffix(b"\r").unwrap_or(&stream[..end]);
            stream = &stream[end + 1..];
            let words: Vec<&[u8]> = line
                .split(|byte| *byte == b' ')
                .filter(|word| !word.is_empty())
                .collect();
            self.is_quiet = words.len() > 1 && words.last() == Some(&&b"noreply"[..]);

            let answer = match words.as_slice() {
                [b"mn", ..] => Ok("MN"),
                [b"stats", ..] => return false,
                [[b'm', b'g' | b's' | b'd' | b'a' | b'e'], ..] => return false,
                [b"quit", ..] => return true,
                [b"version", ..] => Ok("VERSION 1.6.18"),
                [b"get" | b"gets", _, ..] => self.get(&words[1..], words[0] == b"gets"),
                [b"gat" | b"gats", exptime, ..] if number::<i32>(exptime) == Some(0) => {
                    self.get(&words[2..], words[0] == b"gats")
                }
                // Times other than never are left to other tests.
                [
                    b"gat" | b"gats" | b"touch" | b"verbosity" | b"flush_all",
                    ..,
                ] => return false,
                [b"delete", key]
                | [b"delete", key, b"0" | b"noreply"]
                | [b"delete", key, b"0", b"noreply"] => self.delete(key),
                [b"delete", _, _] | [b"delete", _, _, _] => {
                    Err("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]")
                }
                [b"incr" | b"decr", key, delta] | [b"incr" | b"decr", key, delta, _] => {
                    self.count(key, delta, words[0] == b"incr")
                }
                [
                    b"set" | b"add" | b"replace" | b"append" | b"prepend",
                    rest @ ..,
                ] if matches!(rest.len(), 4 | 5) => {
                    match self.store(words[0], rest, None, &mut stream) {
                        Some(answer) => answer,
                        None => return true,
                    }
                }
                [b"cas", rest @ ..] if matches!(rest.len(), 5 | 6) => {
                    match self.store(b"cas", rest, Some(rest[4]), &mut stream) {
                        Some(answer) => answer,
                        None => return true,
                    }
                }
                _ => Err("ERROR"),
            };
            let is_quiet = self.is_quiet
                && !matches!(
                    words[0],
                    b"mn" | b"version" | b"get" | b"gets" | b"gat" | b"gats"
                )
                && answer != Err("ERROR");
            match answer {
                _ if is_quiet => (),
                // What was answered already.
                Ok("") => (),
                Ok(text) | Err(text) => self.say(text.as_bytes()),
            }
        }
        true
    }

    fn say(&mut self, line: &[u8]) {
        self.answers.extend_from_slice(line);
        self.answers.extend_from_slice(b"\r\n");
    }

    fn get(&mut self, keys: &[&[u8]], shows_unique: bool) -> Answer {
        if !keys.iter().all(|key| is_key(key)) {
            return Err(FORMAT);
        }
        for key in keys {
            let Some(item) = self.items.get(*key).cloned() else {
                continue;
            };
            let unique = if shows_unique {
                format!(" {}", item.unique)
            } else {
                String::new()
            };
            let numbers = format!(" {} {}{unique}", item.flags, item.value.len());
            self.say(&[b"VALUE ", *key, numbers.as_bytes()].concat());
            self.say(&item.value);
        }
        Ok("END")
    }

    fn delete(&mut self, key: &[u8]) -> Answer {
        match self.items.remove(key) {
            _ if !is_key(key) => Err(FORMAT),
            Some(_) => Ok("DELETED"),
            None => Ok("NOT_FOUND"),
        }
    }

    fn count(&mut self, key: &[u8], delta: &[u8], is_up: bool) -> Answer {
        if !is_key(key) {
            return Err(FORMAT);
        }
        let Some(delta) = number::<u64>(delta) else {
            return Err("CLIENT_ERROR invalid numeric delta argument");
        };
        let Some(item) = self.items.get_mut(key) else {
            return Ok("NOT_FOUND");
        };
        let text = String::from_utf8_lossy(&item.value).into_owned();
        let first = text.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
        let first = first
            .split(|letter: char| letter.is_ascii_whitespace())
            .next();
        let Some(old) = first.and_then(|first| first.parse::<u64>().ok()) else {
            return Err("CLIENT_ERROR cannot increment or decrement non-numeric value");
        };
        let new = if is_up {
            old.wrapping_add(delta)
        } else {
            old.saturating_sub(delta)
        };
        let width = item.value.len();
        item.value = format!("{:<width$}", new.to_string()).into_bytes();
        self.unique += 1;
        item.unique = self.unique;
        // The only answer that is no constant.
        if !self.is_quiet {
            self.say(new.to_string().as_bytes());
        }
        Ok("")
    }

    /// Returns `None` if the data block has not arrived.
    fn store(
        &mut self,
        name: &[u8],
        words: &[&[u8]],
        unique: Option<&[u8]>,
        stream: &mut &[u8],
    ) -> Option<Answer> {
        let numbers = (
            number::<u32>(words[1]),
            number::<i32>(words[2]),
            number::<i32>(words[3]),
        );
        let (Some(flags), Some(exptime), Some(length)) = numbers else {
            return Some(Err(FORMAT));
        };
        let unique = unique.map(number::<u64>);
        if !is_key(words[0]) || !(0..=i32::MAX - 2).contains(&length) || unique == Some(None) {
            return Some(Err(FORMAT));
        }
        let (key, length) = (words[0].to_vec(), length as usize);

        if key.len() + length + HEADER > ITEM_MOST {
            if matches!(name, b"set" | b"cas") {
                self.items.remove(&key);
            }
            *stream = stream.get(length + 2..).unwrap_or_default();
            return Some(Err("SERVER_ERROR object too large for cache"));
        }
        let block = stream.get(..length + 2)?;
        *stream = &stream[length + 2..];
        let Some(value) = block.strip_suffix(b"\r\n") else {
            return Some(Err("CLIENT_ERROR bad data chunk"));
        };

        let old = self.items.get(&key).cloned();
        let (value, flags) = match (name, &old) {
            (b"cas", None) => return Some(Ok("NOT_FOUND")),
            (b"cas", Some(old)) if Some(Some(old.unique)) != unique => return Some(Ok("EXISTS")),
            (b"add", Some(_)) | (b"replace" | b"append" | b"prepend", None) => {
                return Some(Ok("NOT_STORED"));
            }
            (b"append", Some(old)) => ([&old.value, value].concat(), old.flags),
            (b"prepend", Some(old)) => ([value, &old.value].concat(), old.flags),
            _ => (value.to_vec(), flags),
        };
        if key.len() + value.len() + HEADER > ITEM_MOST {
            return Some(Ok("NOT_STORED"));
        }
        self.unique += 1;
        let unique = self.unique;
        let is_over = exptime < 0 || exptime > 60 * 60 * 24 * 30 && exptime < 1_700_000_000;
        match is_over && !matches!(name, b"append" | b"prepend") {
            true => self.items.remove(&key),
            false => self.items.insert(
                key,
                Item {
                    flags,
                    value,
                    unique,
                },
            ),
        };
        Some(Ok("STORED"))
    }
}

fn is_key(word: &[u8]) -> bool {
    word.len() <= 250 && !word.iter().any(u8::is_ascii_control)
}

fn number<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    String::from_utf8(word.to_vec()).ok()?.parse().ok()
}
