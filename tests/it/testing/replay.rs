//! Recorded connections replay to the same answers, and a protocol that answers otherwise is told.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use serveloop::framing::{Framed, Lines};
use serveloop::protocols::{Echo, Hello};
use serveloop::service::recorder::{Content, Recorded, Recorder, RecorderOptions, Recording};
use serveloop::testing::{MemorySession, Replay, Simulation};
use serveloop::{
    Config, Deadline, Factory, Limits, Peer, Protocol, ProtocolError, Result, Server, Transport,
};

use crate::support::model_server::{Model, ModelServer, finish, read_to};
use crate::support::{Scratch, millis, noise, panic_quietly, seconds, timeless};

fn recorder() -> Recorder {
    Recorder::new(RecorderOptions::default())
}

#[track_caller]
fn recording(recorder: &Recorder) -> Recording {
    let mut record = Vec::new();
    recorder.write(&mut record).unwrap();
    Recording::read(&record[..]).unwrap()
}

#[track_caller]
fn replay<F: Factory>(recorder: &Recorder, factory: F) -> Replay {
    recording(recorder).replay(factory).unwrap()
}

/// Records what `script` does to a session of `make`, and replays it.
#[track_caller]
fn same<P: Protocol>(
    config: Config,
    make: impl Fn() -> P,
    script: impl FnOnce(&mut MemorySession<Recorded<P>>),
) -> Replay {
    let recorder = recorder();
    let mut session = MemorySession::with_config(recorder.protocol(make()), config);
    script(&mut session);
    let replay = replay(&recorder, |_: &Peer| Some(make()));
    replay.assert_same();
    assert_eq!(replay.connections(), 1);
    replay
}

/// Panics if a line of three letters is cut behind its first one, and answers others with their length.
#[derive(Default)]
struct Planted {
    is_mended: bool,
    shown: usize,
}

impl Protocol for Planted {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            self.shown = data.len();
            return Ok(0);
        };
        if end == 3 && self.shown == 1 && !self.is_mended {
            panic_quietly();
        }
        self.shown = 0;
        transport.write(format!("{end}\n").as_bytes());
        Ok(end + 1)
    }
}

/// Sends `pieces`, each when what the one before was answered with has come.
fn talk(stream: &mut (impl Read + Write), pieces: &[(&str, &str)]) {
    for (piece, answer) in pieces {
        stream.write_all(piece.as_bytes()).unwrap();
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, answer.as_bytes());
    }
}

#[test]
fn a_planted_bug_is_replayed_from_the_file_alone_in_every_model() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let path = scratch.path("record");
        let options = RecorderOptions {
            file: Some(path.clone()),
            ..RecorderOptions::default()
        };
        let recorder = Recorder::new(options);
        let factory = recorder.record(|_: &Peer| Some(Planted::default()));
        let server = ModelServer::of_factory(model, &["tcp://127.0.0.1:0"], timeless(), factory);

        let mut good = server.client();
        talk(&mut good, &[("abc\n", "3\n"), ("ab\nabcd\n", "2\n4\n")]);
        finish(&good);
        read_to(&mut good);

        let mut bad = server.client();
        bad.set_tcp_nodelay(true).unwrap();
        // The answer tells that the line before was read, and so the two pieces arrive apart.
        talk(&mut bad, &[("abcd\n", "4\n"), ("a", ""), ("", "")]);
        std::thread::sleep(millis(50));
        bad.write_all(b"bc\n").unwrap();
        read_to(&mut bad);
        assert_eq!(server.end().panics, 1, "{model:?}");
        drop(recorder);

        let same = Simulation::new(|| |_: &Peer| Some(Planted::default())).replay(&path);
        let same = same.unwrap();
        same.assert_same();
        assert_eq!(same.connections(), 2);
        let ends: Vec<_> = same.ends().collect();
        assert_eq!(
            ends,
            ["closed by the peer", "the protocol panicked"],
            "{model:?}"
        );

        let mended = || Planted {
            is_mended: true,
            ..Planted::default()
        };
        let mended = Recording::open(&path)
            .unwrap()
            .replay(|_: &Peer| Some(mended()));
        let mended = mended.unwrap();
        assert_eq!(mended.differences().len(), 1);
        let difference = mended.first().unwrap();
        assert_eq!(difference.expected(), "the protocol panicked");
        let got = "the connection stays open; output \"3\\n\" after \"4\\n\"";
        assert_eq!(difference.got(), got);
        assert!(difference.at() >= millis(50));
        let bad_id = Recording::open(&path).unwrap().connections()[1].id();
        assert_eq!(difference.connection(), bad_id);
    }
}

