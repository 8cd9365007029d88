//! Sessions of datagrams: one protocol for all datagrams of a peer, which can send at any time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serveloop::driver::Wake;
use serveloop::framing::{Framed, Lines};
use serveloop::net::{Event, Net};
use serveloop::protocols::{Echo, Hello};
use serveloop::service::Outbox;
use serveloop::service::monitor::Query;
use serveloop::{
    Actions, Address, Config, Factory, Limits, Listen, Peer, Protocol, ProtocolError, Reactor,
    Result, Server, Statistics, Transport, Waker,
};

use crate::support::namespace::is_inside;
use crate::support::probe::{Log, Probe};
use crate::support::{PATIENCE, Scratch, Serving, noise};

const SECOND: Duration = Duration::from_secs(1);

/// A network of datagrams in virtual time: a wait passes as soon as it has begun.
struct Letters {
    now: Instant,
    arrived: VecDeque<(Address, Vec<u8>)>,
    sent: Vec<(Address, Vec<u8>)>,
    /// How many more datagrams can be sent.
    room: usize,
    awaits_room: bool,
    error: Option<ErrorKind>,
    woken: Arc<AtomicBool>,
    waker: usize,
}

impl Net for Letters {
    type Stream = ();
    type Listener = ();
    type Datagram = ();

    fn now(&mut self) -> Instant {
        self.now
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let has_room = self.awaits_room && self.room > 0;
        if has_room || !self.arrived.is_empty() {
            self.awaits_room &= !has_room;
            events.push(Event {
                readable: !self.arrived.is_empty(),
                writable: has_room,
                ..Event::default()
            });
        } else if self.woken.swap(false, Ordering::Relaxed) {
            events.push(Event {
                token: self.waker,
                readable: true,
                ..Event::default()
            });
        } else if let Some(timeout) = timeout {
            self.now += timeout;
        }
        Ok(())
    }

    fn waker(&mut self, token: usize) -> io::Result<Box<dyn Wake>> {
        self.waker = token;
        let woken = Arc::clone(&self.woken);
        Ok(Box::new(move || woken.store(true, Ordering::Relaxed)))
    }

    fn bind(&mut self, at: &Address, _: &Config, _: usize) -> io::Result<((), Address)> {
        Ok(((), at.clone()))
    }

    fn receive(&mut self, (): &mut (), buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let (from, data) = self.arrived.pop_front().ok_or(ErrorKind::WouldBlock)?;
        buffer[..data.len()].copy_from_slice(&data);
        Ok((data.len(), from))
    }

    fn send(&mut self, (): &mut (), data: &[u8], to: &Address) -> io::Result<()> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        self.room = self.room.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        self.sent.push((to.clone(), data.to_vec()));
        Ok(())
    }

    fn await_room(&mut self, (): &mut ()) -> io::Result<()> {
        self.awaits_room = true;
        Ok(())
    }
}

fn address(host: u8, port: u16) -> Address {
    Address::Udp(([192, 0, 2, host], port).into())
}

fn config() -> Config {
    Config {
        sessions: true,
        ..Config::default()
    }
}

fn reactor<F: Factory>(factory: F, config: Config) -> Reactor<F, Letters> {
    let net = Letters {
        now: Instant::now(),
        arrived: VecDeque::new(),
        sent: Vec::new(),
        room: usize::MAX,
        awaits_room: false,
        error: None,
        woken: Arc::default(),
        waker: 0,
    };
    let mut reactor = Reactor::with_net(net, factory, config).unwrap();
    reactor
        .listen(&"udp://192.0.2.99:7".parse().unwrap())
        .unwrap();
    reactor
}

/// Delivers datagrams from one port after the other of one machine, and returns what is sent.
fn deliver<F: Factory>(
    reactor: &mut Reactor<F, Letters>,
    datagrams: &[(u16, &str)],
) -> Vec<(u16, String)> {
    for (port, text) in datagrams {
        let datagram = (address(1, *port), text.as_bytes().to_vec());
        reactor.net().arrived.push_back(datagram);
    }
    turns(reactor);
    sent(reactor)
}

fn turns<F: Factory>(reactor: &mut Reactor<F, Letters>) {
    for _ in 0..3 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
}

fn sent<F: Factory>(reactor: &mut Reactor<F, Letters>) -> Vec<(u16, String)> {
    let sent = std::mem::take(&mut reactor.net().sent);
    let text = |data| String::from_utf8(data).unwrap();
    let port = |address: &Address| address.socket_addr().unwrap().port();
    sent.iter()
        .map(|(to, data)| (port(to), text(data.clone())))
        .collect()
}

