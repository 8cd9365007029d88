//! A client in TLS, whose handshake is counted.

use std::rc::Rc;

use serveloop::layer::tls::{Tls, TlsInfo};
use serveloop::layer::{Layer, Layered, Received, Wire, WireEnd};
use serveloop::{Peer, ProtocolError};

use crate::load::client::{Client, Course};
use crate::load::secured::Secured;

/// A client in TLS.
pub(crate) type SecuredClient = Layered<Counted, fn(&Peer, &TlsInfo) -> Option<Client>, Client>;

/// Puts a client into TLS.
pub(crate) fn secure(secured: &Secured, client: Client, course: &Rc<Course>) -> SecuredClient {
    let layer = Counted {
        tls: secured.connection(),
        course: Rc::clone(course),
    };
    Layered::around(layer, client)
}

/// TLS that counts its handshake when it is complete.
#[derive(Debug)]
pub(crate) struct Counted {
    tls: Tls,
    course: Rc<Course>,
}

impl Layer for Counted {
    type Info = TlsInfo;

    fn begin(&mut self, wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        self.tls.begin(wire)
    }

    fn opened(&mut self) -> Option<TlsInfo> {
        let info = self.tls.opened()?;
        if self.course.over.get().is_none() {
            let handshakes = &mut self.course.tally.borrow_mut().handshakes;
            match info.is_resumed() {
                true => handshakes.resumed += 1,
                false => handshakes.full += 1,
            }
        }
        Some(info)
    }

