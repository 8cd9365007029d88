//! The same bytes for tungstenite, another implementation, and its client against this server.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serveloop::testing::MemorySession;
use serveloop::{Factory, Limits, Peer, Protocol, Result};
use serveloop_websocket::{
    Accept, Echo, Message, MessageProtocol, MessageTransport, Request, WebSocket, websocket_with,
};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message as Theirs};

use crate::support::{CLOSE, LAST, PING, PONG, QUIET, farewell, frame, patient, plain};

/// The longest message in both implementations.
const LONGEST: usize = 300;

/// What came of a stream of frames: the messages, and the code of the close frame or of the error that
/// ended it. None if the stream just ended.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    messages: Vec<(bool, Vec<u8>)>,
    code: Option<u16>,
}

type Shared = Rc<RefCell<Vec<(bool, Vec<u8>)>>>;

struct Recorder(Shared);

impl MessageProtocol for Recorder {
    fn message_received(&mut self, message: Message<'_>, _: &mut MessageTransport<'_>) -> Result {
        let is_text = matches!(message, Message::Text(_));
        let message = (is_text, message.as_bytes().to_vec());
        self.0.borrow_mut().push(message);
        Ok(())
    }
}

fn ours(pieces: &[&[u8]]) -> Outcome {
    let limits = Limits {
        max_frame: LONGEST,
        ..Limits::default()
    };
    let messages = Shared::default();
    let protocol = WebSocket::new(Recorder(Rc::clone(&messages)), QUIET);
    let mut session = MemorySession::with_config(protocol, patient(limits));
    pieces.iter().for_each(|piece| session.receive(piece));
    session.receive_eof();

    let (sent, messages) = (session.sent(), messages.take());
    let code = last_close(&sent);
    Outcome { messages, code }
}

/// The code of the close frame at the end of what a server sent: 1005 for one without a code.
fn last_close(mut sent: &[u8]) -> Option<u16> {
    let mut code = None;
    while let [first, length, rest @ ..] = sent {
        let (payload, after) = rest.split_at(usize::from(*length));
        assert_eq!(code, None, "something after a close frame");
        if *first == CLOSE {
            let said = payload.first_chunk().copied().map(u16::from_be_bytes);
            code = Some(said.unwrap_or(1005));
        }
        sent = after;
    }
    code
}

/// A stream that is all there, and takes everything.
struct Script<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(input: &[u8]) -> Outcome {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST));
    let script = Script {
        input,
        output: Vec::new(),
    };
    let mut socket = tungstenite::WebSocket::from_raw_socket(script, Role::Server, Some(config));

    let mut messages = Vec::new();
    let code = loop {
        match socket.read() {
            Ok(Theirs::Text(text)) => messages.push((true, text.as_bytes().to_vec())),
            Ok(Theirs::Binary(bytes)) => messages.push((false, bytes.to_vec())),
            Ok(Theirs::Close(_)) => {
                let _ = socket.flush();
                break last_close(&socket.get_ref().output);
            }
            Ok(_) => {}
            Err(Error::Utf8(_)) => break Some(1007),
            Err(Error::Capacity(_)) => break Some(1009),
            Err(Error::Protocol(error)) => {
                let is_end = error.to_string().contains("without closing handshake");
                break (!is_end).then_some(1002);
            }
            Err(Error::Io(_) | Error::ConnectionClosed) => break None,
            Err(error) => panic!("{error}"),
        }
    };
    Outcome { messages, code }
}

/// Pieces of text, with and without all bytes of a character.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known: &[&[u8]] = &[
        b"",
        b"a",
        "\u{e9}\u{20ac}\u{1f600}".as_bytes(),
        b"\xe2\x82",
        b"\xac",
        b"\xf0\x9f",
        b"\x98\x80",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf4\x90",
        &[b'x'; 126],
        &[b'y'; 250],
    ];
    let known: Vec<Vec<u8>> = known.iter().map(|bytes| bytes.to_vec()).collect();
    prop::sample::select(known)
}

