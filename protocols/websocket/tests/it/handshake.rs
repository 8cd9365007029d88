//! The request, in all wrong ways, and what a server makes of a right one.

use std::time::Duration;

use serveloop::testing::{MemorySession, SplitChecker};
use serveloop::{CloseReason, Factory, Limits, Peer, Protocol, ProtocolError};
use serveloop_websocket::{Accept, Echo, Refusal, Request, Settings, websocket, websocket_with};

use crate::support::{QUIET, TEXT, answer, frame, patient, plain};

const LINES: [&str; 6] = [
    "GET /chat?room=1 HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

fn head(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| format!("{line}\r\n"))
        .collect::<String>()
        + "\r\n"
}

/// The request of RFC 6455 with `line` in place of the one that begins like it, or in addition.
fn with(name: &str, lines: &[&str]) -> String {
    let name = name.to_ascii_lowercase();
    let others = LINES.iter().copied();
    let others: Vec<_> = others
        .filter(|line| name.is_empty() || !line.to_ascii_lowercase().starts_with(&name))
        .collect();
    // The first line stays the first.
    match name.as_str() {
        "get" => head(&[lines, &others].concat()),
        _ => head(&[&others, lines].concat()),
    }
}

fn peer() -> Peer {
    Peer::new("tcp://192.0.2.1:4711".parse().expect("an address"), Some(0))
}

fn server() -> impl Protocol {
    let mut factory = websocket_with(QUIET, |_: &Request<'_>| Ok(Accept::new(Echo)));
    factory.build_protocol(&peer()).expect("a protocol")
}

fn told(request: &str) -> String {
    let (sent, _) = answer(server, request.as_bytes());
    String::from_utf8(sent).expect("text")
}

#[test]
fn the_example_of_the_rfc() {
    let request = [head(&LINES).as_bytes(), &frame(TEXT, "hi")].concat();
    let response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let (sent, reason) = answer(server, &request);
    assert_eq!(sent, [response.as_bytes(), &plain(TEXT, "hi")].concat());
    assert_eq!(reason, "closed by the peer");

    SplitChecker::new(server).stream().check(&[&request]);
}

#[test]
fn what_may_be_written_otherwise() {
    for request in [
        with("connection", &["connection: keep-alive,\tUPGRADE"]),
        with(
            "connection",
            &["Connection: keep-alive", "Connection: upgrade"],
        ),
        with("upgrade", &["Upgrade: h2c, WebSocket"]),
        with("", &["Content-Length: 0"]),
        with(
            "",
            &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
        ),
        with("get", &["GET http://server.example.com/chat HTTP/1.1"]),
        format!("\r\n{}", head(&LINES)),
    ] {
        let response = told(&request);
        assert!(response.starts_with("HTTP/1.1 101 "), "{request}{response}");
        assert!(!response.contains("Extensions"), "{response}");
    }
}

#[test]
fn wrong_requests_are_answered() {
    let key = |value: &str| format!("Sec-WebSocket-Key: {value}");
    for (request, status) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: x\n\n".to_owned(), 400),
        (with("get", &["GET / HTTP/1.0"]), 400),
        (with("get", &["GET / HTTP/2.0"]), 400),
        (with("get", &["GET * HTTP/1.1"]), 400),
        (with("get", &["POST / HTTP/1.1"]), 405),
        (with("get", &["OPTIONS * HTTP/1.1"]), 405),
        (with("host", &[]), 400),
        (with("", &["Host: other"]), 400),
        (with("host", &["Host: a b"]), 400),
        (with("host", &["Host: user@x"]), 400),
        (with("", &["Content-Length: 3"]), 400),
        (with("", &["Transfer-Encoding: chunked"]), 400),
        (with("", &["Host : other"]), 400),
        (with("", &["X: a\0b"]), 400),
        (with("", &["X: a", " folded"]), 400),
        (with("upgrade", &[]), 426),
        (with("upgrade", &["Upgrade: h2c"]), 426),
        (with("connection", &[]), 426),
        (with("connection", &["Connection: close"]), 426),
        (with("sec-websocket-version", &[]), 400),
        (
            with("sec-websocket-version", &["Sec-WebSocket-Version: 8"]),
            426,
        ),
        (with("", &["Sec-WebSocket-Version: 13"]), 400),
        (with("sec-websocket-key", &[]), 400),
        (with("sec-websocket-key", &[&key("")]), 400),
        (with("sec-websocket-key", &[&key("c2hvcnQ=")]), 400),
        (
            with("sec-websocket-key", &[&key("dGhlIHNhbXBsZSBub25jZQ")]),
            400,
        ),
        (
            with("sec-websocket-key", &[&key("!!!!IHNhbXBsZSBub25jZQ==")]),
            400,
        ),
        (with("", &[&key("dGhlIHNhbXBsZSBub25jZQ==")]), 400),
        (with("", &["Origin: a", "Origin: b"]), 400),
        (with("", &["Sec-WebSocket-Protocol: a b"]), 400),
    ] {
        let response = told(&request);
        let line = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&line), "{request}{response}");
        let (head, body) = response.split_once("\r\n\r\n").expect("a whole response");
        let length = format!("Content-Length: {}", body.len());
        assert!(head.contains(&length), "{response}");
        assert!(head.contains("close"), "{response}");
        let has_version = head.contains("Sec-WebSocket-Version: 13");
        assert_eq!(has_version, status != 405, "{response}");
        let has_upgrade = head.contains("\r\nUpgrade: websocket");
        assert_eq!(has_upgrade, status == 426, "{response}");
        assert_eq!(head.contains("Allow: GET"), status == 405, "{response}");
    }
}

