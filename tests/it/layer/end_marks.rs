//! The end mark of a layer: with which ends the peer sees it, and with which it must not.

use serveloop::layer::{
    Event, Layered, Observed, Prefaced, RateLimit, RateLimited, Upgradable, Upgrade,
};
use serveloop::testing::{MemorySession, Scrambled};
use serveloop::{CloseReason, Config, Deadline, Limits, Peer, Protocol, Result, Transport};

use super::From;
use crate::support::probe::{Log, Probe};
use crate::support::{millis, seconds, timeless};

const LAYER: fn() -> Scrambled = || Scrambled::new(9).with_end_mark();

/// Takes all bytes, except that `(` waits for its `)`. `k` keeps too much memory, `w` writes.
struct Words;

impl Protocol for Words {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data[0] {
            b'(' if data.last() != Some(&b')') => return Ok(0),
            b'k' => transport.charge(1 << 30),
            b'w' => transport.write(b"written"),
            b'a' => transport.abort(),
            b'p' => panic!("as asked"),
            b'c' => transport.close(),
            b'e' => return Err("as asked".into()),
            _ => {}
        }
        Ok(data.len())
    }
}

fn deadlines() -> Config {
    Config {
        limits: Limits {
            first_message_timeout: Some(seconds(1)),
            message_timeout: Some(seconds(2)),
            idle_timeout: Some(seconds(5)),
            write_timeout: Some(seconds(3)),
            ..timeless().limits
        },
        ..timeless()
    }
}

/// Lets `act` happen to a connection, and then time pass. Returns what its client got since, and the
/// reason for the end.
fn ended<P: Protocol>(
    protocol: P,
    config: Config,
    act: impl FnOnce(&mut MemorySession<P>),
) -> (Vec<u8>, String) {
    let mut session = MemorySession::with_config(protocol, config);
    act(&mut session);
    for _ in 0..60 {
        session.advance(millis(100));
    }
    let reason = session.reason().expect("an end").to_string();
    (session.sent(), reason)
}

fn layered() -> impl Protocol {
    Layered::around(LAYER(), Words)
}

#[test]
fn deadlines_and_shedding_end_with_the_mark() {
    for (sent, unsealed, reason) in [
        (&b""[..], &b""[..], Deadline::FirstMessage),
        (b"x", b"", Deadline::Idle),
        // Of the session inside, and of a unit.
        (b"x(", b"", Deadline::Message),
        (b"x", b"\xa5\0", Deadline::Message),
    ] {
        let (got, why) = ended(layered(), deadlines(), |session| {
            for byte in sent {
                session.receive(&LAYER().seal(&[*byte]));
            }
            if !unsealed.is_empty() {
                session.receive(unsealed);
            }
        });
        assert_eq!(why, CloseReason::TimedOut(reason).to_string());
        assert_eq!(got, LAYER().end_mark(), "{why}");
    }

    let (got, why) = ended(layered(), deadlines(), |session| {
        session.receive(&LAYER().seal(b"k"));
    });
    assert_eq!(why, CloseReason::Shed.to_string());
    assert_eq!(got, LAYER().end_mark());
}

#[test]
fn what_fails_or_is_aborted_has_no_mark() {
    for word in ["a", "p"] {
        let (got, why) = ended(layered(), deadlines(), |session| {
            session.receive(&LAYER().seal(word.as_bytes()));
        });
        assert!(got.is_empty(), "{why}: {got:?}");
    }
    for word in ["c", "e"] {
        let (got, why) = ended(layered(), deadlines(), |session| {
            session.receive(&LAYER().seal(word.as_bytes()));
        });
        assert_eq!(got, LAYER().end_mark(), "{why}");
    }
}

/// Bytes are missing, so the peer has to see a truncation.
#[test]
fn an_end_with_output_that_waits_has_no_mark() {
    for write_timeout in [Some(seconds(3)), None] {
        let config = Config {
            limits: Limits {
                write_timeout,
                ..deadlines().limits
            },
            ..deadlines()
        };
        let (got, why) = ended(layered(), config, |session| {
            session.stop_taking();
            session.receive(&LAYER().seal(b"w"));
        });
        assert!(got.is_empty(), "{why}: {got:?}");
    }
    let (got, why) = ended(layered(), deadlines(), |session| {
        session.stop_taking();
        session.receive(&LAYER().seal(b"w"));
        session.receive(&LAYER().seal(b"k"));
    });
    assert!(got.is_empty(), "{why}: {got:?}");
}

/// There is one attempt, and no wait.
#[test]
fn a_peer_that_takes_nothing_misses_the_mark() {
    let mut session = MemorySession::with_config(layered(), deadlines());
    session.receive(&LAYER().seal(b"x"));
    session.stop_taking();
    session.advance(seconds(5));
    let ended = session.ended().expect("an end at the deadline");
    assert_eq!(ended.duration(), seconds(5));
    assert_eq!((ended.sent(), ended.unsent()), (0, 5));
}

#[test]
fn a_layer_in_a_layer_has_its_mark_too() {
    let both = || Layered::around(LAYER(), Layered::around(LAYER(), Words));
    let inner = LAYER().end_mark();
    let expected = [LAYER().expect(&inner), LAYER().end_mark()].concat();
    // By a deadline of the outermost session, and by one of the innermost.
    for word in ["x", "("] {
        let (got, why) = ended(both(), deadlines(), |session| {
            session.receive(&LAYER().seal(&LAYER().seal(b"x")));
            session.receive(&LAYER().seal(&LAYER().seal(word.as_bytes())));
        });
        assert_eq!(got, expected, "{why}");
    }
}

#[test]
fn a_client_that_is_refused_behind_the_layer_sees_the_mark() {
    let refused = CloseReason::Refused.to_string();
    let nobody = |_: &Peer, (): &()| None::<Words>;
    let (got, why) = ended(Layered::new(LAYER(), nobody), deadlines(), |_| {});
    assert_eq!((got, why), (LAYER().end_mark(), refused.clone()));

    // By what follows a preface inside.
    let nobody = |_: &Peer, _: &usize| None::<Words>;
    let inside = Prefaced::new(From, nobody);
    let (got, why) = ended(Layered::around(LAYER(), inside), deadlines(), |session| {
        session.receive(&LAYER().seal(b"tcp://192.0.2.1:7\n"));
    });
    assert_eq!((got, why), (LAYER().end_mark(), refused));
}

/// Hands over at once.
struct Begin(bool);

impl Protocol for Begin {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.0 = true;
        Ok(data.len())
    }
}

impl Upgrade for Begin {
    type Next = Box<dyn Protocol>;

    fn take_next(&mut self) -> Option<Self::Next> {
        self.0.then(|| Box::new(layered()) as _)
    }
}

#[test]
fn what_is_around_a_layer_passes_the_call_on() {
    let log = Log::default();
    let rate = RateLimit::default();
    let wrapped: [Box<dyn Protocol>; 2] = [
        Box::new(Observed::new(layered(), |_: Event<'_>| ())),
        Box::new(RateLimited::new(layered(), rate)),
    ];
    for protocol in wrapped {
        let (got, why) = ended(protocol, deadlines(), |session| {
            session.receive(&LAYER().seal(b"x"));
        });
        assert_eq!(got, LAYER().end_mark(), "{why}");
    }

    let (got, why) = ended(Upgradable::new(Begin(false)), deadlines(), |session| {
        session.receive(b"begin");
    });
    assert_eq!(got, LAYER().end_mark(), "{why}");

    // Without a layer nothing is sent.
    let (got, why) = ended(Probe::new(&log), deadlines(), |_| {});
    assert!(got.is_empty(), "{why}");
}
