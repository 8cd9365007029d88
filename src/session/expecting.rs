//! Long input whose length the protocol knows: read straight into the session's memory, and handed over
//! by value.

use std::io;

use crate::error::ProtocolError;
use crate::session::buffer::Buffer;
use crate::session::expected::Expected;
use crate::session::state::{AGAIN, BLOCKED, EOF, EXPECTS, INCOMPLETE, PENDING, State, UNIT_ROOM};
use crate::session::{Context, HEADER_ROOM, Protocol, Session, Transport, UNIT_MOST, take};

/// Input up to this length is read as any other: a copy costs less than a read of its own.
const EXPECTED_LEAST: usize = 64 * 1024;

impl Transport<'_> {
    /// Shows nothing before `count` unread bytes are there, or the stream ends. `count` includes those
    /// that are there already, without those that this call takes. Called by a protocol that knows
    /// how long the message is of which it has seen the beginning. [`Framed`](crate::framing::Framed)
    /// does this by itself.
    ///
    /// The bytes are then read straight into the memory of the connection. It at most doubles with
    /// what arrives, so that nothing is allocated for what is merely announced, and it counts towards
    /// [`max_buffered`](crate::Config::max_buffered). The deadline of the message runs as for any
    /// other. Up to 64 KiB this does nothing, nor does it for a datagram.
    ///
    /// # Errors
    /// Returns [`ProtocolError::TooLong`] if the connection may not keep that much
    /// ([`max_frame`](crate::Limits::max_frame)).
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Counts the zeros in each message, which has its length in front.
    /// struct Zeros(u32);
    ///
    /// impl Protocol for Zeros {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         self.0 += 1;
    ///         let Some((length, rest)) = data.split_first_chunk() else {
    ///             return Ok(0);
    ///         };
    ///         let length = u32::from_be_bytes(*length) as usize;
    ///         let Some(message) = rest.get(..length) else {
    ///             transport.expect(4 + length)?;
    ///             return Ok(0);
    ///         };
    ///         let zeros = message.iter().filter(|byte| **byte == 0).count();
    ///         transport.write(format!("{zeros} zeros, in call {}\n", self.0).as_bytes());
    ///         Ok(4 + length)
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Zeros(0));
    /// session.receive(&500_000_u32.to_be_bytes());
    /// for _ in 0..500 {
    ///     session.receive(&[0; 1_000]);
    /// }
    /// assert_eq!(session.sent(), b"500000 zeros, in call 2\n");
    /// ```
    pub fn expect(&mut self, count: usize) -> Result<(), ProtocolError> {
        let limit = self.limits().max_frame;
        if count > limit.saturating_add(self.state.room_beyond_frame()) {
            let length = count as u64;
            return Err(ProtocolError::TooLong { length, limit });
        }

        if count > EXPECTED_LEAST && !self.peer().is_datagram() {
            self.state.expected_mut().count = count;
            self.state.flags.set(EXPECTS);
        }
        Ok(())
    }

    /// Counts the first `count` unread bytes, which the protocol inside does not see, towards what it
    /// expects.
    pub(crate) fn expect_behind(&mut self, count: usize) {
        if self.state.flags.any(EXPECTS) {
            self.state.expected_mut().count += count;
        }
    }

    /// Shows the protocol what arrives, although it expects more.
    pub(crate) fn expect_nothing(&mut self) {
        self.state.flags.clear(EXPECTS);
    }

    /// Has `data`, a part of what this call is shown and takes, handed over by value. In the next turn,
    /// before anything else is shown, [`woken`](Protocol::woken) is called, in which
    /// [`take_input`](Self::take_input) returns it. A second claim in the same call replaces the first.
    ///
    /// If the protocol has [expected](Self::expect) a long message, this is the memory that it was read
    /// into, and not a copy. The bytes in front of `data` are moved away, so the fastest is to take them
    /// in an earlier call.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    ///
    /// /// Keeps blocks of 100,000 bytes.
    /// struct Blocks(Vec<Vec<u8>>);
    ///
    /// impl Protocol for Blocks {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         match data.get(..100_000) {
    ///             Some(block) => transport.claim_input(block),
    ///             None => transport.expect(100_000)?,
    ///         }
    ///         Ok(if data.len() < 100_000 { 0 } else { 100_000 })
    ///     }
    ///
    ///     fn woken(&mut self, transport: &mut Transport<'_>) {
    ///         self.0.extend(transport.take_input());
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Blocks(Vec::new()));
    /// session.receive(&[b'x'; 250_000]);
    /// assert_eq!(session.protocol().0.len(), 2);
    /// ```
    pub fn claim_input(&mut self, data: &[u8]) {
        self.state.flags.set(AGAIN);
        let place = data.as_ptr_range();
        let place = place.start.addr()..place.end.addr();

        let expected = self.state.expected_mut();
        let is_shown = expected.shown.start <= place.start && place.end <= expected.shown.end;
        if is_shown && !data.is_empty() {
            expected.claimed = place;
            expected.input = None;
        } else {
            expected.claimed = 0..0;
            expected.input = Some(data.to_vec());
        }
    }

    /// Takes what was [claimed](Self::claim_input) in an earlier call, in [`woken`](Protocol::woken).
    /// What is not taken there is dropped.
    pub fn take_input(&mut self) -> Option<Vec<u8>> {
        self.state.take_claimed()
    }
}

