//! The account of what connections keep: what is added is what is subtracted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serveloop::testing::{MemoryServer, MemorySession};
use serveloop::{
    Actions, Address, CloseReason, Config, Factory, Limits, Peer, Protocol, Reactor, Result,
    Transport,
};

use crate::support::model_server::{Model, ModelServer, read_to};
use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Serving, client, millis, noise, panic_quietly, timeless};

fn listening<F: Factory>(config: Config, factory: F) -> (Reactor<F>, Address) {
    let mut reactor = Reactor::new(factory, config).unwrap();
    let at = "tcp://127.0.0.1:0".parse().unwrap();
    let address = reactor.listen(&at).unwrap();
    (reactor, address)
}

#[track_caller]
fn turn_until<F: Factory>(reactor: &mut Reactor<F>, done: impl Fn(&Reactor<F>) -> bool) {
    let begin = Instant::now();
    while !done(reactor) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", reactor.statistics());
        reactor.turn(Some(millis(20))).unwrap();
    }
}

/// "big" is answered by 900 kB, and then the next question about time is answered by a panic.
fn nervous() -> Probe {
    let alarmed = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&alarmed);
    let reply = noise(900_000);
    Probe::new(&Log::default())
        .data(move |data, transport| match data {
            b"big" => {
                transport.write(&reply);
                alarmed.store(true, Ordering::SeqCst);
                Ok(3)
            }
            b"whole" => {
                transport.write(b"fine");
                Ok(5)
            }
            _ => Ok(0),
        })
        .poll(move || {
            if asked.load(Ordering::SeqCst) {
                panic_quietly();
            }
            None
        })
}

#[test]
fn a_panic_while_output_waits_leaves_nothing_in_the_account() {
    let config = Config {
        send_buffer: Some(20_000),
        max_buffered: 4 << 20,
        limits: Limits {
            max_output: 1 << 20,
            high_water: 1 << 20,
            low_water: 1,
            ..timeless().limits
        },
        ..timeless()
    };
    let (mut reactor, address) = listening(config, |_: &Peer| Some(nervous()));
    for count in 1..=9 {
        let mut stream = client(&address);
        stream.write_all(b"big").unwrap();
        turn_until(&mut reactor, |it| it.statistics().closed_panicked == count);
        assert_eq!(reactor.buffered(), 0, "after {count}");
        drop(stream);
    }
    // Another client keeps the beginning of a message, and is not ended for the others.
    let mut innocent: TcpStream = client(&address);
    innocent.write_all(b"who").unwrap();
    turn_until(&mut reactor, |it| it.buffered() > 0);
    let held = reactor.buffered();
    assert!(held < 1_000, "{held} bytes");
    innocent
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    innocent.write_all(b"le").unwrap();
    turn_until(&mut reactor, |it| it.statistics().bytes_read == 9 * 3 + 5);
    turn_until(&mut reactor, |it| it.buffered() == 0);
    let mut reply = [0; 4];
    innocent.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"fine");
    assert_eq!(reactor.statistics().closed_shed, 0);
}

/// Every way for a connection to end while it keeps something.
#[test]
fn nothing_is_left_in_the_account_however_a_connection_ends() {
    let config = Config {
        send_buffer: Some(20_000),
        limits: Limits {
            high_water: 1 << 20,
            max_output: 1 << 20,
            low_water: 1,
            linger_timeout: None,
            ..timeless().limits
        },
        ..timeless()
    };
    let factory = |_: &Peer| {
        let reply = noise(900_000);
        Some(Probe::new(&Log::default()).data(move |data, transport| {
            match data {
                b"panic" => panic_quietly(),
                b"abort" => transport.abort(),
                b"close" => transport.close(),
                b"finish" => transport.finish(),
                b"write" => transport.write(&reply),
                b"too much" => {
                    transport.write(&reply);
                    transport.write(&reply);
                }
                _ => return Ok(0),
            }
            Ok(data.len())
        }))
    };
    let (mut reactor, address) = listening(config, factory);
    let ways: [&[u8]; 6] = [
        b"panic",
        b"abort",
        b"close",
        b"finish",
        b"too much",
        b"part",
    ];
    for (count, way) in (1..).zip(ways) {
        let mut stream = client(&address);
        stream.write_all(b"write").unwrap();
        turn_until(&mut reactor, |it| it.buffered() > 0);
        stream.write_all(way).unwrap();
        let read = reactor.statistics().bytes_read;
        if way != b"too much" {
            turn_until(&mut reactor, |it| it.statistics().bytes_read > read);
        }
        drop(stream);
        turn_until(&mut reactor, |it| it.statistics().closed() == count);
        turn_until(&mut reactor, |it| it.connections() == 0);
        let way = way.escape_ascii();
        assert_eq!(reactor.buffered(), 0, "{way}");
    }
}

