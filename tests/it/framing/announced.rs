//! Lengths that count themselves, lengths in a header, varints, and messages of a fixed length.

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::framing::{ByteOrder, Encoder, FixedLength, LengthField, LengthPrefix, Varint};
use serveloop::testing::MemorySession;
use serveloop::{Config, Limits, ProtocolError, framing::Framed};
use serveloop_fuzz::framings::{self, ByteDecoder, End, Written, decode, encode};

use super::{Answer, Counter, MAX, cuts, limits, numbers, orders, round_trip, too_long, widths};
use crate::support::cases;

/// Of a length that counts less, as much, or more than what follows it.
fn written() -> impl Strategy<Value = Written> {
    let adjustment = prop_oneof![Just(0), -12..12_i32, any::<i32>()];
    (0..4_usize, widths(), orders(), adjustment).prop_map(|(offset, width, order, adjustment)| {
        // The largest length announces at least an empty message.
        let largest = i32::MAX >> (31_usize.saturating_sub(8 * width));
        Written {
            offset,
            width,
            order,
            adjustment: adjustment.max(-largest),
        }
    })
}

/// Varints of small numbers, some of which are longer than they need to be, and other bytes.
fn varints() -> impl Strategy<Value = Vec<u8>> {
    let good = vec(any::<u8>(), 0..=MAX).prop_map(|message| {
        let length = message.len() as u8;
        [&[length], &message[..]].concat()
    });
    let other = vec(
        prop::sample::select(vec![0, 1, MAX as u8, MAX as u8 + 1, 0x80, 0x81, 0xff]),
        0..12,
    );
    let piece = prop_oneof![6 => good, 1 => other];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn an_adjusted_prefix_is_its_model(written in written(), stream in numbers(), sizes in cuts()) {
        let model = framings::adjusted_prefix(written, MAX, &stream);
        prop_assert_eq!(decode(&mut written.prefix(MAX), &stream, &sizes), model);
    }

    #[test]
    fn a_length_field_is_its_model(written in written(), stream in numbers(), sizes in cuts()) {
        let model = framings::length_field(written, MAX, &stream);
        prop_assert_eq!(decode(&mut written.field(MAX), &stream, &sizes), model);
    }

    #[test]
    fn a_varint_is_its_model(stream in varints(), sizes in cuts()) {
        prop_assert_eq!(decode(&mut Varint::new(MAX), &stream, &sizes), framings::varint(MAX, &stream));
    }

    #[test]
    fn fixed_lengths_are_their_model(length in 1..=MAX, stream in numbers(), sizes in cuts()) {
        let model = framings::fixed_length(length, &stream);
        prop_assert_eq!(decode(&mut FixedLength::new(length), &stream, &sizes), model);
    }

    /// What a framing agrees to encode comes back; what it refuses has no length that says so.
    #[test]
    fn an_adjusted_prefix_gives_back_what_was_sent(
        written in written(), messages in vec(vec(any::<u8>(), 0..=MAX + 1), 0..8), sizes in cuts(),
    ) {
        let largest = (1_i128 << (8 * written.width)) - 1;
        let fits = |message: &Vec<u8>| {
            let length = message.len() as i128 - i128::from(written.adjustment);
            message.len() <= MAX && (0..=largest).contains(&length)
        };
        let mut framing = written.prefix(MAX);
        for message in &messages {
            prop_assert_eq!(framing.encode(message, |_| ()).is_ok(), fits(message));
        }
        round_trip(&mut framing, messages.into_iter().filter(fits).collect(), &sizes)?;
    }

    /// The length in a message to encode does not matter: what comes back has the right one.
    #[test]
    fn a_length_field_gives_back_what_was_sent_with_its_length(
        written in written(), messages in vec(vec(any::<u8>(), 0..=MAX + 1), 0..8), sizes in cuts(),
    ) {
        let Written { offset, width, .. } = written;
        let largest = (1_i128 << (8 * width)) - 1;
        let mut framing = written.field(MAX);
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for message in messages {
            let length = message.len() as i128 - (offset + width) as i128 - i128::from(written.adjustment);
            let fits = message.len() <= MAX && message.len() >= offset + width && (0..=largest).contains(&length);
            let from = stream.len();
            let outcome = framing.encode(&message, |piece| stream.extend_from_slice(piece));
            prop_assert_eq!(outcome.is_ok(), fits);
            if fits {
                let mut bytes = length.to_le_bytes()[..width].to_vec();
                if written.order == ByteOrder::BigEndian {
                    bytes.reverse();
                }
                let whole = [&message[..offset], &bytes, &message[offset + width..]].concat();
                prop_assert_eq!(&stream[from..], &whole);
                expected.push(whole);
            } else {
                prop_assert_eq!(stream.len(), from, "nothing is written of what is refused");
            }
        }
        prop_assert_eq!(decode(&mut framing, &stream, &sizes), (expected, End::Clean));
    }

    #[test]
    fn a_varint_gives_back_what_was_sent(
        lengths in vec(prop_oneof![0..3_usize, 126..130_usize, 16_382..16_386_usize], 0..5), sizes in cuts(),
    ) {
        let messages = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
        round_trip(&mut Varint::new(20_000), messages, &sizes)?;
    }

    #[test]
    fn fixed_lengths_give_back_what_was_sent(length in 1..=MAX, count in 0..8_usize, byte in any::<u8>(), sizes in cuts()) {
        round_trip(&mut FixedLength::new(length), vec![vec![byte; length]; count], &sizes)?;
    }

    /// In two pieces, wherever it is cut.
    #[test]
    fn no_cut_of_an_announced_message_matters(written in written(), varints in varints(), stream in numbers()) {
        for cut in 1..=stream.len() {
            let sizes = [cut, usize::MAX / 2];
            prop_assert_eq!(decode(&mut written.prefix(MAX), &stream, &sizes), framings::adjusted_prefix(written, MAX, &stream));
            prop_assert_eq!(decode(&mut written.field(MAX), &stream, &sizes), framings::length_field(written, MAX, &stream));
            prop_assert_eq!(decode(&mut Varint::new(MAX), &varints, &sizes), framings::varint(MAX, &varints));
        }
    }

    /// Whatever is announced, and whatever is added to it: nothing overflows.
    #[test]
    fn any_announced_length_is_refused_or_awaited(written in written(), header in any::<[u8; 12]>(), max in limits()) {
        let whole = written.offset + written.width;
        check_header(written.prefix(max), &header[..written.width], &framings::adjusted_prefix(written, max, &header[..written.width]))?;
        let max = max.max(whole);
        check_header(written.field(max), &header[..whole], &framings::length_field(written, max, &header[..whole]))?;
        check_header(Varint::new(max), &header, &framings::varint(max, &header))?;
    }
}

