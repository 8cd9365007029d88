//! Output that is not copied, and output that is made as there is room.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::{cmp, thread};

use proptest::prelude::*;
use serveloop::layer::{Layer, Layered};
use serveloop::testing::{Identity, MemorySession, Scrambled};
use serveloop::{
    Address, CloseReason, Config, Ended, Limits, Peer, Protocol, ProtocolError, Result, Transport,
    Waker,
};

use crate::support::model_server::{Model, ModelServer};
use crate::support::probe::{Log, Probe};
use crate::support::{millis, noise, panic_quietly, timeless};

/// One thing to send, with its length.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Copied(usize),
    Some(usize),
    Owned(usize),
    Shared(usize),
    Static(usize),
    /// A source that returns at most the second number of bytes per read.
    Source(usize, usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    let length = prop_oneof![0..20_usize, 4_000..4_200_usize, 0..90_000_usize];
    (0..6, length, prop_oneof![1..9_usize, 1_000..100_000_usize]).prop_map(
        |(kind, length, step)| match kind {
            0 => Piece::Copied(length),
            1 => Piece::Some(length),
            2 => Piece::Owned(length),
            3 => Piece::Shared(length),
            4 => Piece::Static(length),
            _ => Piece::Source(length.min(step * 2_000), step),
        },
    )
}

static NOISE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| noise(100_000));

/// Reads bytes in steps, sometimes interrupted.
struct Steps {
    bytes: &'static [u8],
    step: usize,
    reads: usize,
}

impl Read for Steps {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads % 3 == 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        let count = self.bytes.len().min(self.step).min(room.len());
        room[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        Ok(count)
    }
}

fn send(piece: Piece, transport: &mut Transport<'_>) -> &'static [u8] {
    let all = &NOISE[..];
    match piece {
        Piece::Copied(length) => {
            transport.write(&all[..length]);
            &all[..length]
        }
        Piece::Some(length) => {
            let taken = transport.write_some(&all[..length]);
            &all[..taken]
        }
        Piece::Owned(length) => {
            transport.write_owned(all[..length].to_vec());
            &all[..length]
        }
        Piece::Shared(length) => {
            transport.write_shared(&all[..length]);
            &all[..length]
        }
        Piece::Static(length) => {
            transport.write_static(&all[..length]);
            &all[..length]
        }
        Piece::Source(length, step) => {
            let bytes = &all[..length];
            transport.send(Steps {
                bytes,
                step,
                reads: 0,
            });
            bytes
        }
    }
}

/// Sends the next pieces when it is woken, and closes after the last.
struct Sender {
    calls: std::vec::IntoIter<Vec<Piece>>,
    expected: Arc<Mutex<Vec<u8>>>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Protocol for Sender {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        *self.waker.lock().unwrap() = Some(transport.waker());
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let Some(pieces) = self.calls.next() else {
            return transport.close();
        };
        for piece in pieces {
            let bytes = send(piece, transport);
            self.expected.lock().unwrap().extend_from_slice(bytes);
        }
    }
}

/// Plays `calls` to a peer that takes `takes` bytes after each, and then everything. Returns what was
/// expected and what was sent.
fn play<P: Protocol>(
    wrap: impl FnOnce(Sender) -> P,
    calls: Vec<Vec<Piece>>,
    takes: &[usize],
) -> (Vec<u8>, Vec<u8>) {
    let (expected, waker) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<_>>::default());
    let count = calls.len();
    let sender = Sender {
        calls: calls.into_iter(),
        expected: Arc::clone(&expected),
        waker: Arc::clone(&waker),
    };

    let mut config = timeless();
    config.limits.max_output = 64 << 20;
    let mut session = MemorySession::with_config(wrap(sender), config);
    session.stop_taking();
    for call in 0..=count {
        waker.lock().unwrap().as_ref().unwrap().wake();
        session.run();
        session.take(takes[call % takes.len()]);
    }
    session.take_in_steps(usize::MAX);
    assert!(session.reason().is_some(), "it has closed");
    assert_eq!(session.held(), 0);
    let expected = mem_take(&expected);
    (expected, session.sent())
}

