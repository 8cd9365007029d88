//! Framings against simple models, however the stream is cut.

mod announced;
mod changes;
#[path = "../../../examples/framed.rs"]
#[expect(dead_code, reason = "an example's tests run here, its main does not")]
mod example;
mod frames;

use std::cell::Cell;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::framing::{
    ByteOrder, Decoder, Delimited, Encoder, Frame, FrameProtocol, FrameTransport, Framed, Framing,
    LengthPrefix, Lines, Message, Netstring,
};
use serveloop::testing::MemorySession;
use serveloop::{Config, Limits, ProtocolError};
use serveloop_fuzz::framings::{self, ByteDecoder, End, decode, encode};

use crate::support::cases;

const MAX: usize = 12;

fn widths() -> impl Strategy<Value = usize> {
    1..=8_usize
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

fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(usize::MAX),
        Just(usize::MAX - 1),
        Just(0),
        any::<usize>(),
        0..300_usize
    ]
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

/// Digits, colons and commas, and a few letters that are none.
fn netstrings(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let message = vec(prop::sample::select(b"a1:,".to_vec()), 0..=MAX + 1);
    let good = message.prop_map(|message| {
        let length = message.len().to_string();
        [length.as_bytes(), b":", &message, b","].concat()
    });
    let piece = prop_oneof![
        6 => good,
        1 => vec(prop::sample::select(b"0123:,x".to_vec()), 0..4),
    ];
    vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn netstring_is_its_model(stream in netstrings(8), sizes in cuts()) {
        let mut framing = Netstring::new(MAX);
        prop_assert_eq!(decode(&mut framing, &stream, &sizes), framings::netstring(MAX, &stream));
    }

    #[test]
    fn netstring_gives_back_what_was_sent(messages in vec(vec(any::<u8>(), 0..=MAX), 0..8), sizes in cuts()) {
        round_trip(&mut Netstring::new(MAX), messages, &sizes)?;
    }

    #[test]
    fn length_prefix_is_its_model(width in widths(), order in orders(), stream in numbers(), sizes in cuts()) {
        let mut framing = LengthPrefix::new(width, order, MAX);
        prop_assert_eq!(decode(&mut framing, &stream, &sizes), framings::length_prefix(width, order, MAX, &stream));
    }

    #[test]
    fn lines_are_their_model(stream in letters(100), sizes in cuts()) {
        prop_assert_eq!(decode(&mut Lines::new(MAX), &stream, &sizes), framings::lines(MAX, &stream));
    }

    #[test]
    fn delimited_is_its_model(delimiter in delimiters(), stream in letters(100), sizes in cuts()) {
        let mut framing = Delimited::new(delimiter, MAX);
        prop_assert_eq!(decode(&mut framing, &stream, &sizes), framings::delimited(delimiter, MAX, &stream));
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
            framings::delimited(delimiter, MAX, &framed) == (vec![message.clone()], End::Clean)
        };
        for message in &messages {
            prop_assert_eq!(framing.encode(message, |_| ()).is_ok(), holds(message));
        }
        round_trip(&mut framing, messages.into_iter().filter(holds).collect(), &sizes)?;
    }

    /// In two pieces, wherever it is cut: a length, a CRLF, a delimiter that overlaps itself.
    #[test]
    fn no_cut_matters(order in orders(), width in widths(), delimiter in delimiters(), stream in letters(50)) {
        for cut in 1..=stream.len() {
            let sizes = [cut, usize::MAX / 2];
            let mut prefix = LengthPrefix::new(width, order, MAX);
            prop_assert_eq!(decode(&mut prefix, &stream, &sizes), framings::length_prefix(width, order, MAX, &stream));
            prop_assert_eq!(decode(&mut Lines::new(MAX), &stream, &sizes), framings::lines(MAX, &stream));
            let mut delimited = Delimited::new(delimiter, MAX);
            prop_assert_eq!(decode(&mut delimited, &stream, &sizes), framings::delimited(delimiter, MAX, &stream));
            prop_assert_eq!(decode(&mut Netstring::new(MAX), &stream, &sizes), framings::netstring(MAX, &stream));
        }
    }

    #[test]
    fn no_byte_is_scanned_twice(delimiter in delimiters(), stream in letters(100)) {
        framings::scans_no_byte_twice(|| Lines::new(usize::MAX), b"\n", &stream);
        framings::scans_no_byte_twice(|| Delimited::new(delimiter, usize::MAX), delimiter, &stream);
    }

    /// Whatever length is announced: it is too long, or awaited; nothing overflows.
    #[test]
    fn any_length_is_too_long_or_awaited(width in widths(), order in orders(), header in any::<[u8; 8]>(), max in limits()) {
        let header = &header[..width];
        let model = framings::length_prefix(width, order, max, header);
        let mut framing = LengthPrefix::new(width, order, max);
        match framing.decode(header) {
            Ok(None) => prop_assert_eq!(model.1, End::Truncated),
            Ok(Some(frame)) => prop_assert_eq!((frame.message, model.1), (&b""[..], End::Clean)),
            Err(_) => prop_assert_eq!(model.1, End::TooLong),
        }
    }

    /// A session asks a framing once for each piece that arrives and once for each frame in it, and
    /// shows it no byte of a frame that was taken.
    #[test]
    fn decoding_is_asked_for_once_per_piece_and_frame(
        messages in vec(vec(any::<u8>(), 0..=MAX), 0..20), sizes in cuts(),
    ) {
        let stream = encode(&LengthPrefix::u32(MAX), &messages);
        let calls = Rc::<Cell<usize>>::default();
        let framing = Counting { framing: LengthPrefix::u32(MAX), calls: Rc::clone(&calls) };
        let mut session = MemorySession::new(Framed::new(framing, Counter::default()));
        let mut pieces = 0;
        let mut rest = &stream[..];
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at(rest.len().min(*size));
            session.receive(piece);
            (rest, pieces) = (later, pieces + 1);
        }
        prop_assert!(calls.get() <= pieces + messages.len(), "{} calls", calls.get());
    }

    /// Long needles and long haystacks, where the search takes many bytes at a time.
    #[test]
    fn delimiters_are_found_wherever_they_stand(at in 0..200_usize, behind in 0..40_usize) {
        let mut stream = vec![b'a'; at];
        stream.extend_from_slice(b"\r\n");
        stream.resize(at + 2 + behind, b'b');
        let frame = Delimited::new(&b"\r\n"[..], 1_000).decode(&stream).unwrap().unwrap();
        prop_assert_eq!((frame.message, frame.taken), (&stream[..at], at + 2));
    }
}

