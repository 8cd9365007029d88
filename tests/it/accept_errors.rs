//! What a failed accept means: for one connection, for all for a while, or for the listener.

use std::time::Duration;

use serveloop::protocols::Echo;
use serveloop::{Config, Factory, Peer, Reactor};

use crate::scripted::{Script, Scripted};
use crate::support::{millis, timeless};

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
