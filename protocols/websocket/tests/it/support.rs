//! Frames, and sessions for one test.

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Limits, Protocol};
use serveloop_websocket::{MessageProtocol, Settings, WebSocket};

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;
/// Less the bit of the last frame of a message.
pub(crate) const MORE: u8 = 0x7f;
pub(crate) const LAST: u8 = 0x80;

/// Without pings, which nobody asked for.
pub(crate) const QUIET: Settings = Settings {
    ping_interval: None,
    max_head: 16 << 10,
    close_timeout: std::time::Duration::from_secs(5),
    compression: serveloop_websocket::Compression::Off,
};

/// A frame as a client sends it.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let (payload, key) = (payload.as_ref(), [0x37, 0xfa, 0x21, 0x3d]);
    let mut frame = plain(first, payload);
    frame[1] |= 0x80;
    let header = frame.len() - payload.len();
    let masked = payload
        .iter()
        .zip(key.iter().cycle())
        .map(|(byte, key)| byte ^ key);
    let masked: Vec<u8> = key.into_iter().chain(masked).collect();
    frame.truncate(header);
    frame.extend(masked);
    frame
}

/// A frame as a server sends it.
pub(crate) fn plain(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(short as u8),
        middle @ 126..=0xffff => {
            frame.push(126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// The payload of a close frame.
pub(crate) fn farewell(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// The close frame that a server sends.
pub(crate) fn closed(code: u16, reason: &str) -> Vec<u8> {
    plain(CLOSE, farewell(code, reason))
}

pub(crate) fn open<H: MessageProtocol>(handler: H) -> MemorySession<WebSocket<H>> {
    MemorySession::with_config(WebSocket::new(handler, QUIET), greeted())
}

/// The usual limits of a client whose request is done.
pub(crate) fn greeted() -> Config {
    let limits = Limits {
        first_message_timeout: None,
        ..Limits::default()
    };
    Config {
        limits,
        ..Config::default()
    }
}

/// Without deadlines, so that a test decides what happens.
pub(crate) fn patient(limits: Limits) -> Config {
    let limits = Limits {
        first_message_timeout: None,
        message_timeout: None,
        idle_timeout: None,
        write_timeout: None,
        ..limits
    };
    Config {
        limits,
        ..Config::default()
    }
}

/// What a client is told that sends all of `input`, cut in every place, byte by byte and whole, and how
/// its connection ends: the same in all ways.
#[track_caller]
pub(crate) fn answer<P: Protocol>(make: impl Fn() -> P, input: &[u8]) -> (Vec<u8>, String) {
    let run = |pieces: &[&[u8]]| {
        let mut session = MemorySession::with_config(make(), patient(Limits::default()));
        pieces.iter().for_each(|piece| session.receive(piece));
        session.receive_eof();
        let reason = session.reason().map(CloseReason::to_string);
        (session.sent(), reason.unwrap_or_default())
    };

    let whole = run(&[input]);
    let bytes: Vec<_> = input.chunks(1).collect();
    assert_eq!(run(&bytes), whole, "byte by byte: {input:x?}");
    for at in 1..input.len() {
        assert_eq!(run(&[&input[..at], &input[at..]]), whole, "cut at {at}");
    }
    whole
}
