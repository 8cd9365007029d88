//! TLS 1.2 and 1.3 for servers and clients, as a [layer](crate::layer). With the feature `tls`.
//!
//! A server in ten lines. The protocol inside is the same as without TLS:
//!
//! ```no_run
//! use serveloop::layer::layered;
//! use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
//! use serveloop::protocols::Echo;
//! use serveloop::{Config, Limits, Peer, Server};
//!
//! let tls = ServerTls::builder()
//!     .certificate("cert.pem", "key.pem")
//!     .build()?;
//! let server = Server::bind(&["tcp://127.0.0.1:8443".parse()?], Config::default())?;
//! server.serve_forever(layered(
//!     move |_: &Peer| Some(Tls::server(&tls)),
//!     |_: &Peer, _: &TlsInfo| Some(Echo),
//! ))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To try it, make a certificate, start the server and type into a client:
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//!     -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
//! openssl s_client -connect 127.0.0.1:8443 -servername localhost -CAfile cert.pem
//! ```
//!
//! - [`ServerTls`] configures a server: certificates by name, application protocols (ALPN), client
//!   certificates, and [`reload`](ServerTls::reload) for new files.
//! - [`ClientTls`] configures a client: the authorities that it trusts, and its own certificate.
//!   [`Layered::around`](crate::layer::Layered::around) puts its protocol into [`Tls::client`].
//! - [`TlsInfo`] is what the handshake has shown. The protocol inside is made from it, so it can
//!   depend on the name that the client asked for, on ALPN, or on the client's certificate.
//!
//! # Limits
//!
//! - TLS needs streams. A server with a datagram socket refuses to begin.
//! - [`handshake_timeout`](crate::Limits::handshake_timeout) ends a connection whose handshake takes
//!   too long.
//! - A handshake costs a server about 1.3 million instructions, as much as 240 short messages: 0.15 ms
//!   with an ECDSA key, 0.7 ms with an RSA key of 2,048 bits. The loop goes on with a few in
//!   each turn ([`handshakes_per_turn`](crate::Config::handshakes_per_turn)), so that a crowd of new
//!   clients does not make others wait. `max_per_peer` limits how many connections one peer has.
//! - A record has at most 16 KiB of plain bytes, whatever `max_frame` is. `max_output` and the water
//!   marks count encrypted bytes; the certificates of a handshake have to fit into `max_output`. What
//!   encryption adds to bytes that had room never ends a connection.
//! - An idle connection has about 3 KiB of rustls's state, and no buffer.
//!
//! # The end of a stream
//!
//! `close` and `finish` send `close_notify`. The peer's `close_notify` is the end of the stream for
//! the protocol inside (`eof_received`). If the connection ends without one, an attacker may have
//! cut it short, so it ends with [`CloseReason::Truncated`](crate::CloseReason::Truncated), and
//! `eof_received` is not called. That is not an error, because many clients do it every day.
//!
//! A connection that a deadline ends, such as `idle_timeout` or `drain_timeout`, or that is shed or
//! refused after its handshake, sends `close_notify` too. There is one attempt, which waits for nothing,
//! and none while output waits: bytes are missing then, and the peer sees a truncation. Nor is there
//! one after `write_timeout`, an abort, or a failure.
//!
//! # What is refused
//!
//! Renegotiation (TLS 1.2), early data (TLS 1.3), compression, versions before 1.2, and everything
//! else that [rustls] refuses. A peer that violates TLS gets an alert, and its connection ends with
//! a [protocol error](crate::CloseReason::Protocol) that holds a [`TlsError`]. For a few violations
//! rustls has no alert, for example for a handshake message of more than 64 KiB, or one with other
//! records between its parts. Those connections end without one.
//!
//! Certificates and tickets are checked against the calendar, which rustls reads itself. It is the
//! only clock that a session in memory cannot set.

mod certificates;
mod client;
mod error;
mod info;
mod listed;
mod pem;
mod records;
mod server;
mod x509;

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, HandshakeKind};

use crate::address::Address;
use crate::error::ProtocolError;
use crate::layer::{Layer, Received, Wire, WireEnd};

use self::certificates::Selection;
use self::records::{Connection, HEADER, Records};

pub use self::client::{ClientTls, ClientTlsBuilder};
pub use self::error::TlsError;
pub use self::info::{TlsInfo, TlsVersion};
pub use self::pem::Pem;
pub use self::server::{ClientCertificates, ServerTls, ServerTlsBuilder};
/// The version of rustls that [`ServerTls::from_rustls`] and [`ClientTls::from_rustls`] take.
pub use rustls;

