//! Every system once more: inside a layer that changes nothing, one that changes all bytes, and TLS;
//! and behind PROXY headers, without and with TLS.
//!
//! TLS draws keys and nonces from the system, so that no two runs have the same bytes on the wire. Their
//! lengths are the same, and with them everything that the network decides.

use std::sync::LazyLock;

use serveloop::layer::Prefaced;
use serveloop::layer::proxy::{Header, Proxy};
use serveloop::layer::tls::{ServerTls, Tls, TlsVersion};
use serveloop::net::NetworkList;
use serveloop::protocols::Echo;
use serveloop::testing::{
    Exchange, Failure, Identity, Network, Report, Scrambled, Side, Simulation,
};
use serveloop::{Address, Config, Factory, Peer};

use crate::certificate::{self, Clients, NAME};
use crate::systems::{Any, OF_DATAGRAMS, SYSTEMS, Simulated, text};

/// A simulation of any server.
pub(crate) trait Subject {
    fn check(&mut self, seed: u64) -> Result<Report, Failure>;

    /// Runs one seed on a network with a change.
    fn check_with(
        &mut self,
        seed: u64,
        change: &mut dyn FnMut(&mut Network),
    ) -> Result<Report, Failure>;
}

impl<M, F> Subject for Simulation<M>
where
    M: FnMut() -> F,
    F: Factory,
{
    fn check(&mut self, seed: u64) -> Result<Report, Failure> {
        Simulation::check(self, seed)
    }

    fn check_with(
        &mut self,
        seed: u64,
        change: &mut dyn FnMut(&mut Network),
    ) -> Result<Report, Failure> {
        self.check_through(seed, |mut network| {
            change(&mut network);
            network
        })
    }
}

type Put = fn(Simulated) -> Box<dyn Subject>;

/// What a system can be put into, by the last part of the name that it has there: `echo/tls`.
const LAYERS: [(&str, Put); 6] = [
    ("identity", identity),
    ("scrambled", scrambled),
    ("tls", |plain| {
        Box::new(plain.within(ends(TlsVersion::Tls13)))
    }),
    ("tls12", |plain| {
        Box::new(plain.within(ends(TlsVersion::Tls12)))
    }),
    ("proxied", behind_proxies),
    ("proxied-tls", |plain| {
        behind_proxies(plain.within(ends(TlsVersion::Tls13)))
    }),
];

/// Returns every system in each of the layers, with its name. `vary` changes the system first.
pub(crate) fn layered(
    vary: impl Fn(Simulated) -> Simulated,
) -> impl Iterator<Item = (String, Box<dyn Subject>)> {
    let others = [
        ("echo/broken-headers", broken_headers as fn() -> Simulated),
        ("echo/direct", direct),
        ("echo/untrusted", untrusted),
    ];
    let others = others.map(|(name, make)| {
        let subject: Box<dyn Subject> = Box::new(vary(make()));
        (name.to_owned(), subject)
    });

    let put = move |(name, make): &(&str, fn() -> Simulated)| {
        let (name, plain) = (*name, *make);
        LAYERS.map(|(layer, put)| (format!("{name}/{layer}"), put(vary(plain()))))
    };
    let systems = SYSTEMS
        .iter()
        .filter(|(name, _)| !OF_DATAGRAMS.contains(name));
    systems.flat_map(put).chain(others)
}

/// Returns one system in each of the layers, with its name.
pub(crate) fn in_layers(
    name: &str,
    make: impl Fn() -> Simulated,
) -> [(String, Box<dyn Subject>); LAYERS.len()] {
    LAYERS.map(|(layer, put)| (format!("{name}/{layer}"), put(make())))
}

/// Returns the systems without a layer, and of those in one the named ones.
pub(crate) fn some(
    names: &[&str],
    vary: impl Fn(Simulated) -> Simulated + Copy,
) -> impl Iterator<Item = (String, Box<dyn Subject>)> {
    let plain = SYSTEMS.iter().map(move |(name, make)| {
        let subject: Box<dyn Subject> = Box::new(vary(make()));
        ((*name).to_owned(), subject)
    });
    let layered: Vec<_> = layered(vary)
        .filter(|(name, _)| names.contains(&name.as_str()))
        .collect();
    assert_eq!(layered.len(), names.len(), "each name has its system");
    plain.chain(layered)
}

fn identity(plain: Simulated) -> Box<dyn Subject> {
    Box::new(plain.through(|| Identity, <[u8]>::to_vec, <[u8]>::to_vec))
}

fn scrambled(plain: Simulated) -> Box<dyn Subject> {
    let layer = Scrambled::new(200);
    let (seal, expect) = (
        move |part: &[u8]| layer.seal(part),
        move |all: &[u8]| layer.expect(all),
    );
    Box::new(plain.through(move || layer, seal, expect))
}

