//! What a protocol says when a deadline or an error ends its connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::layer::{Event, Layered, Observed, RateLimit, RateLimited};
use serveloop::testing::{Identity, MemorySession, Scrambled};
use serveloop::{
    CloseReason, Config, Deadline, Limits, Protocol, ProtocolError, Result, Transport,
};

use crate::support::{millis, panic_quietly, seconds, timeless};

/// What is said in the end may take so long to be sent.
const FAREWELL: Duration = seconds(5);

/// Takes lines, and says why it ends.
#[derive(Clone, Default)]
struct Polite {
    /// What to do besides writing in the last call.
    then: Option<fn(&mut Transport<'_>)>,
    calls: Rc<RefCell<Vec<String>>>,
}

impl Polite {
    fn say(&self, what: &str, transport: &mut Transport<'_>) {
        self.calls.borrow_mut().push(what.to_owned());
        transport.write(what.as_bytes());
        if let Some(then) = self.then {
            then(transport);
        }
    }
}

impl Protocol for Polite {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data.iter().position(|byte| *byte == b'\n') {
            Some(0) => Err(ProtocolError::malformed("empty")),
            Some(end) => {
                transport.write(&data[..=end]);
                Ok(end + 1)
            }
            None => Ok(0),
        }
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.say(&format!("408 {deadline:?}\n"), transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.say(&format!("400 {error}\n"), transport);
    }
}

fn limited() -> Config {
    Config {
        limits: Limits {
            first_message_timeout: Some(seconds(10)),
            message_timeout: Some(seconds(3)),
            idle_timeout: Some(seconds(20)),
            write_timeout: Some(seconds(30)),
            max_frame: 100,
            ..timeless().limits
        },
        ..timeless()
    }
}

fn session<P: Protocol>(protocol: P) -> MemorySession<P> {
    MemorySession::with_config(protocol, limited())
}

#[track_caller]
fn is_timeout<P: Protocol>(session: &MemorySession<P>, expected: Deadline) {
    match session.reason() {
        Some(CloseReason::TimedOut(deadline)) if *deadline == expected => {}
        reason => panic!("{reason:?}"),
    }
}

#[test]
fn each_deadline_of_the_peer_is_told_once() {
    let mut first = session(Polite::default());
    first.receive(b"GE");
    first.advance(seconds(10));
    assert_eq!(first.sent(), b"408 FirstMessage\n");
    is_timeout(&first, Deadline::FirstMessage);

    let mut message = session(Polite::default());
    message.receive(b"one\nGE");
    message.advance(seconds(3));
    assert_eq!(message.sent(), b"one\n408 Message\n");
    is_timeout(&message, Deadline::Message);

    let mut idle = session(Polite::default());
    idle.receive(b"one\n");
    idle.advance(seconds(20));
    assert_eq!(idle.sent(), b"one\n408 Idle\n");
    is_timeout(&idle, Deadline::Idle);
    assert_eq!(idle.protocol().calls.borrow().len(), 1);
    assert_eq!(idle.ended().unwrap().unsent(), 0);
}

/// What waits comes first, and a peer that takes nothing has a few seconds.
#[test]
fn a_farewell_waits_for_a_slow_peer_but_not_for_long() {
    for takes in [true, false] {
        let mut session = session(Polite::default());
        session.stop_taking();
        session.receive(b"one\nGE");
        session.advance(seconds(3));
        session.advance(FAREWELL - millis(1));
        assert!(session.reason().is_none(), "{:?}", session.reason());
        if takes {
            session.take(usize::MAX);
            assert_eq!(session.sent(), b"one\n408 Message\n");
        }
        session.advance(millis(1));
        is_timeout(&session, Deadline::Message);
        let unsent = if takes { 0 } else { 16 };
        assert_eq!(session.ended().unwrap().unsent(), unsent);
        assert_eq!(session.protocol().calls.borrow().len(), 1);
    }
}

/// A peer that takes a byte now and then does not have longer.
#[test]
fn the_time_for_a_farewell_does_not_begin_anew() {
    let mut session = session(Polite::default());
    session.stop_taking();
    session.receive(b"GE");
    session.advance(seconds(10));
    for _ in 0..4 {
        session.advance(seconds(1));
        session.take(1);
    }
    assert!(session.reason().is_none());
    session.advance(seconds(1));
    is_timeout(&session, Deadline::FirstMessage);
    assert_eq!(session.ended().unwrap().sent(), 4);
}

#[test]
fn a_peer_that_takes_nothing_is_told_nothing() {
    let mut config = limited();
    config.limits.idle_timeout = None;
    let mut session = MemorySession::with_config(Polite::default(), config);
    session.stop_taking();
    session.receive(b"one\n");
    session.advance(seconds(30));
    is_timeout(&session, Deadline::Write);
    assert!(session.protocol().calls.borrow().is_empty());
}

#[test]
fn wrong_and_long_input_is_answered() {
    let mut wrong = session(Polite::default());
    wrong.receive(b"one\n\n");
    assert_eq!(wrong.sent(), b"one\n400 malformed: empty\n");
    assert!(matches!(wrong.reason(), Some(CloseReason::Protocol(_))));

    let mut long = session(Polite::default());
    long.receive(&[b'x'; 2_000]);
    let said = String::from_utf8(long.sent().to_vec()).unwrap();
    assert!(said.starts_with("400 message too long"), "{said}");
    assert_eq!(long.protocol().calls.borrow().len(), 1);

    let mut cut = session(Polite::default());
    cut.receive(b"GE");
    cut.receive_eof();
    let said = String::from_utf8(cut.sent().to_vec()).unwrap();
    assert!(said.starts_with("400 "), "{said}");
}

/// Whatever else the last call does, the reason stays what it was, unless it fails itself.
#[test]
fn the_reason_stays_what_it_was() {
    type Row = (
        fn(&mut Transport<'_>),
        &'static [u8],
        fn(&CloseReason) -> bool,
    );
    let table: [Row; 3] = [
        (
            |to| to.close(),
            b"408 FirstMessage\n",
            |reason| matches!(reason, CloseReason::TimedOut(Deadline::FirstMessage)),
        ),
        (
            |to| to.abort(),
            b"",
            |reason| matches!(reason, CloseReason::Aborted),
        ),
        (
            |_| panic_quietly(),
            b"",
            |reason| matches!(reason, CloseReason::Panicked),
        ),
    ];
    for (then, sent, is_right) in table {
        let mut session = session(Polite {
            then: Some(then),
            ..Polite::default()
        });
        session.receive(b"GE");
        session.advance(seconds(10));
        assert_eq!(session.sent(), sent);
        assert!(
            session.reason().is_some_and(is_right),
            "{:?}",
            session.reason()
        );
    }
}

/// Who says nothing ends as before, with what waits dropped.
#[test]
fn without_a_word_what_waits_is_dropped() {
    struct Silent;

    impl Protocol for Silent {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            transport.write(&data[..1]);
            Ok(1.min(data.len() - 1))
        }
    }

    let mut session = session(Silent);
    session.stop_taking();
    session.receive(b"12");
    session.advance(seconds(3));
    is_timeout(&session, Deadline::Message);
    assert!(session.ended().unwrap().unsent() > 0);
}

#[test]
fn layers_pass_the_last_word_on() {
    let table = [(3, Deadline::Message, "GE"), (20, Deadline::Idle, "")];
    for (time, deadline, rest) in table {
        let expected = format!("one\n408 {deadline:?}\n");
        let sent = format!("one\n{rest}");
        says(
            Layered::around(Identity, Polite::default()),
            &sent,
            time,
            deadline,
            &expected,
        );
        let twice = Layered::around(Identity, Layered::around(Identity, Polite::default()));
        says(twice, &sent, time, deadline, &expected);
        let limit = RateLimit::new().with_messages(1_000);
        says(
            RateLimited::new(Polite::default(), limit),
            &sent,
            time,
            deadline,
            &expected,
        );
        let observed = Observed::new(Polite::default(), |_: Event<'_>| ());
        says(observed, &sent, time, deadline, &expected);
        let boxed: Box<dyn Protocol> = Box::new(Polite::default());
        says(boxed, &sent, time, deadline, &expected);
    }
}

#[track_caller]
fn says<P: Protocol>(protocol: P, input: &str, time: u64, deadline: Deadline, expected: &str) {
    let mut session = session(protocol);
    session.receive(input.as_bytes());
    session.advance(seconds(time));
    assert_eq!(String::from_utf8_lossy(&session.sent()), expected);
    is_timeout(&session, deadline);
}

#[test]
fn a_layer_transforms_the_last_word_and_ends_after_it() {
    for (input, time, expected) in [
        ("one\nGE", 3, "one\n408 Message\n"),
        ("one\n", 20, "one\n408 Idle\n"),
        ("one\n\n", 0, "one\n400 malformed: empty\n"),
    ] {
        let client = Scrambled::new(7);
        let layered = Layered::around(Scrambled::new(7), Polite::default());
        let mut session = session(layered);
        session.receive(&client.seal(input.as_bytes()));
        session.advance(seconds(time));
        assert_eq!(session.sent(), client.expect(expected.as_bytes()));
    }
}

/// Frames are encoded in the last word too.
#[test]
fn a_frame_protocol_has_the_last_word() {
    struct Words;

    impl FrameProtocol for Words {
        type Framing = Lines;

        fn frame_received(
            &mut self,
            frame: &[u8],
            transport: &mut FrameTransport<'_, Lines>,
        ) -> Result {
            if frame == b"bad" {
                return Err("bad word".into());
            }
            transport.send(frame)
        }

        fn deadline_passed(&mut self, _: Deadline, transport: &mut FrameTransport<'_, Lines>) {
            let _ = transport.send(b"too slow");
        }

        fn input_rejected(
            &mut self,
            error: &ProtocolError,
            transport: &mut FrameTransport<'_, Lines>,
        ) {
            let _ = transport.send(error.to_string().as_bytes());
        }
    }

    let words = || session(Framed::new(Lines::new(60), Words));
    let mut slow = words();
    slow.receive(b"one\ntw");
    slow.advance(seconds(3));
    assert_eq!(slow.sent(), b"one\ntoo slow\n");

    let mut bad = words();
    bad.receive(b"bad\none\n");
    assert_eq!(bad.sent(), b"malformed: bad word\n");
    let mut long = words();
    long.receive(&[b'x'; 70]);
    assert!(long.sent().starts_with(b"message too long"));
}
