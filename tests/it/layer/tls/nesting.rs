//! TLS behind what comes first on a connection: a PROXY header, or a plain protocol (STARTTLS).

use serveloop::layer::proxy::Proxy;
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo, rustls};
use serveloop::layer::{Layered, Prefaced, Upgradable, Upgrade};
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{Peer, Protocol, Result, Transport};

use crate::layer::tls::certificates;
use crate::layer::tls::foreign::Foreign;
use crate::support::timeless;

type Secure = Layered<Tls, fn(&Peer, &TlsInfo) -> Option<Greeter>, Greeter>;

/// Greets the client by its address, and echoes.
struct Greeter(String);

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        transport.write(self.0.as_bytes());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        Echo.data_received(data, transport)
    }
}

fn secure(tls: &ServerTls) -> Secure {
    Layered::new(Tls::server(tls), |peer, tls| {
        let by = peer
            .via()
            .map_or_else(String::new, |via| format!(" via {via}"));
        let greeting = format!("{}{by} by {}", peer.address(), tls.version());
        Some(Greeter(greeting))
    })
}

#[test]
fn a_proxy_names_the_client_before_the_handshake() {
    let tls = certificates::server("localhost").build().unwrap();
    let proxy = Proxy::required("127.0.0.1".parse().unwrap());
    let peer = Peer::new("tcp://127.0.0.1:4711".parse().unwrap(), Some(0));
    let reader = proxy.reader(&peer).unwrap();
    let prefaced = Prefaced::new(reader, move |_: &Peer, _: &Option<_>| Some(secure(&tls)));
    let mut server = MemorySession::with_peer(prefaced, timeless(), peer);
    server.receive(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n");

    let mut foreign = Foreign::with(
        server,
        certificates::rustls_client(&[&rustls::version::TLS13]),
    );
    assert_eq!(foreign.talk(), None);
    foreign.write(b", hello");
    assert_eq!(foreign.talk(), None);
    let greeting = b"tcp://192.0.2.7:56324 via tcp://127.0.0.1:4711 by TLS 1.3, hello".to_vec();
    assert_eq!(foreign.read(), (greeting, false));
}

/// Speaks plainly until the client asks for TLS.
struct Plain {
    tls: ServerTls,
    asked: bool,
}

impl Protocol for Plain {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let command = b"STARTTLS\r\n";
        if data.starts_with(command) {
            transport.write(b"220 go ahead\r\n");
            self.asked = true;
            return Ok(command.len());
        }
        Ok(0)
    }
}

impl Upgrade for Plain {
    type Next = Secure;
    const MAY_FOLLOW_AT_ONCE: bool = false;

    fn take_next(&mut self) -> Option<Secure> {
        self.asked.then(|| secure(&self.tls))
    }
}

fn plain() -> MemorySession<Upgradable<Plain>> {
    let tls = certificates::server("localhost").build().unwrap();
    let plain = Plain { tls, asked: false };
    MemorySession::with_config(Upgradable::new(plain), timeless())
}

#[test]
fn a_plain_protocol_hands_over_to_tls() {
    let mut server = plain();
    server.receive(b"START");
    server.receive(b"TLS\r\n");
    assert_eq!(server.sent(), b"220 go ahead\r\n");

    let mut foreign = Foreign::with(
        server,
        certificates::rustls_client(&[&rustls::version::TLS12]),
    );
    assert_eq!(foreign.talk(), None);
    foreign.write(b"!");
    assert_eq!(foreign.talk(), None);
    assert_eq!(
        foreign.read(),
        (b"tcp://127.0.0.1:1 by TLS 1.2!".to_vec(), false)
    );
}

/// CVE-2021-23222 and its relatives: what was sent before the handshake is not protected.
#[test]
fn nothing_may_hide_behind_the_command() {
    for injected in [
        &b"STARTTLS\r\nDELETE everything\r\n"[..],
        b"STARTTLS\r\n\x16",
    ] {
        let mut server = plain();
        server.receive(injected);
        let reason = server.reason().expect("it is over").to_string();
        assert!(reason.starts_with("protocol error"), "{reason}");
    }
}