    fn received<'a>(
        &mut self,
        data: &'a [u8],
        wire: &mut Wire<'_>,
    ) -> Result<Received<'a>, ProtocolError> {
        self.tls.received(data, wire)
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        self.tls.send(plain, wire)
    }

    fn end(&mut self, wire: &mut Wire<'_>) {
        self.tls.end(wire);
    }

    fn wire_ended(&mut self) -> WireEnd {
        self.tls.wire_ended()
    }

    fn held(&self) -> usize {
        self.tls.held()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use serveloop::layer::layered;
    use serveloop::layer::tls::rustls::client::Resumption;
    use serveloop::layer::tls::rustls::crypto::ring;
    use serveloop::layer::tls::rustls::pki_types::pem::PemObject;
    use serveloop::layer::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use serveloop::layer::tls::rustls::version::{TLS12, TLS13};
    use serveloop::layer::tls::rustls::{ServerConfig, SupportedProtocolVersion};
    use serveloop::layer::tls::{ClientTls, ServerTls};
    use serveloop::protocols::Echo;
    use serveloop::{Address, Config, Server, ShutdownHandle};

    use super::*;
    use crate::load::{Handshakes, Load, Pace, Scenario, Terms, Tickets};

    fn file(name: &str) -> String {
        let folder = "/../tests/it/layer/tls/certificates/";
        format!("{}{folder}{name}", env!("CARGO_MANIFEST_DIR"))
    }

    /// A server that echoes over TLS until the test ends.
    struct Served {
        addresses: Vec<Address>,
        handle: ShutdownHandle,
    }

    impl Served {
        fn new() -> Self {
            let tls =
                ServerTls::builder().certificate(file("localhost.pem"), file("localhost.key"));
            Self::with(tls.build().unwrap())
        }

        /// With one version of TLS, and as many tickets after a handshake of TLS 1.3.
        fn offering(version: &'static SupportedProtocolVersion, tickets: usize) -> Self {
            let chain = CertificateDer::pem_file_iter(file("localhost.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(file("localhost.key")).unwrap();
            let provider = Arc::new(ring::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap();
            config.ticketer = ring::Ticketer::new().unwrap();
            config.send_tls13_tickets = tickets;
            Self::with(ServerTls::from_rustls(Arc::new(config)).unwrap())
        }

        fn with(tls: ServerTls) -> Self {
            let any = "tcp://127.0.0.1:0".parse().unwrap();
            let server = Server::bind(&[any], Config::default()).unwrap();
            let (addresses, handle) = (server.addresses().to_vec(), server.shutdown_handle());
            thread::spawn(move || {
                let layer = move |_: &Peer| Some(Tls::server(&tls));
                server.serve_forever(layered(layer, |_: &Peer, _: &TlsInfo| Some(Echo)))
            });
            Self { addresses, handle }
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.handle.shutdown();
        }
    }

    fn secured(resumption: Resumption) -> Secured {
        let tls = ClientTls::builder().roots(file("authority.pem"));
        Secured::new(tls.resumption(resumption).build().unwrap(), "localhost").unwrap()
    }

    fn churn(size: usize) -> Scenario {
        Scenario {
            pace: Pace::Churn,
            connections: 20,
            size,
            ..Scenario::default()
        }
    }

    fn run(secured: &Secured, scenario: Scenario, count: u64) -> Handshakes {
        let server = Served::new();
        let terms = Terms {
            secured: Some(secured),
            ..Terms::default()
        };
        let mut load = Load::new(&scenario, server.addresses.clone(), terms).unwrap();
        load.exchange_messages(count).unwrap();
        assert_eq!(load.messages(), count);
        assert!(load.latency().p50 > 0.0);
        load.handshakes().unwrap()
    }

    #[test]
    fn messages_of_any_size_go_through_records() {
        for (size, depth, count) in [(1, 500, 20_000), (100_000, 3, 60)] {
            let scenario = Scenario {
                connections: 4,
                idle: 2,
                size,
                depth,
                ..Scenario::default()
            };
            let handshakes = run(&secured(Resumption::disabled()), scenario, count);
            // They came before the messages.
            assert_eq!(handshakes, Handshakes::default());
        }
    }

    #[test]
    fn every_connection_has_a_full_handshake() {
        for size in [0, 64] {
            let handshakes = run(&secured(Resumption::disabled()), churn(size), 100);
            assert_eq!((handshakes.full, handshakes.resumed), (100, 0), "{size}");
        }
    }

    #[test]
    fn a_full_handshake_brings_tickets() {
        for size in [0, 64] {
            let tickets = Tickets::new(100);
            let secured = secured(tickets.resumption()).resuming(Arc::clone(&tickets));
            let first = run(&secured, churn(size), 1);
            assert_eq!((first.full, first.resumed), (1, 0));
            assert_eq!(tickets.usable(), 2);
        }
    }

    #[test]
    fn connections_wait_for_tickets() {
        let tickets = Tickets::new(100);
        let secured = secured(tickets.resumption()).resuming(Arc::clone(&tickets));
        let server = Served::new();
        let terms = Terms {
            secured: Some(&secured),
            ..Terms::default()
        };

        let scenario = churn(64);
        let mut load = Load::new(&scenario, server.addresses.clone(), terms).unwrap();
        load.gather_tickets().unwrap();
        load.exchange_messages(200).unwrap();
        let handshakes = load.handshakes().unwrap();
        assert_eq!((handshakes.full, handshakes.resumed), (0, 200));

        // A load that keeps its connections takes care by itself.
        let scenario = Scenario {
            connections: 30,
            ..Scenario::default()
        };
        let mut load = Load::new(&scenario, server.addresses.clone(), terms).unwrap();
        load.settle(30).unwrap();
        assert_eq!(load.handshakes().unwrap().full, 0);
    }

    /// TLS 1.2 has one session for all; a server of TLS 1.3 may offer one ticket, or none.
    #[test]
    fn the_handshakes_are_those_that_the_server_offers() {
        for (version, offered, resumes) in
            [(&TLS12, 0, true), (&TLS13, 1, true), (&TLS13, 0, false)]
        {
            let tickets = Tickets::new(100);
            let secured = secured(tickets.resumption()).resuming(Arc::clone(&tickets));
            let server = Served::offering(version, offered);
            let terms = Terms {
                secured: Some(&secured),
                ..Terms::default()
            };

            let mut load = Load::new(&churn(64), server.addresses.clone(), terms).unwrap();
            load.gather_tickets().unwrap();
            load.exchange_messages(60).unwrap();
            let Handshakes { full, resumed } = load.handshakes().unwrap();
            let expected = if resumes { (0, 60) } else { (60, 0) };
            assert_eq!((full, resumed), expected, "{version:?} {offered}");
        }
    }

    #[test]
    fn a_server_that_does_not_speak_tls_is_explained() {
        let any = "tcp://127.0.0.1:0".parse().unwrap();
        let server = Server::bind(&[any], Config::default()).unwrap();
        let (addresses, handle) = (server.addresses().to_vec(), server.shutdown_handle());
        let serving = thread::spawn(move || server.serve_forever(|_: &Peer| Some(Echo)));

        let secured = secured(Resumption::disabled())
            .explained_by(|_, name, stage| Some(format!("{name} {stage:?}")));
        let terms = Terms {
            secured: Some(&secured),
            patience: Duration::from_secs(5),
            ..Terms::default()
        };
        let mut load = Load::new(&Scenario::default(), addresses, terms).unwrap();
        let error = load.settle(1).unwrap_err();
        assert_eq!(error.to_string(), "connection 1: localhost Handshake");
        handle.shutdown();
        serving.join().unwrap().unwrap();
    }
}
