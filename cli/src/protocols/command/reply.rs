//! What is sent for a request, from the end of its program until the client takes it.

use serveloop::Transport;

use crate::protocols::command::memory_quota::Share;
use crate::protocols::command::outcome::Report;

/// A reply, and how much of it the connection has taken over.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    sent: usize,
    /// What it takes of the memory for all output, given back as it is sent.
    share: Option<Share>,
}

/// A smaller part of a reply that was sent is not worth moving the rest for.
const SENT_LEAST: usize = 64 << 10;

impl Reply {
    pub(super) fn new(mut report: Report) -> Self {
        let share = report.share.take();
        let mut bytes = report.into_reply();
        // It may wait for long.
        bytes.shrink_to_fit();
        Self {
            bytes,
            sent: 0,
            share,
        }
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes of memory it takes.
    pub(super) fn kept(&self) -> usize {
        self.bytes.capacity()
    }

    /// The same with `header` before it.
    pub(super) fn after(mut self, header: &[u8]) -> Self {
        self.bytes.reserve_exact(header.len());
        self.bytes.splice(0..0, header.iter().copied());
        self
    }

    /// Sends what the client can take of it, and says whether that was the last.
    pub(super) fn pour(&mut self, transport: &mut Transport<'_>) -> bool {
        self.sent += transport.write_some(&self.bytes[self.sent..]);
        self.forget_sent();
        self.sent == self.bytes.len()
    }

    /// Gives the memory of what was sent back, if that is at least half.
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