/// Counts the datagrams of its peer, and answers with what it counted.
fn counting(log: &Log) -> Probe {
    let mut count = 0;
    Probe::new(log).data(move |data, transport| {
        count += 1;
        assert!(!transport.is_one_shot());
        transport.write(count.to_string().as_bytes());
        Ok(data.len())
    })
}

fn own(pairs: &[(u16, &str)]) -> Vec<(u16, String)> {
    pairs
        .iter()
        .map(|(port, text)| (*port, (*text).to_owned()))
        .collect()
}

#[test]
fn each_peer_has_a_protocol_for_all_its_datagrams() {
    let log = Log::default();
    let shared = log.clone();
    let mut reactor = reactor(move |_: &Peer| Some(counting(&shared)), config());
    let all = [
        (2_000, "a"),
        (3_000, "b"),
        (2_000, "c"),
        (2_000, ""),
        (3_000, "d"),
    ];
    let expected = own(&[
        (2_000, "1"),
        (3_000, "1"),
        (2_000, "2"),
        (2_000, "3"),
        (3_000, "2"),
    ]);
    assert_eq!(deliver(&mut reactor, &all), expected);
    assert_eq!(reactor.sessions(), 2);
    assert_eq!(log.count("made"), 2);
    assert_eq!(log.count("eof"), 0);

    let statistics = *reactor.statistics();
    assert_eq!(statistics.datagram_sessions, 2);
    assert_eq!(statistics.datagrams_received, 5);
    assert_eq!(statistics.datagrams_sent, 5);
    assert_eq!(statistics.accepted, 0);
}

#[test]
fn one_port_of_two_machines_is_two_peers() {
    let log = Log::default();
    let mut reactor = reactor(move |_: &Peer| Some(counting(&log)), config());
    for host in [1, 2, 1] {
        reactor
            .net()
            .arrived
            .push_back((address(host, 2_000), b"x".to_vec()));
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    let texts: Vec<_> = sent(&mut reactor)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(texts, ["1", "1", "2"]);
}

#[test]
fn a_session_sends_at_any_time() {
    let due = Arc::<Mutex<Option<Instant>>>::default();
    let wakers = Arc::<Mutex<Vec<Waker>>>::default();
    let outboxes = Arc::<Mutex<Vec<Outbox>>>::default();
    let (polled, set, waked, boxes) = (due.clone(), due, wakers.clone(), outboxes.clone());

    let build = move |_: &Peer| {
        let (polled, set, after) = (polled.clone(), set.clone(), set.clone());
        let (waked, boxes) = (waked.clone(), boxes.clone());
        let probe = Probe::new(&Log::default())
            .data(move |data, transport| {
                *set.lock().unwrap() = Some(transport.now() + SECOND);
                waked.lock().unwrap().push(transport.waker());
                boxes.lock().unwrap().push(transport.outbox());
                Ok(data.len())
            })
            .poll(move || *polled.lock().unwrap())
            .timeout(move |transport| {
                *after.lock().unwrap() = None;
                transport.write(b"tick");
            })
            .woken(|transport| transport.write(b"woken"));
        Some(probe)
    };
    let mut reactor = reactor(build, config());
    assert_eq!(deliver(&mut reactor, &[(2_000, "begin now")]), []);

    reactor.turn(None).unwrap();
    assert_eq!(sent(&mut reactor), own(&[(2_000, "tick")]));

    wakers.lock().unwrap()[0].wake();
    turns(&mut reactor);
    assert_eq!(sent(&mut reactor), own(&[(2_000, "woken")]));

    let outbox = outboxes.lock().unwrap()[0].clone();
    for text in ["ab", "", "cd"] {
        outbox.post(text.as_bytes()).unwrap();
    }
    turns(&mut reactor);
    let texts: Vec<_> = sent(&mut reactor)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(
        texts
            .iter()
            .filter(|text| *text != "woken")
            .collect::<Vec<_>>(),
        ["ab", "", "cd"]
    );

    outbox.close();
    turns(&mut reactor);
    assert_eq!(reactor.sessions(), 0);
    assert!(outbox.post(b"late".as_slice()).is_err());
}

#[test]
fn what_is_written_in_one_event_is_one_datagram_unless_it_is_cut() {
    let build = |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.write(b"<");
            for word in data.split(|byte| *byte == b' ') {
                transport.write_datagram(word);
            }
            transport.write(b">");
            transport.write(b".");
            Ok(data.len())
        }))
    };
    let expected = own(&[
        (2_000, "<"),
        (2_000, "to"),
        (2_000, ""),
        (2_000, "be"),
        (2_000, ">."),
    ]);
    for sessions in [true, false] {
        let config = Config {
            sessions,
            reply_factor: 100,
            ..Config::default()
        };
        let mut reactor = reactor(build, config);
        assert_eq!(
            deliver(&mut reactor, &[(2_000, "to  be")]),
            expected,
            "{sessions}"
        );
    }
}

