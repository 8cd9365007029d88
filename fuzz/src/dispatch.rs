//! JSON dispatch, compared with a model that sees the whole stream at once.

mod model;
#[path = "../../protocols/dispatch/src/scanner.rs"]
#[expect(dead_code, reason = "what is scanned for is enough")]
mod scanner;

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::Value;
use serveloop::testing::MemorySession;
use serveloop::{CloseReason, Config, Protocol, ProtocolError, Transport};
use serveloop_dispatch::{ActionError, Actions, Dispatch};

use crate::input::{Input, pieces, spelled};
use scanner::Scanner;

/// What some bytes mean in a stream, so that requests are not found by luck alone.
const WORDS: [&str; 8] = [
    "{\"action\":\"echo\"",
    "{\"action\":\"sum\",\"numbers\":[",
    "{\"action\":\"help\"}",
    ",\"action\":",
    ",\"a\":",
    "\\ud83d",
    "[[[[[[[[",
    "1e308",
];

/// A refusal is shorter, whatever it tells of what the client sent.
const REFUSAL_MOST: usize = 4 << 10;

/// As much of a stream is scanned byte by byte.
const SCANNED_MOST: usize = 256;

static ACTIONS: LazyLock<Arc<Actions>> = LazyLock::new(|| {
    let sum = |Numbers { numbers }| Ok(model::sum(&numbers));
    let echo = |all: Value| Ok::<_, ActionError>(all);
    let actions = Actions::new().register("sum", "adds numbers", sum);
    Arc::new(actions.register("echo", "gives it back", echo))
});

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<i64>,
}

/// How deep and how long a value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    depth: usize,
    length: usize,
}

/// The limits, the places of the cuts, and the stream. However that is cut, the replies are those of
/// the model, a line of JSON each; the protocol is not asked more often than there is something to
/// say; and no byte is scanned twice.
///
/// # Panics
/// When they are not.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let is_spelled = input.below(2) == 0;
    let depth = [1, 2, 32, 126][input.below(4)];
    let length = match input.byte() {
        255 => Config::default().limits.max_frame,
        length => 1 + usize::from(length),
    };
    let limits = Limits { depth, length };
    let sizes = input.sizes();
    let stream = match is_spelled {
        true => spelled(input.rest(), &WORDS),
        false => input.rest().to_vec(),
    };
    let whole = told(limits, &[&stream]);
    model::check(&stream, limits, &whole.replies, whole.is_well);
    let cut = told(limits, &pieces(&stream, &sizes));
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes");
    scans_no_byte_twice(&stream[..stream.len().min(SCANNED_MOST)]);
}

/// What a client was told.
#[derive(Debug, PartialEq)]
struct Told {
    replies: Vec<String>,
    reason: String,
    is_well: bool,
}

fn told(limits: Limits, pieces: &[&[u8]]) -> Told {
    let config = Config {
        limits: serveloop::Limits {
            max_frame: limits.length,
            ..serveloop::Limits::default()
        },
        ..Config::default()
    };
    let protocol = Counted {
        dispatch: Dispatch::new(Arc::clone(&ACTIONS)).with_max_depth(limits.depth),
        calls: 0,
    };
    let mut session = MemorySession::with_config(protocol, config);
    for piece in pieces {
        session.receive(piece);
    }
    session.receive_eof();
    let sent = String::from_utf8(session.sent()).expect("replies are text");
    assert!(sent.is_empty() || sent.ends_with('\n'), "{sent}");
    let replies: Vec<_> = sent.lines().map(str::to_owned).collect();
    for reply in &replies {
        let is_short = reply.len() < REFUSAL_MOST || reply.starts_with("{\"ok\":true");
        assert!(is_short, "{reply}");
    }
    // A piece may begin with blanks, end one value, and leave another incomplete.
    let most = 2 * pieces.len() + replies.len() + 1;
    let calls = session.protocol().calls;
    assert!(calls <= most, "asked {calls} times, not {most}");
    let reason = session.reason().expect("the stream has ended");
    Told {
        replies,
        reason: reason.to_string(),
        is_well: !matches!(reason, CloseReason::Protocol(_)),
    }
}

/// A protocol, and how often it was shown data.
struct Counted {
    dispatch: Dispatch,
    calls: usize,
}

impl Protocol for Counted {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.calls += 1;
        self.dispatch.data_received(data, transport)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.dispatch.eof_received(unread, transport)
    }
}

/// Shows the scanner the stream byte by byte. What it has seen is replaced by what begins no value.
fn scans_no_byte_twice(stream: &[u8]) {
    let mut scanner = Scanner::new(usize::MAX);
    let (mut unread, mut hidden) = (Vec::new(), Vec::new());
    for byte in stream {
        unread.push(*byte);
        hidden.push(*byte);
        let expected = Scanner::new(usize::MAX).scan(&unread);
        assert_eq!(scanner.scan(&hidden), expected, "scanned again");
        match expected {
            Ok(None) => hidden.fill(b'}'),
            Ok(Some(_)) => {
                unread.clear();
                hidden.clear();
            }
            Err(_) => return,
        }
    }
}