/// Charges a number of KiB, given in each message, and answers with that number.
fn charging() -> Probe {
    Probe::new(&Log::default()).data(|data, transport| {
        let text = std::str::from_utf8(data).unwrap();
        transport.charge(text.parse::<usize>().unwrap() << 10);
        transport.write(data);
        Ok(data.len())
    })
}

fn with_budget(kib: usize) -> Config {
    Config {
        max_buffered: kib << 10,
        limits: Limits {
            max_output: 100 << 10,
            ..timeless().limits
        },
        ..timeless()
    }
}

#[test]
fn what_a_protocol_charges_is_in_the_account_until_it_says_otherwise() {
    let (mut reactor, address) = listening(with_budget(1_000), |_: &Peer| Some(charging()));
    let mut streams = [client(&address), client(&address)];
    let say = |reactor: &mut Reactor<_>, stream: &mut TcpStream, kib: &str| {
        stream.write_all(kib.as_bytes()).unwrap();
        let before = reactor.statistics().bytes_written + kib.len() as u64;
        turn_until(reactor, |it| it.statistics().bytes_written == before);
        stream.read_exact(&mut vec![0; kib.len()]).unwrap();
    };
    say(&mut reactor, &mut streams[0], "300");
    assert_eq!(reactor.buffered(), 300 << 10);
    // The amount is set, not added to.
    say(&mut reactor, &mut streams[0], "400");
    say(&mut reactor, &mut streams[1], "100");
    assert_eq!(reactor.buffered(), 500 << 10);
    say(&mut reactor, &mut streams[1], "0");
    assert_eq!(reactor.buffered(), 400 << 10);
    let [first, second] = streams;
    drop(first);
    turn_until(&mut reactor, |it| it.statistics().closed() == 1);
    assert_eq!(reactor.buffered(), 0);
    drop(second);
}

#[test]
fn who_charges_the_most_is_shed_first() {
    let (mut reactor, address) = listening(with_budget(1_000), |_: &Peer| Some(charging()));
    let mut streams: Vec<_> = (0..3).map(|_| client(&address)).collect();
    for (stream, kib) in streams.iter_mut().zip(["200", "500", "280"]) {
        stream.write_all(kib.as_bytes()).unwrap();
        let read = reactor.statistics().bytes_read + 3;
        turn_until(&mut reactor, |it| it.statistics().bytes_read == read);
    }
    turn_until(&mut reactor, |it| it.statistics().closed_shed == 1);
    assert_eq!(reactor.buffered(), 480 << 10);
    // More than there can be is shed too, and breaks no sum.
    let most = usize::MAX >> 10;
    for _ in 0..3 {
        let mut greedy = client(&address);
        let shed = reactor.statistics().closed_shed + 1;
        greedy.write_all(most.to_string().as_bytes()).unwrap();
        turn_until(&mut reactor, |it| it.statistics().closed_shed == shed);
    }
    assert_eq!(reactor.buffered(), 480 << 10);
}

#[test]
fn without_a_limit_no_charge_breaks_the_account() {
    let config = Config {
        max_buffered: usize::MAX,
        ..timeless()
    };
    let (mut reactor, address) = listening(config, |_: &Peer| Some(charging()));
    let mut streams: Vec<_> = (0..5).map(|_| client(&address)).collect();
    let most = (usize::MAX >> 10).to_string();
    for stream in &mut streams {
        stream.write_all(most.as_bytes()).unwrap();
        let read = reactor.statistics().bytes_read + most.len() as u64;
        turn_until(&mut reactor, |it| it.statistics().bytes_read == read);
    }
    drop(streams);
    turn_until(&mut reactor, |it| it.statistics().closed() == 5);
    assert_eq!(reactor.buffered(), 0);
}