#[test]
fn silence_ends_a_session_and_is_no_failure() {
    let log = Log::default();
    let shared = log.clone();
    let limits = Limits {
        first_message_timeout: Some(2 * SECOND),
        idle_timeout: Some(10 * SECOND),
        ..Limits::default()
    };
    let mut reactor = reactor(
        move |_: &Peer| Some(counting(&shared)),
        Config { limits, ..config() },
    );
    let begin = reactor.net().now;

    // One who was heard once is forgotten sooner than one who came again.
    deliver(
        &mut reactor,
        &[(2_000, "once"), (3_000, "twice"), (3_000, "twice")],
    );
    while reactor.sessions() == 2 {
        reactor.turn(None).unwrap();
    }
    assert_eq!(reactor.net().now - begin, 2 * SECOND);
    while reactor.sessions() == 1 {
        reactor.turn(None).unwrap();
    }
    assert_eq!(reactor.net().now - begin, 10 * SECOND);

    assert_eq!(log.count("lost"), 2);
    let statistics = *reactor.statistics();
    assert_eq!(statistics.datagram_sessions_ended, 2);
    assert_eq!(statistics.datagrams_failed, 0);
    assert_eq!(
        deliver(&mut reactor, &[(2_000, "again")]),
        own(&[(2_000, "1")])
    );
}

#[test]
fn activity_in_either_direction_keeps_a_session() {
    let due = Arc::<Mutex<Option<Instant>>>::default();
    let build = move |_: &Peer| {
        let (polled, next, set) = (due.clone(), due.clone(), due.clone());
        let probe = Probe::new(&Log::default())
            .data(move |data, transport| {
                *set.lock().unwrap() = Some(transport.now() + 4 * SECOND);
                Ok(data.len())
            })
            .poll(move || *polled.lock().unwrap())
            .timeout(move |transport| {
                *next.lock().unwrap() = Some(transport.now() + 4 * SECOND);
                transport.write(b"+");
            });
        Some(probe)
    };
    let limits = Limits {
        idle_timeout: Some(5 * SECOND),
        ..Limits::default()
    };
    let mut reactor = reactor(build, Config { limits, ..config() });
    deliver(&mut reactor, &[(2_000, "subscribe"), (2_000, "to me")]);
    let begin = reactor.net().now;
    while reactor.net().now - begin < 15 * SECOND {
        reactor.turn(None).unwrap();
    }
    assert_eq!(reactor.sessions(), 1);
    assert_eq!(sent(&mut reactor).len(), 4);
}

#[test]
fn a_session_that_closes_is_followed_by_another() {
    let log = Log::default();
    let shared = log.clone();
    let build = move |_: &Peer| {
        Some(Probe::new(&shared).data(|data, transport| match data {
            b"error" => Err(ProtocolError::malformed("as asked")),
            b"panic" => std::panic::resume_unwind(Box::new("quietly")),
            b"abort" => {
                transport.write(b"lost");
                transport.abort();
                Ok(5)
            }
            _ => {
                transport.write(b"bye");
                transport.close();
                Ok(data.len())
            }
        }))
    };
    let mut reactor = reactor(build, config());
    let all = [
        (1_100, "close"),
        (1_100, "error"),
        (1_100, "panic"),
        (1_100, "abort"),
        (1_100, "x"),
    ];
    assert_eq!(
        deliver(&mut reactor, &all),
        own(&[(1_100, "bye"), (1_100, "bye")])
    );
    assert_eq!(reactor.sessions(), 0);
    assert_eq!(log.count("made"), 5);
    assert_eq!(log.count("lost"), 5);
    let statistics = *reactor.statistics();
    assert_eq!(
        (
            statistics.datagram_sessions,
            statistics.datagram_sessions_ended
        ),
        (5, 5)
    );
    assert_eq!((statistics.datagrams_failed, statistics.panics), (2, 1));
}

