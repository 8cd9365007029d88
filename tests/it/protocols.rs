//! The ready-made protocols and one of each framing, under every way to cut their input.

use std::marker::PhantomData;

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::framing::{
    ByteOrder, Delimited, Encoder, FixedLength, FrameProtocol, FrameTransport, Framed, Framing,
    LengthField, LengthPrefix, Lines, Message, Netstring, Varint,
};
use serveloop::protocols::{Discard, Echo, Hello, Relay};
use serveloop::service::{Dialer, Dialing};
use serveloop::testing::{Client, MemoryServer, MemorySession, Seen, SplitChecker};
use serveloop::{Address, CloseReason, Config, Factory, Peer, ProtocolError};

use crate::support::{cases, millis, seconds};

/// Answers each frame with its length and its bytes in reverse, says why it rejects one, and counts
/// at the end.
struct Reverse<F> {
    count: usize,
    framing: PhantomData<F>,
}

impl<F: Framing> FrameProtocol for Reverse<F>
where
    for<'m> Message<'m, F>: AsRef<[u8]>,
{
    type Framing = F;

    fn frame_received(
        &mut self,
        frame: Message<'_, F>,
        frames: &mut FrameTransport<'_, F>,
    ) -> Result<(), ProtocolError> {
        let frame = frame.as_ref();
        self.count += 1;
        if frame == b"bad" {
            return Err(ProtocolError::malformed("a bad frame"));
        }
        frames.send(&frame.iter().rev().copied().collect::<Vec<_>>())
    }

    fn input_rejected(&mut self, error: &ProtocolError, frames: &mut FrameTransport<'_, F>) {
        let kind = match error {
            ProtocolError::TooLong { .. } => "long",
            ProtocolError::Truncated { .. } => "cut",
            _ => "bad",
        };
        note(kind, frames);
    }

    fn eof_received(&mut self, frames: &mut FrameTransport<'_, F>) -> Result<(), ProtocolError> {
        note(&self.count.to_string(), frames);
        frames.transport().close();
        Ok(())
    }
}

/// Sends a text as a frame, or as it is where no frame is like that.
fn note<F: Framing>(text: &str, frames: &mut FrameTransport<'_, F>) {
    if frames.send(text.as_bytes()).is_err() {
        frames.transport().write(text.as_bytes());
    }
}

fn framed<F: Framing>(framing: F) -> Framed<Reverse<F>>
where
    for<'m> Message<'m, F>: AsRef<[u8]>,
{
    let reverse = Reverse {
        count: 0,
        framing: PhantomData,
    };
    Framed::new(framing, reverse)
}

#[test]
fn streams_do_not_depend_on_the_cut() {
    SplitChecker::new(|| Echo)
        .stream()
        .check(&[b"some", b"bytes", b"\0\r\n\xff", b"of any kind"]);
    SplitChecker::new(|| Discard)
        .stream()
        .check(&[b"some", b"bytes"]);
}

#[test]
fn hello_over_lines_does_not_depend_on_the_cut() {
    for delay in [millis(0), millis(1), seconds(1)] {
        let hello = || Framed::new(Lines::new(9), Hello::new(delay));
        let check = SplitChecker::new(hello);
        check.check(&[b"Michael\n", b"\r\n", b"J\xc3\xb6rg\r\n"]);
        check.check(&[b"Ann\n", b"exit\n", b"not read\n"]);
        check.check(&[b"Ann\n", b"cut off"]);
        check.check(&[b"Ann\n", b"0123456789\n"]);
    }
}

#[test]
fn frames_do_not_depend_on_the_cut() {
    for order in [ByteOrder::BigEndian, ByteOrder::LittleEndian] {
        for (width, counts_itself) in (1..=8).flat_map(|width| [(width, false), (width, true)]) {
            let mut prefix = LengthPrefix::new(width, order, 20);
            if counts_itself {
                prefix = prefix.counting_itself();
            }
            let frame = |payload: &[u8]| {
                let mut frame = Vec::new();
                prefix
                    .encode(payload, |piece| frame.extend_from_slice(piece))
                    .unwrap();
                frame
            };
            let check = SplitChecker::new(|| framed(prefix));
            check.check(&[&frame(b"abc"), &frame(b""), &frame(&[7; 20])]);
            check.check(&[&frame(b"a"), &frame(b"bad"), &frame(b"not read")]);
            check.check(&[&frame(b"a"), &frame(b"truncated")[..width + 3]]);
            check.check(&[&frame(b"a"), &[29; 8], b"more"]);
            check.check(&[&frame(b"a"), &[0; 8], b"more"]);
        }
    }
}

#[test]
fn delimited_messages_do_not_depend_on_the_cut() {
    for delimiter in ["|", "--", "aab"] {
        let check = SplitChecker::new(|| framed(Delimited::new(delimiter.as_bytes(), 12)));
        let message = |text: &str| [text, delimiter].concat().into_bytes();
        check.check(&[&message("one"), &message(""), &message("a-b-c")]);
        check.check(&[&message("one"), b"a-a-"]);
        check.check(&[&message("one"), b"0123456789abcdefghi"]);
    }
}

