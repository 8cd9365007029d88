//! WebSocket, compared with a model that sees the whole stream at once.

mod model;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Factory, Limits, Peer, Protocol, ProtocolError};
use serveloop_websocket::{
    Accept, Compression, Echo, Request, Settings, WebSocket, websocket_with,
};

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

/// Parts of compressed messages, and what is none.
const COMPRESSED: [&[u8]; 12] = [
    b"",
    &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
    &[0, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0],
    &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
    &[0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff],
    &[0xca, 0xc9, 0xc9, 0x07, 0],
    // 300 times the same byte.
    &[
        0xab, 0x18, 0x05, 0xa3, 0x60, 0x14, 0x8c, 0x82, 0x51, 0x30, 0x0a, 0,
    ],
    b"\x00",
    b"\xff",
    b"\xf2",
    &[b'x'; 130],
    b"\x03\xe8",
];

/// About what a decompressor takes.
const INFLATE_MOST: usize = 56 << 10;

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
    let kind = input.below(4);
    let limit = match input.byte() {
        255 => Limits::default().max_frame,
        limit => usize::from(limit),
    };
    let sizes = input.sizes();
    match kind {
        0 => return check_request(&spelled(input.rest(), &WORDS), &sizes),
        1 => return check_compressed(&frames(input, &COMPRESSED), limit, &sizes),
        _ => {}
    }

    let stream = frames(input, &PAYLOADS);
    let expected = model::answers(&stream, limit);
    let open = || WebSocket::new(Echo, quiet());
    let whole = told(open(), limit, &[&stream]);
    assert_eq!((frames_of(&whole.0), whole.1), expected, "{stream:x?}");
    let cut = told(open(), limit, &pieces(&stream, &sizes));
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes: {stream:x?}");
}

/// Frames of a client, and bytes of any kind between them.
fn frames(mut input: Input<'_>, payloads: &[&[u8]]) -> Vec<u8> {
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
            _ => [0x01, 0x00, 0xc1, 0x80, 0x42, 0x00][input.below(6)],
        };
        let mut payload = payloads[input.below(payloads.len())].to_vec();
        payload.extend(payloads[input.below(payloads.len())]);

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
        let most = 2 * (limit + HEADER_MOST) + INFLATE_MOST;
        assert!(held <= most, "{held} bytes are kept");
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

/// Compressed messages are read in the same way however they are cut.
fn check_compressed(frames: &[u8], limit: usize, sizes: &[usize]) {
    let head = [WORDS[0], WORDS[1], WORDS[2], WORDS[3]].concat();
    let head = format!("{head}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    let stream = [head.as_bytes(), frames].concat();
    let whole = told(server(Compression::Deflate), limit, &[&stream]);
    let cut = told(server(Compression::Deflate), limit, &pieces(&stream, sizes));
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes: {frames:x?}");
}

fn server(compression: Compression) -> impl Protocol {
    let settings = Settings {
        compression,
        ..quiet()
    };
    let mut factory = websocket_with(settings, |_: &Request<'_>| Ok(Accept::new(Echo)));
    let peer = Peer::new("tcp://192.0.2.1:4711".parse().expect("an address"), Some(0));
    factory.build_protocol(&peer).expect("a protocol")
}

/// A request is answered in the same way however it is cut. The response is a whole one.
fn check_request(stream: &[u8], sizes: &[usize]) {
    let serve = || server(Compression::Off);
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
