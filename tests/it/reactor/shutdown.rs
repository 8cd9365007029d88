//! The ways to stop a server, and what connected clients get before it ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::framing::{Framed, Lines};
use serveloop::protocols::{Echo, Hello};
use serveloop::service::monitor::Query;
use serveloop::{Actions, Config, Factory, Limits, Peer, Server, ShutdownHandle};

use crate::support::model_server::{Model, ModelServer};
use crate::support::probe::{Log, Probe};
use crate::support::{
    PATIENCE, Serving, client, echoes, expect, millis, noise, read_to_end, seconds,
};

fn bind(config: Config) -> Server {
    Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], config).unwrap()
}

/// Takes no notice of a shutdown.
fn stubborn(log: &Log) -> Probe {
    Probe::new(log).shutdown(|_| ()).data(|data, transport| {
        transport.write(data);
        Ok(data.len())
    })
}

#[test]
fn from_another_thread() {
    let serving = Serving::tcp(Config::default(), |_: &Peer| Some(Echo));
    let mut stream = serving.client();
    echoes(&mut stream, b"hello");
    let handle = serving.handle.clone();
    thread::spawn(move || handle.shutdown()).join().unwrap();
    assert_eq!(read_to_end(&mut stream), b"");
    drop(stream);
    let handle = serving.handle.clone();
    let at = serving.addresses[0].socket_addr().unwrap();
    let mut serving = serving;
    assert_eq!(serving.join().closed_by_shutdown, 1);
    assert_eq!(handle.requests(), 1);
    let error = TcpStream::connect(at).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    handle.shutdown();
}

#[test]
fn a_wake_ends_one_wait_and_nothing_else() {
    let server = bind(Config::default());
    let handle = server.shutdown_handle();
    let mut reactor = server.with(|_: &Peer| Some(Echo)).into_reactor().unwrap();
    // The first turn looks at the listeners, and does not wait.
    reactor.turn(Some(Duration::ZERO)).unwrap();

    for wakes in [1, 2, 10_000] {
        (0..wakes).for_each(|_| handle.wake());
        let begin = Instant::now();
        reactor.turn(Some(PATIENCE)).unwrap();
        assert!(begin.elapsed() < PATIENCE, "{wakes} wakes");

        let begin = Instant::now();
        reactor.turn(Some(millis(50))).unwrap();
        assert!(begin.elapsed() >= millis(50), "{wakes} wakes");
    }

    assert_eq!(handle.requests(), 0);
    assert!(!reactor.is_finished());
    handle.wake();
    handle.shutdown();
    reactor.run().unwrap();
}

/// The wake is all that could make the loop call its factory.
#[test]
fn a_wake_makes_the_loop_call_its_factory_in_every_model() {
    #[derive(Clone)]
    struct Flagged(Arc<AtomicBool>);

    impl Factory for Flagged {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
            Some(Echo)
        }

        fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
            if self.0.load(Ordering::SeqCst) {
                actions.shutdown();
            }
        }
    }

    for model in Model::ALL {
        for wait in [millis(0), millis(100)] {
            let config = Config {
                reuse_port: model == Model::Workers,
                ..Config::default()
            };
            let server = bind(config);
            let handle = server.shutdown_handle();
            let flag = Arc::new(AtomicBool::new(false));
            let set = Arc::clone(&flag);
            let setting = thread::spawn(move || {
                thread::sleep(wait);
                set.store(true, Ordering::SeqCst);
                handle.wake();
            });
            model.serve(server, Flagged(flag)).unwrap();
            setting.join().unwrap();
        }
    }
}

#[test]
fn from_inside_a_handler() {
    let server = bind(Config::default());
    let handle = server.shutdown_handle();
    let mut serving = Serving::with(server, move |_: &Peer| {
        let handle = handle.clone();
        Some(Probe::new(&Log::default()).data(move |data, transport| {
            transport.write(b"stopping");
            handle.shutdown();
            Ok(data.len())
        }))
    });
    let mut stream = serving.client();
    stream.write_all(b"stop").unwrap();
    assert_eq!(read_to_end(&mut stream), b"stopping");
    drop(stream);
    assert_eq!(serving.join().closed_by_shutdown, 1);
}

