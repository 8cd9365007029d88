//! Finds where a value ends.

use serveloop::{ProtocolError, Transport};

use crate::client::Value;
use crate::number;

/// The deepest nesting of arrays and maps.
const DEPTH_MOST: usize = 32;

/// The longest line without its content: a length, a number, or a simple text.
const LINE_MOST: usize = 64 * 1024;

/// Looks for the end of a value in data that is shown from its first byte until the value is complete,
/// and looks at each byte once.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// How many bytes were looked at.
    at: usize,
    /// How many elements are missing of each array that has begun.
    open: Vec<u64>,
}

impl Scanner {
    /// Passes each value that is complete at the front of `data` to `handle`, for as long as it is the
    /// protocol's turn. Returns how many bytes they have.
    ///
    /// # Errors
    /// The data is no value, or `handle` fails.
    pub(super) fn take(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
        mut handle: impl FnMut(Value, &mut Transport<'_>) -> Result<(), ProtocolError>,
    ) -> Result<usize, ProtocolError> {
        let most = transport.limits().max_frame;
        let mut taken = 0;
        while let Some(length) = self.scan(&data[taken..], most)? {
            let value = &data[taken..taken + length];
            taken += length;
            handle(
                Value::read(value).ok_or("a number that is none")?,
                transport,
            )?;
            if taken == data.len() || !transport.has_turn() {
                break;
            }
        }
        Ok(taken)
    }

    /// Returns the length of the first value, or `None` if it is not complete. Then a new scan begins.
    /// A value has at most `most` bytes.
    ///
    /// # Errors
    /// The data is no value, or announces one that is too long or too deep.
    pub(super) fn scan(
        &mut self,
        data: &[u8],
        most: usize,
    ) -> Result<Option<usize>, ProtocolError> {
        loop {
            let Some((line, next)) = self.line(data)? else {
                return Ok(None);
            };
            let (kind, rest) = line.split_first().ok_or("a value without a type")?;
            match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => self.at = next,
                b'$' | b'=' | b'!' => match length(rest, *kind == b'$')? {
                    None => self.at = next,
                    Some(length) => {
                        let end = end(next, length, most)?;
                        if data.len() < end {
                            return Ok(None);
                        }
                        if data[end - 2..end] != *b"\r\n" {
                            return Err("no line end after a text")?;
                        }
                        self.at = end;
                    }
                },
                b'*' | b'%' | b'~' | b'>' => {
                    self.at = next;
                    if self.begin(*kind, rest, most)? {
                        continue;
                    }
                }
                _ => return Err(format!("'{}' is no type", kind.escape_ascii()))?,
            }

            if self.end_value() {
                let length = std::mem::take(&mut self.at);
                return Ok(Some(length));
            }
        }
    }

    /// Begins an array. Returns whether it has elements.
    fn begin(&mut self, kind: u8, rest: &[u8], most: usize) -> Result<bool, ProtocolError> {
        let Some(count) = length(rest, kind == b'*')?.filter(|count| *count > 0) else {
            return Ok(false);
        };
        let count = count.saturating_mul(if kind == b'%' { 2 } else { 1 });
        if self.open.len() >= DEPTH_MOST {
            return Err("arrays are nested too deeply")?;
        }
        // Each element has three bytes at least.
        if count.saturating_mul(3) > most as u64 {
            let length = count.saturating_mul(3);
            return Err(ProtocolError::TooLong {
                length,
                limit: most,
            });
        }
        self.open.push(count);
        Ok(true)
    }

    /// Notes that a value has ended, and with it perhaps arrays. Returns whether all have.
    fn end_value(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }

    /// Returns the next line without its end, and where the one after it begins.
    fn line<'a>(&self, data: &'a [u8]) -> Result<Option<(&'a [u8], usize)>, ProtocolError> {
        let rest = &data[self.at..];
        let searched = &rest[..rest.len().min(LINE_MOST)];
        match searched.iter().position(|byte| *byte == b'\n') {
            Some(end) if end > 0 && rest[end - 1] == b'\r' => {
                Ok(Some((&rest[..end - 1], self.at + end + 1)))
            }
            Some(_) => Err("a line end without CR")?,
            None if searched.len() == LINE_MOST => Err("a line is too long")?,
            None => Ok(None),
        }
    }
}

/// Parses a length. `None` is -1, the null of RESP2, where that `may_be_null`.
fn length(text: &[u8], may_be_null: bool) -> Result<Option<u64>, ProtocolError> {
    match number::integer(text) {
        Some(-1) if may_be_null => Ok(None),
        Some(length) => u64::try_from(length)
            .map(Some)
            .map_err(|_| "a negative length".into()),
        None => Err(format!("'{}' is no length", text.escape_ascii()))?,
    }
}

/// Returns where a text of `length` bytes ends with its line end.
fn end(start: usize, length: u64, most: usize) -> Result<usize, ProtocolError> {
    let fits = usize::try_from(length)
        .ok()
        .filter(|length| *length <= most);
    let length = fits.ok_or(ProtocolError::TooLong {
        length,
        limit: most,
    })?;
    Ok(start + length + 2)
}
