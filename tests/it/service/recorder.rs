//! A flight recorder: what it keeps, what it evicts, and the file that it writes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serveloop::layer::{Layered, layered};
use serveloop::protocols::Echo;
use serveloop::service::recorder::{
    Content, Happening, Recorder, RecorderOptions, Recording, RecordingReader,
};
use serveloop::testing::{Identity, MemorySession, Scrambled};
use serveloop::{
    Actions, Address, Config, Ended, Factory, Peer, Protocol, Result, Server, Transport,
};

use crate::support::model_server::{Model, ModelServer, finish, read_to};
use crate::support::{PATIENCE, Scratch, Serving, millis, noise, panic_quietly, seconds, timeless};

fn of(max_bytes: usize) -> Recorder {
    Recorder::new(RecorderOptions {
        max_bytes,
        ..RecorderOptions::default()
    })
}

fn record(recorder: &Recorder) -> Vec<u8> {
    let mut record = Vec::new();
    let written = recorder.write(&mut record).unwrap();
    assert_eq!(written.bytes, record.len() as u64);
    assert_eq!(written.connections, recorder.connections() as u64);
    record
}

fn recording(recorder: &Recorder) -> Recording {
    Recording::read(&record(recorder)[..]).unwrap()
}

fn peer(id: u64) -> Peer {
    Peer::new("tcp://192.0.2.1:4711".parse().unwrap(), Some(2)).with_id(id)
}

fn open(recorder: &Recorder, id: u64) -> MemorySession<impl Protocol> {
    MemorySession::with_peer(recorder.protocol(Echo), Config::default(), peer(id))
}

fn ids(recorder: &Recorder) -> Vec<u64> {
    let recording = recording(recorder);
    recording.connections().iter().map(|it| it.id()).collect()
}

#[test]
fn a_connection_is_told_from_its_beginning_to_its_end() {
    let recorder = of(1 << 20);
    let mut session = open(&recorder, 7);
    session.receive(b"hello");
    session.advance(seconds(2));
    session.stop_taking();
    session.receive(b"you");
    session.receive_eof();

    let recording = recording(&recorder);
    let connection = &recording.connections()[0];
    assert_eq!((connection.id(), connection.peer()), (7, &peer(7)));
    assert_eq!(connection.end(), None, "it is not over yet");
    assert_eq!(recording.date(), None);
    let told: Vec<_> = connection
        .events()
        .map(|event| format!("{:?} {} {}", event.at, event.waiting, event.what))
        .collect();
    let expected = [
        "0ns 0 connection made",
        "0ns 0 5 bytes received",
        "0ns 0 5 bytes written",
        "2s 0 3 bytes received",
        "2s 0 3 bytes written",
        "2s 3 end of the peer's stream",
        "2s 0 closing",
    ];
    assert_eq!(told, expected);

    session.take(usize::MAX);
    let recording = self::recording(&recorder);
    let end = recording.connections()[0].end().unwrap();
    assert_eq!(end.reason, "closed by the peer");
    assert_eq!((end.received, end.sent, end.unsent), (8, 8, 0));
    assert!(!end.is_panic());
    assert_eq!(recorder.connections(), 1);
}

#[test]
fn addresses_and_limits_are_kept() {
    let recorder = of(1 << 20);
    let odd: Address = Address::Unix(std::ffi::OsString::from("/tmp/a\nb?\u{e9}").into());
    let unnamed = Address::Unix(Default::default());
    let config = Config {
        messages_per_turn: 3,
        ..Config::default()
    };
    let credentials = serveloop::net::Credentials::new(1, 2, Some(3));
    for address in [odd.clone(), unnamed.clone()] {
        let peer = Peer::new(address, None).with_id(1);
        let (protocol, local) = (recorder.protocol(Echo), Some(odd.clone()));
        let _ =
            MemorySession::with_socket(protocol, config.clone(), peer, local, Some(credentials));
    }

    let recording = recording(&recorder);
    let [first, second] = recording.connections() else {
        panic!("{recording:?}");
    };
    assert_eq!(first.peer().address(), &odd);
    assert_eq!(first.peer().listener(), None);
    assert_eq!(first.local_address(), Some(&odd));
    assert_eq!(first.credentials(), Some(credentials));
    assert_eq!(first.config().messages_per_turn, 3);
    assert_eq!(first.config().limits.idle_timeout, None);
    assert_eq!(second.peer().address(), &unnamed);
}