#[test]
fn from_the_factory() {
    struct Impatient(bool);
    impl Factory for Impatient {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
            Some(Echo)
        }

        fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
            if actions.statistics().accepted == 1 && !self.0 {
                self.0 = true;
                actions.shutdown();
            }
        }
    }
    let mut serving = Serving::tcp_with_factory(Config::default(), Impatient(false));
    assert_eq!(read_to_end(&mut serving.client()), b"");
    assert_eq!(serving.join().closed_by_shutdown, 1);
}

/// A first message that is still on its way when the shutdown begins is answered, in every model.
#[test]
fn a_first_message_that_is_on_its_way_is_answered() {
    for model in Model::ALL {
        let config = Config {
            drain_grace: seconds(60),
            drain_timeout: Some(seconds(120)),
            ..Config::default()
        };
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], config, |_: &Peer| Some(Echo));
        let mut late = server.client();
        server.handle.shutdown();
        late.write_all(b"hello").unwrap();
        assert_eq!(read_to_end(&mut late), b"hello", "{model:?}");
        assert_eq!(server.end().closed_by_shutdown, 1, "{model:?}");
    }
}

#[test]
fn a_shutdown_does_not_wait_for_a_first_message_longer_than_the_grace() {
    for model in Model::ALL {
        let config = Config {
            drain_grace: millis(50),
            drain_timeout: None,
            ..Config::default()
        };
        let server = ModelServer::new(model, &["tcp://127.0.0.1:0"], config, |_: &Peer| Some(Echo));
        let mut silent = server.client();
        server.handle.shutdown();
        assert_eq!(read_to_end(&mut silent), b"", "{model:?}");
        assert_eq!(server.end().closed_by_shutdown, 1, "{model:?}");
    }
}

/// Clients that connected before the shutdown are served, although they were not accepted yet.
#[test]
fn before_serving_those_in_the_queue_are_served() {
    const QUEUED: usize = 50;
    let server = bind(Config::default());
    let mut streams: Vec<_> = (0..QUEUED)
        .map(|_| client(&server.addresses()[0]))
        .collect();
    for stream in &mut streams {
        stream.write_all(b"hello").unwrap();
    }
    server.shutdown_handle().shutdown();
    let mut serving = Serving::with(server, |_: &Peer| Some(Echo));
    for mut stream in streams {
        assert_eq!(read_to_end(&mut stream), b"hello");
    }
    assert_eq!(serving.join().closed_by_shutdown, QUEUED as u64);
}

#[test]
fn before_serving_with_nobody_there() {
    let server = bind(Config::default());
    server.shutdown_handle().shutdown();
    server.shutdown_handle().shutdown();
    let statistics = server.serve_forever(|_: &Peer| Some(Echo)).unwrap();
    assert_eq!(statistics.accepted, 0);
}

#[test]
fn twice_ends_everything_at_once() {
    let log = Log::default();
    let shared = log.clone();
    let mut serving = Serving::tcp(Config::default(), move |_: &Peer| Some(stubborn(&shared)));
    let mut stream = serving.client();
    echoes(&mut stream, b"hello");
    serving.handle.shutdown();
    // The drain lets a stubborn protocol go on.
    let begin = Instant::now();
    while log.count("shutdown") == 0 {
        assert!(begin.elapsed() < PATIENCE);
        echoes(&mut stream, b"still there?");
    }
    echoes(&mut stream, b"still there?");
    serving.handle.shutdown();
    let error = stream.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(serving.join().closed_timeout_drain, 1);
    let last = log.entries().pop().unwrap();
    assert!(last.starts_with("lost timed out: not finished"), "{last}");
}

#[test]
fn a_drain_waits_for_replies_that_are_due() {
    let mut serving = Serving::tcp(Config::default(), |_: &Peer| {
        Some(Framed::new(Lines::new(99), Hello::new(millis(200))))
    });
    let mut asking = serving.client();
    let mut idle = serving.client();
    asking.write_all(b"Ann\n").unwrap();
    expect(&mut asking, b"Welcome!\n");
    expect(&mut idle, b"Welcome!\n");
    serving.handle.shutdown();
    let begin = Instant::now();
    assert_eq!(read_to_end(&mut idle), b"");
    let idled = begin.elapsed();
    assert_eq!(read_to_end(&mut asking), b"Hello,Ann\n");
    assert!(idled < begin.elapsed(), "who is owed nothing goes first");
    drop((asking, idle));
    assert_eq!(serving.join().closed_by_shutdown, 2);
}

