//! Upstreams in virtual time: when they connect, what waits, and what is told when things fail.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serveloop::net::Target;
use serveloop::service::{
    Backoff, Dialer, Dialing, Link, Reply, Upstream, UpstreamError, UpstreamLimits,
};
use serveloop::testing::{Client, MemoryServer, Seen};
use serveloop::{Address, Config, Ended, Factory, Limits, Peer, Protocol, Result, Transport};

use crate::support::{millis, panic_quietly, seconds};

type Boxed = Box<dyn Protocol + Send>;
type Answer = Vec<u8>;

fn far() -> Address {
    "tcp://192.0.2.1:7".parse().unwrap()
}

/// A peer that answers each line with a line. It is ready when it has said `!`.
struct Lines(Link<Answer>, bool);

impl Protocol for Lines {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        if self.1 {
            self.0.ready(transport);
        }
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        if data.starts_with(b"!") {
            self.0.ready(transport);
            return Ok(1);
        }
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return Ok(0);
        };
        if !self.0.answer(data[..end].to_vec()) {
            return Err("an answer to nothing")?;
        }
        self.0.send(transport);
        Ok(end + 1)
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.0.send(transport);
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.0.send(transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.0.finish(transport);
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.0.lost();
    }
}

/// The factory inside: it has the upstream for the tests.
struct Front(Upstream<Answer>);

impl Factory for Front {
    type Protocol = Boxed;

    fn build_protocol(&mut self, _: &Peer) -> Option<Boxed> {
        None
    }
}

type Made = Dialing<Box<dyn FnMut(&Dialer<Boxed>) -> Front>, Front>;

struct Setting {
    server: MemoryServer<Made>,
    upstream: Upstream<Answer>,
}

fn limits() -> UpstreamLimits {
    UpstreamLimits {
        seed: Some(1),
        ..UpstreamLimits::default()
    }
}

impl Setting {
    fn new(limits: UpstreamLimits) -> Self {
        Self::with(limits, true, Config::default())
    }

    fn with(limits: UpstreamLimits, is_ready: bool, config: Config) -> Self {
        let make = move |dialer: &Dialer<Boxed>| {
            let make = move |link| Box::new(Lines(link, is_ready)) as Boxed;
            Front(Upstream::new(dialer, far(), limits.clone(), make))
        };
        let made = Dialing::new(Box::new(make) as Box<dyn FnMut(&Dialer<Boxed>) -> Front>);
        let mut server = MemoryServer::with_config(made, config);
        let upstream = server.factory().factory().0.clone();
        Self { server, upstream }
    }

    /// Returns the far end of the connection that was opened.
    #[track_caller]
    fn peer(&mut self) -> Client {
        self.server.next_outbound().expect("it has connected").1
    }

    fn ask(&mut self, text: &str) -> Reply<Answer> {
        let reply = self.upstream.request(|| (), text).unwrap();
        self.server.run();
        reply
    }

    /// Makes every attempt fail, and returns when the next `count` are made, after the loss of `peer`.
    fn attempts(&mut self, peer: Client, count: usize) -> Vec<u128> {
        self.server.refuse(far());
        self.server.reset(peer);
        let begin = self.server.now();
        let mut moments = Vec::new();
        let mut before = self.server.statistics().connected;
        while moments.len() < count {
            self.server.advance(millis(1));
            let now = self.server.statistics().connected;
            if now > before {
                assert_eq!(now, before + 1);
                moments.push((self.server.now() - begin).as_millis());
            }
            before = now;
        }
        moments
    }
}

fn taken(reply: &mut Reply<Answer>) -> Option<std::result::Result<String, UpstreamError>> {
    let answer = reply.take()?;
    Some(answer.map(|answer| String::from_utf8(answer).unwrap()))
}

fn answered(text: &str) -> Option<std::result::Result<String, UpstreamError>> {
    Some(Ok(text.to_owned()))
}

#[test]
fn requests_are_answered_in_their_order() {
    let mut it = Setting::new(UpstreamLimits {
        max_in_flight: 10,
        ..limits()
    });
    let peer = it.peer();
    let (mut one, mut two) = (it.ask("one\n"), it.ask("two\n"));
    assert_eq!(it.server.received(peer), b"one\ntwo\n");
    assert_eq!(it.upstream.in_flight(), 2);
    it.server.send(peer, b"1\n2");
    assert_eq!(taken(&mut one), answered("1"));
    assert_eq!(taken(&mut one), None);
    assert_eq!(taken(&mut two), None);
    it.server.send(peer, b"2\n");
    assert_eq!(taken(&mut two), answered("22"));
}

