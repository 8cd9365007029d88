//! A protocol whose connection is recorded.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::error::{CloseReason, Deadline, DeliveryError, ProtocolError};
use crate::service::recorder::Recorder;
use crate::service::recorder::event::{Chunk, Happening, RecordedEnd, code_of};
use crate::service::recorder::failure::RecordedFailure;
use crate::service::recorder::store::{Logger, end_of};
use crate::session::{Ended, Post, Protocol, Tick, Transport};
use crate::sys;

/// A protocol that behaves like the one inside, and whose connection is recorded: see [`Recorder`].
pub struct Recorded<P> {
    protocol: P,
    recorder: Recorder,
    logger: Option<Arc<Logger>>,
    /// How many of the bytes that it was shown it has left unread.
    left: usize,
    /// Where the last datagram ended in memory, as an address alone.
    end: Option<usize>,
    /// It has asked to be called again.
    again: bool,
}

impl<P> Recorded<P> {
    pub(super) fn new(protocol: P, recorder: Recorder) -> Self {
        Self {
            protocol,
            recorder,
            logger: None,
            left: 0,
            end: None,
            again: false,
        }
    }

    /// Returns the protocol inside.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// Calls the protocol inside, and records the call before and what it has changed after it.
    fn call<T>(
        &mut self,
        what: &Happening<'_>,
        transport: &mut Transport<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>) -> T,
    ) -> T
    where
        P: Protocol,
    {
        if let Some(logger) = &self.logger {
            logger.call(what, transport);
        }
        let returned = event(&mut self.protocol, transport);
        if let Some(logger) = &self.logger {
            // A connection that closes is not asked.
            let is_open = !transport.is_closing();
            let due = is_open.then(|| self.protocol.poll_timeout()).flatten();
            logger.note_wants(transport, due);
        }
        self.again = transport.is_called_again();
        returned
    }

    /// Shows data to the protocol inside, by one of its methods.
    fn show(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
        event: fn(&mut P, &[u8], &mut Transport<'_>) -> Result<usize, ProtocolError>,
    ) -> Result<usize, ProtocolError>
    where
        P: Protocol,
    {
        let fresh = self.fresh(data);
        let what = if fresh.length == 0 && self.left > 0 {
            Happening::ShownAgain
        } else {
            Happening::DataReceived(fresh)
        };
        self.left = data.len();
        let taken = self.call(&what, transport, |protocol, transport| {
            event(protocol, data, transport)
        })?;

        self.left = data.len().saturating_sub(taken);
        if taken != data.len() {
            if let Some(logger) = &self.logger {
                logger.note(&Happening::Took(taken as u64));
            }
        }
        Ok(taken)
    }

    /// Returns the bytes that the protocol has not been shown yet.
    fn fresh<'a>(&self, data: &'a [u8]) -> Chunk<'a> {
        Chunk::of(data.get(self.left..).unwrap_or_default())
    }
}

impl<P: Protocol> Protocol for Recorded<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        // What a process that serves one connection records would end with it.
        if !sys::is_child() {
            let logger = Arc::new(self.recorder.open(transport));
            transport.set_tap(Arc::clone(&logger) as _);
            self.logger = Some(logger);
        }
        self.call(&Happening::ConnectionMade, transport, P::connection_made)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.show(data, transport, P::data_received)
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        // What was left of an earlier datagram was dropped, unless this is the rest of it.
        let end = data.as_ptr_range().end.addr();
        let is_rest = data.len() == self.left && Some(end) == self.end;
        if !is_rest {
            self.left = 0;
        }
        let taken = self.show(data, transport, P::datagram_received)?;
        // Without having taken anything, it is not shown the rest.
        self.end = (taken > 0).then_some(end);
        Ok(taken)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        let what = Happening::EofReceived(self.fresh(unread));
        self.call(&what, transport, |protocol, transport| {
            protocol.eof_received(unread, transport)
        })
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        let what = Happening::DatagramUndelivered(RecordedFailure::of(error));
        self.call(&what, transport, |protocol, transport| {
            protocol.datagram_undelivered(error, transport);
        });
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.call(&Happening::ResumeWriting, transport, P::resume_writing);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.protocol.poll_timeout()
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.call(&Happening::HandleTimeout, transport, P::handle_timeout);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let what = Happening::Woken { asked: self.again };
        self.call(&what, transport, P::woken);
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        let what = Happening::Posted(Chunk::of(post));
        self.call(&what, transport, |protocol, transport| {
            protocol.posted(post, transport);
        });
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        let what = Happening::DeadlinePassed(deadline);
        self.call(&what, transport, |protocol, transport| {
            protocol.deadline_passed(deadline, transport);
        });
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        let text = error.to_string();
        let what = Happening::InputRejected(&text);
        self.call(&what, transport, |protocol, transport| {
            protocol.input_rejected(error, transport);
        });
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        let what = Happening::ShutdownRequested;
        self.call(&what, transport, P::shutdown_requested);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let Some(logger) = self.logger.take() else {
            return self.protocol.connection_lost(ended);
        };
        let reason = ended.reason().to_string();
        let end = RecordedEnd {
            code: code_of(ended.reason()),
            reason: &reason,
            received: ended.received(),
            sent: ended.sent(),
            unsent: ended.unsent(),
        };
        let now = end_of(ended.began(), ended.duration());
        logger.lost(&Happening::ConnectionLost(end), now);
        if matches!(ended.reason(), CloseReason::Panicked) {
            self.recorder.save_soon();
        }

        let _guard = SaveOnPanic(&self.recorder);
        self.protocol.connection_lost(ended);
    }

    fn owes_first(&self, outside: bool) -> bool {
        self.protocol.owes_first(outside)
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.protocol.catch_up(from, to);
    }

    fn needs_stream() -> bool {
        P::needs_stream()
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        self.protocol.write_end_mark(transport);
    }
}

/// Writes the record if the last call of a protocol panics.
struct SaveOnPanic<'a>(&'a Recorder);

impl Drop for SaveOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.save_soon();
        }
    }
}

impl<P: std::fmt::Debug> std::fmt::Debug for Recorded<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