impl State {
    fn expected_mut(&mut self) -> &mut Expected {
        self.extra().expected.get_or_insert_with(Box::default)
    }

    fn expected(&self) -> Option<&Expected> {
        self.extra.as_ref().and_then(|it| it.expected.as_deref())
    }

    /// Returns what the protocol has said, if it has, to change it.
    fn said_mut(&mut self) -> Option<&mut Expected> {
        self.extra
            .as_mut()
            .and_then(|it| it.expected.as_deref_mut())
    }

    /// Returns how many unread bytes are to be there before any are shown.
    fn expected_count(&self) -> usize {
        self.expected().map_or(0, |it| it.count)
    }

    /// Returns whether what is left waits for more, and not for its turn, of which some was not shown if
    /// `is_unseen`.
    pub(super) fn is_waiting(&mut self, is_unseen: bool) -> bool {
        if !self.flags.any(EXPECTS) || self.flags.any(BLOCKED) {
            return false;
        }
        self.expected_mut().is_seen = !is_unseen;
        true
    }

    /// Returns how many bytes may be kept besides a message.
    pub(super) fn room_beyond_frame(&self) -> usize {
        if self.flags.any(UNIT_ROOM) {
            HEADER_ROOM + UNIT_MOST
        } else {
            HEADER_ROOM
        }
    }

    /// Takes what the protocol has claimed, and forgets what it has expected if nothing is.
    pub(super) fn take_claimed(&mut self) -> Option<Vec<u8>> {
        let place = &mut self.extra.as_mut()?.expected;
        let input = place.as_mut()?.input.take();
        if !self.flags.any(EXPECTS) {
            *place = None;
        }
        input
    }

    /// Drops what the protocol has not taken, unless it has just claimed it.
    #[inline]
    pub(super) fn drop_claimed(&mut self) {
        if self.expected().is_some() && !self.flags.any(AGAIN) {
            drop(self.take_claimed());
        }
    }

    /// Returns how many bytes of memory wait to be taken.
    pub(super) fn claimed(&self) -> usize {
        let input = self.expected().and_then(|it| it.input.as_ref());
        input.map_or(0, Vec::capacity)
    }

    /// Notes that unread bytes are shown, which the protocol may claim.
    fn begin_showing(&mut self, unread: &Buffer) {
        let place = unread.as_slice().as_ptr_range();
        if let Some(expected) = self.said_mut().filter(|_| unread.is_anywhere()) {
            expected.shown = place.start.addr()..place.end.addr();
        }
    }