/// The response to HEAD has the length of a body that does not follow.
#[test]
fn a_head_is_answered_without_a_body() {
    let response = told(&with("get", &["HEAD / HTTP/1.1"]));
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 405 "), "{response}");
    assert!(head.contains("Content-Length: "), "{response}");
    assert_eq!(body, "");
}

/// A field that is no text is there nonetheless.
#[test]
fn fields_that_are_no_text_are_not_overlooked() {
    for (field, status) in [
        (&b"Transfer-Encoding: \xff"[..], "400"),
        (b"Content-Length: \xff", "400"),
        (b"Host: \xff", "400"),
        (b"X: \xff", "101"),
    ] {
        let head = head(&LINES);
        let request = [&head.as_bytes()[..head.len() - 2], field, b"\r\n\r\n"].concat();
        let (sent, _) = answer(server, &request);
        let line = format!("HTTP/1.1 {status} ");
        assert!(
            sent.starts_with(line.as_bytes()),
            "{}",
            field.escape_ascii()
        );
    }
}

#[test]
fn a_page_that_was_asked_for_by_mistake_is_no_error() {
    let mut session = MemorySession::new(server());
    session.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(matches!(session.reason(), Some(CloseReason::Closed)));
    let mut session = MemorySession::new(server());
    session.receive(b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(session.reason(), Some(CloseReason::Protocol(_))));
}

