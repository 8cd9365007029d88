//! `serve websocket`: an echo of messages, for browsers and whoever else speaks RFC 6455.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::outside::{require, skip};
use crate::support::served::{MODELS, Outcome, Served};
use crate::support::sockets::{Directory, Stream};

const TCP: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A client whose request was accepted.
pub(crate) struct WebSocket(Stream);

impl WebSocket {
    #[track_caller]
    pub(crate) fn connect(uri: &str) -> Self {
        let mut stream = Stream::connect(uri);
        stream.send(&format!("{REQUEST}\r\n"));
        stream.expect(RESPONSE);
        Self(stream)
    }

    /// Sends a frame of less than 126 bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        let key = [1, 2, 3, 4];
        let mut frame = vec![first, 0x80 | payload.len() as u8];
        frame.extend(key);
        frame.extend(
            payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        self.0.send_bytes(&frame);
    }

    /// Waits for exactly this frame of less than 126 bytes of text.
    #[track_caller]
    pub(crate) fn expect(&mut self, first: u8, payload: &str) {
        let header = [first, payload.len() as u8];
        let expected = String::from_utf8_lossy(&header) + payload;
        let found = self.0.receive(header.len() + payload.len());
        assert_eq!(found, expected);
    }

    /// Waits for a text of less than 126 bytes, which is `last` or one of 120 bytes.
    #[track_caller]
    fn receive(&mut self) -> String {
        match self.0.receive(2).as_str() {
            "\u{fffd}\u{4}" => self.0.receive(4),
            "\u{fffd}x" => self.0.receive(120),
            header => panic!("not a frame: {header:?}"),
        }
    }

    /// Waits for the close frame with this code, and then the end.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self, code: u16) {
        let rest = self.0.receive_rest();
        assert_eq!(rest.first(), Some(&0x88), "{rest:x?}");
        assert_eq!(rest.get(2..4), Some(&code.to_be_bytes()[..]), "{rest:x?}");
        assert_eq!(rest.len(), 2 + usize::from(rest[1]), "{rest:x?}");
    }
}

#[test]
fn an_echo_in_every_model() {
    for model in MODELS {
        let directory = Directory::new();
        for at in ["tcp://127.0.0.1:0", &directory.uri("unix", "socket")] {
            let served = Served::new(&[&["websocket", "--listen", at], model].concat());
            for _ in 0..3 {
                let mut client = WebSocket::connect(served.uri(0));
                client.send(0x81, b"good morning");
                client.expect(0x81, "good morning");
                client.send(0x01, b"good ");
                client.send(0x89, b"?");
                client.expect(0x8a, "?");
                client.send(0x80, b"evening");
                client.expect(0x81, "good evening");
                client.send(0x82, b"bytes");
                client.expect(0x82, "bytes");
                client.send(0x88, &1000_u16.to_be_bytes());
                client.expect_closed(1000);
            }
            served.signal(Signal::TERM);
            assert_eq!(served.exit_code(), Some(0), "{model:?}");
        }
    }
}

