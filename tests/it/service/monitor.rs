//! Looking into servers while they run, in every model.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::service::metrics;
use serveloop::service::monitor::{ConnectionState, EndError, Monitor, Order, Query, Snapshot};
use serveloop::{Actions, Address, Config, Factory, Peer, Protocol, Result, Server, Transport};
use socket2::Socket;

use crate::support::model_server::{End, Model, ModelServer, bind, connect, read_to};
use crate::support::outside::require;
use crate::support::{PATIENCE, Serving, client, echoes, millis, seconds, timeless};

const LOOPBACK: &[&str] = &["tcp://127.0.0.1:0"];

/// An echo server with its monitor, which is patient because this machine may be busy.
fn echo(model: Model, config: Config) -> (ModelServer, Monitor) {
    let server = bind(model, LOOPBACK, config);
    let monitor = server.monitor().with_patience(PATIENCE);
    (
        ModelServer::with(model, server, |_: &Peer| Some(Echo)),
        monitor,
    )
}

#[track_caller]
fn check_equation(snapshot: &Snapshot) {
    let statistics = &snapshot.statistics;
    let begun = statistics.accepted + statistics.connected;
    let open = snapshot.open as u64;
    assert_eq!(begun, open + statistics.closed(), "{snapshot:?}");
}

/// Waits until a snapshot is as described.
#[track_caller]
fn await_snapshot(monitor: &Monitor, reached: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let begin = Instant::now();
    loop {
        let snapshot = monitor.snapshot();
        check_equation(&snapshot);
        if reached(&snapshot) {
            return snapshot;
        }
        assert!(begin.elapsed() < PATIENCE, "never reached: {snapshot:?}");
        thread::sleep(millis(2));
    }
}

/// Opens, uses and ends connections in several ways until it is told to stop.
fn churn(address: &Address, stop: &AtomicBool) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = connect(address);
        round += 1;
        match round % 4 {
            0 => {}
            1 => stream.set_linger(Some(Duration::ZERO)).unwrap(),
            2 => echoes(&mut stream, b"hello"),
            _ => stream.write_all(b"hello").unwrap(),
        }
    }
}

#[test]
fn begun_is_open_and_ended_in_every_snapshot_under_churn() {
    for model in Model::ALL {
        let (server, monitor) = echo(model, Config::default());
        let (stop, address) = (AtomicBool::new(false), &server.addresses[0]);
        thread::scope(|scope| {
            scope.spawn(|| churn(address, &stop));
            if model != Model::Sequential {
                scope.spawn(|| churn(address, &stop));
            }
            await_snapshot(&monitor, |snapshot| snapshot.statistics.closed() > 0);
            let (mut last, mut changes) = (0, 0);
            let (mut count, begin) = (0, Instant::now());
            while count < 1_000 || changes < 10 {
                assert!(
                    begin.elapsed() < 4 * PATIENCE,
                    "{model:?}: {changes} changes"
                );
                count += 1;
                let snapshot = monitor.snapshot();
                check_equation(&snapshot);
                let closed = snapshot.statistics.closed();
                assert!(closed >= last, "{model:?}: counters never fall");
                changes += u32::from(closed > last);
                last = closed;
            }
            stop.store(true, Ordering::Relaxed);
        });

        let statistics = server.end();
        let after = monitor.snapshot();
        assert_eq!(after.statistics.accepted, statistics.accepted, "{model:?}");
        assert_eq!((after.open, after.unanswered), (0, 0), "{model:?}");
        check_equation(&after);
    }
}

#[test]
fn connections_are_listed_with_what_they_did() {
    for model in Model::ALL {
        let (server, monitor) = echo(model, timeless());
        let mut stream = server.client();
        echoes(&mut stream, b"hello");
        // The thread of a connection notes what it sent before it waits again.
        await_snapshot(&monitor, |snapshot| snapshot.open == 1);
        let begin = Instant::now();
        let listing = loop {
            let listing = monitor.list(&Query::default());
            if listing
                .connections
                .first()
                .is_some_and(|it| it.sent == Some(5))
            {
                break listing;
            }
            assert!(begin.elapsed() < PATIENCE, "{model:?}: {listing:?}");
        };

        let [connection] = &listing.connections[..] else {
            panic!("{model:?}: one connection, not {listing:?}");
        };
        let local = stream.local_addr().unwrap().as_socket();
        assert_eq!(connection.peer.address().socket_addr(), local, "{model:?}");
        assert_eq!(
            connection.local_address.as_ref(),
            Some(&server.addresses[0])
        );
        assert_eq!(connection.peer.listener(), Some(0));
        assert_eq!(connection.received, Some(5), "{model:?}");
        assert_eq!(connection.state, ConnectionState::Open, "{model:?}");
        assert!(connection.idle.unwrap() <= connection.age, "{model:?}");
        assert!(connection.age < PATIENCE, "{model:?}");
        assert_eq!((listing.found, listing.unanswered), (1, 0), "{model:?}");
        drop(stream);
        server.end();
    }
}

