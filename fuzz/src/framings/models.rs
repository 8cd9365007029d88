//! Decoders that look at the whole stream at once.

use serveloop::framing::ByteOrder;
#[allow(unused_imports, reason = "for the documentation")]
use serveloop::framing::{
    Delimited, FixedLength, LengthField, LengthPrefix, Lines, Netstring, Varint,
};

use super::{Decoded, End, Written};

/// The model of [`LengthPrefix`].
#[must_use]
pub fn length_prefix(width: usize, order: ByteOrder, max: usize, mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while stream.len() >= width {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&stream[..width]);
        if order == ByteOrder::BigEndian {
            bytes[..width].reverse();
        }
        let length = u128::from(u64::from_le_bytes(bytes));
        if length > max as u128 {
            return (frames, End::TooLong);
        }
        if (stream.len() as u128) < width as u128 + length {
            return (frames, End::Truncated);
        }
        let (frame, rest) = stream[width..].split_at(length as usize);
        frames.push(frame.to_vec());
        stream = rest;
    }
    (frames, end_of_rest(stream.len(), width))
}

/// The model of a [`LengthPrefix`] whose lengths count something else than the message.
#[must_use]
pub fn adjusted_prefix(written: Written, max: usize, stream: &[u8]) -> Decoded {
    let Written { width, .. } = written;
    let written = Written {
        offset: 0,
        ..written
    };
    announced(written, stream, |following| {
        let fits = following <= max as i128;
        fits.then_some((width as i128, following))
    })
}

/// The model of [`LengthField`].
#[must_use]
pub fn length_field(written: Written, max: usize, stream: &[u8]) -> Decoded {
    let header = (written.offset + written.width) as i128;
    announced(written, stream, |following| {
        let fits = header + following <= max as i128;
        fits.then_some((0, header + following))
    })
}

/// Frames that have a length in their header. `place` says where the message begins in a frame and how
/// long it is, if this many bytes after the length are allowed.
fn announced(
    written: Written,
    mut stream: &[u8],
    place: impl Fn(i128) -> Option<(i128, i128)>,
) -> Decoded {
    let header = written.offset + written.width;
    let mut frames = Vec::new();
    while stream.len() >= header {
        let mut bytes = stream[written.offset..header].to_vec();
        if written.order == ByteOrder::LittleEndian {
            bytes.reverse();
        }
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let length = i128::from_str_radix(&digits, 16).expect("digits");
        let following = length + i128::from(written.adjustment);
        if following < 0 {
            return (frames, End::Malformed);
        }
        // What exceeds a `u64` is refused whatever the limit.
        let fits = following <= i128::from(u64::MAX);
        let Some((start, length)) = place(following).filter(|_| fits) else {
            return (frames, End::TooLong);
        };
        let end = start + length;
        if (stream.len() as i128) < end {
            return (frames, End::Truncated);
        }
        frames.push(stream[start as usize..end as usize].to_vec());
        stream = &stream[end as usize..];
    }
    (frames, end_of_rest(stream.len(), header))
}

/// The model of [`Varint`].
#[must_use]
pub fn varint(max: usize, mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    'frames: while !stream.is_empty() {
        let mut length = 0_u128;
        for (at, byte) in stream.iter().enumerate() {
            length += u128::from(byte % 128) * 128_u128.pow(at as u32);
            let is_last = *byte < 128;
            if length > max as u128 || (at == 9 && (!is_last || length > u64::MAX.into())) {
                return (frames, End::TooLong);
            }
            if !is_last {
                continue;
            }
            if at > 0 && *byte == 0 {
                return (frames, End::Malformed);
            }
            let rest = &stream[at + 1..];
            if (rest.len() as u128) < length {
                return (frames, End::Truncated);
            }
            frames.push(rest[..length as usize].to_vec());
            stream = &rest[length as usize..];
            continue 'frames;
        }
        return (frames, End::Truncated);
    }
    (frames, End::Clean)
}

/// The model of [`FixedLength`].
#[must_use]
pub fn fixed_length(length: usize, stream: &[u8]) -> Decoded {
    let frames = stream.chunks_exact(length);
    let left = frames.remainder().len();
    (
        frames.map(<[u8]>::to_vec).collect(),
        end_of_rest(left, length),
    )
}

/// The model of [`Lines`].
#[must_use]
pub fn lines(max: usize, mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while let Some(at) = stream.iter().position(|byte| *byte == b'\n') {
        let line = stream[..at].strip_suffix(b"\r").unwrap_or(&stream[..at]);
        if line.len() > max {
            return (frames, End::TooLong);
        }
        frames.push(line.to_vec());
        stream = &stream[at + 1..];
    }
    (frames, end_of_rest(stream.len(), max.saturating_add(1)))
}

/// The same for lines of which the last needs no end.
pub(super) fn with_last_line((mut frames, end): Decoded, max: usize, stream: &[u8]) -> Decoded {
    let last = stream
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    match end {
        End::Truncated if last.len() <= max => {
            frames.push(last.to_vec());
            (frames, End::Clean)
        }
        End::Truncated => (frames, End::TooLong),
        _ => (frames, end),
    }
}

/// The model of [`Delimited`].
#[must_use]
pub fn delimited(delimiter: &[u8], max: usize, mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    let find = |stream: &[u8]| {
        let mut windows = stream.windows(delimiter.len());
        windows.position(|window| window == delimiter)
    };
    while let Some(at) = find(stream) {
        if at > max {
            return (frames, End::TooLong);
        }
        frames.push(stream[..at].to_vec());
        stream = &stream[at + delimiter.len()..];
    }
    let most = max.saturating_add(delimiter.len() - 1);
    (frames, end_of_rest(stream.len(), most))
}

/// The model of [`Netstring`].
#[must_use]
pub fn netstring(max: usize, mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let is_digit = u8::is_ascii_digit;
        let digits: String = stream
            .iter()
            .take_while(|byte| is_digit(byte))
            .map(|byte| char::from(*byte))
            .collect();
        if digits.starts_with('0') && digits.len() > 1 {
            return (frames, End::Malformed);
        }
        // A number that no `u128` holds is longer than every limit.
        let length = if digits.is_empty() {
            0
        } else {
            digits.parse().unwrap_or(u128::MAX)
        };
        if length > max as u128 {
            return (frames, End::TooLong);
        }
        match stream.get(digits.len()) {
            None => return (frames, End::Truncated),
            Some(b':') if !digits.is_empty() => stream = &stream[digits.len() + 1..],
            Some(_) => return (frames, End::Malformed),
        }
        match stream.get(length as usize) {
            None => return (frames, End::Truncated),
            Some(b',') => frames.push(stream[..length as usize].to_vec()),
            Some(_) => return (frames, End::Malformed),
        }
        stream = &stream[length as usize + 1..];
    }
    (frames, End::Clean)
}

/// What is left when no frame is complete any more: nothing, a piece of one, or already too much.
fn end_of_rest(left: usize, most: usize) -> End {
    match left {
        0 => End::Clean,
        left if left > most => End::TooLong,
        _ => End::Truncated,
    }
}
