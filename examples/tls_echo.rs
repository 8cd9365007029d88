//! An echo inside TLS, which first says what the handshake has shown.
//!
//! Make a certificate:
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//!     -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
//! ```
//!
//! Then run `cargo run --example tls_echo -- cert.pem key.pem`, and
//! `openssl s_client -quiet -connect 127.0.0.1:9999 -servername localhost -CAfile cert.pem` in
//! another terminal. To use another address, pass it as the third argument.

use std::env;
use std::error::Error;

use serveloop::layer::layered;
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::{Config, Peer, Protocol, Server, Transport};

/// Echoes, as it would without TLS.
struct Echo {
    greeting: String,
}

impl Echo {
    fn new(tls: &TlsInfo) -> Self {
        let name = tls.server_name().unwrap_or("no name");
        let greeting = format!("{} with {}, {name}", tls.version(), tls.cipher_suite());
        Self { greeting }
    }
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> serveloop::Result {
        transport.write(self.greeting.as_bytes());
        transport.write(b"\n");
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> serveloop::Result<usize> {
        transport.write(data);
        Ok(data.len())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let mut arguments = env::args().skip(1);
    let [Some(chain), Some(key)] = [arguments.next(), arguments.next()] else {
        return Err("usage: tls_echo CERTIFICATE KEY [ADDRESS]".into());
    };
    let at = arguments
        .next()
        .unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());

    let tls = ServerTls::builder().certificate(chain, key).build()?;
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(layered(
        move |_: &Peer| Some(Tls::server(&tls)),
        |_: &Peer, tls: &TlsInfo| Some(Echo::new(tls)),
    ))?;
    Ok(())
}
