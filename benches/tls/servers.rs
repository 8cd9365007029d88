//! The servers that are compared, with the same certificate and the same kind of listener.

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serveloop::layer::layered;
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Peer, Server};
use serveloop_measure::launch::{announce, listen};

use crate::tasks;

/// A certificate with an ECDSA key (P-256), of the library's tests.
pub(crate) const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/layer/tls/certificates/localhost.pem"
);
pub(crate) const KEY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/layer/tls/certificates/localhost.key"
);
/// One with an RSA key of 2048 bits, and its key.
const RSA: [&str; 2] = [
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/layer/tls/certificates/localhost-rsa.pem"
    ),
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/layer/tls/certificates/localhost-rsa.key"
    ),
];

const MOST: usize = 20_000;
pub(crate) const BACKLOG: i32 = 1_024;

/// tokio's echo buffer, as in `benches/loopback`.
const BUFFER: usize = 64 * 1024;
/// One that does not count.
const LITTLE_BUFFER: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Serveloop,
    /// The same, and accepts this many connections in a turn.
    Accepts(usize),
    /// The same as the first, with an RSA key.
    Rsa,
    Tokio,
    /// The same, with an echo buffer so small that it does not count among idle connections.
    Little,
    /// Only makes handshakes: it does not echo.
    Nginx,
}

const NAMES: [(&str, Kind); 8] = [
    ("serveloop", Kind::Serveloop),
    ("accepts-1", Kind::Accepts(1)),
    ("accepts-4", Kind::Accepts(4)),
    ("accepts-64", Kind::Accepts(64)),
    ("rsa", Kind::Rsa),
    ("tokio", Kind::Tokio),
    ("tokio-little", Kind::Little),
    ("nginx", Kind::Nginx),
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        let named = NAMES.iter().find(|(_, kind)| *kind == self);
        named.map_or("", |(name, _)| name)
    }

    /// Serves at a port of `host` until the process is killed. Says its address on standard output
    /// first.
    pub(crate) fn serve(self, host: Ipv4Addr) -> io::Result<()> {
        let usual = Config {
            max_connections: MOST,
            ..Config::default()
        };
        match self {
            Self::Serveloop => serve(host, [CERTIFICATE, KEY], usual),
            Self::Rsa => serve(host, RSA, usual),
            Self::Accepts(count) => serve(
                host,
                [CERTIFICATE, KEY],
                Config {
                    accepts_per_turn: count,
                    ..usual
                },
            ),
            Self::Tokio => tasks::serve(listen(host, BACKLOG)?, BUFFER),
            Self::Little => tasks::serve(listen(host, BACKLOG)?, LITTLE_BUFFER),
            Self::Nginx => Err(io::Error::other("nginx is a program of its own")),
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or(())
    }
}

fn serve(host: Ipv4Addr, [chain, key]: [&str; 2], config: Config) -> io::Result<()> {
    let tls = ServerTls::builder().certificate(chain, key);
    let tls = tls.build().map_err(io::Error::other)?;
    let server = Server::bind(&[Address::Tcp((host, 0).into())], config)?;
    announce(&server.addresses()[0]);

    let layer = move |_: &Peer| Some(Tls::server(&tls));
    let end = server.serve_forever(layered(layer, |_: &Peer, _: &TlsInfo| Some(Echo)));
    end.map(drop)
}