fn round_trip(
    framing: &mut (impl ByteDecoder + Encoder),
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
    tells_limit(Lines::new(MAX).decode(&[b'x'; MAX + 2]));

    let delimited = || Delimited::new(&b"--"[..], MAX);
    assert_eq!(
        decode(&mut delimited(), &ended(b"--"), &[1]).0,
        std::slice::from_ref(&most)
    );
    too_long(delimited().encode(&more, |_| ()), MAX as u64 + 1);
    let message = [&more[..], b"--"].concat();
    too_long(delimited().decode(&message), MAX as u64 + 1);
    tells_limit(delimited().decode(&[b'x'; MAX + 2]));
}

/// Also where a part of the end could still follow.
#[track_caller]
fn tells_limit<T: Debug>(outcome: Result<T, ProtocolError>) {
    match outcome {
        Err(ProtocolError::TooLong { limit, .. }) => assert_eq!(limit, MAX),
        outcome => panic!("{outcome:?}"),
    }
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
fn what_is_no_netstring_is_malformed_at_its_first_wrong_byte() {
    for (header, wrong) in [
        (&b""[..], b':'),
        (b"", b'-'),
        (b"", b' '),
        (b"", b'\n'),
        (b"0", b'0'),
        (b"0", b'5'),
        (b"1", b' '),
        (b"12", b','),
        (b"2:ab", b'c'),
        (b"0:", b'\0'),
    ] {
        let mut framing = Netstring::new(MAX);
        assert_eq!(framing.decode(header).unwrap(), None);
        let data = [header, &[wrong]].concat();
        let outcome = framing.decode(&data);
        assert!(
            matches!(outcome, Err(ProtocolError::Malformed(_))),
            "{outcome:?}"
        );
    }
}

#[test]
fn the_length_of_a_netstring_has_a_limit_and_never_overflows() {
    let most = [b"12:", &[b'x'; MAX][..], b","].concat();
    let (messages, end) = decode(&mut Netstring::new(MAX), &most, &[1]);
    assert_eq!((messages, end), (vec![vec![b'x'; MAX]], End::Clean));
    too_long(Netstring::new(MAX).decode(b"13"), 13);
    too_long(Netstring::new(MAX).encode(&[b'x'; MAX + 1], |_| ()), 13);

    let mut endless = Netstring::new(usize::MAX);
    let longest = format!("{}:", usize::MAX);
    assert_eq!(endless.decode(longest.as_bytes()).unwrap(), None);
    // With pointers of 32 bits a length is too long before it overflows.
    let outcome = endless.decode(&[b'9'; 1_000]);
    let too_many = |length| length == u64::MAX || length > usize::MAX as u64;
    assert!(
        matches!(outcome, Err(ProtocolError::TooLong { length, .. }) if too_many(length)),
        "{outcome:?}"
    );
}

#[test]
fn a_limit_without_end_waits_for_a_length_that_never_comes() {
    let mut wide = LengthPrefix::new(8, ByteOrder::BigEndian, usize::MAX);
    let mut data = [0xff; 64];
    data[..8].copy_from_slice(&(usize::MAX as u64).to_be_bytes());
    assert_eq!(wide.decode(&data).unwrap(), None);
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

/// A carriage return at the end of a payload becomes part of the line end: the way to send CRLF.
#[test]
fn a_payload_with_a_cr_at_its_end_makes_a_line_with_crlf() {
    let stream = encode(&Lines::new(9), &[b"hi\r".to_vec()]);
    assert_eq!(stream, b"hi\r\n");
    assert!(Lines::new(9).encode(b"a\nb", |_| ()).is_err());
}

/// Counts frames and the bytes in them.
struct Counter<F> {
    frames: usize,
    bytes: usize,
    framing: PhantomData<F>,
}

impl<F> Default for Counter<F> {
    fn default() -> Self {
        Self {
            frames: 0,
            bytes: 0,
            framing: PhantomData,
        }
    }
}

impl<F: Framing> FrameProtocol for Counter<F>
where
    for<'m> Message<'m, F>: AsRef<[u8]>,
{
    type Framing = F;

    fn frame_received(
        &mut self,
        frame: Message<'_, F>,
        _: &mut FrameTransport<'_, F>,
    ) -> Result<(), ProtocolError> {
        self.frames += 1;
        self.bytes += frame.as_ref().len();
        Ok(())
    }
}

/// Counts how often it is asked for a frame.
#[derive(Clone)]
struct Counting<F> {
    framing: F,
    calls: Rc<Cell<usize>>,
}

impl<F: Decoder> Decoder for Counting<F> {
    type Message<'a>
        = F::Message<'a>
    where
        Self: 'a;

    fn decode<'a>(
        &'a mut self,
        data: &'a [u8],
    ) -> Result<Option<Frame<Self::Message<'a>>>, ProtocolError> {
        self.calls.set(self.calls.get() + 1);
        self.framing.decode(data)
    }
}

impl<F: Encoder> Encoder for Counting<F> {
    fn encode(&self, payload: &[u8], write: impl FnMut(&[u8])) -> Result<(), ProtocolError> {
        self.framing.encode(payload, write)
    }
}

/// Quadratic scanning or copying would make these take minutes.
#[test]
fn long_messages_one_byte_at_a_time_cost_no_more_than_their_length() {
    const LENGTH: usize = 256 * 1024;
    let config = || Config {
        limits: Limits {
            max_line: LENGTH,
            ..Limits::default()
        },
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
struct Answer<F>(Counter<F>);

impl<F: Framing> FrameProtocol for Answer<F>
where
    for<'m> Message<'m, F>: AsRef<[u8]>,
{
    type Framing = F;

    fn frame_received(
        &mut self,
        frame: Message<'_, F>,
        frames: &mut FrameTransport<'_, F>,
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
