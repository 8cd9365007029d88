//! Groups of WebSockets: one publishes, and every member sends the message.

use std::sync::Arc;

use serveloop::service::{Group, Lagging, Published};

use crate::deflate::Deflate;
use crate::message::Message;
use crate::outbox::framed;
use crate::transport::MessageTransport;

/// WebSockets that are sent what is published, by topic: a [`Group`] of messages.
///
/// The members may be on several loops or threads of one process. A process of its own
/// ([`serve_forking`](serveloop::Server::serve_forking)) has a group of its own. A message is put into its
/// frame once, and not copied for each member. It is also compressed once, if there are members that agreed
/// to that ([`Compression`](crate::Compression)). A WebSocket that is closed is sent nothing more.
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
pub struct MessageGroup {
    plain: Group,
    /// Members that read compressed messages. The others cannot, or only those with a short window.
    compressed: Group,
}

impl MessageGroup {
    /// Creates a group without members.
    #[must_use]
    pub fn new(lagging: Lagging) -> Self {
        Self {
            plain: Group::new(lagging),
            compressed: Group::new(lagging),
        }
    }

    /// Makes a WebSocket a member of a topic. Returns false if it was one before.
    pub fn join(&self, topic: impl AsRef<[u8]>, client: &mut MessageTransport<'_>) -> bool {
        let outbox = client.outbox();
        let group = match outbox.reads_widest() {
            true => &self.compressed,
            false => &self.plain,
        };
        group.join(topic, outbox.inner())
    }

    /// Ends the membership of the connection with this [number](MessageTransport::id). Returns false if it
    /// was no member. A connection that ends leaves by itself.
    pub fn leave(&self, topic: impl AsRef<[u8]>, id: u64) -> bool {
        self.plain.leave(&topic, id) || self.compressed.leave(&topic, id)
    }

    /// Sends a message to every member of a topic. Returns how many there are.
    pub fn publish<'m>(
        &self,
        topic: impl AsRef<[u8]>,
        message: impl Into<Message<'m>>,
    ) -> Published {
        let topic = topic.as_ref();
        self.publish_by(topic, message.into(), |group, frame| {
            group.publish(topic, frame)
        })
    }

    /// Works like [`publish`](Self::publish), for all members but the connection with this
    /// [number](MessageTransport::id), which is usually the one that publishes.
    pub fn publish_to_others<'m>(
        &self,
        topic: impl AsRef<[u8]>,
        except: u64,
        message: impl Into<Message<'m>>,
    ) -> Published {
        let topic = topic.as_ref();
        self.publish_by(topic, message.into(), |group, frame| {
            group.publish_to_others(topic, except, frame)
        })
    }

    /// Publishes to the members of each kind what they read.
    fn publish_by(
        &self,
        topic: &[u8],
        message: Message<'_>,
        publish: impl Fn(&Group, Arc<[u8]>) -> Published,
    ) -> Published {
        let plain = publish(&self.plain, framed(message, None));
        if self.compressed.members(topic) == 0 {
            return plain;
        }

        let compressed = framed(message, Some(Deflate::WIDEST));
        let compressed = publish(&self.compressed, compressed);
        Published {
            sent: plain.sent + compressed.sent,
            lagging: plain.lagging + compressed.lagging,
        }
    }

    /// Returns how many connections are members of a topic.
    #[must_use]
    pub fn members(&self, topic: impl AsRef<[u8]>) -> usize {
        self.plain.members(&topic) + self.compressed.members(&topic)
    }
}
