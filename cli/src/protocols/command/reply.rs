//! What is sent for a request, from the end of its program until the client takes it.

use serveloop::Transport;

use super::outcome::Report;
use super::store::Share;

/// A reply, and how much of it the connection has taken over.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    sent: usize,
    /// What it takes of the memory for all output, given back with the reply.
    _share: Option<Share>,
}

impl Reply {
    pub(super) fn new(mut report: Report) -> Self {
        let share = report.share.take();
        let mut bytes = report.into_reply();
        // It may wait for long.
        bytes.shrink_to_fit();
        Self {
            bytes,
            sent: 0,
            _share: share,
        }
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The same with `header` before it.
    pub(super) fn after(self, header: &[u8]) -> Self {
        let bytes = [header, &self.bytes].concat();
        Self { bytes, ..self }
    }

    /// Sends what the client can take of it, and says whether that was the last.
    pub(super) fn pour(&mut self, transport: &mut Transport<'_>) -> bool {
        self.sent += transport.write_some(&self.bytes[self.sent..]);
        self.sent == self.bytes.len()
    }
}
