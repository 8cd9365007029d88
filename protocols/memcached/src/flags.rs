//! The flags of a meta command.

use crate::answer::BAD_FORMAT;
use crate::numbers::number;

/// The longest opaque token, with its flag.
const OPAQUE_MOST: usize = 32;

const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format\r\n";
pub(crate) const BAD_OPAQUE: &str = "CLIENT_ERROR opaque token too long\r\n";

/// The flags of a command, and what their tokens say.
#[derive(Debug)]
pub(crate) struct Flags<'a> {
    /// In the order in which their answers are wanted.
    pub(crate) words: Box<[&'a [u8]]>,
    /// A bit for each flag that is given.
    pub(crate) given: u128,
    pub(crate) mode: u8,
    pub(crate) exptime: i64,
    pub(crate) vivify_exptime: i64,
    pub(crate) recache_exptime: i64,
    pub(crate) client_flags: u32,
    pub(crate) unique: Option<u64>,
    pub(crate) initial: u64,
    pub(crate) delta: u64,
}

impl<'a> Flags<'a> {
    pub(crate) fn parse(words: &[&'a [u8]]) -> Result<Self, &'static str> {
        let mut flags = Self {
            words: words.into(),
            given: 0,
            mode: 0,
            exptime: 0,
            vivify_exptime: 0,
            recache_exptime: 0,
            client_flags: 0,
            unique: None,
            initial: 0,
            delta: 1,
        };
        for word in words {
            let (flag, token) = (word[0], &word[1..]);
            if flag >= 127 || flags.has(flag) {
                return Err("CLIENT_ERROR duplicate flag\r\n");
            }
            flags.given |= 1 << flag;
            flags.take(flag, token)?;
        }
        Ok(flags)
    }

    /// Returns whether `flag` was given.
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.given & 1 << flag != 0
    }

    fn take(&mut self, flag: u8, token: &[u8]) -> Result<(), &'static str> {
        match flag {
            b'T' => self.exptime = number(token).ok_or(BAD_TOKEN)?,
            b'N' => self.vivify_exptime = number(token).ok_or(BAD_TOKEN)?,
            b'R' => self.recache_exptime = number(token).ok_or(BAD_TOKEN)?,
            b'C' => self.unique = Some(number(token).ok_or(BAD_TOKEN)?),
            b'F' => self.client_flags = number(token).ok_or(BAD_FORMAT)?,
            b'J' => {
                let problem = "CLIENT_ERROR invalid numeric initial value\r\n";
                self.initial = number(token).ok_or(problem)?;
            }
            b'D' => {
                let problem = "CLIENT_ERROR invalid numeric delta value\r\n";
                self.delta = number(token).ok_or(problem)?;
            }
            b'M' => match token {
                [mode] => self.mode = *mode,
                _ => return Err("CLIENT_ERROR incorrect length for M token\r\n"),
            },
            b'O' if token.len() >= OPAQUE_MOST => return Err(BAD_OPAQUE),
            b'O' | b'b' | b'k' | b'q' | b's' | b't' | b'c' | b'f' | b'l' | b'h' | b'u' | b'v'
            | b'I' => (),
            // For proxies between client and server.
            b'P' | b'L' => (),
            _ => return Err("CLIENT_ERROR invalid flag\r\n"),
        }
        Ok(())
    }
}