#[test]
fn a_drain_has_an_end() {
    let config = Config {
        drain_timeout: Some(millis(150)),
        ..Config::default()
    };
    let mut serving = Serving::tcp(config, |_: &Peer| Some(stubborn(&Log::default())));
    let mut stream = serving.client();
    echoes(&mut stream, b"hello");
    let begin = Instant::now();
    serving.handle.shutdown();
    let error = stream.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(serving.join().closed_timeout_drain, 1);
    let took = begin.elapsed();
    assert!(took >= millis(150) && took < seconds(2), "{took:?}");
}

/// Clients that never end their side cost the shutdown a moment, not the whole linger timeout.
#[test]
fn idle_clients_do_not_hold_up_a_shutdown() {
    let config = Config {
        limits: Limits {
            linger_draining: millis(50),
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut serving = Serving::tcp(config, |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            if data == b"bye" {
                transport.close();
            }
            transport.write(data);
            Ok(data.len())
        }))
    });
    let mut streams: Vec<_> = (0..10).map(|_| serving.client()).collect();
    for stream in &mut streams {
        echoes(stream, b"hello");
    }
    // This one lingers already when the shutdown comes.
    streams[0].write_all(b"bye").unwrap();
    assert_eq!(read_to_end(&mut streams[0]), b"");
    let begin = Instant::now();
    serving.handle.shutdown();
    assert_eq!(serving.join().closed_by_shutdown, 9);
    let took = begin.elapsed();
    assert!(took < seconds(2), "{took:?}");
}

/// A connection that was ended by itself before waits for its peer no longer than all others.
#[test]
fn nor_does_a_client_that_was_asked_to_leave_before() {
    let server = bind(Config::default());
    let monitor = server.monitor().with_patience(PATIENCE);
    let mut serving = Serving::with(server, |_: &Peer| Some(Echo));
    let mut stream = serving.client();
    echoes(&mut stream, b"hello");
    let open = monitor.list(&Query::default()).connections;
    assert_eq!(monitor.end(open[0].id()), Ok(()));
    assert_eq!(read_to_end(&mut stream), b"");

    // It waits for up to 5 s, by default, and in a shutdown for a quarter of one.
    let begin = Instant::now();
    serving.handle.shutdown();
    assert_eq!(serving.join().closed_by_shutdown, 1);
    assert!(begin.elapsed() < seconds(3), "{:?}", begin.elapsed());
    drop(stream);
}

#[test]
fn what_had_arrived_is_answered_first() {
    let config = Config {
        read_per_turn: 8_000,
        ..Config::default()
    };
    let server = bind(config);
    let mut stream = client(&server.addresses()[0]);
    // Little enough to lie in the server's receive buffer at once, and much more than one turn's.
    let request = noise(50_000);
    stream.write_all(&request).unwrap();
    server.shutdown_handle().shutdown();
    let mut serving = Serving::with(server, |_: &Peer| Some(Echo));
    assert!(read_to_end(&mut stream) == request);
    drop(stream);
    assert_eq!(serving.join().closed_by_shutdown, 1);
}

#[test]
fn a_handle_without_a_loop_does_no_harm() {
    let handle = ShutdownHandle::new().unwrap();
    for _ in 0..100_000 {
        handle.shutdown();
    }
    assert_eq!(handle.requests(), 100_000);
}

/// A connection whose protocol takes no notice of a shutdown would hold up a drain.
#[test]
fn an_abort_ends_what_a_drain_would_wait_for() {
    for requests_before in 0..3 {
        let log = Log::default();
        let told = log.clone();
        let config = Config {
            drain_timeout: None,
            ..Config::default()
        };
        let mut serving = Serving::tcp(config, move |_: &Peer| Some(stubborn(&told)));
        let mut stream = serving.client();
        echoes(&mut stream, b"hello");

        let handle = serving.handle.clone();
        (0..requests_before).for_each(|_| handle.shutdown());
        handle.abort();
        assert!(handle.requests() >= 2);
        assert_eq!(serving.join().closed_timeout_drain, 1);
    }
}