/// The type of a record that no connection here allows (RFC 6520).
const HEARTBEAT: u8 = 24;

/// The most bytes of a record after its header, in any version of TLS.
const RECORD_MOST: usize = 16 * 1024 + 2 * 1024;

/// TLS on one connection.
///
/// [`layered`](crate::layer::layered) and [`Layered`](crate::layer::Layered) put protocols into it;
/// see the [module](self) for a server.
///
/// A client that sends a line and reads the answer:
///
/// ```no_run
/// use serveloop::layer::Layered;
/// use serveloop::layer::tls::{ClientTls, Tls};
/// use serveloop::{Protocol, Result, Transport};
///
/// struct Ask;
///
/// impl Protocol for Ask {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         transport.write(b"hello\n");
///         Ok(())
///     }
///
///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
///         println!("{}", data.escape_ascii());
///         transport.close();
///         Ok(data.len())
///     }
/// }
///
/// let tls = ClientTls::builder().roots("ca.pem").build()?;
/// let protocol = Layered::around(Tls::client(&tls, "localhost")?, Ask);
/// # drop(protocol);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tls(Box<State>);

/// What a connection keeps. rustls's part is more than 1 KiB, so it is in a box.
struct State {
    records: Records,
    /// Knows the name that the client asked for. On a server, until the handshake is done.
    selection: Option<Arc<Selection>>,
    /// The name that the client asks for. On a client, until the handshake is done.
    asked: Option<Box<str>>,
    progress: Progress,
}

/// How far the peer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Not a byte has arrived.
    Silent,
    /// The first record is not complete.
    Begun,
    Talking,
    /// The peer has sent `close_notify`.
    Ended,
}

impl Tls {
    /// Creates the server's side of a connection.
    #[must_use]
    pub fn server(config: &ServerTls) -> Self {
        let (config, selection) = config.connection();
        let connection = UnbufferedServerConnection::new(config);
        let connection = connection.expect("the configuration was tried when it was made");
        Self::new(Connection::Server(connection), Some(selection), None)
    }

    /// Creates the client's side of a connection to the server `name`, a host name or an IP address.
    /// The server's certificate has to be valid for it, unless `config` is insecure.
    ///
    /// # Errors
    /// Returns an error if `name` is neither a host name nor an IP address.
    pub fn client(config: &ClientTls, name: &str) -> Result<Self, TlsError> {
        let bad = |_| TlsError::new(format!("{name:?} is no name of a server"));
        let asked = ServerName::try_from(name.to_owned()).map_err(bad)?;
        let connection = UnbufferedClientConnection::new(config.config(), asked)
            .map_err(|error| TlsError::of(format!("TLS to {name}"), error))?;
        Ok(Self::new(
            Connection::Client(connection),
            None,
            Some(name.into()),
        ))
    }

    fn new(
        connection: Connection,
        selection: Option<Arc<Selection>>,
        asked: Option<Box<str>>,
    ) -> Self {
        Self(Box::new(State {
            records: Records::new(connection),
            selection,
            asked,
            progress: Progress::Silent,
        }))
    }
}

impl Layer for Tls {
    type Info = TlsInfo;
    const NEEDS_STREAM: bool = true;

    fn begin(&mut self, wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        if matches!(
            wire.peer().address(),
            Address::Udp(_) | Address::Unixgram(_)
        ) {
            return Err(TlsError::new("TLS needs a stream, and datagrams are none").into());
        }
        self.0.records.begin(wire).map_err(failed)
    }

    fn opened(&mut self) -> Option<TlsInfo> {
        let state = &mut *self.0;
        let common = state.records.common();
        if common.is_handshaking() {
            return None;
        }

        let selection = state.selection.take();
        let name = selection.and_then(|selection| selection.name().map(Into::into));
        Some(TlsInfo::of(common, name.or(state.asked.take())))
    }

