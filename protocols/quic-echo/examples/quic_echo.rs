//! QUIC that echoes every stream, on UDP port 4433 of this machine. Run
//! `cargo run --release -p serveloop-quic-echo --example quic_echo -- chain.pem key.pem`, perhaps with an
//! address such as `udp://[::1]:4433` behind it.

use quinn_proto::rustls::pki_types::pem::PemObject;
use quinn_proto::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serveloop::net::UdpOptions;
use serveloop::{Address, Config, Server};
use serveloop_quic_echo::{EchoServer, Settings, quinn_proto};

const USAGE: &str = "usage: quic_echo CHAIN.pem KEY.pem [udp://ADDRESS]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let (Some(chain), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err(USAGE.into());
    };
    let at = arguments.next();
    let at = at.unwrap_or_else(|| "udp://127.0.0.1:4433".to_owned());

    let at: Address = at.parse()?;
    if !matches!(at, Address::Udp(_)) {
        return Err(format!("{at}: QUIC needs UDP").into());
    }

    let wrong = |file: &str, error| format!("{file}: {error}");
    let certificates =
        CertificateDer::pem_file_iter(&chain).map_err(|error| wrong(&chain, error))?;
    let certificates = certificates
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&chain, error))?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong(&key, error))?;
    let echo = EchoServer::new(certificates, private, &Settings::default())
        .map_err(|error| format!("{chain} and {key}: {error}"))?;

    // Only Linux tells which packets a congested router has marked, and puts those of bulk together.
    let udp = UdpOptions {
        packet_info: cfg!(target_os = "linux"),
        gro: cfg!(target_os = "linux"),
        ..UdpOptions::default()
    };
    let config = Config {
        sessions: true,
        udp,
        ..Config::default()
    };
    let server = Server::bind(&[at], config)?;
    println!("listening on {}", server.addresses()[0]);
    server.with(echo).serve_forever()?;
    Ok(())
}
