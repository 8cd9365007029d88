//! The loop turned by hand: inside another poller, woken from threads, at rest when nothing moves.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serveloop::protocols::{Echo, Hello};
use serveloop::{Config, Factory, Peer, Protocol, Reactor, Server, Waker};

use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Serving, client, echoes, expect, millis, seconds, timeless};

fn listening<F: Factory>(config: Config, factory: F) -> (Reactor<F>, serveloop::Address) {
    let mut reactor = Reactor::new(factory, config).unwrap();
    let at = "tcp://127.0.0.1:0".parse().unwrap();
    let address = reactor.listen(&at).unwrap();
    (reactor, address)
}

#[test]
fn a_turn_without_work_lasts_as_long_as_it_may() {
    let (mut reactor, _) = listening(Config::default(), |_: &Peer| Some(Echo));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.timeout(), None);
    for wait in [millis(0), millis(30)] {
        let begin = Instant::now();
        reactor.turn(Some(wait)).unwrap();
        assert!(begin.elapsed() >= wait && begin.elapsed() < seconds(2));
    }
    assert_eq!(reactor.statistics().turns, 3);
}

/// A poller that watches a loop as any other descriptor.
struct Outer {
    poll: Poll,
    events: Events,
}

impl Outer {
    fn new(reactor: &impl AsRawFd) -> Self {
        let poll = Poll::new().unwrap();
        let descriptor = reactor.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&descriptor), Token(7), Interest::READABLE)
            .unwrap();
        Self {
            poll,
            events: Events::with_capacity(8),
        }
    }

    /// Whether the loop has something to do within `wait`.
    fn hears(&mut self, wait: Duration) -> bool {
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        !self.events.is_empty()
    }
}

#[test]
fn a_loop_sits_inside_another_one() {
    let (mut reactor, address) = listening(Config::default(), |_: &Peer| Some(Echo));
    let mut outer = Outer::new(&reactor);
    let thread = thread::spawn(move || {
        for _ in 0..20 {
            let mut stream = client(&address);
            echoes(&mut stream, b"one");
            echoes(&mut stream, &[2; 200_000]);
        }
    });
    while !thread.is_finished() {
        let wait = reactor.timeout().unwrap_or(PATIENCE).min(millis(50));
        if outer.hears(wait) || reactor.timeout().is_some_and(|wait| wait.is_zero()) {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    }
    thread.join().unwrap();
    assert_eq!(reactor.statistics().accepted, 20);
}

/// Nothing is due soon, and after what the system still had to say no event comes: the loop would
/// sleep. One that spins never stops being ready.
#[track_caller]
fn at_rest<F: Factory>(reactor: &mut Reactor<F>, state: &str) {
    let silent = |reactor: &mut Reactor<F>| {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let soon = reactor.timeout().is_some_and(|wait| wait < millis(50));
        !soon && !Outer::new(reactor).hears(millis(10))
    };
    assert!((0..20).any(|_| silent(reactor)), "{state}");
}

/// Turns until `done`, for clients that do not wait.
#[track_caller]
fn drive<F: Factory>(reactor: &mut Reactor<F>, done: impl Fn(&Reactor<F>) -> bool) {
    let begin = Instant::now();
    while !done(reactor) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", reactor.statistics());
        reactor.turn(Some(millis(10))).unwrap();
    }
}

#[test]
fn a_loop_sleeps_in_every_state_in_which_it_waits() {
    let paused = |_: &Peer| -> Option<Box<dyn Protocol>> {
        Some(Box::new(
            Probe::new(&Log::default())
                .data(|data, transport| match data[0] {
                    b'p' => {
                        transport.pause_reading();
                        Ok(1)
                    }
                    b'i' => Ok(0),
                    b'c' => {
                        transport.close();
                        Ok(1)
                    }
                    _ => {
                        transport.write(data);
                        Ok(data.len())
                    }
                })
                .eof(|_, _| Ok(())),
        ))
    };
    let (mut reactor, address) = listening(Config::default(), paused);
    at_rest(&mut reactor, "no connection");
    let silent = client(&address);
    drive(&mut reactor, |reactor| reactor.connections() == 1);
    at_rest(&mut reactor, "silent");
    let states: [(&str, bool); 6] = [
        ("paused with something unread", false),
        ("paused, and the peer has ended", true),
        ("incomplete", false),
        ("closed first, and lingering", false),
        ("half-closed, and nothing is said", true),
        ("echoed", false),
    ];
    let mut streams = Vec::new();
    for (state, end) in states {
        let mut stream = client(&address);
        stream.write_all(state.as_bytes()).unwrap();
        if end {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let before = reactor.statistics().bytes_read;
        drive(&mut reactor, |reactor| {
            reactor.statistics().bytes_read > before
        });
        at_rest(&mut reactor, state);
        streams.push(stream);
    }
    // Full output, and unread input.
    let glutton = client(&address);
    glutton.set_nonblocking(true).unwrap();
    let mut before = None;
    while before != Some(reactor.statistics().bytes_read) {
        before = Some(reactor.statistics().bytes_read);
        while (&glutton).write(&[b'.'; 50_000]).is_ok() {}
        for _ in 0..20 {
            reactor.turn(Some(millis(1))).unwrap();
        }
    }
    at_rest(&mut reactor, "full");
    assert_eq!(reactor.connections(), states.len() + 2);
    drop((silent, streams, glutton));
    // The paused ones hear of no end, and two others ignore it.
    drive(&mut reactor, |reactor| reactor.connections() == 4);
    at_rest(&mut reactor, "all gone");
}

#[test]
fn no_wake_is_lost() {
    const THREADS: usize = 4;
    const WAKES: usize = 2_500;
    let (sender, wakers) = mpsc::channel::<Waker>();
    let count = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&count);
    let serving = Serving::tcp(timeless(), move |_: &Peer| {
        let (sender, count) = (sender.clone(), Arc::clone(&shared));
        Some(
            Probe::new(&Log::default())
                .made(move |transport| {
                    let _ = sender.send(transport.waker());
                    Ok(())
                })
                .woken(move |transport| {
                    if count.load(Ordering::SeqCst) == THREADS * WAKES {
                        transport.write(b"all");
                        transport.close();
                    }
                }),
        )
    });
    let mut stream = serving.client();
    let waker = wakers.recv_timeout(PATIENCE).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (waker, count) = (waker.clone(), Arc::clone(&count));
            thread::spawn(move || {
                for _ in 0..WAKES {
                    count.fetch_add(1, Ordering::SeqCst);
                    waker.wake();
                }
            })
        })
        .collect();
    // The last count was followed by a wake, so the last call sees it.
    expect(&mut stream, b"all");
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    drop(stream);
    serving.end();
}

