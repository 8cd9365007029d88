//! A turn that takes long makes no peer late, and no peer is blamed for it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::{Config, Factory, Limits, Peer, Reactor};

use crate::support::model_server::{Model, ModelServer, read_to};
use crate::support::probe::{Log, Probe};
use crate::support::scripted::{Script, Scripted};
use crate::support::{PATIENCE, client, expect, millis, panic_quietly, seconds, timeless};

type Moment = Arc<Mutex<Option<Instant>>>;

/// Asks to be called 200 ms after each piece, and then computes for some time.
fn slow(script: &Script, computes: Duration) -> Probe {
    let (script, due) = (script.clone(), Moment::default());
    let (asked, over) = (Arc::clone(&due), Arc::clone(&due));
    Probe::new(&Log::default())
        .data(move |data, transport| {
            *due.lock().unwrap() = Some(transport.now() + millis(200));
            script.pass(computes);
            Ok(data.len())
        })
        .poll(move || *asked.lock().unwrap())
        .timeout(move |_| *over.lock().unwrap() = None)
}

/// A loop whose one connection has just computed for `computes`.
fn after_work(
    script: &Script,
    computes: Duration,
    config: Config,
) -> Reactor<impl Factory<Protocol = Probe>, Scripted> {
    let theirs = script.clone();
    let factory = move |_: &Peer| Some(slow(&theirs, computes));
    let mut reactor = Reactor::with_net(Scripted::new(script), factory, config).unwrap();
    let address = "tcp://127.0.0.1:1".parse().unwrap();
    reactor.listen(&address).unwrap();
    script.converse(&[b"x"], &[]);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    script.announce(true, true);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.statistics().bytes_read, 1);
    script.polls();
    reactor
}

fn last_wait(script: &Script) -> Duration {
    script.polls().pop().unwrap().unwrap()
}

#[test]
fn a_deadline_is_not_late_by_the_work_of_its_turn() {
    for (computes, expected) in [(0, 200), (190, 10), (200, 0), (500, 0)] {
        let script = Script::default();
        let mut reactor = after_work(&script, millis(computes), timeless());
        reactor.turn(None).unwrap();
        assert_eq!(last_wait(&script), millis(expected), "after {computes} ms");
    }
}

#[test]
fn a_deadline_is_not_late_by_what_happens_between_turns() {
    let script = Script::default();
    let mut reactor = after_work(&script, Duration::ZERO, timeless());
    script.pass(millis(150));
    reactor.turn(None).unwrap();
    assert_eq!(last_wait(&script), millis(50));
}

/// The time for which a handler computes is not the peer's.
#[test]
fn nobody_is_idle_while_the_loop_is_busy() {
    let config = Config {
        slow_turn: None,
        limits: Limits {
            idle_timeout: Some(seconds(10)),
            ..timeless().limits
        },
        ..timeless()
    };
    let script = Script::default();
    let theirs = script.clone();
    let factory = move |_: &Peer| {
        let script = theirs.clone();
        Some(Probe::new(&Log::default()).data(move |data, _| {
            script.pass(seconds(9));
            Ok(data.len())
        }))
    };
    let mut reactor = Reactor::with_net(Scripted::new(&script), factory, config).unwrap();
    reactor
        .listen(&"tcp://127.0.0.1:1".parse().unwrap())
        .unwrap();
    script.converse(&[b"x"], &[]);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    script.announce(true, true);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    // The first look comes early, and does no harm.
    reactor.turn(None).unwrap();
    reactor.turn(Some(seconds(8))).unwrap();
    assert_eq!(reactor.connections(), 1);
    reactor.turn(Some(seconds(3))).unwrap();
    reactor.turn(Some(millis(1))).unwrap();
    assert_eq!(reactor.statistics().closed_timeout_idle, 1);
}