#[test]
fn a_connection_is_ended_by_its_id() {
    for model in Model::ALL {
        for aborts in [false, true] {
            let (server, monitor) = echo(model, timeless());
            let mut stream = server.client();
            echoes(&mut stream, b"hello");
            await_snapshot(&monitor, |snapshot| snapshot.open == 1);
            let listed = monitor.list(&Query::default()).connections;
            let id = listed[0].id();
            assert_eq!(monitor.end(id + 1), Err(EndError::Unknown), "{model:?}");

            let ended = match aborts {
                true => monitor.abort(id),
                false => monitor.end(id),
            };
            assert_eq!(ended, Ok(()), "{model:?}");
            let (rest, end) = read_to(&mut stream);
            let expected = if aborts { End::Reset } else { End::Eof };
            assert_eq!((&rest[..], end), (&b""[..], expected), "{model:?}");
            drop(stream);

            await_snapshot(&monitor, |snapshot| snapshot.open == 0);
            assert_eq!(monitor.end(id), Err(EndError::Unknown), "{model:?}");
            let statistics = server.end();
            let counted = match aborts {
                true => statistics.closed_aborted,
                false => statistics.closed_by_shutdown,
            };
            assert_eq!(counted, 1, "{model:?}: {statistics:?}");
        }
    }
}

/// The others go on, also where one thread serves all of them.
#[test]
fn only_what_a_query_selects_is_ended() {
    for model in Model::CONCURRENT {
        let (server, monitor) = echo(model, timeless());
        let mut streams: Vec<Socket> = (0..6).map(|_| server.client()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            echoes(stream, &vec![b'x'; number + 1]);
        }
        let busiest = Query::default().by(Order::Traffic).first(2);
        let begin = Instant::now();
        loop {
            let listing = monitor.list(&busiest);
            let traffic: Vec<_> = listing.connections.iter().map(|it| it.traffic()).collect();
            if traffic == [12, 10] {
                assert_eq!(listing.found, 6, "{model:?}");
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{model:?}: {traffic:?}");
        }

        assert_eq!(monitor.end_all(&busiest), 2, "{model:?}");
        for stream in &mut streams[4..] {
            assert_eq!(read_to(stream).1, End::Eof, "{model:?}");
        }
        streams.truncate(4);
        for stream in &mut streams {
            echoes(stream, b"still here");
        }
        await_snapshot(&monitor, |snapshot| snapshot.open == 4);

        assert_eq!(monitor.end_all(&Query::default().of_listener(7)), 0);
        assert_eq!(
            monitor.end_all(&Query::default().from("192.0.2.0/24".parse().unwrap())),
            0
        );
        assert_eq!(
            monitor.end_all(&Query::default().older_than(seconds(3_600))),
            0
        );
        assert_eq!(
            monitor.end_all(&Query::default().idle_for(seconds(3_600))),
            0
        );
        let local = Query::default().from("127.0.0.0/8".parse().unwrap());
        assert_eq!(monitor.end_all(&local), 4, "{model:?}");
        drop(streams);
        server.end();
    }
}

/// Blocks its loop until it is told to go on.
#[derive(Clone)]
struct Blocking(Arc<(Sender<()>, std::sync::Mutex<Receiver<()>>)>);

impl Protocol for Blocking {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let _ = self.0.0.send(());
        let _ = self.0.1.lock().unwrap().recv_timeout(PATIENCE);
        transport.write(data);
        Ok(data.len())
    }
}

#[test]
fn a_stuck_loop_is_told_of_with_what_it_published_last() {
    let (blocked, is_blocked) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    let blocking = Blocking(Arc::new((blocked, std::sync::Mutex::new(goes))));
    let server = bind(Model::EventLoop, LOOPBACK, timeless());
    let monitor = server.monitor();
    let factory = move |_: &Peer| Some(blocking.clone());
    let server = ModelServer::with(Model::EventLoop, server, factory);
    let mut stream = server.client();
    await_snapshot(&monitor, |it| it.open == 1 && it.unanswered == 0);
    let id = monitor.list(&Query::default()).connections[0].id();

    stream.write_all(b"hello").unwrap();
    is_blocked.recv_timeout(PATIENCE).unwrap();
    thread::sleep(millis(20));
    let begin = Instant::now();
    let monitor = monitor.with_patience(millis(100));
    let snapshot = monitor.snapshot();
    let listing = monitor.list(&Query::default());
    assert_eq!(monitor.end(id), Err(EndError::Unanswered));
    assert!(begin.elapsed() < seconds(2), "{:?}", begin.elapsed());
    check_equation(&snapshot);
    assert_eq!((snapshot.open, snapshot.unanswered), (1, 1));
    assert!(snapshot.age >= millis(100), "{:?}", snapshot.age);
    assert_eq!(listing.connections[0].id(), id, "what was listed before");
    assert_eq!(listing.unanswered, 1);
    assert!(listing.age >= millis(100), "{:?}", listing.age);

    go.send(()).unwrap();
    // What was asked of it meanwhile is done now.
    let (rest, end) = read_to(&mut stream);
    assert_eq!((&rest[..], end), (&b"hello"[..], End::Eof));
    let snapshot = await_snapshot(&monitor, |it| it.open == 0 && it.unanswered == 0);
    assert_eq!(snapshot.age, Duration::ZERO);
    assert!(snapshot.turn_time.quantile(1.0) >= Some(millis(100)));
    server.end();
}

