//! What a protocol sends without a copy, or piece by piece, and the queue in which it waits behind
//! the buffer.

use std::io::{IoSlice, Read};
use std::sync::Arc;

use crate::LOG_TARGET;
use crate::config::Config;
use crate::error::CloseReason;
use crate::session::clock::Tick;
use crate::session::queue::{Bytes, COPIED_MOST, Filled, PIECE, Queue};
use crate::session::state::{EXPANDING, FULL, MUTE, QUEUED, State, WANTED, WROTE};
use crate::session::{Buffer, Context, DATAGRAM_MOST, Protocol, Session, Transport};

impl Transport<'_> {
    /// Sends `data` like [`write`](Self::write), but keeps the `Arc` until the peer has taken all of
    /// it, instead of a copy. Several connections may send the same data. It counts in full towards
    /// [`max_buffered`](crate::Config::max_buffered) for each of them.
    ///
    /// Up to 4 KiB are copied, because that is cheaper, and so is everything for a datagram and for a
    /// connection in a layer, where it has to be transformed.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    /// use std::sync::Arc;
    ///
    /// /// Sends the same page to everybody.
    /// struct Page(Arc<[u8]>);
    ///
    /// impl Protocol for Page {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         transport.write(b"here it is: ");
    ///         transport.write_shared(Arc::clone(&self.0));
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let page: Arc<[u8]> = vec![b'x'; 100_000].into();
    /// let mut session = MemorySession::new(Page(Arc::clone(&page)));
    /// session.receive(b"?");
    /// assert_eq!(session.sent().len(), 12 + 100_000);
    /// assert_eq!(Arc::strong_count(&page), 2);
    /// ```
    pub fn write_shared(&mut self, data: impl Into<Arc<[u8]>>) {
        self.write_bytes(Bytes::Shared(data.into()));
    }

    /// Sends `data` like [`write_shared`](Self::write_shared), without a copy and without a count.
    pub fn write_static(&mut self, data: &'static [u8]) {
        self.write_bytes(Bytes::Static(data));
    }

    /// Sends `data` like [`write_shared`](Self::write_shared), and drops it when the peer has taken all
    /// of it.
    pub fn write_owned(&mut self, data: Vec<u8>) {
        self.write_bytes(Bytes::Owned(data));
    }

    /// Sends what `source` returns, until it returns 0 bytes, after everything written before. What is
    /// written later comes after it, and [`close`](Self::close) waits for its end.
    ///
    /// The source is read as there is room, up to 64 KiB at a time and
    /// [`write_per_turn`](crate::Config::write_per_turn) in a turn, so that its length does not count
    /// towards any limit. It must not block for long: it runs on the thread that serves the
    /// connection. If it has nothing for now it returns `WouldBlock`, and is read again after the
    /// connection was [woken](Self::waker). For a datagram it is read now, until the reply has
    /// 64 KiB.
    ///
    /// If the source fails or panics, the connection is ended at once, with a reset, so that the peer
    /// does not take the beginning for the whole.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, Result, Transport};
    /// use std::io::Read;
    ///
    /// /// Answers with ten million zeros.
    /// struct Zeros;
    ///
    /// impl Protocol for Zeros {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         transport.send(std::io::repeat(0).take(10_000_000));
    ///         transport.write(b"end");
    ///         transport.close();
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Zeros);
    /// session.stop_taking();
    /// session.receive(b"?");
    /// assert!(session.held() < 100_000);
    /// session.take(usize::MAX);
    /// assert_eq!(session.sent().len(), 10_000_003);
    /// ```
    pub fn send(&mut self, source: impl Read + Send + 'static) {
        if self.state.flags.any(MUTE) {
            return;
        }
        self.settle();
        self.state.flags.set(WROTE);
        let source = self.tapped(source);
        self.state.queue_mut().push_source(source);
        if self.peer().is_datagram() {
            // The datagrams in front of this one are in the buffer too.
            let most = self.state.cut_off().saturating_add(DATAGRAM_MOST);
            self.state
                .fill_with(|queue, output| queue.fill(output, most));
            self.state.drop_queue();
        } else {
            self.state.refill(self.context.config);
        }
    }

    /// Returns whether a copy of this many bytes costs less than a place in the queue.
    #[inline]
    pub(super) fn copies(&self, length: usize) -> bool {
        length <= COPIED_MOST && !self.state.flags.any(QUEUED)
    }

    pub(super) fn write_bytes(&mut self, bytes: Bytes) {
        let length = bytes.as_slice().len();
        if self.copies(length) || self.peer().is_datagram() {
            return self.write(bytes.as_slice());
        }
        if self.state.flags.any(MUTE) {
            return;
        }

        self.settle();
        self.state.flags.set(WROTE);
        self.state.note_written(bytes.as_slice());
        if self.makes_room(length) {
            self.state.queue_mut().push(bytes);
        }
    }

    /// Returns whether `length` more bytes may wait, and notes if they fill the output. If they may
    /// not, ends the connection.
    pub(super) fn makes_room(&mut self, length: usize) -> bool {
        let limits = self.limits();
        let (high_water, reply) = (limits.high_water, limits.max_reply.max(limits.max_output));
        let most = reply.min(self.context.config.max_buffered);
        let sum = self.state.waiting().saturating_add(length);

        let is_limited = !self.state.flags.any(EXPANDING);
        if is_limited && sum >= high_water && (sum > most || self.state.is_over()) {
            self.state.fail(CloseReason::Overflow);
            self.state.note_unsent(length);
            return false;
        }
        self.state.flags.set(FULL.when(sum >= high_water));
        true
    }
}