/// A frame, more often right than wrong. Left out is what tungstenite does otherwise: it takes lengths in
/// more bytes than they need, and refuses the code 1014, which was registered later.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let data = (
        prop::sample::select(vec![0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x01, 0x00]),
        piece(),
    );
    let control = (prop::sample::select(vec![PING, PONG]), piece());
    let codes = vec![
        999, 1000, 1003, 1004, 1005, 1006, 1011, 1015, 2999, 3000, 4999, 5000,
    ];
    let close = (prop::sample::select(codes), "[a-z\u{20ac}]{0,9}");
    let odd = prop::sample::select(vec![0x09, 0x08, 0xc1, 0x83, 0x8f, 0x91, 0x0b]);
    prop_oneof![
        12 => data.prop_map(|(first, payload)| frame(first, payload)),
        4 => control.prop_map(|(first, payload)| frame(first, payload)),
        1 => close.prop_map(|(code, reason)| frame(CLOSE, farewell(code, &reason))),
        1 => prop::sample::select(vec![vec![], vec![3], vec![3, 232, 255]]).prop_map(|payload| frame(CLOSE, payload)),
        1 => odd.prop_map(|first| frame(first, "odd")),
        1 => Just(plain(LAST, "unmasked")),
    ]
}

/// As many cases as `PROPTEST_CASES` says, the same ones in every run unless `PROPTEST_RNG_SEED` says
/// otherwise.
fn cases() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 2_000;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(6_455);
    }
    config.failure_persistence = None;
    config
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn both_make_the_same_of_any_frames(
        frames in prop::collection::vec(any_frame(), 0..12),
        cut in 1_usize..40,
    ) {
        let input = frames.concat();
        let expected = theirs(&input);
        prop_assert_eq!(ours(&[&input]), expected);
        let pieces: Vec<_> = input.chunks(cut).collect();
        prop_assert_eq!(ours(&pieces), theirs(&input));
    }

    #[test]
    fn both_make_the_same_of_any_key(key in prop::array::uniform16(any::<u8>())) {
        let mut factory = websocket_with(QUIET, |_: &Request<'_>| Ok(Accept::new(Echo)));
        let peer = Peer::new("tcp://192.0.2.1:4711".parse().unwrap(), Some(0));
        let mut session = MemorySession::new(factory.build_protocol(&peer).unwrap());
        let key = in_base64(&key);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        session.receive(request.as_bytes());
        let response = String::from_utf8(session.sent()).unwrap();
        let line = format!("Sec-WebSocket-Accept: {}\r\n", derive_accept_key(key.as_bytes()));
        prop_assert!(response.contains(&line), "{}", response);
    }
}

fn in_base64(bytes: &[u8; 16]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u128::from_be_bytes(*bytes);
    let digit = |number: u32| {
        let from_top = 6 * (number + 1);
        let digit = match 128_u32.checked_sub(from_top) {
            Some(shift) => bits >> shift,
            None => bits << (from_top - 128),
        };
        char::from(DIGITS[usize::from(digit as u8 & 63)])
    };
    (0..22).map(digit).collect::<String>() + "=="
}

/// A client's end of a session in memory.
struct Wire<P> {
    session: MemorySession<P>,
    received: Vec<u8>,
}

impl<P: Protocol> Read for Wire<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.received.extend(self.session.sent());
        if self.received.is_empty() && self.session.reason().is_none() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.received.len()).min(1_000);
        buffer[..count].copy_from_slice(&self.received[..count]);
        self.received.drain(..count);
        Ok(count)
    }
}

impl<P: Protocol> Write for Wire<P> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // Not all at once.
        let data = &data[..data.len().min(777)];
        self.session.receive(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn its_client_talks_to_this_server() {
    let accept = |request: &Request<'_>| {
        assert_eq!(request.path(), "/chat");
        Ok(Accept::new(Echo))
    };
    let mut factory = websocket_with(QUIET, accept);
    let peer = Peer::new("tcp://192.0.2.1:4711".parse().unwrap(), Some(0));
    let wire = Wire {
        session: MemorySession::new(factory.build_protocol(&peer).unwrap()),
        received: Vec::new(),
    };
    let (mut socket, response) = tungstenite::client("ws://example.org/chat", wire).unwrap();
    assert_eq!(response.status(), 101);

    for length in [0, 1, 125, 126, 127, 4_000, 65_535, 65_536, 300_000] {
        for message in [
            Theirs::text("\u{20ac}".repeat(length / 3)),
            Theirs::binary(vec![0xff; length]),
        ] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
    }
    socket.send(Theirs::Ping("?".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Theirs::Pong("?".into()));

    let frame = CloseFrame {
        code: CloseCode::Library(4_001),
        reason: "enough".into(),
    };
    socket.close(Some(frame)).unwrap();
    let Theirs::Close(Some(answer)) = socket.read().unwrap() else {
        panic!("no close frame");
    };
    assert_eq!(answer.code, CloseCode::Library(4_001));
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
}
