//! What a protocol has written, compared with what was recorded.

use crate::session::Tap;
use crate::waker::sync::{Mutex, lock};
use std::mem;

/// How many bytes are shown of what differs, and how many of those before it.
const EXCERPT: usize = 64;
const BEFORE: usize = 16;

/// Collects what a protocol writes.
#[derive(Debug, Default)]
pub(super) struct Output(Mutex<Vec<u8>>);

impl Output {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut lock(&self.0))
    }
}

impl Tap for Output {
    fn wrote(&self, data: &[u8]) {
        let mut output = lock(&self.0);
        output.extend_from_slice(data);
    }
}

/// Two streams of output, of which one was recorded. What both have is forgotten.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    expected: Vec<u8>,
    got: Vec<u8>,
    /// How many bytes were the same.
    same: u64,
    /// The last of them.
    before: Vec<u8>,
}

impl Comparison {
    /// Adds what was recorded.
    pub(super) fn expect(&mut self, wrote: &[&[u8]]) {
        for piece in wrote {
            self.expected.extend_from_slice(piece);
        }
    }

    /// Adds what was written. Returns whether one stream is still the beginning of the other.
    pub(super) fn advance(&mut self, output: &Output) -> bool {
        self.got.append(&mut output.take());
        let pairs = self.expected.iter().zip(&self.got);
        let count = pairs.take_while(|(one, other)| one == other).count();

        self.before.extend(&self.got[..count]);
        let surplus = self.before.len().saturating_sub(BEFORE);
        self.before.drain(..surplus);
        self.expected.drain(..count);
        self.got.drain(..count);
        self.same += count as u64;
        self.expected.is_empty() || self.got.is_empty()
    }

    /// Returns whether the recorded protocol has written more.
    pub(super) fn lacks(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Returns whether the protocol has written more than the recorded one.
    pub(super) fn has_more(&self) -> bool {
        !self.got.is_empty()
    }

    /// Returns whether both streams have the same length.
    pub(super) fn is_even(&self) -> bool {
        self.expected.is_empty() && self.got.is_empty()
    }

    /// Returns at which byte of the output the streams differ.
    pub(super) fn offset(&self) -> u64 {
        self.same
    }

    /// Shows what was recorded there, and what was written.
    pub(super) fn show(&self) -> (String, String) {
        (self.excerpt(&self.expected), self.excerpt(&self.got))
    }

    fn excerpt(&self, rest: &[u8]) -> String {
        if rest.is_empty() {
            return "nothing more".to_owned();
        }
        let shown = &rest[..rest.len().min(EXCERPT)];
        let cut = if shown.len() < rest.len() { "..." } else { "" };
        let earlier = if self.same > self.before.len() as u64 {
            "..."
        } else {
            ""
        };
        let (before, shown) = (self.before.escape_ascii(), shown.escape_ascii());
        match self.before.is_empty() {
            true => format!("\"{shown}\"{cut}"),
            false => format!("\"{shown}\"{cut} after {earlier}\"{before}\""),
        }
    }
}
