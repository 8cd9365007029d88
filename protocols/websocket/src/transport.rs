//! A message protocol's view of its connection.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, mem};

use serveloop::{Config, Limits, Peer, ProtocolError, Transport, Waker};

use crate::close_code::CloseCode;
use crate::deflate::Deflate;
use crate::frame::{CONTROL_MOST, CloseFrame, Opcode, SentHeader};
use crate::message::Message;
use crate::outbox::{MessageOutbox, encoded};

/// A [`MessageProtocol`](crate::MessageProtocol)'s view of its WebSocket, for the duration of one call.
///
/// No method blocks or fails. Messages are sent whole, and nothing else can be written between or after
/// them: a close frame is always the last thing that a client is sent, and always sent whole.
///
/// A producer stops when the transport is full, and goes on in
/// [`resume_writing`](crate::MessageProtocol::resume_writing):
///
/// ```
/// use serveloop::Result;
/// use serveloop_websocket::{CloseCode, Message, MessageProtocol, MessageTransport};
///
/// /// Counts down from the number that the client sends.
/// struct Countdown(u32);
///
/// impl MessageProtocol for Countdown {
///     fn message_received(&mut self, message: Message<'_>, client: &mut MessageTransport<'_>) -> Result {
///         self.0 = message.len() as u32;
///         self.resume_writing(client);
///         Ok(())
///     }
///
///     fn resume_writing(&mut self, client: &mut MessageTransport<'_>) {
///         while self.0 > 0 && !client.is_full() {
///             self.0 -= 1;
///             client.send(&self.0.to_string());
///         }
///         if self.0 == 0 {
///             client.close(CloseCode::NORMAL, "done");
///         }
///     }
/// }
/// ```
pub struct MessageTransport<'a> {
    wire: &'a mut (dyn Wire + 'a),
    link: &'a mut Link,
}

/// The connection, without the lifetime that a `Transport` has besides that of its reference.
trait Wire {
    fn shared(&self) -> &Transport<'_>;
    fn call(&mut self, event: &mut dyn FnMut(&mut Transport<'_>));
}

impl Wire for Transport<'_> {
    fn shared(&self) -> &Transport<'_> {
        self
    }

    fn call(&mut self, event: &mut dyn FnMut(&mut Transport<'_>)) {
        event(self);
    }
}

/// How far the closing handshake has come.
#[derive(Debug)]
pub(crate) enum Stage {
    Open,
    /// Our close frame waits for room: more than `max_output` bytes wait already.
    Owing(Box<CloseFrame>),
    /// Our close frame is sent. The client may take until then to answer it.
    Closing {
        until: Option<Instant>,
    },
    /// Both close frames are sent, or we gave the connection up.
    Closed,
}

/// The part of a WebSocket that a [`MessageTransport`] acts on.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stage: Stage,
    close_timeout: Duration,
    /// How many bytes the protocol keeps itself.
    pub(crate) charged: usize,
    pub(crate) deflate: Option<Deflate>,
}

impl Link {
    pub(crate) fn new(close_timeout: Duration) -> Self {
        Self {
            stage: Stage::Open,
            close_timeout,
            charged: 0,
            deflate: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }
}

impl<'a> MessageTransport<'a> {
    pub(crate) fn new(transport: &'a mut Transport<'_>, link: &'a mut Link) -> Self {
        Self {
            wire: transport,
            link,
        }
    }