#[test]
fn new_peers_beyond_the_room_are_answered_once() {
    let log = Log::default();
    let build = move |_: &Peer| {
        Some(Probe::new(&log).data(|data, transport| {
            transport.write(if transport.is_one_shot() {
                b"one"
            } else {
                b"all"
            });
            Ok(data.len())
        }))
    };
    let mut reactor = reactor(
        build,
        Config {
            max_sessions: 4,
            ..config()
        },
    );

    // Those who were heard once get half of the room.
    let first = [(2_000, "..."), (2_001, "..."), (2_002, "...")];
    let expected = own(&[(2_000, "all"), (2_001, "all"), (2_002, "one")]);
    assert_eq!(deliver(&mut reactor, &first), expected);
    assert_eq!(reactor.sessions(), 2);

    // Those who return leave it to others, until all is taken.
    let next = [
        (2_000, "..."),
        (2_001, "..."),
        (2_003, "..."),
        (2_004, "..."),
        (2_005, "..."),
    ];
    let expected = own(&[
        (2_000, "all"),
        (2_001, "all"),
        (2_003, "all"),
        (2_004, "all"),
        (2_005, "one"),
    ]);
    assert_eq!(deliver(&mut reactor, &next), expected);
    assert_eq!(reactor.sessions(), 4);
    assert_eq!(reactor.statistics().datagram_sessions_refused, 2);

    // A thousand forged senders change nothing for those who are known.
    for number in 0..1_000_u16 {
        let [network, host] = number.to_be_bytes();
        let forged = Address::Udp(([198, 51, network, host], 5_000).into());
        reactor.net().arrived.push_back((forged, b"...".to_vec()));
    }
    while !reactor.net().arrived.is_empty() {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    sent(&mut reactor);
    assert_eq!(reactor.sessions(), 4);
    assert_eq!(
        deliver(&mut reactor, &[(2_000, "...")]),
        own(&[(2_000, "all")])
    );
}

#[test]
fn one_machine_has_no_more_sessions_than_connections() {
    let log = Log::default();
    let mut reactor = reactor(
        move |_: &Peer| Some(counting(&log)),
        Config {
            max_per_peer: 2,
            ..config()
        },
    );
    deliver(&mut reactor, &[(2_000, "a"), (2_001, "a"), (2_002, "a")]);
    assert_eq!(reactor.sessions(), 2);
    reactor
        .net()
        .arrived
        .push_back((address(2, 2_002), b"a".to_vec()));
    turns(&mut reactor);
    assert_eq!(reactor.sessions(), 3, "another machine has its own");
}

#[test]
fn an_address_that_is_not_confirmed_gets_three_times_what_it_sent() {
    let build = |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            if data == b"confirmed!" {
                transport.confirm_address();
            }
            for _ in 0..4 {
                transport.write_datagram(b"0123456789");
            }
            Ok(data.len())
        }))
    };
    let mut reactor = reactor(build, config());
    assert_eq!(deliver(&mut reactor, &[(2_000, "ten bytes.")]).len(), 3);
    assert_eq!(reactor.statistics().datagrams_amplified, 1);
    assert_eq!(deliver(&mut reactor, &[(2_000, "abc")]).len(), 0);
    assert_eq!(deliver(&mut reactor, &[(2_000, "confirmed!")]).len(), 4);
    assert_eq!(deliver(&mut reactor, &[(2_000, "a")]).len(), 4);
    assert_eq!(
        deliver(&mut reactor, &[(2_001, "a")]).len(),
        0,
        "another peer is not confirmed"
    );
}

#[test]
fn what_finds_no_room_is_sent_later_in_the_same_datagrams() {
    let log = Log::default();
    let mut reactor = reactor(move |_: &Peer| Some(counting(&log)), config());
    reactor.net().room = 1;
    assert_eq!(deliver(&mut reactor, &[(2_000, "a")]), own(&[(2_000, "1")]));
    assert_eq!(
        deliver(&mut reactor, &[(2_000, "b"), (2_000, "c"), (3_000, "d")]),
        []
    );
    assert!(reactor.net().awaits_room);
    assert!(reactor.buffered() > 0);

    reactor.net().room = 2;
    turns(&mut reactor);
    let first = sent(&mut reactor);
    assert_eq!(first.len(), 2);
    reactor.net().room = usize::MAX;
    turns(&mut reactor);
    let mut all = [first, sent(&mut reactor)].concat();
    all.sort();
    assert_eq!(all, own(&[(2_000, "2"), (2_000, "3"), (3_000, "1")]));
    assert_eq!(reactor.buffered(), 0);
    assert_eq!(reactor.statistics().datagrams_dropped, 0);
}

/// An empty datagram waits like any other, though no byte of output does.
#[test]
fn a_session_that_closes_still_sends_what_is_empty() {
    let build = |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.write_datagram(b"");
            transport.close();
            Ok(data.len())
        }))
    };
    let mut reactor = reactor(build, config());
    reactor.net().room = 0;
    assert_eq!(deliver(&mut reactor, &[(2_000, "a")]), []);
    assert_eq!(reactor.sessions(), 1);

    reactor.net().room = usize::MAX;
    turns(&mut reactor);
    assert_eq!(sent(&mut reactor), own(&[(2_000, "")]));
    assert_eq!(reactor.sessions(), 0);
}

