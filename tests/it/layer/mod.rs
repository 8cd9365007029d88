//! Protocols inside layers, after prefaces, and after other protocols.

mod end_marks;
mod identity;
mod layered;
mod prefaced;
mod proxied;
mod proxy_header;
mod rate_limits;
mod screens;
pub(crate) mod tls;
mod upgradable;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serveloop::layer::{
    Layer, Layered, Preface, Prefaced, Prelude, Received, Upgradable, Upgrade, Wire,
};
use serveloop::protocols::Echo;
use serveloop::testing::{Identity, MemorySession, Scrambled, SplitChecker};
use serveloop::{
    Address, CloseReason, Config, Deadline, Limits, Peer, Protocol, ProtocolError, Result,
    Transport, Waker,
};

use crate::support::model_protocols::{Any, PRODUCED, frame, producer, shout};
use crate::support::probe::{Log, Probe};
use crate::support::{millis, noise, panic_quietly, seconds, timeless};

const LAYER: fn() -> Scrambled = || Scrambled::new(9);

fn scrambled<P: Protocol>(protocol: P) -> MemorySession<impl Protocol> {
    MemorySession::with_config(Layered::around(LAYER(), protocol), timeless())
}

/// A probe inside a layer, that has received `plain` and then was ended by `events`.
#[track_caller]
fn entries(probe: impl FnOnce(Probe) -> Probe, plain: &[u8], ends: fn(&mut Inside)) -> Vec<String> {
    let log = Log::default();
    let layered = Layered::around(LAYER().with_end_mark(), probe(Probe::new(&log)));
    let mut session = MemorySession::with_config(layered, timeless());
    session.receive(&LAYER().seal(plain));
    ends(&mut session);
    session.run();
    log.entries()
}

type Inside = MemorySession<Layered<Scrambled, fn(&Peer, &()) -> Option<Probe>, Probe>>;

#[test]
fn answers_do_not_depend_on_how_the_wire_is_cut() {
    let messages = ["", "a", "some more", "b"].map(|text| LAYER().seal(&frame(text)));
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    SplitChecker::new(|| Layered::around(LAYER(), shout())).check(&messages);
    SplitChecker::new(|| Layered::around(LAYER(), Echo)).check(&messages);
    // A layer in a layer.
    SplitChecker::new(|| Layered::around(Identity, Layered::around(LAYER(), shout())))
        .stream()
        .check(&messages);
}

/// What waits must not be transformed again, whatever fits into the socket.
#[test]
fn a_slow_reader_gets_every_byte_once() {
    let mut session = scrambled(producer());
    session.take_in_steps(777);
    assert_eq!(session.sent(), LAYER().expect(&noise(PRODUCED)));

    let (long, layer) = (noise(4 << 20), LAYER());
    let config = Config {
        limits: Limits {
            high_water: 10_000,
            low_water: 5_000,
            ..timeless().limits
        },
        ..timeless()
    };
    let mut session = MemorySession::with_config(Layered::around(layer, Echo), config);
    session.stop_taking();
    for piece in layer.seal(&long).chunks(50_000) {
        session.receive(piece);
        session.take(1_001);
    }
    session.take_in_steps(3_000);
    assert!(session.sent() == layer.expect(&long));
}

/// As outside of a layer: a relay's peer may not take anything before it has sent everything.
#[test]
fn output_in_pieces_that_fit_never_stops_the_input() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write_some(&[b'x'; 100_000]);
        Ok(data.len())
    });
    let mut session = scrambled(probe);
    session.stop_taking();
    for part in ["a", "b", "c"] {
        session.receive(&LAYER().seal(part.as_bytes()));
    }
    assert_eq!(log.entries(), ["made", "data a", "data b", "data c"]);

    // What is written in full does stop it.
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write(&[b'x'; 100_000]);
        Ok(data.len())
    });
    let mut session = scrambled(probe);
    session.stop_taking();
    for part in ["a", "b", "c"] {
        session.receive(&LAYER().seal(part.as_bytes()));
    }
    assert_eq!(log.entries(), ["made", "data a"]);
    session.take_in_steps(1_000);
    assert_eq!(log.count("data"), 3);
}

