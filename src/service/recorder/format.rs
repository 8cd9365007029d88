//! The bytes of a record: numbers, chunks and the blocks of a file. The format is described in
//! `recorder`.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::layer::proxy::checksum::crc32c;

/// What every file begins with. The last bytes show a transfer that changed line ends.
pub(super) const MAGIC: [u8; 8] = *b"SLREC\r\n\x1a";

/// The version of the format, which follows the magic bytes.
pub(super) const VERSION: u8 = 1;

/// The tags of blocks.
pub(super) const HEAD: u8 = b'H';
pub(super) const CONNECTION: u8 = b'C';
pub(super) const END: u8 = b'E';

/// The bytes of a block before its content: the tag and the length.
pub(super) const BLOCK_HEAD: usize = 5;

/// Why a record cannot be read or replayed. The text says what is wrong and, for a file that is
/// damaged, at which byte.
///
/// ```
/// use serveloop::service::recorder::Recording;
///
/// let error = Recording::read(&b"SLREC\r\n\x1a\x01H"[..]).unwrap_err();
/// assert_eq!(error.to_string(), "at byte 9: the record ends within a block");
/// assert_eq!(error.offset(), Some(9));
/// ```
#[derive(Debug)]
pub struct RecordingError {
    path: Option<PathBuf>,
    offset: Option<u64>,
    problem: Cow<'static, str>,
    source: Option<io::Error>,
}

impl RecordingError {
    pub(super) fn at(offset: u64, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            offset: Some(offset),
            ..Self::of(problem)
        }
    }

    /// Creates an error that is about no byte of the file.
    pub(crate) fn of(problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            path: None,
            offset: None,
            problem: problem.into(),
            source: None,
        }
    }

    /// Returns the same error about a file.
    pub(super) fn of_file(self, path: &Path) -> Self {
        Self {
            path: Some(path.to_owned()),
            ..self
        }
    }

    /// Returns the number of the byte, counted from 0, at which the record is damaged. `None` if it is
    /// not, or could not be read.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }
}

impl From<io::Error> for RecordingError {
    fn from(error: io::Error) -> Self {
        Self {
            source: Some(error),
            ..Self::of("cannot be read")
        }
    }
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display().to_string().escape_debug())?;
        }
        if let Some(offset) = self.offset {
            write!(f, "at byte {offset}: ")?;
        }
        f.write_str(&self.problem)?;
        match &self.source {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RecordingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// Appends a number: seven bits in each byte, the lowest first, and the eighth bit in all but the last.
pub(super) fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends the length of `data`, and `data` itself.
pub(super) fn push_bytes(bytes: &mut Vec<u8>, data: &[u8]) {
    push_number(bytes, data.len() as u64);
    bytes.extend_from_slice(data);
}

/// Returns a block: its tag, the length of its content, the content and a checksum of all of that.
pub(super) fn block(tag: u8, content: &[u8]) -> io::Result<([u8; BLOCK_HEAD], [u8; 4])> {
    let length = u32::try_from(content.len()).map_err(|_| {
        let problem = "a block of a record has at most 4 GiB";
        io::Error::new(io::ErrorKind::InvalidInput, problem)
    })?;
    let mut head = [tag, 0, 0, 0, 0];
    head[1..].copy_from_slice(&length.to_le_bytes());
    let sum = crc32c(&[&head, content]);
    Ok((head, sum.to_le_bytes()))
}

/// Reads the content of a block.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where in the file the bytes begin.
    begin: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], begin: u64) -> Self {
        Self {
            bytes,
            at: 0,
            begin,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Returns how many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Returns an error at the byte that is next.
    pub(super) fn wrong(&self, problem: impl Into<Cow<'static, str>>) -> RecordingError {
        RecordingError::at(self.begin + self.at as u64, problem)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordingError> {
        let byte = self.bytes.get(self.at).copied();
        let byte = byte.ok_or_else(|| self.wrong("the block ends within an entry"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, RecordingError> {
        let before = self.at;
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        self.at = before;
        Err(self.wrong("a number has more than 64 bits"))
    }

    /// Reads the length of some bytes, and these.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordingError> {
        let before = self.at;
        let length = self.number()?;
        let rest = &self.bytes[self.at..];
        let length = usize::try_from(length).ok();
        let Some(bytes) = length.and_then(|length| rest.get(..length)) else {
            self.at = before;
            return Err(self.wrong("an entry is longer than its block"));
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, RecordingError> {
        let before = self.at;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| {
            let at = Self {
                at: before,
                ..*self
            };
            at.wrong("a text is not UTF-8")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                push_number(&mut bytes, number);
                let mut fields = Fields::new(&bytes, 0);
                assert_eq!(fields.number().unwrap(), number);
                assert!(fields.is_empty());
            }
        }
    }

    #[test]
    fn what_is_no_number_has_its_place() {
        let error = |bytes: &[u8]| Fields::new(bytes, 100).number().unwrap_err().to_string();
        assert_eq!(
            error(&[0x80; 3]),
            "at byte 103: the block ends within an entry"
        );
        let long = "at byte 100: a number has more than 64 bits";
        assert_eq!(error(&[0xff; 10]), long);
        assert_eq!(error(&[0xff; 11]), long);

        let error = Fields::new(&[3, 1, 2], 7).bytes().unwrap_err();
        assert_eq!(error.offset(), Some(7));
    }
}