#[test]
fn ended_connections_are_evicted_first_and_whole() {
    let recorder = of(40_000);
    let mut open_one = open(&recorder, 1);
    open_one.receive(&noise(1_000));
    for id in 2..=20 {
        let mut session = open(&recorder, id);
        session.receive(&noise(1_000));
        session.receive_eof();
        assert!(recorder.held() <= 40_000, "{}", recorder.held());
    }

    let kept = ids(&recorder);
    assert_eq!(kept[0], 1, "it is open");
    let rest = 20 - (kept.len() as u64 - 2);
    assert_eq!(kept[1..], (rest..=20).collect::<Vec<_>>());
    assert_eq!(recorder.evicted(), 20 - kept.len() as u64);
    assert_eq!(recording(&recorder).evicted(), recorder.evicted());

    for connection in &recording(&recorder).connections()[1..] {
        assert_eq!(connection.end().unwrap().received, 1_000);
        assert_eq!(connection.events().count(), 6, "all of it");
    }
}

#[test]
fn the_oldest_of_the_open_connections_is_evicted() {
    let recorder = of(40_000);
    let mut sessions: Vec<_> = (1..=30).map(|id| open(&recorder, id)).collect();
    for session in &mut sessions {
        session.receive(&noise(1_000));
    }
    let kept = ids(&recorder);
    assert!(kept.len() < 25 && kept.last() == Some(&30), "{kept:?}");
    assert_eq!(kept, (31 - kept.len() as u64..=30).collect::<Vec<_>>());

    // An evicted connection goes on, and comes back to no record.
    sessions[0].receive(b"more");
    assert!(sessions[0].sent().ends_with(b"more"));
    sessions[0].receive_eof();
    assert_eq!(ids(&recorder), kept);
    drop(sessions);
    assert!(recorder.held() <= 40_000);
}

#[test]
fn memory_is_bounded_by_many_small_connections_and_by_one_large() {
    let recorder = of(100_000);
    for id in 0..5_000 {
        drop(open(&recorder, id));
    }
    assert!(recorder.connections() < 400, "{}", recorder.connections());
    assert!(recorder.held() <= 100_000);

    let recorder = of(100_000);
    let mut small = open(&recorder, 1);
    small.receive(b"small");
    let mut large = open(&recorder, 2);
    for _ in 0..1_000 {
        large.receive(&noise(10_000));
    }
    large.receive_eof();
    assert_eq!(ids(&recorder), [1, 2], "a large one does not evict others");
    let recording = recording(&recorder);
    let events: Vec<_> = recording.connections()[1].events().collect();
    let [.., cut, end] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(cut.what, Happening::Cut);
    let Happening::ConnectionLost(end) = end.what else {
        panic!("{end:?}");
    };
    assert_eq!(end.received, 10_000_000);
    assert!(recorder.held() < 60_000);
}

#[test]
fn a_recorder_without_room_records_nothing() {
    let recorder = of(0);
    let mut session = open(&recorder, 1);
    session.receive(b"hello");
    assert_eq!(session.sent(), b"hello");
    assert_eq!((recorder.connections(), recorder.held()), (0, 0));
    assert_eq!(recorder.evicted(), 1);
}

