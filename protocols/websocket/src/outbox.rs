//! What others have for a WebSocket to send.

use std::borrow::Cow;
use std::sync::Arc;

use serveloop::Peer;
use serveloop::service::{Outbox, PostError};

use crate::close_code::CloseCode;
use crate::deflate::Deflate;
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
pub struct MessageOutbox {
    inner: Outbox,
    deflate: Option<Deflate>,
}

impl MessageOutbox {
    pub(crate) fn new(inner: Outbox, deflate: Option<Deflate>) -> Self {
        Self { inner, deflate }
    }

    pub(crate) fn inner(&self) -> &Outbox {
        &self.inner
    }

    /// Returns whether the client reads what is compressed for all.
    pub(crate) fn reads_widest(&self) -> bool {
        self.deflate.is_some_and(Deflate::reads_widest)
    }

    /// Has the WebSocket send a message after everything posted before. It is not sent if the WebSocket is
    /// closed first.
    ///
    /// # Errors
    /// [`PostError::Full`] if too much waits already; a message always fits into an empty outbox.
    /// [`PostError::Closed`] if the connection has ended.
    pub fn post<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), PostError> {
        self.inner.post(framed(message.into(), self.deflate))
    }

    /// Has the WebSocket closed after everything posted before, like [`MessageTransport::close`](crate::MessageTransport::close).
    ///
    /// # Errors
    /// Returns an error in the same cases as [`post`](Self::post). If the outbox is full,
    /// [`abort`](Self::abort) ends the connection.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), PostError> {
        let frame = CloseFrame::new(code, reason);
        self.inner.post(frame.as_bytes())
    }

    /// Ends the connection at once, without a close frame, and drops what waits.
    pub fn abort(&self) {
        self.inner.abort();
    }

    /// Returns the connection's number: [`MessageTransport::id`](crate::MessageTransport::id).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id()
    }

    /// Returns the connection's peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    /// Returns how many bytes wait here, with the headers of frames. What the connection has taken into its
    /// output does not count.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.inner.pending()
    }

    /// Returns whether nothing can be posted any more, because the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

/// Returns a message in its frame, compressed if the client agreed to that and it becomes shorter.
pub(crate) fn framed(message: Message<'_>, deflate: Option<Deflate>) -> Arc<[u8]> {
    let (header, payload) = encoded(&message, deflate);
    [header.as_bytes(), &payload].concat().into()
}

/// Returns the header and the payload of the frame in which a message is sent.
pub(crate) fn encoded<'m>(
    message: &'m Message<'_>,
    deflate: Option<Deflate>,
) -> (SentHeader, Cow<'m, [u8]>) {
    let (opcode, plain) = (message.opcode(), message.as_bytes());
    match deflate.and_then(|deflate| deflate.compress(plain)) {
        None => (SentHeader::new(opcode, plain.len()), plain.into()),
        Some(shorter) => (
            SentHeader::new(opcode, shorter.len()).compressed(),
            shorter.into(),
        ),
    }
}
