//! RFC 6455 as an echo, for a reader that has the whole stream.

/// The first byte and the payload of a frame. Of a close frame only the code.
pub(super) type Frame = (u8, Vec<u8>);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After the close frames.
    Closed,
    /// Between two messages.
    Clean,
    /// Within a message.
    Truncated,
    /// By a client that breaks the rules.
    Wrong,
}

/// A frame of the client, of which some of the payload may be missing.
struct Received<'a> {
    first: u8,
    length: u64,
    payload: Vec<u8>,
    rest: &'a [u8],
}

impl Received<'_> {
    fn is_whole(&self) -> bool {
        self.payload.len() as u64 == self.length
    }
}

/// What an echo sends for `stream`, if messages have at most `limit` bytes, and how it ends.
pub(super) fn answers(mut stream: &[u8], limit: usize) -> (Vec<Frame>, End) {
    let mut sent = Vec::new();
    let mut message: Option<(u8, Vec<u8>)> = None;
    let wrong = |mut sent: Vec<Frame>, code: u16| {
        sent.push((0x88, code.to_be_bytes().to_vec()));
        (sent, End::Wrong)
    };

    loop {
        let frame = match frame(stream) {
            Ok(Some(frame)) => frame,
            Ok(None) if stream.is_empty() && message.is_none() => return (sent, End::Clean),
            Ok(None) => return (sent, End::Truncated),
            Err(()) => return wrong(sent, 1002),
        };
        let (opcode, is_last) = (frame.first & 15, frame.first & 0x80 != 0);
        if opcode >= 8 {
            if !frame.is_whole() {
                return (sent, End::Truncated);
            }
            match opcode {
                8 => return close(sent, &frame.payload),
                9 => sent.push((0x8a, frame.payload)),
                _ => {}
            }
            stream = frame.rest;
            continue;
        }

        let (kind, mut payload) = match (opcode, message.take()) {
            (0, Some(message)) => message,
            (1 | 2, None) => (opcode, Vec::new()),
            _ => return wrong(sent, 1002),
        };
        if payload.len() as u64 + frame.length > limit as u64 {
            return wrong(sent, 1009);
        }
        payload.extend(&frame.payload);
        let is_complete = frame.is_whole() && is_last;
        if kind == 1 && !is_text(&payload, is_complete) {
            return wrong(sent, 1007);
        }
        if !frame.is_whole() {
            return (sent, End::Truncated);
        }
        stream = frame.rest;
        match is_complete {
            true => sent.push((0x80 | kind, payload)),
            false => message = Some((kind, payload)),
        }
    }
}

/// Returns the frame at the front, if its header is there.
fn frame(data: &[u8]) -> Result<Option<Received<'_>>, ()> {
    let Some(&first) = data.first() else {
        return Ok(None);
    };
    let is_control = first & 8 != 0;
    let is_known = matches!(first & 15, 0..=2 | 8..=10);
    if first & 0x70 != 0 || !is_known || (is_control && first < 0x80) {
        return Err(());
    }
    let Some(&second) = data.get(1) else {
        return Ok(None);
    };
    if second < 0x80 || (is_control && second > 0x80 | 125) {
        return Err(());
    }

    let width = match second & 127 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(long) = data.get(2..2 + width) else {
        return Ok(None);
    };
    let long = long
        .iter()
        .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let length = match width {
        0 => u64::from(second & 127),
        2 if long < 126 => return Err(()),
        8 if long < 0x1_0000 || long >> 63 == 1 => return Err(()),
        _ => long,
    };
    let Some(key) = data.get(2 + width..6 + width) else {
        return Ok(None);
    };

    let rest = &data[6 + width..];
    let count = rest
        .len()
        .min(usize::try_from(length).unwrap_or(usize::MAX));
    let (payload, rest) = rest.split_at(count);
    let payload = payload.iter().enumerate();
    Ok(Some(Received {
        first,
        length,
        payload: payload.map(|(at, byte)| byte ^ key[at % 4]).collect(),
        rest,
    }))
}

/// Returns whether the bytes are text, or can become text if more follows.
fn is_text(bytes: &[u8], is_complete: bool) -> bool {
    if std::str::from_utf8(bytes).is_ok() || is_complete {
        return std::str::from_utf8(bytes).is_ok();
    }
    // Each character that has begun can end in one of these ways.
    let seconds = [0x80, 0x90, 0xa0];
    let ends = seconds.into_iter().flat_map(|second| {
        let whole = [second, 0x80, 0x80];
        (1..=3).map(move |count| whole[..count].to_vec())
    });
    let mut whole = ends.map(|end| [bytes, &end].concat());
    whole.any(|whole| std::str::from_utf8(&whole).is_ok())
}

/// Answers the client's close frame.
fn close(mut sent: Vec<Frame>, payload: &[u8]) -> (Vec<Frame>, End) {
    let code = match payload {
        [] => Some(0),
        [_] => None,
        [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
    };
    let is_allowed =
        code.is_some_and(|code| matches!(code, 0 | 1000..=1003 | 1007..=1014 | 3000..=4999));
    let is_zero = payload.get(..2) == Some(&[0, 0]);
    let refused = if !is_allowed || is_zero {
        Some(1002_u16)
    } else if std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() {
        Some(1007)
    } else {
        None
    };

    match refused {
        Some(code) => {
            sent.push((0x88, code.to_be_bytes().to_vec()));
            (sent, End::Wrong)
        }
        None => {
            sent.push((0x88, payload.get(..2).unwrap_or_default().to_vec()));
            (sent, End::Closed)
        }
    }
}

/// Returns the frame at the front of what a server sent, and what follows.
pub(super) fn sent_frame(data: &[u8]) -> Option<(Frame, &[u8])> {
    let (first, length, rest) = match data {
        [first, 126, high, low, rest @ ..] => {
            (first, usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        [first, length @ 0..126, rest @ ..] => (first, usize::from(*length), rest),
        _ => return None,
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    let most = if *first == 0x88 { 2 } else { usize::MAX };
    let payload = payload[..payload.len().min(most)].to_vec();
    Some(((*first, payload), rest))
}

/// Returns whether a request has everything that it must have, however it is written.
pub(super) fn is_complete(stream: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stream).to_ascii_lowercase();
    let head = text.trim_start_matches("\r\n");
    let head = head.split("\r\n\r\n").next().unwrap_or_default();
    let needed = [
        "get ",
        " http/1.1",
        "host:",
        "websocket",
        "upgrade:",
        "connection:",
        "sec-websocket-key:",
        "sec-websocket-version:",
    ];
    head.starts_with("get ") && needed.iter().all(|part| head.contains(part))
}