fn mem_take(bytes: &Mutex<Vec<u8>>) -> Vec<u8> {
    std::mem::take(&mut bytes.lock().unwrap())
}

fn inside<L: Layer>(layer: L) -> impl FnOnce(Sender) -> LayeredSender<L> {
    |sender| Layered::around(layer, sender)
}

type LayeredSender<L> = Layered<L, fn(&Peer, &<L as Layer>::Info) -> Option<Sender>, Sender>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// However it is sent, and however the peer takes it, each byte arrives once and in its place.
    #[test]
    fn everything_arrives_in_order(
        calls in prop::collection::vec(prop::collection::vec(piece(), 0..4), 1..8),
        takes in prop::collection::vec(prop_oneof![0..50_usize, 0..200_000_usize], 1..5),
    ) {
        let (expected, sent) = play(|sender| sender, calls.clone(), &takes);
        prop_assert!(sent == expected, "{} bytes of {}", sent.len(), expected.len());

        let (expected, sent) = play(inside(Identity), calls.clone(), &takes);
        prop_assert!(sent == expected, "identity: {} of {}", sent.len(), expected.len());

        let (expected, sent) = play(inside(Scrambled::new(7)), calls, &takes);
        let expected = Scrambled::new(7).expect(&expected);
        prop_assert!(sent == expected, "scrambled: {} of {}", sent.len(), expected.len());
    }
}

/// Answers each byte with a value of 500 kB.
#[derive(Clone)]
struct Values;

const VALUE: usize = 500_000;

impl Protocol for Values {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        for _ in data {
            transport.write(&vec![b'v'; VALUE]);
        }
        Ok(data.len())
    }
}

/// One reply may be longer than `max_output`, however slowly the peer reads.
#[test]
fn a_long_reply_arrives_in_every_model() {
    for model in Model::ALL {
        let config = Config {
            send_buffer: Some(4_096),
            ..Config::default()
        };
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], config, |_: &Peer| {
            Some(Values)
        });
        let mut client = server.client();
        client.write_all(b"123").unwrap();

        let (mut got, mut piece) = (0, [0; 3_000]);
        while got < 3 * VALUE {
            let count = client.read(&mut piece).unwrap();
            assert!(count > 0, "{model:?}: {got} bytes arrived");
            got += count;
        }
        drop(client);
        assert_eq!(server.end().closed_overflow, 0, "{model:?}");
    }
}

/// The protocol writes this much whenever it is woken.
fn writes_when_woken(count: usize, config: Config) -> (MemorySession<Probe>, Waker) {
    let waker = Arc::<Mutex<Option<Waker>>>::default();
    let kept = Arc::clone(&waker);
    let probe = Probe::new(&Log::default())
        .made(move |transport| {
            *kept.lock().unwrap() = Some(transport.waker());
            Ok(())
        })
        .woken(move |transport| transport.write(&vec![0; count]));
    let session = MemorySession::with_config(probe, config);
    let waker = waker.lock().unwrap().take().unwrap();
    (session, waker)
}

#[test]
fn only_what_is_added_to_too_much_ends_the_connection() {
    let limits = Limits {
        low_water: 10,
        high_water: 100,
        max_output: 1_000,
        max_reply: 5_000,
        ..timeless().limits
    };
    let config = Config {
        limits,
        ..timeless()
    };
    let (mut session, waker) = writes_when_woken(1_000, config.clone());
    session.stop_taking();
    for waiting in [1_000, 2_000] {
        waker.wake();
        session.run();
        assert_eq!(session.waiting(), waiting);
        assert!(session.reason().is_none());
    }

    // More than 1,000 bytes wait before this call.
    waker.wake();
    session.run();
    assert!(matches!(session.reason(), Some(CloseReason::Overflow)));
    assert_eq!(session.ended().map(|ended| ended.unsent()), Some(3_000));

    // They do not once the peer has taken enough.
    let (mut session, waker) = writes_when_woken(1_500, config.clone());
    session.stop_taking();
    for _ in 0..5 {
        waker.wake();
        session.run();
        session.take(1_400);
        assert!(session.reason().is_none());
        session.take(100);
    }

    // A single call has a limit too.
    for (count, ends) in [(5_000, false), (5_001, true)] {
        let (mut session, waker) = writes_when_woken(count, config.clone());
        session.stop_taking();
        waker.wake();
        session.run();
        assert_eq!(session.reason().is_some(), ends, "{count}");
    }
}

