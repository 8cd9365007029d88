//! Observers that refuse data, and the one that keeps browsers from a protocol.

use std::cell::RefCell;
use std::rc::Rc;

use serveloop::layer::{Alarm, Event, Foreign, Observe, Observed, Screen};
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Peer, ProtocolError};

/// Admits everything but data with a zero, and writes down what it is told.
#[derive(Clone, Default)]
struct NoZeros(Rc<RefCell<Vec<&'static str>>>);

impl Observe for NoZeros {
    fn admit(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        if data.contains(&0) {
            return Err(ProtocolError::malformed("a zero"));
        }
        Ok(())
    }

    fn observe(&mut self, event: Event<'_>) {
        self.0.borrow_mut().push(match event {
            Event::ConnectionMade => "made",
            Event::DataReceived(_) => "data",
            Event::Taken(_) => "taken",
            Event::ConnectionLost(_) => "lost",
            Event::InputRejected(_) => "rejected",
            _ => "other",
        });
    }
}

#[test]
fn data_that_is_not_admitted_ends_the_connection_unseen() {
    let observer = NoZeros::default();
    let mut session = MemorySession::new(Observed::new(Echo, observer.clone()));
    session.receive(b"one");
    assert_eq!(session.sent(), b"one");

    session.receive(b"two\0");
    assert_eq!(session.sent(), b"");
    let reason = session.reason().unwrap().to_string();
    assert!(reason.contains("a zero"), "{reason}");
    let expected = ["made", "data", "taken", "rejected", "lost"];
    assert_eq!(*observer.0.borrow(), expected);
}

fn peer(uri: &str) -> Peer {
    Peer::new(uri.parse().unwrap(), Some(0))
}

fn session(screen: Screen) -> MemorySession<Observed<Echo, Screen>> {
    MemorySession::new(Observed::new(Echo, screen))
}

fn is_refused(session: &MemorySession<Observed<Echo, Screen>>) -> bool {
    matches!(session.reason(), Some(CloseReason::Protocol(_)))
}

/// Sends `data` cut at `cut`, and returns whether the connection was refused.
fn is_foreign(data: &[u8], cut: usize) -> bool {
    let peer = peer("tcp://127.0.0.1:1");
    let mut session = session(Screen::new(&peer, &Alarm::default()));
    session.receive(&data[..cut]);
    if session.reason().is_none() {
        session.receive(&data[cut..]);
    }
    is_refused(&session)
}

#[test]
fn browsers_are_refused_wherever_their_stream_is_cut() {
    let stun = b"\0\x01\0\0\x21\x12\xa4\x42123456789012";
    let foreign: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n",
        b"\r\n POST /run HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS\t* HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        stun,
    ];
    for data in foreign {
        for cut in 1..data.len() {
            assert!(is_foreign(data, cut), "{data:?} cut at {cut}");
        }
    }

    let ours: [&[u8]; 5] = [
        b"GETTING somewhere",
        b"get / HTTP/1.1 in small letters",
        b"\x16\x02 is no handshake",
        b"I GET / HTTP/1.1 later",
        b"\0\0\0\x04date",
    ];
    for data in ours {
        for cut in 1..data.len() {
            assert!(!is_foreign(data, cut), "{data:?} cut at {cut}");
        }
    }
}

#[test]
fn the_beginning_of_a_method_counts_from_the_bytes_that_were_asked_for() {
    let peer = peer("tcp://127.0.0.1:1");
    for (least, data, expected) in [
        (4, &b"POS"[..], false),
        (4, b"POST", true),
        (4, b"DELE", true),
        (4, b"DELA", false),
        (usize::MAX, b"POST", false),
        (usize::MAX, b"POST ", true),
    ] {
        let screen = Screen::new(&peer, &Alarm::default()).with_method_least(least);
        let mut session = session(screen);
        session.receive(data);
        assert_eq!(is_refused(&session), expected, "{data:?} from {least}");
    }
}

#[test]
fn a_screen_that_leaves_the_answer_to_its_protocol_refuses_nothing() {
    let peer = peer("tcp://127.0.0.1:1");
    let mut session = session(Screen::new(&peer, &Alarm::default()).answering());
    session.receive(b"GET / HTTP/1.1\r\n");
    assert_eq!(session.sent(), b"GET / HTTP/1.1\r\n");
    assert!(session.reason().is_none());
}

#[test]
fn datagrams_are_not_screened() {
    let peer = peer("udp://127.0.0.1:1");
    let protocol = Observed::new(Echo, Screen::new(&peer, &Alarm::default()));
    let mut session = MemorySession::with_peer(protocol, Config::default(), peer);
    session.receive(b"GET / HTTP/1.1\r\n");
    assert_eq!(session.sent(), b"GET / HTTP/1.1\r\n");
}

#[test]
fn lines_of_http_are_told_from_others() {
    let lines: [(&[u8], Option<Foreign>); 8] = [
        (b"GET / HTTP/1.1", Some(Foreign::Request)),
        (b"RUN http://localhost/ HTTP/1.1\r", Some(Foreign::Request)),
        (b"HTTP/1.1 200 OK", Some(Foreign::Request)),
        (b"Content-Type: text/plain", Some(Foreign::Header)),
        (b"x:", Some(Foreign::Header)),
        (b"echo a: b", None),
        (b"ls -l", None),
        (b"", None),
    ];
    for (line, expected) in lines {
        assert_eq!(Foreign::of_line(line), expected, "{line:?}");
    }
}
