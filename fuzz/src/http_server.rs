//! The protocol of `serveloop-http`, compared with a model that sees the whole stream at once.

mod model;

use std::sync::Arc;

use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Limits};
use serveloop_http::{Dates, Http, Reply, Request, Response, Settings};

use crate::input::{Input, pieces, spelled};

/// What some bytes mean in a stream, so that requests are not found by luck alone.
const WORDS: [&str; 31] = [
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\n",
    "Host: x\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "5\r\n",
    "0\r\n\r\n",
    "3;a=\"b\"\r\n",
    "hello",
    "HTTP/1.0\r\n",
    "HEAD ",
    " HTTP/1.1\r\n",
    "Connection: keep-alive\r\n",
    "Content-Length: ",
    "Transfer-Encoding: ",
    "chunked",
    "GET http://x/",
    "OPTIONS *",
    "X: y\r\n",
    ": ",
    "0\r\n",
    "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "\r",
    "\n",
    "HTTP/2.0",
    "gzip, ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// The limits of the server, which the model knows too.
const MAX_LINE: usize = 120;
const MAX_HEAD: usize = 300;
const MAX_FIELDS: usize = 6;
const MAX_BODY: u64 = 40;

/// Whether the stream is spelled in words, the places of the cuts, and the stream. However that is
/// cut, the handler sees the requests and the bodies that the model finds, and the client the same
/// responses; if the model finds an error, so does the protocol, after the same requests.
///
/// # Panics
/// When they differ.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let is_spelled = input.below(4) != 0;
    let sizes = input.sizes();
    let stream = match is_spelled {
        true => spelled(input.rest(), &WORDS),
        false => input.rest().to_vec(),
    };

    let whole = told(&[&stream]);
    let expected = model::read(&stream);
    let sent = String::from_utf8_lossy(&whole.sent);
    assert_eq!(
        whole.outcome(),
        expected,
        "{:?}\n{sent}",
        String::from_utf8_lossy(&stream)
    );
    let cut = told(&pieces(&stream, &sizes));
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes");
}

/// What a handler was shown of one request, in a line: method, target and body.
type Shown = String;

/// What became of a stream: the requests, and the status that it ended with if it was refused.
#[derive(Debug, PartialEq)]
struct Outcome {
    shown: Vec<Shown>,
    refusal: Option<u16>,
}

#[derive(Debug, PartialEq)]
struct Told {
    sent: Vec<u8>,
    reason: String,
    is_refused: bool,
}

impl Told {
    /// Reads the responses. Each repeats what its handler was shown.
    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome {
            shown: Vec::new(),
            refusal: None,
        };
        let mut rest = &self.sent[..];
        while !rest.is_empty() {
            assert_eq!(outcome.refusal, None, "nothing follows a refusal");
            let (status, shown, after) = response(rest);
            match (status, shown) {
                (100, _) => {}
                (200, Some(shown)) => outcome.shown.push(shown),
                (status, _) => outcome.refusal = Some(status),
            }
            rest = after;
        }
        assert_eq!(
            outcome.refusal.is_some(),
            self.is_refused,
            "{}",
            self.reason
        );
        outcome
    }
}

/// Returns the status of a response, the field `Shown`, and what follows.
fn response(stream: &[u8]) -> (u16, Option<String>, &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let status = response.parse(stream).expect("a response");
    let httparse::Status::Complete(end) = status else {
        panic!("a whole head");
    };
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name == name);
        found.map(|field| String::from_utf8_lossy(field.value).into_owned())
    };
    let shown = field("Shown");
    let is_bare = shown
        .as_ref()
        .is_some_and(|shown| shown.starts_with("HEAD "))
        || field("Bare").is_some();
    let length = field("Content-Length").map_or(0, |length| length.parse().expect("a length"));
    let rest = &stream[end..];
    // The answer to a HEAD that was refused is the last one, and has no body.
    let length = if is_bare || rest.is_empty() {
        0
    } else {
        length
    };
    (response.code.expect("a status"), shown, &rest[length..])
}

fn answer(request: &Request<'_>) -> Reply {
    let line = format!("{} {}", request.method, request.target);
    match request.method {
        "POST" => Reply::collect(usize::MAX, move |body| {
            let body: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            Response::text("posted").header("Shown", format!("{line} {body}"))
        }),
        _ => Response::text("shown").header("Shown", line).into(),
    }
}

fn told(pieces: &[&[u8]]) -> Told {
    let limits = Limits {
        max_line: MAX_LINE,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let settings = Settings {
        max_head: MAX_HEAD,
        max_fields: MAX_FIELDS,
        max_body: Some(MAX_BODY),
        dates: Dates::Omitted,
        ..Settings::default()
    };
    let http = Http::new(answer).with_settings(&Arc::new(settings));
    let mut session = MemorySession::with_config(http, config);
    for piece in pieces {
        session.receive(piece);
    }
    session.receive_eof();
    let reason = session.reason().expect("the stream has ended");
    Told {
        is_refused: matches!(reason, CloseReason::Protocol(_)),
        reason: reason.to_string(),
        sent: session.sent(),
    }
}
