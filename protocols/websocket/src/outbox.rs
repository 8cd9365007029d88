//! What others have for a WebSocket to send.

use std::sync::Arc;

use serveloop::Peer;
use serveloop::service::{Outbox, PostError};

use crate::close_code::CloseCode;
use crate::frame::{CloseFrame, SentHeader};
use crate::message::Message;

/// A handle with which others, on any thread, have a WebSocket send messages
/// ([`MessageTransport::outbox`](crate::MessageTransport::outbox)).
///
/// A message waits until the connection has room for it. At most
/// [`max_posted`](serveloop::Limits::max_posted) bytes may wait.
///
/// ```
/// use std::sync::mpsc::Sender;
///
/// use serveloop::Result;
/// use serveloop::testing::MemorySession;
/// use serveloop_websocket::{
///     CloseCode, Message, MessageOutbox, MessageProtocol, MessageTransport, Settings, WebSocket,
/// };
///
/// /// Hands its outbox out.
/// struct Listener(Sender<MessageOutbox>);
///
/// impl MessageProtocol for Listener {
///     fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
///         let _ = self.0.send(client.outbox());
///         Ok(())
///     }
///
///     fn message_received(&mut self, _: Message<'_>, _: &mut MessageTransport<'_>) -> Result {
///         Ok(())
///     }
/// }
///
/// let (sender, outboxes) = std::sync::mpsc::channel();
/// let mut session = MemorySession::new(WebSocket::new(Listener(sender), Settings::default()));
/// let outbox = outboxes.recv()?;
///
/// outbox.post("news")?;
/// outbox.close(CloseCode::GOING_AWAY, "")?;
/// session.run();
/// assert_eq!(session.sent(), b"\x81\x04news\x88\x02\x03\xe9");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MessageOutbox(Outbox);

impl MessageOutbox {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self(outbox)
    }

    pub(crate) fn inner(&self) -> &Outbox {
        &self.0
    }

    /// Has the WebSocket send a message after everything posted before. It is not sent if the WebSocket is
    /// closed first.
    ///
    /// # Errors
    /// [`PostError::Full`] if too much waits already; a message always fits into an empty outbox.
    /// [`PostError::Closed`] if the connection has ended.
    pub fn post<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), PostError> {
        self.0.post(framed(message.into()))
    }

    /// Has the WebSocket closed after everything posted before, like [`MessageTransport::close`](crate::MessageTransport::close).
    ///
    /// # Errors
    /// Returns an error in the same cases as [`post`](Self::post). If the outbox is full,
    /// [`abort`](Self::abort) ends the connection.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), PostError> {
        let frame = CloseFrame::new(code, reason);
        self.0.post(frame.as_bytes())
    }

    /// Ends the connection at once, without a close frame, and drops what waits.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Returns the connection's number: [`MessageTransport::id`](crate::MessageTransport::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Returns the connection's peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.0.peer()
    }

    /// Returns how many bytes wait here, with the headers of frames. What the connection has taken into its
    /// output does not count.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.pending()
    }

    /// Returns whether nothing can be posted any more, because the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Returns a message in its frame.
pub(crate) fn framed(message: Message<'_>) -> Arc<[u8]> {
    let header = SentHeader::new(message.opcode(), message.len());
    [header.as_bytes(), message.as_bytes()].concat().into()
}