#[test]
fn echo_replays_without_a_difference_in_every_model() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let recorder = recorder();
        let uri = scratch.uri("unix", "socket");
        let at = match model {
            Model::Workers => vec!["tcp://127.0.0.1:0"],
            _ => vec!["tcp://127.0.0.1:0", &uri],
        };
        let factory = recorder.record(|_: &Peer| Some(Echo));
        let server = ModelServer::of_factory(model, &at, timeless(), factory);
        let addresses = server.addresses.clone();
        for address in &addresses {
            let mut client = crate::support::model_server::connect(address);
            let data = noise(300_000);
            let mut copy = client.try_clone().unwrap();
            let sent = data.clone();
            let writer = std::thread::spawn(move || {
                copy.write_all(&sent).unwrap();
                finish(&copy);
            });
            let (got, _) = read_to(&mut client);
            writer.join().unwrap();
            assert!(got == data);
        }
        server.end();

        let replay = replay(&recorder, |_: &Peer| Some(Echo));
        replay.assert_same();
        assert_eq!(replay.connections(), addresses.len(), "{model:?}");
        let ends: Vec<_> = replay.ends().collect();
        assert_eq!(ends, vec!["closed by the peer"; addresses.len()]);
        assert!(replay.steps() >= 4 * addresses.len() as u64);
    }
}

/// Answers each byte with the time since the last one.
#[derive(Default)]
struct Stopwatch(Option<Instant>);

impl Protocol for Stopwatch {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let now = transport.now();
        let since = now.duration_since(self.0.replace(now).unwrap_or(now));
        transport.write(format!("{}\n", since.as_nanos()).as_bytes());
        Ok(data.len().min(1))
    }
}

#[test]
fn times_are_the_same_to_the_nanosecond() {
    let recorder = recorder();
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], timeless()).unwrap();
    let factory = recorder.record(|_: &Peer| Some(Stopwatch::default()));
    let server = ModelServer::with_factory(Model::EventLoop, server, factory);
    let mut client = server.client();
    for _ in 0..5 {
        client.write_all(b"ab").unwrap();
        std::thread::sleep(millis(3));
    }
    finish(&client);
    read_to(&mut client);
    server.end();
    replay(&recorder, |_: &Peer| Some(Stopwatch::default())).assert_same();
}

#[test]
fn deadlines_of_a_protocol_pass_when_they_did() {
    let hello = |delay| move || Framed::new(Lines::new(100), Hello::new(delay));
    let recorder = recorder();
    let mut session = MemorySession::new(recorder.protocol(hello(seconds(2))()));
    session.receive(b"bo");
    session.advance(seconds(1));
    session.receive(b"b\n");
    session.advance(seconds(3));
    session.receive(b"exit\n");
    assert!(session.reason().is_some());

    replay(&recorder, |_: &Peer| Some(hello(seconds(2))())).assert_same();
    let slower = replay(&recorder, |_: &Peer| Some(hello(millis(2_500))()));
    let difference = slower.first().unwrap();
    assert_eq!(difference.at(), seconds(3));
    assert_eq!(
        difference.expected(),
        "\"Hello,bob\\n\" after \"Welcome!\\n\""
    );
    assert_eq!(difference.got(), "nothing more");

    let faster = replay(&recorder, |_: &Peer| Some(hello(millis(100))()));
    assert_eq!(faster.first().unwrap().at(), millis(1_100));
    assert_eq!(faster.first().unwrap().expected(), "nothing more");
}

/// Answers each byte with this many KiB, in portions, as there is room.
#[derive(Default)]
struct Producer(usize);

impl Producer {
    fn produce(&mut self, transport: &mut Transport<'_>) {
        while self.0 > 0 {
            let taken = transport.write_some(&noise(1_000)[..self.0.min(1_000)]);
            self.0 -= taken;
            if taken == 0 {
                transport.write_some(b"x");
                return;
            }
        }
    }
}

impl Protocol for Producer {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0 += usize::from(data[0]) * 1_024;
        self.produce(transport);
        Ok(1)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        // A protocol may look at what waits.
        let waiting = transport.waiting() % 7;
        self.0 += waiting;
        self.produce(transport);
    }
}