#[test]
fn a_peer_that_cannot_be_reached_loses_its_datagrams_alone() {
    let log = Log::default();
    let mut reactor = reactor(move |_: &Peer| Some(counting(&log)), config());
    reactor.net().error = Some(ErrorKind::HostUnreachable);
    assert_eq!(deliver(&mut reactor, &[(2_000, "a"), (2_000, "b")]), []);
    assert_eq!(reactor.statistics().datagrams_dropped, 2);
    reactor.net().error = None;
    assert_eq!(deliver(&mut reactor, &[(2_000, "c")]), own(&[(2_000, "3")]));
}

#[test]
fn a_paused_session_loses_what_comes() {
    let build = |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.write(data);
            transport.pause_reading();
            Ok(1)
        }))
    };
    let mut reactor = reactor(build, config());
    assert_eq!(
        deliver(&mut reactor, &[(2_000, "ab"), (2_000, "cd")]),
        own(&[(2_000, "ab")])
    );
    assert_eq!(reactor.statistics().datagrams_dropped, 1);
}

#[test]
fn the_end_of_a_datagram_ends_its_last_line() {
    let lines = || Lines::new(80).accept_unterminated();
    let build = move |_: &Peer| Some(Framed::new(lines(), Hello::new(Duration::ZERO)));
    let mut reactor = reactor(build, config());
    let datagrams = [
        (2_000, "Ann Lee Long\nBo"),
        (2_000, "Catherine"),
        (2_000, "Daphne\n"),
    ];
    let expected = own(&[
        (2_000, "Hello,Ann Lee Long\nHello,Bo\n"),
        (2_000, "Hello,Catherine\n"),
        (2_000, "Hello,Daphne\n"),
    ]);
    assert_eq!(deliver(&mut reactor, &datagrams), expected);
    assert_eq!(reactor.sessions(), 1);
}

/// Ends, as a factory wants it, the session of one port and aborts that of another.
struct Ending {
    log: Log,
    ended: bool,
}

impl Factory for Ending {
    type Protocol = Probe;

    fn build_protocol(&mut self, _: &Peer) -> Option<Probe> {
        Some(Probe::new(&self.log))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Probe>) {
        let found: Vec<_> = actions
            .connections()
            .map(|open| {
                (
                    open.id(),
                    open.peer().address().socket_addr().unwrap().port(),
                )
            })
            .collect();
        if found.len() == 3 && !self.ended {
            self.ended = true;
            found
                .iter()
                .filter(|(_, port)| *port == 2_000)
                .for_each(|(id, _)| actions.end(*id));
            found
                .iter()
                .filter(|(_, port)| *port == 2_001)
                .for_each(|(id, _)| actions.abort(*id));
        }
    }
}

#[test]
fn a_factory_lists_and_ends_sessions() {
    let log = Log::default();
    let mut reactor = reactor(
        Ending {
            log: log.clone(),
            ended: false,
        },
        config(),
    );
    deliver(&mut reactor, &[(2_000, "a"), (2_001, "b"), (2_002, "c")]);
    turns(&mut reactor);
    assert_eq!(reactor.sessions(), 1);
    assert_eq!(log.count("shutdown"), 1);
    assert_eq!(log.count("lost aborted"), 1);
}

/// Retires when two sessions are open.
struct Retiring(Log);

impl Factory for Retiring {
    type Protocol = Probe;

    fn build_protocol(&mut self, _: &Peer) -> Option<Probe> {
        Some(Probe::new(&self.0).shutdown(|transport| {
            transport.write(b"moved");
            // One of them would like to stay.
            if transport
                .peer()
                .address()
                .socket_addr()
                .map(|addr| addr.port())
                == Some(2_000)
            {
                transport.close();
            }
        }))
    }

    fn service_actions(&mut self, actions: &mut Actions<'_, Probe>) {
        if actions.connections().count() == 2 {
            actions.retire();
        }
    }
}

/// Another process has the same socket, and is to get what comes.
#[test]
fn sessions_end_in_order_when_their_socket_is_left_to_others() {
    let log = Log::default();
    let mut reactor = reactor(Retiring(log.clone()), config());
    let said = deliver(&mut reactor, &[(2_000, "12345"), (3_000, "12345")]);
    assert_eq!(said, own(&[(2_000, "moved"), (3_000, "moved")]));
    assert_eq!(reactor.sessions(), 0);
    assert_eq!(reactor.addresses().count(), 0);
    assert_eq!(log.count("lost"), 2);
    assert_eq!(reactor.statistics().datagrams_failed, 0);
    assert!(reactor.is_finished());
}

