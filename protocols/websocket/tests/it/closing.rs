//! The closing handshake, from both sides, and everything that can cut it short.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Deadline, Ended, Limits, ProtocolError, Result};
use serveloop_websocket::{
    CloseCode, Echo, Message, MessageProtocol, MessageTransport, Settings, WebSocket,
};

use crate::support::{
    BINARY, CLOSE, MORE, PING, PONG, QUIET, TEXT, closed, farewell, frame, greeted, open, patient,
    plain,
};

type Notes = Rc<RefCell<Vec<String>>>;

/// Does what messages say, and notes what it is told.
#[derive(Default)]
struct Obedient(Notes);

impl MessageProtocol for Obedient {
    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        match message {
            Message::Text("close") => {
                client.close(CloseCode::private(4000).expect("one"), "as you wish")
            }
            Message::Text("close twice") => {
                client.close(CloseCode::NORMAL, "");
                client.close(CloseCode::POLICY, "");
                client.send("too late");
                client.ping(b"too late");
                assert!(client.is_closing());
            }
            Message::Text("nothing") => client.close(CloseCode::NO_STATUS, "not sent"),
            Message::Text("abort") => client.abort(),
            Message::Text("pause") => {
                client.pause_reading();
                client.close(CloseCode::NORMAL, "");
                client.pause_reading();
            }
            Message::Text("wrong") => return Err(ProtocolError::malformed("as you say")),
            Message::Text("broken") => Err(std::io::Error::other("a secret"))?,
            Message::Binary(bytes) => {
                client.send(bytes);
                client.close(CloseCode::NORMAL, "that was much");
            }
            Message::Text(text) => client.send(text),
        }
        self.0.borrow_mut().push(format!("{message:?}"));
        Ok(())
    }

    fn pong_received(&mut self, payload: &[u8], _: &mut MessageTransport<'_>) -> Result {
        let note = format!("pong {}", payload.escape_ascii());
        self.0.borrow_mut().push(note);
        Ok(())
    }

    fn closed(&mut self, code: CloseCode, reason: &str, ended: &Ended<'_>) {
        let note = format!("{code} {reason:?}: {}", ended.reason());
        self.0.borrow_mut().push(note);
    }
}

fn obedient() -> (MemorySession<WebSocket<Obedient>>, Notes) {
    let notes = Notes::default();
    (open(Obedient(Rc::clone(&notes))), notes)
}

fn last(notes: &Notes) -> String {
    notes.borrow().last().cloned().unwrap_or_default()
}

#[test]
fn a_client_closes() {
    for (payload, answer, note) in [
        (
            farewell(1001, "gone \u{20ac}"),
            closed(1001, ""),
            "1001 \"gone \u{20ac}\": closed",
        ),
        (Vec::new(), plain(CLOSE, ""), "1005 \"\": closed"),
        (farewell(4999, ""), closed(4999, ""), "4999 \"\": closed"),
    ] {
        let (mut session, notes) = obedient();
        session.receive(&[frame(CLOSE, payload), frame(TEXT, "not seen")].concat());
        assert_eq!(session.sent(), answer);
        assert_eq!(*notes.borrow(), [note]);
    }
}

#[test]
fn the_server_closes_and_waits_for_the_answer() {
    let (mut session, notes) = obedient();
    session.receive(&frame(TEXT, "close"));
    assert_eq!(session.sent(), closed(4000, "as you wish"));
    assert!(session.reason().is_none(), "the answer is awaited");

    // Whatever else comes is discarded, not answered, and not kept.
    session.receive(&frame(TEXT, "not seen"));
    session.receive(&frame(PING, "?"));
    session.receive(&frame(PONG, "?"));
    session.receive(&frame(BINARY & MORE, [0; 5_000])[..3_000]);
    assert_eq!(session.held(), 0);
    session.receive(&frame(BINARY & MORE, [0; 5_000])[3_000..]);
    assert_eq!(session.sent(), b"");
    assert!(session.reason().is_none());

    session.receive(&frame(CLOSE, farewell(4000, "")));
    assert_eq!(session.sent(), b"");
    assert_eq!(*notes.borrow(), ["Text(\"close\")", "4000 \"\": closed"]);
}

#[test]
fn a_client_that_does_not_answer_is_not_awaited_for_ever() {
    let (mut session, notes) = obedient();
    session.receive(&frame(TEXT, "close"));
    session.advance(Duration::from_millis(4_999));
    assert!(session.reason().is_none());
    // What it sends does not give it more time.
    session.receive(&frame(TEXT, "not seen"));
    session.advance(Duration::from_millis(1));
    assert_eq!(last(&notes), "1006 \"\": closed");
}

