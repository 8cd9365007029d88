//! What all sessions of a server share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::rustls::crypto::ring;
use quinn_proto::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn_proto::rustls::{self, version};
use quinn_proto::{
    EndpointConfig, HashedConnectionIdGenerator, IdleTimeout, ServerConfig, TransportConfig, VarInt,
};
use serveloop::{Factory, Peer};

use crate::{ALPN, EchoSession};

/// When a peer is believed to be where its datagrams come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// When it has answered in the handshake. Until then it is sent three times what it has sent.
    #[default]
    ByHandshake,
    /// When it has sent back the token of a Retry packet. That costs a round trip, and the server keeps
    /// nothing at all for a forged address.
    ByRetry,
}

/// The limits of a server. Together they say how much one peer can make it keep: up to
/// `max_connections` times the two windows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most connections of one address and port. Beyond it they are refused. Default 8.
    pub max_connections: usize,
    /// The most streams that a connection has open. Default 100.
    pub max_streams: u32,
    /// The most bytes of one stream that wait to be read. Default 256 KiB.
    pub stream_window: u32,
    /// The most bytes of all streams of a connection that wait to be read, and the most of its echo that
    /// waits for acknowledgement. Default 1 MiB.
    pub window: u32,
    /// How long a connection may be silent. A session's
    /// [`idle_timeout`](serveloop::Limits::idle_timeout) should be longer. Default 30 s; none if it is
    /// longer than QUIC can say.
    pub idle_timeout: Duration,
    /// When a peer's address counts as true. Default by the handshake.
    pub validation: Validation,
    /// Makes what a server chooses at random the same in every run, apart from keys and connection
    /// ids. For tests alone. Default none.
    pub seed: Option<[u8; 32]>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 8,
            max_streams: 100,
            stream_window: 256 * 1024,
            window: 1024 * 1024,
            idle_timeout: Duration::from_secs(30),
            validation: Validation::default(),
            seed: None,
        }
    }
}

/// A QUIC server that echoes every bidirectional stream: the factory of [`EchoSession`]s. Clones share
/// their keys, so each of several workers has a clone.
///
/// Its sockets need [sessions](serveloop::Config::sessions). Without them, or when there is no room for
/// another session, a client is sent a Retry, and if it comes back it is refused.
#[derive(Clone)]
pub struct EchoServer {
    endpoint: Arc<EndpointConfig>,
    server: Arc<ServerConfig>,
    max_connections: usize,
    validation: Validation,
}

impl EchoServer {
    /// Makes a server with a certificate chain and its key. Clients have to ask for [`ALPN`].
    ///
    /// # Errors
    /// The key is of a kind that cannot sign, or does not belong to the certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        settings: &Settings,
    ) -> Result<Self, rustls::Error> {
        let mut tls = rustls::ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let tls = QuicServerConfig::try_from(tls).map_err(|error| {
            rustls::Error::General(format!("no cipher suite for QUIC: {error}"))
        })?;

        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        // A session is that of one address: a connection cannot move to another one.
        server
            .migration(false)
            .transport_config(Arc::new(settings.transport()));

        // With the same key in each session, a datagram of a connection that is not known is told from
        // noise, and answered by a reset that its peer believes.
        let key = rand_key();
        let mut endpoint = EndpointConfig::default();
        endpoint
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)))
            .rng_seed(settings.seed);
        Ok(Self {
            endpoint: Arc::new(endpoint),
            server: Arc::new(server),
            max_connections: settings.max_connections,
            validation: settings.validation,
        })
    }

    /// Makes the session of a new peer.
    #[must_use]
    pub fn session(&self) -> EchoSession {
        EchoSession::new(self)
    }

    /// Returns an endpoint for one peer.
    pub(crate) fn endpoint(&self) -> quinn_proto::Endpoint {
        let (endpoint, server) = (Arc::clone(&self.endpoint), Arc::clone(&self.server));
        // A probe for a longer path MTU needs a socket that does not fragment, of which the library
        // promises nothing.
        quinn_proto::Endpoint::new(endpoint, Some(server), false, None)
    }

    pub(crate) fn max_connections(&self) -> usize {
        self.max_connections
    }

    pub(crate) fn validation(&self) -> Validation {
        self.validation
    }
}

impl Factory for EchoServer {
    type Protocol = EchoSession;

    fn build_protocol(&mut self, _: &Peer) -> Option<EchoSession> {
        Some(self.session())
    }
}

impl fmt::Debug for EchoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchoServer")
            .field("max_connections", &self.max_connections)
            .field("validation", &self.validation)
            .finish_non_exhaustive()
    }
}

impl Settings {
    fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.max_streams.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.window.into())
            .send_window(self.window.into())
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .mtu_discovery_config(None)
            // A datagram is written at a time, not several that the kernel is to cut.
            .enable_segmentation_offload(false);
        transport
    }
}

/// Returns a number that others cannot guess, as each hasher of the standard library has one.
fn rand_key() -> u64 {
    use std::hash::{BuildHasher, RandomState};

    RandomState::new().hash_one("connection ids")
}
