//! The meta commands: a verb, a key, and flags that change what is done and choose what is shown.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::answer::{
    Answer, BAD_FORMAT, NO_MEMORY, NO_NUMBER, Refusal, UNKNOWN, block_length, key,
};
use crate::flags::{BAD_OPAQUE, Flags};
use crate::item::{Direction, Item, Mode, New, NoCounter, Outcome};
use crate::items::Items;
use crate::numbers;

/// From this many words on, a line has too many flags.
const WORDS_MOST: usize = 20;

const BAD_FLAGS: &str = "CLIENT_ERROR invalid or duplicate flag\r\n";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key\r\n";

/// A meta command.
#[derive(Debug)]
pub(crate) struct Meta<'a> {
    verb: Verb,
    key: Cow<'a, [u8]>,
    flags: Flags<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Get,
    Set(Mode, usize),
    Delete,
    Count(Direction),
    Debug,
}

impl<'a> Meta<'a> {
    /// Returns what the words of a line ask for, whose first is `m` and the `verb`.
    pub(crate) fn parse(verb: u8, words: &[&'a [u8]]) -> Result<Self, Refusal> {
        let [_, word, rest @ ..] = words else {
            return Err(if verb == b'e' { BAD_FORMAT } else { UNKNOWN }.into());
        };
        let (length, flags) = match (verb, rest) {
            (b'g' | b'd' | b'a', flags) => (0, flags),
            (b'e', [b"b", ..]) => (0, &rest[..1]),
            (b'e', _) => (0, &rest[..0]),
            (b's', [length, flags @ ..]) => (block_length(length)?, flags),
            (b's', []) => return Err(BAD_FORMAT.into()),
            _ => return Err(UNKNOWN.into()),
        };
        // A key in Base64 is longer than what it says.
        key(word)?;
        if words.len() >= WORDS_MOST {
            let text = match verb {
                b'g' => "CLIENT_ERROR options flags are too long\r\n",
                _ => "CLIENT_ERROR options flags too long\r\n",
            };
            return Err(text.into());
        }

        // From here on it is known how long the data block is.
        Self::with_flags(verb, word, length, flags).map_err(|text| Refusal {
            text,
            is_quiet: false,
            skip: if verb == b's' { length + 2 } else { 0 },
        })
    }

    fn with_flags(
        verb: u8,
        word: &'a [u8],
        length: usize,
        flags: &[&'a [u8]],
    ) -> Result<Self, &'static str> {
        let flags = match Flags::parse(flags) {
            Err(text) if matches!(verb, b'd' | b'a') && text != BAD_OPAQUE => Err(BAD_FLAGS),
            flags => flags,
        }?;
        let verb = match (verb, flags.mode) {
            (b'g', _) => Verb::Get,
            (b'd', _) => Verb::Delete,
            (b's', 0 | b'S') => Verb::Set(Mode::Set, length),
            (b's', b'E') => Verb::Set(Mode::Add, length),
            (b's', b'A') => Verb::Set(Mode::Append, length),
            (b's', b'P') => Verb::Set(Mode::Prepend, length),
            (b's', b'R') => Verb::Set(Mode::Replace, length),
            (b's', _) => return Err("CLIENT_ERROR invalid mode for ms M token\r\n"),
            (b'a', 0 | b'I' | b'+') => Verb::Count(Direction::Up),
            (b'a', b'D' | b'-') => Verb::Count(Direction::Down),
            (b'a', _) => return Err("CLIENT_ERROR invalid mode for ma M token\r\n"),
            _ => Verb::Debug,
        };

        let is_debug = matches!(verb, Verb::Debug);
        let key = match flags.has(b'b').then(|| STANDARD.decode(word)) {
            None => Cow::Borrowed(word),
            Some(Ok(key)) => Cow::Owned(key),
            Some(Err(_)) if is_debug => return Err(BAD_FORMAT),
            Some(Err(_)) => return Err(BAD_KEY),
        };
        Ok(Self { verb, key, flags })
    }

    /// Returns the length of the data block that follows the line, if the command has one.
    pub(crate) fn block_length(&self) -> Option<usize> {
        match self.verb {
            Verb::Set(_, length) => Some(length),
            _ => None,
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn run(&self, block: &[u8], items: &mut Items) -> Answer {
        items.statistics.cmd_meta += 1;
        match self.verb {
            Verb::Get => self.get(items),
            Verb::Set(mode, _) => self.set(mode, block, items),
            Verb::Delete => self.delete(items),
            Verb::Count(direction) => self.count(direction, items),
            Verb::Debug => self.debug(items),
        }
    }

    fn get(&self, items: &mut Items) -> Answer {
        let flags = &self.flags;
        let is_new = flags.has(b'N') && items.peek(&self.key).is_none();
        if is_new {
            self.vivify(b"", items);
        }
        let Some(mut item) = items.peek(&self.key).cloned() else {
            items.statistics.count_get(false);
            return match flags.has(b'q') {
                true => Answer::Nothing,
                false => self.status("EN"),
            };
        };
        items.statistics.count_get(true);

        let recache = items.expiry(flags.recache_exptime);
        let mut wins = is_new;
        let mut line = match flags.has(b'v') {
            true => value_line(item.value.len()),
            false => b"HD".to_vec(),
        };
        for word in &flags.words {
            match word[0] {
                b'T' => item.expires = items.expiry(flags.exptime),
                b'N' if is_new => item.expires = items.expiry(flags.vivify_exptime),
                b'R' if !is_new && !item.is_won && item.expires.is_some() => {
                    wins |= recache.is_none_or(|recache| item.expires < Some(recache));
                }
                _ => self.show(word, &item, items, &mut line),
            }
        }
        // What the client has to know about others that renew the item, or whether it should.
        if item.is_won {
            line.extend_from_slice(b" Z");
        }
        if item.is_stale {
            line.extend_from_slice(b" X");
            wins |= !item.is_won;
        }
        if wins {
            line.extend_from_slice(b" W");
        }
        line.extend_from_slice(b"\r\n");

        let (expires, is_won) = (item.expires, item.is_won || wins);
        if !is_new && !flags.has(b'u') {
            items.fetch(&self.key);
        }
        if let Some(found) = items.peek(&self.key) {
            (found.expires, found.is_won) = (expires, is_won);
        }
        match flags.has(b'v') {
            true => Answer::Value(line, item.value, "\r\n"),
            false => Answer::Bytes(line),
        }
    }

    fn set(&self, mode: Mode, block: &[u8], items: &mut Items) -> Answer {
        let flags = &self.flags;
        let new = New {
            mode,
            value: block,
            flags: flags.client_flags,
            exptime: flags.exptime,
            unique: flags.unique,
            invalidates: flags.has(b'I'),
            has_binary_key: flags.has(b'b'),
        };
        let code = match items.store(&self.key, new) {
            Outcome::Stored if flags.has(b'q') => return Answer::Nothing,
            Outcome::Stored => "HD",
            Outcome::NotStored => "NS",
            Outcome::Exists => "EX",
            Outcome::NotFound => "NF",
            Outcome::NoMemory => return Answer::Text(NO_MEMORY),
        };

        let unique = items.peek(&self.key).map(|item| item.unique);
        let unique = unique.filter(|_| code == "HD").unwrap_or(0);
        let mut line = code.as_bytes().to_vec();
        for word in &flags.words {
            match word[0] {
                b'c' => push_number(&mut line, b'c', unique),
                _ => self.repeat(word, &mut line),
            }
        }
        line.extend_from_slice(b"\r\n");
        Answer::Bytes(line)
    }

    fn delete(&self, items: &mut Items) -> Answer {
        let flags = &self.flags;
        let found = items.peek(&self.key).map(|item| item.unique);
        let code = match (found, flags.unique) {
            (Some(found), Some(unique)) if found != unique => "EX",
            (Some(_), _) if flags.has(b'I') => {
                let exptime = flags.has(b'T').then_some(flags.exptime);
                items.invalidate(&self.key, exptime);
                "HD"
            }
            _ if items.delete(&self.key) => "HD",
            _ => "NF",
        };
        match code == "HD" && flags.has(b'q') {
            true => Answer::Nothing,
            false => self.status(code),
        }
    }

    fn count(&self, direction: Direction, items: &mut Items) -> Answer {
        let flags = &self.flags;
        let counted = items.count(&self.key, direction, flags.delta, flags.unique);
        let (number, is_new) = match counted {
            Ok(number) => (number, false),
            Err(NoCounter::NotFound) if flags.has(b'N') => (flags.initial, true),
            Err(NoCounter::NotFound) => return self.status("NF"),
            Err(NoCounter::Exists) => return self.status("EX"),
            Err(NoCounter::NotNumeric) => return Answer::Text(NO_NUMBER),
        };

        let mut digits = Vec::new();
        numbers::push(&mut digits, number);
        if is_new {
            self.vivify(&digits, items);
        }
        let Some(mut item) = items.peek(&self.key).cloned() else {
            return Answer::Text(NO_MEMORY);
        };

        let mut line = match flags.has(b'v') {
            true => value_line(digits.len()),
            false => b"HD".to_vec(),
        };
        for word in &flags.words {
            match word[0] {
                b'T' => item.expires = items.expiry(flags.exptime),
                b'N' if is_new => item.expires = items.expiry(flags.vivify_exptime),
                b't' | b'c' => self.show(word, &item, items, &mut line),
                _ => self.repeat(word, &mut line),
            }
        }
        line.extend_from_slice(b"\r\n");
        if flags.has(b'v') {
            line.extend_from_slice(&digits);
            line.extend_from_slice(b"\r\n");
        }

        if let Some(found) = items.peek(&self.key) {
            found.expires = item.expires;
        }
        match flags.has(b'q') && !is_new {
            true => Answer::Nothing,
            false => Answer::Bytes(line),
        }
    }

    /// Creates an item that was not there. Its expiration time is set in the order of the flags.
    fn vivify(&self, value: &[u8], items: &mut Items) {
        items.vivify(&self.key, value);
        if let Some(item) = items.peek(&self.key) {
            item.has_binary_key = self.flags.has(b'b');
        }
    }

    /// Shows what is known of an item, for people.
    fn debug(&self, items: &mut Items) -> Answer {
        let Some(item) = items.peek(&self.key).cloned() else {
            return Answer::Text("EN\r\n");
        };
        let expires = items.time_to_live(&item).map_or(-1, |left| left as i64);
        let fetched = if item.is_fetched { "yes" } else { "no" };
        let rest = format!(
            " exp={expires} la={} cas={} fetch={fetched} cls=1 size={}\r\n",
            items.idle(&item),
            item.unique,
            Items::item_size(&self.key, item.value.len()),
        );

        let mut line = b"ME ".to_vec();
        match item.has_binary_key {
            true => line.extend_from_slice(STANDARD.encode(&self.key).as_bytes()),
            false => line.extend_from_slice(&self.key),
        }
        line.extend_from_slice(rest.as_bytes());
        Answer::Bytes(line)
    }

    /// Answers with a code and with what is repeated from the command.
    fn status(&self, code: &str) -> Answer {
        let mut line = code.as_bytes().to_vec();
        for word in &self.flags.words {
            self.repeat(word, &mut line);
        }
        line.extend_from_slice(b"\r\n");
        Answer::Bytes(line)
    }

    /// Appends what a flag asks to repeat.
    fn repeat(&self, word: &[u8], line: &mut Vec<u8>) {
        match word[0] {
            b'O' => {
                line.push(b' ');
                line.extend_from_slice(word);
            }
            b'k' => push_key(line, &self.key, self.flags.has(b'b')),
            _ => (),
        }
    }

    /// Appends what a flag asks about an item.
    fn show(&self, word: &[u8], item: &Item, items: &Items, line: &mut Vec<u8>) {
        match word[0] {
            b's' => push_number(line, b's', item.value.len() as u64),
            b't' => match items.time_to_live(item) {
                Some(left) => push_number(line, b't', left),
                None => line.extend_from_slice(b" t-1"),
            },
            b'c' => push_number(line, b'c', item.unique),
            b'f' => push_number(line, b'f', item.flags.into()),
            b'l' => push_number(line, b'l', items.idle(item)),
            b'h' => push_number(line, b'h', item.is_fetched.into()),
            b'k' => push_key(line, &self.key, item.has_binary_key),
            _ => self.repeat(word, line),
        }
    }
}

fn value_line(length: usize) -> Vec<u8> {
    let mut line = b"VA ".to_vec();
    numbers::push(&mut line, length as u64);
    line
}

fn push_number(line: &mut Vec<u8>, flag: u8, number: u64) {
    line.extend_from_slice(&[b' ', flag]);
    numbers::push(line, number);
}

fn push_key(line: &mut Vec<u8>, key: &[u8], is_binary: bool) {
    line.extend_from_slice(b" k");
    if is_binary {
        line.extend_from_slice(STANDARD.encode(key).as_bytes());
        line.extend_from_slice(b" b");
    } else {
        line.extend_from_slice(key);
    }
}
