//! The page at `/`, and what it is sent over its WebSocket.

use serde_json::Value;

use crate::monitoring::{Monitored, get, request};
use crate::support::outside::require;
use crate::support::sockets::Stream;

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A page's WebSocket.
struct Live(Stream);

impl Live {
    /// Connects as a page of `origin` does that takes the server for `host`.
    #[track_caller]
    fn connect(uri: &str, host: &str, origin: Option<&str>) -> Self {
        let mut stream = Stream::connect(uri);
        let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        stream.send(&format!(
            "GET /live HTTP/1.1\r\nHost: {host}\r\n{origin}{UPGRADE}\r\n"
        ));
        let status = stream.receive_line();
        assert_eq!(status, "HTTP/1.1 101 Switching Protocols\r");
        while stream.receive_line() != "\r" {}
        Self(stream)
    }

    /// Waits for a message.
    #[track_caller]
    fn receive(&mut self) -> Value {
        let mut exactly = |count: usize| {
            let mut bytes = vec![0; count];
            let mut filled = 0;
            while filled < count {
                let more = self.0.read_some(&mut bytes[filled..]);
                assert!(more > 0, "the connection ended");
                filled += more;
            }
            bytes
        };
        let header = exactly(2);
        assert_eq!(header[0], 0x81, "a text");
        let length = match header[1] {
            126 => exactly(2)
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => exactly(8)
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            short => short.into(),
        };
        serde_json::from_slice(&exactly(length)).expect("JSON")
    }

    /// Sends a short text.
    #[track_caller]
    fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("a short text");
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend(text.bytes());
        self.0.send_bytes(&frame);
    }

    /// Waits for a message with this field.
    #[track_caller]
    fn receive_with(&mut self, field: &str) -> Value {
        for _ in 0..20 {
            let message = self.receive();
            if message.get(field).is_some() {
                return message;
            }
        }
        panic!("no message has {field}");
    }
}