#[test]
fn a_shutdown_lets_sessions_finish() {
    let log = Log::default();
    let shared = log.clone();
    let build = move |_: &Peer| {
        let probe = Probe::new(&shared)
            .data(|data, transport| {
                transport.write(b"last words");
                transport.close();
                Ok(data.len())
            })
            .shutdown(|transport| transport.write(b"going?"));
        Some(probe.made(|_| Ok(())))
    };
    let mut config = config();
    config.drain_timeout = Some(3 * SECOND);
    let mut reactor = reactor(build, config.clone());
    // The first datagram closes, so sessions begin by one that leaves it open.
    let open = |reactor: &mut Reactor<_, Letters>| {
        reactor
            .net()
            .arrived
            .push_back((address(1, 2_000), Vec::new()));
        turns(reactor);
    };
    open(&mut reactor);
    assert_eq!(reactor.sessions(), 0, "it closes at once");
    reactor.shutdown();
    reactor.run().unwrap();

    let shared = log.clone();
    let build = move |_: &Peer| {
        let probe = Probe::new(&shared).data(|data, transport| {
            if data == b"yes" {
                transport.write(b"bye");
                transport.close();
            }
            Ok(data.len())
        });
        Some(probe.shutdown(|transport| transport.write(b"ok?")))
    };
    let mut reactor = self::reactor(build, config);
    deliver(&mut reactor, &[(2_000, "hello"), (3_000, "hello")]);
    let begin = reactor.net().now;
    reactor.shutdown();
    turns(&mut reactor);
    assert_eq!(sent(&mut reactor), own(&[(2_000, "ok?"), (3_000, "ok?")]));

    // Only a peer that is known is heard.
    assert_eq!(
        deliver(&mut reactor, &[(2_000, "yes"), (4_000, "hello")]),
        own(&[(2_000, "bye")])
    );
    assert_eq!(reactor.sessions(), 1);
    assert!(!reactor.is_finished());
    reactor.run().unwrap();
    assert_eq!(reactor.net().now - begin, 3 * SECOND);
    assert_eq!(
        log.count("lost the drain took too long"),
        log.count("lost the drain")
    );
    assert_eq!(reactor.statistics().datagram_sessions_ended, 2);
}

#[test]
fn memory_is_bounded_for_all_sessions_together() {
    let build = |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.charge(data.len() * 100);
            Ok(data.len())
        }))
    };
    let mut config = config();
    config.max_buffered = 10_000;
    config.limits.max_output = 5_000;
    config.limits.high_water = 1_000;
    config.limits.low_water = 500;
    let mut reactor = reactor(build, config);
    deliver(
        &mut reactor,
        &[
            (2_000, "ten bytes. ten bytes. ten bytes."),
            (2_001, &"x".repeat(40)),
        ],
    );
    assert_eq!(reactor.sessions(), 2);
    assert_eq!(reactor.buffered(), 7_200);
    deliver(&mut reactor, &[(2_002, &"x".repeat(35))]);
    assert_eq!(
        reactor.sessions(),
        2,
        "the one that holds the most has ended"
    );
    assert_eq!(reactor.buffered(), 6_700);
}

fn client(to: &Address) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to.socket_addr().unwrap()).unwrap();
    socket
}

#[track_caller]
fn ask(socket: &UdpSocket, request: &[u8], reply: &[u8]) {
    socket.send(request).unwrap();
    let mut buffer = [0; 1_000];
    let count = socket.recv(&mut buffer).unwrap();
    assert_eq!(
        buffer[..count].escape_ascii().to_string(),
        reply.escape_ascii().to_string()
    );
}

#[test]
fn real_peers_have_sessions_on_every_kind_of_socket() {
    for uri in [
        "udp://127.0.0.1:0?sessions=true",
        "udp://0.0.0.0:0?sessions=true",
    ] {
        let log = Log::default();
        let server = Server::bind_with(&[uri.parse().unwrap()], Config::default()).unwrap();
        let serving = Serving::with(server, move |_: &Peer| Some(counting(&log)));
        let port = serving.addresses[0].socket_addr().unwrap().port();
        let to = Address::Udp(([127, 0, 0, 1], port).into());
        let (one, other) = (client(&to), client(&to));
        ask(&one, b"a", b"1");
        ask(&one, b"a", b"2");
        ask(&other, b"a", b"1");
        ask(&one, b"a", b"3");
        let statistics = serving.end();
        assert_eq!(statistics.datagram_sessions, 2, "{uri}");
        assert_eq!(statistics.datagram_sessions_ended, 2, "{uri}");
    }
}