#[test]
fn a_pause_inside_holds_the_wire_and_loses_nothing() {
    let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
    let given = Arc::clone(&wakers);
    let probe = Probe::new(&Log::default())
        .data(move |_, transport| {
            given.lock().unwrap().push(transport.waker());
            transport.pause_reading();
            Ok(1)
        })
        .woken(|transport| {
            transport.write(b".");
            transport.resume_reading();
        });

    let mut session = scrambled(probe);
    // Three messages in one unit, and one in each of two others.
    for part in ["abc", "d", "e"] {
        session.receive(&LAYER().seal(part.as_bytes()));
    }
    let mut sent = Vec::new();
    for count in 1..=5 {
        assert_eq!(wakers.lock().unwrap().len(), count);
        wakers.lock().unwrap()[count - 1].wake();
        session.run();
        sent.extend(session.sent());
        assert_eq!(sent, LAYER().expect(&b"....."[..count]));
    }
}

#[test]
fn many_messages_in_one_unit_take_several_turns() {
    struct Count(usize);
    impl Protocol for Count {
        fn data_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            self.0 += 1;
            transport.write(b".");
            Ok(1)
        }
    }

    let config = Config {
        messages_per_turn: 7,
        ..timeless()
    };
    let mut session = MemorySession::with_config(Layered::around(LAYER(), Count(0)), config);
    session.receive(&LAYER().seal(&[0; 1_000]));
    assert_eq!(session.sent(), LAYER().expect(&[b'.'; 1_000]));
}

#[test]
fn ends_move_up_and_are_told_once() {
    let eof: fn(&mut Inside) = |session| {
        session.receive(&LAYER().end_mark());
        session.receive_eof();
    };
    let closed = entries(|probe| probe, b"hi", eof);
    assert_eq!(
        closed,
        ["made", "data hi", "eof ", "lost closed by the peer"]
    );

    let cut = entries(|probe| probe, b"hi", MemorySession::receive_eof);
    let lost = "lost ended by the peer without the end mark of its layer";
    assert_eq!(cut, ["made", "data hi", lost]);

    let failed = entries(
        |probe| probe.data(|_, _| Err(ProtocolError::malformed("on purpose"))),
        b"hi",
        |_| {},
    );
    assert_eq!(
        failed[1..],
        ["data hi", "lost protocol error: malformed: on purpose"]
    );

    let panicked = entries(|probe| probe.data(|_, _| panic_quietly()), b"hi", |_| {});
    assert_eq!(panicked[1..], ["data hi", "lost the protocol panicked"]);

    let aborted = entries(
        |probe| {
            probe.data(|data, transport| {
                transport.write(b"never seen");
                transport.abort();
                Ok(data.len())
            })
        },
        b"hi",
        |_| {},
    );
    assert_eq!(aborted[1..], ["data hi", "lost aborted"]);
    let shut = entries(|probe| probe, b"hi", MemorySession::shutdown);
    assert_eq!(shut.last().unwrap(), "lost closed by the server's shutdown");
}

#[test]
fn the_wire_ends_with_the_mark_after_everything_written() {
    let layer = LAYER().with_end_mark();
    let mut session = MemorySession::new(Layered::around(layer, Echo));
    session.receive(&[layer.seal(b"hi"), layer.end_mark()].concat());
    assert_eq!(
        session.sent(),
        [layer.expect(b"hi"), layer.end_mark()].concat()
    );
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

#[test]
fn deadlines_inside_count_from_the_opening_and_by_messages() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(seconds(10)),
            message_timeout: Some(seconds(3)),
            idle_timeout: Some(seconds(60)),
            ..timeless().limits
        },
        ..timeless()
    };
    let begin = || MemorySession::with_config(Layered::around(LAYER(), shout()), config.clone());
    let reason = |session: &MemorySession<_>| session.reason().map(ToString::to_string);
    let late = |deadline| Some(CloseReason::TimedOut(deadline).to_string());

    // Complete units with an incomplete message do not move the deadline.
    let mut session = begin();
    for byte in &frame("one")[..5] {
        session.receive(&LAYER().seal(&[*byte]));
        session.advance(seconds(1));
    }
    session.advance(millis(4_999));
    assert_eq!(reason(&session), None);
    session.advance(millis(1));
    assert_eq!(reason(&session), late(Deadline::FirstMessage));

    let mut session = begin();
    session.receive(&LAYER().seal(&frame("one")));
    session.advance(seconds(59));
    session.receive(&LAYER().seal(&frame("two")[..3]));
    session.advance(millis(2_999));
    assert_eq!(reason(&session), None);
    session.advance(millis(1));
    assert_eq!(reason(&session), late(Deadline::Message));

    let mut session = begin();
    session.receive(&LAYER().seal(&frame("one")));
    session.advance(seconds(60));
    assert_eq!(reason(&session), late(Deadline::Idle));
}

