//! What connections share: memory for their buffers, and the loop's time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::{Address, CloseReason, Config, Limits, Peer, Reactor};

use crate::support::model_server::{Model, ModelServer};
use crate::support::probe::{Log, Probe};
use crate::support::scripted::{Act, Script, Scripted};
use crate::support::{PATIENCE, Serving, client, echoes, millis, seconds, timeless};

const KIB: usize = 1024;

/// How many rounds in which nobody could send show that nobody will.
const IDLE_MOST: u32 = 1_000;

/// Keeps all it is sent, and calls it the beginning of a message.
fn keeper() -> Probe {
    Probe::new(&Log::default()).data(|data, transport| {
        if data == b"ping" {
            transport.write(b"pong");
            return Ok(4);
        }
        Ok(0)
    })
}

fn shared(kib: usize) -> Config {
    Config {
        max_buffered: kib * KIB,
        limits: Limits {
            max_output: 100 * KIB,
            max_frame: kib / 2 * KIB,
            ..timeless().limits
        },
        ..timeless()
    }
}

#[track_caller]
fn is_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn who_keeps_the_most_is_ended_first_and_no_more_than_needed() {
    let serving = Serving::tcp(shared(8_000), |_: &Peer| Some(keeper()));
    let mut sent = 0;
    let mut keep = |kib: usize| {
        let mut stream = serving.client();
        stream.write_all(&vec![b'x'; kib * KIB]).unwrap();
        sent += (kib * KIB) as u64;
        serving.wait(|statistics| statistics.bytes_read == sent);
        stream
    };
    // A buffer may have 64 KiB more than it needs.
    let smaller = [keep(1_200), keep(1_200)];
    let largest = keep(2_400);
    let large = keep(1_600);
    assert_eq!(serving.wait(|_| true).closed_shed, 0);
    // With this it is too much, and little enough as soon as one is gone.
    let last = keep(1_400);
    serving.wait(|statistics| statistics.closed_shed == 1);
    is_reset(&largest);
    assert_eq!(serving.errors.count("ended to keep buffers"), 1);
    // This one is ended when it has become the largest, before it has sent everything.
    let mut another = serving.client();
    let _ = another.write_all(&vec![b'x'; 3_000 * KIB]);
    serving.wait(|statistics| statistics.closed_shed == 2);
    drop(another);
    for mut stream in smaller.iter().chain([&large, &last]) {
        stream.set_nonblocking(true).unwrap();
        assert_eq!(
            stream.read(&mut [0; 9]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }
    let mut quiet = serving.client();
    quiet.write_all(b"ping").unwrap();
    crate::support::expect(&mut quiet, b"pong");
    drop((smaller, large, last, quiet));
    assert_eq!(serving.end().closed_shed, 2);
}

/// Clients that send without end and take nothing, and one that behaves.
#[test]
fn a_loop_stays_within_its_budget_whatever_clients_do() {
    // Whoever takes nothing waits, and does not end by writing too much at once.
    let mut config = shared(2_000);
    config.limits.max_output = 256 * KIB;
    let (most, one) = (
        config.max_buffered,
        config.limits.max_output + config.read_per_turn,
    );
    let high_water = config.limits.high_water;
    let mut reactor = Reactor::new(|_: &Peer| Some(Echo), config).unwrap();
    let address = reactor.listen(&"tcp://127.0.0.1:0".parse::<Address>().unwrap());
    let address = address.unwrap();
    let mut crowd: Vec<_> = (0..64).map(|_| client(&address)).collect();
    for stream in &crowd {
        stream.set_nonblocking(true).unwrap();
    }
    let mut honest = client(&address);
    let piece = vec![b'x'; 64 * KIB];
    let (mut highest, mut idle) = (0, 0);
    // Until many were ended, or nobody can send any more: how much the system takes varies.
    while reactor.statistics().closed_shed < 20 && idle < IDLE_MOST {
        honest.write_all(b"still there?").unwrap();
        idle += 1;
        crowd.retain_mut(|stream| {
            let written = stream.write(&piece);
            let sent = written.is_ok_and(|count| count > 0);
            idle *= u32::from(!sent);
            sent || stream.take_error().unwrap().is_none()
        });
        for _ in 0..8 {
            reactor.turn(Some(Duration::ZERO)).unwrap();
            highest = highest.max(reactor.buffered());
        }
        honest.read_exact(&mut [0; 12]).unwrap();
    }
    // Who cannot send is not read from, because of what waits for them.
    let waits = crowd.len() * high_water;
    assert!(idle < IDLE_MOST || reactor.buffered() >= waits, "{waits}");
    assert!(reactor.statistics().closed_shed > 0);
    assert!(highest <= most + one, "{highest} bytes");
    assert!(highest > most * 8 / 10, "{highest} bytes");
    drop((crowd, honest));
    reactor.shutdown();
    reactor.shutdown();
    reactor.run().unwrap();
    assert_eq!(reactor.buffered(), 0);
}

/// What a protocol says at once, before it is served for the first time, counts too.
#[test]
fn greetings_that_nobody_takes_count() {
    let greet = |_: &Peer| {
        Some(Probe::new(&Log::default()).made(|transport| {
            transport.write(&[b'x'; 90 * KIB]);
            Ok(())
        }))
    };
    let script = Script::default();
    let config = Config {
        max_buffered: 90 * KIB,
        limits: Limits {
            max_output: 90 * KIB,
            max_frame: KIB,
            ..timeless().limits
        },
        ..timeless()
    };
    let mut reactor = Reactor::with_net(Scripted::new(&script), greet, config).unwrap();
    reactor
        .listen(&"tcp://127.0.0.1:1".parse().unwrap())
        .unwrap();
    script.flood();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.statistics().accepted, 1);
    assert_eq!(reactor.statistics().closed_shed, 1);
    assert_eq!((reactor.buffered(), reactor.connections()), (0, 0));
}

/// With threads it is the one that wants more than is left.
#[test]
fn threads_share_a_budget() {
    let config = shared(2_000);
    let mut server = ModelServer::new(
        Model::Threading,
        &["tcp://127.0.0.1:0"],
        config,
        |_: &Peer| Some(keeper()),
    );
    // More than one of them may be asking while the first still ends.
    let mut crowd: Vec<_> = (0..4).map(|_| server.client()).collect();
    for stream in &mut crowd {
        stream.write_all(&vec![b'x'; 400 * KIB]).unwrap();
    }
    let mut one_more = server.client();
    let _ = one_more.write_all(&vec![b'x'; 800 * KIB]);
    server.await_error();
    // Until the last of them is read or has ended, a reply is more than is left, too.
    let due = Instant::now() + PATIENCE;
    let mut shed = 0;
    let quiet = loop {
        let mut quiet = server.client();
        let sent = quiet.write_all(b"ping");
        let Err(error) = sent.and_then(|()| quiet.read_exact(&mut [0; 4])) else {
            break quiet;
        };
        assert!(Instant::now() < due, "{error}");
        shed += 1;
    };
    drop((crowd, one_more, quiet));
    server.handle.shutdown();
    let statistics = server.join();
    assert!(statistics.closed_shed >= 1, "{statistics:?}");
    let ended = statistics.closed_shed + statistics.closed_truncated;
    assert_eq!(ended, 5 + shed, "{statistics:?}");
}

#[test]
fn a_slow_turn_is_counted() {
    let script = Script::default();
    let passing = script.clone();
    let factory = move |_: &Peer| {
        let passing = passing.clone();
        Some(Probe::new(&Log::default()).data(move |data, _| {
            passing.pass(millis(if data[0] == b's' { 251 } else { 250 }));
            Ok(data.len())
        }))
    };
    let config = Config {
        datagrams_per_turn: 1,
        ..timeless()
    };
    let mut reactor = Reactor::with_net(Scripted::new(&script), factory, config).unwrap();
    reactor
        .listen(&"udp://127.0.0.1:1".parse().unwrap())
        .unwrap();
    let turns = [("fast", 0), ("slow", 1), ("fast", 1), ("slow", 2)];
    for (datagram, _) in turns {
        script.then(0, Act::Datagram(datagram.into()));
    }
    for (datagram, slow) in turns {
        // What passes between two turns is none of theirs.
        script.pass(seconds(9));
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(reactor.statistics().slow_turns, slow, "{datagram}");
    }
}

#[test]
fn what_is_shed_is_an_error_and_says_so() {
    assert!(CloseReason::Shed.is_error());
    assert_eq!(
        CloseReason::Shed.to_string(),
        "ended to keep buffers within their limit"
    );
}

#[test]
fn a_neighbour_is_not_shed_for_messages_of_its_own() {
    let serving = Serving::tcp(shared(1_000), |_: &Peer| Some(Echo));
    let mut stream = serving.client();
    for _ in 0..100 {
        echoes(&mut stream, &[b'x'; 50 * KIB]);
    }
    drop(stream);
    assert_eq!(serving.end().closed_shed, 0);
}