#[test]
fn a_unix_peer_with_a_name_has_a_session() {
    let scratch = Scratch::new();
    let uri = format!(
        "unixgram://{}?sessions=true",
        scratch.path("server").display()
    );
    let log = Log::default();
    let server = Server::bind_with(&[uri.parse().unwrap()], Config::default()).unwrap();
    let serving = Serving::with(server, move |_: &Peer| Some(counting(&log)));
    let socket = std::os::unix::net::UnixDatagram::bind(scratch.path("client")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(scratch.path("server")).unwrap();
    for reply in [b"1", b"2"] {
        socket.send(b"x").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], reply[0]);
    }
    assert_eq!(serving.end().datagram_sessions, 1);
}

/// Says when a worker has begun.
#[derive(Clone)]
struct Begun(mpsc::Sender<()>);

impl Factory for Begun {
    type Protocol = Probe;

    fn build_protocol(&mut self, _: &Peer) -> Option<Probe> {
        Some(counting(&Log::default()))
    }

    fn started(&mut self, _: &mut Actions<'_, Probe>) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn a_peer_stays_with_its_worker() {
    let config = Config {
        reuse_port: true,
        ..config()
    };
    let server = Server::bind(&["udp://127.0.0.1:0".parse().unwrap()], config).unwrap();
    let (to, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
    let (sender, begun) = mpsc::channel();
    let served = std::thread::spawn(move || server.with(Begun(sender)).serve_workers(3));
    for _ in 0..3 {
        begun.recv_timeout(PATIENCE).unwrap();
    }

    let clients: Vec<_> = (0..12).map(|_| client(&to)).collect();
    for round in 1..=5 {
        for client in &clients {
            ask(client, b"x", round.to_string().as_bytes());
        }
    }
    handle.shutdown();
    assert_eq!(served.join().unwrap().unwrap().datagram_sessions, 12);
}

#[test]
fn models_without_sessions_refuse_them() {
    let listen = "udp://127.0.0.1:0?sessions=true".parse().unwrap();
    type Serve = fn(Server) -> io::Result<Statistics>;
    let models: [Serve; 3] = [
        |server| server.serve_sequential(|_: &Peer| Some(Echo)),
        |server| server.serve_threading(|_: &Peer| Some(Echo)),
        |server| server.serve_forking(|_: &Peer| Some(Echo)),
    ];
    for serve in models {
        let server = Server::bind_with(&[Listen::clone(&listen)], Config::default()).unwrap();
        let error = serve(server).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("need the event loop"), "{error}");
    }

    let scratch = Scratch::new();
    let uri = format!(
        "unixgram://{}?sessions=true",
        scratch.path("server").display()
    );
    let server = Server::bind_with(&[uri.parse().unwrap()], Config::default()).unwrap();
    let error = server.serve_workers(2, |_: &Peer| Some(Echo)).unwrap_err();
    assert!(
        error.to_string().contains("a session is served by one"),
        "{error}"
    );
}

#[test]
fn options_of_sessions_are_for_datagrams() {
    for (uri, problem) in [
        (
            "tcp://127.0.0.1:0?sessions=true",
            "sessions is for udp and unixgram",
        ),
        (
            "udp://127.0.0.1:0?idle-timeout=5s&sessions=false",
            "idle-timeout is for tcp, unix, vsock and datagrams with sessions=true",
        ),
        (
            "udp://127.0.0.1:0?sessions=true&message-timeout=5s",
            "message-timeout is for tcp, unix and vsock",
        ),
    ] {
        let error = uri.parse::<Listen>().unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    let uri = "udp://127.0.0.1:0?sessions=true&idle-timeout=5s";
    assert!(Server::bind_with(&[uri.parse().unwrap()], Config::default()).is_ok());

    // All listeners may have sessions, without a word in the URI.
    for key in ["first-message-timeout", "idle-timeout", "write-timeout"] {
        let uri = format!("udp://127.0.0.1:0?{key}=5s");
        let listen: Listen = uri.parse().unwrap();
        assert!(Server::bind_with(std::slice::from_ref(&listen), config()).is_ok());
        let error = Server::bind_with(&[listen], Config::default()).unwrap_err();
        let problem = format!("{key} is for tcp, unix, vsock and datagrams with sessions=true");
        assert!(error.to_string().contains(&problem), "{error}");
    }
}

/// Sessions belong to workers, so those who speak before the workers serve are theirs already.
#[test]
fn workers_that_are_bound_early_keep_who_speaks_early() {
    const WORKERS: usize = 4;
    let config = Config {
        reuse_port: true,
        ..config()
    };
    let mut server = Server::bind(&["udp://127.0.0.1:0".parse().unwrap()], config).unwrap();
    server.bind_workers(WORKERS).unwrap();
    let to = server.addresses()[0].clone();
    let clients: Vec<_> = (0..32).map(|_| client(&to)).collect();
    for client in &clients {
        client.send(b"early").unwrap();
    }

    let handle = server.shutdown_handle();
    let serving = thread::spawn(move || server.serve_workers(WORKERS, |_: &Peer| Some(Echo)));
    for client in &clients {
        let mut buffer = [0; 9];
        assert_eq!(client.recv(&mut buffer).unwrap(), 5);
        for _ in 0..3 {
            ask(client, b"later", b"later");
        }
    }
    handle.shutdown();
    let counted = serving.join().unwrap().unwrap();
    assert_eq!(counted.datagram_sessions, 32);
}

#[test]
fn fewer_workers_than_were_bound_serve_all_sockets() {
    let config = Config {
        reuse_port: true,
        ..config()
    };
    let mut server = Server::bind(&["udp://127.0.0.1:0".parse().unwrap()], config).unwrap();
    server.bind_workers(3).unwrap();
    server.bind_workers(3).unwrap();
    let serving = Serving::with(server, |_: &Peer| Some(Echo));
    // All of them stay: a port that is free again may be given to the next, which is then the same peer.
    let clients: Vec<_> = (0..16).map(|_| client(&serving.addresses[0])).collect();
    for client in &clients {
        ask(client, b"hello", b"hello");
    }
    assert_eq!(serving.end().datagram_sessions, 16);
}

#[test]
fn a_monitor_lists_and_ends_sessions() {
    let server = Server::bind(&["udp://127.0.0.1:0".parse().unwrap()], config()).unwrap();
    let monitor = server.monitor();
    let serving = Serving::with(server, |_: &Peer| Some(counting(&Log::default())));
    let (one, other) = (client(&serving.addresses[0]), client(&serving.addresses[0]));
    ask(&one, b"abc", b"1");
    ask(&one, b"abc", b"2");
    ask(&other, b"abc", b"1");

    let listed = monitor.list(&Query::default());
    assert_eq!(listed.connections.len(), 2);
    let busy = listed
        .connections
        .iter()
        .find(|open| open.received == Some(6));
    let busy = busy.expect("the first peer");
    assert_eq!(busy.sent, Some(2));
    assert!(busy.peer.is_datagram());
    assert_eq!(monitor.snapshot().datagram_sessions(), 2);

    monitor.abort(busy.peer.id()).unwrap();
    ask(&one, b"abc", b"1");
    ask(&other, b"abc", b"2");
    serving.end();
}

/// Sends, for each datagram that comes, many of one length and a shorter one.
struct Bulk(usize);

impl Protocol for Bulk {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.confirm_address();
        let bytes = noise(self.0 * 40 + self.0 / 2);
        bytes
            .chunks(self.0)
            .for_each(|piece| transport.write_datagram(piece));
        Ok(data.len())
    }
}

#[track_caller]
fn takes_bulk(uri: &str, host: &str, length: usize) {
    let server = Server::bind_with(&[uri.parse().unwrap()], config()).unwrap();
    let serving = Serving::with(server, move |_: &Peer| Some(Bulk(length)));
    let port = serving.addresses[0].socket_addr().unwrap().port();
    let client = UdpSocket::bind((host, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect((host, port)).unwrap();
    let expected = noise(length * 40 + length / 2);
    for _ in 0..3 {
        client.send(b"go").unwrap();
        let mut room = [0; 9_000];
        for piece in expected.chunks(length) {
            let count = client.recv(&mut room).unwrap();
            assert!(&room[..count] == piece, "{uri}: {count} bytes");
        }
    }
    let sent = 3 * expected.chunks(length).count() as u64;
    assert_eq!(serving.end().datagrams_sent, sent, "{uri}");
}

/// The system cuts them out of a piece where it can, and they arrive as they were written.
#[test]
fn datagrams_of_one_length_arrive_one_by_one() {
    for length in [1, 100, 600, 1_200, 1_600] {
        for (uri, host) in [
            ("udp://127.0.0.1:0", "127.0.0.1"),
            ("udp://[::1]:0", "::1"),
            ("udp://0.0.0.0:0", "127.0.0.1"),
            ("udp://:0", "::1"),
            ("udp://:0", "127.0.0.1"),
        ] {
            takes_bulk(uri, host, length);
        }
    }
}

/// What is longer than a packet is not cut by the system, but split.
#[test]
fn a_way_for_short_packets_is_no_obstacle() {
    const NAME: &str = "reactor::sessions::a_way_for_short_packets_is_no_obstacle";
    if is_inside(NAME, "ip link set lo up; ip link set lo mtu 600") {
        takes_bulk("udp://127.0.0.1:0", "127.0.0.1", 1_200);
    }
}
