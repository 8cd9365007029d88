//! The opening handshake of a WebSocket (RFC 6455), and its messages.

use crate::load::exchange::http::{Head, get};
use crate::load::exchange::{Check, Step, Talk, Wrong};

/// The key of the RFC's example, and the answer to it. Nothing depends on its being random: it shows
/// that the server has read the request.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// The bits of a first byte that need an extension.
const RESERVED: u8 = 0x70;
/// The longest payload of a control frame, in bytes.
const CONTROL_MOST: u64 = 125;
/// With this key a payload is the same in its mask.
const MASK: [u8; 4] = [0; 4];

/// Returns the request that makes a connection a WebSocket.
pub(crate) fn handshake(host: &str, path: &str) -> Result<Vec<u8>, String> {
    let more = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    );
    get(host, path, &more)
}

/// Returns a text as a frame of a client.
pub(crate) fn masked(text: &[u8]) -> Vec<u8> {
    frame(TEXT, text)
}

/// Returns a frame that shows that the client is there.
pub(crate) fn pong() -> Vec<u8> {
    frame(PONG, b"")
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FIN | opcode];
    let length = payload.len() as u64;
    let bytes = length.to_be_bytes();
    match length {
        0..=125 => frame.push(MASKED | bytes[7]),
        126..=0xffff => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&bytes[6..]);
        }
        _ => {
            frame.push(MASKED | 127);
            frame.extend_from_slice(&bytes);
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend_from_slice(payload);
    frame
}

/// Reads the answer to the handshake. Returns how many bytes it has, or `None` if it is incomplete.
pub(crate) fn opened(data: &[u8]) -> Result<Option<usize>, Wrong> {
    let Some(head) = Head::parse(data)? else {
        return Ok(None);
    };
    if head.status != 101 {
        return Err(format!(
            "the handshake is answered with the status {}",
            head.status
        ));
    }

    let has = |name, expected: &str| {
        let words = head.field(name).unwrap_or_default().split(',');
        let mut words = words.map(str::trim);
        words.any(|word| word.eq_ignore_ascii_case(expected))
    };
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Err("the handshake is answered without Upgrade: websocket".to_owned());
    }
    if head.field("sec-websocket-accept") != Some(ACCEPT) {
        return Err("the handshake is answered with another Sec-WebSocket-Accept".to_owned());
    }
    Ok(Some(head.size))
}

#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// How many bytes of a frame are still missing, and whether it is the last one of its message.
    current: Option<(u64, bool)>,
    /// Whether the message has begun with an earlier frame.
    is_within: bool,
}

impl FrameReader {
    pub(super) fn read(
        &mut self,
        data: &[u8],
        check: &mut Check,
        talk: &Talk,
        answer: &mut Vec<u8>,
    ) -> Result<Step, Wrong> {
        let Some((rest, is_last)) = self.current else {
            return self.header(data, check, talk, answer);
        };
        let taken = usize::try_from(rest).map_or(data.len(), |rest| rest.min(data.len()));
        check.content(&data[..taken], talk)?;
        self.current = Some((rest - taken as u64, is_last));
        self.step(taken, check, talk)
    }

    fn header(
        &mut self,
        data: &[u8],
        check: &mut Check,
        talk: &Talk,
        answer: &mut Vec<u8>,
    ) -> Result<Step, Wrong> {
        let Some((size, length)) = length(data)? else {
            return Ok(Step::default());
        };
        let (is_last, opcode) = (data[0] & FIN != 0, data[0] & 0x0f);
        match opcode {
            CLOSE | PING | PONG => return control(opcode, length, size, data, answer),
            TEXT if !self.is_within => {}
            0 if self.is_within => {}
            _ => {
                return Err(format!(
                    "a frame with the opcode {opcode} in place of a text"
                ));
            }
        }
        self.is_within = true;
        self.current = Some((length, is_last));
        self.step(size, check, talk)
    }

    /// Ends the frame, and the message, if nothing of it is missing.
    fn step(&mut self, taken: usize, check: &mut Check, talk: &Talk) -> Result<Step, Wrong> {
        let mut ended = false;
        if let Some((0, is_last)) = self.current {
            self.current = None;
            ended = is_last;
        }
        if ended {
            self.is_within = false;
            check.end(talk)?;
        }
        Ok(Step { taken, ended })
    }
}

/// Takes a control frame, if all of it is there.
fn control(
    opcode: u8,
    length: u64,
    size: usize,
    data: &[u8],
    answer: &mut Vec<u8>,
) -> Result<Step, Wrong> {
    if length > CONTROL_MOST {
        return Err("a control frame that is too long".to_owned());
    }
    let end = size + usize::try_from(length).unwrap_or(0);
    let Some(payload) = data.get(size..end) else {
        return Ok(Step::default());
    };
    match (opcode, payload) {
        (CLOSE, [high, low, ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            return Err(format!(
                "the server closes the WebSocket with the status {code}"
            ));
        }
        (CLOSE, _) => return Err("the server closes the WebSocket".to_owned()),
        (PING, _) => answer.extend(frame(PONG, payload)),
        _ => {}
    }
    Ok(Step {
        taken: end,
        ended: false,
    })
}

/// Reads the start of a frame. Returns how many bytes that has, and the payload.
fn length(data: &[u8]) -> Result<Option<(usize, u64)>, Wrong> {
    let [first, second, rest @ ..] = data else {
        return Ok(None);
    };
    if first & RESERVED != 0 {
        return Err("a frame of an extension that was not agreed on".to_owned());
    }
    if second & MASKED != 0 {
        return Err("a frame in a mask, which only clients send".to_owned());
    }
    Ok(match second {
        126 => rest
            .first_chunk()
            .map(|bytes| (4, u16::from_be_bytes(*bytes).into())),
        127 => rest
            .first_chunk()
            .map(|bytes| (10, u64::from_be_bytes(*bytes))),
        short => Some((2, u64::from(*short))),
    })
}
