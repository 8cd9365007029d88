//! WebSocket, compared with a model that sees the whole stream at once.

mod model;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Factory, Limits, Peer, Protocol, ProtocolError};
use serveloop_websocket::{Accept, Echo, Request, Settings, WebSocket, websocket_with};

use crate::input::{Input, pieces, spelled};
use model::{End, Frame};

/// What some bytes mean in a request.
const WORDS: [&str; 12] = [
    "GET / HTTP/1.1\r\nHost: x\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "\r\n",
    "GET ",
    " HTTP/1.1\r\n",
    "Connection: ",
    "Content-Length: 0\r\n",
    "Sec-WebSocket-Protocol: a, b\r\n",
    "Origin: null\r\n",
    "POST",
];

/// Payloads, among them parts of characters.
const PAYLOADS: [&[u8]; 12] = [
    b"",
    b"a",
    b"\xe2\x82",
    b"\xac",
    b"\xf0\x9f\x98",
    b"\x80",
    b"\xed",
    b"\xff",
    b"\x03\xe8",
    b"\x03\xedbye",
    &[b'x'; 130],
    b"\xc3\xa9 and more",
];

/// The bytes of a control frame's payload and of a header, which are kept besides a message.
const HEADER_MOST: usize = 14 + 125;

/// The limit, the places of the cuts, and frames, right and wrong, or a request. However they are cut, the
/// answers are those of the model, and no more is kept than the limit allows. A request is accepted only
/// if it says what it must.
///
/// # Panics
/// When it is otherwise.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let is_request = input.below(4) == 0;
    let limit = match input.byte() {
        255 => Limits::default().max_frame,
        limit => usize::from(limit),
    };
    let sizes = input.sizes();
    if is_request {
        return check_request(&spelled(input.rest(), &WORDS), &sizes);
    }

    let stream = frames(input);
    let expected = model::answers(&stream, limit);
    let open = || WebSocket::new(Echo, quiet());
    let whole = told(open(), limit, &[&stream]);
    assert_eq!((frames_of(&whole.0), whole.1), expected, "{stream:x?}");
    let cut = told(open(), limit, &pieces(&stream, &sizes));
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes: {stream:x?}");
}

/// Frames of a client, and bytes of any kind between them.
fn frames(mut input: Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() {
        let first = match input.below(32) {
            choice @ 0..20 => {
                [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x80, 0x00][choice % 10]
            }
            20 => 0x88,
            21 => input.byte(),
            22..24 => {
                stream.push(input.byte());
                continue;
            }
            _ => [0x01, 0x00, 0x00, 0x80][input.below(4)],
        };
        let mut payload = PAYLOADS[input.below(PAYLOADS.len())].to_vec();
        payload.extend(PAYLOADS[input.below(PAYLOADS.len())]);

        let key = [input.byte(), 1, 2, 3];
        stream.push(first);
        match payload.len() {
            short if short < 126 => stream.push(0x80 | short as u8),
            long => {
                stream.push(0x80 | 126);
                stream.extend((long as u16).to_be_bytes());
            }
        }
        stream.extend(key);
        let masked = payload.iter().zip(key.iter().cycle());
        stream.extend(masked.map(|(byte, key)| byte ^ key));
    }
    stream
}

fn quiet() -> Settings {
    Settings {
        ping_interval: None,
        ..Settings::default()
    }
}

/// What a client is told, and how its connection ends.
fn told(protocol: impl Protocol, limit: usize, pieces: &[&[u8]]) -> (Vec<u8>, End) {
    let config = Config {
        limits: Limits {
            max_frame: limit,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut session = MemorySession::with_config(protocol, config);
    for piece in pieces {
        session.receive(piece);
        // Buffers grow by doubling.
        let held = session.held();
        assert!(held <= 2 * (limit + HEADER_MOST), "{held} bytes are kept");
    }
    session.receive_eof();

    let end = match session.reason().expect("the stream has ended") {
        CloseReason::Closed => End::Closed,
        CloseReason::PeerClosed => End::Clean,
        CloseReason::Protocol(ProtocolError::Truncated { .. }) => End::Truncated,
        CloseReason::Protocol(_) => End::Wrong,
        reason => panic!("{reason}"),
    };
    (session.sent(), end)
}

/// The frames that a server sent, close frames without the text.
fn frames_of(mut sent: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !sent.is_empty() {
        let (frame, rest) = model::sent_frame(sent).expect("whole frames");
        frames.push(frame);
        sent = rest;
    }
    frames
}

/// A request is answered in the same way however it is cut. The response is a whole one.
fn check_request(stream: &[u8], sizes: &[usize]) {
    let serve = || {
        let mut factory = websocket_with(quiet(), |_: &Request<'_>| Ok(Accept::new(Echo)));
        let peer = Peer::new("tcp://192.0.2.1:4711".parse().expect("an address"), Some(0));
        factory.build_protocol(&peer).expect("a protocol")
    };
    let limit = Limits::default().max_frame;
    let whole = told(serve(), limit, &[stream]);
    let cut = told(serve(), limit, &pieces(stream, sizes));
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes");

    let sent = String::from_utf8_lossy(&whole.0);
    let Some((head, body)) = sent.split_once("\r\n\r\n") else {
        assert!(sent.is_empty() && stream.is_empty(), "{sent}");
        return;
    };
    if head.starts_with("HTTP/1.1 101 ") {
        assert!(model::is_complete(stream), "accepted");
        return;
    }
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let known = ["400", "405", "426", "431"];
    assert!(
        status.is_some_and(|status| known.contains(&status)),
        "{head}"
    );
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{sent}"
    );
}
