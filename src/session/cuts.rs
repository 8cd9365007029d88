//! How the output of a datagram's session is cut into datagrams.
//!
//! What is written in one event is one datagram, unless the protocol asks for several. Only a session
//! with more than one datagram in its output stores where they end.

use std::collections::VecDeque;

use crate::session::state::{LASTING, State, WROTE};
use crate::session::{Context, Protocol, Session, Transport};

/// The lengths of the complete datagrams at the front of the output.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    lengths: VecDeque<usize>,
    sum: usize,
}

impl Transport<'_> {
    /// Sends `data` as a datagram of its own, before what is written next. Without this, everything
    /// that is written in one event becomes one datagram. For a stream it works like
    /// [`write`](Self::write).
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Answers each word of a datagram with a datagram.
    /// struct Words;
    ///
    /// impl Protocol for Words {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         for word in data.split(|byte| *byte == b' ') {
    ///             transport.write_datagram(word);
    ///         }
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::datagrams(Words);
    /// session.receive_datagram(b"to be");
    /// assert_eq!(session.take_datagrams(), [b"to", b"be"]);
    /// ```
    pub fn write_datagram(&mut self, data: &[u8]) {
        if !self.peer().is_datagram() {
            return self.write(data);
        }
        self.state.cut();
        self.write(data);
        self.state.cut();
    }

    /// Returns whether this is the session of a single datagram, which ends at once: nothing can be
    /// sent later, and no waker, outbox or timer has an effect. False for a connection, and for a
    /// session of a peer's datagrams ([`Config::sessions`](crate::Config::sessions)).
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        self.peer().is_datagram() && !self.state.flags.any(LASTING)
    }
}

impl State {
    fn cuts(&self) -> Option<&Cuts> {
        self.extra.as_ref()?.cuts.as_deref()
    }

    /// Ends the datagram that was begun, if one was.
    pub(super) fn cut(&mut self) {
        if !self.flags.take(WROTE) {
            return;
        }
        let buffered = self.buffered();
        let cuts = self.extra().cuts.get_or_insert_with(Box::default);
        cuts.lengths.push_back(buffered - cuts.sum);
        cuts.sum = buffered;
    }

    /// Works like `cut`, if the peer's is the session of a datagram.
    pub(super) fn cut_datagram(&mut self) {
        if self.peer.is_datagram() {
            self.cut();
        }
    }

    /// Notes that the first datagram has left the output.
    fn uncut(&mut self) {
        let cuts = self.extra.as_mut().and_then(|extra| extra.cuts.as_mut());
        match cuts.and_then(|cuts| Some((cuts.lengths.pop_front()?, cuts))) {
            Some((length, cuts)) => cuts.sum -= length,
            None => self.flags.clear(WROTE),
        }
    }
}

impl<P: Protocol> Session<P> {
    /// Returns the datagram that is to be sent next.
    pub(crate) fn next_datagram(&self) -> Option<&[u8]> {
        let output = self.buffered();
        match self.state.cuts().and_then(|cuts| cuts.lengths.front()) {
            Some(length) => Some(&output[..*length]),
            None => self.state.flags.any(WROTE).then_some(output),
        }
    }

    /// Notes that the next datagram, of `length` bytes, was sent.
    pub(crate) fn datagram_sent(&mut self, length: usize, context: &Context<'_>) {
        self.state.uncut();
        self.output_sent(length, context);
    }

    /// Notes that the next datagram, of `length` bytes, is not sent at all.
    pub(crate) fn datagram_dropped(&mut self, length: usize, context: &Context<'_>) {
        let sent = self.state.sent;
        self.datagram_sent(length, context);
        self.state.sent = sent;
    }

    /// Ends the datagram that was begun, because it has to wait, and what is written later is not to
    /// become a part of it.
    pub(crate) fn cut(&mut self) {
        self.state.cut();
    }
}
