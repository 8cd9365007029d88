//! Long messages whose length is known: read into the connection's memory, and handed over by value.

use std::cell::Cell;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serveloop::framing::{
    ByteOrder, Decoder, FixedLength, FrameProtocol, FrameTransport, Framed, Framing, LengthField,
    LengthPrefix, Lines, Netstring, Varint,
};
use serveloop::testing::{Exchange, MemorySession, Simulation};
use serveloop::{CloseReason, Config, Limits, Peer, Protocol, ProtocolError, Result, Transport};

use crate::support::model_server::{Model, ModelServer};
use crate::support::{noise, seconds, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// Large messages are allowed.
fn large() -> Config {
    Config {
        limits: Limits {
            max_frame: 64 << 20,
            ..timeless().limits
        },
        max_buffered: 128 << 20,
        ..timeless()
    }
}

fn sum(message: &[u8]) -> u64 {
    message
        .iter()
        .zip(1..)
        .map(|(byte, at)| u64::from(*byte) * at)
        .sum()
}

/// Sums up messages behind a length of four bytes, and counts its calls. A message that begins with
/// `v` is taken by value, in a call of its own.
#[derive(Clone, Default)]
struct Sums {
    calls: u32,
    claims: bool,
}

impl Protocol for Sums {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.calls += 1;
        let Some((length, rest)) = data.split_first_chunk() else {
            return Ok(0);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some(message) = rest.get(..length) else {
            transport.expect(4 + length)?;
            return Ok(0);
        };
        if message.starts_with(b"v") {
            self.claims = true;
            transport.claim_input(message);
        } else {
            transport.write(format!("{} ", sum(message)).as_bytes());
        }
        Ok(4 + length)
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let input = transport.take_input();
        assert_eq!(input.is_some(), std::mem::take(&mut self.claims));
        if let Some(message) = input {
            transport.write(format!("{} by value ", sum(&message)).as_bytes());
        }
    }
}

fn message(kind: u8, length: usize) -> Vec<u8> {
    let mut message = noise(length);
    message[0] = kind;
    message
}

/// Messages of several lengths, as they are sent, and the replies.
fn exchange(lengths: &[usize]) -> (Vec<u8>, String) {
    let (mut sent, mut replies) = (Vec::new(), String::new());
    for (length, kind) in lengths.iter().zip(b"avva".iter().cycle()) {
        let message = message(*kind, *length);
        sent.extend((*length as u32).to_be_bytes());
        sent.extend(&message);
        let how = if *kind == b'v' { " by value" } else { "" };
        replies += &format!("{}{how} ", sum(&message));
    }
    (sent, replies)
}

#[test]
fn a_long_message_arrives_in_every_model() {
    let (sent, replies) = exchange(&[3_000_000, 5, 5_000_000, 100_000, 70_000, 1_000_000, 9, 1]);
    for model in Model::ALL {
        let server = ModelServer::new(model, &[TCP], large(), |_: &Peer| Some(Sums::default()));
        let mut client = server.client();
        client.write_all(&sent).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, replies, "{model:?}");
        drop(client);
        let statistics = server.end();
        assert_eq!(statistics.bytes_read, sent.len() as u64, "{model:?}");
    }
}

#[test]
fn nothing_is_shown_before_what_is_expected_is_there() {
    let (sent, replies) = exchange(&[1_000_000]);
    let mut session = MemorySession::with_config(Sums::default(), large());
    for piece in sent.chunks(10_000) {
        session.receive(piece);
    }
    assert_eq!(session.sent(), replies.as_bytes());
    assert_eq!(session.protocol().calls, 2);
    assert_eq!(session.held(), 0);
}

#[test]
fn whatever_the_cuts_the_replies_are_the_same() {
    let (sent, replies) = exchange(&[70_000, 80_000, 3, 66_000, 65_532, 65_533, 2, 200_000]);
    for step in [1_usize << 20, 70_004, 65_536, 10_007, 4, 1] {
        for first in [1, 3, 4, 5, 70_003, 70_004, 70_008] {
            let mut session = MemorySession::with_config(Sums::default(), large());
            let (first, rest) = sent.split_at(first);
            session.receive(first);
            for piece in rest.chunks(step) {
                session.receive(piece);
            }
            session.receive_eof();
            assert_eq!(session.sent(), replies.as_bytes(), "{} {step}", first.len());
            if step < 5 {
                break;
            }
        }
    }
}

#[test]
fn long_messages_survive_a_hostile_network() {
    let (sent, replies) = exchange(&[70_000, 80_000, 3, 66_000]);
    let make = || {
        Simulation::new(|| |_: &Peer| Some(Sums::default())).client(Exchange::new(&sent, &replies))
    };
    make().run(0..100);
    make().blocking().run(0..100);
}

