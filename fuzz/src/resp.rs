//! RESP, compared with a model that sees the whole stream at once, and the store on any commands.

mod model;

use serveloop::testing::MemorySession;
use serveloop::{Config, Limits, Transport};
use serveloop_resp::store::{Eviction, Settings, Store};
use serveloop_resp::{ErrorReply, Reply, Request, Resp, Service};

use crate::input::{Input, pieces, spelled};

/// What some bytes mean in a stream, so that requests are not found by luck alone.
const WORDS: [&str; 30] = [
    "\r\n",
    "*1\r\n",
    "*2\r\n",
    "*3\r\n",
    "*0\r\n",
    "*-1\r\n",
    "$1\r\n",
    "$3\r\n",
    "$0\r\n\r\n",
    "$3\r\nSET\r\n",
    "$3\r\nGET\r\n",
    "$4\r\nINCR\r\n",
    "$1\r\na\r\n",
    "$1\r\n7\r\n",
    "set a 1 ",
    "set b x px 1\r\n",
    "del a b\r\n",
    "append b ",
    "scan 0\r\n",
    "rename a b\r\n",
    "expire a ",
    "'a b' ",
    "\"\\x41\" ",
    "get b\r\n",
    "multi\r\n",
    "*1\r\n$5\r\nMULTI\r\n",
    "exec\r\n",
    "discard\r\n",
    "watch a b\r\n",
    "unwatch\r\n",
];

/// The limits, the places of the cuts, and the stream. However that is cut, the requests are those of
/// the model, and the store gives the same replies and stays in order.
///
/// # Panics
/// When they are not.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let is_spelled = input.below(4) > 0;
    let most = model::Most {
        request: 16 + usize::from(input.byte()),
        line: 8 + usize::from(input.byte()),
    };
    let sizes = input.sizes();
    let stream = match is_spelled {
        true => spelled(input.rest(), &WORDS),
        false => input.rest().to_vec(),
    };

    let (requests, is_broken) = model::requests(&stream, most);
    for pieces in [vec![&stream[..]], pieces(&stream, &sizes)] {
        let heard = heard(&pieces, most);
        assert_eq!(heard.0, requests, "in pieces of {sizes:?} bytes");
        assert_eq!(heard.1, is_broken, "in pieces of {sizes:?} bytes");
    }

    let whole = stored(&[&stream], most);
    let cut = stored(&pieces(&stream, &sizes), most);
    assert_eq!(cut, whole, "in pieces of {sizes:?} bytes");
}

type Words = Vec<Vec<u8>>;

/// Keeps what it is asked.
#[derive(Default)]
struct Ear(Vec<Words>);

impl Service for Ear {
    fn answer(
        &mut self,
        request: Request<'_>,
        reply: &mut Reply,
        _: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let words = std::iter::once(request.name()).chain(request.arguments());
        self.0.push(words.map(<[u8]>::to_vec).collect());
        reply.ok();
        Ok(())
    }
}

fn config(most: model::Most) -> Config {
    Config {
        limits: Limits {
            max_frame: most.request,
            max_line: most.line,
            ..Limits::default()
        },
        ..Config::default()
    }
}

/// The requests in the stream, and whether it ends with something else.
fn heard(pieces: &[&[u8]], most: model::Most) -> (Vec<Words>, bool) {
    let mut session = MemorySession::with_config(Resp::new(Ear::default()), config(most));
    pieces.iter().for_each(|piece| session.receive(piece));
    let is_broken = session.reason().is_some();
    let requests = session.protocol().service().0.clone();

    let mut expected = b"+OK\r\n".repeat(requests.len());
    let sent = session.sent();
    if is_broken {
        expected.extend(b"-ERR Protocol error: ");
        assert!(
            sent.starts_with(&expected) && sent.ends_with(b"\r\n"),
            "{}",
            sent.escape_ascii()
        );
    } else {
        assert_eq!(sent, expected);
    }
    (requests, is_broken)
}

/// What the store replies. Its memory is small, so that keys are evicted; which ones is up to chance,
/// so here they are those that expire soonest.
fn stored(pieces: &[&[u8]], most: model::Most) -> String {
    let settings = Settings {
        max_memory: Some(1_500),
        eviction: Eviction::VolatileTtl,
        max_transaction: 300,
        ..Settings::default()
    };
    let store = Store::new(settings);
    let mut session = MemorySession::with_config(Resp::new(store.connection()), config(most));
    pieces.iter().for_each(|piece| session.receive(piece));
    let sent = session.sent().escape_ascii().to_string();

    // The store can still be used, and counts its memory.
    let mut other = MemorySession::new(Resp::new(store.connection()));
    let mut ask = |line: &str| {
        other.receive(line.as_bytes());
        String::from_utf8_lossy(&other.sent()).into_owned()
    };
    let count = ask("dbsize\r\n");
    let keys = ask("keys *\r\n");
    assert_eq!(
        count[1..],
        keys.split_inclusive("\r\n").next().unwrap_or_default()[1..],
        "{keys}"
    );
    let used = ask("flushall\r\ninfo memory\r\n");
    assert!(used.contains("\r\nused_memory:0\r\n"), "{used}");
    comparable(&sent)
}

/// Replies without what differs between runs: numbers of connections, the time, and the order of keys.
fn comparable(sent: &str) -> String {
    match ["*", "id", "redis", "_"].iter().any(|it| sent.contains(it)) {
        true => String::new(),
        false => sent.to_owned(),
    }
}
