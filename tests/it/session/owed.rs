//! What a session still owes its peer when its protocol closes, pauses, panics or says its last word.

use std::io::{self, ErrorKind, Read};

use serveloop::testing::{MemoryServer, MemorySession};
use serveloop::{Config, Deadline, Limits, Peer, Protocol, Result, Transport};

use crate::support::{panic_quietly, seconds, timeless};

/// A source that never has anything.
struct Never;

impl Read for Never {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// Does what a byte says.
#[derive(Default)]
struct Odd {
    left: usize,
}

impl Odd {
    fn write_some(&mut self, transport: &mut Transport<'_>) {
        self.left -= transport.write_some(&vec![b's'; self.left]);
    }
}

impl Protocol for Odd {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        match data[0] {
            b'b' => self.left = 70_000,
            b'c' => {}
            b'p' => transport.pause_reading(),
            b'w' => transport.write(b"partial"),
            b'2' => {
                transport.write_datagram(&[1; 40_000]);
                transport.send(io::repeat(2).take(40_000));
            }
            b'!' => {
                transport.write_datagram(b"lost");
                panic_quietly();
            }
            b'a' => {
                transport.write_datagram(b"lost");
                transport.abort();
            }
            _ => transport.write_datagram(data),
        }
        if self.left > 0 {
            self.write_some(transport);
        }
        match data[0] {
            b'c' => transport.close(),
            b'p' => {
                transport.send(Never);
                transport.close();
            }
            _ => {}
        }
        Ok(data.len())
    }

    fn deadline_passed(&mut self, _: Deadline, transport: &mut Transport<'_>) {
        transport.send(&b"408\n"[..]);
    }
}

/// Nothing is cut short if the rest found room before the mark at which the protocol is told of it.
#[test]
fn what_was_written_in_the_end_is_not_cut_short() {
    for (taken, cut_short) in [(10_000, 0), (1, 1)] {
        let mut server = MemoryServer::new(|_: &Peer| Some(Odd::default()));
        let client = server.connect();
        server.stop_taking(client);
        server.send(client, b"b");
        server.take(client, taken);
        server.send(client, b"c");
        server.take(client, usize::MAX);
        assert_eq!(server.received(client).len() == 70_000, cut_short == 0);
        assert_eq!(server.statistics().cut_short, cut_short, "{taken}");
    }
}

/// A pause says nothing about a connection that is closing.
#[test]
fn a_pause_takes_no_deadline_from_a_connection_that_closes() {
    let mut session = MemorySession::new(Odd::default());
    session.receive(b"p");
    assert!(session.deadline().is_some());
    session.advance(seconds(61));
    assert!(session.reason().is_some());
}

#[test]
fn a_last_word_may_come_from_a_source() {
    let limits = Limits {
        write_timeout: None,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..timeless()
    };
    let mut session = MemorySession::with_config(Odd::default(), config);
    session.stop_taking();
    session.receive(b"w");
    session.advance(seconds(60));
    session.take(usize::MAX);
    assert_eq!(session.sent(), b"partial408\n");
}

#[test]
fn a_source_fills_a_datagram_of_its_own() {
    let mut session = MemorySession::datagrams(Odd::default());
    session.receive_datagram(b"2");
    let lengths: Vec<_> = session.take_datagrams().iter().map(Vec::len).collect();
    assert_eq!(lengths, [40_000, 40_000]);
}

#[test]
fn datagrams_that_were_complete_go_with_their_session() {
    for last in [b"!", b"a"] {
        let mut session = MemorySession::datagrams(Odd::default());
        session.receive_datagram(b"x");
        session.receive_datagram(last);
        assert_eq!(session.take_datagrams(), [b"x"]);
        assert!(session.reason().is_some());
    }
}
