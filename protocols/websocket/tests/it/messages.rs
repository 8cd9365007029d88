//! Messages, fragments and control frames.

use serveloop::testing::{MemorySession, SplitChecker};
use serveloop::{CloseReason, Limits, ProtocolError, Result};
use serveloop_websocket::{Echo, Message, MessageProtocol, MessageTransport, WebSocket};

use crate::support::{
    BINARY, CLOSE, LAST, MORE, PING, PONG, QUIET, TEXT, answer, closed, farewell, frame, open,
    patient, plain,
};

#[test]
fn the_answer_does_not_depend_on_the_cut() {
    let long = "\u{20ac}".repeat(50);
    let messages: &[&[u8]] = &[
        &frame(TEXT, "hello"),
        &frame(TEXT, ""),
        &frame(PING, ""),
        &frame(BINARY, b"\xff\x00"),
        &frame(TEXT & MORE, "h\u{e9}"),
        &frame(PING, "still there?"),
        &frame(0, ""),
        &frame(PONG, "yes"),
        &frame(LAST, "llo"),
        &frame(BINARY & MORE, b"\xff"),
        &frame(LAST, ""),
        &frame(TEXT, &long),
        &frame(CLOSE, farewell(1000, "bye")),
    ];
    SplitChecker::new(|| WebSocket::new(Echo, QUIET))
        .stream()
        .check(messages);

    let (sent, reason) = answer(|| WebSocket::new(Echo, QUIET), &messages.concat());
    let expected = [
        plain(TEXT, "hello"),
        plain(TEXT, ""),
        plain(PONG, ""),
        plain(BINARY, b"\xff\x00"),
        plain(PONG, "still there?"),
        plain(TEXT, "h\u{e9}llo"),
        plain(BINARY, b"\xff"),
        plain(TEXT, &long),
        closed(1000, ""),
    ];
    assert_eq!(sent, expected.concat());
    assert_eq!(reason, "closed");
}

#[test]
fn lengths_at_the_edges_of_their_forms() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let mut session = open(Echo);
        let payload = vec![b'x'; length];
        session.receive(&frame(BINARY, &payload));
        assert!(session.sent() == plain(BINARY, &payload), "{length}");
    }
}

/// What breaks the rules, the code for it, and what is said.
fn violations() -> Vec<(Vec<u8>, u16, &'static str)> {
    let long = vec![b'x'; 126];
    let zero = [0; 8];
    let cases: [(&[&[u8]], u16, &str); 17] = [
        (&[&[0xc1]], 1002, "a reserved bit of a frame is set"),
        (&[&[0x83]], 1002, "a frame of a reserved type"),
        (&[&[0x8f]], 1002, "a frame of a reserved type"),
        (&[&plain(TEXT, "unmasked")], 1002, "a frame without a mask"),
        (
            &[&frame(PING & MORE, "")],
            1002,
            "a control frame in fragments",
        ),
        (
            &[&frame(PING, &long)],
            1002,
            "a control frame of more than 125 bytes",
        ),
        (&[&frame(LAST, "")], 1002, "a fragment of no message"),
        (
            &[&frame(TEXT & MORE, "a"), &frame(TEXT, "b")],
            1002,
            "a message within the fragments of another one",
        ),
        (
            &[&[0x82, 0xfe, 0, 125], &zero],
            1002,
            "the length of a frame in more bytes than it needs",
        ),
        (
            &[&[0x82, 0xff, 0x80], &zero, &zero],
            1002,
            "the length of a frame has its highest bit set",
        ),
        (
            &[&frame(CLOSE, [3])],
            1002,
            "a close frame with half a code",
        ),
        (
            &[&frame(CLOSE, farewell(1005, ""))],
            1002,
            "a close frame with a code that no frame may have",
        ),
        (
            &[&frame(CLOSE, b"\x03\xe8\xff")],
            1007,
            "the text of a close frame is not UTF-8",
        ),
        (&[&frame(TEXT, b"\xff")], 1007, "text is not UTF-8"),
        (
            // The first half of a character, and no second.
            &[&frame(TEXT, b"\xe2\x82")],
            1007,
            "text is not UTF-8",
        ),
        (
            &[&frame(TEXT & MORE, b"\xe2\x82"), &frame(LAST, "a")],
            1007,
            "text is not UTF-8",
        ),
        (
            // A surrogate.
            &[&frame(TEXT & MORE, b"\xed\xa0"), &frame(LAST, b"\x80")],
            1007,
            "text is not UTF-8",
        ),
    ];
    let cases = cases.into_iter();
    cases
        .map(|(input, code, problem)| (input.concat(), code, problem))
        .collect()
}

