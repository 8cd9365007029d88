//! Framings, compared with decoders that look at the whole stream at once.

use serveloop::ProtocolError;
use serveloop::framing::{ByteOrder, Decoder, Delimited, Encoder, LengthPrefix, Lines, Netstring};

use crate::input::Input;

/// How a stream ended. Only the kind: when an error is noticed, and so how much had arrived by
/// then, depends on the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Between two frames.
    Clean,
    /// Inside a frame.
    Truncated,
    /// With a frame that is longer than allowed.
    TooLong,
    /// With bytes that cannot be a frame.
    Malformed,
}

/// The frames of a stream, and how it ended.
pub type Decoded = (Vec<Vec<u8>>, End);

/// A framing, a limit, the places where the stream is cut, and the stream. The framing and its model
/// find the same; so they do in a stream of the frames found; and no byte is scanned twice.
///
/// # Panics
/// When they do not.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(13);
    let max = match input.byte() {
        255 => usize::MAX,
        max => usize::from(max),
    };
    let sizes = input.sizes();
    let cut = Cut {
        max,
        sizes,
        stream: input.rest(),
    };
    match kind {
        0..8 => cut.length_prefix([1, 2, 4, 8][kind / 2], kind % 2 == 0),
        8 => cut.lines(false),
        9 => cut.lines(true),
        10 => cut.delimited(b"\r\n"),
        11 => cut.delimited(b"aab"),
        _ => cut.netstring(),
    }
}

struct Cut<'a> {
    max: usize,
    sizes: Vec<usize>,
    stream: &'a [u8],
}

impl Cut<'_> {
    fn length_prefix(&self, width: usize, is_big: bool) {
        let order = if is_big {
            ByteOrder::BigEndian
        } else {
            ByteOrder::LittleEndian
        };
        let model = length_prefix(width, order, self.max, self.stream);
        self.compare(|| LengthPrefix::new(width, order, self.max), &model);
    }

    fn lines(&self, unterminated: bool) {
        let model = lines(self.max, self.stream);
        if unterminated {
            let model = with_last_line(model, self.max, self.stream);
            self.compare(|| Lines::new(self.max).accept_unterminated(), &model);
        } else {
            self.compare(|| Lines::new(self.max), &model);
        }
        scans_no_byte_twice(|| Lines::new(usize::MAX), b"\n", self.stream);
    }

    fn delimited(&self, delimiter: &[u8]) {
        let model = delimited(delimiter, self.max, self.stream);
        self.compare(|| Delimited::new(delimiter, self.max), &model);
        scans_no_byte_twice(
            || Delimited::new(delimiter, usize::MAX),
            delimiter,
            self.stream,
        );
    }

    fn netstring(&self) {
        let model = netstring(self.max, self.stream);
        self.compare(|| Netstring::new(self.max), &model);
    }

    fn compare<F: ByteDecoder + Encoder>(&self, make: impl Fn() -> F, model: &Decoded) {
        assert_eq!(&decode(&mut make(), self.stream, &self.sizes), model);
        // What was found is found again in what it is encoded to, but for a CR at the end of a line.
        let frames = model.0.iter().filter(|frame| !frame.ends_with(b"\r"));
        let frames: Vec<_> = frames.cloned().collect();
        let stream = encode(&make(), &frames);
        assert_eq!(
            decode(&mut make(), &stream, &self.sizes),
            (frames, End::Clean)
        );
    }
}

/// A decoder whose messages are bytes.
pub trait ByteDecoder: for<'m> Decoder<Message<'m> = &'m [u8]> + 'static {}

impl<D: for<'m> Decoder<Message<'m> = &'m [u8]> + 'static> ByteDecoder for D {}

/// Decodes `stream` as it arrives in pieces of the sizes given, over and over.
///
/// # Panics
/// When the framing takes what is not there, or fails in a way that no stream can cause.
pub fn decode(framing: &mut impl ByteDecoder, stream: &[u8], sizes: &[usize]) -> Decoded {
    let mut frames = Vec::new();
    let mut start = 0;
    let mut arrived = 0;
    for size in sizes.iter().cycle() {
        if arrived == stream.len() {
            break;
        }
        arrived = stream.len().min(arrived + size);
        while start < arrived {
            match framing.decode(&stream[start..arrived]) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    frames.push(frame.message.to_vec());
                    assert!(frame.taken > 0 && frame.taken <= arrived - start);
                    start += frame.taken;
                }
                Err(error) => return (frames, end(&error)),
            }
        }
    }
    let unread = &stream[start..];
    match framing.decode_eof(unread) {
        Ok(None) => (frames, End::Clean),
        Ok(Some(frame)) => {
            assert_eq!(frame.taken, unread.len());
            frames.push(frame.message.to_vec());
            (frames, End::Clean)
        }
        Err(error) => (frames, end(&error)),
    }
}

fn end(error: &ProtocolError) -> End {
    match error {
        ProtocolError::Truncated { .. } => End::Truncated,
        ProtocolError::TooLong { .. } => End::TooLong,
        ProtocolError::Malformed(_) => End::Malformed,
        error => panic!("no stream is {error}"),
    }
}

/// The stream that the messages make.
///
/// # Panics
/// When the framing refuses one.
pub fn encode(framing: &impl Encoder, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        framing
            .encode(message, |piece| stream.extend_from_slice(piece))
            .expect("a message that fits");
    }
    stream
}

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
fn with_last_line((mut frames, end): Decoded, max: usize, stream: &[u8]) -> Decoded {
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

/// Shows the framing the stream byte by byte. What it has seen without finding a frame is replaced
/// by delimiters, as far as they cannot be the beginning of one: a second scan finds them.
///
/// # Panics
/// When a byte is scanned twice, and so a long frame costs the square of its length.
pub fn scans_no_byte_twice<F: ByteDecoder>(make: impl Fn() -> F, delimiter: &[u8], stream: &[u8]) {
    let mut framing = make();
    let mut unread = Vec::new();
    let mut hidden = Vec::new();
    for byte in stream {
        unread.push(*byte);
        hidden.push(*byte);
        let expected = make()
            .decode(&unread)
            .expect("no limit")
            .map(|frame| frame.taken);
        let found = framing
            .decode(&hidden)
            .expect("no limit")
            .map(|frame| frame.taken);
        assert_eq!(found, expected, "scanned again what held no delimiter");
        if expected.is_some() {
            unread.clear();
            hidden.clear();
            continue;
        }
        let scanned = unread.len().saturating_sub(delimiter.len() - 1);
        hidden[..scanned].fill(b'.');
        let whole = scanned / delimiter.len() * delimiter.len();
        for place in hidden[..whole].chunks_mut(delimiter.len()) {
            place.copy_from_slice(delimiter);
        }
    }
}