#[test]
fn at_most_so_many_are_unanswered() {
    let mut it = Setting::new(UpstreamLimits {
        max_in_flight: 2,
        ..limits()
    });
    let peer = it.peer();
    let replies = ["a\n", "b\n", "c\n"].map(|text| it.ask(text));
    assert_eq!(it.server.received(peer), b"a\nb\n");
    assert_eq!((it.upstream.waiting(), it.upstream.in_flight()), (1, 2));
    it.server.send(peer, b"1\n");
    assert_eq!(it.server.received(peer), b"c\n");
    drop(replies);
}

#[test]
fn the_one_who_asked_is_woken_once() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let (sender, wakes) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let wake = move || sender.lock().unwrap().send(()).unwrap();
    let mut reply = it.upstream.request(wake, "a\n").unwrap();
    it.server.run();
    assert!(wakes.try_recv().is_err());
    it.server.send(peer, b"1\n");
    assert_eq!(wakes.try_iter().count(), 1);
    assert_eq!(taken(&mut reply), answered("1"));
}

#[test]
fn requests_wait_for_the_connection() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    it.server.reset(peer);
    let mut reply = it.ask("a\n");
    assert_eq!(it.upstream.waiting(), 1);
    it.server.advance(millis(100));
    let peer = it.peer();
    assert_eq!(it.server.received(peer), b"a\n");
    it.server.send(peer, b"1\n");
    assert_eq!(taken(&mut reply), answered("1"));
}

#[test]
fn what_was_written_is_lost_with_the_connection_and_what_waits_is_not() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let (mut written, mut waiting) = (it.ask("a\n"), it.ask("b\n"));
    it.server.reset(peer);
    assert_eq!(taken(&mut written), Some(Err(UpstreamError::Lost)));
    assert_eq!(taken(&mut waiting), None);
    it.server.advance(millis(100));
    let peer = it.peer();
    assert_eq!(it.server.received(peer), b"b\n", "and a is not sent again");
    it.server.send(peer, b"2\n");
    assert_eq!(taken(&mut waiting), answered("2"));
}

#[test]
fn an_orderly_end_is_a_loss_too() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let mut written = it.ask("a\n");
    it.server.finish(peer);
    assert_eq!(taken(&mut written), Some(Err(UpstreamError::Lost)));
    it.server.advance(millis(100));
    it.peer();
}

#[test]
fn too_many_requests_are_refused() {
    let mut it = Setting::new(UpstreamLimits {
        max_waiting: 2,
        ..limits()
    });
    let peer = it.peer();
    it.server.reset(peer);
    let replies = [it.ask("a\n"), it.ask("b\n")];
    let refused = it.upstream.request(|| (), "c\n").unwrap_err();
    assert_eq!(refused, UpstreamError::Full);
    assert_eq!(it.upstream.send("c\n"), Err(UpstreamError::Full));
    assert_eq!(
        refused.to_string(),
        "too many requests wait for the upstream"
    );
    drop(replies);
    assert_eq!(it.upstream.waiting(), 0, "they were given up");
    assert_eq!(it.upstream.send("c\n"), Ok(()));
}

#[test]
fn too_many_bytes_are_refused_but_any_single_request_fits() {
    let mut it = Setting::new(UpstreamLimits {
        max_waiting_bytes: 10,
        ..limits()
    });
    let peer = it.peer();
    it.server.reset(peer);
    it.upstream.send("0123456789abc\n").unwrap();
    assert_eq!(it.upstream.send(""), Err(UpstreamError::Full));
    it.server.advance(millis(100));
    let peer = it.peer();
    assert_eq!(it.server.received(peer), b"0123456789abc\n");
    it.upstream.send("12345").unwrap();
    it.upstream.send("67890").unwrap();
    assert_eq!(it.upstream.send("1"), Err(UpstreamError::Full));
    assert_eq!(it.upstream.send(""), Ok(()));
}

#[test]
fn a_request_that_was_given_up_is_not_sent() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let first = it.ask("a\n");
    let second = it.ask("b\n");
    let mut third = it.ask("c\n");
    drop((first, second));
    it.server.send(peer, b"1\n");
    assert_eq!(it.server.received(peer), b"a\nc\n");
    it.server.send(peer, b"3\n");
    assert_eq!(taken(&mut third), answered("3"));
}

#[test]
fn a_request_that_waits_too_long_times_out() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    it.server.refuse(far());
    it.server.reset(peer);
    let mut reply = it.ask("a\n");
    it.server.advance(seconds(10) - millis(1));
    assert_eq!(taken(&mut reply), None);
    it.server.advance(millis(1));
    assert_eq!(taken(&mut reply), Some(Err(UpstreamError::TimedOut)));
    assert_eq!(it.upstream.waiting(), 0);
}

