//! Tests of requests and replies of one connection, in memory.

use clap::Parser;
use serveloop::Config;
use serveloop::testing::{MemorySession, SplitChecker};

use super::*;
use crate::protocols::CommandOptions;

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    options: CommandOptions,
}

/// Makes a connection for which no program is allowed, so that these tests need none.
fn session(wire: &str) -> Commands {
    let typed = Typed::parse_from(["command", "--max-request", "20", "--wire", wire]);
    let service = Arc::new(typed.options.service(&Config::default()));
    let address = "tcp://127.0.0.1:1".parse().unwrap();
    Commands::new(&service, &Peer::new(address, Some(0)))
}

#[test]
fn framed_requests_can_be_cut_anywhere() {
    let requests: [&[u8]; 4] = [
        b"\0\0\0\x05rm -r",
        b"\0\0\0\0",
        b"\0\0\0\x03'ls",
        b"\0\0\0\x02\0s",
    ];
    SplitChecker::new(|| session("framed")).check(&requests);

    let long = [requests[0], b"\0\0\0\x15"];
    SplitChecker::new(|| session("framed")).check(&long);

    let mut memory = MemorySession::new(session("framed"));
    memory.receive(&requests.concat());
    let sent = String::from_utf8(memory.sent()).unwrap();
    let expected = "\0\0\0\u{14}[not allowed: \"rm\"]\n\
                    \0\0\0\u{23}[bad request: no program is named]\n\
                    \0\0\0\u{31}[bad request: the quote at byte 0 is not closed]\n\
                    \0\0\0\u{1d}[bad request: NUL at byte 0]\n";
    assert_eq!(sent, expected);
}

#[test]
fn raw_pieces_and_lines_are_requests() {
    let mut memory = MemorySession::new(session("struct"));
    memory.receive(b"a");
    assert_eq!(memory.sent(), b"\x13\0\0\0[not allowed: \"a\"]\n");

    memory.receive(b"a\nb\r\nc");
    let sent = memory.sent();
    for (reply, name) in sent.chunks(23).zip(["a", "b", "c"]) {
        let expected = format!("\x13\0\0\0[not allowed: \"{name}\"]\n");
        assert_eq!(reply, expected.as_bytes());
    }
    assert_eq!(sent.len(), 3 * 23);
}

#[test]
fn ready_can_be_cut_anywhere() {
    for cut in 0..=READY.len() {
        let mut memory = MemorySession::new(session("ready"));
        for _ in 0..2 {
            memory.receive(b"rm\n");
            assert_eq!(memory.sent(), b"20");
            memory.receive(&READY[..cut]);
            memory.receive(&READY[cut..]);
            assert_eq!(memory.sent(), b"[not allowed: \"rm\"]\n");
            memory.receive(b"\r\n");
            assert_eq!(memory.sent(), b"");
        }
    }
}

#[test]
fn anything_but_ready_breaks_the_protocol() {
    for word in [&b"Ready"[..], b"r3", b"read!", b"\n", b"rm"] {
        let mut memory = MemorySession::new(session("ready"));
        memory.receive(b"rm");
        memory.receive(word);
        let reason = memory.reason().expect("it has ended");
        assert!(matches!(reason, CloseReason::Protocol(_)), "{reason}");
        assert_eq!(memory.sent(), b"20");
    }
}

#[test]
fn what_is_too_long_gets_the_last_reply() {
    let text = "[request too long: 21 bytes, at most 20 allowed]\n";
    let long = b"123456789012345678901";
    let mut memory = MemorySession::new(session("struct"));
    memory.receive(long);
    let expected = [&[49, 0, 0, 0], text.as_bytes()].concat();
    assert_eq!(memory.sent(), expected);
    assert!(memory.reason().is_some());

    let mut memory = MemorySession::new(session("ready"));
    memory.receive(long);
    memory.receive(READY);
    assert_eq!(memory.sent(), format!("49{text}").as_bytes());
    assert!(memory.reason().is_some());
}