#[test]
fn each_wake_after_a_call_is_a_call() {
    let (sender, wakers) = mpsc::channel::<Waker>();
    let serving = Serving::tcp(timeless(), move |_: &Peer| {
        let sender = sender.clone();
        Some(
            Probe::new(&Log::default())
                .made(move |transport| {
                    let _ = sender.send(transport.waker());
                    Ok(())
                })
                .woken(|transport| transport.write(b"!")),
        )
    });
    let mut stream = serving.client();
    let waker = wakers.recv_timeout(PATIENCE).unwrap();
    for _ in 0..1_000 {
        waker.wake();
        expect(&mut stream, b"!");
    }
    drop(stream);
    serving.end();
}

/// A new connection in the same slot must not be woken for the old one.
#[test]
fn a_waker_does_not_outlive_its_connection() {
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let shared = Arc::clone(&wakers);
    let log = Log::default();
    let theirs = log.clone();
    let serving = Serving::tcp(timeless(), move |_: &Peer| {
        let wakers = Arc::clone(&shared);
        Some(Probe::new(&theirs).data(move |data, transport| {
            wakers.lock().unwrap().push(transport.waker());
            transport.write(data);
            Ok(data.len())
        }))
    });
    let mut first = serving.client();
    echoes(&mut first, b"x");
    drop(first);
    serving.wait(|statistics| statistics.closed() == 1);
    let mut second = serving.client();
    echoes(&mut second, b"x");
    let old = wakers.lock().unwrap()[0].clone();
    old.wake();
    echoes(&mut second, b"x");
    assert_eq!(log.count("woken"), 0);
    wakers.lock().unwrap()[1].wake();
    drop(second);
    serving.end();
    assert_eq!(log.count("woken"), 1);
}

#[test]
fn a_protocols_delay_costs_no_turns_while_it_runs() {
    let (mut reactor, address) =
        listening(Config::default(), |_: &Peer| Some(Hello::new(millis(100))));
    let mut stream = client(&address);
    stream.write_all(b"Ann").unwrap();
    let begin = Instant::now();
    let due = |reactor: &Reactor<_>| reactor.statistics().bytes_written == 17;
    while !due(&reactor) {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    let took = begin.elapsed();
    assert!(took >= millis(100) && took < seconds(2), "{took:?}");
    let turns = reactor.statistics().turns;
    assert!(turns < 12, "{turns} turns");
    expect(&mut stream, b"Welcome!Hello,Ann");
}

#[test]
fn a_server_can_be_turned_by_hand_too() {
    let addresses = ["tcp://127.0.0.1:0".parse().unwrap()];
    let server = Server::bind(&addresses, Config::default()).unwrap();
    let handle = server.shutdown_handle();
    let mut stream = client(&server.addresses()[0]);
    let mut reactor = server.into_reactor(|_: &Peer| Some(Echo)).unwrap();
    stream.write_all(b"hello").unwrap();
    drive(&mut reactor, |reactor| {
        reactor.statistics().bytes_written == 5
    });
    expect(&mut stream, b"hello");
    let mut outer = Outer::new(&reactor);
    outer.hears(Duration::ZERO);
    handle.shutdown();
    assert!(outer.hears(PATIENCE), "the handle rings inside the loop");
    assert!(!reactor.is_finished());
    drive(&mut reactor, |reactor| reactor.statistics().closed() == 1);
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    drop(stream);
    drive(&mut reactor, Reactor::is_finished);
}
