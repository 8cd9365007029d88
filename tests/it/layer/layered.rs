//! Layers that break their rules or go to their limits, and what the protocol inside sees of it.

use std::io::{self, ErrorKind, Read};

use serveloop::layer::{Layer, Layered, Prefaced, Received, Wire};
use serveloop::protocols::Echo;
use serveloop::testing::{Identity, MemorySession, Scrambled};
use serveloop::{CloseReason, Config, Limits, Peer, Protocol, Result, Transport, Waker};

use super::From;
use crate::support::probe::{Log, Probe};
use crate::support::{noise, panic_quietly, timeless};

/// Units of one letter, or of `m` and a number of bytes.
#[derive(Default)]
struct Letters {
    is_open: bool,
    is_mute: bool,
    held: usize,
}

impl Layer for Letters {
    type Info = ();

    fn opened(&mut self) -> Option<()> {
        self.is_open.then_some(())
    }

    fn received<'a>(&mut self, data: &'a [u8], wire: &mut Wire<'_>) -> Result<Received<'a>> {
        let unit = Received::taken(1);
        Ok(match data[0] {
            b'o' => {
                self.is_open = true;
                unit
            }
            // Plain bytes, none of them, and the end.
            b'p' => unit.with_plain(&data[..1]),
            b'n' => unit.with_plain(&[][..]),
            b'e' => unit.with_end(),
            b'b' => unit.with_plain(&b"last"[..]).with_end(),
            // More than may wait, and plain bytes that come too late.
            b'w' => {
                wire.write(&vec![0; 2 << 20]);
                unit.with_plain(&b"late"[..])
            }
            b'h' => {
                self.held += 1_000;
                unit
            }
            b'f' => {
                self.held = 0;
                unit
            }
            b't' => Received::taken(data.len() + 1),
            other => return Err(format!("{other} is no unit").into()),
        })
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result {
        if !self.is_mute {
            wire.write(plain);
        }
        Ok(())
    }

    fn held(&self) -> usize {
        self.held
    }
}

/// What the protocol inside is told when these units arrive.
fn told(units: &[u8]) -> Vec<String> {
    let log = Log::default();
    let layered = Layered::around(Letters::default(), Probe::new(&log).eof(|_, _| Ok(())));
    let mut config = timeless();
    config.limits.max_reply = 1 << 20;
    let mut session = MemorySession::with_config(layered, config);
    session.receive(units);
    log.entries()
}

#[test]
fn a_unit_without_plain_bytes_is_not_shown() {
    assert_eq!(told(b"onpn"), ["made", "data p"]);
    // Nor is a record of the other layer that is empty.
    let log = Log::default();
    let mut session = MemorySession::new(Layered::around(Scrambled::new(3), Probe::new(&log)));
    session.receive(&Scrambled::new(3).end_mark());
    assert_eq!(log.entries(), ["made"]);
}

#[test]
fn a_layer_that_breaks_its_rules_counts_as_a_panic() {
    let panicked = "lost the protocol panicked";
    // More taken than there was, plain bytes before the layer is open, and after the end.
    assert_eq!(told(b"ot"), ["made", panicked]);
    assert_eq!(told(b"p"), [panicked]);
    assert_eq!(told(b"oep"), ["made", "eof ", panicked]);
    assert_eq!(told(b"obep"), ["made", "data last", "eof ", panicked]);
}

/// Writes as much as there is room for, or all at once.
struct Source {
    left: Vec<u8>,
    is_polite: bool,
}

impl Protocol for Source {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        if self.is_polite {
            self.resume_writing(transport);
        } else {
            transport.write(&self.left);
        }
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        let taken = transport.write_some(&self.left);
        self.left.drain(..taken);
    }
}

/// What a layer adds is not the protocol's: who writes within the limits stays within them, also in
/// two layers.
#[test]
fn what_a_layer_adds_is_not_too_much_output() {
    let config = Config {
        limits: Limits {
            low_water: 1_000,
            high_water: 8_000,
            max_output: 8_000,
            max_reply: 8_000,
            ..timeless().limits
        },
        ..timeless()
    };
    let source = |length, is_polite| Source {
        left: noise(length),
        is_polite,
    };
    let (layer, outer) = (Scrambled::new(3), Scrambled::new(5));

    for step in [1, 700, usize::MAX] {
        let inside = Layered::around(layer, source(50_000, true));
        let mut session = MemorySession::with_config(inside, config.clone());
        session.take_in_steps(step);
        assert_eq!(session.reason().map(ToString::to_string), None, "{step}");
        assert!(session.sent() == layer.expect(&noise(50_000)), "{step}");

        let inside = Layered::around(outer, Layered::around(layer, source(50_000, true)));
        let mut session = MemorySession::with_config(inside, config.clone());
        session.take_in_steps(step);
        let expected = outer.expect(&layer.expect(&noise(50_000)));
        assert!(session.sent() == expected, "{step}");
    }

    // Nor is the end mark behind what just fits.
    let marked = layer.with_end_mark();
    let log = Log::default();
    let probe = Probe::new(&log).made(|transport| {
        transport.write(&noise(8_000));
        transport.close();
        Ok(())
    });
    let mut session = MemorySession::with_config(Layered::around(marked, probe), config.clone());
    assert_eq!(log.entries(), ["made", "lost closed"]);
    let expected = [layer.expect(&noise(8_000)), marked.end_mark()].concat();
    assert!(session.sent() == expected);

    // Whoever writes more than the limit is not let off.
    for (length, ends) in [(8_000, false), (8_001, true)] {
        let inside = Layered::around(layer, source(length, false));
        let session = MemorySession::with_config(inside, config.clone());
        assert_eq!(session.reason().is_some(), ends, "{length}");
    }
}

