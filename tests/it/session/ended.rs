//! Who a connection is, and what is told of its end, in every model.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use log::kv::Key;
use log::{LevelFilter, Log, Metadata, Record};
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{
    Actions, Address, CloseReason, Config, Ended, Factory, Limits, Peer, Protocol, ProtocolError,
    Reactor, Transport,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::model_server::{Model, ModelServer, datagrams, read_to};
use crate::support::{PATIENCE, Scratch, echoes, millis, seconds, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// Who told it, of which connection, and what.
type Entry = (&'static str, u64, String);

/// What protocols and the factory were told.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<Entry>>>);

impl Told {
    fn note(&self, by: &'static str, id: u64, what: String) {
        self.0.lock().unwrap().push((by, id, what));
    }

    fn ended(&self, by: &'static str, ended: &Ended<'_>) {
        let bytes = [ended.received(), ended.sent(), ended.unsent()];
        assert!(ended.duration() < PATIENCE, "{ended:?}");
        assert!(ended.began() <= Instant::now(), "{ended:?}");
        self.note(
            by,
            ended.peer().id(),
            format!("{}, {bytes:?}", ended.reason()),
        );
    }

    fn ids(&self) -> Vec<u64> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|(_, id, _)| *id)
            .collect()
    }
}

/// Echoes, and fails after an exclamation mark.
struct Strict(Told);

impl Protocol for Strict {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        assert_eq!(transport.id(), transport.peer().id());
        self.0.note("made", transport.id(), String::new());
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(data);
        match data.ends_with(b"!") {
            true => Err(ProtocolError::malformed("too loud")),
            false => Ok(data.len()),
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.0.ended("lost", ended);
    }
}

#[derive(Clone)]
struct Watched(Told);

impl Factory for Watched {
    type Protocol = Strict;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Strict> {
        self.0.note("built", peer.id(), String::new());
        Some(Strict(self.0.clone()))
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.0.ended("error", ended);
    }
}

#[test]
fn every_model_tells_the_same_of_a_connection() {
    for model in Model::ALL {
        let told = Told::default();
        let server = ModelServer::of_factory(model, &[TCP], timeless(), Watched(told.clone()));
        let mut client = server.client();
        echoes(&mut client, b"hello");
        client.write_all(b"you!").unwrap();
        assert_eq!(read_to(&mut client).0, b"you!", "{model:?}");
        drop(client);
        server.end();

        let ids: HashSet<u64> = told.ids().into_iter().collect();
        assert!(ids.len() == 1 && !ids.contains(&0), "{model:?}: {told:?}");
        let told = told.0.lock().unwrap();
        let by: Vec<_> = told.iter().map(|(by, ..)| *by).collect();
        assert_eq!(by, ["built", "made", "lost", "error"], "{model:?}");
        for (_, _, what) in &told[2..] {
            let expected = "protocol error: malformed: too loud, [9, 9, 0]";
            assert_eq!(what, expected, "{model:?}");
        }
    }
}

#[test]
fn no_two_connections_have_the_same_id() {
    let told = Told::default();
    let scratch = Scratch::new();
    let crowd: Vec<_> = Model::ALL
        .into_iter()
        .map(|model| {
            let (told, own) = (told.clone(), scratch.path(&format!("{model:?}")));
            thread::spawn(move || {
                let at = [TCP, "udp://127.0.0.1:0"];
                let server = ModelServer::of_factory(model, &at, timeless(), Watched(told));
                for _ in 0..25 {
                    echoes(&mut server.client(), b"hello");
                    let mut asking = datagrams(&server.addresses[1], &own);
                    asking.write_all(b"hi").unwrap();
                    assert_eq!(asking.read(&mut [0; 9]).unwrap(), 2);
                }
                server.end();
            })
        })
        .collect();
    crowd.into_iter().for_each(|thread| thread.join().unwrap());

    let told = told.0.lock().unwrap();
    let built = told.iter().filter(|(by, ..)| *by == "built");
    let ids: Vec<u64> = built.map(|(_, id, _)| *id).collect();
    assert_eq!(ids.len(), Model::ALL.len() * 50);
    let different: HashSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
}

/// Connects to itself once, and writes down the ids of both ends.
struct Circular {
    to: Option<Address>,
    told: Told,
}

impl Factory for Circular {
    type Protocol = Strict;

    fn build_protocol(&mut self, _: &Peer) -> Option<Strict> {
        Some(Strict(self.told.clone()))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Strict>) {
        if let Some(to) = self.to.take() {
            // Nobody listens at the second.
            actions.connect(to, Strict(self.told.clone()));
            let gone = "unix:///nonexistent/socket".parse().unwrap();
            actions.connect(gone, Strict(self.told.clone()));
        }
    }
}

#[test]
fn outbound_connections_have_ids_of_their_own() {
    let told = Told::default();
    let factory = Circular {
        to: None,
        told: told.clone(),
    };
    let mut reactor = Reactor::new(factory, timeless()).unwrap();
    let address = reactor.listen(&TCP.parse().unwrap()).unwrap();
    reactor.factory().to = Some(address);
    let begin = Instant::now();
    while told.ids().len() < 3 {
        assert!(begin.elapsed() < PATIENCE, "{told:?}");
        reactor.turn(Some(millis(10))).unwrap();
    }
    let ids: HashSet<u64> = told.ids().into_iter().collect();
    assert!(ids.len() == 3 && !ids.contains(&0), "{told:?}");
}

/// Writes down how it ended.
#[derive(Default)]
struct Last(Option<[u64; 3]>);

impl Protocol for Last {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        match data {
            b"part" => return Ok(0),
            b"bye" => transport.close(),
            b"stop" => transport.abort(),
            b"wrong" => return Err(ProtocolError::malformed("wrong")),
            b"loop" => panic!("on purpose"),
            _ => transport.write(data),
        }
        Ok(data.len())
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        self.0 = Some([ended.received(), ended.sent(), ended.unsent()]);
    }
}