    fn received<'a>(
        &mut self,
        data: &'a [u8],
        wire: &mut Wire<'_>,
    ) -> Result<Received<'a>, ProtocolError> {
        let state = &mut *self.0;
        if state.progress == Progress::Ended {
            return Ok(Received::taken(data.len()));
        }

        let length = record_length(data).map_err(|problem| {
            // rustls has an alert for it.
            let error = state.records.take(&padded(data), wire).err();
            refused(data, state.progress, problem, error)
        })?;
        let Some(record) = length.and_then(|length| data.get(..length)) else {
            if state.progress == Progress::Silent {
                state.progress = Progress::Begun;
            }
            return Ok(Received::incomplete());
        };
        state.progress = Progress::Talking;

        let content = state.records.take(record, wire).map_err(failed)?;
        if state.selection.is_some() {
            check_resumed(state.records.common())?;
        }
        let mut received = Received::taken(record.len());
        if !content.plain.is_empty() {
            received = received.with_plain(content.plain);
        }
        if content.ends {
            state.progress = Progress::Ended;
            received = received.with_end();
        }
        Ok(received)
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        self.0.records.send(plain, wire).map_err(failed)
    }

    fn end(&mut self, wire: &mut Wire<'_>) {
        // Without `close_notify` the peer sees a truncated stream, which is what it is then.
        let _ = self.0.records.end(wire);
    }

    fn wire_ended(&mut self) -> WireEnd {
        match self.0.progress {
            Progress::Begun | Progress::Talking => WireEnd::Truncated,
            Progress::Silent | Progress::Ended => WireEnd::Clean,
        }
    }

    fn held(&self) -> usize {
        self.0.records.held()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("progress", &self.0.progress)
            .finish_non_exhaustive()
    }
}

/// Returns the length of the record at the front, with its header, or `None` if the header is
/// incomplete. What cannot become a record is an error as soon as its first wrong byte is there.
fn record_length(data: &[u8]) -> Result<Option<usize>, &'static str> {
    // Change of cipher, alert, handshake, data.
    if data.first().is_some_and(|kind| !(20..=23).contains(kind)) {
        return Err("its type is unknown");
    }
    if data.get(1).is_some_and(|version| *version != 3) {
        return Err("its version is unknown");
    }
    let Some(length) = data.get(3..HEADER) else {
        return Ok(None);
    };

    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > RECORD_MOST {
        return Err("it is too long");
    }
    Ok(Some(HEADER + length))
}

/// Returns bytes at which rustls sees what is wrong with `data`, however few these are. It knows the
/// type of heartbeats, and needs a complete one to refuse it, and the versions of other protocols.
fn padded(data: &[u8]) -> [u8; HEADER + 1] {
    if data.first() == Some(&HEARTBEAT) {
        return [HEARTBEAT, 3, 3, 0, 1, 0];
    }
    let mut header = [0; HEADER + 1];
    let count = data.len().min(HEADER);
    header[..count].copy_from_slice(&data[..count]);
    if header[1] != 3 {
        header[1..3].fill(0);
    }
    header
}

/// Returns the error for bytes that are no record.
fn refused(
    data: &[u8],
    progress: Progress,
    problem: &str,
    error: Option<rustls::Error>,
) -> ProtocolError {
    let shown = excerpt(&data[..data.len().min(16)]);
    let text = if matches!(progress, Progress::Silent | Progress::Begun) {
        format!("not TLS: the peer began with {shown}")
    } else {
        format!("TLS: no record, {problem}: {shown}")
    };
    TlsError::with_source(text, error).into()
}

/// Returns bytes as text if they begin like one, with points for what cannot be shown, or else as
/// hexadecimal numbers.
fn excerpt(bytes: &[u8]) -> String {
    let shown = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    if bytes.first().is_some_and(shown) {
        let text = bytes
            .iter()
            .map(|byte| if shown(byte) { char::from(*byte) } else { '.' });
        return format!("\"{}\"", text.collect::<String>());
    }
    let numbers: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    numbers.join(" ")
}

/// Checks a client's certificate that is from an earlier handshake, once this one is done. rustls
/// does not, and each resumption renews the ticket, so a client could go on with an expired one.
fn check_resumed(common: &CommonState) -> Result<(), TlsError> {
    let resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);
    if !resumed || common.is_handshaking() {
        return Ok(());
    }

    let certificate = common.peer_certificates().and_then(<[_]>::first);
    let validity = certificate.and_then(|certificate| x509::validity(certificate));
    if validity.is_some_and(|validity| validity.ends < certificates::now()) {
        return Err(TlsError::new("TLS: the client's certificate has expired"));
    }
    Ok(())
}

fn failed(error: rustls::Error) -> ProtocolError {
    TlsError::of("TLS", error).into()
}