#[test]
fn a_slow_peer_is_slow_again() {
    let config = Config {
        limits: Limits {
            high_water: 4_000,
            low_water: 1_000,
            ..timeless().limits
        },
        ..timeless()
    };
    let replay = same(config.clone(), Producer::default, |session| {
        session.stop_taking();
        session.receive(&[3, 4, 5]);
        for step in [1, 100, 3_000, 10, 5_000, 1, 1, 4_000] {
            session.take(step);
            session.advance(millis(1));
        }
        session.receive(&[9; 20]);
        session.take_in_steps(777);
    });
    assert!(replay.steps() > 5);

    same(
        config,
        || Echo,
        |session| {
            session.stop_taking();
            for size in [3_999, 1, 10, 5_000, 100] {
                session.receive(&noise(size));
                session.take(1_300);
            }
            session.receive_eof();
            session.take(usize::MAX);
        },
    );
}

/// Sends what is not copied, and what a source makes.
struct Sender;

impl Protocol for Sender {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data[0] {
            b's' => transport.send(std::io::repeat(b's').take(300_000)),
            b'o' => transport.write_owned(noise(10_000)),
            b'a' => transport.write_shared(Arc::<[u8]>::from(noise(20_000))),
            b't' => transport.write_static(&[b't'; 5_000]),
            _ => transport.write(&data[..1]),
        }
        Ok(1)
    }

    fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result {
        transport.write(b"bye");
        transport.finish();
        Ok(())
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        transport.abort();
    }
}

#[test]
fn all_ways_to_write_are_recorded() {
    let recorder = recorder();
    let mut session = MemorySession::with_config(recorder.protocol(Sender), timeless());
    session.receive(b"osxatyo");
    session.advance(millis(5));
    session.receive(b"xs");
    session.receive_eof();
    let sent = session.sent();
    session.shutdown();

    let recording = recording(&recorder);
    let mut wrote = Vec::new();
    for event in recording.connections()[0].events() {
        if let serveloop::service::recorder::Happening::Wrote(chunk) = event.what {
            wrote.extend_from_slice(chunk.bytes.unwrap());
        }
    }
    assert_eq!(wrote.len(), sent.len());
    // What a source makes is recorded when it is read, and that is after what was written behind it.
    assert!(wrote.starts_with(&noise(10_000)));
    let count = |bytes: &[u8], of| bytes.iter().filter(|byte| **byte == of).count();
    assert_eq!(count(&wrote, b's'), count(&sent, b's'));
    recording
        .replay(|_: &Peer| Some(Sender))
        .unwrap()
        .assert_same();
}

#[test]
fn a_slow_peer_of_a_source_is_slow_again() {
    let replay = same(
        timeless(),
        || Sender,
        |session| {
            session.stop_taking();
            session.receive(b"xs");
            for step in [10, 100_000, 65_536, 70_000] {
                session.take(step);
                session.advance(millis(1));
                session.receive(b"y");
            }
            session.take(usize::MAX);
            session.receive_eof();
        },
    );
    assert!(replay.steps() > 3);
}

/// Pauses and wakes itself, closes, fails, and says why.
#[derive(Default)]
struct Moody {
    until: Option<Instant>,
    again: u32,
}

impl Protocol for Moody {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.write(format!("[{}]", data.len()).as_bytes());
        match data.first().copied().unwrap_or_default() {
            b'p' => {
                transport.pause_reading();
                self.until = Some(transport.now() + millis(10));
            }
            b'a' => {
                self.again = 3;
                transport.call_again();
            }
            b'2' if data.len() < 2 => return Ok(0),
            b'2' => return Ok(2),
            b'e' => return Err("an e".into()),
            b'c' => transport.close(),
            b'!' => panic_quietly(),
            b't' => {
                let mut taken = 0;
                while taken < data.len() && transport.has_turn() {
                    taken += 1;
                }
                return Ok(taken.max(1));
            }
            _ => {}
        }
        Ok(data.len().min(1))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.until = None;
        transport.write(b"go on");
        transport.resume_reading();
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        transport.write(b"woken");
        self.again = self.again.saturating_sub(1);
        if self.again > 0 {
            transport.call_again();
        }
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        transport.write(format!("late: {deadline}").as_bytes());
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        transport.write(error.to_string().as_bytes());
    }
}

