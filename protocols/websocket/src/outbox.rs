//! What others have for a WebSocket to send.

use std::sync::Arc;

use serveloop::Peer;
use serveloop::service::{Group, Lagging, Outbox, PostError, Published};

use crate::close_code::CloseCode;
use crate::frame::{CloseFrame, SentHeader};
use crate::message::Message;
use crate::transport::MessageTransport;

/// A handle with which others, on any thread, have a WebSocket send messages
/// ([`MessageTransport::outbox`]).
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

    /// Has the WebSocket send a message after everything posted before. It is not sent if the WebSocket is
    /// closed first.
    ///
    /// # Errors
    /// [`PostError::Full`] if too much waits already; a message always fits into an empty outbox.
    /// [`PostError::Closed`] if the connection has ended.
    pub fn post<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), PostError> {
        self.0.post(framed(message.into()))
    }

    /// Has the WebSocket closed after everything posted before, like [`MessageTransport::close`].
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

    /// Returns the connection's number: [`MessageTransport::id`].
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

/// WebSockets that are sent what is published, by topic: a [`Group`] of messages.
///
/// The members may be on several loops or threads of one process. A process of its own
/// ([`serve_forking`](serveloop::Server::serve_forking)) has a group of its own. A message is put into its
/// frame once, and not copied for each member. A WebSocket that is closed is sent nothing more.
///
/// ```
/// use serveloop::Result;
/// use serveloop::service::Lagging;
/// use serveloop::testing::MemorySession;
/// use serveloop_websocket::{
///     Message, MessageGroup, MessageProtocol, MessageTransport, Settings, WebSocket,
/// };
///
/// /// Everybody reads what anybody writes.
/// struct Chat(MessageGroup);
///
/// impl MessageProtocol for Chat {
///     fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
///         self.0.join("everybody", client);
///         Ok(())
///     }
///
///     fn message_received(&mut self, message: Message<'_>, _: &mut MessageTransport<'_>) -> Result {
///         self.0.publish("everybody", message);
///         Ok(())
///     }
/// }
///
/// let group = MessageGroup::new(Lagging::DropOldest);
/// let open = || MemorySession::new(WebSocket::new(Chat(group.clone()), Settings::default()));
/// let (mut ann, mut bob) = (open(), open());
/// ann.receive(b"\x81\x85\0\0\0\0hello");
/// bob.run();
/// assert_eq!((ann.sent(), bob.sent()), (b"\x81\x05hello".to_vec(), b"\x81\x05hello".to_vec()));
/// ```
#[derive(Clone, Debug)]
pub struct MessageGroup(Group);

impl MessageGroup {
    /// Creates a group without members.
    #[must_use]
    pub fn new(lagging: Lagging) -> Self {
        Self(Group::new(lagging))
    }

    /// Makes a WebSocket a member of a topic. Returns false if it was one before.
    pub fn join(&self, topic: impl AsRef<[u8]>, client: &mut MessageTransport<'_>) -> bool {
        self.0.join(topic, &client.outbox().0)
    }

    /// Ends the membership of the connection with this [number](MessageTransport::id). Returns false if it
    /// was no member. A connection that ends leaves by itself.
    pub fn leave(&self, topic: impl AsRef<[u8]>, id: u64) -> bool {
        self.0.leave(topic, id)
    }

    /// Has every member of a topic send a message. Returns how many that are.
    pub fn publish<'m>(
        &self,
        topic: impl AsRef<[u8]>,
        message: impl Into<Message<'m>>,
    ) -> Published {
        self.0.publish(topic, framed(message.into()))
    }

    /// Works like [`publish`](Self::publish), for all members but the connection with this
    /// [number](MessageTransport::id), which is usually the one that publishes.
    pub fn publish_to_others<'m>(
        &self,
        topic: impl AsRef<[u8]>,
        except: u64,
        message: impl Into<Message<'m>>,
    ) -> Published {
        self.0
            .publish_to_others(topic, except, framed(message.into()))
    }

    /// Returns how many connections are members of a topic.
    #[must_use]
    pub fn members(&self, topic: impl AsRef<[u8]>) -> usize {
        self.0.members(topic)
    }
}

/// Returns a message in its frame.
fn framed(message: Message<'_>) -> Arc<[u8]> {
    let header = SentHeader::new(message.opcode(), message.len());
    [header.as_bytes(), message.as_bytes()].concat().into()
}