/// Asks its own server, which would wait for itself.
struct Curious(Monitor, Arc<AtomicUsize>);

impl Protocol for Curious {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        check_equation(&self.0.snapshot());
        let listing = self.0.list(&Query::default());
        let _ = self.0.end(transport.id());
        self.1.store(listing.unanswered, Ordering::SeqCst);
        transport.write(data);
        Ok(data.len())
    }
}

#[test]
fn a_handler_that_asks_does_not_wait_for_itself() {
    for model in Model::ALL {
        let server = bind(model, LOOPBACK, timeless());
        let monitor = server.monitor().with_patience(seconds(3_600));
        let unanswered = Arc::new(AtomicUsize::new(99));
        let (asked, seen) = (monitor.clone(), Arc::clone(&unanswered));
        let factory = move |_: &Peer| Some(Curious(asked.clone(), Arc::clone(&seen)));
        let server = ModelServer::with(model, server, factory);
        let mut stream = server.client();
        let begin = Instant::now();
        stream.write_all(b"hello").unwrap();
        // It is ended by its own request afterwards.
        assert_eq!(read_to(&mut stream).0, b"hello", "{model:?}");
        assert!(begin.elapsed() < PATIENCE, "{model:?}");
        let expected = match model {
            Model::EventLoop | Model::Workers => 1,
            Model::Sequential | Model::Threading => 0,
        };
        assert_eq!(unanswered.load(Ordering::SeqCst), expected, "{model:?}");
        drop(stream);
        server.end();
    }
}

/// A list of many is made in slices, between which the loop goes on. The limit of descriptors allows
/// tests less than a server has.
#[test]
fn thousands_are_listed_without_a_slow_turn() {
    let config = Config {
        slow_turn: Some(millis(100)),
        ..timeless()
    };
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], config).unwrap();
    let monitor = server.monitor().with_patience(PATIENCE);
    let serving = Serving::with(server, |_: &Peer| Some(Echo));
    let streams: Vec<_> = (0..3_500).map(|_| serving.client()).collect();
    await_snapshot(&monitor, |snapshot| snapshot.open == 3_500);
    let before = monitor.snapshot();

    let rounds = 20;
    let mut other = client(&serving.addresses[0]);
    for _ in 0..rounds {
        let listing = monitor.list(&Query::default());
        assert_eq!((listing.found, listing.unanswered), (3_500 + 1, 0));
        echoes(&mut other, b"hello");
    }
    let after = monitor.snapshot();
    assert_eq!(after.statistics.slow_turns, before.statistics.slow_turns);
    // Four slices of at most 1,000 each.
    let turns = after.statistics.turns - before.statistics.turns;
    assert!(turns >= rounds * 4, "{turns} turns");
    drop(streams);
    drop(other);
    serving.end();
}

#[test]
fn states_say_what_a_connection_does() {
    struct Full;

    impl Protocol for Full {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            match data {
                b"pause" => transport.pause_reading(),
                _ => transport.write(&vec![b'x'; 8 << 20]),
            }
            Ok(data.len())
        }
    }

    let config = Config {
        max_buffered: 64 << 20,
        ..timeless()
    };
    let mut config = config;
    (config.limits.max_output, config.limits.max_reply) = (16 << 20, 16 << 20);
    let server = bind(Model::EventLoop, LOOPBACK, config);
    let monitor = server.monitor().with_patience(PATIENCE);
    let server = ModelServer::with(Model::EventLoop, server, |_: &Peer| Some(Full));
    let state = || monitor.list(&Query::default()).connections[0].state;
    let await_state = |expected| {
        let begin = Instant::now();
        while state() != expected {
            assert!(begin.elapsed() < PATIENCE, "{expected:?} never came");
        }
    };

    let mut stream = server.client();
    await_snapshot(&monitor, |snapshot| snapshot.open == 1);
    assert_eq!(state(), ConnectionState::Open);
    stream.write_all(b"pause").unwrap();
    await_state(ConnectionState::Paused);
    drop(stream);
    monitor.end_all(&Query::default().in_state(ConnectionState::Paused));
    await_snapshot(&monitor, |snapshot| snapshot.open == 0);

    let mut stream = server.client();
    stream.write_all(b"much").unwrap();
    await_snapshot(&monitor, |snapshot| snapshot.open == 1);
    await_state(ConnectionState::Stalled);
    let held = monitor.list(&Query::default()).connections[0].held;
    assert!(held.unwrap() > 1 << 20, "{held:?}");
    assert_eq!(monitor.list(&Query::default().by(Order::Held)).found, 1);

    // An orderly end waits for the output to be taken, and an abort does not.
    let id = monitor.list(&Query::default()).connections[0].id();
    assert_eq!(monitor.abort(id), Ok(()));
    await_snapshot(&monitor, |snapshot| snapshot.open == 0);
    let mut taken = Vec::new();
    let end = stream.read_to_end(&mut taken).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    server.end();
}

