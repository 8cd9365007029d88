//! Errors and counts as a program that uses the library sees them.

use std::error::Error;
use std::io;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Deadline, Protocol, ProtocolError, Result, Statistics, Transport};

/// Fails by `?` in the way that its input names.
struct Failing;

impl Protocol for Failing {
    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        match data {
            b"io" => Err(io::Error::other("a disk"))?,
            b"text" => Err("a text")?,
            b"owned" => Err(format!("{} bytes", data.len()))?,
            b"boxed" => Err(Box::<dyn Error + Send + Sync>::from("a box"))?,
            _ => Ok(data.len()),
        }
    }
}

#[test]
fn a_question_mark_takes_what_usually_fails() {
    let fail = |input: &[u8]| {
        let mut session = MemorySession::new(Failing);
        session.receive(input);
        session.reason().map(ToString::to_string)
    };
    for (input, expected) in [
        ("io", "protocol error: a disk"),
        ("text", "protocol error: malformed: a text"),
        ("owned", "protocol error: malformed: 5 bytes"),
        ("boxed", "protocol error: a box"),
    ] {
        assert_eq!(fail(input.as_bytes()).as_deref(), Some(expected));
    }
    assert_eq!(fail(b"well"), None);
}

#[test]
fn the_reason_of_an_end_is_an_error_with_its_source() {
    let reset = CloseReason::Io(io::Error::from(io::ErrorKind::ConnectionReset));
    assert!(
        reset
            .source()
            .is_some_and(|source| source.is::<io::Error>())
    );
    let broken = CloseReason::Protocol(ProtocolError::malformed("a text"));
    assert!(
        broken
            .source()
            .is_some_and(|source| source.is::<ProtocolError>())
    );
    let late: Box<dyn Error> = Box::new(CloseReason::TimedOut(Deadline::Idle));
    assert!(late.source().is_none());
    assert_eq!(late.to_string(), "timed out: idle for too long");
}

#[test]
fn statistics_are_added_listed_and_shown() {
    let mut sum = Statistics::default();
    assert_eq!(sum.to_string(), "");
    let mut other = Statistics::default();
    (other.accepted, other.bytes_read) = (2, 10);
    sum += &other;
    sum += &other;
    assert_eq!(sum.to_string(), "accepted 4, bytes_read 20");
    let listed: Vec<_> = (&sum).into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(listed, [("accepted", 4), ("bytes_read", 20)]);
    assert_eq!((&sum).into_iter().count(), sum.iter().count());
}