/// Opens with a word, and greets.
struct Shy(bool);

impl Layer for Shy {
    type Info = &'static str;

    fn opened(&mut self) -> Option<&'static str> {
        self.0.then_some("shy")
    }

    fn received<'a>(&mut self, data: &'a [u8], wire: &mut Wire<'_>) -> Result<Received<'a>> {
        if self.0 {
            return Ok(Received::taken(data.len()).with_plain(data));
        }
        if data.len() < 5 {
            return Ok(Received::incomplete());
        }
        if !data.starts_with(b"hello") {
            wire.write(b"rude");
            return Err("no greeting".into());
        }
        self.0 = true;
        wire.write(b"welcome|");
        Ok(Received::taken(5))
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result {
        wire.write(plain);
        Ok(())
    }
}

#[test]
fn the_protocol_inside_is_made_when_the_layer_is_open() {
    let build = |_: &Peer, info: &&str| (*info == "shy").then_some(Echo);
    let begin = || MemorySession::with_config(Layered::new(Shy(false), build), Config::default());
    let mut session = begin();
    session.receive(b"he");
    session.receive(b"llo and more");
    assert_eq!(session.sent(), b"welcome| and more");

    let mut session = begin();
    session.receive(b"get lost");
    assert_eq!(session.sent(), b"rude");
    assert_eq!(
        session.reason().unwrap().to_string(),
        "protocol error: malformed: no greeting"
    );

    let mut session = begin();
    session.receive(b"he");
    session.advance(seconds(10));
    let reason = session.reason().unwrap();
    assert!(
        matches!(reason, CloseReason::TimedOut(Deadline::Handshake)),
        "{reason}"
    );

    let refuses = |_: &Peer, _: &&str| None::<Echo>;
    let mut session = MemorySession::new(Layered::new(Shy(false), refuses));
    session.receive(b"hello");
    assert!(matches!(session.reason(), Some(CloseReason::Refused)));

    let mut session = begin();
    session.receive(b"h");
    session.shutdown();
    assert!(matches!(session.reason(), Some(CloseReason::Shutdown)));
}

#[test]
fn what_waits_inside_is_charged() {
    let config = timeless();
    let layered = Layered::around(LAYER(), shout());
    let mut session = MemorySession::with_config(layered, config);
    assert_eq!(session.held(), 0);
    session.receive(&LAYER().seal(&frame("a longer message")[..12]));
    assert!((8..=100).contains(&session.held()), "{}", session.held());
    session.receive(&LAYER().seal(&frame("a longer message")[12..]));
    assert_eq!(session.held(), 0);
}

#[test]
fn a_panic_in_the_last_call_is_counted_outside() {
    let probe = |log: &Log| Probe::new(log).lost(|| panic_quietly());
    let log = Log::default();
    let mut session = MemorySession::new(Layered::around(LAYER(), probe(&log)));
    session.receive_eof();
    assert_eq!(log.count("lost"), 1);
}

/// A line with the client's address comes first.
struct From;

impl Preface for From {
    type Info = usize;

    fn read(&mut self, data: &[u8], _: &Peer) -> Result<Option<Prelude<usize>>> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&data[..end]);
        let client: Address = text.parse().map_err(|error| format!("{error}"))?;
        Ok(Some(Prelude {
            length: end + 1,
            client: Some(client),
            info: end,
        }))
    }
}

fn named(config: Config) -> MemorySession<impl Protocol> {
    let peer = Peer::new("tcp://192.0.2.1:80".parse().unwrap(), Some(0));
    let build = |peer: &Peer, _: &usize| -> Option<Any> {
        assert_eq!(peer.via().unwrap().to_string(), "tcp://192.0.2.1:80");
        (!peer.to_string().contains("9.9.9.9")).then(shout)
    };
    MemorySession::with_peer(Prefaced::new(From, build), config, peer)
}

#[test]
fn a_preface_names_the_peer_and_is_not_shown() {
    let mut session = named(timeless());
    for byte in [b"tcp://10.1.2.3:4\n", &frame("one")[..]].concat() {
        session.receive(&[byte]);
    }
    session.receive(&frame("two"));
    assert_eq!(session.sent(), [frame("ONE"), frame("TWO")].concat());
    session.receive(&frame("x")[..3]);
    session.receive_eof();
    assert_eq!(session.sent(), frame("bad"));

    let mut session = named(timeless());
    session.receive(b"tcp://9.9.9.9:4\n");
    assert!(matches!(session.reason(), Some(CloseReason::Refused)));
    let mut session = named(timeless());
    session.receive(b"nonsense\n");
    assert!(matches!(session.reason(), Some(CloseReason::Protocol(_))));
    let mut session = named(timeless());
    session.receive(b"tcp");
    session.receive_eof();
    let reason = session.reason().unwrap().to_string();
    assert!(reason.contains("truncated"), "{reason}");
}

