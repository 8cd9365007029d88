//! When a connection is handed over, and what the next protocol is told.

use serveloop::layer::{Upgradable, Upgrade};
use serveloop::testing::MemorySession;
use serveloop::{Protocol, Result, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{panic_quietly, timeless};

/// Hands over when it is called with what it waits for.
struct Until {
    event: &'static str,
    takes: usize,
    next: Option<Probe>,
    is_time: bool,
}

impl Protocol for Until {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.is_time |= self.event == "data";
        Ok(data.len().min(self.takes))
    }

    fn eof_received(&mut self, _: &[u8], transport: &mut Transport<'_>) -> Result {
        self.is_time |= self.event == "eof";
        if self.event == "woken" {
            transport.call_again();
        }
        Ok(())
    }

    fn woken(&mut self, _: &mut Transport<'_>) {
        self.is_time |= self.event == "woken";
    }
}

impl Upgrade for Until {
    type Next = Probe;

    fn take_next(&mut self) -> Option<Probe> {
        self.next.take_if(|_| self.is_time)
    }
}

fn told(event: &'static str, takes: usize, made: fn(&mut Transport<'_>)) -> Vec<String> {
    let log = Log::default();
    let next = Probe::new(&log).made(move |transport| {
        made(transport);
        Ok(())
    });
    let first = Until {
        event,
        takes,
        next: Some(next),
        is_time: false,
    };
    let mut session = MemorySession::with_config(Upgradable::new(first), timeless());
    session.receive(b"hello");
    session.receive_eof();
    log.entries()
}

#[test]
fn the_next_protocol_is_told_of_an_end_that_the_first_one_has_seen() {
    let closed = "lost closed by the peer";
    assert_eq!(told("eof", 5, |_| ()), ["made", "eof ", closed]);
    assert_eq!(told("woken", 5, |_| ()), ["made", "eof ", closed]);

    let unread = told("eof", 0, |_| ());
    assert_eq!(unread, ["made", "data hello", "eof ", closed]);
}

/// Hands over at its first byte, to a protocol that panics at once.
struct ToPanic(Log, bool);

impl Protocol for ToPanic {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.1 = true;
        Ok(data.len())
    }
}

impl Upgrade for ToPanic {
    type Next = Probe;

    fn take_next(&mut self) -> Option<Probe> {
        let next = || Probe::new(&self.0).made(|_| panic_quietly());
        self.1.then(next)
    }
}

#[test]
fn a_next_protocol_that_panics_at_its_beginning_is_told_of_the_end() {
    let log = Log::default();
    let mut session = MemorySession::new(Upgradable::new(ToPanic(log.clone(), false)));
    session.receive(b"x");
    assert_eq!(log.entries(), ["made", "lost the protocol panicked"]);
}

#[test]
fn a_next_protocol_that_begins_with_a_pause_is_shown_nothing() {
    for (takes, shown) in [(0, "data hello"), (2, "data llo")] {
        assert_eq!(told("data", takes, |it| it.pause_reading()), ["made"]);
        let again = told("data", takes, |it| it.call_again());
        assert_eq!(again[..3], ["made", "woken", shown]);
        let full = told("data", takes, |it| it.write(&[0; 70_000]));
        assert_eq!(full[..3], ["made", "resume", shown]);
    }
}