#[test]
fn sizes_alone_hold_no_word() {
    let recorder = Recorder::new(RecorderOptions {
        content: Content::Sizes,
        ..RecorderOptions::default()
    });
    let mut session = open(&recorder, 1);
    session.receive(b"a secret word");
    session.receive_eof();
    let record = record(&recorder);
    assert!(!record.windows(6).any(|bytes| bytes == b"secret"));

    let recording = Recording::read(&record[..]).unwrap();
    assert!(!recording.has_content());
    let sizes = recording.connections()[0]
        .events()
        .filter_map(|event| match event.what {
            Happening::DataReceived(chunk) | Happening::Wrote(chunk) => {
                assert_eq!(chunk.bytes, None);
                Some(chunk.length)
            }
            _ => None,
        });
    assert_eq!(sizes.collect::<Vec<_>>(), [13, 13]);
}

/// Every byte of a record is checked, and every end of it.
#[test]
fn a_damaged_record_is_told_with_its_place() {
    let recorder = Recorder::new(RecorderOptions {
        date: Some((Instant::now(), Duration::from_secs(1_000_000_000))),
        ..RecorderOptions::default()
    });
    for id in 1..=3 {
        let mut session = open(&recorder, id);
        session.receive(b"hello");
        session.receive_eof();
    }
    let whole = record(&recorder);
    let date = Recording::read(&whole[..]).unwrap().date();
    assert_eq!(date, Some(Duration::from_secs(1_000_000_000)));

    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= bit;
            let error = Recording::read(&damaged[..]).unwrap_err();
            let offset = error.offset().unwrap();
            assert!(offset <= at as u64, "{error}: byte {at} was damaged");
            assert!(
                error.to_string().contains(&format!("at byte {offset}: ")),
                "{error}"
            );
        }
        let error = Recording::read(&whole[..at]).unwrap_err();
        assert!(error.offset().unwrap() <= at as u64, "{error}: {at} bytes");
    }

    let more = [&whole[..], b"x"].concat();
    let error = Recording::read(&more[..]).unwrap_err();
    assert_eq!(error.offset(), Some(whole.len() as u64));

    // A reader of single connections gives those before the damage.
    let mut damaged = whole;
    let last = damaged.len() - 40;
    damaged[last] ^= 1;
    let read: Vec<_> = RecordingReader::new(&damaged[..]).unwrap().collect();
    assert_eq!(read.iter().filter(|it| it.is_ok()).count(), 2);
    assert!(read.last().unwrap().is_err());
}