#[test]
fn only_the_first_close_counts() {
    let (mut session, _) = obedient();
    session.receive(&frame(TEXT, "close twice"));
    assert_eq!(session.sent(), closed(1000, ""));

    let (mut session, _) = obedient();
    session.receive(&frame(TEXT, "nothing"));
    assert_eq!(session.sent(), plain(CLOSE, ""));
}

#[test]
fn a_pause_does_not_hide_the_answer() {
    let (mut session, notes) = obedient();
    session.receive(&frame(TEXT, "pause"));
    session.receive(&frame(CLOSE, farewell(1000, "")));
    assert_eq!(last(&notes), "1000 \"\": closed");
}

#[test]
fn an_abort_says_nothing() {
    let (mut session, notes) = obedient();
    session.receive(&frame(TEXT, "abort"));
    assert_eq!(session.sent(), b"");
    assert_eq!(last(&notes), "1006 \"\": aborted");
}

#[test]
fn an_error_of_the_handler_has_a_code() {
    let (mut session, _) = obedient();
    session.receive(&frame(TEXT, "wrong"));
    assert_eq!(session.sent(), closed(1008, "malformed: as you say"));

    let (mut session, notes) = obedient();
    session.receive(&frame(TEXT, "broken"));
    assert_eq!(session.sent(), closed(1011, ""), "no secrets");
    assert!(last(&notes).contains("a secret"), "{}", last(&notes));
}

/// A close frame after as much output as may wait, to a client that takes it slowly: every byte
/// arrives, and then the end.
#[test]
fn a_close_frame_is_never_cut_off() {
    let limits = Limits {
        high_water: 64,
        low_water: 32,
        ..Limits::default()
    };
    for step in [1, 7, 1_000] {
        for size in [0, 63, 64, 65, 100_000] {
            let config = patient(limits.clone());
            let handler = Obedient::default();
            let mut session = MemorySession::with_config(WebSocket::new(handler, QUIET), config);
            session.stop_taking();
            let payload = vec![b'x'; size];
            session.receive(&frame(BINARY, &payload));
            session.receive(&frame(CLOSE, farewell(1000, "")));
            // The client is slower than the deadline for its answer.
            session.advance(Duration::from_secs(60));
            session.take_in_steps(step);
            let expected = [plain(BINARY, &payload), closed(1000, "that was much")].concat();
            assert!(session.sent() == expected, "{size} by {step}");
            assert!(matches!(session.reason(), Some(CloseReason::Closed)));
        }
    }
}

#[test]
fn a_reason_is_cut_between_characters() {
    struct Verbose;
    impl MessageProtocol for Verbose {
        fn message_received(
            &mut self,
            _: Message<'_>,
            client: &mut MessageTransport<'_>,
        ) -> Result {
            client.close(CloseCode::NORMAL, &"\u{20ac}".repeat(100));
            Ok(())
        }
    }
    let mut session = open(Verbose);
    session.receive(&frame(TEXT, ""));
    assert_eq!(session.sent(), closed(1000, &"\u{20ac}".repeat(41)));
}

#[test]
fn a_stream_that_ends_without_a_close_frame() {
    let (mut session, notes) = obedient();
    session.receive_eof();
    assert_eq!(session.sent(), b"");
    assert_eq!(last(&notes), "1006 \"\": closed by the peer");

    for beginning in [
        frame(TEXT & MORE, "a"),
        frame(TEXT, "abc")[..8].to_vec(),
        frame(TEXT, "abc")[..3].to_vec(),
        frame(PING, "abc")[..8].to_vec(),
    ] {
        let (mut session, notes) = obedient();
        session.receive(&beginning);
        session.receive_eof();
        assert_eq!(session.sent(), b"");
        assert!(last(&notes).contains("truncated"), "{}", last(&notes));
    }
}

#[test]
fn a_shutdown_says_that_the_server_goes_away() {
    let (mut session, notes) = obedient();
    session.receive(&frame(TEXT & MORE, "half a message"));
    session.shutdown();
    assert_eq!(session.sent(), closed(1001, ""));
    assert!(session.reason().is_none(), "the answer is awaited");
    session.shutdown();
    session.receive(&frame(CLOSE, farewell(1001, "")));
    assert_eq!(session.sent(), b"");
    assert_eq!(last(&notes), "1001 \"\": closed by the server's shutdown");
}