/// A session whose peer took 5 bytes of 12.
fn with_waiting(config: Config) -> MemorySession<Last> {
    let mut session = MemorySession::with_config(Last::default(), config);
    session.receive(b"12345");
    session.stop_taking();
    session.receive(b"abcdefg");
    session
}

#[track_caller]
fn check(session: &MemorySession<Last>, expected: [u64; 3]) {
    let ended = session.ended().expect("an end");
    assert_eq!([ended.received(), ended.sent(), ended.unsent()], expected);
    assert_eq!(session.protocol().0, Some(expected));
}

#[test]
fn bytes_are_counted_whatever_the_end_is() {
    let mut session = with_waiting(timeless());
    session.receive(b"bye");
    assert!(session.ended().is_none(), "output waits");
    session.take(3);
    session.take(4);
    check(&session, [15, 12, 0]);

    let mut session = with_waiting(timeless());
    session.receive(b"stop");
    check(&session, [16, 5, 7]);

    // What was written before an error is still sent.
    let mut session = with_waiting(timeless());
    session.receive(b"wrong");
    session.take(2);
    session.fail(CloseReason::Overflow);
    check(&session, [17, 7, 5]);

    let mut session = with_waiting(timeless());
    session.receive(b"part");
    session.receive_eof();
    session.take(99);
    check(&session, [16, 12, 0]);

    // Too much: what did not fit is unsent as well.
    let config = Config {
        limits: Limits {
            high_water: 8,
            low_water: 4,
            max_output: 16,
            max_reply: 16,
            ..timeless().limits
        },
        ..timeless()
    };
    let mut session = with_waiting(config);
    session.receive(&[b'x'; 10]);
    check(&session, [22, 5, 17]);
}

#[test]
fn a_connection_lasts_from_its_beginning_to_its_end() {
    let mut session = MemorySession::new(Echo);
    let began = session.now();
    session.advance(seconds(3));
    session.receive(b"hello");
    session.advance(seconds(4));
    session.receive_eof();
    session.advance(seconds(9));
    let ended = session.ended().unwrap();
    assert_eq!((ended.began(), ended.duration()), (began, seconds(7)));
    assert_eq!((ended.received(), ended.sent()), (5, 5));
}