#[test]
fn moods_replay() {
    let scripts: [&[&[u8]]; 9] = [
        &[b"xpx", b"yy", b"z"],
        &[b"xax", b"apax", b"2", b"2222"],
        &[b"2", b"x", b"pxaxp", b"axtttttttttttttttttt", b"ttttt"],
        &[&[b't'; 300], &[b'x'; 200], b"p"],
        &[b"xxe", b"x"],
        &[b"xc", b"y"],
        &[b"xp!", b"y"],
        &[b"2"],
        &[b"pc"],
    ];
    for script in scripts {
        let config = Config {
            messages_per_turn: 5,
            ..Config::default()
        };
        same(config.clone(), Moody::default, |session| {
            for piece in script {
                session.receive(piece);
                session.advance(millis(4));
            }
            session.receive_eof();
            session.advance(seconds(100));
        });
        // Ends that come from outside.
        same(config.clone(), Moody::default, |session| {
            for piece in script {
                session.receive(piece);
            }
            session.shutdown();
        });
        same(config, Moody::default, |session| {
            for piece in script {
                session.receive(piece);
            }
            session.stop_taking();
            session.receive(b"x");
            session.advance(seconds(100));
        });
    }
}

#[test]
fn the_same_words_in_other_portions_are_no_difference() {
    /// Says what echo says, byte by byte and with calls that it asks for.
    struct Slow(Vec<u8>);

    impl Protocol for Slow {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            self.0.push(data[0]);
            transport.call_again();
            Ok(1)
        }

        fn woken(&mut self, transport: &mut Transport<'_>) {
            transport.write(&std::mem::take(&mut self.0));
        }
    }

    let recorder = recorder();
    let mut session = MemorySession::new(recorder.protocol(Echo));
    session.receive(b"good");
    session.receive(b" morning");
    session.receive_eof();
    replay(&recorder, |_: &Peer| Some(Slow(Vec::new()))).assert_same();
}

#[test]
fn what_protocols_of_one_loop_share_is_replayed_in_its_order() {
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Answers with what the last client of all has said.
    struct Last(Rc<RefCell<Vec<u8>>>);

    impl Protocol for Last {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.write(&self.0.replace(data.to_vec()));
            Ok(data.len())
        }
    }

    let recorder = recorder();
    let shared = Rc::<RefCell<Vec<u8>>>::default();
    let open = || MemorySession::new(recorder.protocol(Last(Rc::clone(&shared))));
    let mut sessions = [open(), open(), open()];
    for (turn, name) in [0, 2, 1, 1, 0, 2, 0].into_iter().zip("abcdefg".bytes()) {
        sessions[turn].receive(&[name]);
    }
    assert_eq!(sessions[0].sent(), b"df");

    let shared = Rc::<RefCell<Vec<u8>>>::default();
    let replay = replay(&recorder, move |_: &Peer| Some(Last(Rc::clone(&shared))));
    replay.assert_same();
    assert_eq!(replay.ends().count(), 0, "all were open");
}

#[test]
fn posts_are_replayed_and_live_ones_are_not_added() {
    let recorder = recorder();
    let (sender, outboxes) = std::sync::mpsc::channel();
    let make = |sender: &std::sync::mpsc::Sender<_>| Open(sender.clone());
    let mut session = MemorySession::new(recorder.protocol(make(&sender)));
    let outbox: serveloop::service::Outbox = outboxes.recv().unwrap();
    outbox.post(&b"one"[..]).unwrap();
    session.run();
    outbox.post(noise(9_000)).unwrap();
    session.run();
    outbox.close();
    session.run();
    assert!(session.reason().is_some());
    replay(&recorder, move |_: &Peer| Some(make(&sender))).assert_same();
}

/// Hands its outbox out, and posts to itself.
struct Open(std::sync::mpsc::Sender<serveloop::service::Outbox>);

impl Protocol for Open {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let outbox = transport.outbox();
        outbox.post(&b"itself"[..]).unwrap();
        let _ = self.0.send(outbox);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }
}