#[test]
fn a_peer_that_does_not_answer_loses_its_connection() {
    let mut it = Setting::new(UpstreamLimits {
        max_in_flight: 2,
        ..limits()
    });
    let peer = it.peer();
    let mut early = it.ask("a\n");
    it.server.advance(seconds(4));
    let (mut late, mut waiting) = (it.ask("b\n"), it.ask("c\n"));
    it.server.advance(seconds(6));
    assert_eq!(taken(&mut early), Some(Err(UpstreamError::TimedOut)));
    assert_eq!(taken(&mut late), Some(Err(UpstreamError::Lost)));
    assert_eq!(it.server.seen(peer), Seen::Reset);
    it.server.advance(millis(100));
    let peer = it.peer();
    assert_eq!(it.server.received(peer), b"c\n");
    it.server.send(peer, b"3\n");
    assert_eq!(taken(&mut waiting), answered("3"));
}

#[test]
fn delays_grow_up_to_a_limit_with_jitter() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let moments = it.attempts(peer, 12);
    let mut nominal = 100;
    let mut before = 0;
    for moment in &moments {
        let delay = moment - before;
        // The clock of the test has steps of a millisecond.
        assert!((nominal / 2..=nominal + 1).contains(&delay), "{moments:?}");
        (before, nominal) = (*moment, (nominal * 2).min(10_000));
    }
}

#[test]
fn the_same_seed_gives_the_same_delays() {
    let run = |seed| {
        let mut it = Setting::new(UpstreamLimits {
            seed: Some(seed),
            ..limits()
        });
        let peer = it.peer();
        it.attempts(peer, 5)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn delays_without_a_seed_differ() {
    let delay = || Backoff::new(seconds(1_000), seconds(1_000)).next_delay();
    assert_ne!(delay(), delay());
}

#[test]
fn after_it_was_ready_the_delays_begin_again() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    it.attempts(peer, 6);
    it.server.accept(far());
    it.server.advance(seconds(10));
    let peer = it.peer();
    let moments = it.attempts(peer, 1);
    assert!(moments[0] <= 101, "{moments:?}");
}

#[test]
fn a_peer_that_is_never_ready_does_not_reset_the_delays() {
    let mut it = Setting::with(limits(), false, Config::default());
    let begin = it.server.now();
    let mut moments: Vec<Duration> = Vec::new();
    while moments.len() < 6 {
        if let Some((_, peer)) = it.server.next_outbound() {
            moments.push(it.server.now() - begin);
            it.server.finish(peer);
        }
        it.server.advance(millis(1));
    }
    assert!(moments[5] - moments[4] >= millis(800), "{moments:?}");
}

#[test]
fn requests_wait_until_the_protocol_is_ready() {
    let mut it = Setting::with(limits(), false, Config::default());
    let peer = it.peer();
    let _reply = it.ask("a\n");
    assert_eq!(it.server.received(peer), b"");
    assert_eq!(it.upstream.connections(), 0);
    it.server.send(peer, b"!");
    assert_eq!(it.server.received(peer), b"a\n");
    assert_eq!(it.upstream.connections(), 1);
}

#[test]
fn more_connections_are_opened_for_requests_that_wait_and_closed_when_idle() {
    let mut it = Setting::new(UpstreamLimits {
        max_connections: 3,
        ..limits()
    });
    let first = it.peer();
    let mut replies: Vec<_> = ["a\n", "b\n", "c\n", "d\n"].map(|text| it.ask(text)).into();
    let (second, third) = (it.peer(), it.peer());
    assert!(it.server.next_outbound().is_none(), "three are allowed");
    assert_eq!(it.upstream.connections(), 3);
    for (peer, text) in [(first, "a\n"), (second, "b\n"), (third, "c\n")] {
        assert_eq!(it.server.received(peer), text.as_bytes());
    }
    it.server.send(third, b"3\n");
    assert_eq!(taken(&mut replies[2]), answered("3"));
    assert_eq!(it.server.received(third), b"d\n");
    for peer in [first, second, third] {
        it.server.send(peer, b"0\n");
    }

    it.server.advance(seconds(30) - millis(1));
    assert_eq!(it.upstream.connections(), 3);
    it.server.advance(millis(1));
    assert_eq!(it.upstream.connections(), 1);
    let open = [first, second, third].map(|peer| it.server.seen(peer));
    assert_eq!(open.iter().filter(|seen| **seen == Seen::Open).count(), 1);
    assert!(it.server.next_outbound().is_none(), "it does not come back");

    // It still works, and the connection that is left is used.
    let last = [first, second, third][open.iter().position(|seen| *seen == Seen::Open).unwrap()];
    let mut reply = it.ask("e\n");
    it.server.send(last, b"5\n");
    assert_eq!(taken(&mut reply), answered("5"));
}

#[test]
fn without_a_minimum_it_connects_on_demand() {
    let mut it = Setting::new(UpstreamLimits {
        min_connections: 0,
        ..limits()
    });
    it.server.advance(seconds(5));
    assert!(it.server.next_outbound().is_none());
    let mut reply = it.ask("a\n");
    let peer = it.peer();
    it.server.send(peer, b"1\n");
    assert_eq!(taken(&mut reply), answered("1"));
    it.server.advance(seconds(30));
    assert_eq!(it.server.seen(peer), Seen::End);
    it.server.finish(peer);
    it.server.advance(seconds(30));
    assert!(it.server.next_outbound().is_none());
    let _reply = it.ask("b\n");
    it.peer();
}

#[test]
fn while_the_peer_is_away_one_connection_at_a_time_is_tried() {
    let mut it = Setting::new(UpstreamLimits {
        min_connections: 3,
        max_connections: 3,
        ..limits()
    });
    let peers = [it.peer(), it.peer(), it.peer()];
    it.server.ignore(far());
    for peer in peers {
        it.server.reset(peer);
    }
    it.server.advance(seconds(3));
    assert_eq!(it.server.connections(), 1);
    it.server.accept(far());
    assert_eq!(it.upstream.connections(), 3);
}

#[test]
fn an_idle_connection_is_kept() {
    let idle = Limits {
        idle_timeout: Some(seconds(1)),
        ..Limits::default()
    };
    let config = Config {
        limits: idle,
        ..Config::default()
    };
    let mut it = Setting::with(limits(), true, config);
    let peer = it.peer();
    it.server.advance(seconds(1_000));
    assert_eq!(it.server.seen(peer), Seen::Open);
    assert_eq!(it.server.statistics().connected, 1);
}

#[test]
fn a_protocol_that_fails_is_made_again() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    it.server.send(peer, b"unasked\n");
    assert_ne!(it.server.seen(peer), Seen::Open);
    // The peer has not closed yet, and that is not waited for.
    assert_eq!(it.upstream.connections(), 0);
    it.server.advance(millis(100));
    let peer = it.peer();
    let mut reply = it.ask("a\n");
    it.server.send(peer, b"1\n");
    assert_eq!(taken(&mut reply), answered("1"));
}

