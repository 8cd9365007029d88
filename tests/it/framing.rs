//! Framings against simple models, however the stream is cut.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::testing::MemorySession;
use serveloop::{
    ByteOrder, Config, Delimited, FrameProtocol, Framed, Frames, Framing, LengthPrefix, Lines,
    ProtocolError,
};

const MAX: usize = 12;

/// How a stream ended. Only the kind: when an error is noticed, and so how much had arrived by
/// then, depends on the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Truncated,
    TooLong,
}

type Decoded = (Vec<Vec<u8>>, End);

fn end(error: &ProtocolError) -> End {
    match error {
        ProtocolError::Truncated { .. } => End::Truncated,
        ProtocolError::TooLong { .. } => End::TooLong,
        error => panic!("no stream is {error}"),
    }
}

/// Decodes `stream` as it arrives in pieces of the sizes given, over and over.
fn decode(framing: &mut impl Framing, stream: &[u8], sizes: &[usize]) -> Decoded {
    let mut frames = Vec::new();
    let mut unread = Vec::new();
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at(rest.len().min(*size));
        rest = later;
        unread.extend_from_slice(piece);
        loop {
            match framing.decode(&unread) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    frames.push(frame.payload.to_vec());
                    let taken = frame.taken;
                    assert!(taken > 0 && taken <= unread.len());
                    unread.drain(..taken);
                }
                Err(error) => return (frames, end(&error)),
            }
            if unread.is_empty() {
                break;
            }
        }
    }
    match framing.decode_eof(&unread) {
        Ok(None) => (frames, End::Clean),
        Ok(Some(frame)) => {
            assert_eq!(frame.taken, unread.len());
            frames.push(frame.payload.to_vec());
            (frames, End::Clean)
        }
        Err(error) => (frames, end(&error)),
    }
}

fn encode(framing: &impl Framing, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        framing
            .encode(message, |piece| stream.extend_from_slice(piece))
            .unwrap();
    }
    stream
}

/// What is left when no frame is complete any more: nothing, a piece of one, or already too much.
fn rest_of_model(left: usize, most: usize) -> End {
    match left {
        0 => End::Clean,
        left if left > most => End::TooLong,
        _ => End::Truncated,
    }
}

fn model_prefix(width: usize, order: ByteOrder, mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while stream.len() >= width {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&stream[..width]);
        if order == ByteOrder::BigEndian {
            bytes[..width].reverse();
        }
        let length = u64::from_le_bytes(bytes);
        if length > MAX as u64 {
            return (frames, End::TooLong);
        }
        let length = usize::try_from(length).unwrap();
        if stream.len() < width + length {
            return (frames, End::Truncated);
        }
        frames.push(stream[width..width + length].to_vec());
        stream = &stream[width + length..];
    }
    (frames, rest_of_model(stream.len(), width))
}

fn model_lines(mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while let Some(at) = stream.iter().position(|byte| *byte == b'\n') {
        let line = stream[..at].strip_suffix(b"\r").unwrap_or(&stream[..at]);
        if line.len() > MAX {
            return (frames, End::TooLong);
        }
        frames.push(line.to_vec());
        stream = &stream[at + 1..];
    }
    (frames, rest_of_model(stream.len(), MAX + 1))
}

fn model_delimited(delimiter: &[u8], mut stream: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while let Some(at) = stream
        .windows(delimiter.len())
        .position(|window| window == delimiter)
    {
        if at > MAX {
            return (frames, End::TooLong);
        }
        frames.push(stream[..at].to_vec());
        stream = &stream[at + delimiter.len()..];
    }
    let end = rest_of_model(stream.len(), MAX + delimiter.len() - 1);
    (frames, end)
}

fn widths() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1_usize, 2, 4, 8])
}

fn orders() -> impl Strategy<Value = ByteOrder> {
    prop::sample::select(vec![ByteOrder::BigEndian, ByteOrder::LittleEndian])
}

/// Delimiters of one to three bytes, most of which overlap themselves in some way.
fn delimiters() -> impl Strategy<Value = &'static [u8]> {
    prop::sample::select(vec![
        &b"a"[..],
        b"\0",
        b"ab",
        b"aa",
        b"\r\n",
        b"aab",
        b"aba",
        b"aaa",
        b"abb",
    ])
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(1..9_usize, 1..6)
}

/// Bytes of a small alphabet, so that delimiters and their beginnings come up all the time.
fn letters(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(
        prop::sample::select(vec![b'a', b'b', b'\r', b'\n', 0]),
        0..most,
    )
}

/// Small numbers, so that headers announce lengths around the limit.
fn numbers() -> impl Strategy<Value = Vec<u8>> {
    vec(
        prop_oneof![8 => Just(0), 4 => 1..15_u8, 1 => any::<u8>()],
        0..120,
    )
}