/// Compares what becomes of a header without its message.
fn check_header(
    mut framing: impl ByteDecoder,
    header: &[u8],
    model: &framings::Decoded,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(&decode(&mut framing, header, &[usize::MAX / 2]), model);
    Ok(())
}

#[track_caller]
fn malformed<T: std::fmt::Debug>(outcome: Result<T, ProtocolError>) {
    assert!(
        matches!(outcome, Err(ProtocolError::Malformed(_))),
        "{outcome:?}"
    );
}

fn bytes(framing: &impl Encoder, message: &[u8]) -> Vec<u8> {
    encode(framing, &[message.to_vec()])
}

#[test]
fn lengths_of_any_width_are_written_in_their_order() {
    for width in 1..=8 {
        let big = bytes(&LengthPrefix::new(width, ByteOrder::BigEndian, MAX), b"abc");
        assert_eq!(big[width - 1..], *b"\x03abc");
        assert!(big[..width - 1].iter().all(|byte| *byte == 0));

        let little = LengthPrefix::new(width, ByteOrder::LittleEndian, MAX);
        let little = bytes(&little, b"abc");
        assert_eq!((little[0], &little[width..]), (3, &b"abc"[..]));
    }
    assert_eq!(bytes(&LengthPrefix::u8(MAX), b"a"), b"\x01a");
    assert_eq!(bytes(&LengthPrefix::u16(MAX), b"a"), b"\0\x01a");
    assert_eq!(bytes(&LengthPrefix::u24(MAX), b"a"), b"\0\0\x01a");
    assert_eq!(bytes(&LengthPrefix::u32(MAX), b"a"), b"\0\0\0\x01a");
}

