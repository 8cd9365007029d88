//! Clients that behave, inside TLS: one after the other sends a message, and notes how long its reply takes.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serveloop::layer::tls::rustls::crypto::ring;
use serveloop::layer::tls::rustls::pki_types::CertificateDer;
use serveloop::layer::tls::rustls::pki_types::pem::PemObject;
use serveloop::layer::tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::Running;

const MESSAGE: &[u8; 8] = b"message\n";

/// Reads a file of the tests' certificates. Of the file itself the server would warn, since all may read it.
pub(crate) fn certificate(name: &str) -> io::Result<Vec<u8>> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/layer/tls/certificates"
    );
    fs::read(Path::new(folder).join(name))
}

/// Connections whose handshakes are complete.
pub(crate) struct Secure(Vec<StreamOwned<ClientConnection, TcpStream>>);

impl Secure {
    pub(crate) fn connect(server: &Running, count: usize) -> io::Result<Self> {
        let config = config()?;
        let one = |_| {
            let mut stream = StreamOwned::new(client(&config)?, server.client()?);
            stream.conn.complete_io(&mut stream.sock)?;
            Ok(stream)
        };
        Ok(Self((0..count).map(one).collect::<io::Result<_>>()?))
    }

    /// Returns the first message of a client.
    pub(crate) fn hello() -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        client(&config()?)?.write_tls(&mut bytes)?;
        Ok(bytes)
    }

    /// The 99th of 100 replies within this time, in microseconds.
    pub(crate) fn p99(&mut self, duration: Duration) -> io::Result<f64> {
        let begun = Instant::now();
        self.p99_while(|| begun.elapsed() < duration)
    }

    /// The same until this is set.
    pub(crate) fn p99_until(&mut self, ends: &AtomicBool) -> io::Result<f64> {
        self.p99_while(|| !ends.load(Ordering::SeqCst))
    }

    fn p99_while(&mut self, goes_on: impl Fn() -> bool) -> io::Result<f64> {
        let mut taken = Vec::new();
        while goes_on() {
            for stream in &mut self.0 {
                let begun = Instant::now();
                stream.write_all(MESSAGE)?;
                stream.read_exact(&mut [0; MESSAGE.len()])?;
                taken.push(begun.elapsed());
            }
        }
        taken.sort_unstable();
        let worst = taken.get(taken.len() * 99 / 100);
        Ok(worst.ok_or(ErrorKind::InvalidInput)?.as_secs_f64() * 1e6)
    }
}

fn config() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(&certificate("authority.pem")?);
    let authority = authority.map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config.into())
}

fn client(config: &Arc<ClientConfig>) -> io::Result<ClientConnection> {
    let name = "localhost".try_into().map_err(io::Error::other)?;
    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
}