#[test]
fn what_is_no_record_is_told() {
    let error = |bytes: &[u8]| Recording::read(bytes).unwrap_err().to_string();
    assert_eq!(error(b""), "at byte 0: not a record of connections");
    assert_eq!(
        error(b"GET / HTTP/1.1\r\n"),
        "at byte 0: not a record of connections"
    );
    let newer = error(b"SLREC\r\n\x1a\x02");
    assert_eq!(
        newer,
        "at byte 8: version 2 of the format, and only 1 is known"
    );
    // A length is only believed as far as there are bytes.
    let error = error(b"SLREC\r\n\x1a\x01H\xff\xff\xff\xff123");
    assert_eq!(error, "at byte 9: the record ends within a block");

    let error = Recording::open("/nonexistent/record").unwrap_err();
    assert_eq!(error.offset(), None);
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/record: cannot be read: No such")
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(scratch: &Scratch) -> Vec<String> {
    let entries = fs::read_dir(scratch.path(".")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_file_is_for_its_owner_and_complete_or_as_before() {
    let scratch = Scratch::new();
    let path = scratch.path("record");
    fs::write(&path, "an earlier one").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

    let recorder = Recorder::new(RecorderOptions {
        file: Some(path.clone()),
        ..RecorderOptions::default()
    });
    recorder.check().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"an earlier one");
    open(&recorder, 1).receive(b"hello");
    let written = recorder.save().unwrap();
    assert_eq!((written.connections, written.evicted), (1, 0));
    assert_eq!(written.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(Recording::open(&path).unwrap().connections()[0].id(), 1);

    let missing = scratch.path("missing").join("record");
    let error = recorder.write_to(&missing).unwrap_err().to_string();
    assert!(
        error.contains("missing/record\": cannot write the record: "),
        "{error}"
    );
    fs::create_dir(scratch.path("folder")).unwrap();
    let error = recorder.write_to(scratch.path("folder")).unwrap_err();
    assert!(error.to_string().contains("folder"), "{error}");
    assert_eq!(
        names(&scratch),
        ["folder", "record"],
        "nothing is left behind"
    );

    let none = of(1_000).save().unwrap_err().to_string();
    assert_eq!(none, "the recorder has no file to write to");
    let error = |path: &Path| {
        let file = Some(path.to_owned());
        let options = RecorderOptions {
            file,
            ..RecorderOptions::default()
        };
        Recorder::new(options).check().unwrap_err().to_string()
    };
    assert!(error(&missing).contains("No such file"));
    assert!(error(&scratch.path("folder")).contains("is not a file"));
    assert!(error(Path::new("/dev/null")).contains("is not a file"));
    assert!(error(Path::new("/")).contains("is not"));
}

/// Panics at a `!`, and in its last call if it was told `?`.
#[derive(Clone, Default)]
struct Fragile(bool);

impl Protocol for Fragile {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0 |= data[0] == b'?';
        if data[0] == b'!' {
            panic_quietly();
        }
        transport.write(data);
        Ok(data.len())
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        if self.0 {
            panic_quietly();
        }
    }
}

/// Waits until the file is there, with as many connections.
fn await_record(path: &Path, connections: usize) -> Recording {
    let begin = Instant::now();
    loop {
        match Recording::open(path) {
            Ok(recording) if recording.connections().len() == connections => return recording,
            other => assert!(begin.elapsed() < PATIENCE, "{other:?}"),
        }
        std::thread::sleep(millis(5));
    }
}

#[test]
fn a_panic_has_the_record_written_in_every_model() {
    for model in Model::ALL {
        for fatal in [&b"!"[..], b"?"] {
            let scratch = Scratch::new();
            let path = scratch.path("record");
            let recorder = Recorder::new(RecorderOptions {
                file: Some(path.clone()),
                ..RecorderOptions::default()
            });
            let factory = recorder.record(|_: &Peer| Some(Fragile::default()));
            let server =
                ModelServer::of_factory(model, &["tcp://127.0.0.1:0"], timeless(), factory);
            let mut client = server.client();
            client.write_all(fatal).unwrap();
            finish(&client);
            read_to(&mut client);

            let recording = await_record(&path, 1);
            let end = recording.connections()[0].end();
            assert_eq!(end.unwrap().is_panic(), fatal == b"!", "{model:?}");
            assert_eq!(mode(&path), 0o600);
            server.handle.shutdown();
        }
    }
}

/// However often it is asked for, the last request is followed by a record.
#[test]
fn a_record_in_the_background_is_as_new_as_the_last_request() {
    let scratch = Scratch::new();
    let path = scratch.path("record");
    let recorder = Recorder::new(RecorderOptions {
        file: Some(path.clone()),
        ..RecorderOptions::default()
    });
    of(1_000).save_in_background();
    for id in 1..=50 {
        open(&recorder, id).receive(b"hello");
        recorder.save_in_background();
    }
    await_record(&path, 50);

    // A server that ends waits for the thread, and leaves nothing behind.
    let factory = recorder.record(|_: &Peer| Some(Echo));
    open(&recorder, 51).receive(b"hello");
    recorder.save_in_background();
    drop(factory);
    assert_eq!(Recording::open(&path).unwrap().connections().len(), 51);
    assert_eq!(names(&scratch), ["record"]);
}

#[test]
fn the_record_is_written_when_the_server_has_ended_and_not_before() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let path = scratch.path("record");
        let recorder = Recorder::new(RecorderOptions {
            file: Some(path.clone()),
            ..RecorderOptions::default()
        });
        let factory = recorder.record(|_: &Peer| Some(Echo));
        let server = ModelServer::of_factory(model, &["tcp://127.0.0.1:0"], timeless(), factory);
        let mut client = server.client();
        client.write_all(b"hello").unwrap();
        finish(&client);
        read_to(&mut client);
        assert!(!path.exists());
        server.end();
        let recording = Recording::open(&path).unwrap();
        let end = recording.connections()[0].end().unwrap();
        assert_eq!((end.received, end.sent), (5, 5), "{model:?}");
    }
}