#[test]
fn a_preface_and_the_first_message_share_a_deadline() {
    let config = Config {
        limits: Limits {
            first_message_timeout: Some(seconds(10)),
            message_timeout: Some(seconds(3)),
            ..timeless().limits
        },
        ..timeless()
    };
    let mut session = named(config);
    session.advance(seconds(9));
    session.receive(b"tcp://10.1.2.3:4\n");
    session.receive(&frame("one")[..4]);
    session.advance(millis(999));
    assert!(session.reason().is_none());
    session.advance(millis(1));
    let reason = session.reason().unwrap();
    assert!(
        matches!(reason, CloseReason::TimedOut(Deadline::FirstMessage)),
        "{reason}"
    );
}

#[test]
fn a_preface_does_not_count_towards_the_longest_message() {
    let config = Config {
        limits: Limits {
            max_frame: 16,
            ..timeless().limits
        },
        ..timeless()
    };
    let mut session = named(config);
    let client = format!("unix:///{}\n", "x".repeat(90));
    session.receive(client.as_bytes());
    session.receive(&frame("sixteen letters.")[..19]);
    session.receive(&frame("sixteen letters.")[19..]);
    assert_eq!(session.sent(), frame("SIXTEEN LETTERS."));
}

/// Takes words, and hands over after the word `go`.
struct Words {
    goes: bool,
    at: Option<std::time::Instant>,
}

impl Words {
    fn new() -> Self {
        Self {
            goes: false,
            at: None,
        }
    }
}

impl Protocol for Words {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data.iter().position(|byte| *byte == b' ') {
            Some(2) if data.starts_with(b"go") => self.goes = true,
            Some(5) if data.starts_with(b"later") => self.at = Some(transport.now()),
            Some(end) => transport.write(&data[..end]),
            None => return Ok(0),
        }
        Ok(data.iter().position(|byte| *byte == b' ').unwrap() + 1)
    }

    fn poll_timeout(&self) -> Option<std::time::Instant> {
        self.at.map(|at| at + Duration::from_secs(1))
    }

    fn handle_timeout(&mut self, _: &mut Transport<'_>) {
        self.at = None;
        self.goes = true;
    }
}

impl Upgrade for Words {
    type Next = Any;

    fn take_next(&mut self) -> Option<Any> {
        self.goes.then(shout)
    }
}

#[test]
fn an_upgrade_keeps_unread_bytes_in_order() {
    let input = [b"one two go ", &frame("x")[..], &frame("y")].concat();
    SplitChecker::new(|| Upgradable::new(Words::new()))
        .stream()
        .check(&[&input]);

    let mut session = MemorySession::new(Upgradable::new(Words::new()));
    session.receive(b"hi later ");
    // Nothing of this is a word: it waits for the next protocol.
    session.receive(&frame("x"));
    assert_eq!(session.sent(), b"hi");
    session.advance(seconds(1));
    assert_eq!(session.sent(), frame("X"));
}

/// Like `Words`, before a layer.
struct Careful(Words);

impl Protocol for Careful {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0.data_received(data, transport)
    }
}

impl Upgrade for Careful {
    type Next = Layered<Scrambled, fn(&Peer, &()) -> Option<Echo>, Echo>;
    const MAY_FOLLOW_AT_ONCE: bool = false;

    fn take_next(&mut self) -> Option<Self::Next> {
        self.0.goes.then(|| Layered::around(LAYER(), Echo))
    }
}

#[test]
fn a_connection_can_continue_in_a_layer_if_nothing_came_before_it() {
    let mut session = MemorySession::new(Upgradable::new(Careful(Words::new())));
    session.receive(b"go ");
    session.receive(&LAYER().seal(b"hello"));
    assert_eq!(session.sent(), LAYER().expect(b"hello"));

    let mut session = MemorySession::new(Upgradable::new(Careful(Words::new())));
    session.receive(b"go injected");
    assert!(matches!(session.reason(), Some(CloseReason::Protocol(_))));
}