#[test]
fn a_width_of_24_bits_ends_where_it_ends() {
    const LARGEST: usize = (1 << 24) - 1;
    let framing = LengthPrefix::u24(usize::MAX);
    let longest = vec![b'x'; LARGEST + 1];
    let mut header = Vec::<u8>::new();
    let fits = framing.encode(&longest[1..], |piece| header.extend(piece.iter().take(3)));
    assert!(fits.is_ok());
    assert_eq!(header[..3], [0xff; 3]);
    too_long(framing.encode(&longest, |_| ()), 1 << 24);

    // Lengths that count themselves leave less room.
    let counting = framing.counting_itself();
    assert!(counting.encode(&longest[4..], |_| ()).is_ok());
    too_long(counting.encode(&longest[3..], |_| ()), LARGEST as u64 - 2);
}

#[test]
fn a_length_that_counts_itself_is_at_least_its_own() {
    for width in 1..=8_u8 {
        let framing = LengthPrefix::new(width.into(), ByteOrder::LittleEndian, MAX);
        let mut framing = framing.counting_itself();
        let mut header = [0; 8];
        let header = &mut header[..width.into()];
        for less in 0..width {
            header[0] = less;
            malformed(framing.decode(header));
        }
        header[0] = width;
        let empty = framing.decode(header).unwrap().unwrap();
        assert_eq!((empty.message, empty.taken), (&b""[..], width.into()));
        assert_eq!(bytes(&framing, b""), header);
        header[0] = width + MAX as u8 + 1;
        too_long(framing.decode(header), MAX as u64 + 1);
    }
}

#[test]
fn a_message_without_its_header_is_refused() {
    let framing = LengthField::new(1, 2, ByteOrder::BigEndian, MAX);
    for short in [&b""[..], b"a", b"ab"] {
        malformed(framing.encode(short, |_| panic!("nothing is written")));
    }
    assert_eq!(bytes(&framing, b"abc"), b"a\0\0");
    too_long(framing.encode(&[b'x'; MAX + 1], |_| ()), MAX as u64 + 1);

    let narrow = LengthField::new(1, 1, ByteOrder::BigEndian, 1_000);
    assert!(narrow.encode(&[b'x'; 257], |_| ()).is_ok());
    too_long(narrow.encode(&[b'x'; 258], |_| ()), 258);
    malformed(
        LengthPrefix::u8(9)
            .length_adjustment(2)
            .encode(b"a", |_| ()),
    );
}

#[test]
fn formats_of_well_known_protocols_are_found() {
    let http2 = LengthField::new(0, 3, ByteOrder::BigEndian, 1_000).length_adjustment(6);
    let mysql = LengthField::new(0, 3, ByteOrder::LittleEndian, 1_000).length_adjustment(1);
    let tpkt = LengthField::new(2, 2, ByteOrder::BigEndian, 1_000).counting_frame();
    let postgresql = LengthField::new(1, 4, ByteOrder::BigEndian, 1_000).counting_itself();
    for (mut framing, frame) in [
        (http2, &b"\0\0\x08\x06\0\0\0\0\0pingpong"[..]),
        (mysql, b"\x06\0\0\0\x03login"),
        (tpkt, b"\x03\0\0\x07\x02\xf0\x80"),
        (postgresql, b"Z\0\0\0\x05I"),
    ] {
        let twice = [frame, frame].concat();
        let found = framing.decode(&twice).unwrap().unwrap();
        assert_eq!((found.message, found.taken), (frame, frame.len()));
        assert_eq!(bytes(&framing, frame), frame);
    }
}

