//! WebSocket (RFC 6455) servers: a [`serveloop`] protocol.
//!
//! Write a [`MessageProtocol`]: messages in, messages out. Frames, fragments, pings, the closing
//! handshake and the limits are taken care of. It is tested without a network, and served over TCP, TLS
//! and Unix sockets, on one loop, on several, or with a thread or a process for each client.
//!
//! ```
//! use serveloop::testing::MemorySession;
//! use serveloop::{Factory, Peer, Result};
//! use serveloop_websocket::{Accept, Message, MessageProtocol, MessageTransport, Request, websocket};
//!
//! struct Shout;
//!
//! impl MessageProtocol for Shout {
//!     fn message_received(&mut self, message: Message<'_>, client: &mut MessageTransport<'_>) -> Result {
//!         match message {
//!             Message::Text(text) => client.send(&text.to_uppercase()),
//!             Message::Binary(bytes) => client.send(&bytes.to_ascii_uppercase()),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! // The factory of a server: `server.serve_forever(factory)`.
//! let mut factory = websocket(|_: &Request<'_>| Ok(Accept::new(Shout)));
//!
//! let peer = Peer::new("tcp://192.0.2.1:4711".parse()?, Some(0));
//! let mut session = MemorySession::new(factory.build_protocol(&peer).unwrap());
//! session.receive(
//!     b"GET /shout HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
//!       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
//! );
//! assert!(session.sent().starts_with(b"HTTP/1.1 101 "));
//! session.receive(b"\x81\x85\0\0\0\0hello");
//! assert_eq!(session.sent(), b"\x81\x05HELLO");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`websocket`] reads the request, and lets a closure accept or refuse it: by its path, its
//!   [`origin`](Request::origin), its subprotocols.
//! - [`MessageTransport`] sends messages and pings, and closes. Nothing can be sent after a close frame,
//!   and none is cut off.
//! - [`MessageGroup`] sends what anybody publishes to many WebSockets, and [`MessageOutbox`] to one.
//! - [`Settings`] and the [`Limits`](serveloop::Limits) of the connection have every limit and deadline.
//! - [`WebSocket`] is the protocol without the request, for connections that became a WebSocket in
//!   another way.
//!
//! # Wrong requests
//! A request is answered with an error, and the connection ends:
//!
//! | status | what is wrong |
//! |---|---|
//! | 400 | not HTTP/1.1, a missing, repeated or malformed field, a body, a line without CRLF |
//! | 405 | another method than GET |
//! | 408 | an incomplete request, after `first_message_timeout` |
//! | 426 | no request for WebSocket, or for another version than 13 |
//! | 431 | more than [`max_head`](Settings::max_head) bytes, or more than 100 fields |
//!
//! # Ends
//! The close frame of the server says why it ends:
//!
//! | code | why |
//! |---|---|
//! | 1001 | the server shuts down, or the client was idle for `idle_timeout` |
//! | 1002 | the client broke RFC 6455 |
//! | 1007 | text is not UTF-8; found within a fragment, as soon as the byte is there |
//! | 1008 | the handler returned an error, or a message took longer than `message_timeout` |
//! | 1009 | a message of more than `max_frame` bytes |
//! | 1011 | the handler failed, or a ping was not answered |
//!
//! A client that breaks the rules is disconnected after that. In other cases its close frame is awaited, up
//! to [`close_timeout`](Settings::close_timeout).
//!
//! Messages are compressed if the [`Settings`] say so and the client offers it ([`Compression`]). There are
//! no other extensions.

mod close_code;
mod deflate;
mod echo;
mod frame;
mod group;
mod handshake;
mod incoming;
mod message;
mod outbox;
mod protocol;
mod refusal;
mod request;
mod settings;
mod transport;
mod websocket;

pub use close_code::CloseCode;
pub use echo::Echo;
pub use group::MessageGroup;
pub use handshake::{Accept, Handshake, websocket, websocket_with};
pub use message::Message;
pub use outbox::MessageOutbox;
pub use protocol::MessageProtocol;
pub use refusal::Refusal;
pub use request::{Request, accept_key};
pub use settings::{Compression, Settings};
pub use transport::MessageTransport;
pub use websocket::WebSocket;

/// The target of every log line, which is the library's, so that one filter shows both.
const LOG_TARGET: &str = "serveloop";

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