#[test]
fn a_process_for_each_connection_is_refused() {
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], timeless()).unwrap();
    let recorded = of(1_000).record(|_: &Peer| Some(Echo));
    let error = server.with(recorded).serve_forking().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("in the process of the server"),
        "{error}"
    );
}

#[test]
fn plain_bytes_are_recorded_inside_a_layer_and_others_outside() {
    let texts = |recorder: &Recorder| -> Vec<Vec<u8>> {
        let recording = recording(recorder);
        let chunks = recording.connections()[0]
            .events()
            .filter_map(|event| match event.what {
                Happening::DataReceived(chunk) | Happening::Wrote(chunk) => chunk.bytes,
                _ => None,
            });
        chunks.map(<[u8]>::to_vec).collect()
    };
    let wire = || Scrambled::new(7).seal(b"hail");

    let recorder = of(1 << 20);
    let inside = recorder.clone();
    let mut factory = layered(
        |_: &Peer| Some(Scrambled::new(7)),
        move |_: &Peer, (): &()| Some(inside.protocol(Echo)),
    );
    let mut session = MemorySession::new(factory.build_protocol(&peer(1)).unwrap());
    session.receive(&wire());
    assert_eq!(texts(&recorder), [b"hail", b"hail"]);

    // Outside, the record has what the layer makes of it.
    let recorder = of(1 << 20);
    let layer = Layered::new(Scrambled::new(7), |_: &Peer, (): &()| Some(Echo));
    let mut session = MemorySession::new(recorder.protocol(layer));
    session.receive(&wire());
    let sent = session.sent();
    assert_eq!(texts(&recorder).concat(), [wire(), sent].concat());

    // Also if the layer leaves the output as it is.
    let recorder = of(1 << 20);
    let layer = Layered::new(Identity, |_: &Peer, (): &()| Some(Echo));
    let mut session = MemorySession::new(recorder.protocol(layer));
    session.receive(b"hail");
    assert_eq!(texts(&recorder), [b"hail", b"hail"]);
}

#[test]
fn two_recorders_see_the_same() {
    let (one, other) = (of(1 << 20), of(1 << 20));
    let mut session = MemorySession::new(one.protocol(other.protocol(Echo)));
    session.receive(b"hello");
    session.receive_eof();
    let events = |recorder| recording(recorder).connections()[0].events().count();
    assert_eq!(events(&one), events(&other));
    assert_eq!(events(&one), 6);
}

/// Its connections are opened by a hook, and listed and ended by another.
#[derive(Default)]
struct Hooked {
    to: Option<Address>,
}

impl Factory for Hooked {
    type Protocol = Echo;

    fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
        Some(Echo)
    }

    fn started(&mut self, actions: &mut Actions<'_, Echo>) {
        if let Some(to) = self.to.take() {
            actions.connect(to, Echo);
        }
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
        let ids: Vec<_> = actions.connections().map(|it| it.id()).collect();
        if ids.len() == 2 {
            ids.into_iter().for_each(|id| actions.end(id));
            actions.shutdown();
        }
    }
}

#[test]
fn hooks_of_a_recorded_factory_work_and_outbound_connections_are_recorded() {
    let far = Serving::tcp(timeless(), |_: &Peer| Some(Echo));
    let recorder = of(1 << 20);
    let factory = recorder.record(Hooked {
        to: Some(far.addresses[0].clone()),
    });
    let mut near = Serving::tcp_with_factory(timeless(), factory);
    let client = near.client();
    near.join();
    drop(client);
    let recording = recording(&recorder);
    let listeners: Vec<_> = recording
        .connections()
        .iter()
        .map(|it| it.peer().listener())
        .collect();
    assert!(
        listeners.contains(&None) && listeners.contains(&Some(0)),
        "{listeners:?}"
    );
}