#[test]
fn a_head_has_a_limit() {
    let request = with("", &[&format!("Cookie: {}", "x".repeat(1_000))]);
    let serve = |max_head| {
        let settings = Settings { max_head, ..QUIET };
        let mut factory = websocket_with(settings, |_: &Request<'_>| Ok(Accept::new(Echo)));
        factory.build_protocol(&peer()).unwrap()
    };
    let told = |max_head| answer(|| serve(max_head), request.as_bytes()).0;
    assert!(told(request.len()).starts_with(b"HTTP/1.1 101 "));
    assert!(told(request.len() - 1).starts_with(b"HTTP/1.1 431 "));
    assert!(told(10).starts_with(b"HTTP/1.1 431 "));

    let fields: Vec<String> = (0..200).map(|number| format!("X-{number}: y")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let mut session = MemorySession::new(serve(16 << 10));
    session.receive(with("", &fields).as_bytes());
    assert!(session.sent().starts_with(b"HTTP/1.1 431 "));
}

/// What limits messages does not limit the head, and the other way round.
#[test]
fn a_head_may_be_longer_than_a_message() {
    let request = with("", &[&format!("Cookie: {}", "x".repeat(5_000))]);
    let limits = Limits {
        max_frame: 10,
        ..Limits::default()
    };
    let mut session = MemorySession::with_config(server(), patient(limits));
    for piece in request.as_bytes().chunks(500) {
        session.receive(piece);
    }
    assert!(session.sent().starts_with(b"HTTP/1.1 101 "));
    session.receive(&frame(TEXT, "0123456789"));
    assert_eq!(session.sent(), plain(TEXT, "0123456789"));
    session.receive(&frame(TEXT, "0123456789a"));
    assert_eq!(session.sent()[2..4], 1009_u16.to_be_bytes());
}

#[test]
fn a_request_that_does_not_end() {
    let mut session = MemorySession::new(server());
    session.receive(b"GET / HT");
    session.advance(Duration::from_secs(10));
    assert!(session.sent().starts_with(b"HTTP/1.1 408 "));

    let mut session = MemorySession::new(server());
    session.advance(Duration::from_secs(10));
    assert_eq!(session.sent(), b"", "it did not ask");

    let mut session = MemorySession::new(server());
    session.receive(b"GET / HT");
    session.receive_eof();
    assert!(session.sent().starts_with(b"HTTP/1.1 400 "));
    let reason = session.reason();
    assert!(matches!(
        reason,
        Some(CloseReason::Protocol(ProtocolError::Truncated { .. }))
    ));
}

/// Chooses by everything that a request says.
fn choose(request: &Request<'_>) -> Result<Accept<Echo>, Refusal> {
    assert_eq!(request.host(), "server.example.com");
    assert_eq!(request.peer().to_string(), "tcp://192.0.2.1:4711");
    if request.path() != "/chat" {
        return Err(Refusal::new(404, "there is only /chat"));
    }
    if request
        .origin()
        .is_some_and(|origin| origin != "https://example.com")
    {
        return Err(Refusal::forbidden("not from this page"));
    }
    assert_eq!(request.query(), Some("room=1"));
    assert_eq!(request.field("COOKIE"), request.fields("cookie").next());
    let accept = Accept::new(Echo);
    Ok(match request.select(&["v2", "v1"]) {
        Some(name) => accept.with_subprotocol(name),
        None if request.offered().is_empty() => accept,
        None => accept.with_subprotocol("never offered"),
    })
}

#[test]
fn a_closure_decides() {
    let mut factory = websocket(choose);
    let mut told = |request: String| {
        let protocol = factory.build_protocol(&peer()).unwrap();
        let mut session = MemorySession::with_peer(protocol, serveloop::Config::default(), peer());
        session.receive(request.as_bytes());
        String::from_utf8(session.sent()).unwrap()
    };

    for (line, expected) in [
        ("X: y", "HTTP/1.1 101 "),
        ("Origin: https://example.com", "HTTP/1.1 101 "),
        ("Origin: https://evil.example", "HTTP/1.1 403 Forbidden\r\n"),
        ("Origin: null", "HTTP/1.1 403 Forbidden\r\n"),
        ("Sec-WebSocket-Protocol: v9", "HTTP/1.1 500 "),
    ] {
        let response = told(with("", &[line]));
        assert!(response.starts_with(expected), "{line}: {response}");
    }
    let response = told(with("get", &["GET / HTTP/1.1"]));
    assert!(
        response.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{response}"
    );
    assert!(
        response.ends_with("\r\n\r\nthere is only /chat\n"),
        "{response}"
    );

    let response = told(with(
        "",
        &[
            "Sec-WebSocket-Protocol: v1, v2",
            "sec-websocket-protocol: v3",
        ],
    ));
    assert!(
        response.contains("Sec-WebSocket-Protocol: v2\r\n"),
        "{response}"
    );
    let response = told(with("", &["X: y"]));
    assert!(!response.contains("Protocol:"), "{response}");
}

#[test]
fn a_refusal_never_accepts() {
    for status in [0, 101, 200, 302, 600] {
        assert_eq!(Refusal::new(status, "").status(), 500);
    }
}