#[test]
fn netstrings_do_not_depend_on_the_cut() {
    let check = SplitChecker::new(|| framed(Netstring::new(12)));
    check.check(&[b"3:one,", b"0:,", b"12:1:,2:ab,3:cd,"]);
    check.check(&[b"3:one,", b"13:", b"more"]);
    check.check(&[b"3:one,", b"3:four,"]);
    check.check(&[b"3:one,", b"03:two,"]);
    check.check(&[b"3:one,", b"1x:a,"]);
    check.check(&[b"3:one,", b"5:trun"]);
}

#[test]
fn messages_after_a_varint_do_not_depend_on_the_cut() {
    let check = SplitChecker::new(|| framed(Varint::new(200)));
    let long = [&b"\xc8\x01"[..], &[7; 200]].concat();
    check.check(&[b"\x03one", b"\0", &long, b"\x03two"]);
    check.check(&[b"\x03one", b"\xc9\x01", b"more"]);
    check.check(&[b"\x03one", b"\x83\0", b"more"]);
    check.check(&[b"\x03one", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80"]);
    check.check(&[b"\x03one", b"\x05trun"]);
    check.check(&[b"\x03one", b"\xc8"]);
}

#[test]
fn messages_with_a_header_do_not_depend_on_the_cut() {
    // The protocol answers with the message in reverse, whose header the framing completes.
    let check = SplitChecker::new(|| {
        framed(LengthField::new(1, 3, ByteOrder::BigEndian, 20).counting_frame())
    });
    check.check(&[b"a\0\0\x0bmessage", b"b\0\0\x04", b"c\0\0\x06\0\0"]);
    check.check(&[b"a\0\0\x0bmessage", b"b\0\0\x03", b"more"]);
    check.check(&[b"a\0\0\x0bmessage", b"b\0\0\x15", b"more"]);
    check.check(&[b"a\0\0\x0bmessage", b"b\0\0\x08tru"]);
    check.check(&[b"a\0\0\x0bmessage", b"b\0"]);
}

#[test]
fn messages_of_a_fixed_length_do_not_depend_on_the_cut() {
    let check = SplitChecker::new(|| framed(FixedLength::new(3)));
    check.check(&[b"one", b"two", b"\0\0\0", b"\r\n\xff"]);
    check.check(&[b"one", b"bad", b"not"]);
    check.check(&[b"one", b"tw"]);
}

#[test]
fn lines_do_not_depend_on_the_cut() {
    let check = SplitChecker::new(|| framed(Lines::new(12)));
    check.check(&[b"one\n", b"\n", b"two\r\n", b"\r\r\n", b"a\0b\rc\n"]);
    check.check(&[b"one\n", b"0123456789ab\r\n", b"0123456789abc\r\n"]);
    let lenient = SplitChecker::new(|| framed(Lines::new(12).accept_unterminated()));
    lenient.check(&[b"one\n", b"no end"]);
}

proptest! {
    #![proptest_config(cases(24))]

    /// Generated messages.
    #[test]
    fn no_frames_depend_on_the_cut(messages in vec(vec(0..24_u8, 0..10), 1..5)) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        SplitChecker::new(|| framed(LengthPrefix::new(1, ByteOrder::BigEndian, 20))).check(&messages);
        SplitChecker::new(|| framed(Lines::new(6))).check(&messages);
        SplitChecker::new(|| framed(Delimited::new([1, 1, 2], 6))).check(&messages);
    }
}

#[test]
fn hello_greets_answers_late_and_closes_on_exit() {
    let mut session = MemorySession::new(Hello::new(seconds(1)));
    assert_eq!(session.sent(), b"Welcome!");
    session.receive(b"Michael\r\n");
    session.receive(b"Ann");
    session.advance(seconds(1) - millis(1));
    assert_eq!(session.sent(), b"");
    session.advance(millis(1));
    assert_eq!(session.sent(), b"Hello,Michael");
    session.advance(seconds(1));
    assert_eq!(session.sent(), b"Hello,Ann");
    session.receive(b"exit\n");
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
}

/// A name can be as long as all that is read at once.
#[test]
fn a_reply_that_is_delayed_counts_as_memory() {
    let name = vec![b'x'; 60_000];
    let mut session = MemorySession::new(Hello::new(seconds(1)));
    session.sent();
    session.receive(&name);
    assert_eq!(session.held(), b"Hello,".len() + name.len());
    session.advance(seconds(1));
    assert_eq!(session.sent().len(), b"Hello,".len() + name.len());
    assert_eq!(session.held(), 0);

    let lines = Framed::new(Lines::new(99), Hello::new(seconds(1)));
    let mut session = MemorySession::new(lines);
    session.sent();
    session.receive(b"Ann\n");
    assert_eq!(session.held(), b"Hello,Ann".len());
}

#[test]
fn a_shutdown_lets_hello_finish_what_it_owes() {
    let mut owing = MemorySession::new(Hello::new(seconds(1)));
    owing.receive(b"Ann");
    owing.shutdown();
    assert!(owing.reason().is_none());
    owing.advance(seconds(1));
    assert_eq!(owing.sent(), b"Welcome!Hello,Ann");
    assert!(matches!(owing.reason(), Some(CloseReason::Shutdown)));

    let mut idle = MemorySession::new(Hello::new(seconds(1)));
    idle.shutdown();
    assert!(matches!(idle.reason(), Some(CloseReason::Shutdown)));
}

/// The end of the stream asks for nothing less than what was asked for before it.
#[test]
fn a_half_close_lets_hello_finish_what_it_owes() {
    let mut session = MemorySession::new(Framed::new(Lines::new(99), Hello::new(seconds(1))));
    session.receive(b"Ann\nBob\n");
    session.receive_eof();
    session.advance(seconds(2));
    assert_eq!(session.sent(), b"Welcome!\nHello,Ann\nHello,Bob\n");
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

#[test]
fn a_datagram_hello_is_answered_at_once() {
    let address: Address = "udp://127.0.0.1:1".parse().unwrap();
    let hello = Hello::new(seconds(1));
    let mut session =
        MemorySession::with_peer(hello, Config::default(), Peer::new(address, Some(0)));
    session.receive(b"Ann");
    assert_eq!(session.sent(), b"Hello,Ann");
}

#[test]
fn a_reply_that_fits_no_frame_ends_the_session_without_a_piece_of_it() {
    struct Double;
    impl FrameProtocol for Double {
        type Framing = LengthPrefix;

        fn frame_received(
            &mut self,
            frame: &[u8],
            frames: &mut FrameTransport<'_, LengthPrefix>,
        ) -> Result<(), ProtocolError> {
            frames.send(&frame.repeat(2))
        }
    }
    let mut session = MemorySession::new(Framed::new(LengthPrefix::u32(3), Double));
    session.receive(b"\0\0\0\x01a\0\0\0\x02ab");
    assert_eq!(session.sent(), b"\0\0\0\x02aa");
    let reason = session.reason();
    let too_long = |reason: Option<&CloseReason>| {
        matches!(
            reason,
            Some(CloseReason::Protocol(ProtocolError::TooLong {
                length: 4,
                limit: 3
            }))
        )
    };
    assert!(too_long(reason), "{reason:?}");
}

/// A proxy in memory, its client and its target.
fn proxy() -> (MemoryServer<impl Factory<Protocol = Relay>>, Client) {
    let factory = Dialing::new(|dialer: &Dialer<Relay>| {
        let dialer = dialer.clone();
        move |_: &Peer| {
            let (near, far) = Relay::pair();
            Some(near.keeping(dialer.connect(target(), far)))
        }
    });
    let mut server = MemoryServer::new(factory);
    server.ignore(target());
    let client = server.connect();
    (server, client)
}

fn target() -> Address {
    "tcp://192.0.2.1:7".parse().unwrap()
}

#[test]
fn a_relay_passes_each_end_on_by_itself() {
    let (mut server, client) = proxy();
    server.send(client, b"early");
    server.finish(client);
    server.accept(target());
    let (_, far) = server.next_outbound().unwrap();
    assert_eq!(server.received(far), b"early");
    assert_eq!(server.seen(far), Seen::End);
    assert_eq!(server.seen(client), Seen::Open);
    server.send(far, b"late");
    server.finish(far);
    assert_eq!(server.received(client), b"late");
    assert_eq!(server.seen(client), Seen::End);
    assert_eq!(server.connections(), 0);
    assert_eq!(server.statistics().closed_aborted, 0);
}

#[test]
fn a_relay_whose_other_end_fails_is_reset() {
    for failing in [0, 1] {
        let (mut server, client) = proxy();
        server.accept(target());
        let (_, far) = server.next_outbound().unwrap();
        let mut ends = [client, far];
        ends.rotate_left(failing);
        server.send(ends[1], b"unfinished");
        server.reset(ends[0]);
        assert_eq!(server.seen(ends[1]), Seen::Reset, "{failing}");
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn a_relay_that_reaches_nobody_is_reset_and_one_whose_client_goes_gives_up() {
    let (mut server, client) = proxy();
    server.refuse(target());
    assert_eq!(server.seen(client), Seen::Reset);

    let (mut server, client) = proxy();
    server.reset(client);
    assert_eq!(server.connections(), 0);
    server.accept(target());
    assert!(server.next_outbound().is_none());
}

#[test]
fn a_slow_side_of_a_relay_slows_the_other_down() {
    let (mut server, client) = proxy();
    server.accept(target());
    let (_, far) = server.next_outbound().unwrap();
    server.stop_taking(far);
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..4 {
        server.send(client, &piece);
    }
    let most = 4 * Config::default().limits.high_water;
    let count = server.statistics().bytes_read;
    assert!(count <= most as u64, "{count} bytes were read for nobody");
    server.take(far, usize::MAX);
    assert_eq!(server.received(far).len(), 4 << 20);
    assert_eq!(server.statistics().bytes_read, 4 << 20);
}
