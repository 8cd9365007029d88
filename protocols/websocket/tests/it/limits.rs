//! Backpressure, and limits that a connection changes.

use std::sync::Arc;
use std::time::Duration;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Limits, Result};
use serveloop_websocket::{CloseCode, Message, MessageProtocol, MessageTransport, WebSocket};

use crate::support::{BINARY, QUIET, TEXT, closed, frame, open, patient, plain};

const COUNT: u32 = 10_000;

/// Sends numbers, no faster than they are taken.
struct Numbers(u32);

impl MessageProtocol for Numbers {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
        self.resume_writing(client);
        Ok(())
    }

    fn message_received(&mut self, _: Message<'_>, _: &mut MessageTransport<'_>) -> Result {
        Ok(())
    }

    fn resume_writing(&mut self, client: &mut MessageTransport<'_>) {
        while self.0 < COUNT && !client.is_full() {
            client.send(&self.0.to_be_bytes());
            self.0 += 1;
        }
        if self.0 == COUNT {
            client.close(CloseCode::NORMAL, "");
        }
    }
}

#[test]
fn a_producer_waits_for_a_slow_client() {
    let limits = Limits {
        high_water: 1_000,
        low_water: 500,
        max_output: 1_100,
        ..Limits::default()
    };
    let mut session =
        MemorySession::with_config(WebSocket::new(Numbers(0), QUIET), patient(limits));
    assert!(!session.is_finished());
    session.stop_taking();
    let mut received = session.sent();
    while session.waiting() > 0 {
        assert!(session.waiting() <= 1_010, "{}", session.waiting());
        session.take(333);
        received.extend(session.sent());
    }
    let mut expected: Vec<u8> = (0..COUNT)
        .flat_map(|number| plain(BINARY, number.to_be_bytes()))
        .collect();
    expected.extend(closed(1000, ""));
    assert!(received == expected);
}

/// Answers with more than may wait, and then again without asking whether there is room.
struct Careless;

impl MessageProtocol for Careless {
    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        client.send(message);
        if message.as_bytes().starts_with(b"again") {
            client.call_again();
        }
        Ok(())
    }

    fn woken(&mut self, client: &mut MessageTransport<'_>) {
        client.send("again");
    }
}

fn small() -> Limits {
    Limits {
        high_water: 100,
        low_water: 50,
        max_output: 1_000,
        ..Limits::default()
    }
}

#[test]
fn a_careless_producer_ends_its_connection_alone() {
    let config = patient(small());
    let mut session = MemorySession::with_config(WebSocket::new(Careless, QUIET), config);
    session.stop_taking();
    session.receive(&frame(TEXT, "again".repeat(10_000)));
    assert!(matches!(session.reason(), Some(CloseReason::Overflow)));
}

/// Nothing may be added to so much output. The close frame waits until there is room.
#[test]
fn a_close_frame_waits_for_room() {
    let config = patient(small());
    let mut session = MemorySession::with_config(WebSocket::new(Careless, QUIET), config);
    session.stop_taking();
    let long = "x".repeat(50_000);
    session.receive(&frame(TEXT, &long));
    session.shutdown();
    session.advance(Duration::from_secs(60));
    assert!(session.reason().is_none(), "{:?}", session.reason());

    session.take_in_steps(777);
    assert!(session.sent() == [plain(TEXT, long), closed(1001, "")].concat());
    session.advance(Duration::from_millis(4_999));
    assert!(session.reason().is_none());
    session.advance(Duration::from_millis(1));
    assert!(matches!(session.reason(), Some(CloseReason::Shutdown)));
}

/// Whoever says the password may be idle.
struct Login;

impl MessageProtocol for Login {
    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        if message == Message::Text("password") {
            let limits = Limits {
                idle_timeout: None,
                max_frame: 20,
                ..client.limits().clone()
            };
            client.set_limits(&Arc::new(limits))?;
        }
        Ok(())
    }
}

#[test]
fn a_connection_may_have_limits_of_its_own() {
    let mut session = open(Login);
    session.receive(&frame(TEXT, "password"));
    session.advance(Duration::from_secs(3_600));
    assert!(session.reason().is_none());
    session.receive(&frame(TEXT, "x".repeat(21)));
    let told = closed(1009, "message too long: 21 bytes, at most 20 allowed");
    assert_eq!(session.sent(), told);
}

/// Answers late, from its own timer, and when it is woken.
#[derive(Default)]
struct Late {
    at: Option<std::time::Instant>,
    is_again: bool,
}

impl MessageProtocol for Late {
    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        match message {
            Message::Text("wake") => client.waker().wake(),
            Message::Text("again") => client.call_again(),
            _ => self.at = client.now().checked_add(Duration::from_secs(3)),
        }
        self.is_again = message == Message::Text("again");
        Ok(())
    }

    fn poll_timeout(&self) -> Option<std::time::Instant> {
        self.at
    }

    fn handle_timeout(&mut self, client: &mut MessageTransport<'_>) {
        self.at = None;
        client.send("late");
        client.ping(&[b'x'; 200]);
    }

    fn woken(&mut self, client: &mut MessageTransport<'_>) {
        client.send(if self.is_again { "again" } else { "woken" });
    }
}

#[test]
fn a_handler_has_a_timer_and_a_waker() {
    let mut session = open(Late::default());
    session.receive(&frame(TEXT, "later"));
    session.advance(Duration::from_millis(2_999));
    assert_eq!(session.sent(), b"");
    session.advance(Duration::from_millis(1));
    let expected = [plain(TEXT, "late"), plain(0x89, [b'x'; 125])].concat();
    assert_eq!(session.sent(), expected);

    session.receive(&frame(TEXT, "wake"));
    assert_eq!(session.sent(), plain(TEXT, "woken"));
    session.receive(&frame(TEXT, "again"));
    assert_eq!(session.sent(), plain(TEXT, "again"));
}