#[test]
fn a_protocol_that_now_panics_or_is_refused_is_told() {
    let recorder = recorder();
    let mut session = MemorySession::new(recorder.protocol(Echo));
    session.receive(b"a");
    session.receive(b"!");
    session.receive_eof();

    let replayed = replay(&recorder, |_: &Peer| Some(Moody::default()));
    assert_eq!(replayed.first().unwrap().offset(), Some(0));

    struct Fragile;
    impl Protocol for Fragile {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            assert!(data != b"!" || panic_quietly());
            transport.write(data);
            Ok(data.len())
        }
    }
    let replayed = replay(&recorder, |_: &Peer| Some(Fragile));
    let difference = replayed.first().unwrap();
    assert_eq!(difference.got(), "the protocol panicked");
    assert_eq!(difference.expected(), "the connection stays open");
    assert_eq!(difference.step(), 3);
    let text = replayed.to_string();
    assert!(
        text.contains("after 0.000000 s, step 3 (1 byte received): expected"),
        "{text}"
    );

    let refused = replay(&recorder, |_: &Peer| None::<Echo>);
    assert_eq!(refused.first().unwrap().got(), "the factory made none");
}

#[test]
fn datagrams_replay() {
    let recorder = recorder();
    let factory = recorder.record(|_: &Peer| Some(Moody::default()));
    let scratch = Scratch::new();
    let server = Server::bind(
        &["udp://127.0.0.1:0".parse().unwrap()],
        Config {
            reply_factor: 1_000,
            ..timeless()
        },
    )
    .unwrap();
    let address = server.addresses()[0].clone();
    let handle = server.shutdown_handle();
    let thread = std::thread::spawn(move || {
        let factory = recorder.record(factory.clone());
        drop(factory);
        server
            .with(recorder.record(|_: &Peer| Some(Moody::default())))
            .serve_forever()
            .unwrap();
        recorder
    });
    let mut socket = crate::support::model_server::datagrams(&address, &scratch.path("own"));
    for datagram in [&b"xx"[..], b"2", b"axaxa", b""] {
        socket.send(datagram).unwrap();
        let mut room = [0; 1_000];
        let _ = socket.read(&mut room).unwrap();
    }
    handle.shutdown();
    let recorder = thread.join().unwrap();
    let replay = replay(&recorder, |_: &Peer| Some(Moody::default()));
    replay.assert_same();
    assert_eq!(replay.connections(), 4);
}

/// Counts datagrams, takes them in parts, and drops the rest of some.
#[derive(Default)]
struct Counter(u8);

impl Protocol for Counter {
    fn datagram_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0 += 1;
        transport.write(&[b'0' + self.0, b'0' + data.len() as u8]);
        Ok(data.len().min(2) * usize::from(data != b"drop"))
    }

    fn data_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Err("not a datagram".into())
    }
}

#[test]
fn sessions_of_datagrams_replay() {
    let recorder = recorder();
    let mut session = MemorySession::datagrams(recorder.protocol(Counter::default()));
    for datagram in [&b"abcde"[..], b"", b"drop", b"fghi", b"drop", b"drop"] {
        session.receive_datagram(datagram);
        session.advance(millis(3));
    }
    let sent = session.take_datagrams().concat();
    assert!(sent.starts_with(b"152331"), "{}", sent.escape_ascii());
    let replayed = replay(&recorder, |_: &Peer| Some(Counter::default()));
    replayed.assert_same();
    assert!(!replay(&recorder, |_: &Peer| Some(Counter(1))).is_same());
}

#[test]
fn a_record_of_sizes_is_not_replayed() {
    let options = RecorderOptions {
        content: Content::Sizes,
        ..RecorderOptions::default()
    };
    let recorder = Recorder::new(options);
    MemorySession::new(recorder.protocol(Echo)).receive(b"hello");
    let error = recording(&recorder)
        .replay(|_: &Peer| Some(Echo))
        .unwrap_err();
    assert!(error.to_string().contains("sizes alone"), "{error}");
}

#[test]
fn a_connection_that_was_cut_replays_up_to_there() {
    let options = RecorderOptions {
        max_bytes: 40_000,
        ..RecorderOptions::default()
    };
    let recorder = Recorder::new(options);
    let mut session = MemorySession::new(recorder.protocol(Echo));
    for _ in 0..100 {
        session.receive(&noise(1_000));
    }
    session.receive_eof();
    let replay = replay(&recorder, |_: &Peer| Some(Echo));
    replay.assert_same();
    assert!(replay.steps() > 3, "{replay}");
    assert_eq!(
        recording(&recorder).connections()[0]
            .end()
            .unwrap()
            .received,
        100_000
    );
}