impl State {
    /// Returns the output behind the buffer.
    pub(super) fn queue(&self) -> Option<&Queue> {
        self.extra.as_ref().and_then(|extra| extra.queue.as_deref())
    }

    fn queue_mut(&mut self) -> &mut Queue {
        self.flags.set(QUEUED);
        self.extra().queue.get_or_insert_with(Box::default)
    }

    /// Appends a copy of `data` to the output.
    pub(super) fn append(&mut self, data: &[u8]) {
        if self.flags.any(QUEUED) {
            self.queue_mut().push_copy(data);
        } else {
            self.output.get_or_insert_with(Box::default).push(data);
        }
    }

    /// Returns the bytes that are next when the buffer is empty.
    #[inline]
    pub(super) fn queue_front(&self) -> &[u8] {
        if !self.flags.any(QUEUED) {
            return &[];
        }
        self.queue().map_or(&[], Queue::front)
    }

    /// Drops the output behind the buffer.
    pub(super) fn drop_queue(&mut self) {
        if self.flags.take(QUEUED) {
            let queue = self.extra.as_mut().and_then(|extra| extra.queue.take());
            queue.into_iter().for_each(|queue| queue.end());
        }
    }

    /// Notes that the peer took output, of which some is behind the buffer. Returns true if the
    /// protocol can write again after it was full.
    #[cold]
    pub(super) fn queue_sent(&mut self, count: usize, now: Tick, config: &Config) -> bool {
        let mut left = count;
        if let Some(output) = &mut self.output {
            let taken = left.min(output.len());
            output.consume(taken);
            left -= taken;
        }
        self.queue_mut().consume(left);

        self.activity = now;
        self.sent = self.sent.wrapping_add(count as u64);
        // The peer has taken what was there, whatever a source makes next.
        let resumes = self.output_moved(now, config);
        self.refill(config);
        resumes
    }

    /// Returns whether there are bytes for the peer now. Those behind a source that has none are not.
    pub(super) fn has_sendable(&self) -> bool {
        self.buffered() > 0 || !self.queue_front().is_empty()
    }

    /// Reads sources into the buffer, if everything before them was sent.
    pub(super) fn refill(&mut self, config: &Config) {
        if self.buffered() == 0 {
            let most = PIECE.min(self.limits(config).high_water);
            self.fill_with(|queue, output| queue.fill(output, most));
        }
    }

    /// Moves output from the queue into the buffer, as much as a layer is to transform at a time. If
    /// that is not all, the protocol outside is to say when there is room again.
    #[cold]
    pub(super) fn flatten(&mut self, config: &Config) {
        let most = PIECE.min(self.limits(config).high_water);
        self.fill_with(|queue, output| queue.flatten(output, most));

        let is_full = self.buffered() >= most;
        self.flags
            .set(WANTED.when(is_full && self.flags.any(QUEUED)));
    }