/// Panics while it writes in place.
struct Clumsy;

impl Layer for Clumsy {
    type Info = ();

    fn opened(&mut self) -> Option<()> {
        Some(())
    }

    fn received<'a>(&mut self, _: &'a [u8], wire: &mut Wire<'_>) -> Result<Received<'a>> {
        wire.write_with(1_000, |_| panic_quietly());
        Ok(Received::incomplete())
    }

    fn send(&mut self, _: &[u8], _: &mut Wire<'_>) -> Result {
        Ok(())
    }
}

#[test]
fn room_that_a_panic_left_unfilled_was_no_output() {
    let mut session = MemorySession::new(Layered::around(Clumsy, Echo));
    session.receive(b"x");
    let ended = session.ended().expect("an end");
    assert!(matches!(ended.reason(), CloseReason::Panicked));
    assert_eq!((ended.sent(), ended.unsent()), (0, 0));
}

#[test]
fn an_end_before_the_layer_is_open_ends_the_connection() {
    assert_eq!(told(b"e"), ["lost closed by the peer"]);
}

#[test]
fn nothing_is_told_inside_once_the_layer_has_ended_the_connection() {
    let overflow = CloseReason::Overflow.to_string();
    assert_eq!(told(b"ow"), ["made".to_owned(), format!("lost {overflow}")]);
}

#[test]
fn what_a_layer_keeps_is_charged_after_each_unit() {
    let mut session = MemorySession::new(Layered::around(Letters::default(), Echo));
    for (units, held) in [
        (&b"hh"[..], 2_000),
        (b"o", 2_000),
        (b"hp", 3_000),
        (b"f", 0),
    ] {
        session.receive(units);
        assert_eq!(session.held(), held, "{}", units.escape_ascii());
    }
}

/// As a compression does that waits for more.
#[test]
fn a_producer_goes_on_if_a_layer_has_nothing_to_send_for_what_was_full() {
    let log = Log::default();
    let probe = Probe::new(&log).data(|data, transport| {
        transport.write(&[0; 100_000]);
        assert!(transport.is_full());
        Ok(data.len())
    });
    let layer = Letters {
        is_open: true,
        is_mute: true,
        ..Letters::default()
    };
    let mut session = MemorySession::with_config(Layered::around(layer, probe), timeless());
    session.receive(b"p");
    session.receive(b"p");
    let expected = ["made", "data p", "resume", "data p", "resume"];
    assert_eq!(log.entries(), expected);
}

#[test]
fn a_client_that_is_named_inside_a_layer_is_the_peer_outside() {
    let peer = Peer::new("tcp://192.0.2.1:80".parse().unwrap(), Some(0));
    let inside = Prefaced::new(From, |_: &Peer, _: &usize| Some(Echo));
    let layered = Layered::around(Identity, inside);
    let mut session = MemorySession::with_peer(layered, Config::default(), peer);
    session.receive(b"tcp://10.1.2.3:4\nhello");
    session.receive_eof();
    let ended = session.ended().unwrap();
    assert_eq!(ended.peer().to_string(), "tcp://10.1.2.3:4");
    assert_eq!(
        ended.peer().via().unwrap().to_string(),
        "tcp://192.0.2.1:80"
    );
}

/// Gives 64 KiB, then nothing for now, twice.
struct InParts {
    left: usize,
    parts: u8,
    waker: Waker,
}

impl Read for InParts {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.parts > 0 {
            self.parts -= 1;
            self.left = if self.parts == 0 { 0 } else { 65_536 };
            self.waker.wake();
            return Err(ErrorKind::WouldBlock.into());
        }

        let count = room.len().min(self.left);
        room[..count].fill(b's');
        self.left -= count;
        Ok(count)
    }
}

/// Sends what a source makes, then the rest as there is room.
struct Behind(Vec<u8>);

impl Protocol for Behind {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let waker = transport.waker();
        transport.send(InParts {
            left: 65_536,
            parts: 2,
            waker,
        });
        self.resume_writing(transport);
        Ok(data.len())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        let sent = transport.write_some(&self.0);
        self.0.drain(..sent);
        if self.0.is_empty() {
            transport.close();
        }
    }
}

#[test]
fn who_waits_for_room_behind_a_source_is_told_of_it() {
    fn sent(protocol: impl Protocol) -> usize {
        let mut session = MemorySession::new(protocol);
        session.stop_taking();
        session.receive(b"?");
        let mut count = 0;
        for _ in 0..1_000 {
            session.take(1_000);
            session.run();
            count += session.sent().len();
        }
        assert!(session.reason().is_some(), "after {count} bytes");
        count
    }

    for length in [1, 40_000, 100_000, 200_000] {
        let behind = || Behind(vec![b'r'; length]);
        let plain = sent(behind());
        let layered = Layered::new(Identity, move |_: &Peer, (): &()| Some(behind()));
        assert_eq!(sent(layered), plain, "{length}");
    }
}