#[test]
fn an_idle_client_is_told() {
    let (mut session, _) = obedient();
    session.advance(Duration::from_secs(60));
    assert_eq!(session.sent(), closed(1001, "idle for too long"));
    let reason = session.reason();
    assert!(matches!(
        reason,
        Some(CloseReason::TimedOut(Deadline::Idle))
    ));
}

#[test]
fn a_message_has_to_be_complete_in_time() {
    let timeout = Limits::default().message_timeout.unwrap();
    let second = Duration::from_secs(1);

    // By fragments, or within a frame, or within a header: what comes in between gives no more time.
    for (beginning, more) in [
        (frame(TEXT & MORE, "a"), frame(0, "b")),
        (frame(BINARY, [0; 200])[..50].to_vec(), vec![0]),
    ] {
        let (mut session, _) = obedient();
        session.receive(&beginning);
        for _ in 0..timeout.as_secs() - 1 {
            session.advance(second);
            session.receive(&more);
        }
        assert_eq!(session.sent(), b"");
        session.advance(second);
        assert_eq!(
            session.sent(),
            closed(1008, "a message was not completed in time")
        );
        assert!(session.reason().is_some());
    }

    let (mut session, _) = obedient();
    session.receive(&frame(PONG, ""));
    session.receive(&frame(PING, "abc")[..3]);
    session.advance(timeout);
    assert_eq!(
        session.sent(),
        closed(1008, "a message was not completed in time")
    );

    // A message that is complete does not count on.
    let (mut session, _) = obedient();
    session.receive(&frame(TEXT & MORE, "a"));
    session.receive(&frame(0x80, "b"));
    session.advance(timeout + second);
    assert_eq!(session.sent(), plain(TEXT, "ab"));
    assert!(session.reason().is_none());
}

/// While its input is not read, a client cannot be late.
#[test]
fn a_message_that_is_not_read_is_not_late() {
    let limits = Limits {
        high_water: 100,
        low_water: 50,
        write_timeout: None,
        idle_timeout: None,
        ..greeted().limits
    };
    let timeout = limits.message_timeout.unwrap();
    let config = Config {
        limits,
        ..Config::default()
    };
    let mut session = MemorySession::with_config(WebSocket::new(Echo, QUIET), config);
    session.stop_taking();
    let long = [b'x'; 120];
    session.receive(&[frame(TEXT & MORE, "a"), frame(PING, long)].concat());
    session.receive(&frame(0x80, "b"));
    session.advance(timeout * 3);
    assert!(session.reason().is_none(), "{:?}", session.reason());
    session.take_in_steps(1_000);
    assert_eq!(
        session.sent(),
        [plain(PONG, long), plain(TEXT, "ab")].concat()
    );
}

#[test]
fn a_silent_client_is_asked_whether_it_is_there() {
    let notes = Notes::default();
    let handler = Obedient(Rc::clone(&notes));
    let mut session =
        MemorySession::with_config(WebSocket::new(handler, Settings::default()), greeted());
    let interval = Settings::default().ping_interval.unwrap();

    // It answers for as long as it likes: longer than `idle_timeout`.
    for _ in 0..10 {
        session.advance(interval);
        assert_eq!(session.sent(), plain(PING, ""));
        session.advance(interval / 3);
        session.receive(&frame(PONG, ""));
        assert_eq!(last(&notes), "pong ");
    }

    // Whatever it sends shows that it is there.
    session.advance(interval / 2);
    session.receive(&frame(TEXT, "x"));
    assert_eq!(session.sent(), plain(TEXT, "x"));
    session.advance(interval - Duration::from_millis(1));
    assert_eq!(session.sent(), b"");

    session.advance(Duration::from_millis(1));
    assert_eq!(session.sent(), plain(PING, ""));
    session.advance(interval);
    assert_eq!(session.sent(), closed(1011, "no answer to a ping"));
    assert_eq!(last(&notes), "1006 \"\": closed");
}

#[test]
fn a_client_that_takes_nothing_is_not_asked() {
    let config = Config {
        limits: Limits {
            write_timeout: Some(Duration::from_secs(300)),
            first_message_timeout: None,
            idle_timeout: None,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut session = MemorySession::with_config(WebSocket::new(Echo, Settings::default()), config);
    session.stop_taking();
    session.receive(&frame(TEXT, "x"));
    session.advance(Duration::from_secs(299));
    session.take(1_000);
    assert_eq!(session.sent(), plain(TEXT, "x"));
}