    fn fill_with(&mut self, fill: impl FnOnce(&mut Queue, &mut Buffer) -> Filled) {
        let Some(mut queue) = self.extra.as_mut().and_then(|extra| extra.queue.take()) else {
            return;
        };
        let outcome = fill(&mut queue, self.output.get_or_insert_with(Box::default));

        if queue.is_empty() {
            self.flags.clear(QUEUED);
        } else {
            self.extra().queue = Some(queue);
        }

        match outcome {
            Filled::Well => {}
            Filled::Failed(error) => self.fail(CloseReason::SourceFailed(error)),
            Filled::Panicked => self.fail(CloseReason::Panicked),
        }
    }

    /// Notes that the protocol closes the connection although `write_some` has not taken all.
    #[cold]
    pub(super) fn note_cut_short(&mut self) {
        self.extra().is_cut_short = true;
        // Mostly a mistake, which tests are to show.
        if cfg!(debug_assertions) {
            let id = self.peer.id();
            log::warn!(
                target: LOG_TARGET, id = id;
                "{}: closed by its protocol although write_some had no room for all: the rest is lost",
                self.peer
            );
        }
    }

    /// Notes that the peer has not taken all that is there for it.
    #[cold]
    pub(super) fn note_queue_stalled(&mut self, now: Tick) {
        if self.has_sendable() {
            self.note_stalled(now);
        }
    }
}

impl<P: Protocol> Session<P> {
    /// Returns whether there is output still to be sent: bytes that wait, or a source that has none
    /// for now. Until there is none, a driver does not end the connection.
    #[must_use]
    #[inline]
    pub fn has_output(&self) -> bool {
        self.is_queued() || !self.output().is_empty()
    }

    /// Returns the output in the buffer, which is all if nothing is queued.
    #[inline]
    pub(crate) fn buffered(&self) -> &[u8] {
        let output = self.state.output.as_ref();
        output.map_or(&[], |output| output.as_slice())
    }

    /// Returns whether output waits behind the buffer, or a source is to make some.
    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        self.state.flags.any(QUEUED)
    }

    /// Notes that the driver waits for the peer to take queued output, if there is some.
    #[cold]
    pub(crate) fn note_queue(&mut self, context: &Context<'_>) {
        self.state.note_queue_stalled(context.clock.tick());
    }

    /// Returns how many bytes of output wait, all slices together.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.waiting()
    }

    /// Puts the output that is to be sent next into `slices`, for one vectored write of up to `most`
    /// bytes. Returns how many slices and how many bytes that are.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use serveloop::driver::{Clock, Context, Mailbox, Session};
    /// # use serveloop::{Address, Config, Peer, Protocol, Result, Transport};
    /// use std::io::{IoSlice, Write};
    ///
    /// struct Long;
    ///
    /// impl Protocol for Long {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         transport.write(b"begin ");
    ///         transport.write_owned(vec![b'x'; 10_000]);
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// # let (clock, config) = (Clock::new(Instant::now()), Config::default());
    /// # let mailbox = Mailbox::new(Box::new(|| ()));
    /// # let context = &Context::new(&clock, &config, &mailbox, 0);
    /// # let peer = Peer::new(Address::Tcp(([127, 0, 0, 1], 1).into()), Some(0));
    /// let mut session = Session::new(Long, peer, clock.tick());
    /// session.handle_data(b"?", context);
    ///
    /// let mut slices = [IoSlice::new(&[]); 4];
    /// let (count, length) = session.output_slices(&mut slices, usize::MAX);
    /// assert_eq!((count, length), (2, 10_006));
    /// let mut peer = Vec::new();
    /// let written = peer.write_vectored(&slices[..count])?;
    /// session.output_sent(written, context);
    /// assert!(!session.has_output());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn output_slices<'a>(&'a self, slices: &mut [IoSlice<'a>], most: usize) -> (usize, usize) {
        let buffered = match &self.state.output {
            Some(output) => &output.as_slice()[..output.len().min(most)],
            None => &[],
        };
        let used = usize::from(!buffered.is_empty() && !slices.is_empty());
        if used > 0 {
            slices[0] = IoSlice::new(buffered);
        }

        let length = buffered.len() * used;
        let Some(queue) = self.state.queue() else {
            return (used, length);
        };
        let (more, queued) = queue.slices(&mut slices[used..], most - length);
        (used + more, length + queued)
    }
}
