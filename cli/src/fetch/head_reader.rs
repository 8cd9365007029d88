//! Reads the heads of HTTP responses from what has arrived.

use std::mem;

use serveloop::ProtocolError;

use crate::fetch::head::Head;
use crate::fetch::lines::HeadEnd;

/// The longest head, in bytes.
pub(crate) const HEAD_MOST: usize = 300 << 10;

#[derive(Debug, Default)]
pub(crate) struct HeadReader(HeadEnd);

impl HeadReader {
    /// Returns the head at the front of `data`, which is all that is unread, and its length, or
    /// `None` while it is incomplete. Then begins with the next head.
    ///
    /// # Errors
    /// Fails if the data is not the head of a response, or if it is too long for one.
    pub(crate) fn read(&mut self, data: &[u8]) -> Result<Option<(Head, usize)>, ProtocolError> {
        let found = self.0.find(data)?;
        let length = found.unwrap_or(data.len());
        if length > HEAD_MOST {
            return Err(ProtocolError::TooLong {
                length: length as u64,
                limit: HEAD_MOST,
            });
        }
        if found.is_none() {
            return Ok(None);
        }

        mem::take(&mut self.0);
        let head = Head::parse(&data[..length])?;
        Ok(Some((head, length)))
    }
}
