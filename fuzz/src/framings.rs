//! Framings, compared with decoders that look at the whole stream at once.

use serveloop::ProtocolError;
use serveloop::framing::{
    ByteOrder, Decoder, Delimited, Encoder, FixedLength, LengthField, LengthPrefix, Lines,
    Netstring, Varint,
};

use crate::input::Input;

mod models;

use self::models::with_last_line;
pub use self::models::{
    adjusted_prefix, delimited, fixed_length, length_field, length_prefix, lines, netstring, varint,
};

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
    let kind = input.below(26);
    let max = match input.byte() {
        255 => usize::MAX,
        max => usize::from(max),
    };
    let written = match kind {
        13..21 => Written::read(&mut input),
        _ => Written::default(),
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
        12 => cut.netstring(),
        13..17 => cut.adjusted_prefix(written),
        17..21 => cut.length_field(written),
        21..24 => cut.varint(),
        _ => cut.fixed_length(),
    }
}

/// How a length is written, and what it counts.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The bytes of header before it.
    pub offset: usize,
    /// Its bytes.
    pub width: usize,
    /// Their order.
    pub order: ByteOrder,
    /// What is added to get the bytes that follow it.
    pub adjustment: i32,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            offset: 0,
            width: 4,
            order: ByteOrder::BigEndian,
            adjustment: 0,
        }
    }
}

impl Written {
    fn read(input: &mut Input<'_>) -> Self {
        let order = [ByteOrder::BigEndian, ByteOrder::LittleEndian][input.below(2)];
        Self {
            offset: input.below(5),
            width: 1 + input.below(8),
            order,
            adjustment: (input.byte() as i8).into(),
        }
    }

    /// The prefix that is written like this, of which `offset` is no part.
    #[must_use]
    pub fn prefix(self, max: usize) -> LengthPrefix {
        LengthPrefix::new(self.width, self.order, max).length_adjustment(self.adjustment)
    }

    /// The header that is written like this.
    #[must_use]
    pub fn field(self, max: usize) -> LengthField {
        let field = LengthField::new(self.offset, self.width, self.order, max);
        field.length_adjustment(self.adjustment)
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

    fn adjusted_prefix(&self, written: Written) {
        let model = adjusted_prefix(written, self.max, self.stream);
        self.compare(|| written.prefix(self.max), &model);
    }

    fn length_field(&self, written: Written) {
        let max = self.max.max(written.offset + written.width);
        let model = length_field(written, max, self.stream);
        self.compare(|| written.field(max), &model);
    }

    fn varint(&self) {
        let model = varint(self.max, self.stream);
        self.compare(|| Varint::new(self.max), &model);
    }

    fn fixed_length(&self) {
        let length = self.max.max(1);
        let model = fixed_length(length, self.stream);
        self.compare(|| FixedLength::new(length), &model);
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