#[test]
fn a_violation_is_answered_with_its_code() {
    for (input, code, problem) in violations() {
        let first = frame(TEXT, "hi");
        let input = [&first[..], &input, &frame(TEXT, "not seen")].concat();
        let (sent, reason) = answer(|| WebSocket::new(Echo, QUIET), &input);
        assert_eq!(reason, format!("protocol error: malformed: {problem}"));
        let farewell = closed(code, &format!("malformed: {problem}"));
        assert_eq!(sent, [plain(TEXT, "hi"), farewell].concat(), "{problem}");
    }
}

/// Within a message of many fragments, and within one frame, as soon as no character can begin so.
#[test]
fn wrong_text_is_noticed_before_its_message_is_complete() {
    for (valid, invalid) in [
        (&b"\xce\xba"[..], &b"\xff"[..]),
        (b"", b"\xed\xa0"),
        (b"a\xf4", b"\x90"),
        (b"\xf0\x90", b"a"),
        (b"", b"\xc0"),
        (b"\xe2\x82\xac", b"\x80"),
    ] {
        let mut session = open(Echo);
        session.receive(&frame(TEXT & MORE, valid));
        assert!(session.reason().is_none(), "{valid:x?}");
        session.receive(&frame(0, invalid));
        assert_eq!(
            session.sent(),
            closed(1007, "malformed: text is not UTF-8"),
            "{valid:x?} {invalid:x?}"
        );

        let mut session = open(Echo);
        let whole = frame(TEXT, [valid, invalid, b"much more"].concat());
        let end = whole.len() - b"much more".len();
        session.receive(&whole[..end - 1]);
        session.receive(&whole[end - 1..end]);
        assert_eq!(session.sent(), closed(1007, "malformed: text is not UTF-8"));
    }
}

/// A limit on messages, not on frames: the header of the frame that makes it too long is enough.
#[test]
fn a_message_that_is_too_long_is_noticed_by_its_header() {
    let limits = Limits {
        max_frame: 10,
        ..Limits::default()
    };
    let session =
        || MemorySession::with_config(WebSocket::new(Echo, QUIET), patient(limits.clone()));
    let farewell = closed(1009, "message too long: 11 bytes, at most 10 allowed");

    let mut exact = session();
    exact.receive(&frame(TEXT, "0123456789"));
    assert_eq!(exact.sent(), plain(TEXT, "0123456789"));

    let mut one = session();
    one.receive(&frame(TEXT, "0123456789a")[..6]);
    assert_eq!(one.sent(), farewell);
    let Some(CloseReason::Protocol(ProtocolError::TooLong { length, limit })) = one.reason() else {
        panic!("{:?}", one.reason());
    };
    assert_eq!((*length, *limit), (11, 10));

    let mut several = session();
    several.receive(&frame(TEXT & MORE, "01234"));
    several.receive(&frame(0, "56789"));
    several.receive(&frame(0, ""));
    assert_eq!(several.sent(), b"");
    several.receive(&frame(LAST, "a")[..6]);
    assert_eq!(several.sent(), farewell);

    let mut huge = session();
    huge.receive(&[
        0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    let told = huge.sent();
    assert_eq!(told[2..4], 1009_u16.to_be_bytes());
}

#[test]
fn what_is_kept_of_a_message_is_counted() {
    let mut session = open(Echo);
    session.receive(&frame(BINARY & MORE, [1; 1_000]));
    assert_eq!(session.held(), 1_000);
    let half = frame(0, [1; 1_000]);
    session.receive(&half[..508]);
    // The buffer grows by doubling.
    assert_eq!(session.held(), 2_000);
    session.receive(&half[508..]);
    session.receive(&frame(LAST, ""));
    assert_eq!(session.held(), 0);
    assert_eq!(session.sent(), plain(BINARY, [1; 2_000]));
}

struct Greedy;

impl MessageProtocol for Greedy {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
        client.charge(100);
        Ok(())
    }

    fn message_received(&mut self, _: Message<'_>, client: &mut MessageTransport<'_>) -> Result {
        client.charge(7);
        Ok(())
    }
}

#[test]
fn what_the_protocol_keeps_is_added() {
    let mut session = open(Greedy);
    assert_eq!(session.held(), 100);
    session.receive(&frame(BINARY & MORE, [1; 10]));
    assert_eq!(session.held(), 110);
    session.receive(&frame(LAST, ""));
    assert_eq!(session.held(), 7);
}

#[test]
fn pings_of_a_client_that_reads_nothing_are_not_collected() {
    let limits = Limits::default();
    let high_water = limits.high_water;
    let mut session = MemorySession::with_config(WebSocket::new(Echo, QUIET), patient(limits));
    session.stop_taking();
    let pings = frame(PING, [b'x'; 125]).repeat(10_000);
    session.receive(&pings);
    assert!(
        session.waiting() < high_water + 200,
        "{}",
        session.waiting()
    );
    session.take_in_steps(1_000);
    assert_eq!(session.sent().len(), 10_000 * 127);
}
