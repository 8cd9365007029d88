//! Busy polling: the loop asks again and again before it sleeps, but only as long as that pays.

use std::time::Duration;

use serveloop::protocols::Echo;
use serveloop::{Config, Factory, Peer, Reactor};

use crate::support::scripted::{Script, Scripted};
use crate::support::{millis, seconds, timeless};

const BUSY: u64 = 10;
const ASK: Option<Duration> = Some(Duration::ZERO);

/// A loop with one datagram socket, which has looked at it once. Asking takes a millisecond.
fn looping(
    script: &Script,
    busy_poll: Option<Duration>,
) -> Reactor<impl Factory<Protocol = Echo>, Scripted> {
    let config = Config {
        busy_poll,
        ..timeless()
    };
    let net = Scripted::new(script);
    let mut reactor = Reactor::with_net(net, |_: &Peer| Some(Echo), config).unwrap();
    reactor
        .listen(&"udp://127.0.0.1:1".parse().unwrap())
        .unwrap();
    reactor.turn(ASK).unwrap();
    assert_eq!(
        script.polls(),
        [ASK],
        "what is to be looked at waits for nothing"
    );
    reactor
}

fn busy(script: &Script) -> Reactor<impl Factory<Protocol = Echo>, Scripted> {
    looping(script, Some(millis(BUSY)))
}

#[test]
fn by_default_each_turn_polls_once() {
    let script = Script::default();
    let mut reactor = looping(&script, Config::default().busy_poll);
    for _ in 0..3 {
        script.news_after(millis(2));
        reactor.turn(None).unwrap();
    }
    assert_eq!(script.polls(), [None; 3]);
}

#[test]
fn a_busy_loop_asks_and_never_sleeps() {
    let script = Script::default();
    let mut reactor = busy(&script);
    for _ in 0..3 {
        script.news_after(millis(5));
        reactor.turn(None).unwrap();
    }
    // The first of the fifteen milliseconds went by before.
    assert_eq!(script.polls(), [ASK; 14]);
}

#[test]
fn an_idle_loop_asks_for_its_time_once_and_then_sleeps() {
    let script = Script::default();
    let mut reactor = busy(&script);
    script.news_after(seconds(3_600));
    reactor.turn(None).unwrap();
    assert_eq!(script.polls(), [vec![ASK; 10], vec![None]].concat());
    for _ in 0..1_000 {
        script.news_after(millis(2 * BUSY + 1));
        reactor.turn(None).unwrap();
    }
    assert_eq!(script.polls(), [None; 1_000], "it did not pay");
}

#[test]
fn a_loop_that_slept_asks_again_when_news_comes_soon() {
    let script = Script::default();
    let mut reactor = busy(&script);
    script.news_after(seconds(1));
    reactor.turn(None).unwrap();
    script.polls();
    script.news_after(millis(2 * BUSY));
    reactor.turn(None).unwrap();
    assert_eq!(script.polls(), [None]);
    script.news_after(millis(3));
    reactor.turn(None).unwrap();
    assert_eq!(script.polls(), [ASK; 3]);
}

#[test]
fn asking_is_part_of_the_time_to_wait() {
    let script = Script::default();
    let mut reactor = busy(&script);
    reactor.turn(Some(millis(30))).unwrap();
    let slept = Some(millis(30 - BUSY));
    assert_eq!(script.polls(), [vec![ASK; 10], vec![slept]].concat());
    // Nothing came, however short the wait was.
    reactor.turn(Some(millis(2))).unwrap();
    reactor.turn(Some(millis(2))).unwrap();
    assert_eq!(script.polls(), [Some(millis(2)); 2]);
}

#[test]
fn what_may_not_wait_is_asked_once() {
    let script = Script::default();
    let mut reactor = busy(&script);
    for _ in 0..3 {
        reactor.turn(ASK).unwrap();
    }
    assert_eq!(script.polls(), [ASK; 3]);
}

#[test]
fn with_a_clock_that_stands_still_nothing_is_asked_forever() {
    let script = Script::default();
    let mut reactor = busy(&script);
    script.stand_still();
    script.news_after(seconds(1));
    reactor.turn(None).unwrap();
    assert_eq!(script.polls(), [ASK, None]);
}
