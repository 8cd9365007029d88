//! Lines that ask for any number of keys.

use crate::answer::{BAD_EXPTIME, UNKNOWN, key};
use crate::item::Item;
use crate::items::Items;
use crate::numbers::{self, number};

/// How the values of several keys are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retrieval {
    shows_unique: bool,
    exptime: Option<i64>,
}

impl Retrieval {
    /// Reads the beginning of a line, and returns the keys that follow it. `None` if there are none
    /// where none are needed.
    pub(crate) fn parse(line: &[u8]) -> Result<Option<(Self, &[u8])>, &'static str> {
        let (name, mut rest) = word(line);
        let mut exptime = None;
        if name.starts_with(b"gat") {
            let given = word(rest);
            (exptime, rest) = (Some(given.0).filter(|word| !word.is_empty()), given.1);
            exptime.ok_or(UNKNOWN)?;
        }

        let exptime = exptime.map(|word| number(word).ok_or(BAD_EXPTIME));
        let retrieval = Self {
            shows_unique: name.ends_with(b"s"),
            exptime: exptime.transpose()?,
        };
        let words = rest.split(|byte| *byte == b' ');
        let mut count = 0;
        for word in words.filter(|word| !word.is_empty()) {
            key(word)?;
            count += 1;
        }
        match count {
            0 if retrieval.exptime.is_none() => Err(UNKNOWN),
            0 => Ok(None),
            _ => Ok(Some((retrieval, rest))),
        }
    }

    /// Returns the item of `key`.
    pub(crate) fn find(self, key: &[u8], items: &mut Items) -> Option<Item> {
        match self.exptime {
            Some(exptime) => items.touch(key, exptime),
            None => items.get(key),
        }
    }

    /// Appends the line before the value of `item`.
    pub(crate) fn push_head(self, key: &[u8], item: &Item, reply: &mut Vec<u8>) {
        reply.extend_from_slice(b"VALUE ");
        reply.extend_from_slice(key);
        reply.push(b' ');
        numbers::push(reply, item.flags.into());
        reply.push(b' ');
        numbers::push(reply, item.value.len() as u64);
        if self.shows_unique {
            reply.push(b' ');
            numbers::push(reply, item.unique);
        }
        reply.extend_from_slice(b"\r\n");
    }
}

/// The first key of what is left of a line.
pub(crate) struct Asked<'a> {
    pub(crate) key: &'a [u8],
    /// How many bytes lead to the next key, or to the next line.
    pub(crate) taken: usize,
    pub(crate) is_last: bool,
}

impl<'a> Asked<'a> {
    /// Takes a key from the front of `data`, which has the end of the line.
    pub(crate) fn first_of(data: &'a [u8]) -> Self {
        let (key, rest) = word(data);
        let rest = &rest[spaces(rest)..];
        let line_end = match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        Self {
            key,
            taken: data.len() - rest.len() + line_end,
            is_last: line_end > 0,
        }
    }
}

pub(crate) fn is_retrieval(name: &[u8]) -> bool {
    matches!(name, b"get" | b"gets" | b"gat" | b"gats")
}

fn spaces(data: &[u8]) -> usize {
    data.iter().take_while(|byte| **byte == b' ').count()
}

/// Returns the first word, which may be empty, and what follows it.
pub(crate) fn word(data: &[u8]) -> (&[u8], &[u8]) {
    let data = &data[spaces(data)..];
    let is_end = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n');
    let end = data.iter().position(is_end).unwrap_or(data.len());
    data.split_at(end)
}
