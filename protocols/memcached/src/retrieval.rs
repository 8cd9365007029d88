//! Lines that ask for any number of keys.

use std::sync::Arc;
use std::time::Instant;

use crate::answer::{BAD_EXPTIME, UNKNOWN, key};
use crate::numbers::{self, number};
use crate::store::Store;

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

    /// Returns the value of `key`, and the line before it.
    pub(crate) fn find(
        self,
        key: &[u8],
        store: &Store,
        now: Instant,
    ) -> Option<(Vec<u8>, Arc<[u8]>)> {
        let mut items = store.at(now);
        let item = match self.exptime {
            Some(exptime) => items.touch(key, exptime),
            None => items.get(key),
        }?;
        drop(items);

        let mut head = Vec::with_capacity(key.len() + 64);
        head.extend_from_slice(b"VALUE ");
        head.extend_from_slice(key);
        head.push(b' ');
        numbers::push(&mut head, item.flags.into());
        head.push(b' ');
        numbers::push(&mut head, item.value.len() as u64);
        if self.shows_unique {
            head.push(b' ');
            numbers::push(&mut head, item.unique);
        }
        head.extend_from_slice(b"\r\n");
        Some((head, item.value))
    }
}

pub(crate) fn is_retrieval(name: &[u8]) -> bool {
    matches!(name, b"get" | b"gets" | b"gat" | b"gats")
}

pub(crate) fn spaces(data: &[u8]) -> usize {
    data.iter().take_while(|byte| **byte == b' ').count()
}

/// Returns the first word, which may be empty, and what follows it.
pub(crate) fn word(data: &[u8]) -> (&[u8], &[u8]) {
    let data = &data[spaces(data)..];
    let is_end = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n');
    let end = data.iter().position(is_end).unwrap_or(data.len());
    data.split_at(end)
}
