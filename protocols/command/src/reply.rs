//! A reply, from the end of its program until the client has taken it.

use serveloop::Transport;

use crate::memory_quota::Share;
use crate::outcome::Report;

/// A reply, and how much of it the connection has taken.
#[derive(Debug)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    sent: usize,
    /// The share of the memory quota that the reply takes, given back as it is sent.
    share: Option<Share>,
}

/// The least sent part that is worth moving the rest of the reply for.
const SENT_LEAST: usize = 64 << 10;

impl Reply {
    pub(crate) fn new(mut report: Report) -> Self {
        let share = report.share.take();
        let mut bytes = report.into_reply();
        // The reply may wait for a long time.
        bytes.shrink_to_fit();
        Self {
            bytes,
            sent: 0,
            share,
        }
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes of memory that the reply takes.
    pub(crate) fn kept(&self) -> usize {
        self.bytes.capacity()
    }

    /// Puts `header` before the reply.
    pub(crate) fn after(mut self, header: &[u8]) -> Self {
        self.bytes.reserve_exact(header.len());
        self.bytes.splice(0..0, header.iter().copied());
        self
    }

    /// Sends what the client can take of the reply. Returns whether all of it is sent.
    pub(crate) fn pour(&mut self, transport: &mut Transport<'_>) -> bool {
        self.sent += transport.write_some(&self.bytes[self.sent..]);
        self.forget_sent();
        self.sent == self.bytes.len()
    }

    /// Frees the memory of the sent part, if that is at least half of the reply and [`SENT_LEAST`].
    fn forget_sent(&mut self) {
        if self.sent < SENT_LEAST.max(self.bytes.len() / 2) {
            return;
        }
        self.bytes.drain(..self.sent);
        self.bytes.shrink_to_fit();
        if let Some(share) = &mut self.share {
            share.shrink(self.sent);
        }
        self.sent = 0;
    }
}