#[test]
fn a_reply_is_never_longer_than_what_all_connections_may_hold() {
    let config = Config {
        max_buffered: 2 << 20,
        ..timeless()
    };
    let (mut session, waker) = writes_when_woken((2 << 20) + 1, config);
    session.stop_taking();
    waker.wake();
    session.run();
    assert!(matches!(session.reason(), Some(CloseReason::Overflow)));
}

/// Ends with an error, a panic, or nothing for now, after some bytes.
struct Failing(usize, fn() -> io::Result<usize>);

impl Read for Failing {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = cmp::min(self.0, room.len());
        if count == 0 {
            return self.1();
        }
        room[..count].fill(b'.');
        self.0 -= count;
        Ok(count)
    }
}

/// Sends a source, and then closes.
struct Once(Option<Failing>);

impl Protocol for Once {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.write(b"begin ");
        if let Some(source) = self.0.take() {
            transport.send(source);
        }
        transport.write(b" end");
        transport.close();
        Ok(data.len())
    }
}

#[test]
fn a_source_that_fails_ends_the_connection_with_a_reset() {
    let fails: fn() -> io::Result<usize> = || Err(io::Error::other("the disk is gone"));
    let panics: fn() -> io::Result<usize> = || panic_quietly();
    for (fails, expected) in [(fails, "the disk is gone"), (panics, "panicked")] {
        for length in [0, 1, 100_000] {
            let mut session = MemorySession::new(Once(Some(Failing(length, fails))));
            session.receive(b"x");
            let ended = session.ended().expect("an end");
            let reason = ended.reason().to_string();
            assert!(reason.contains(expected), "{length}: {reason}");
            assert!(ended.reason().is_error());
            assert!(!session.sent().ends_with(b" end"));
        }
    }

    for model in Model::ALL {
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), |_: &Peer| {
            Some(Once(Some(Failing(200_000, || {
                Err(io::Error::other("gone"))
            }))))
        });
        let mut client = server.client();
        client.write_all(b"x").unwrap();
        let error = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{model:?}");
        server.await_error();
        server.end();
    }
}

/// A source without bytes for now is read again after a wake, and the close waits for its end.
#[test]
fn a_source_may_have_nothing_for_now() {
    static READY: [AtomicBool; 4] = [const { AtomicBool::new(false) }; 4];

    struct Later(usize);

    impl Read for Later {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            if !READY[self.0].load(Ordering::Acquire) {
                return Err(ErrorKind::WouldBlock.into());
            }
            room[..5].copy_from_slice(b"later");
            self.0 = 3;
            Ok(5)
        }
    }

    struct Sends(usize, std::sync::mpsc::Sender<Waker>);

    impl Protocol for Sends {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.send(Later(self.0).take(5));
            transport.write(b", end");
            transport.close();
            self.1.send(transport.waker()).unwrap();
            Ok(data.len())
        }
    }

    for (index, model) in [Model::EventLoop, Model::Workers, Model::Threading]
        .into_iter()
        .enumerate()
    {
        let (sender, wakers) = std::sync::mpsc::channel();
        let server = ModelServer::new(
            model,
            &["tcp://127.0.0.1:0"],
            timeless(),
            move |_: &Peer| Some(Sends(index, sender.clone())),
        );
        let mut client = server.client();
        client.write_all(b"x").unwrap();
        let waker = wakers.recv().unwrap();
        waker.wake();
        thread::yield_now();
        READY[index].store(true, Ordering::Release);
        waker.wake();

        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "later, end", "{model:?}");
        server.end();
    }
}

