//! Limits of a single connection, set by its protocol.

use std::sync::Arc;

use serveloop::layer::{Layered, RateLimit, RateLimited};
use serveloop::testing::{Identity, MemorySession};
use serveloop::{CloseReason, Config, Deadline, Limits, Protocol, Result, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{millis, seconds, timeless};

/// Echoes, and takes the limits when `login` comes.
struct Login(Arc<Limits>);

impl Protocol for Login {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        if data == b"login" {
            transport.set_limits(Arc::clone(&self.0))?;
        }
        transport.write(data);
        Ok(data.len())
    }
}

fn impatient() -> Config {
    let mut config = timeless();
    config.limits.idle_timeout = Some(seconds(2));
    config
}

fn session<P: Protocol>(protocol: P) -> MemorySession<P> {
    MemorySession::with_config(protocol, impatient())
}

#[test]
fn a_login_changes_the_deadline_of_its_connection_alone() {
    let patient = Arc::new(Limits {
        idle_timeout: Some(seconds(100)),
        ..timeless().limits
    });
    let (mut inside, mut outside) = (
        session(Login(Arc::clone(&patient))),
        session(Login(patient)),
    );
    inside.receive(b"login");
    outside.receive(b"hello");
    inside.advance(seconds(99));
    outside.advance(seconds(2));
    assert!(!inside.is_finished());
    assert!(is_idle(outside.reason()), "{:?}", outside.reason());

    inside.advance(seconds(1));
    assert!(is_idle(inside.reason()), "{:?}", inside.reason());
}

fn is_idle(reason: Option<&CloseReason>) -> bool {
    matches!(reason, Some(CloseReason::TimedOut(Deadline::Idle)))
}

/// A deadline that becomes shorter counts from the same moment as before.
#[test]
fn a_shorter_deadline_may_have_passed() {
    let log = Log::default();
    let strict = Arc::new(Limits {
        idle_timeout: Some(seconds(1)),
        ..timeless().limits
    });
    let probe = Probe::new(&log).woken(move |transport| {
        transport.set_limits(Arc::clone(&strict)).unwrap();
    });
    let mut session = session(probe.made(|transport| {
        transport.waker().wake();
        Ok(())
    }));
    session.advance(millis(1_500));
    assert!(is_idle(session.reason()), "{:?}", session.reason());
}

#[test]
fn layers_pass_the_limits_on_to_the_session_outside() {
    let strict = Arc::new(Limits {
        high_water: 4,
        low_water: 1,
        max_output: 8,
        max_reply: 8,
        idle_timeout: None,
        ..timeless().limits
    });
    let login = || Login(Arc::clone(&strict));

    let mut layered = session(Layered::around(Identity, login()));
    check(&mut layered);
    let limit = RateLimit::new().with_bytes(1_000_000);
    let mut limited = session(RateLimited::new(login(), limit));
    check(&mut limited);
    let mut twice = session(Layered::around(
        Identity,
        Layered::around(Identity, login()),
    ));
    check(&mut twice);
}

fn check<P: Protocol>(session: &mut MemorySession<P>) {
    session.receive(b"login");
    session.advance(seconds(50));
    assert!(!session.is_finished(), "{:?}", session.reason());

    session.stop_taking();
    session.receive(b"12345678");
    assert!(!session.is_finished(), "{:?}", session.reason());
    session.receive(b"9");
    assert!(
        !session.is_finished(),
        "the input of a full session is not shown"
    );
    session.take(8);
    assert_eq!(session.sent(), b"login12345678");
    session.receive(b"123456789");
    assert!(
        matches!(session.reason(), Some(CloseReason::Overflow)),
        "{:?}",
        session.reason()
    );
}

/// Returns why the session has ended.
fn reason<P: Protocol>(session: &MemorySession<P>) -> String {
    let reason = session.reason().map(ToString::to_string);
    reason.unwrap_or_default()
}

#[test]
fn limits_that_contradict_each_other_change_nothing() {
    let wrong = Arc::new(Limits {
        low_water: 10,
        high_water: 10,
        ..Limits::default()
    });
    let mut session = session(Login(wrong));
    session.receive(b"login");
    let said = reason(&session);
    assert!(
        said.contains("low_water must be less than high_water (10), not 10"),
        "{said}"
    );

    let greedy = Arc::new(Limits {
        max_output: Config::default().max_buffered + 1,
        ..Limits::default()
    });
    let mut session = self::session(Login(greedy));
    session.receive(b"login");
    let said = reason(&session);
    assert!(
        said.contains("max_buffered must be at least max_output"),
        "{said}"
    );
}

/// A message that is already there may be longer than the new limit allows, until more comes.
#[test]
fn a_shorter_message_limit_counts_from_the_next_byte() {
    let log = Log::default();
    let short = Arc::new(Limits {
        max_frame: 0,
        ..timeless().limits
    });
    let probe = Probe::new(&log).data(move |data, transport| {
        if data.len() == 2_000 {
            transport.set_limits(Arc::clone(&short))?;
        }
        Ok(0)
    });
    let mut session = session(probe);
    session.receive(&[b'x'; 1_999]);
    assert!(!session.is_finished());
    session.receive(b"x");
    let said = reason(&session);
    assert!(said.contains("2000"), "{said}");
}