#[test]
fn a_closed_upstream_answers_what_waits_and_finishes_what_was_written() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let (mut written, mut waiting) = (it.ask("a\n"), it.ask("b\n"));
    it.upstream.close();
    it.server.run();
    assert_eq!(taken(&mut waiting), Some(Err(UpstreamError::Closed)));
    assert_eq!(it.upstream.send("c\n"), Err(UpstreamError::Closed));
    assert_eq!(it.server.seen(peer), Seen::Open);
    it.server.send(peer, b"1\n");
    assert_eq!(taken(&mut written), answered("1"));
    assert_eq!(it.server.seen(peer), Seen::End);
    it.server.finish(peer);
    it.server.advance(seconds(100));
    assert!(it.server.next_outbound().is_none());
}

#[test]
fn a_closed_upstream_gives_an_attempt_up() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    it.server.ignore(far());
    it.server.reset(peer);
    it.server.advance(millis(100));
    assert_eq!(it.server.connections(), 1);
    it.upstream.close();
    it.server.run();
    assert_eq!(it.server.connections(), 0);
}

#[test]
fn a_shutdown_waits_for_answers() {
    let mut it = Setting::new(limits());
    let peer = it.peer();
    let (mut written, mut waiting) = (it.ask("a\n"), it.ask("b\n"));
    it.server.shutdown();
    assert_eq!(it.server.seen(peer), Seen::Open);
    it.server.send(peer, b"1\n");
    assert_eq!(taken(&mut written), answered("1"));
    assert_eq!(it.server.received(peer), b"a\nb\n");
    it.server.send(peer, b"2\n");
    assert_eq!(taken(&mut waiting), answered("2"));
    assert_eq!(it.server.seen(peer), Seen::End);
    it.server.finish(peer);
    assert!(it.server.is_finished());
}

