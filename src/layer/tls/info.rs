//! What a handshake has shown.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

use crate::layer::tls::x509;

/// What a TLS handshake has shown, for the making of the protocol inside.
///
/// ```no_run
/// use serveloop::layer::layered;
/// use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
/// use serveloop::protocols::{Discard, Echo};
/// use serveloop::{Config, Peer, Protocol, Server};
///
/// let tls = ServerTls::builder()
///     .certificate("cert.pem", "key.pem")
///     .alpn("echo")
///     .alpn("discard")
///     .build()?;
/// let server = Server::bind(&["tcp://127.0.0.1:8443".parse()?], Config::default())?;
/// server.serve_forever(layered(
///     move |_: &Peer| Some(Tls::server(&tls)),
///     |_: &Peer, tls: &TlsInfo| -> Option<Box<dyn Protocol + Send>> {
///         match tls.alpn()? {
///             b"echo" => Some(Box::new(Echo)),
///             _ => Some(Box::new(Discard)),
///         }
///     },
/// ))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TlsInfo {
    server_name: Option<Box<str>>,
    alpn: Option<Box<[u8]>>,
    version: TlsVersion,
    suite: Option<CipherSuite>,
    certificates: Vec<CertificateDer<'static>>,
    resumed: bool,
}

impl TlsInfo {
    pub(super) fn of(common: &CommonState, server_name: Option<Box<str>>) -> Self {
        Self {
            server_name,
            alpn: common.alpn_protocol().map(Into::into),
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                _ => TlsVersion::Tls12,
            },
            suite: common.negotiated_cipher_suite().map(|suite| suite.suite()),
            certificates: common
                .peer_certificates()
                .map(<[_]>::to_vec)
                .unwrap_or_default(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Returns the name of the server that the client asked for (SNI), in lower case. On a client it
    /// is the name given to [`Tls::client`](super::Tls::client).
    ///
    /// The client chooses it freely: it need not be one of the server's names.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Returns the application protocol that both sides agreed on (ALPN), for example `h2`.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// Returns the version of TLS.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// Returns the name of the cipher suite, as it is registered: `TLS_AES_256_GCM_SHA384`.
    #[must_use]
    pub fn cipher_suite(&self) -> String {
        let name = self.suite.as_ref().and_then(CipherSuite::as_str);
        name.unwrap_or("unknown").replacen("TLS13_", "TLS_", 1)
    }

    /// Returns whether the handshake continued an earlier session. It has then no certificates of
    /// its own: those of the peer are from the first handshake.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Returns the peer's certificates in DER, its own first. They were verified, unless the
    /// configuration of a client is insecure. Empty if the peer has shown none.
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.certificates.iter().map(|certificate| &**certificate)
    }

    /// Returns the subject of the peer's certificate in the order and notation of RFC 4514:
    /// `CN=alice,O=Example`. Special characters in values have a backslash before them, so no value
    /// can look like two.
    #[must_use]
    pub fn peer_subject(&self) -> Option<String> {
        x509::subject(self.certificates.first()?)
    }

    /// Returns the common name in the subject of the peer's certificate: `alice`. The last one, if
    /// there are several.
    #[must_use]
    pub fn peer_common_name(&self) -> Option<String> {
        x509::common_name(self.certificates.first()?)
    }

    /// Returns the DNS names that the peer's certificate is valid for, as they are there.
    #[must_use]
    pub fn peer_names(&self) -> Vec<String> {
        let names = self.certificates.first().map(x509::dns_names);
        names.unwrap_or_default()
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, of 2008.
    Tls12,
    /// TLS 1.3, of 2018.
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}
