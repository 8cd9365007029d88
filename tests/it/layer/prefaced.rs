//! What a protocol does when its preface has just been read.

use serveloop::layer::{Preface, Prefaced, Prelude};
use serveloop::testing::MemorySession;
use serveloop::{Config, Limits, Peer, Result, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{seconds, timeless};

/// As many bytes as it says.
struct Bytes(usize);

impl Preface for Bytes {
    type Info = ();

    fn read(&mut self, data: &[u8], _: &Peer) -> Result<Option<Prelude<()>>> {
        let prelude = Prelude {
            length: self.0,
            client: None,
            info: (),
        };
        Ok((data.len() >= self.0).then_some(prelude))
    }
}

fn told(length: usize, made: fn(&mut Transport<'_>)) -> Vec<String> {
    let log = Log::default();
    let given = log.clone();
    let build = move |_: &Peer, (): &()| {
        Some(Probe::new(&given).made(move |transport| {
            made(transport);
            Ok(())
        }))
    };
    let mut session = MemorySession::with_config(Prefaced::new(Bytes(length), build), timeless());
    session.receive(&b"0123456789"[..length]);
    session.receive(b"hello");
    log.entries()
}

#[test]
fn a_protocol_that_begins_with_a_pause_is_shown_nothing() {
    for length in [0, 1, 10] {
        assert_eq!(told(length, |_| ()), ["made", "data hello"]);
        assert_eq!(told(length, |it| it.pause_reading()), ["made"]);
        assert_eq!(told(length, |it| it.abort()), ["made", "lost aborted"]);

        let again = ["made", "woken", "data hello"];
        assert_eq!(told(length, |it| it.call_again()), again);
        let full = ["made", "resume", "data hello"];
        assert_eq!(told(length, |it| it.write(&[0; 70_000])), full);
    }
}

#[test]
fn a_peer_that_owes_no_message_is_not_late_after_its_preface() {
    let config = Config {
        limits: Limits {
            message_timeout: Some(seconds(3)),
            ..timeless().limits
        },
        ..timeless()
    };
    let peer = Peer::new("tcp://192.0.2.1:80".parse().unwrap(), None);
    let log = Log::default();
    let build = move |_: &Peer, (): &()| Some(Probe::new(&log).data(|_, _| Ok(0)));
    let mut session = MemorySession::with_peer(Prefaced::new(Bytes(4), build), config, peer);
    session.receive(b"0123");
    session.advance(seconds(60));
    assert!(session.reason().is_none());
    assert_eq!(session.held(), 0);

    session.receive(b"begun");
    session.advance(seconds(3));
    assert!(session.reason().is_some());
}

/// The same of a client that the server trusts, which owes nothing although it was accepted.
#[test]
fn a_trusted_client_is_not_late_after_its_preface() {
    let log = Log::default();
    let build = move |_: &Peer, (): &()| Some(Probe::new(&log).data(|_, _| Ok(0)));
    let config = Config::trusted();
    let mut session = MemorySession::with_config(Prefaced::new(Bytes(4), build), config);
    session.receive(b"0123");
    session.advance(seconds(86_400));
    assert!(session.reason().is_none());

    session.receive(b"begun");
    session.advance(seconds(30));
    assert!(session.reason().is_some());
}