#[test]
fn threads_share_the_budget_for_what_their_protocols_charge() {
    let at = ["tcp://127.0.0.1:0"];
    let factory = |_: &Peer| Some(charging());
    let server = ModelServer::new(Model::Threading, &at, with_budget(1_000), factory);
    let say = |kib: &str| {
        let mut stream = server.client();
        stream.write_all(kib.as_bytes()).unwrap();
        let mut reply = vec![0; kib.len()];
        let outcome = stream.read_exact(&mut reply);
        (stream, outcome.is_ok())
    };
    let first = say("600");
    assert!(first.1);
    // The reply may get through before the end; the next read shows it.
    let (mut greedy, _) = say("500");
    assert_eq!(read_to(&mut greedy).0, b"");
    server.await_error();
    drop(greedy);
    let small = say("300");
    assert!(small.1);
    drop((first, small));
    assert_eq!(server.end().closed_shed, 1);
}

#[test]
fn a_session_in_memory_shows_what_it_keeps_and_is_ended_for_too_much() {
    let mut session = MemorySession::with_config(charging(), with_budget(1_000));
    session.receive(b"500");
    assert_eq!(session.held(), 500 << 10);
    session.receive(b"20");
    assert_eq!(session.held(), 20 << 10);
    session.receive(b"960");
    assert!(matches!(session.reason(), Some(CloseReason::Shed)));
    assert_eq!(session.held(), 0);
}

/// Keeps as many bytes as it is told, in no buffer.
struct Keeping(usize);

impl Protocol for Keeping {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        transport.charge(self.0);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }
}

/// Opens a session of datagrams that keeps a lot, and makes connections that keep some.
struct Mixed {
    by_session: usize,
    by_connection: usize,
}

impl Factory for Mixed {
    type Protocol = Keeping;

    fn build_protocol(&mut self, _: &Peer) -> Option<Keeping> {
        Some(Keeping(self.by_connection))
    }

    fn started(&mut self, actions: &mut Actions<'_, Keeping>) {
        let elsewhere = "udp://192.0.2.1:5".parse().unwrap();
        actions.connect(elsewhere, Keeping(self.by_session));
    }
}

/// Connections and sessions of datagrams share one limit: what holds most has to end, and the loop rests.
#[test]
fn sessions_of_datagrams_and_connections_make_room_for_each_other() {
    for (by_session, by_connection, open) in [(940_000, 100_000, 2), (450_000, 300_000, 1)] {
        let config = Config {
            max_buffered: 1 << 20,
            ..timeless()
        };
        let mixed = Mixed {
            by_session,
            by_connection,
        };
        let mut server = MemoryServer::with_config(mixed, config);
        server.connect();
        server.connect();
        server.run();
        assert_eq!(server.connections(), open, "{by_session}");

        let turns = server.statistics().turns;
        server.run();
        assert!(server.statistics().turns < turns + 10, "the loop rests");
    }
}

/// Posts behind others wake no session, but too much of them ends the loop's wait, with what connections
/// hold besides.
#[test]
fn posts_and_what_connections_hold_share_a_limit() {
    let (sender, outboxes) = mpsc::channel();
    let build = move |_: &Peer| {
        let sender = sender.clone();
        Some(Probe::new(&Log::default()).data(move |data, transport| {
            match data {
                b"hold" => transport.charge(9 << 20),
                _ => drop(sender.send(transport.outbox())),
            }
            Ok(data.len())
        }))
    };
    let limits = Limits {
        max_posted: 9 << 20,
        ..timeless().limits
    };
    let config = Config {
        max_buffered: 10 << 20,
        send_buffer: Some(4_096),
        limits,
        ..timeless()
    };
    let serving = Serving::tcp(config, build);
    let mut holding = serving.client();
    holding.write_all(b"hold").unwrap();
    let mut reading = serving.client();
    reading.write_all(b"outbox").unwrap();
    let outbox = outboxes.recv_timeout(PATIENCE).unwrap();

    for _ in 0..64 {
        // It may have ended by then.
        let _ = outbox.post(vec![b'.'; 128 << 10]);
    }
    serving.wait(|statistics| statistics.closed() > 0);
    let errors = serving.errors.clone();
    serving.end();
    assert_eq!(errors.entries(), [CloseReason::Shed.to_string()]);
}
