//! A client by rustls alone, to see certificates and to stop where programs go on.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use serveloop::layer::tls::rustls::client::Resumption;
use serveloop::layer::tls::rustls::crypto::ring;
use serveloop::layer::tls::rustls::pki_types::CertificateDer;
use serveloop::layer::tls::rustls::pki_types::pem::PemObject;
use serveloop::layer::tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::served::PATIENCE;

/// What its connections share.
#[derive(Clone)]
pub(super) struct Client(Arc<ClientConfig>);

impl Client {
    /// A client that trusts this authority, and begins every session anew.
    pub(super) fn new(authority: impl AsRef<Path>) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(authority).expect("a certificate");
        roots.add(authority).expect("an authority");
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self(config.into())
    }

    fn begin(&self) -> ClientConnection {
        let name = "localhost".try_into().expect("a name");
        ClientConnection::new(Arc::clone(&self.0), name).expect("a client")
    }

    /// Connects and completes the handshake.
    pub(super) fn connect(&self, to: SocketAddr) -> io::Result<Connected> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(self.begin(), socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connected(stream))
    }

    /// Connects, echoes and ends. Returns the server's certificate.
    pub(super) fn visit(&self, to: SocketAddr) -> io::Result<Vec<u8>> {
        let mut connected = self.connect(to)?;
        connected.exchange("a visit")?;
        let certificate = connected.certificate();
        connected.end()?;
        Ok(certificate)
    }

    /// Returns the first bytes that a client sends.
    pub(super) fn hello(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.begin().write_tls(&mut bytes).expect("memory");
        bytes
    }
}

/// A connection whose handshake is complete.
pub(super) struct Connected(StreamOwned<ClientConnection, TcpStream>);

impl Connected {
    /// Sends `text` and reads it again.
    pub(super) fn exchange(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        let mut found = vec![0; text.len()];
        self.0.read_exact(&mut found)?;
        match found == text.as_bytes() {
            true => Ok(()),
            false => Err(io::Error::other("other bytes came back")),
        }
    }

    /// Returns the server's own certificate.
    pub(super) fn certificate(&self) -> Vec<u8> {
        let chain = self.0.conn.peer_certificates().unwrap_or_default();
        chain.first().map(|it| it.to_vec()).unwrap_or_default()
    }

    /// Ends both sides in order.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.0.conn.send_close_notify();
        self.0.flush()?;
        self.0.sock.shutdown(Shutdown::Write)?;
        match self.0.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("more bytes came")),
        }
    }
}
