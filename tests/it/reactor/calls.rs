//! What the loop asks of a stream: no call whose answer is known, and again what failed for a while.

use std::time::Duration;

use serveloop::protocols::Echo;
use serveloop::{Config, Factory, Limits, Peer, Reactor};

use crate::support::probe::{Log, Probe};
use crate::support::scripted::{Script, Scripted};
use crate::support::{millis, timeless};

fn serving(script: &Script) -> Reactor<impl Factory<Protocol = Echo>, Scripted> {
    let config = Config {
        accept_pause: millis(100),
        ..timeless()
    };
    serving_by(script, |_: &Peer| Some(Echo), config)
}

/// A loop with one connection, of which there is no news yet.
fn serving_by<F: Factory>(script: &Script, factory: F, config: Config) -> Reactor<F, Scripted> {
    let mut reactor = Reactor::with_net(Scripted::new(script), factory, config).unwrap();
    let address = "tcp://127.0.0.1:1".parse().unwrap();
    reactor.listen(&address).unwrap();
    turn(&mut reactor, 1);
    assert_eq!(reactor.statistics().accepted, 1);
    reactor
}

fn turn<F: Factory>(reactor: &mut Reactor<F, Scripted>, count: usize) {
    for _ in 0..count {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn a_short_read_is_the_last_until_there_is_news() {
    let script = Script::default();
    script.converse(&[b"abc", b"de"], &[3, 2]);
    let mut reactor = serving(&script);
    for _ in 0..2 {
        script.announce(true, false);
        turn(&mut reactor, 4);
        assert_eq!(script.calls(), ["read", "write"]);
    }
    assert_eq!(reactor.statistics().bytes_written, 5);
}

#[test]
fn a_short_write_is_the_last_until_there_is_news() {
    let script = Script::default();
    script.converse(&[b"abcdef"], &[2, 4]);
    let mut reactor = serving(&script);
    script.announce(true, false);
    turn(&mut reactor, 4);
    assert_eq!(script.calls(), ["read", "write"]);
    assert_eq!(reactor.statistics().bytes_written, 2);
    script.announce(false, true);
    turn(&mut reactor, 4);
    assert_eq!(script.calls(), ["write"]);
    assert_eq!(reactor.statistics().bytes_written, 6);
}

/// What a system without memory may answer too: no event follows.
#[test]
fn a_write_that_takes_nothing_is_tried_again_after_a_while() {
    let script = Script::default();
    script.converse(&[b"abcdef"], &[0, 6]);
    let mut reactor = serving(&script);
    script.announce(true, false);
    turn(&mut reactor, 4);
    assert_eq!(script.calls(), ["read", "write"]);
    script.pass(millis(100));
    turn(&mut reactor, 4);
    assert_eq!(script.calls().last(), Some(&"write"));
    assert_eq!(reactor.statistics().bytes_written, 6);
}

#[test]
fn without_linger_a_close_ends_the_connection_at_once() {
    let closes = |_: &Peer| {
        Some(Probe::new(&Log::default()).data(|data, transport| {
            transport.close();
            Ok(data.len())
        }))
    };
    for (linger_timeout, left) in [(None, 0), (Some(millis(500)), 1)] {
        let config = Config {
            limits: Limits {
                linger_timeout,
                ..timeless().limits
            },
            ..timeless()
        };
        let script = Script::default();
        script.converse(&[b"bye"], &[]);
        let mut reactor = serving_by(&script, closes, config);
        script.announce(true, false);
        turn(&mut reactor, 2);
        assert_eq!(reactor.connections(), left, "{linger_timeout:?}");
    }
}
