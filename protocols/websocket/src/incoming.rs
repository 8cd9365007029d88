//! The message that is arriving: its fragments, put together and checked.

use std::str;

use serveloop::ProtocolError;

use crate::close_code::CloseCode;
use crate::deflate::{Broken, Inflate};
use crate::frame::{Header, Mask, Opcode};
use crate::message::Message;

/// What is wrong with what a client sent, and the code that says so to the client.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) code: CloseCode,
    pub(crate) error: ProtocolError,
}

impl From<&'static str> for Violation {
    fn from(text: &'static str) -> Self {
        Self {
            code: CloseCode::PROTOCOL_ERROR,
            error: ProtocolError::malformed(text),
        }
    }
}

impl Violation {
    pub(crate) fn too_long(length: u64, limit: usize) -> Self {
        Self {
            code: CloseCode::TOO_BIG,
            error: ProtocolError::TooLong { length, limit },
        }
    }

    pub(crate) fn invalid(text: &'static str) -> Self {
        Self {
            code: CloseCode::INVALID_DATA,
            error: ProtocolError::malformed(text),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// The message that is arriving, and the data frame.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// Of the message, if one has begun.
    kind: Option<Kind>,
    payload: Vec<u8>,
    /// How many bytes of the payload were found to be whole characters.
    checked: usize,
    frame: Option<Frame>,
    /// If the message is compressed.
    inflate: Option<Box<Inflate>>,
    limit: usize,
}

/// The data frame of which some payload is to come.
#[derive(Clone, Copy, Debug)]
struct Frame {
    mask: Mask,
    missing: u64,
    is_last: bool,
}

impl Incoming {
    /// Returns whether the header of a frame comes next.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.frame.is_none()
    }

    /// Returns whether a message has begun and is not complete.
    pub(crate) fn has_begun(&self) -> bool {
        self.kind.is_some()
    }

    /// Returns how many bytes of the message have arrived.
    pub(crate) fn arrived(&self) -> usize {
        self.payload.len()
    }

    /// Returns how many bytes of memory the message takes.
    pub(crate) fn held(&self) -> usize {
        let inflate = self.inflate.as_ref().map_or(0, |_| Inflate::held());
        self.payload.capacity() + inflate
    }

    /// Drops what was kept of the message. The rest of the frame still comes.
    pub(crate) fn forget(&mut self) {
        self.payload = Vec::new();
        self.checked = 0;
        self.kind = None;
        self.inflate = None;
    }

    /// Begins a data frame, of a message of at most `limit` bytes.
    pub(crate) fn begin(&mut self, header: &Header, limit: usize) -> Result<(), Violation> {
        self.kind = match (header.opcode, self.kind) {
            (Opcode::Continuation, None) => Err("a fragment of no message")?,
            (Opcode::Continuation, kind) => kind,
            (_, Some(_)) => Err("a message within the fragments of another one")?,
            (Opcode::Text, None) => Some(Kind::Text),
            (_, None) => Some(Kind::Binary),
        };

        if header.is_compressed {
            self.inflate = Some(Box::new(Inflate::new()));
        }
        self.limit = limit;
        // How long compressed data becomes is seen later.
        let length = header.length.saturating_add(self.payload.len() as u64);
        if length > limit as u64 && self.inflate.is_none() {
            return Err(Violation::too_long(length, limit));
        }
        self.skip(header);
        Ok(())
    }

    /// Begins a data frame whose payload is not kept.
    pub(crate) fn skip(&mut self, header: &Header) {
        self.frame = Some(Frame {
            mask: header.mask,
            missing: header.length,
            is_last: header.is_last,
        });
    }

    /// Takes payload of the frame from the front of `data` and discards it. Returns how much it was.
    pub(crate) fn discard(&mut self, data: &[u8]) -> usize {
        let Some(frame) = &mut self.frame else {
            return 0;
        };
        let count = part(data, frame.missing);
        frame.missing -= count as u64;
        if frame.missing == 0 {
            self.frame = None;
        }
        count
    }

    /// Takes payload of the frame from the front of `data`. Returns how much it was, and whether the
    /// message is complete.
    pub(crate) fn take(&mut self, data: &[u8]) -> Result<(usize, bool), Violation> {
        let Some(mut frame) = self.frame else {
            return Ok((0, false));
        };
        let count = part(data, frame.missing);
        match &mut self.inflate {
            None => {
                let kept = self.payload.len();
                self.payload.extend_from_slice(&data[..count]);
                frame.mask.take_off(&mut self.payload[kept..]);
            }
            Some(inflate) => {
                let mut compressed = data[..count].to_vec();
                frame.mask.take_off(&mut compressed);
                let outcome = inflate.push(&compressed, &mut self.payload, self.limit);
                self.check_inflated(outcome)?;
            }
        }
        frame.missing -= count as u64;

        let is_frame_complete = frame.missing == 0;
        self.frame = Some(frame).filter(|_| !is_frame_complete);
        if is_frame_complete && frame.is_last {
            if let Some(mut inflate) = self.inflate.take() {
                let outcome = inflate.finish(&mut self.payload, self.limit);
                self.check_inflated(outcome)?;
            }
            return Ok((count, true));
        }
        self.check_text()?;
        Ok((count, false))
    }

    /// Checks that the payload can still become text. A character may be incomplete at its end.
    fn check_text(&mut self) -> Result<(), Violation> {
        if self.kind != Some(Kind::Text) {
            return Ok(());
        }
        let end = self.payload.len().min(self.limit);
        match str::from_utf8(&self.payload[self.checked..end]) {
            Ok(_) => self.checked = end,
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::invalid("text is not UTF-8")),
        }
        Ok(())
    }

    /// Checks what was decompressed. Whatever the cut is, the first thing that is wrong counts.
    fn check_inflated(&mut self, outcome: Result<(), Broken>) -> Result<(), Violation> {
        self.check_text()?;
        if self.payload.len() > self.limit {
            // How much there was at once depends on the cut.
            let length = (self.limit as u64).saturating_add(1);
            return Err(Violation::too_long(length, self.limit));
        }
        outcome.map_err(|Broken| Violation::invalid("compressed data is broken"))
    }

    /// Passes the message, which is complete, to `deliver`, and begins anew.
    pub(crate) fn finish<T>(
        &mut self,
        deliver: impl FnOnce(Message<'_>) -> T,
    ) -> Result<T, Violation> {
        let payload = std::mem::take(&mut self.payload);
        self.checked = 0;
        match self.kind.take() {
            Some(Kind::Text) => match str::from_utf8(&payload) {
                Ok(text) => Ok(deliver(Message::Text(text))),
                Err(_) => Err(Violation::invalid("text is not UTF-8")),
            },
            _ => Ok(deliver(Message::Binary(&payload))),
        }
    }
}

/// Returns how many bytes of `data` belong to a frame of which `missing` bytes are to come.
fn part(data: &[u8], missing: u64) -> usize {
    usize::try_from(missing).map_or(data.len(), |missing| missing.min(data.len()))
}
