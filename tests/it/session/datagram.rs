//! A session of one datagram, in which everything happens at once.

use std::time::Instant;

use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::layer::{Layered, Preface, Prefaced, Prelude};
use serveloop::testing::Identity;
use serveloop::{Config, Peer, Protocol, Result};

use crate::support::probe::{Log, Probe};

/// Serves one datagram with `protocol`.
fn serve(protocol: impl Protocol, data: &[u8]) {
    let (clock, config) = (Clock::new(Instant::now()), Config::default());
    let mailbox = Mailbox::new(Box::new(|| ()));
    let context = Context::new(&clock, &config, &mailbox, 0);
    let peer = Peer::new("udp://192.0.2.1:4711".parse().unwrap(), Some(0));
    let mut session = Session::new(protocol, peer, clock.tick());
    session.handle_datagram(data, &context);
    session.handle_lost(&context);
}

#[test]
fn a_call_that_is_asked_for_comes_before_the_rest() {
    for data in ["", "hello"] {
        let log = Log::default();
        let probe = Probe::new(&log).made(|transport| {
            transport.call_again();
            Ok(())
        });
        serve(probe, data.as_bytes());
        let shown = format!("data {data}");
        let expected = ["made", "woken", &shown, "eof ", "lost closed by the peer"];
        assert_eq!(log.entries(), expected);
    }
}

#[test]
fn calls_that_are_asked_for_without_end_end() {
    let log = Log::default();
    let probe = Probe::new(&log)
        .data(|_, transport| {
            transport.call_again();
            Ok(0)
        })
        .woken(|transport| transport.call_again());
    serve(probe, b"hello");
    assert_eq!(log.count("woken"), Config::default().messages_per_turn);
    assert_eq!(log.count("lost"), 1);
}

#[test]
fn any_number_of_messages_is_shown_inside_a_layer() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|_, _| Ok(1));
    serve(Layered::around(Identity, probe), &[b'x'; 10_000]);
    assert_eq!(log.count("data"), 10_000);
    assert_eq!(log.entries().last().unwrap(), "lost closed by the peer");
}

/// Three bytes.
struct Three;

impl Preface for Three {
    type Info = ();

    fn read(&mut self, _: &[u8], _: &Peer) -> Result<Option<Prelude<()>>> {
        Ok(Some(Prelude {
            length: 3,
            client: None,
            info: (),
        }))
    }
}

#[test]
fn what_follows_a_preface_may_be_empty() {
    for (data, shown) in [("abc", "data "), ("abcd", "data d")] {
        let log = Log::default();
        let given = log.clone();
        let build = move |_: &Peer, (): &()| Some(Probe::new(&given));
        serve(Prefaced::new(Three, build), data.as_bytes());
        assert_eq!(log.entries()[..3], ["made", shown, "eof "]);
    }
}
