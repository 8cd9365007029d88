//! Headers of the PROXY protocol, compared with two parsers that others wrote.

mod differences;
mod made;
mod oracles;

use std::cell::RefCell;
use std::rc::Rc;

use serveloop::layer::Prefaced;
use serveloop::layer::proxy::{Command, Header, LIMIT_MOST, Proxy, ProxyError};
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{Address, Config, Peer, ProtocolError};

pub use differences::{DIFFERENCES, Difference};
pub use oracles::Oracle;

/// The result of parsing a header.
type Parsed<'a> = Result<Option<(Header<'a>, usize)>, ProxyError>;

/// How a header is made and broken, or the header itself. Wherever it is cut, the parser says the
/// same, and so does a session; written, it is read again; and the other parsers say the same, except for the
/// [`DIFFERENCES`].
///
/// # Panics
/// When it is otherwise.
pub fn target(data: &[u8]) {
    let data = made::header(data);
    let parsed = parse(&data);
    is_told_early(&data, &parsed);
    is_the_same_in_pieces(&data);
    match &parsed {
        Ok(Some((header, _))) => is_read_again(header),
        Ok(None) => {}
        Err(error) => is_clear(&data, error),
    }
    for oracle in [Oracle::Ppp, Oracle::ProxyHeader] {
        let known = differences::compare(oracle, &data, &parsed);
        assert!(known.is_ok(), "{oracle:?}: {known:?}, {}", shown(&data));
    }
}

fn shown(data: &[u8]) -> String {
    data.escape_ascii().to_string()
}

fn parse(data: &[u8]) -> Parsed<'_> {
    Header::parse_within(data, LIMIT_MOST)
}

/// A prefix of a header is incomplete, and what follows a header makes no difference; an error is
/// the same from its first wrong byte on.
fn is_told_early(data: &[u8], parsed: &Parsed<'_>) {
    let mut has_failed = false;
    for cut in (0..data.len()).step_by(1 + data.len() / 20) {
        let partial = parse(&data[..cut]);
        match parsed {
            Ok(Some((_, length))) if cut >= *length => assert_eq!(partial, *parsed),
            Ok(_) => assert_eq!(partial, Ok(None), "{cut} of {}", shown(data)),
            Err(_) => {
                let is_same = partial == *parsed;
                let is_early = partial == Ok(None) && !has_failed;
                assert!(is_same || is_early, "{cut} of {}: {partial:?}", shown(data));
                has_failed = is_same;
            }
        }
    }

    let more = [data, b"\r\n"].concat();
    if !matches!(parsed, Ok(None)) {
        assert_eq!(parse(&more), *parsed);
    }
}

/// A proxy that sends the bytes, in whatever pieces, is the same client, and what follows the header is
/// shown once.
fn is_the_same_in_pieces(data: &[u8]) {
    let outcome = |size: usize| {
        let from: Address = "tcp://192.0.2.1:1".parse().expect("an address");
        let proxy = Proxy::required("192.0.2.1".parse().expect("a list"));
        let peer = Peer::new(from, Some(0));
        let reader = proxy.reader(&peer).expect("it is trusted");
        let client = Rc::new(RefCell::new(None));
        let seen = Rc::clone(&client);
        let build = move |peer: &Peer, _: &Option<Header<'static>>| {
            seen.replace(Some(peer.clone()));
            Some(Echo)
        };

        let prefaced = Prefaced::new(reader, build);
        let mut session = MemorySession::with_peer(prefaced, Config::default(), peer);
        for piece in data.chunks(size) {
            session.receive(piece);
        }
        session.receive_eof();
        let reason = session.reason().map(ToString::to_string);
        (client.take(), session.sent(), reason)
    };

    let whole = outcome(data.len().max(1));
    for size in [1 + data.len() / 3, 1 + data.len() / 40] {
        assert_eq!(outcome(size), whole, "by {size}: {}", shown(data));
    }
}

fn is_read_again(header: &Header<'_>) {
    let kept = header.clone().into_owned();
    assert_eq!(kept, *header);

    let mut binary = b"before".to_vec();
    header.encode_v2(&mut binary);
    let binary = &binary[6..];
    let (again, length) = parse(binary).expect("it was written").expect("all of it");
    assert_eq!(length, binary.len());
    assert_eq!(facts(&again), facts(header));

    let mut text = Vec::new();
    let written = header.encode_v1(&mut text);
    assert_eq!(written.is_err(), header.tlvs().next().is_some());
    if written.is_err() {
        return assert_eq!(text, b"");
    }
    let (again, length) = parse(&text).expect("it was written").expect("all of it");
    assert_eq!((length, again.command()), (text.len(), Command::Proxy));
    let is_tcp = matches!(header.source(), Some(Address::Tcp(_)));
    assert_eq!(again.source(), header.source().filter(|_| is_tcp));
    assert_eq!(again.destination(), header.destination().filter(|_| is_tcp));
}

/// What a header says, without its checksum, which depends on the form it is written in.
type Facts = (
    Command,
    Option<Address>,
    Option<Address>,
    Vec<(u8, Vec<u8>)>,
);

fn facts(header: &Header<'_>) -> Facts {
    let tlvs = header.tlvs().filter(|(kind, _)| *kind != made::CRC32C);
    (
        header.command(),
        header.source().cloned(),
        header.destination().cloned(),
        tlvs.map(|(kind, value)| (kind, value.to_vec())).collect(),
    )
}

/// An error is one line, and says of a checksum what another computation says.
fn is_clear(data: &[u8], error: &ProxyError) {
    if let ProxyError::Checksum { stated, computed } = error {
        let length = 16 + usize::from(u16::from_be_bytes([data[14], data[15]]));
        let header = &data[..length];
        let stated = stated.to_be_bytes();
        let mut places = (16..length - 3).filter(|at| header[*at..*at + 4] == stated);
        assert!(places.any(|at| made::checksum(header, at) == *computed));
    }

    let text = ProtocolError::from(error.clone()).to_string();
    assert!(text.contains("PROXY header"), "{text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
