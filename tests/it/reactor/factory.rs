//! The hooks of a factory: the beginning, its own time, and whom the loop refuses.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serveloop::protocols::Echo;
use serveloop::server::Refusal;
use serveloop::{Actions, Config, Factory, Peer, Reactor, Server};

use crate::support::{Serving, client, echoes, millis, panic_quietly, timeless};

/// Writes down its calls, and ticks a few times.
#[derive(Clone, Default)]
struct Diary {
    calls: Arc<Mutex<Vec<String>>>,
    next: Option<Instant>,
    every: Duration,
    ticks: u32,
    /// Panics in each hook.
    panics: bool,
}

impl Diary {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
        if self.panics {
            panic_quietly();
        }
    }

    fn entries(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

impl Factory for Diary {
    type Protocol = Echo;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Echo> {
        self.note(format!("build {}", peer.id() > 0));
        Some(Echo)
    }

    fn handle_refusal(&mut self, _: &Peer, why: Refusal) {
        self.note(format!("refused: {why:?}"));
    }

    fn started(&mut self, actions: &mut Actions<'_, Echo>) {
        self.next = (self.ticks > 0).then(|| actions.now() + self.every);
        self.note("started");
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn handle_timeout(&mut self, actions: &mut Actions<'_, Echo>) {
        assert!(self.next.is_some_and(|at| at <= actions.now()), "too early");
        self.ticks -= 1;
        self.next = (self.ticks > 0).then(|| actions.now() + self.every);
        self.note("tick");
    }
}

/// With nothing else to do, a loop goes on as long as its factory has a moment to wait for.
#[test]
fn a_factory_has_a_time_of_its_own() {
    let diary = Diary {
        every: millis(2),
        ticks: 3,
        ..Diary::default()
    };
    let began = Instant::now();
    let mut reactor = Reactor::new(diary.clone(), Config::default()).unwrap();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.run().unwrap();
    assert_eq!(diary.entries(), ["started", "tick", "tick", "tick"]);
    assert!(began.elapsed() >= millis(6));
}

/// A moment that stays in the past is not a loop without a wait.
#[test]
fn a_moment_that_does_not_move_comes_again_a_little_later() {
    struct Stuck(Instant, u32);

    impl Factory for Stuck {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
            None
        }

        fn poll_timeout(&self) -> Option<Instant> {
            Some(self.0)
        }

        fn handle_timeout(&mut self, actions: &mut Actions<'_, Echo>) {
            self.1 += 1;
            if self.1 == 5 {
                actions.shutdown();
            }
        }
    }

    let began = Instant::now();
    let mut reactor = Reactor::new(Stuck(began, 0), timeless()).unwrap();
    reactor.run().unwrap();
    assert_eq!(reactor.factory().1, 5);
    assert!(began.elapsed() >= millis(4));
    assert!(
        reactor.statistics().turns < 50,
        "{}",
        reactor.statistics().turns
    );
}

#[test]
fn a_refused_peer_is_told_of() {
    let diary = Diary::default();
    let config = Config {
        max_connections: 3,
        max_per_peer: 2,
        limit_loopback: true,
        ..timeless()
    };
    let serving = Serving::tcp_with_factory(config, diary.clone());
    let mut kept = [serving.client(), serving.client()];
    kept.iter_mut().for_each(|stream| echoes(stream, b"hello"));
    let mut refused = serving.client();
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    serving.wait(|statistics| statistics.refused_max_per_peer == 1);
    drop(kept);
    serving.end();
    let expected = ["started", "build true", "build true", "refused: MaxPerPeer"];
    assert_eq!(diary.entries(), expected);
}

#[test]
fn too_many_connections_are_told_of() {
    let diary = Diary::default();
    let config = Config {
        max_connections: 1,
        ..timeless()
    };
    let serving = Serving::tcp_with_factory(config, diary.clone());
    let mut kept = serving.client();
    echoes(&mut kept, b"hello");
    let mut refused = serving.client();
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    serving.wait(|statistics| statistics.refused_max_connections == 1);
    drop(kept);
    serving.end();
    assert_eq!(diary.entries().last().unwrap(), "refused: MaxConnections");
}

/// Panics in the hooks are counted, and change nothing else.
#[test]
fn a_factory_that_panics_goes_on() {
    let diary = Diary {
        every: millis(1),
        ticks: 2,
        panics: true,
        ..Diary::default()
    };
    let server = Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], timeless()).unwrap();
    let (handle, address) = (server.shutdown_handle(), server.addresses()[0].clone());
    let entries = diary.clone();
    let thread = std::thread::spawn(move || server.with(diary).serve_forever().unwrap());

    let mut refused = client(&address);
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    let is_over = || entries.entries().iter().filter(|it| *it == "tick").count() == 2;
    while !is_over() {
        std::thread::yield_now();
    }
    handle.shutdown();
    let statistics = thread.join().unwrap();
    assert_eq!(
        statistics.panics, 5,
        "started, build, refused, and two ticks"
    );
    assert_eq!(statistics.refused_by_panic, 1);
    assert!(entries.entries().contains(&"refused: Panicked".to_owned()));
}

#[test]
fn a_panic_when_it_is_asked_for_its_time_is_counted() {
    struct Broken;

    impl Factory for Broken {
        type Protocol = Echo;

        fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
            None
        }

        fn poll_timeout(&self) -> Option<Instant> {
            panic_quietly()
        }
    }

    let mut reactor = Reactor::new(Broken, timeless()).unwrap();
    for turns in 1..=3 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(reactor.statistics().panics >= turns);
    }
}