proptest! {
    #[test]
    fn length_prefix_is_its_model(width in widths(), order in orders(), stream in numbers(), sizes in cuts()) {
        let mut framing = LengthPrefix::new(width, order, MAX);
        prop_assert_eq!(decode(&mut framing, &stream, &sizes), model_prefix(width, order, &stream));
    }

    #[test]
    fn lines_are_their_model(stream in letters(100), sizes in cuts()) {
        prop_assert_eq!(decode(&mut Lines::new(MAX), &stream, &sizes), model_lines(&stream));
    }

    #[test]
    fn delimited_is_its_model(delimiter in delimiters(), stream in letters(100), sizes in cuts()) {
        let mut framing = Delimited::new(delimiter, MAX);
        prop_assert_eq!(decode(&mut framing, &stream, &sizes), model_delimited(delimiter, &stream));
    }

    #[test]
    fn length_prefix_gives_back_what_was_sent(
        width in widths(), order in orders(), messages in vec(vec(any::<u8>(), 0..=MAX), 0..8), sizes in cuts(),
    ) {
        round_trip(&mut LengthPrefix::new(width, order, MAX), messages, &sizes)?;
    }

    /// A payload's own CR at its end would be taken for a part of the line's end.
    #[test]
    fn lines_give_back_what_was_sent(messages in vec(letters(MAX + 1), 0..8), sizes in cuts()) {
        let fits = |message: &Vec<u8>| !message.contains(&b'\n') && !message.ends_with(b"\r");
        let messages = messages.into_iter().filter(fits).collect();
        round_trip(&mut Lines::new(MAX), messages, &sizes)?;
    }

    /// What a framing agrees to encode comes back; what it refuses would not have.
    #[test]
    fn delimited_gives_back_what_was_sent(delimiter in delimiters(), messages in vec(letters(MAX + 1), 0..8), sizes in cuts()) {
        let mut framing = Delimited::new(delimiter, MAX);
        let holds = |message: &Vec<u8>| {
            let framed = [message, delimiter].concat();
            model_delimited(delimiter, &framed) == (vec![message.clone()], End::Clean)
        };
        for message in &messages {
            prop_assert_eq!(framing.encode(message, |_| ()).is_ok(), holds(message));
        }
        round_trip(&mut framing, messages.into_iter().filter(holds).collect(), &sizes)?;
    }

    /// Long needles and long haystacks, where the search takes many bytes at a time.
    #[test]
    fn delimiters_are_found_wherever_they_stand(at in 0..200_usize, behind in 0..40_usize) {
        let mut stream = vec![b'a'; at];
        stream.extend_from_slice(b"\r\n");
        stream.resize(at + 2 + behind, b'b');
        let frame = Delimited::new(&b"\r\n"[..], 1_000).decode(&stream).unwrap().unwrap();
        prop_assert_eq!((frame.payload, frame.taken), (&stream[..at], at + 2));
    }
}

fn round_trip(
    framing: &mut impl Framing,
    messages: Vec<Vec<u8>>,
    sizes: &[usize],
) -> Result<(), TestCaseError> {
    let stream = encode(framing, &messages);
    prop_assert_eq!(decode(framing, &stream, sizes), (messages, End::Clean));
    Ok(())
}

