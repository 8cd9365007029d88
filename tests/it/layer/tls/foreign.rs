//! rustls's own buffered connections, as peers that do what our layer does not do by itself.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use serveloop::Protocol;
use serveloop::layer::Layered;
use serveloop::layer::tls::{ServerTls, Tls, rustls};
use serveloop::testing::MemorySession;

use crate::layer::tls::certificates::rustls_client;
use crate::layer::tls::pair::{Build, session};
use crate::support::timeless;

/// A client made by rustls alone, and a server in a session.
pub(crate) struct Foreign<P> {
    pub(crate) client: rustls::ClientConnection,
    pub(crate) server: MemorySession<P>,
}

/// What a server's session has, if it is nothing but TLS around a protocol.
pub(crate) type Secured<P> = Layered<Tls, Build<P>, P>;

impl<P: Protocol + 'static> Foreign<Secured<P>> {
    pub(crate) fn new(
        server: &ServerTls,
        version: &'static rustls::SupportedProtocolVersion,
        change: impl FnOnce(&mut rustls::ClientConfig),
        mut build: impl FnMut() -> P + 'static,
    ) -> Self {
        let mut config = rustls_client(&[version]);
        change(&mut config);
        let server = session(Tls::server(server), &timeless(), move |_, _| Some(build()));
        Self::with(server, config)
    }
}

impl<P: Protocol> Foreign<P> {
    pub(crate) fn with(server: MemorySession<P>, config: rustls::ClientConfig) -> Self {
        let name = "localhost".try_into().unwrap();
        Self {
            client: rustls::ClientConnection::new(Arc::new(config), name).unwrap(),
            server,
        }
    }

    /// Lets the two talk until both are silent. Returns the client's error, if it has one.
    pub(crate) fn talk(&mut self) -> Option<rustls::Error> {
        loop {
            let mut to_server = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut to_server).unwrap();
            }
            self.server.receive(&to_server);

            let to_client = self.server.sent();
            if to_server.is_empty() && to_client.is_empty() {
                return None;
            }
            let mut rest = &to_client[..];
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                if let Err(error) = self.client.process_new_packets() {
                    return Some(error);
                }
            }
        }
    }

    pub(crate) fn write(&mut self, data: &[u8]) {
        self.client.writer().write_all(data).unwrap();
    }

    /// Returns all plain bytes that have arrived, and whether the stream has ended.
    pub(crate) fn read(&mut self) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        match self.client.reader().read_to_end(&mut got) {
            Ok(_) => (got, true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (got, false),
            Err(error) => panic!("{error}"),
        }
    }
}