#[test]
fn more_than_may_be_kept_is_refused_when_it_is_announced() {
    let mut session = MemorySession::with_config(Sums::default(), large());
    session.receive(&(1_u32 << 30).to_be_bytes());
    let Some(CloseReason::Protocol(ProtocolError::TooLong { length, limit })) = session.reason()
    else {
        panic!("{:?}", session.reason());
    };
    assert_eq!((*length, *limit), ((1 << 30) + 4, 64 << 20));
}

#[test]
fn memory_follows_what_arrives_and_not_what_is_announced() {
    let config = Config {
        max_buffered: 64 << 20,
        ..large()
    };
    let server = ModelServer::new(Model::EventLoop, &[TCP], config, |_: &Peer| {
        Some(Sums::default())
    });
    // Together they announce sixteen times what there may be.
    let mut clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for client in &mut clients {
        client.write_all(&(60_u32 << 20).to_be_bytes()).unwrap();
        client.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let (sent, replies) = exchange(&[500_000]);
    let mut last = server.client();
    last.write_all(&sent).unwrap();
    let mut got = vec![0; replies.len()];
    last.read_exact(&mut got).unwrap();
    assert_eq!(got, replies.as_bytes());
    drop((clients, last));
    assert_eq!(server.end().closed_shed, 0);
}

#[test]
fn what_arrives_is_on_the_account() {
    let config = Config {
        max_buffered: 64 << 20,
        ..large()
    };
    let server = ModelServer::new(Model::EventLoop, &[TCP], config, |_: &Peer| {
        Some(Sums::default())
    });
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.write_all(&(60_u32 << 20).to_be_bytes()).unwrap();
        // The one that is shed does not take all of it.
        let _ = client.write_all(&vec![b'x'; 30 << 20]);
    }
    drop(clients);
    assert!(server.end().closed_shed > 0);
}

#[test]
fn a_stream_that_ends_too_early_is_truncated() {
    let mut session = MemorySession::with_config(Sums::default(), large());
    session.receive(&1_000_000_u32.to_be_bytes());
    session.receive(&[b'x'; 10]);
    session.receive_eof();
    let truncated = matches!(
        session.reason(),
        Some(CloseReason::Protocol(ProtocolError::Truncated {
            unread: 14
        }))
    );
    assert!(truncated, "{:?}", session.reason());
}

#[test]
fn the_deadline_of_a_message_runs_while_its_rest_is_expected() {
    let config = Config {
        limits: Limits {
            message_timeout: Some(crate::support::seconds(5)),
            ..large().limits
        },
        ..large()
    };
    let mut session = MemorySession::with_config(Sums::default(), config);
    let (sent, _) = exchange(&[4]);
    session.receive(&sent);
    session.receive(&1_000_000_u32.to_be_bytes());
    for _ in 0..6 {
        session.advance(crate::support::seconds(1));
        session.receive(&[b'x'; 1_000]);
    }
    assert!(
        matches!(session.reason(), Some(CloseReason::TimedOut(_))),
        "{:?}",
        session.reason()
    );
}

/// Answers each message with its length.
struct Lengths<F: 'static>(PhantomData<F>);

impl<F: 'static> FrameProtocol for Lengths<F>
where
    F: Framing,
    F::Decoder: for<'a> Decoder<Message<'a> = &'a [u8]>,
{
    type Framing = F;

    fn frame_received(&mut self, message: &[u8], to: &mut FrameTransport<'_, F>) -> Result {
        to.transport()
            .write(format!("{} ", message.len()).as_bytes());
        Ok(())
    }
}

/// Each framing says how long its long messages are, header and delimiter included.
#[track_caller]
fn announces<F>(framing: F, sent: &[u8], length: usize)
where
    F: Framing + Clone + Decoder + 'static,
    F::Decoder: for<'a> Decoder<Message<'a> = &'a [u8]>,
{
    assert_eq!(framing.announced(&sent[..30]), Some(sent.len()));
    let reply = format!("{length} {length} ");
    let protocol = Framed::new(framing, Lengths::<F>(PhantomData));
    let mut session = MemorySession::with_config(protocol, large());
    let twice = [sent, sent].concat();
    for piece in twice.chunks(7_777) {
        session.receive(piece);
    }
    assert_eq!(session.sent(), reply.as_bytes());
}

#[test]
fn framings_say_how_long_a_message_is() {
    let payload = vec![b'x'; 300_000];
    let behind = |header: &[u8]| [header, &payload].concat();
    announces(
        LengthPrefix::u32(1 << 20),
        &behind(&300_000_u32.to_be_bytes()),
        300_000,
    );
    announces(Varint::new(1 << 20), &behind(b"\xe0\xa7\x12"), 300_000);
    announces(FixedLength::new(300_000), &payload, 300_000);
    let netstring = [&behind(b"300000:"), &b","[..]].concat();
    announces(Netstring::new(1 << 20), &netstring, 300_000);
    let field = behind(&[&b"t"[..], &300_004_u32.to_be_bytes()].concat());
    let framing = LengthField::new(1, 4, ByteOrder::BigEndian, 1 << 20).counting_itself();
    announces(framing, &field, 300_005);
}