/// A source of any length costs a piece of memory, also in a layer.
#[test]
fn a_source_is_read_as_there_is_room() {
    fn zeros() -> Probe {
        Probe::new(&Log::default()).data(|data, transport| {
            transport.send(io::repeat(0).take(20 << 20));
            transport.close();
            Ok(data.len())
        })
    }

    fn check(mut session: MemorySession<impl Protocol>, question: &[u8], overhead: usize) {
        session.stop_taking();
        session.receive(question);
        let mut got = 0;
        while session.reason().is_none() {
            assert!(session.held() < 160 << 10, "{}", session.held());
            session.take(10_000);
            got += session.sent().len();
        }
        let reason = session.reason();
        assert!(matches!(reason, Some(CloseReason::Closed)), "{reason:?}");
        assert!(got >= 20 << 20 && got <= (20 << 20) + overhead, "{got}");
    }
    check(MemorySession::with_config(zeros(), timeless()), b"x", 0);
    let inside = Layered::around(Scrambled::new(1), zeros());
    let question = Scrambled::new(1).seal(b"x");
    check(
        MemorySession::with_config(inside, timeless()),
        &question,
        3 << 20,
    );
}

#[test]
fn a_datagram_takes_a_copy_of_everything() {
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        transport.write_owned(vec![b'o'; 5_000]);
        transport.send(&b"source"[..]);
        transport.write_static(b"static");
        Ok(data.len())
    });
    let peer = Peer::new("udp://192.0.2.1:5000".parse::<Address>().unwrap(), Some(0));
    let mut session = MemorySession::with_peer(probe, timeless(), peer);
    session.receive(b"x");
    assert_eq!(session.sent().len(), 5_000 + 6 + 6);
}

/// What is not sent at the end is counted, and dropped.
#[test]
fn what_was_queued_and_not_sent_is_counted() {
    struct Counts(Arc<Mutex<u64>>);

    impl Protocol for Counts {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.write(b"12345");
            transport.write_shared(vec![0; 10_000]);
            transport.write(b"67");
            Ok(data.len())
        }

        fn connection_lost(&mut self, ended: &Ended<'_>) {
            *self.0.lock().unwrap() = ended.unsent();
        }
    }

    let unsent = Arc::<Mutex<u64>>::default();
    let mut session = MemorySession::with_config(Counts(Arc::clone(&unsent)), timeless());
    session.stop_taking();
    session.receive(b"x");
    assert_eq!(session.waiting(), 10_007);
    assert!(session.held() >= 10_007);
    session.take(6_000);
    session.fail(CloseReason::Io(io::Error::other("reset")));
    assert_eq!(*unsent.lock().unwrap(), 4_007);
}

/// A protocol's last word comes after what is queued.
#[test]
fn a_farewell_comes_after_a_source() {
    struct Rejects;

    impl Protocol for Rejects {
        fn data_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.send(io::repeat(b'.').take(100_000));
            Err("no")?
        }

        fn input_rejected(&mut self, _: &ProtocolError, transport: &mut Transport<'_>) {
            transport.write(b"bad");
        }
    }

    let mut session = MemorySession::new(Rejects);
    session.stop_taking();
    session.receive(b"x");
    session.take_in_steps(1_000);
    let sent = session.sent();
    assert_eq!(sent.len(), 100_003);
    assert!(sent.ends_with(b".bad"));
}

/// A session in a layer that scrambles, of a protocol that sends when it gets a byte.
fn scrambled(
    send: impl FnMut(&mut Transport<'_>) + Send + 'static,
    config: Config,
) -> (MemorySession<impl Protocol>, Vec<u8>) {
    let mut send = send;
    let probe = Probe::new(&Log::default()).data(move |data, transport| {
        send(transport);
        Ok(data.len())
    });
    let layer = Scrambled::new(7);
    let session = MemorySession::with_config(Layered::around(layer, probe), config);
    (session, layer.seal(b"x"))
}

#[test]
fn a_source_without_bytes_holds_nothing_up() {
    let send = |transport: &mut Transport<'_>| {
        transport.write(b"begin ");
        transport.send(io::empty());
        transport.write(b"end");
        transport.close();
    };
    let (mut session, question) = scrambled(send, timeless());
    session.receive(&question);
    assert_eq!(session.sent(), Scrambled::new(7).expect(b"begin end"));
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
}

