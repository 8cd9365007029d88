//! The certificates in the folder of the same name, which `make` there has made.

use std::path::PathBuf;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion};
use serveloop::layer::tls::{
    ClientTls, ClientTlsBuilder, ServerTls, ServerTlsBuilder, TlsVersion, rustls,
};

/// A file of the folder.
pub(crate) fn file(name: &str) -> PathBuf {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/layer/tls/certificates"
    );
    PathBuf::from(folder).join(name)
}

/// A server with the certificate of this name.
pub(crate) fn server(name: &str) -> ServerTlsBuilder {
    with(ServerTls::builder(), name)
}

pub(crate) fn with(builder: ServerTlsBuilder, name: &str) -> ServerTlsBuilder {
    builder.certificate(file(&format!("{name}.pem")), file(&format!("{name}.key")))
}

/// A client that trusts the tests' authority.
pub(crate) fn client() -> ClientTlsBuilder {
    ClientTls::builder().roots(file("authority.pem"))
}

/// The same with a certificate.
pub(crate) fn client_with(name: &str) -> ClientTlsBuilder {
    client().certificate(file(&format!("{name}.pem")), file(&format!("{name}.key")))
}

/// A client of rustls that speaks this version only.
pub(crate) fn client_of(version: TlsVersion) -> ClientTls {
    let versions: &[&SupportedProtocolVersion] = match version {
        TlsVersion::Tls12 => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13],
    };
    ClientTls::from_rustls(rustls_client(versions).into())
}

/// A client of rustls that trusts the tests' authority.
pub(crate) fn rustls_client(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    rustls_builder(versions).with_no_client_auth()
}

/// The same with a certificate.
pub(crate) fn rustls_client_with(
    versions: &[&'static SupportedProtocolVersion],
    name: &str,
) -> ClientConfig {
    let builder = rustls_builder(versions);
    let certified = builder.with_client_auth_cert(chain(name), key(name));
    certified.unwrap()
}

pub(crate) fn chain(name: &str) -> Vec<CertificateDer<'static>> {
    let chain = CertificateDer::pem_file_iter(file(&format!("{name}.pem"))).unwrap();
    chain.map(Result::unwrap).collect()
}

pub(crate) fn key(name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap()
}

pub(crate) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(file("authority.pem")).unwrap();
    roots.add(authority).unwrap();
    roots
}

fn rustls_builder(
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = rustls::crypto::ring::default_provider();
    ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots())
}
