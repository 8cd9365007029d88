//! QUIC on [serveloop]: each peer's session owns the state machines of
//! [quinn-proto](quinn_proto), and echoes every bidirectional stream.
//!
//! The crate stands on the public API alone, and shows how a protocol with its own retransmission,
//! timers and flow control is put on sessions of datagrams:
//!
//! - `datagram_received` feeds the endpoint, and what it wants sent goes out by `write_datagram`.
//! - The nearest timer of all connections is what `poll_timeout` returns.
//! - No more is asked of a connection while the transport `is_full`; `resume_writing` goes on. A stream
//!   is not read while its echo cannot be written, so QUIC's own windows slow the peer down.
//! - `packet_info` tells the marks of routers that are congested (ECN), which the peer is told, and
//!   `set_ecn` marks what is sent.
//! - `confirm_address` is called when QUIC has validated the path.
//! - A shutdown, and a deadline of the server, become a CONNECTION_CLOSE.
//!
//! A session is that of one address, so a connection cannot move to another one: QUIC's
//! migration is off, and the client of such a move is told by a stateless reset.
//!
//! ```no_run
//! use quinn_proto::rustls::pki_types::pem::PemObject;
//! use quinn_proto::rustls::pki_types::{CertificateDer, PrivateKeyDer};
//! use serveloop::net::UdpOptions;
//! use serveloop::{Config, Server};
//! use serveloop_quic_echo::{EchoServer, Settings};
//!
//! let chain = CertificateDer::pem_file_iter("chain.pem")?.collect::<Result<_, _>>()?;
//! let key = PrivateKeyDer::from_pem_file("key.pem")?;
//! let echo = EchoServer::new(chain, key, &Settings::default())?;
//!
//! let udp = UdpOptions { packet_info: true, ..UdpOptions::default() };
//! let config = Config { sessions: true, udp, ..Config::default() };
//! let server = Server::bind(&["udp://0.0.0.0:4433".parse()?], config)?;
//! server.with(echo).serve_forever()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod server;
mod session;
mod streams;

pub use quinn_proto;
pub use server::{EchoServer, Settings, Validation};
pub use session::EchoSession;

/// The name of the protocol that clients ask for in the handshake.
pub const ALPN: &[u8] = b"echo";
