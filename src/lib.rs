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
//! # Map by task
//!
//! | to | use |
//! |---|---|
//! | write a protocol over bytes | [`Protocol`], which responds through a [`Transport`] |
//! | write one over lines or other messages | [`framing::FrameProtocol`] in a [`framing::Framed`] |
//! | serve it | [`Server`]: one loop, several, threads, processes, one at a time |
//! | make protocols, work at intervals, hear of errors | [`Factory`], with [`Actions`] |
//! | stop | [`ShutdownHandle`] |
//! | change a limit or a deadline | [`Config`] of a server, [`Limits`] of a connection |
//! | say where to listen | [`Address`], [`Listen`] with options of a listener |
//! | know who a client is | [`Peer`] |
//! | know why a connection ended | [`CloseReason`] in [`Ended`]; [`Statistics`] counts them |
//! | end a connection with an error | [`ProtocolError`], or `?` |
//! | send from another thread | [`Transport::outbox`], [`service::Outbox`] |
//! | send to many | [`service::Group`] |
//! | do work that blocks | [`service::Offload`] |
//! | keep several deadlines | [`service::Deadlines`] |
//! | connect to others | [`Reactor::connect`], [`Actions::connect`] |
//! | add TLS, PROXY headers, rates | [`layer`] |
//! | run under systemd | [`service::activation`], [`service::notify`] |
//! | watch a running server | [`Server::monitor`], [`service::metrics`] |
//! | keep what came and went | [`service::recorder`] |
//! | embed the loop in another one | [`Reactor`] |
//! | drive sessions without the loop | [`driver::Session`] |
//! | replace the network | [`net::Net`] |
#![cfg_attr(
    feature = "testing",
    doc = "| test without sockets or sleeping | [`testing`] |"
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "| test without sockets or sleeping | `testing`, with the feature `testing` |"
)]
#![cfg_attr(
    any(doc, doctest),
    doc = "| read how it fits together | [`guide`], and its [`cookbook`](guide::cookbook) |"
)]
//!
//! A message may arrive in pieces: a protocol returns `Ok(0)` until it is complete, or lets a framing
//! cut the stream. Every limit and deadline has a default and is on.
//!
//! # Features
//!
//! - `testing`: sessions and servers in memory, the split checker, the simulated network. For
//!   `[dev-dependencies]`.
//! - `tls`: TLS for servers and clients, by rustls. It needs a C compiler.

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
/// The lines about a connection have a key `event`, which is `accepted` or `ended`, so that each
/// beginning has its end. Their level is debug, and that of an end which concerns an operator warn.
pub(crate) const LOG_TARGET: &str = "serveloop";

/// Parts for writing a driver: the session that a driver moves bytes in and out of, and the values
/// that it lends to the session.
pub mod driver {
    pub use crate::session::{Buffer, Clock, Context, Driver, End, Session, Tick};
    pub use crate::waker::{Mailbox, Wake, Wakers};
}

#[cfg(any(doc, doctest))]
#[cfg_attr(docsrs, doc(auto_cfg(hide(doc, doctest))))]
pub mod guide {
    //! The guide, a page for each subject, with code that runs. Also as a book: `mdbook serve docs`.
    //!
    //! - Writing a protocol: [a protocol](protocol), [framing], [time](mod@time),
    //!   [backpressure and producers](backpressure), [shared state, outboxes and groups](sharing),
    //!   [work that blocks](blocking), [outbound connections](outbound), [layers], [datagrams],
    //!   [testing].
    //! - Running a server: [choosing a model](models), [limits], [operations],
    //!   [writing a driver](driver).
    //! - The [cookbook] has twenty recipes.
    //! - Coming from [tokio](from_tokio) or from [mio](from_mio).

    /// Where the links of the pages lead here. In the files they lead to other files, and the first
    /// definition of a link counts.
    macro_rules! links {
        () => {
            "\
[protocol.md]: crate::guide::protocol
[framing.md]: crate::guide::framing
[time.md]: crate::guide::time
[backpressure.md]: crate::guide::backpressure
[sharing.md]: crate::guide::sharing
[blocking.md]: crate::guide::blocking
[outbound.md]: crate::guide::outbound
[layers.md]: crate::guide::layers
[datagrams.md]: crate::guide::datagrams
[testing.md]: crate::guide::testing
[models.md]: crate::guide::models
[limits.md]: crate::guide::limits
[operations.md]: crate::guide::operations
[driver.md]: crate::guide::driver
[guide/protocol.md]: crate::guide
[../cookbook.md]: crate::guide::cookbook
[../BENCHMARKS.md]: https://docs.rs/crate/serveloop/latest/source/docs/BENCHMARKS.md
[../operations.md]: https://docs.rs/crate/serveloop/latest/source/docs/operations.md
"
        };
    }

    macro_rules! pages {
        ($($name:ident: $file:literal;)*) => {
            $(
                #[doc = links!()]
                #[doc = include_str!(concat!("../docs/", $file))]
                pub mod $name {}
            )*
        };
    }

    pages! {
        protocol: "guide/protocol.md";
        framing: "guide/framing.md";
        time: "guide/time.md";
        backpressure: "guide/backpressure.md";
        sharing: "guide/sharing.md";
        blocking: "guide/blocking.md";
        outbound: "guide/outbound.md";
        layers: "guide/layers.md";
        datagrams: "guide/datagrams.md";
        testing: "guide/testing.md";
        models: "guide/models.md";
        limits: "guide/limits.md";
        operations: "guide/operations.md";
        driver: "guide/driver.md";
        cookbook: "cookbook.md";
        from_tokio: "from-tokio.md";
        from_mio: "from-mio.md";
    }
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
