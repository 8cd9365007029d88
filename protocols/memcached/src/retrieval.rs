//! Lines that ask for any number of keys.

use std::io::{self, Write};

use crate::answer::{BAD_EXPTIME, BAD_FORMAT, KEY_MOST, UNKNOWN};
use crate::item::Item;
use crate::items::Items;
use crate::numbers::{self, number};
use crate::words::shown;

/// How the values of several keys are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retrieval {
    shows_unique: bool,
    exptime: Option<i64>,
}

impl Retrieval {
    /// Reads the beginning of a line, what is behind the `name` of its command. Returns the keys that follow
    /// it. There may be none where none are needed.
    pub(crate) fn parse<'a>(
        name: &[u8],
        mut rest: &'a [u8],
    ) -> Result<(Self, Keys<'a>), &'static str> {
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
        match Keys::parse(rest)? {
            Keys::None if retrieval.exptime.is_none() => Err(UNKNOWN),
            keys => Ok((retrieval, keys)),
        }
    }

    /// Returns the item of `key`.
    pub(crate) fn find(self, key: &[u8], items: &mut Items) -> Option<Item> {
        match self.exptime {
            Some(exptime) => items.touch(key, exptime),
            None => items.get(key),
        }
    }

    /// Writes the line before the value of `item`.
    pub(crate) fn write_head(self, key: &[u8], item: &Item, to: &mut impl Write) -> io::Result<()> {
        to.write_all(b"VALUE ")?;
        to.write_all(key)?;
        to.write_all(b" ")?;
        numbers::write(to, item.flags.into())?;
        to.write_all(b" ")?;
        numbers::write(to, item.value.len() as u64)?;
        if self.shows_unique {
            to.write_all(b" ")?;
            numbers::write(to, item.unique)?;
        }
        to.write_all(b"\r\n")
    }
}

/// The keys of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keys<'a> {
    None,
    One(&'a [u8]),
    /// What of the line has them.
    Several(&'a [u8]),
}

impl<'a> Keys<'a> {
    /// Finds out how many there are, if each can be one.
    fn parse(all: &'a [u8]) -> Result<Self, &'static str> {
        let (mut rest, mut found) = (all, Self::None);
        loop {
            rest = &rest[spaces(rest)..];
            if rest.is_empty() {
                return Ok(found);
            }
            let end = shown(rest);
            if end > KEY_MOST || rest.get(end).is_some_and(|byte| *byte != b' ') {
                return Err(BAD_FORMAT);
            }

            found = match found {
                Self::None => Self::One(&rest[..end]),
                _ => Self::Several(all),
            };
            rest = &rest[end..];
        }
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
    let mut end = shown(data);
    while data
        .get(end)
        .is_some_and(|byte| !matches!(byte, b' ' | b'\r' | b'\n'))
    {
        end += 1;
        end += shown(&data[end..]);
    }
    data.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_spaces_and_line_ends() {
        let long = [b'k'; 250];
        for (data, expected) in [
            (&b"get a"[..], (&b"get"[..], &b" a"[..])),
            (b"  get\r\n", (b"get", b"\r\n")),
            (b"a\tb\0c\x7f\nd", (b"a\tb\0c\x7f", b"\nd")),
            (b" ", (b"", b"")),
            (&long, (&long, b"")),
        ] {
            assert_eq!(word(data), expected);
        }
    }

    #[test]
    fn keys_are_checked() {
        let (longest, longer) = ([b'k'; 250], [b'k'; 251]);
        for (line, expected) in [
            (&b"a"[..], Ok(Keys::One(b"a"))),
            (b"  ab ", Ok(Keys::One(b"ab"))),
            (b"  a   bc ", Ok(Keys::Several(b"  a   bc "))),
            (b"", Ok(Keys::None)),
            (b"  ", Ok(Keys::None)),
            (&longest, Ok(Keys::One(&longest))),
            (&longer, Err(BAD_FORMAT)),
            (b"a\tb", Err(BAD_FORMAT)),
            (b"a b\r", Err(BAD_FORMAT)),
            (b"\x01", Err(BAD_FORMAT)),
            (b"abcdefgh\x7f", Err(BAD_FORMAT)),
            (b"\xff\x80", Ok(Keys::One(b"\xff\x80"))),
        ] {
            assert_eq!(Keys::parse(line), expected, "{}", line.escape_ascii());
        }
    }
}
