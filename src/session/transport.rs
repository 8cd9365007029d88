//! What a protocol can do with its connection.

use std::time::Instant;
use std::{fmt, io};

use crate::address::Peer;
use crate::config::Config;
use crate::error::CloseReason;
use crate::session::clock::Clock;
use crate::session::state::{CLOSING, FINISHED, FULL, MUTE, PAUSED, State, WANTED, WROTE};
use crate::waker::{Waker, Wakers};

/// What a driver lends a session for one call.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The driver's time.
    pub clock: &'a Clock,
    /// The limits in force.
    pub config: &'a Config,
    /// What makes wakers.
    pub wakers: &'a dyn Wakers,
    /// What the driver knows the session by; a waker carries it.
    pub id: usize,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A protocol's view of its connection, for the duration of one call.
///
/// Nothing here blocks or fails: output waits in memory until the socket takes it, and failures are
/// told by [`connection_lost`](crate::Protocol::connection_lost).
pub struct Transport<'a> {
    pub(super) state: &'a mut State,
    pub(super) context: &'a Context<'a>,
}

impl Transport<'_> {
    /// The same transport for a shorter time.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Transport<'_> {
        Transport {
            state: self.state,
            context: self.context,
        }
    }

    /// Sends `data` after all that was written before; on a datagram it becomes part of the one
    /// reply. Written data is sent together at the end of the turn.
    ///
    /// When `high_water` bytes wait, the peer's input is no longer read; when more than
    /// `max_output` would, the connection is ended with [`CloseReason::Overflow`]. After
    /// [`close`](Self::close) or [`finish`](Self::finish) writing does nothing.
    #[inline]
    pub fn write(&mut self, data: &[u8]) {
        if self.state.flags.any(MUTE) {
            return;
        }
        self.state.flags.set(WROTE);
        let output = self.state.output.get_or_insert_with(Box::default);
        if output.len() + data.len() >= self.context.config.high_water {
            return self.write_beyond_mark(data);
        }
        output.push(data);
    }

    /// Sends as much of `data` as there is room for below `high_water`, and says how much; if that
    /// is not all, [`resume_writing`](crate::Protocol::resume_writing) is called when waiting output
    /// has fallen to `low_water`.
    ///
    /// Unlike [`write`](Self::write) it never stops the peer's input. That is for a relay: its peer
    /// may take no more output before it has got rid of its own. After [`close`](Self::close) or
    /// [`finish`](Self::finish) everything is taken and nothing sent.
    pub fn write_some(&mut self, data: &[u8]) -> usize {
        if self.state.flags.any(MUTE) {
            return data.len();
        }
        self.state.flags.set(WROTE);
        let output = self.state.output.get_or_insert_with(Box::default);
        let room = self.context.config.high_water.saturating_sub(output.len());
        if data.len() > room {
            self.state.flags.set(WANTED);
        }
        let data = &data[..data.len().min(room)];
        output.push(data);
        data.len()
    }

    #[cold]
    fn write_beyond_mark(&mut self, data: &[u8]) {
        let output = self.state.output.get_or_insert_with(Box::default);
        if output.len() + data.len() > self.context.config.max_output {
            return self.state.fail(CloseReason::Overflow);
        }
        output.push(data);
        self.state.flags.set(FULL);
    }

    /// Ends the connection when all that was written is sent; no more input is shown. The peer
    /// sees the end of the stream.
    pub fn close(&mut self) {
        self.state.close();
    }

    /// Ends our side of the stream alone, when all that was written is sent: the peer sees its end,
    /// and what the peer sends is still shown, until it ends its side too.
    pub fn finish(&mut self) {
        self.state.flags.set(FINISHED);
    }

    /// Ends the connection at once and drops what was not sent yet; the peer of a TCP connection
    /// sees a reset.
    pub fn abort(&mut self) {
        self.state.fail(CloseReason::Aborted);
    }

    /// No input, and no end of the stream, is shown until [`resume_reading`](Self::resume_reading).
    /// Nothing is lost: unread bytes are kept, and the peer is slowed down.
    pub fn pause_reading(&mut self) {
        self.state.flags.set(PAUSED);
    }

    /// Input is shown again, beginning with what was unread, without waiting for more.
    pub fn resume_reading(&mut self) {
        self.state.unblock(PAUSED, self.context.clock.tick());
    }

    /// Whether reading was paused by [`pause_reading`](Self::pause_reading).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.flags.any(PAUSED)
    }

    /// Whether so much output waits that a producer should stop until
    /// [`resume_writing`](crate::Protocol::resume_writing).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state.flags.any(FULL)
    }

    /// Whether the connection is about to end: closed, aborted, or failed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.state.flags.any(CLOSING)
    }

    /// Says that the protocol itself keeps `bytes` bytes of memory for this connection, in a queue or a
    /// cache of its own: they count like unread input and waiting output in what
    /// [`max_buffered`](crate::Config::max_buffered) limits, and a connection that keeps the most is
    /// the first to be [shed](crate::CloseReason::Shed).
    ///
    /// Sets the whole amount, replacing the one before, so that nothing can be added twice or
    /// forgotten: call it whenever the amount has changed, with 0 when nothing is kept any more. It
    /// starts at 0 and ends with the connection by itself. It counts from the end of the turn, on a
    /// thread or in a process of the connection's own from the end of the call. More than 4 GiB count
    /// as 4 GiB; for a datagram, which ends at once, it does nothing.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Protocol, ProtocolError, Transport};
    ///
    /// /// Keeps what comes for others that will ask for it.
    /// #[derive(Default)]
    /// struct Shelf(Vec<Vec<u8>>, usize);
    ///
    /// impl Protocol for Shelf {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize, ProtocolError> {
    ///         self.0.push(data.to_vec());
    ///         self.1 += data.len();
    ///         transport.charge(self.1);
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let mut session = MemorySession::new(Shelf::default());
    /// session.receive(b"good");
    /// session.receive(b"morning");
    /// assert_eq!(session.held(), 11);
    /// session.receive_eof();
    /// assert_eq!(session.held(), 0);
    /// ```
    pub fn charge(&mut self, bytes: usize) {
        self.state.charge(bytes);
    }

    /// How many bytes of output wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.output.as_ref().map_or(0, |output| output.len())
    }

    /// The driver's time, read once a turn. Virtual in tests.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.context.clock.now()
    }

    /// The other side.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.state.peer
    }

    /// The limits in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.context.config
    }

    /// A handle by which other threads, connections or processes have
    /// [`woken`](crate::Protocol::woken) called on this session. A datagram's session ends at once,
    /// so its waker does nothing.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.context.wakers.waker(self.context.id)
    }
}

impl io::Write for Transport<'_> {
    /// As [`Transport::write`]; never fails and always takes everything.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Transport::write(self, data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("link", &self.state)
            .finish_non_exhaustive()
    }
}
