//! What a protocol does when its preface has just been read.

use std::time::Instant;

use serveloop::driver::{Clock, Context, Mailbox, Session};
use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::layer::{Layered, Preface, Prefaced, Prelude, Upgradable, Upgrade};
use serveloop::testing::{Identity, MemorySession};
use serveloop::{Config, Limits, Peer, Protocol, Result, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{noise, seconds, timeless};

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

/// Says how long each message is.
struct Lengths;

impl FrameProtocol for Lengths {
    type Framing = LengthPrefix;

    fn frame_received(
        &mut self,
        message: &[u8],
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) -> Result {
        let length = message.len().to_string();
        frames.transport().write(length.as_bytes());
        Ok(())
    }
}

/// The rest of it is read into the memory of the connection, which has the preface in front.
#[test]
fn a_long_first_message_arrives_however_it_is_cut() {
    const LENGTH: usize = 100_000;
    let preface = 10;
    let all = [
        &b"0123456789"[..],
        &(LENGTH as u32).to_be_bytes(),
        &noise(LENGTH),
    ]
    .concat();
    let head = preface + 4;

    let near_the_end = (all.len() - 2 * head..all.len()).chain([1, preface, head, 70_000]);
    for cut in near_the_end {
        for begins in [preface, head, cut] {
            let build = |_: &Peer, (): &()| Some(Framed::new(LengthPrefix::u32(1 << 20), Lengths));
            let mut session = MemorySession::new(Prefaced::new(Bytes(preface), build));
            let first = begins.min(cut);
            session.receive(&all[..first]);
            session.receive(&all[first..cut]);
            assert_eq!(session.sent(), b"", "cut at {first} and {cut}");
            session.receive(&all[cut..]);
            assert_eq!(session.sent(), b"100000", "cut at {first} and {cut}");
        }
    }
}

/// The protocol inside has a method for datagrams, with each of the ways around it.
#[test]
fn a_datagram_stays_one_in_all_that_is_around_it() {
    fn told(protocol: impl Protocol, bytes: &[u8], log: &Log) -> Vec<String> {
        let peer = Peer::new("udp://192.0.2.1:80".parse().unwrap(), Some(0));
        let (clock, config) = (Clock::new(Instant::now()), Config::default());
        let mailbox = Mailbox::new(Box::new(|| ()));
        let context = &Context::new(&clock, &config, &mailbox, 0);
        let mut session = Session::new(protocol, peer, clock.tick());
        session.handle_datagram(bytes, context);
        log.entries()
    }

    let build = |log: &Log| {
        let log = log.clone();
        move |_: &Peer, (): &()| Some(Datagrams(Probe::new(&log)))
    };
    let log = Log::default();
    let plain = told(Datagrams(Probe::new(&log)), b"hello", &log);
    assert_eq!(plain[..2], ["made", "datagram hello"], "{plain:?}");

    let log = Log::default();
    let prefaced = Prefaced::new(Bytes(2), build(&log));
    assert_eq!(told(prefaced, b"01hello", &log), plain);
    let log = Log::default();
    let layered = Layered::new(Identity, build(&log));
    assert_eq!(told(layered, b"hello", &log), plain);
    let log = Log::default();
    let upgradable = Upgradable::new(Datagrams(Probe::new(&log)));
    assert_eq!(told(upgradable, b"hello", &log), plain);
}

/// Notes what comes as a datagram.
struct Datagrams(Probe);

impl Protocol for Datagrams {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        self.0.connection_made(transport)
    }

    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        self.0.data_received(data, transport)
    }

    fn datagram_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.0.note(&format!("datagram {}", data.escape_ascii()));
        Ok(data.len())
    }
}

impl Upgrade for Datagrams {
    type Next = Probe;

    fn take_next(&mut self) -> Option<Probe> {
        None
    }
}