    /// Drops the first `taken` bytes of what was shown. What the protocol has claimed is moved out.
    fn end_showing(&mut self, unread: &mut Buffer, taken: usize) {
        let Some(expected) = self.said_mut() else {
            return unread.consume(taken);
        };

        let from = std::mem::take(&mut expected.shown).start;
        let claimed = std::mem::take(&mut expected.claimed);
        if claimed.is_empty() {
            return unread.consume(taken);
        }
        let range = claimed.start - from..claimed.end - from;
        expected.input = Some(if range.end > taken {
            let copy = unread.as_slice()[range].to_vec();
            unread.consume(taken);
            copy
        } else {
            unread.take_out(range, taken)
        });
    }
}

impl<P: Protocol> Session<P> {
    /// Returns whether the driver may read into a buffer of its own: not if the session waits for the
    /// rest of a long message, for which there is [`read_expected`](Self::read_expected).
    #[inline]
    pub(crate) fn reads_freely(&self) -> bool {
        !self.state.flags.any(BLOCKED | EOF | PENDING | EXPECTS)
    }

    /// Returns whether the session waits for the rest of a long message.
    pub(crate) fn expects(&self) -> bool {
        self.state.flags.any(EXPECTS)
    }

    /// Reads up to `most` bytes of a long message into the session's memory. The outcome is to be
    /// [handled](Self::handle_expected).
    pub(crate) fn read_expected(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let count = self.state.expected_count();
        let new = || Box::new(Buffer::anywhere());
        let unread = self.unread.get_or_insert_with(new);

        let missing = count.saturating_sub(unread.len()).clamp(1, most.max(1));
        let mut outcome = Ok(0);
        unread.push_part(missing, count, |room| {
            outcome = read(room);
            outcome.as_ref().map_or(0, |count| *count)
        });
        if unread.is_empty() {
            self.unread = None;
        }
        outcome
    }

    /// Handles `count` bytes that were read into the session's memory.
    pub(crate) fn handle_expected(&mut self, count: usize, context: &Context<'_>) {
        self.state.activity = context.clock.tick();
        self.state.received = self.state.received.wrapping_add(count as u64);
        self.show_unread(context);
    }

    /// Shows unread bytes, unless the protocol expects more. Returns whether it was shown any.
    pub(super) fn show_expected(&mut self, unread: &mut Buffer, context: &Context<'_>) -> bool {
        if self.state.flags.any(EXPECTS) {
            if unread.len() < self.state.expected_count() {
                self.owe_rest(context);
                return false;
            }
            self.state.flags.clear(EXPECTS);
        }

        self.state.begin_showing(unread);
        let most = context.config.messages_per_turn;
        let taken = self.show_by(unread.as_slice(), most, context, take);
        self.state.end_showing(unread, taken);
        true
    }

    /// Notes that the peer owes the rest of a message.
    fn owe_rest(&mut self, context: &Context<'_>) {
        if !self.state.flags.any(INCOMPLETE) {
            self.state
                .begin_message(context.clock.tick(), context.config);
        }
    }

    /// Decides what becomes of unread bytes if the protocol expects more.
    #[inline]
    pub(super) fn settle_expected(&mut self) {
        if self.expects() {
            self.place_expected();
        }
    }

    #[cold]
    fn place_expected(&mut self) {
        let (Some(expected), Some(unread)) = (self.state.expected(), &mut self.unread) else {
            return;
        };
        if unread.len() >= expected.count {
            // It is shown what it waits for, but not the same again.
            let is_news = !expected.is_seen;
            self.state.flags.clear(EXPECTS);
            self.state.flags.set(PENDING.when(is_news));
            return;
        }
        if !unread.is_anywhere() {
            let mut moved = Buffer::anywhere();
            moved.push(unread.as_slice());
            **unread = moved;
        }
    }
}