fn refused(server: &Monitored, host: &str, origin: &str) -> u16 {
    let head = format!("GET /live HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n{UPGRADE}");
    // The field `Connection` must not be there twice.
    let head = head.replace("Connection: Upgrade\r\n", "Connection: Upgrade, close\r\n");
    let mut stream = Stream::connect(&server.metrics);
    stream.send(&format!("{head}\r\n"));
    let status = stream.receive_line();
    status
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .expect("a status")
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let server = Monitored::echo(&[]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("Content-Type: text/html; charset=utf-8"));
    assert!(page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(
        page.head.contains("frame-ancestors 'none'"),
        "{}",
        page.head
    );
    for word in ["src=", "@import", "url(", "https://"] {
        assert!(!page.body.contains(word), "{word}");
    }
    server.end();
}

/// The policy names the style and the script by their hashes. If one changes, this says the new hash.
#[test]
fn the_policy_lets_the_page_s_own_script_run() {
    if !require("openssl") {
        return;
    }
    let server = Monitored::echo(&[]);
    let page = server.get("/");
    for name in ["style", "script"] {
        let (_, rest) = page.body.split_once(&format!("<{name}>")).expect(name);
        let (text, _) = rest.split_once(&format!("</{name}>")).expect(name);
        let directory = crate::support::sockets::Directory::new();
        std::fs::write(directory.path("text"), text).expect("a file");
        let script = format!(
            "openssl dgst -sha256 -binary {} | openssl base64 -A",
            directory.path("text").display()
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output();
        let hash = String::from_utf8(output.expect("openssl").stdout).expect("text");
        let source = format!("{name}-src 'sha256-{hash}'");
        assert!(
            page.head.contains(&source),
            "{source} is not in {}",
            page.head
        );
    }
    server.end();
}

#[test]
fn a_live_page_is_sent_news_every_second_in_every_model() {
    for model in crate::support::served::MODELS {
        let server = Monitored::echo(model);
        server.await_status("/readyz", 200);
        let mut client = server.served.connect();
        client.send("hello");
        client.expect("hello");
        let mut live = Live::connect(&server.metrics, "localhost", None);
        let begin = std::time::Instant::now();
        let news = loop {
            let news = live.receive();
            let found = news["top"]["connections"].as_array().map(Vec::len);
            if news["stats"]["open"] == 1 && found == Some(1) {
                break news;
            }
            assert!(begin.elapsed().as_secs() < 20, "{model:?}: {news}");
        };
        assert_eq!(news["controls"], false, "{model:?}");
        assert_eq!(news["stats"]["statistics"]["accepted"], 1, "{model:?}");
        assert_eq!(news["stats"]["phase"], "serving", "{model:?}");
        assert_eq!(news["stats"]["unanswered"], 0, "{model:?}: {news}");
        assert_eq!(
            news["top"]["connections"][0]["peer"],
            client.name(),
            "{model:?}"
        );
        assert_eq!(
            news["top"]["connections"][0]["listening"],
            server.served.uri(0)
        );
        let begin = std::time::Instant::now();
        live.receive();
        live.receive();
        let passed = begin.elapsed().as_millis();
        assert!(
            (1_000..6_000).contains(&passed),
            "{model:?}: {passed} ms for two"
        );
        drop(client);
        server.served.signal(rustix::process::Signal::TERM);
        server.served.status();
    }
}

#[test]
fn a_page_ends_connections_only_if_that_is_allowed() {
    let server = Monitored::echo(&[]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");
    let mut live = Live::connect(&server.metrics, "127.0.0.1", None);
    live.send(r#"{"end":1}"#);
    let problem = live.receive_with("problem");
    assert!(
        problem["problem"].to_string().contains("--metrics-control"),
        "{problem}"
    );
    client.send("still here");
    client.expect("still here");
    drop(client);
    server.end();

    let server = Monitored::echo(&["--metrics-control"]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");
    let host = server.metrics["tcp://".len()..].to_owned();
    let mut live = Live::connect(&server.metrics, &host, Some(&format!("http://{host}")));
    let news = live.receive_with("stats");
    assert_eq!(news["controls"], true);
    let mut id = news["top"]["connections"][0]["id"].clone();
    while id.is_null() {
        id = live.receive_with("top")["top"]["connections"][0]["id"].clone();
    }
    live.send(&format!(r#"{{"end":{}}}"#, u64::MAX));
    assert!(
        live.receive_with("problem")["problem"]
            .to_string()
            .contains("no open connection")
    );
    live.send(&format!(r#"{{"end":{id}}}"#));
    assert_eq!(live.receive_with("ended")["ended"], id);
    client.expect_end();

    // A name that a stranger's name server may have made up for this address.
    let mut rebound = Live::connect(&server.metrics, "evil.example", Some("http://evil.example"));
    assert_eq!(rebound.receive_with("stats")["controls"], false);
    server.end();
}

/// A browser shows numbers that change, at the widths of a telephone and of a desk, in the light and in the
/// dark, and its user ends a connection. With `SERVELOOP_SCREENSHOTS=DIRECTORY` one can look at it.
#[test]
fn a_browser_shows_the_page_and_ends_a_connection() {
    if !require("chromium") || !require("python3") {
        return;
    }
    let server = Monitored::echo(&["--metrics-control"]);
    let mut client = server.served.connect();
    client.send("hello");
    client.expect("hello");
    let directory = crate::support::sockets::Directory::new();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/monitoring/browser.py"
    );
    let url = format!("http://{}/", &server.metrics["tcp://".len()..]);
    let output = std::process::Command::new("python3")
        .args([script, &url])
        .arg(directory.path("profile"))
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    client.expect_end();
    server.end();
}

#[test]
fn pages_of_other_sites_see_nothing() {
    let server = Monitored::echo(&["--metrics-control"]);
    for (host, origin) in [
        ("127.0.0.1:9100", "http://evil.example"),
        ("127.0.0.1:9100", "http://127.0.0.1:8080"),
        ("127.0.0.1:9100", "null"),
        ("127.0.0.1:9100", ""),
        ("127.0.0.1:9100", "http://127.0.0.1:9100.evil.example"),
    ] {
        assert_eq!(refused(&server, host, origin), 403, "{origin}");
    }
    let plain = request(&server.metrics, "GET /live HTTP/1.1\r\nHost: localhost\r\n");
    assert!([400, 426].contains(&plain.status), "{plain:?}");
    assert_eq!(get(&server.metrics, "/healthz").status, 200);
    server.end();
}
