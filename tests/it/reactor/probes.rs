//! Health checks and port scans: connections that end before a byte has come are a quiet class, whatever
//! the server speaks. So are resets.

use serveloop::framing::{Framed, Lines};
use serveloop::layer::proxy::{Header, Proxy};
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::layer::{Layered, Prefaced, RateLimit, RateLimited};
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::testing::MemoryServer;
use serveloop::{Ended, Factory, Peer, Protocol};

use crate::layer::tls::certificates;
use crate::support::seconds;

type Any = Box<dyn Protocol>;
type Build = Box<dyn Fn() -> Any>;

/// Counts the ends that concern an operator.
struct Alarmed {
    build: Build,
    alarms: Vec<String>,
}

impl Factory for Alarmed {
    type Protocol = Any;

    fn build_protocol(&mut self, _: &Peer) -> Option<Any> {
        Some((self.build)())
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        if !ended.reason().is_ordinary() {
            self.alarms.push(ended.reason().to_string());
        }
    }
}

fn servers() -> Vec<(&'static str, Build)> {
    let tls: ServerTls = certificates::server("localhost").build().unwrap();
    let encrypted = move || -> Any {
        let inside = |_: &Peer, _: &TlsInfo| Some(Echo);
        Box::new(Layered::new(Tls::server(&tls), inside))
    };
    let proxied = || -> Any {
        let proxy = Proxy::required("127.0.0.0/8".parse().unwrap());
        let peer = Peer::new("tcp://127.0.0.1:1".parse().unwrap(), Some(0));
        let inside = |_: &Peer, _: &Option<Header<'static>>| Some(Echo);
        Box::new(Prefaced::new(proxy.reader(&peer).unwrap(), inside))
    };
    vec![
        ("echo", Box::new(|| Box::new(Echo))),
        ("discard", Box::new(|| Box::new(Discard))),
        (
            "lines",
            Box::new(|| Box::new(Framed::new(Lines::new(80), Hello::new(seconds(1))))),
        ),
        (
            "rate",
            Box::new(|| Box::new(RateLimited::new(Echo, RateLimit::default()))),
        ),
        ("tls", Box::new(encrypted)),
        ("proxied", Box::new(proxied)),
    ]
}

#[test]
fn a_connection_that_ends_without_a_byte_is_counted_and_alarms_nobody() {
    for (name, build) in servers() {
        let alarms = Vec::new();
        let mut server = MemoryServer::new(Alarmed { build, alarms });
        for _ in 0..3 {
            let client = server.connect();
            server.finish(client);
        }
        for _ in 0..4 {
            let client = server.connect();
            server.reset(client);
        }

        let statistics = *server.statistics();
        assert_eq!(
            (statistics.probes, statistics.peer_resets),
            (7, 4),
            "{name}: {statistics}"
        );
        assert_eq!(statistics.closed(), 7, "{name}");
        assert_eq!(server.factory().alarms, [""; 0], "{name}");

        // A reset after some bytes is no probe.
        let client = server.connect();
        // What a client of each protocol may begin with.
        server.send(client, if name == "tls" { b"\x16" } else { b"P" });
        server.reset(client);
        let statistics = server.statistics();
        assert_eq!(
            (statistics.probes, statistics.peer_resets),
            (7, 5),
            "{name}: {statistics}"
        );
    }
}
