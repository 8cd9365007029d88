//! The record of outbound sessions of datagrams: what each has written, what of that was sent, what came
//! for it, and what of that it was shown.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::address::Address;
use crate::error::CloseReason;
use crate::session::Tap;

/// How many interrupted sends in a row allow a server to drop a datagram.
pub(super) const INTERRUPTED_MOST: u32 = 16;

/// One outbound session of datagrams.
#[derive(Debug)]
pub(super) struct OutboundRecord {
    to: Address,
    written: Arc<Written>,
    /// How many bytes of what was written may be sent or dropped, so that all calls so far are explained.
    /// A datagram whose call failed may be sent again, or be dropped.
    places: BTreeSet<usize>,
    /// How many sends in a row a signal has interrupted.
    interrupted: u32,
    /// What was received and not shown yet.
    came: VecDeque<Vec<u8>>,
    /// What of the last datagram that was shown the protocol has not taken.
    rest: Vec<u8>,
    /// How many datagrams were received and passed over.
    missed: usize,
}

/// All bytes that a session has written.
#[derive(Debug, Default)]
struct Written(Mutex<Vec<u8>>);

impl Tap for Written {
    fn wrote(&self, data: &[u8]) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(data);
    }
}

impl OutboundRecord {
    pub(super) fn new(to: Address) -> Self {
        Self {
            to,
            written: Arc::default(),
            places: BTreeSet::from([0]),
            interrupted: 0,
            came: VecDeque::new(),
            rest: Vec::new(),
            missed: 0,
        }
    }

    /// Returns what is to be shown all that the session writes.
    pub(super) fn tap(&self) -> Arc<dyn Tap> {
        Arc::clone(&self.written) as Arc<dyn Tap>
    }

    /// Records a datagram that was sent.
    ///
    /// # Errors
    /// Returns a problem if it is not the one that was written next.
    pub(super) fn note_sent(&mut self, data: &[u8]) -> Result<(), String> {
        self.interrupted = 0;
        let places = self.places_behind(data);
        if places.is_empty() {
            let (to, data) = (&self.to, data.escape_ascii());
            return Err(format!(
                "{to}: \"{data}\" was sent, which was not written, or was sent before"
            ));
        }
        self.places = places;
        Ok(())
    }

    /// Records a datagram whose call failed, so that it may be dropped.
    pub(super) fn note_failed(&mut self, data: &[u8], error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => return,
            ErrorKind::Interrupted => self.interrupted += 1,
            _ => self.interrupted = INTERRUPTED_MOST,
        }
        if self.interrupted >= INTERRUPTED_MOST {
            self.places.append(&mut self.places_behind(data));
        }
    }

    /// Returns where `data` ends, wherever it may have been written.
    fn places_behind(&self, data: &[u8]) -> BTreeSet<usize> {
        let written = self.written.0.lock();
        let written = written.unwrap_or_else(PoisonError::into_inner);
        let begins = |place: &&usize| written[**place..].starts_with(data);
        let behind = self.places.iter().filter(begins);
        behind.map(|place| place + data.len()).collect()
    }

    /// Records a datagram that the loop has received.
    pub(super) fn note_came(&mut self, data: Vec<u8>) {
        self.came.push_back(data);
    }

    /// Records a datagram, or the rest of one, that the protocol is shown.
    ///
    /// # Errors
    /// Returns a problem if nothing like it has come, or it was shown before.
    pub(super) fn note_shown(&mut self, data: &[u8]) -> Result<(), String> {
        if !data.is_empty() && self.rest == data {
            return Ok(());
        }
        let Some(passed) = self.came.iter().position(|came| came == data) else {
            let (to, data) = (&self.to, data.escape_ascii());
            return Err(format!(
                "{to}: \"{data}\" was shown, which did not come, or was shown before"
            ));
        };
        self.missed += passed;
        self.came.drain(..=passed);
        self.rest = data.to_vec();
        Ok(())
    }

    /// Records how much of what it was shown the protocol has taken.
    pub(super) fn note_taken(&mut self, count: usize) {
        self.rest.drain(..count.min(self.rest.len()));
    }

    /// Checks that all was sent, if the session has ended in order.
    ///
    /// # Errors
    /// Returns a problem if something was not.
    pub(super) fn note_lost(&mut self, reason: &CloseReason) -> Result<(), String> {
        self.missed += std::mem::take(&mut self.came).len();
        let in_order = matches!(
            reason,
            CloseReason::Closed | CloseReason::PeerClosed | CloseReason::Shutdown
        );
        let written = self.written.0.lock();
        let written = written.unwrap_or_else(PoisonError::into_inner).len();
        if in_order && !self.places.contains(&written) {
            let sent = self.places.last().copied().unwrap_or(0);
            let to = &self.to;
            return Err(format!(
                "{to}: {reason}, with {written} bytes written and {sent} sent or dropped"
            ));
        }
        Ok(())
    }

    /// Returns how many datagrams were received that the protocol was not shown.
    pub(super) fn missed(&self) -> usize {
        self.missed + self.came.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(written: &[u8]) -> OutboundRecord {
        let record = OutboundRecord::new("udp://10.0.2.2:53".parse().unwrap());
        record.tap().wrote(written);
        record
    }

    fn failed(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn each_datagram_is_sent_once_and_in_order() {
        let mut it = record(b"onetwotwo");
        it.note_sent(b"one").unwrap();
        it.note_sent(b"one").unwrap_err();
        it.note_sent(b"two").unwrap();
        it.note_lost(&CloseReason::Closed).unwrap_err();
        it.note_sent(b"two").unwrap();
        it.note_sent(b"two").unwrap_err();
        it.note_sent(b"").unwrap();
        it.note_lost(&CloseReason::Closed).unwrap();
        record(b"one").note_sent(b"two").unwrap_err();
    }

    #[test]
    fn what_fails_may_be_sent_again_or_be_dropped() {
        for number in [libc::EPERM, libc::EMSGSIZE] {
            let mut it = record(b"onetwo");
            it.note_failed(b"one", &failed(number));
            it.note_failed(b"one", &failed(number));
            let mut dropped = record(b"onetwo");
            dropped.places.clone_from(&it.places);
            it.note_sent(b"one").unwrap();
            it.note_lost(&CloseReason::Closed).unwrap_err();
            dropped.note_sent(b"two").unwrap();
            dropped.note_lost(&CloseReason::Closed).unwrap();
        }
        let mut it = record(b"onetwo");
        it.note_failed(b"one", &failed(libc::EAGAIN));
        for _ in 1..INTERRUPTED_MOST {
            it.note_failed(b"one", &failed(libc::EINTR));
        }
        it.note_sent(b"two").unwrap_err();
        let mut it = record(b"onetwo");
        for _ in 0..INTERRUPTED_MOST {
            it.note_failed(b"one", &failed(libc::EINTR));
        }
        it.note_sent(b"two").unwrap();
    }

    #[test]
    fn each_datagram_is_shown_once_or_missed() {
        let mut it = record(b"");
        for came in ["one", "two", "three", "one"] {
            it.note_came(came.into());
        }
        it.note_shown(b"one").unwrap();
        it.note_taken(1);
        it.note_shown(b"ne").unwrap();
        it.note_taken(2);
        it.note_shown(b"ne").unwrap_err();
        it.note_shown(b"three").unwrap();
        it.note_shown(b"two").unwrap_err();
        assert_eq!(it.missed(), 2);
        it.note_lost(&CloseReason::Aborted).unwrap();
        assert_eq!(it.missed(), 2);
    }
}
