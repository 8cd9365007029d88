//! A task for each connection on tokio with tokio-rustls, as in its documentation.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;

use crate::servers::{CERTIFICATE, KEY};

/// On the runtime of one thread, with an echo buffer of this many bytes for each connection.
pub(crate) fn serve(listener: TcpListener, buffer: usize) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(config()?));
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream, acceptor.clone(), buffer));
        }
    })
}

/// Sessions are in tickets, as they are in this library.
fn config() -> io::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(CERTIFICATE).map_err(io::Error::other)?;
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(KEY).map_err(io::Error::other)?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
    Ok(config)
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor, buffer: usize) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; buffer];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..count]).await?;
        stream.flush().await?;
    }
}