/// Returns what makes both ends of TLS, with clients that resume their sessions within a run.
pub(crate) fn ends(version: TlsVersion) -> impl FnMut() -> Ends + Clone {
    let clients = Clients::new(version);
    move || {
        let client = clients.client();
        Box::new(move |side| match side {
            Side::Accepted | Side::Remote => Tls::server(&SERVER),
            Side::Connected | Side::Client => Tls::client(&client, NAME).expect("it is a name"),
        })
    }
}

pub(crate) type Ends = Box<dyn FnMut(Side) -> Tls>;

static SERVER: LazyLock<ServerTls> = LazyLock::new(certificate::server);

/// Where all clients are.
const HERE: &str = "10.0.0.0/8,unix";
/// Where none are.
const ELSEWHERE: &str = "192.0.2.0/24";

/// Puts a system behind proxies that send headers of every kind.
fn behind_proxies<M, F>(plain: Simulation<M>) -> Box<dyn Subject>
where
    M: FnMut() -> F + 'static,
    F: Factory + 'static,
    F::Protocol: 'static,
{
    let proxy = Proxy::required(list(HERE));
    let headers = headers();
    let headers: Vec<&[u8]> = headers.iter().map(Vec::as_slice).collect();
    Box::new(plain.behind(move |peer: &Peer| proxy.reader(peer), &headers))
}

/// Returns a header of each kind that names a client, or none.
fn headers() -> Vec<Vec<u8>> {
    let address = |text: &str| text.parse::<Address>().expect("an address");
    let proxied = |from: &str, to: &str| {
        Header::proxied(address(from), address(to)).expect("they are of one kind")
    };
    let v4 = proxied("tcp://192.0.2.7:56324", "tcp://198.51.100.1:443");
    let v6 = proxied("tcp://[2001:db8::7]:56324", "tcp://[2001:db8::1]:443");
    let unix = proxied("unix:///run/from", "unix:///run/to");
    let tlvs = v6
        .clone()
        .with_tlv(0x02, b"example.org")
        .and_then(|header| header.with_tlv(0x05, &[7; 128]))
        .and_then(|header| header.with_tlv(0x04, &[0; 300]))
        .and_then(Header::with_checksum)
        .expect("they fit");

    let lines = [&v4, &v6, &Header::unknown()].map(|header| {
        let mut line = Vec::new();
        header.encode_v1(&mut line).expect("it has no TLVs");
        line
    });
    let binary = [&v4, &tlvs, &unix, &Header::local(), &Header::unknown()].map(|header| {
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes);
        bytes
    });
    lines.into_iter().chain(binary).collect()
}

/// An echo to proxies, or to others if the proxy says so.
fn echo(proxy: Proxy) -> Any {
    Any {
        build: Box::new(move |peer| {
            let reader = proxy.reader(peer)?;
            let build = |_: &Peer, _: &Option<Header<'static>>| Some(Echo);
            Some(Box::new(Prefaced::new(reader, build)))
        }),
        actions: Box::new(|_| {}),
    }
}

/// Behind a server for proxies only: proxies whose headers are broken, or missing, or not complete.
/// Nothing of what they send is served.
fn broken_headers() -> Simulated {
    let make = || echo(Proxy::required(list(HERE)));
    let [line, _, _, binary, ..] = &headers()[..] else {
        unreachable!("there are more")
    };
    let served = |header: &[u8]| Exchange::new([header, b"hello"].concat(), "hello");
    let refused = |header: &[u8]| Exchange::new([header, text(40).as_bytes()].concat(), "");

    let mut wrong = binary.clone();
    wrong[12] = 0x31;
    Simulation::new(make as fn() -> Any)
        .config(trusting(HERE))
        .client(served(line))
        .client(served(binary))
        .client(refused(
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 65536\r\n",
        ))
        .client(refused(&wrong))
        .client(refused(b""))
        .client(Exchange::new(&line[..line.len() - 1], "").ends_first())
        .client(Exchange::new(&binary[..20], "").ends_first())
        .client(Exchange::new("", "").ends_first())
}

/// A server that trusts proxies elsewhere: these clients come directly.
fn direct() -> Simulated {
    let make = || echo(Proxy::optional(list(ELSEWHERE)));
    let line = &headers()[0];
    let forged = [line, text(10).as_bytes()].concat();
    Simulation::new(make as fn() -> Any)
        .config(trusting(ELSEWHERE))
        .client(Exchange::new(text(40), text(40)))
        // What comes before it is seen to be a header may be served as data.
        .client(Exchange::new(&forged, &forged).may_be_cut())
        .datagram("hello", Some(b"hello"))
}

/// A server that trusts proxies of another network only. No simulated client is one of them.
fn untrusted() -> Simulated {
    let make = || echo(Proxy::required(list(ELSEWHERE)));
    Simulation::new(make as fn() -> Any)
        .config(trusting(ELSEWHERE))
        .client(Exchange::new([&headers()[0][..], b"hello"].concat(), ""))
        .client(Exchange::new("hello", ""))
}

fn list(text: &str) -> NetworkList {
    text.parse().expect("a list")
}

fn trusting(proxies: &str) -> Config {
    Config {
        trusted_proxies: list(proxies),
        ..Config::default()
    }
}