#[test]
fn sessions_in_memory_have_ids_of_their_own_or_those_that_are_given() {
    let [one, other] = [(); 2].map(|()| MemorySession::new(Last::default()));
    let ids = [one, other].map(|mut session| {
        session.receive_eof();
        session.ended().unwrap().peer().id()
    });
    assert_eq!(ids, [1, 2], "in a thread of its own");

    let peer = Peer::new("unix:///peer".parse().unwrap(), None).with_id((1 << 47) - 1);
    assert_eq!((peer.id(), peer.listener()), ((1 << 47) - 1, None));
    let mut session = MemorySession::with_peer(Last::default(), timeless(), peer);
    session.receive_eof();
    assert_eq!(session.ended().unwrap().peer().id(), (1 << 47) - 1);

    for listener in [0, 1, u16::MAX] {
        let peer = Peer::new("unix:///peer".parse().unwrap(), Some(listener))
            .with_id(7)
            .with_id(8);
        assert_eq!((peer.id(), peer.listener()), (8, Some(listener.into())));
    }
}

#[test]
fn a_reply_that_is_not_sent_is_unsent() {
    struct Verbose(Rc<RefCell<Vec<[u64; 3]>>>);

    impl Protocol for Verbose {
        fn data_received(
            &mut self,
            data: &[u8],
            transport: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            transport.write(&data.repeat(if data.len() > 2 { 100 } else { 2 }));
            Ok(data.len())
        }

        fn connection_lost(&mut self, ended: &Ended<'_>) {
            let bytes = [ended.received(), ended.sent(), ended.unsent()];
            self.0.borrow_mut().push(bytes);
        }
    }

    let ends = Rc::<RefCell<Vec<_>>>::default();
    let shared = Rc::clone(&ends);
    let factory = move |_: &Peer| Some(Verbose(Rc::clone(&shared)));
    let config = Config {
        limit_loopback: true,
        reply_factor: 10,
        ..timeless()
    };
    let mut reactor = Reactor::new(factory, config).unwrap();
    let address = reactor
        .listen(&"udp://127.0.0.1:0".parse().unwrap())
        .unwrap();
    let mut client = datagrams(&address, "".as_ref());
    client.write_all(b"ab").unwrap();
    client.write_all(b"abc").unwrap();
    let begin = Instant::now();
    while ends.borrow().len() < 2 {
        assert!(begin.elapsed() < PATIENCE);
        reactor.turn(Some(millis(10))).unwrap();
    }
    assert_eq!(*ends.borrow(), [[2, 4, 0], [3, 0, 300]]);
}

/// Keeps the lines about peers in directories of tests, with their ids.
struct Lines;

static LINES: Mutex<Vec<(String, Option<u64>)>> = Mutex::new(Vec::new());

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        if line.contains("/named-client") {
            let id = record.key_values().get(Key::from("id"));
            let id = id.and_then(|id| id.to_u64());
            let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push((line, id));
        }
    }

    fn flush(&self) {}
}

/// A client whose address is a path.
fn named_client(own: &Path, to: &Address) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(own).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = SockAddr::unix(to.path().unwrap()).unwrap();
    socket.connect(&to).unwrap();
    socket
}

#[test]
fn lines_of_the_log_have_the_id() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(LevelFilter::Debug);

    for model in Model::ALL {
        let scratch = Scratch::new();
        let told = Told::default();
        let at = scratch.uri("unix", "socket");
        let server = ModelServer::of_factory(model, &[&at], timeless(), Watched(told.clone()));
        let (good, bad) = (
            scratch.path("named-client-a"),
            scratch.path("named-client-b"),
        );
        let mut client = named_client(&good, &server.addresses[0]);
        echoes(&mut client, b"hello");
        drop(client);
        let mut client = named_client(&bad, &server.addresses[0]);
        client.write_all(b"no!").unwrap();
        assert_eq!(read_to(&mut client).0, b"no!");
        server.end();

        let of = |path: &Path| -> Vec<Option<u64>> {
            let lines = LINES.lock().unwrap();
            let about = lines
                .iter()
                .filter(|(line, _)| line.contains(path.to_str().unwrap()));
            about.map(|(_, id)| *id).collect()
        };
        let (good, bad) = (of(&good), of(&bad));
        let [Some(one), Some(other)] = [good[0], bad[0]] else {
            panic!("{model:?}: a line without an id");
        };
        assert_eq!(
            (good, bad),
            (vec![Some(one); 2], vec![Some(other); 2]),
            "{model:?}"
        );
        let built: HashSet<u64> = told.ids().into_iter().collect();
        assert_eq!(built, HashSet::from([one, other]), "{model:?}");
    }
}