fn too_long<T: Debug>(outcome: Result<T, ProtocolError>, expected: u64) {
    match outcome {
        Err(ProtocolError::TooLong { length, .. }) => assert_eq!(length, expected),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn the_longest_message_passes_and_one_byte_more_does_not() {
    let prefix = || LengthPrefix::u32(MAX);
    let (most, more) = (vec![b'x'; MAX], vec![b'x'; MAX + 1]);
    let longest = encode(&prefix(), std::slice::from_ref(&most));
    assert_eq!(
        decode(&mut prefix(), &longest, &[1]).0,
        std::slice::from_ref(&most)
    );
    too_long(prefix().encode(&more, |_| ()), MAX as u64 + 1);
    too_long(prefix().decode(&[0, 0, 0, 13]), MAX as u64 + 1);

    let ended = |end: &[u8]| [&most[..], end].concat();
    for stream in [ended(b"\n"), ended(b"\r\n")] {
        let (lines, end) = decode(&mut Lines::new(MAX), &stream, &[1]);
        assert_eq!((lines, end), (vec![most.clone()], End::Clean));
    }
    too_long(Lines::new(MAX).encode(&more, |_| ()), MAX as u64 + 1);
    let line = [&more[..], b"\n"].concat();
    too_long(Lines::new(MAX).decode(&line), MAX as u64 + 1);

    let delimited = || Delimited::new(&b"--"[..], MAX);
    assert_eq!(
        decode(&mut delimited(), &ended(b"--"), &[1]).0,
        std::slice::from_ref(&most)
    );
    too_long(delimited().encode(&more, |_| ()), MAX as u64 + 1);
    let message = [&more[..], b"--"].concat();
    too_long(delimited().decode(&message), MAX as u64 + 1);
}

#[test]
fn a_width_limits_what_can_be_sent_whatever_the_limit_says() {
    let narrow = LengthPrefix::new(1, ByteOrder::BigEndian, 1_000);
    assert!(narrow.encode(&[0; 255], |_| ()).is_ok());
    too_long(narrow.encode(&[0; 256], |_| ()), 256);
}

/// What C programs send when they think of lengths as signed, or in the other byte order.
#[test]
fn lengths_that_nobody_can_mean_are_too_long() {
    const LIMIT: usize = 1 << 20;
    for length in [u32::MAX, 1 << 31, 1_u32.swap_bytes()] {
        let expected = length.into();
        too_long(
            LengthPrefix::u32(LIMIT).decode(&length.to_be_bytes()),
            expected,
        );
        let mut little = LengthPrefix::new(4, ByteOrder::LittleEndian, LIMIT);
        too_long(little.decode(&length.to_le_bytes()), expected);
    }
    for length in [u64::MAX, 1 << 63, u64::MAX - 7] {
        let mut wide = LengthPrefix::new(8, ByteOrder::BigEndian, LIMIT);
        too_long(wide.decode(&length.to_be_bytes()), length);
    }
}

#[test]
fn a_limit_without_end_waits_for_a_length_that_never_comes() {
    let mut wide = LengthPrefix::new(8, ByteOrder::BigEndian, usize::MAX);
    assert_eq!(wide.decode(&[0xff; 64]).unwrap(), None);
}

#[test]
fn a_stream_may_end_between_frames_only() {
    let whole = [0, 0, 0, 2, b'h', b'i'];
    for (end, expected) in [
        (0, End::Clean),
        (1, End::Truncated),
        (3, End::Truncated),
        (4, End::Truncated),
        (5, End::Truncated),
        (6, End::Clean),
    ] {
        let (_, got) = decode(&mut LengthPrefix::u32(9), &whole[..end], &[9]);
        assert_eq!(got, expected, "after {end} bytes");
    }
}

#[test]
fn an_unterminated_line_counts_only_where_it_is_asked_for() {
    assert_eq!(decode(&mut Lines::new(9), b"a\nb", &[9]).1, End::Truncated);
    let mut lenient = Lines::new(3).accept_unterminated();
    let lines = vec![b"a".to_vec(), b"b".to_vec()];
    assert_eq!(decode(&mut lenient, b"a\nb", &[9]), (lines, End::Clean));
    assert_eq!(decode(&mut lenient, b"a\nbcde", &[9]).1, End::TooLong);
}

/// What a payload ends with is part of the line's end for who reads it: the way to send CRLF.
#[test]
fn a_payload_with_a_cr_at_its_end_makes_a_line_with_crlf() {
    let stream = encode(&Lines::new(9), &[b"hi\r".to_vec()]);
    assert_eq!(stream, b"hi\r\n");
    assert!(Lines::new(9).encode(b"a\nb", |_| ()).is_err());
}

/// Counts frames and the bytes in them.
#[derive(Default)]
struct Counter {
    frames: usize,
    bytes: usize,
}

impl<F: Framing> FrameProtocol<F> for Counter {
    fn frame_received(
        &mut self,
        frame: &[u8],
        _: &mut Frames<'_, '_, F>,
    ) -> Result<(), ProtocolError> {
        self.frames += 1;
        self.bytes += frame.len();
        Ok(())
    }
}

/// Quadratic scanning or copying would make these take minutes.
#[test]
fn long_messages_one_byte_at_a_time_cost_no_more_than_their_length() {
    const LENGTH: usize = 256 * 1024;
    let config = || Config {
        max_line: LENGTH,
        ..Config::default()
    };
    let line = [vec![b'a'; LENGTH], b"\n".to_vec()].concat();
    let mut lines = MemorySession::with_config(
        Framed::new(Lines::new(LENGTH), Answer(Counter::default())),
        config(),
    );
    line.chunks(1).for_each(|byte| lines.receive(byte));
    assert_eq!(lines.sent(), format!("1 {LENGTH}\n").into_bytes());

    let mut delimited = MemorySession::with_config(
        Framed::new(
            Delimited::new(&b"aab"[..], LENGTH),
            Answer(Counter::default()),
        ),
        config(),
    );
    line[..LENGTH]
        .chunks(1)
        .for_each(|byte| delimited.receive(byte));
    delimited.receive(b"b");
    assert_eq!(
        delimited.sent(),
        format!("1 {}aab", LENGTH - 2).into_bytes()
    );
}

/// Says after each frame how many there were, and how long they were in all.
struct Answer(Counter);

impl<F: Framing> FrameProtocol<F> for Answer {
    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut Frames<'_, '_, F>,
    ) -> Result<(), ProtocolError> {
        self.0.frame_received(frame, frames)?;
        frames.send(format!("{} {}", self.0.frames, self.0.bytes).as_bytes())
    }
}

#[test]
fn empty_frames_are_messages_like_others() {
    let mut session = MemorySession::new(Framed::new(
        LengthPrefix::u32(99),
        Answer(Counter::default()),
    ));
    session.receive(&[0; 4 * 1_000]);
    let sent = session.sent();
    assert!(
        sent.ends_with(b"\0\0\0\x061000 0"),
        "{}",
        sent.escape_ascii()
    );
    assert!(session.reason().is_none());
}
