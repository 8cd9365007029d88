//! What a client is sent, and what is refused in any line.

use std::sync::Arc;

use crate::numbers::number;
use crate::words::shown;

/// The longest key, in bytes.
pub(crate) const KEY_MOST: usize = 250;

/// The longest data block that a line can announce, so that its end can be counted too.
const LENGTH_MOST: i32 = i32::MAX - 2;

pub(crate) const UNKNOWN: &str = "ERROR\r\n";
pub(crate) const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
pub(crate) const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";
pub(crate) const BAD_DELETE: &str =
    "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
pub(crate) const BAD_BLOCK: &str = "CLIENT_ERROR bad data chunk\r\n";
pub(crate) const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
pub(crate) const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";
pub(crate) const NO_NUMBER: &str =
    "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
pub(crate) const NO_MEMORY: &str = "SERVER_ERROR out of memory storing object\r\n";

/// Why a line is not carried out.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) text: &'static str,
    pub(crate) is_quiet: bool,
    /// How many bytes after the line belong to it.
    pub(crate) skip: usize,
}

impl From<&'static str> for Refusal {
    fn from(text: &'static str) -> Self {
        Self {
            text,
            is_quiet: false,
            skip: 0,
        }
    }
}

/// What a client is sent.
#[derive(Debug)]
pub(crate) enum Answer {
    Nothing,
    Text(&'static str),
    Bytes(Vec<u8>),
    /// The value is sent between the two.
    Value(Vec<u8>, Arc<[u8]>, &'static str),
    /// The end of the connection.
    End,
}

/// Returns a word that can be a key.
pub(crate) fn key(word: &[u8]) -> Result<&[u8], &'static str> {
    match word.len() <= KEY_MOST && shown(word) == word.len() {
        true => Ok(word),
        false => Err(BAD_FORMAT),
    }
}

/// Returns the length of a data block.
pub(crate) fn block_length(word: &[u8]) -> Result<usize, &'static str> {
    let length = number(word).filter(|length| (0..=LENGTH_MOST).contains(length));
    length.map(|length| length as usize).ok_or(BAD_FORMAT)
}