#[test]
fn what_is_queued_in_a_layer_counts_as_held() {
    let send = |transport: &mut Transport<'_>| transport.write_owned(vec![0; 1 << 20]);
    let (mut session, question) = scrambled(send, timeless());
    session.stop_taking();
    session.receive(&question);
    assert!(session.held() >= 1 << 20, "{}", session.held());

    let config = Config {
        max_buffered: 2 << 20,
        ..timeless()
    };
    let send = |transport: &mut Transport<'_>| transport.write_owned(vec![0; 2_000_000]);
    let (mut session, question) = scrambled(send, config);
    session.stop_taking();
    session.receive(&question);
    assert!(matches!(session.reason(), Some(CloseReason::Shed)));
}

/// Has nothing for now until it is told otherwise, and then nothing more.
struct Blocked(Arc<AtomicBool>);

impl Read for Blocked {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if self.0.load(Ordering::Acquire) {
            return Ok(0);
        }
        Err(ErrorKind::WouldBlock.into())
    }
}

/// A peer is not blamed for a source that has nothing, and nothing is done again and again meanwhile.
#[test]
fn a_source_may_take_its_time() {
    for is_layered in [false, true] {
        let done = Arc::new(AtomicBool::new(false));
        let waker = Arc::<Mutex<Option<Waker>>>::default();
        let (is_done, kept) = (Arc::clone(&done), Arc::clone(&waker));
        let send = move |transport: &mut Transport<'_>| {
            transport.write(b"begin ");
            transport.send(Blocked(Arc::clone(&is_done)));
            transport.write(&[b'e'; 100_000]);
            *kept.lock().unwrap() = Some(transport.waker());
        };

        let mut config = timeless();
        config.limits.write_timeout = Some(millis(1_000));
        let wake = |waker: &Mutex<Option<Waker>>| waker.lock().unwrap().as_ref().unwrap().wake();
        if is_layered {
            let (mut session, question) = scrambled(send, config);
            session.receive(&question);
            session.advance(millis(10_000));
            assert!(session.reason().is_none());
            assert_eq!(session.sent(), Scrambled::new(7).expect(b"begin "));
            done.store(true, Ordering::Release);
            wake(&waker);
            session.run();
            assert!(session.sent().len() > 100_000);
        } else {
            let probe = Probe::new(&Log::default()).data(move |data, transport| {
                send(transport);
                Ok(data.len())
            });
            let mut session = MemorySession::with_config(probe, config);
            session.receive(b"x");
            session.advance(millis(10_000));
            assert!(session.reason().is_none());
            assert_eq!(session.sent(), b"begin ");
            done.store(true, Ordering::Release);
            wake(&waker);
            session.run();
            assert_eq!(session.sent().len(), 100_000);
        }
    }
}

/// A client that ends its stream without the layer's end mark still gets all of a reply.
#[test]
fn a_reply_that_is_queued_is_sent_whole_after_a_truncation() {
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        transport.send(io::repeat(b'.').take(500_000));
        Ok(data.len())
    });
    let layer = Scrambled::new(7).with_end_mark();
    let mut session = MemorySession::with_config(Layered::around(layer, probe), timeless());
    session.stop_taking();
    session.receive(&layer.seal(b"x"));
    session.receive_eof();
    session.take(usize::MAX);
    assert!(matches!(session.reason(), Some(CloseReason::Truncated)));
    let sent = session.sent();
    let expected = layer.expect(&vec![b'.'; 500_000]);
    assert!(
        sent.starts_with(&expected),
        "{} of {}",
        sent.len(),
        expected.len()
    );
}

/// While a source makes output, the peer that takes it is heard.
#[test]
fn input_is_shown_while_a_source_goes_on() {
    let probe = Probe::new(&Log::default()).data(|data, transport| {
        match data {
            b"start" => transport.send(io::repeat(b'.')),
            _ => transport.abort(),
        }
        transport.write(b"after");
        Ok(data.len())
    });
    let mut session = MemorySession::with_config(probe, timeless());
    session.stop_taking();
    session.receive(b"start");
    session.take(1 << 20);
    session.receive(b"stop");
    session.take(1 << 20);
    assert!(matches!(session.reason(), Some(CloseReason::Aborted)));
}