#[test]
fn a_deadline_is_not_late_by_its_own_handler_in_any_model() {
    let serve = |model: Model| {
        let factory = |_: &Peer| {
            let due = Moment::default();
            let asked = Arc::clone(&due);
            Some(
                Probe::new(&Log::default())
                    .data(move |data, transport| {
                        let begin = Instant::now();
                        *due.lock().unwrap() = Some(begin + millis(1_500));
                        while begin.elapsed() < millis(1_400) {
                            std::hint::spin_loop();
                        }
                        let _ = transport;
                        Ok(data.len())
                    })
                    .poll(move || *asked.lock().unwrap())
                    .timeout(|transport| {
                        transport.write(b"due");
                        transport.close();
                    }),
            )
        };
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), factory);
        let mut client = server.client();
        let begin = Instant::now();
        client.write_all(b"x").unwrap();
        expect(&mut client, b"due");
        let took = begin.elapsed();
        assert!(
            took >= millis(1_500) && took < millis(2_700),
            "{model:?}: {took:?}"
        );
        drop(client);
        server.end();
    };
    // A process needs to be the only thread to fork, so that its test is elsewhere.
    thread::scope(|scope| {
        for model in Model::ALL {
            scope.spawn(move || serve(model));
        }
    });
}

/// Calls of a protocol that may not come: any after the end, and a deadline's after a close.
#[test]
fn nothing_is_asked_of_a_protocol_after_its_end() {
    for model in Model::ALL {
        let late = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&late);
        let factory = move |_: &Peer| {
            let over = Arc::new(AtomicBool::new(false));
            let (lost, closed, late) = (Arc::clone(&over), Arc::clone(&over), Arc::clone(&shared));
            Some(
                Probe::new(&Log::default())
                    .data(move |data, transport| {
                        match data {
                            b"close" => transport.close(),
                            b"abort" => transport.abort(),
                            b"panic" => panic_quietly(),
                            _ => return Ok(data.len()),
                        }
                        closed.store(true, Ordering::SeqCst);
                        Ok(data.len())
                    })
                    .lost(move || lost.store(true, Ordering::SeqCst))
                    .poll(move || {
                        late.fetch_add(usize::from(over.load(Ordering::SeqCst)), Ordering::SeqCst);
                        None
                    }),
            )
        };
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], timeless(), factory);
        for what in [b"close" as &[u8], b"abort", b"panic", b"leave"] {
            let mut client = server.client();
            client.write_all(what).unwrap();
            if what == b"leave" {
                client.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let _ = read_to(&mut client);
        }
        server.end();
        assert_eq!(late.load(Ordering::SeqCst), 0, "{model:?}");
    }
}

/// What has an event in the very turn in which it is ended.
#[test]
fn nothing_is_asked_of_a_protocol_that_was_ended_before_its_turn() {
    let late = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&late);
    let factory = move |_: &Peer| {
        let over = Arc::new(AtomicBool::new(false));
        let (lost, late) = (Arc::clone(&over), Arc::clone(&shared));
        Some(
            Probe::new(&Log::default())
                .shutdown(|_| {})
                .lost(move || lost.store(true, Ordering::SeqCst))
                .poll(move || {
                    late.fetch_add(usize::from(over.load(Ordering::SeqCst)), Ordering::SeqCst);
                    None
                }),
        )
    };
    let mut reactor = Reactor::new(factory, timeless()).unwrap();
    let address = reactor
        .listen(&"tcp://127.0.0.1:0".parse().unwrap())
        .unwrap();
    let mut stream = client(&address);
    let mut turn_until = |stream: &mut TcpStream, count: u64, requests: u32| {
        stream.write_all(b"x").unwrap();
        let begin = Instant::now();
        for _ in 0..requests {
            reactor.shutdown();
        }
        while reactor.statistics().bytes_read + reactor.statistics().closed() < count {
            assert!(begin.elapsed() < PATIENCE, "{:?}", reactor.statistics());
            reactor.turn(Some(millis(20))).unwrap();
        }
    };
    turn_until(&mut stream, 1, 0);
    turn_until(&mut stream, 2, 1);
    turn_until(&mut stream, 3, 1);
    assert_eq!(late.load(Ordering::SeqCst), 0);
}
