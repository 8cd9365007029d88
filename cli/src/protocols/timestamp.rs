//! `serve timestamp`: an echo with the time in front.

use std::io;

use clap::Args;
use jiff::Zoned;
use jiff::tz::TimeZone;
use serveloop::framing::{FrameProtocol, FrameTransport, Framed};
use serveloop::{Peer, ProtocolError, Statistics};

use crate::logger::TARGET;
use crate::serving::{BoundServer, Execution, MessageKind, Messages};

/// The format of C's `ctime` without its newline: 24 characters, the day padded with a space.
const CTIME: &str = "%a %b %e %H:%M:%S %Y";

/// Answers each message with the time and the message.
#[derive(Debug)]
pub(crate) struct Timestamp<C> {
    clock: C,
}

impl<C: Fn() -> Zoned> Timestamp<C> {
    /// Makes a protocol that takes the time from `clock`.
    pub(crate) fn new(clock: C) -> Self {
        Self { clock }
    }
}

impl<C: Fn() -> Zoned> FrameProtocol for Timestamp<C> {
    type Framing = Messages;

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, Messages>,
    ) -> Result<(), ProtocolError> {
        let stamp = format!("[{}] ", (self.clock)().strftime(CTIME));
        frames.send(&[stamp.as_bytes(), frame].concat())
    }
}

/// Sends back what it receives with the time in front: [Thu Jan  1 00:00:00 1970] data.
///
///   $ serveloop serve timestamp --framing line
///   listening on tcp://127.0.0.1:9999
///
/// In another terminal, type the first line; the second comes back:
///
///   $ nc 127.0.0.1 9999
///   good morning
///   [Thu Jan  1 00:00:00 1970] good morning
///
/// The time is local time, in the format of C's ctime. Without --framing line, each piece of data that
/// arrives is a message, without the newline at its end, and replies have no newline. The connection
/// stays open until the client closes it. Each datagram is one message:
///
///   $ serveloop serve timestamp --listen udp://127.0.0.1:9999
///   $ nc -u 127.0.0.1 9999
///
/// A reply to another machine's datagram is dropped if it is longer than --reply-factor times the
/// datagram. With --reply-factor 28 every message but the empty one gets its reply.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct TimestampOptions {
    /// What counts as one message
    #[arg(long, value_enum, default_value_t = MessageKind::Raw)]
    framing: MessageKind,
}

impl TimestampOptions {
    pub(crate) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        check_zone();

        let max_line = server.max_line();
        execution.serve(server, move |peer: &Peer| {
            let messages = Messages::new(self.framing, max_line.of(peer));
            Some(Framed::new(messages, Timestamp::new(Zoned::now)))
        })
    }
}

/// Warns if the local time zone is not known, so that times are in UTC.
pub(super) fn check_zone() {
    if let Err(error) = TimeZone::try_system() {
        log::warn!(target: TARGET, "no local time zone: times are in UTC: {error}");
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use serveloop::testing::{MemorySession, SplitChecker};

    use super::*;

    fn epoch() -> Zoned {
        let moment = date(1970, 1, 1).at(0, 0, 0, 0);
        moment.to_zoned(TimeZone::UTC).unwrap()
    }

    fn session(cut: MessageKind) -> MemorySession<impl serveloop::Protocol> {
        MemorySession::new(Framed::new(Messages::new(cut, 10), Timestamp::new(epoch)))
    }

    #[test]
    fn the_first_moment_as_ctime_writes_it() {
        let mut session = session(MessageKind::Raw);
        session.receive(b"data");
        assert_eq!(session.sent(), b"[Thu Jan  1 00:00:00 1970] data");
        session.receive(b"more\n");
        assert_eq!(session.sent(), b"[Thu Jan  1 00:00:00 1970] more");
        assert!(session.reason().is_none());
    }

    #[test]
    fn the_form_has_24_characters() {
        let moments = [
            (
                date(2024, 2, 29).at(23, 59, 59, 0),
                "Thu Feb 29 23:59:59 2024",
            ),
            (date(2023, 12, 5).at(7, 8, 9, 0), "Tue Dec  5 07:08:09 2023"),
        ];

        for (moment, expected) in moments {
            let zoned = moment.to_zoned(TimeZone::UTC).unwrap();
            assert_eq!(zoned.strftime(CTIME).to_string(), expected);
            assert_eq!(expected.len(), 24);
        }
    }

    #[test]
    fn the_time_is_that_of_its_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let mut session = MemorySession::new(Framed::new(
            Messages::Pieces,
            Timestamp::new(move || epoch().with_time_zone(zone.clone())),
        ));
        session.receive(b"later");
        assert_eq!(session.sent(), b"[Thu Jan  1 02:00:00 1970] later");
    }

    #[test]
    fn lines_however_they_are_cut() {
        let make = || Framed::new(Messages::new(MessageKind::Line, 10), Timestamp::new(epoch));
        SplitChecker::new(make).check(&[b"one\n", b"\n", b"three\r\n"]);
    }

    #[test]
    fn the_longest_line_has_its_reply() {
        let mut session = session(MessageKind::Line);
        session.receive(b"0123456789\n");
        assert_eq!(session.sent(), b"[Thu Jan  1 00:00:00 1970] 0123456789\n");
        assert!(session.reason().is_none());
    }
}