#[test]
fn a_varint_has_one_encoding_and_ten_bytes_at_most() {
    for overlong in [
        &b"\x80\x00"[..],
        b"\x81\x00",
        b"\x81\x80\x00",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
    ] {
        for max in [MAX, usize::MAX] {
            malformed(Varint::new(max).decode(overlong));
            let begun = &overlong[..overlong.len() - 1];
            assert_eq!(Varint::new(max).decode(begun).unwrap(), None);
        }
    }

    // The largest length of 64 bits, which is awaited only where pointers have as many; one more bit;
    // and a varint that does not end.
    let largest = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    match usize::try_from(u64::MAX) {
        Ok(most) => assert_eq!(Varint::new(most).decode(largest).unwrap(), None),
        Err(_) => assert!(Varint::new(usize::MAX).decode(largest).is_err()),
    }
    let zeros = [0x80; 9];
    for last in [0x02, 0x7f, 0x80, 0x81, 0xff] {
        let data = [&zeros[..], &[last]].concat();
        too_long(Varint::new(usize::MAX).decode(&data), u64::MAX);
    }
}

#[test]
fn a_varint_is_too_long_as_soon_as_its_bytes_say_so() {
    too_long(Varint::new(MAX).decode(&[13]), 13);
    too_long(Varint::new(MAX).decode(&[0x8d]), 13);
    too_long(Varint::new(300).decode(b"\xad\x82"), 301);
    too_long(Varint::new(MAX).encode(&[0; MAX + 1], |_| ()), 13);
    too_long(Varint::new(0).decode(&[1]), 1);
    assert_eq!(Varint::new(0).decode(&[0, 9]).unwrap().unwrap().taken, 1);
}

#[test]
fn a_message_that_has_not_the_fixed_length_is_refused() {
    let framing = FixedLength::new(3);
    malformed(framing.encode(b"", |_| panic!("nothing is written")));
    malformed(framing.encode(b"ab", |_| panic!("nothing is written")));
    too_long(framing.encode(b"abcd", |_| panic!("nothing is written")), 4);
    assert_eq!(
        decode(&mut FixedLength::new(3), b"abcab", &[1]).1,
        End::Truncated
    );
}

/// The limit of the connection holds whatever the framing allows, and before the message arrives.
#[test]
fn a_connection_keeps_no_more_of_a_message_than_its_max_frame() {
    let config = Config {
        limits: Limits {
            max_frame: 16,
            ..Limits::default()
        },
        ..Config::default()
    };
    let check = |mut session: MemorySession<_>| {
        session.receive(&[b'a'; 40]);
        assert!(
            session.reason().is_some(),
            "{}",
            session.sent().escape_ascii()
        );
    };
    let fixed = Framed::new(FixedLength::new(30), Answer(Counter::default()));
    check(MemorySession::with_config(fixed, config));
}

#[test]
#[should_panic(expected = "a length has 1 to 8 bytes, not 9")]
fn a_length_of_nine_bytes_is_no_length() {
    let _ = LengthPrefix::new(9, ByteOrder::BigEndian, MAX);
}

#[test]
#[should_panic(expected = "a length has 1 to 8 bytes, not 0")]
fn a_length_of_no_bytes_is_no_length() {
    let _ = LengthField::new(3, 0, ByteOrder::BigEndian, MAX);
}

#[test]
#[should_panic(expected = "a length of 1 byte cannot count 256 bytes besides the message")]
fn a_length_that_can_announce_nothing_is_no_length() {
    let _ = LengthPrefix::u8(MAX).length_adjustment(-256);
}

#[test]
#[should_panic(expected = "a message of at most 12 bytes has no room for a length after 11 bytes")]
fn a_header_has_room_in_the_limit() {
    let _ = LengthField::new(11, 2, ByteOrder::BigEndian, MAX);
}

#[test]
#[should_panic(expected = "at least one byte")]
fn messages_without_a_byte_have_no_fixed_length() {
    let _ = FixedLength::new(0);
}