#[test]
fn a_shutdown_is_told() {
    for model in MODELS {
        let served = Served::new(&[&["websocket"], &TCP[..], model].concat());
        let mut client = WebSocket::connect(served.uri(0));
        client.send(0x81, b"x");
        client.expect(0x81, "x");
        served.signal(Signal::TERM);
        // A close frame of two bytes: 1001. Bytes that are no text are shown as others.
        assert_eq!(client.0.receive(4), "\u{fffd}\u{2}\u{3}\u{fffd}");
        client.send(0x88, &1001_u16.to_be_bytes());
        client.0.expect_end();
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

#[test]
fn clients_that_break_the_rules_are_told_and_others_are_not() {
    let served = Served::new(&["websocket", "--max-frame", "10", TCP[0], TCP[1]]);
    let mut other = WebSocket::connect(served.uri(0));
    for (first, payload, code) in [
        (0x81, &b"\xff"[..], 1007),
        (0x83, b"", 1002),
        (0x81, b"0123456789a", 1009),
        (0x88, b"\x03\xed", 1002),
    ] {
        let mut client = WebSocket::connect(served.uri(0));
        client.send(first, payload);
        client.expect_closed(code);
    }
    other.send(0x81, b"0123456789");
    other.expect(0x81, "0123456789");
}

#[test]
fn a_silent_client_is_asked_and_then_disconnected() {
    for model in MODELS {
        let ping = ["websocket", "--ping-interval", "500ms"];
        let served = Served::new(&[&ping[..], &TCP, model].concat());
        let mut client = WebSocket::connect(served.uri(0));
        client.expect(0x89, "");
        client.send(0x8a, b"");
        client.expect(0x89, "");
        client.expect_closed(1011);
    }

    let served = Served::new(&[
        "websocket",
        "--ping-interval",
        "0",
        "--idle-timeout",
        "300ms",
        TCP[0],
        TCP[1],
    ]);
    let mut client = WebSocket::connect(served.uri(0));
    client.expect_closed(1001);
}

#[test]
fn wrong_requests_are_answered() {
    let served = Served::new(&["websocket", TCP[0], TCP[1]]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
            "405",
        ),
        (format!("{}\r\n", REQUEST.replace(": 13", ": 12")), "426"),
        (format!("{}\r\n", REQUEST.replace("Host: x\r\n", "")), "400"),
        ("nonsense\n".to_owned(), "400"),
        (format!("{REQUEST}X: {}\r\n\r\n", "y".repeat(20_000)), "431"),
    ] {
        let mut client = Stream::connect(served.uri(0));
        client.send_if_wanted(&request);
        let response = String::from_utf8(client.receive_rest()).unwrap();
        let line = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&line), "{request}{response}");
    }
}

#[test]
fn pages_of_other_sites_may_be_kept_out() {
    let served = Served::new(&[
        "websocket",
        "--origin",
        "https://example.org",
        "--origin",
        "null",
        TCP[0],
        TCP[1],
    ]);
    for (origin, expected) in [
        ("", "HTTP/1.1 101 "),
        ("Origin: https://example.org\r\n", "HTTP/1.1 101 "),
        ("Origin: null\r\n", "HTTP/1.1 101 "),
        ("Origin: https://evil.example\r\n", "HTTP/1.1 403 "),
        (
            "Origin: https://example.org.evil.example\r\n",
            "HTTP/1.1 403 ",
        ),
    ] {
        let mut client = Stream::connect(served.uri(0));
        client.send(&format!("{REQUEST}{origin}\r\n"));
        client.expect(expected);
    }

    let outcome = Outcome::new(&["serve", "websocket", "--origin", "example.org/"]);
    assert_eq!(outcome.code, Some(2));
    let problem = "such as https://example.org";
    assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
}

/// Everybody reads what anybody writes, in the same order, whichever loop or thread serves them.
#[test]
fn a_room_in_every_model_that_shares_one() {
    let models: [&[&str]; 3] = [&[], &["--workers", "3"], &["--model", "threaded"]];
    for model in models {
        let served = Served::new(&[&["websocket", "--room"], &TCP[..], model].concat());
        let mut members: Vec<_> = (0..6).map(|_| WebSocket::connect(served.uri(0))).collect();
        // Whoever has the response to the request is in the room.
        for number in 0..members.len() {
            let text = format!("{number} is here");
            members[number].send(0x81, text.as_bytes());
            for member in &mut members {
                member.expect(0x81, &text);
            }
        }

        let mut leaving = members.remove(0);
        leaving.send(0x88, &1000_u16.to_be_bytes());
        leaving.expect_closed(1000);
        members.remove(0).0.reset();
        members[0].send(0x82, b"who is left?");
        for member in &mut members {
            member.expect(0x82, "who is left?");
        }
        served.signal(Signal::TERM);
        for member in &mut members {
            member.send(0x88, &1001_u16.to_be_bytes());
            member.expect_closed(1001);
        }
        assert_eq!(served.exit_code(), Some(0), "{model:?}");
    }
}

/// Of fifty messages each, 15 MB in all.
const ROUNDS: usize = 2_500;

