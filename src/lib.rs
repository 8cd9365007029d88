//! One thread, one loop, any protocol: the event-loop counterpart of Python's `socketserver`.
//!
//! Write a protocol once as a plain state machine ([`Protocol`]: bytes in, bytes out) and serve it
//! over TCP, UDP, Unix streams and Unix datagrams ([`Server`]). One thread serves as many
//! connections as the process has descriptors.
//!
//! ```no_run
//! use serveloop::{Config, Protocol, Result, Server, Transport};
//!
//! struct Shout;
//!
//! impl Protocol for Shout {
//!     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
//!         transport.write(&data.to_ascii_uppercase());
//!         Ok(data.len())
//!     }
//! }
//!
//! let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
//! server.serve_forever(|_| Some(Shout))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - A message may arrive in pieces. Return `Ok(0)` until it is complete, or let a
//!   [`Framing`](framing::Framing) cut the stream and write a
//!   [`FrameProtocol`](framing::FrameProtocol).
//! - Every limit and deadline is a field of [`Config`] and has a default.
#![cfg_attr(
    feature = "testing",
    doc = "- Test protocols in memory, without sockets or sleeping: [`testing`], with the feature `testing`."
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "- Test protocols in memory, without sockets or sleeping: with the feature `testing`."
)]
//! - To drive sessions without the event loop, write your own driver around
//!   [`Session`](driver::Session).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod config;
mod error;
pub mod framing;
pub mod layer;
mod models;
pub mod net;
pub mod protocols;
mod reactor;
pub mod server;
pub mod service;
mod session;
mod shutdown;
mod statistics;
mod sys;

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod waker;

pub use address::{Address, Listen, Peer};
pub use config::{Config, ConfigError, Limits};
pub use error::{CloseReason, Deadline, ProtocolError, Result};
pub use reactor::Reactor;
pub use server::Server;
pub use session::{Actions, Factory, Protocol};
pub use session::{Ended, Transport};
pub use shutdown::ShutdownHandle;
pub use statistics::Statistics;
pub use waker::Waker;

/// The target of every log line of the library, whichever module writes it. Users filter by it, so
/// it does not change when modules do.
///
/// A line about one connection has the level debug and a key `event`, which is `accepted` or
/// `ended`. An end that concerns an operator is a warning instead. An ordinary end that the peer
/// caused has no key.
pub(crate) const LOG_TARGET: &str = "serveloop";

/// Parts for writing a driver: the session that a driver moves bytes in and out of, and the values
/// that it lends to the session.
pub mod driver {
    pub use crate::session::{Buffer, Clock, Context, Driver, End, Session, Tick};
    pub use crate::waker::{Mailbox, Wake, Wakers};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/from-socketserver.md")]
struct FromSocketserver;

#[cfg(doctest)]
#[doc = include_str!("../docs/tutorials.md")]
struct Tutorials;
