//! What a failed accept means: for one connection, for all for a while, or for the listener.

use std::time::Duration;

use serveloop::protocols::Echo;
use serveloop::{Config, Factory, Peer, Reactor, Statistics};

use crate::support::scripted::{Act, Script, Scripted};
use crate::support::{millis, seconds, timeless};

fn listening(script: &Script) -> Reactor<impl Factory<Protocol = Echo>, Scripted> {
    let config = Config {
        accept_pause: millis(100),
        ..timeless()
    };
    let factory = |_: &Peer| Some(Echo);
    let mut reactor = Reactor::with_net(Scripted::new(script), factory, config).unwrap();
    let address = "tcp://127.0.0.1:1".parse().unwrap();
    reactor.listen(&address).unwrap();
    reactor
}

#[test]
fn a_connection_that_fails_before_it_is_accepted_holds_up_no_other() {
    let concern_one = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPROTO,
        libc::EPERM,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
        libc::ETIMEDOUT,
        libc::ECONNREFUSED,
        libc::ECONNRESET,
    ];
    let script = Script::default();
    let mut reactor = listening(&script);
    script.fail_accepts(&concern_one);
    script.flood();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    let statistics = reactor.statistics();
    assert_eq!(statistics.accept_aborted, concern_one.len() as u64);
    assert_eq!(statistics.accept_exhausted, 0);
    assert_eq!(statistics.accepted, 1, "in the same turn");
}

#[test]
fn want_of_resources_pauses_the_listener() {
    for number in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
        let script = Script::default();
        let mut reactor = listening(&script);
        script.fail_accepts(&[number, number]);
        script.flood();
        // The scripted clock moves by one millisecond a turn at least.
        let accepted_after = (1..).find(|_| {
            reactor.turn(Some(Duration::ZERO)).unwrap();
            reactor.statistics().accepted == 1
        });
        let statistics = reactor.statistics();
        assert_eq!(statistics.accept_exhausted, 2);
        assert_eq!(statistics.accept_aborted, 0);
        let turns = accepted_after.unwrap();
        assert!((200..=204).contains(&turns), "{turns} milliseconds");
    }
}

#[test]
fn a_listener_that_is_none_any_more_ends_the_loop_with_its_error() {
    for number in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EFAULT] {
        let script = Script::default();
        let mut reactor = listening(&script);
        script.fail_accepts(&[number]);
        let error = reactor.run().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(number));
        assert_eq!(reactor.statistics().accept_exhausted, 0);
    }
}

/// Errors that say nothing about the system, each of which may stay.
const STUBBORN: [i32; 6] = [
    libc::EPERM,
    libc::EPROTO,
    libc::ECONNABORTED,
    libc::EOPNOTSUPP,
    libc::ENETDOWN,
    libc::EINTR,
];

/// Turns the loop for some seconds, in which the socket fails all the time, and until it works again.
/// Returns how often it was tried, and how long the loop waited.
fn turn_until(
    reactor: &mut Reactor<impl Factory<Protocol = Echo>, Scripted>,
    script: &Script,
    works: impl Fn(&Statistics) -> bool,
) -> (usize, Duration) {
    let mut waited = Duration::ZERO;
    for _ in 0..2_000 {
        reactor.turn(Some(millis(200))).unwrap();
        waited += script.polls().into_iter().flatten().sum::<Duration>();
        if works(reactor.statistics()) {
            return (script.tries(), waited);
        }
    }
    panic!("it never works again: {:?}", reactor.statistics());
}

#[test]
fn a_listener_that_only_fails_does_not_keep_the_loop_busy_whatever_the_error() {
    for number in STUBBORN {
        let script = Script::default();
        let mut reactor = listening(&script);
        script.fail_accepts(&[number; 60]);
        script.flood();
        let accepted = |statistics: &Statistics| statistics.accepted == 1;
        let (tries, waited) = turn_until(&mut reactor, &script, accepted);
        // Some at once, since each may have been about one connection, and then one a pause.
        assert!((61..=62).contains(&tries), "error {number}: {tries}");
        let pauses = waited.as_millis() / 100;
        assert!((43..=46).contains(&pauses), "{number}: {pauses} pauses");
        let statistics = reactor.statistics();
        let failed = (statistics.accept_aborted, statistics.accept_exhausted);
        assert_eq!(failed, (16, 44), "error {number}");
    }
}

#[test]
fn a_datagram_socket_that_only_fails_does_not_keep_the_loop_busy_whatever_the_error() {
    for number in STUBBORN {
        let script = Script::default();
        let config = Config {
            accept_pause: millis(100),
            limit_loopback: false,
            ..timeless()
        };
        let factory = |_: &Peer| Some(Echo);
        let mut reactor = Reactor::with_net(Scripted::new(&script), factory, config).unwrap();
        let address = "udp://127.0.0.1:1".parse().unwrap();
        reactor.listen(&address).unwrap();
        for _ in 0..60 {
            script.then(0, Act::Fails(number));
        }
        script.then(0, Act::Datagram(b"at last".to_vec()));
        let answered = |statistics: &Statistics| statistics.datagrams_sent == 1;
        let (tries, waited) = turn_until(&mut reactor, &script, answered);
        assert!((61..=62).contains(&tries), "error {number}: {tries}");
        let pauses = waited.as_millis() / 100;
        assert!((43..=46).contains(&pauses), "{number}: {pauses} pauses");
        assert_eq!(script.sent(), [(0, b"at last".to_vec())]);
    }
}

/// What is taken in between shows that the socket works.
#[test]
fn failures_between_connections_pause_nothing() {
    let script = Script::default();
    let mut reactor = listening(&script);
    for _ in 0..5 {
        script.fail_accepts(&[libc::ECONNABORTED; 15]);
        script.flood();
        script.news_after(Duration::ZERO);
        reactor.turn(Some(Duration::ZERO)).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let statistics = reactor.statistics();
    assert_eq!((statistics.accepted, statistics.accept_aborted), (5, 75));
    assert_eq!(statistics.accept_exhausted, 0);
}

#[test]
fn calls_that_are_always_interrupted_do_not_keep_the_loop_busy() {
    let script = Script::default();
    let mut reactor = listening(&script);
    script.converse(&[], &[]);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    script.fail_streams(libc::EINTR);
    script.announce(true, true);
    script.calls();
    script.polls();
    for _ in 0..20 {
        reactor.turn(Some(seconds(1))).unwrap();
    }
    let calls = script.calls().len();
    assert!((10..=21).contains(&calls), "{calls} calls in 20 turns");
    let waits = script.polls().into_iter().flatten();
    let busy = waits.filter(|wait| wait.is_zero()).count();
    assert!(busy <= 2, "{busy} of 20 turns did not wait");
}