#[test]
fn every_loop_of_several_is_asked() {
    let server = bind(Model::Workers, LOOPBACK, timeless());
    let monitor = server.monitor().with_patience(PATIENCE);
    assert_eq!(
        (monitor.snapshot().loops, monitor.snapshot().unanswered),
        (0, 0)
    );
    let server = ModelServer::with(Model::Workers, server, |_: &Peer| Some(Echo));
    let mut streams: Vec<_> = (0..40).map(|_| server.client()).collect();
    streams.iter_mut().for_each(|stream| echoes(stream, b"x"));
    let snapshot = await_snapshot(&monitor, |snapshot| snapshot.open == 40);
    assert_eq!((snapshot.loops, snapshot.listeners), (2, 2));
    assert_eq!(monitor.list(&Query::default()).found, 40);
    assert_eq!(monitor.end_all(&Query::default()), 40);
    for stream in &mut streams {
        assert_eq!(read_to(stream).1, End::Eof);
    }
    drop(streams);
    server.end();
}

#[test]
fn an_idle_loop_measures_its_lag() {
    let (server, monitor) = echo(Model::EventLoop, timeless());
    let begin = Instant::now();
    let snapshot = loop {
        let snapshot = monitor.snapshot();
        if snapshot.loop_lag.count() >= 3 {
            break snapshot;
        }
        assert!(begin.elapsed() < PATIENCE, "{snapshot:?}");
        thread::sleep(millis(20));
    };
    assert!(snapshot.loop_lag.sum() < PATIENCE);
    assert!(snapshot.turn_time.count() >= snapshot.loop_lag.count());
    server.end();
}

/// Outbound connections count, and one that is ended while it is established is told so.
#[test]
fn outbound_connections_are_in_the_equation() {
    struct Caller(Address, usize);

    impl Factory for Caller {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
            Some(Echo)
        }

        fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
            if self.1 > 0 {
                self.1 -= 1;
                actions.connect(self.0.clone(), Echo);
            }
        }
    }

    let (other, _) = echo(Model::EventLoop, timeless());
    let server = bind(Model::EventLoop, LOOPBACK, timeless());
    let monitor = server.monitor().with_patience(PATIENCE);
    let caller = Caller(other.addresses[0].clone(), 5);
    let serving = Serving::with_factory(server, caller);
    let snapshot = await_snapshot(&monitor, |it| it.statistics.connected == 5);
    assert_eq!(snapshot.open, 5);
    let outbound = monitor.list(&Query::default()).connections;
    assert!(outbound.iter().all(|it| it.peer.listener().is_none()));
    assert_eq!(monitor.end_all(&Query::default()), 5);
    await_snapshot(&monitor, |it| it.open == 0);
    serving.end();
    other.end();
}

#[test]
fn promtool_says_nothing() {
    if !require("promtool") {
        return;
    }
    let (server, monitor) = echo(Model::EventLoop, timeless());
    let mut stream = server.client();
    echoes(&mut stream, b"hello");
    let mut text = String::new();
    metrics::write(&monitor.snapshot(), &mut text).unwrap();

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    drop(stream);
    server.end();
}

#[test]
fn unix_sockets_are_listed_too() {
    let scratch = crate::support::Scratch::new();
    let uri = scratch.uri("unix", "echo");
    let server = bind(Model::EventLoop, &[&uri], timeless());
    let monitor = server.monitor().with_patience(PATIENCE);
    let server = ModelServer::with(Model::EventLoop, server, |_: &Peer| Some(Echo));
    let mut stream = connect(&server.addresses[0]);
    echoes(&mut stream, b"hello");
    let listed = monitor.list(&Query::default().from("unix".parse().unwrap()));
    assert_eq!(listed.found, 1);
    let local = listed.connections[0].local_address.clone();
    assert_eq!(local.map(|it| it.to_string()), Some(uri));
    drop(stream);
    server.end();
}