    /// Sends a message, after everything sent before. After [`close`](Self::close) this does nothing.
    ///
    /// While `high_water` bytes or more wait, the client's input is not read. The connection is ended with
    /// [`CloseReason::Overflow`](serveloop::CloseReason::Overflow) if more than `max_output` bytes waited
    /// before this call of the protocol, or more than `max_reply` bytes wait after it.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        if !self.link.is_open() {
            return;
        }
        let message = message.into();
        let (header, payload) = encoded(&message, self.link.deflate);
        self.write_frame(header, &payload);
    }

    /// Sends a ping. The client answers it with a pong of the same payload, which
    /// [`pong_received`](crate::MessageProtocol::pong_received) gets. Only the first 125 bytes of
    /// `payload` are sent.
    pub fn ping(&mut self, payload: &[u8]) {
        self.write(Opcode::Ping, &payload[..payload.len().min(CONTROL_MOST)]);
    }

    pub(crate) fn pong(&mut self, payload: &[u8]) {
        self.write(Opcode::Pong, payload);
    }

    /// Sends a frame, unless our close frame is sent.
    fn write(&mut self, opcode: Opcode, payload: &[u8]) {
        if !self.link.is_open() {
            return;
        }
        self.write_frame(SentHeader::new(opcode, payload.len()), payload);
    }

    fn write_frame(&mut self, header: SentHeader, payload: &[u8]) {
        self.wire.call(&mut |transport| {
            transport.write(header.as_bytes());
            transport.write(payload);
        });
    }

    /// Closes the WebSocket after everything sent before: sends a close frame, waits for the client's up
    /// to [`close_timeout`](crate::Settings::close_timeout), and ends the connection. The protocol is
    /// shown no more messages. Only the first 123 bytes of `reason` are sent, up to the last whole
    /// character. [`CloseCode::NO_STATUS`] and [`CloseCode::ABNORMAL`], which no frame may say, send none.
    /// The second call does nothing.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.link.is_open() {
            return;
        }
        let frame = CloseFrame::new(code, reason);
        if !self.has_room() {
            self.link.stage = Stage::Owing(Box::new(frame));
            return;
        }
        self.write_bytes(frame.as_bytes());
        self.await_answer();
    }

    /// Sends the close frame that waited for room.
    pub(crate) fn pay(&mut self) {
        if let Stage::Owing(frame) = mem::replace(&mut self.link.stage, Stage::Open) {
            self.write_bytes(frame.as_bytes());
            self.await_answer();
        }
    }

    /// Returns whether a call may add output without ending the connection.
    fn has_room(&self) -> bool {
        self.waiting() <= self.limits().max_output
    }

    /// Begins to wait for the client's close frame, after ours.
    pub(crate) fn await_answer(&mut self) {
        self.link.stage = Stage::Closing {
            until: self.now().checked_add(self.link.close_timeout),
        };
        // It comes after what is unread.
        self.resume_reading();
    }

    /// Sends the close frame of a connection that ends without an answer to it, unless it is sent already.
    pub(crate) fn write_close(&mut self, code: CloseCode, reason: &str) {
        if self.link.is_open() && self.has_room() {
            self.write_bytes(CloseFrame::new(code, reason).as_bytes());
        }
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        self.wire.call(&mut |transport| transport.write(bytes));
    }

    /// Ends the connection when everything sent is sent, without waiting for the client's close frame.
    pub(crate) fn end(&mut self) {
        self.link.stage = Stage::Closed;
        self.wire.call(&mut |transport| transport.close());
    }

    /// Ends the connection at once, without a close frame, and drops output that was not sent yet. The
    /// client sees a reset.
    pub fn abort(&mut self) {
        self.link.stage = Stage::Closed;
        self.wire.call(&mut |transport| transport.abort());
    }

    /// Returns whether a producer should stop until
    /// [`resume_writing`](crate::MessageProtocol::resume_writing), because too much output waits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.wire.shared().is_full()
    }

    /// Returns whether the WebSocket is about to end, so that nothing more is sent.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !self.link.is_open() || self.wire.shared().is_closing()
    }

    /// Returns how many bytes of output wait to be sent, with the headers of frames.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.wire.shared().waiting()
    }

    /// Stops showing messages until [`resume_reading`](Self::resume_reading), and slows the client down.
    /// Its pings are not answered meanwhile, and its close frame is not seen.
    pub fn pause_reading(&mut self) {
        if self.link.is_open() {
            self.wire.call(&mut |transport| transport.pause_reading());
        }
    }

    /// Shows messages again.
    pub fn resume_reading(&mut self) {
        self.wire.call(&mut |transport| transport.resume_reading());
    }

    /// Returns whether [`pause_reading`](Self::pause_reading) has paused reading.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.wire.shared().is_paused()
    }

    /// Has [`woken`](crate::MessageProtocol::woken) called in the next turn, before any more messages
    /// are shown.
    pub fn call_again(&mut self) {
        self.wire.call(&mut |transport| transport.call_again());
    }

    /// Reports that the protocol itself keeps `bytes` bytes of memory for this connection, like
    /// [`Transport::charge`]. Fragments that wait for the rest of their message are counted already.
    pub fn charge(&mut self, bytes: usize) {
        self.link.charged = bytes;
    }

    /// Returns the driver's time, which is read once per turn. It is virtual in tests.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.wire.shared().now()
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.wire.shared().peer()
    }

    /// Returns the connection's number, which no other connection of the process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.wire.shared().id()
    }

    /// Returns the configuration of the server.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.wire.shared().config()
    }

    /// Returns the limits of this connection.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.wire.shared().limits()
    }

    /// Gives this connection limits of its own from now on, like [`Transport::set_limits`].
    ///
    /// # Errors
    /// Returns an error, and changes nothing, in the same cases.
    pub fn set_limits(&mut self, limits: &Arc<Limits>) -> Result<(), ProtocolError> {
        let mut result = Ok(());
        self.wire.call(&mut |transport| {
            result = transport.set_limits(Arc::clone(limits));
        });
        Ok(result?)
    }

    /// Returns a handle that sends messages to this WebSocket from any thread.
    pub fn outbox(&mut self) -> MessageOutbox {
        let mut outbox = None;
        self.wire
            .call(&mut |transport| outbox = Some(transport.outbox()));
        MessageOutbox::new(outbox.expect("just made"), self.link.deflate)
    }

    /// Returns a handle that makes the loop call [`woken`](crate::MessageProtocol::woken), from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.wire.shared().waker()
    }
}

impl fmt::Debug for MessageTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageTransport")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