/// Takes everything by value, whatever it is shown from, and keeps a part of it.
#[derive(Default)]
struct Claims(Arc<std::sync::Mutex<Vec<Vec<u8>>>>);

impl Protocol for Claims {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.claim_input(b"not this");
        transport.claim_input(&data[1..]);
        Ok(data.len())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.0.lock().unwrap().extend(transport.take_input());
        assert!(transport.take_input().is_none());
    }
}

#[test]
fn short_input_is_handed_over_too() {
    let claims = Claims::default();
    let got = Arc::clone(&claims.0);
    let mut session = MemorySession::new(claims);
    session.receive(b"one");
    session.receive(b"two");
    assert_eq!(*got.lock().unwrap(), [b"ne", b"wo"]);
    assert_eq!(session.held(), 0);
}

/// Keeps every message by value, and then the end of the stream as an empty one.
struct Archive<F: 'static>(Vec<Vec<u8>>, PhantomData<F>);

impl<F: Framing + 'static> FrameProtocol for Archive<F>
where
    F::Decoder: for<'a> Decoder<Message<'a> = &'a [u8]>,
{
    type Framing = F;

    fn frame_received(&mut self, message: &[u8], to: &mut FrameTransport<'_, F>) -> Result {
        to.transport().claim_input(message);
        Ok(())
    }

    fn woken(&mut self, to: &mut FrameTransport<'_, F>) {
        self.0.extend(to.transport().take_input());
    }

    fn eof_received(&mut self, to: &mut FrameTransport<'_, F>) -> Result {
        self.0.push(Vec::new());
        to.transport().close();
        Ok(())
    }
}

fn archived<F>(framing: F) -> MemorySession<Framed<Archive<F>>>
where
    F: Framing + 'static,
    F::Decoder: for<'a> Decoder<Message<'a> = &'a [u8]>,
{
    let archive = Archive::<F>(Vec::new(), PhantomData);
    MemorySession::new(Framed::new(framing, archive))
}

/// The end of the stream is told after the last message was handed over, also if it was what ended that.
#[test]
fn messages_of_a_framing_are_handed_over_too() {
    let long = vec![b'x'; 300_000];
    let mut session = archived(Lines::new(1 << 20).accept_unterminated());
    session.receive(b"one\ntwo\n");
    session.receive(&[&long[..], b"\nthe end"].concat());
    session.receive_eof();
    let kept = session.protocol().protocol().0.iter();
    let sums: Vec<_> = kept.map(|it| (it.len(), sum(it))).collect();
    let expected = [&b"one"[..], b"two", &long, b"the end", b""];
    assert_eq!(sums, expected.map(|it| (it.len(), sum(it))));

    let mut session = archived(LengthPrefix::u32(1 << 20));
    let message = [&300_000_u32.to_be_bytes()[..], &long].concat();
    for part in [&message[..2], &message[2..70_000], &message[70_000..]] {
        session.receive(part);
    }
    session.receive(&message[..4]);
    session.receive(&message[4..]);
    session.receive_eof();
    let kept = &session.protocol().protocol().0;
    assert!(*kept == [&long[..], &long, b""]);
    assert_eq!(session.held(), 0);
}

/// A protocol that asks for no more than it was shown has made a mistake, and is asked again when there is
/// more: the loop is not kept busy.
#[test]
fn what_is_there_already_is_not_shown_again_and_again() {
    struct Short(Rc<Cell<u32>>);

    impl Protocol for Short {
        fn data_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            self.0.set(self.0.get() + 1);
            transport.expect(70_000)?;
            Ok(0)
        }
    }

    for length in [70_000, 70_001, 100_000] {
        let calls = Rc::default();
        let mut session = MemorySession::new(Short(Rc::clone(&calls)));
        session.receive(&noise(length));
        session.run();
        assert_eq!(calls.get(), 1, "{length}");
        session.receive(b"x");
        assert_eq!(calls.get(), 2, "{length}");
        session.advance(seconds(3_600));
        assert!(session.reason().is_some(), "no deadline: {length}");
    }
}

/// A message of no bytes is one too, however the bytes came.
#[test]
fn an_empty_claim_is_handed_over() {
    struct Empty(Vec<Option<Vec<u8>>>);

    impl Protocol for Empty {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            if data.len() < 100_004 {
                transport.expect(100_004)?;
                return Ok(0);
            }
            transport.claim_input(&data[4..4]);
            Ok(data.len())
        }

        fn woken(&mut self, transport: &mut Transport<'_>) {
            self.0.push(transport.take_input());
        }
    }

    let data = noise(100_004);
    for first in [100_004, 4] {
        let mut session = MemorySession::new(Empty(Vec::new()));
        session.receive(&data[..first]);
        session.receive(&data[first..]);
        assert_eq!(session.protocol().0, [Some(Vec::new())], "{first}");
    }
}
