//! One thread, one loop, any protocol: the event-loop counterpart of Python's `socketserver`.
//!
//! Write a protocol once as a plain state machine ([`Protocol`]: bytes in, bytes out) and serve it
//! over TCP, UDP, Unix streams and Unix datagrams ([`Server`]), for as many connections as there are
//! descriptors, on one thread.
//!
//! ```no_run
//! use serveloop::{Config, Peer, Protocol, ProtocolError, Server, Transport};
//!
//! struct Shout;
//!
//! impl Protocol for Shout {
//!     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize, ProtocolError> {
//!         transport.write(&data.to_ascii_uppercase());
//!         Ok(data.len())
//!     }
//! }
//!
//! let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
//! server.serve_forever(|_: &Peer| Some(Shout))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - A message may arrive in pieces: return `Ok(0)` until it is complete, or let a [`Framing`] cut
//!   the stream and write a [`FrameProtocol`].
//! - Every limit and deadline is a field of [`Config`], on from the start.
//! - Test protocols in memory, without sockets or sleeping: [`testing`].
//! - Sessions without the loop, for a driver of your own: [`Session`].

mod acceptor;
mod address;
mod admission;
mod agenda;
mod bell;
mod blocking;
mod buffer;
mod clock;
mod config;
mod connection;
mod control;
mod datagram;
mod destination;
mod ending;
mod error;
mod flags;
mod forking;
mod framed;
mod framing;
mod guard;
mod intake;
mod journal;
mod linger;
mod link;
mod listener;
mod mio;
mod model;
mod net;
mod origin;
mod peers;
mod protocol;
pub mod protocols;
mod reactor;
mod replies;
mod report;
mod responder;
mod sequential;
mod server;
mod session;
mod shutdown;
mod simulation;
mod socket;
mod socket_file;
mod spin;
mod statistics;
mod system;
mod table;

pub mod testing;
mod threading;
mod throttle;
mod timers;
mod transport;
mod turn;
mod waker;
mod workers;

pub use self::mio::{Datagram, Listener, Mio};
pub use address::{Address, AddressError, Peer};
pub use buffer::Buffer;
pub use clock::{Clock, Tick};
pub use config::Config;
pub use error::{CloseReason, Deadline, ProtocolError};
pub use framed::{FrameProtocol, Framed, Frames};
pub use framing::{ByteOrder, Delimited, Frame, Framing, LengthPrefix, Lines};
pub use net::{Event, Net};
pub use protocol::{Actions, Factory, Protocol};
pub use reactor::Reactor;
pub use server::Server;
pub use session::Session;
pub use shutdown::ShutdownHandle;
pub use statistics::Statistics;
pub use transport::{Context, Transport};
pub use waker::{Mailbox, Wake, Waker, Wakers};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/from-socketserver.md")]
struct FromSocketserver;

#[cfg(doctest)]
#[doc = include_str!("../docs/tutorials.md")]
struct Tutorials;