#[test]
fn the_end_of_the_loop_closes_it() {
    let mut it = Setting::new(limits());
    let mut written = it.ask("a\n");
    let mut waiting = it.ask("b\n");
    let upstream = it.upstream.clone();
    drop(it);
    assert_eq!(taken(&mut written), Some(Err(UpstreamError::Lost)));
    assert_eq!(taken(&mut waiting), Some(Err(UpstreamError::Closed)));
    assert_eq!(upstream.send("c\n"), Err(UpstreamError::Closed));
}

#[test]
fn dropping_the_last_clone_closes_it() {
    let kept = Arc::<Mutex<Option<Upstream<Answer>>>>::default();
    let keep = Arc::clone(&kept);
    let make = move |dialer: &Dialer<Boxed>| {
        let make = |link| Box::new(Lines(link, true)) as Boxed;
        *keep.lock().unwrap() = Some(Upstream::new(dialer, far(), limits(), make));
        |_: &Peer| None::<Boxed>
    };
    let mut server = MemoryServer::new(Dialing::new(make));
    let (_, peer) = server.next_outbound().unwrap();
    let clone = kept.lock().unwrap().clone();
    drop(kept.lock().unwrap().take());
    server.run();
    assert_eq!(server.seen(peer), Seen::Open);
    drop(clone);
    server.run();
    assert_eq!(server.seen(peer), Seen::End);
}

#[test]
fn a_full_output_makes_requests_wait() {
    let mut it = Setting::new(UpstreamLimits {
        max_in_flight: 1_000,
        ..limits()
    });
    let peer = it.peer();
    it.server.stop_taking(peer);
    for _ in 0..20 {
        it.upstream.send(vec![b'x'; 10_000]).unwrap();
    }
    it.server.run();
    let written = it.upstream.in_flight();
    assert!((6..=8).contains(&written), "{written}: up to the high mark");
    it.server.take(peer, usize::MAX);
    assert_eq!(it.upstream.in_flight(), 20);
    assert_eq!(it.server.received(peer).len(), 200_000);
}

#[test]
fn a_name_is_looked_up_for_each_connection() {
    let name = "tcp://db.example:7";
    let made: Target = name.parse().unwrap();
    let make = move |dialer: &Dialer<Boxed>| {
        let make = |link| Box::new(Lines(link, true)) as Boxed;
        Front(Upstream::new(dialer, made.clone(), limits(), make))
    };
    let made = Dialing::new(Box::new(make) as Box<dyn FnMut(&Dialer<Boxed>) -> Front>);
    let mut server = MemoryServer::new(made);
    assert!(server.next_outbound().is_none());
    server.name(name, vec![far()]);
    server.advance(millis(100));
    let (_, peer) = server.next_outbound().unwrap();

    let moved: Address = "tcp://192.0.2.2:7".parse().unwrap();
    server.name(name, vec![moved.clone()]);
    server.reset(peer);
    server.advance(millis(100));
    assert_eq!(server.next_outbound().unwrap().0, moved);
}

/// The answer of a clock that stands still.
#[test]
fn a_moment_that_cannot_be_is_no_deadline() {
    let mut it = Setting::new(UpstreamLimits {
        request_timeout: Some(Duration::MAX),
        idle_timeout: Some(Duration::MAX),
        max_delay: Duration::MAX,
        ..limits()
    });
    let peer = it.peer();
    let mut reply = it.ask("a\n");
    it.server.advance(seconds(100));
    it.server.send(peer, b"1\n");
    assert_eq!(taken(&mut reply), answered("1"));
    let _: Instant = it.server.now();
}

/// The protocol of one connection cannot be made; the places of the others are not lost with it.
#[test]
fn a_panic_while_one_connection_is_made_costs_that_one() {
    let kept = Arc::<Mutex<Option<Upstream<Answer>>>>::default();
    let keep = Arc::clone(&kept);
    let make = move |dialer: &Dialer<Boxed>| {
        let mut has_panicked = false;
        let make = move |link| {
            if !std::mem::replace(&mut has_panicked, true) {
                panic_quietly();
            }
            Box::new(Lines(link, true)) as Boxed
        };
        let limits = UpstreamLimits {
            min_connections: 3,
            max_connections: 3,
            ..limits()
        };
        *keep.lock().unwrap() = Some(Upstream::new(dialer, far(), limits, make));
        |_: &Peer| None::<Boxed>
    };
    let mut server = MemoryServer::new(Dialing::new(make));
    server.advance(seconds(30));
    let upstream = kept.lock().unwrap().clone().unwrap();
    assert_eq!((upstream.connections(), server.statistics().panics), (3, 1));
}