/// A member that reads nothing delays no other, and is sent whole messages when it reads again.
#[test]
fn a_member_that_reads_nothing_holds_up_nobody() {
    let small = ["websocket", "--room", "--send-buffer", "4KiB"];
    let served = Served::new(&[&small[..], &TCP].concat());
    let (mut slow, mut quick) = (
        WebSocket::connect(served.uri(0)),
        WebSocket::connect(served.uri(0)),
    );
    let text = "0123456789".repeat(12);
    for _ in 0..ROUNDS {
        for _ in 0..50 {
            quick.send(0x81, text.as_bytes());
        }
        for _ in 0..50 {
            quick.expect(0x81, &text);
        }
    }
    // While its output is full, what it says may wait too. It gets some of all that, whole, and then the last.
    slow.send(0x81, b"last");
    let mut received = 0;
    while slow.receive() != "last" {
        received += 1;
    }
    assert!(received < 50 * ROUNDS, "nothing was dropped");
    quick.expect(0x81, "last");
}

#[test]
fn processes_share_no_room() {
    let outcome = Outcome::new(&["serve", "websocket", "--room", "--model", "forking"]);
    assert_eq!(outcome.code, Some(2));
    let problem = "websocket --room cannot be served with --model forking";
    assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
}

#[test]
fn messages_are_compressed_if_both_sides_want_it() {
    let offer = format!("{REQUEST}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    let options: [(&[&str], bool); 4] = [
        (&["--deflate"], true),
        (&["--deflate", "--room"], true),
        (&["--room"], false),
        (&[], false),
    ];
    for (options, is_agreed) in options {
        let served = Served::new(&[&["websocket"], options, &TCP].concat());
        let mut client = Stream::connect(served.uri(0));
        client.send(&offer);
        client.expect(RESPONSE.trim_end());
        client.expect("\r\n");
        let line = client.receive_line();
        assert_eq!(line.contains("permessage-deflate"), is_agreed, "{line}");
        if is_agreed {
            client.expect("\r\n");
        }

        let mut client = WebSocket(client);
        client.send(0x81, &[b'x'; 100]);
        let header = client.0.receive(2);
        let length = header.chars().last().map(u32::from);
        assert_eq!(length < Some(100), is_agreed, "{options:?}: {header:?}");
    }
}

#[test]
fn subprotocols_are_named_to_those_who_offer_them() {
    let names = ["--subprotocol", "v2", "--subprotocol", "v1"];
    let served = Served::new(&[&["websocket"], &names[..], &TCP].concat());
    for (offer, chosen) in [("v1, v2", "v2"), ("v0,v1", "v1"), ("v3", "")] {
        let mut client = Stream::connect(served.uri(0));
        client.send(&format!("{REQUEST}Sec-WebSocket-Protocol: {offer}\r\n\r\n"));
        client.expect(RESPONSE.trim_end());
        client.expect("\r\n");
        let line = client.receive_line();
        let name = line.trim_end().strip_prefix("Sec-WebSocket-Protocol: ");
        assert_eq!(name.unwrap_or_default(), chosen, "{line:?}");
    }
    let outcome = Outcome::new(&["serve", "websocket", "--subprotocol", "a b"]);
    assert_eq!(outcome.code, Some(2));
}

#[test]
fn datagrams_cannot_become_websockets() {
    for uri in ["udp://127.0.0.1:0", "unixgram:///tmp/no"] {
        let outcome = Outcome::new(&["serve", "websocket", "--listen", uri]);
        assert_eq!(outcome.code, Some(2));
        let problem = "websocket is for streams";
        assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
    }
}

/// A few cases of the Autobahn suite. `judges/run websocket` has them all.
#[test]
fn autobahn_finds_nothing() {
    if !require("python3") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut judge = Command::new(root.join("judges/run"));
    judge.args(["websocket", "--command", env!("CARGO_BIN_EXE_serveloop")]);
    judge.args(["--cases", "1.1.*,2.*,4.1.*,5.1*,6.4.1,7.9.*"]);
    judge.args(["--models", "loop,threads", "--timeout", "120"]);
    if cfg!(feature = "tls") {
        judge.args(["--models", "loop,threads,tls"]);
    }
    let outcome = judge.stdin(Stdio::null()).output().expect("a script");
    if outcome.status.code() == Some(77) {
        return skip("the Autobahn suite: judges/run websocket --install");
    }
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{said}");
}
