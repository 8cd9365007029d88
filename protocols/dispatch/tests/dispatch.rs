//! The protocol as a client sees it, in memory: cut in any way, and given anything.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use serveloop::testing::{MemorySession, SplitChecker};
use serveloop::{CloseReason, Config, Limits, Peer, ProtocolError};
use serveloop_dispatch::{ActionError, Actions, Dispatch};

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<i64>,
}

fn actions() -> Arc<Actions> {
    let sum = |Numbers { numbers }| -> Result<i64, ActionError> { Ok(numbers.iter().sum()) };
    let actions = Actions::new()
        .register("sum", "adds numbers", sum)
        .register("echo", "gives it back", |all: Value| Ok(all))
        .register("long", "says a lot", |Numbers { numbers }| {
            Ok("x".repeat(numbers[0] as usize))
        });
    Arc::new(actions)
}

fn session() -> MemorySession<Dispatch> {
    MemorySession::new(Dispatch::new(actions()))
}

fn replies(session: &mut MemorySession<Dispatch>) -> Vec<Value> {
    let sent = String::from_utf8(session.sent()).expect("text");
    assert!(sent.is_empty() || sent.ends_with('\n'), "{sent}");
    sent.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The one reply to `text`, which says that it is wrong, and whether the connection goes on.
#[track_caller]
fn refused(text: &str) -> (String, Value, bool) {
    let mut session = session();
    session.receive(text.as_bytes());
    let replies = replies(&mut session);
    let [reply] = &replies[..] else {
        panic!("{text}: {replies:?}");
    };
    assert_eq!(reply["ok"], false, "{text}");
    let error = &reply["error"];
    let code = error["code"].as_str().expect("a code").to_owned();
    (code, error["at"].clone(), session.reason().is_none())
}

#[test]
fn values_are_answered_in_their_order() {
    let mut session = session();
    session.receive(br#"{"action":"sum","numbers":[1,2,3]}{"action":"echo","x":"#);
    assert_eq!(replies(&mut session), [json!({"ok": true, "result": 6})]);
    session.receive(b"[null]}\r\n\t {\"action\":\"sum\",\"numbers\":[]}\n");
    let expected = [
        json!({"ok": true, "result": {"x": [null]}}),
        json!({"ok": true, "result": 0}),
    ];
    assert_eq!(replies(&mut session), expected);
    session.receive_eof();
    assert!(matches!(session.reason(), Some(CloseReason::PeerClosed)));
}

#[test]
fn however_it_is_cut() {
    let messages: [&[u8]; 7] = [
        br#"{"action":"sum","numbers":[1,2]}"#,
        b" \r\n",
        br#"{"action":"echo","\"}{":"\\\u20ac\"]"}"#,
        br#"{"action":"none"}"#,
        br#"[{}]"#,
        br#""text"17 null "#,
        br#"{"action":"echo","a":{"a":1,"a":2}}"#,
    ];
    SplitChecker::new(|| Dispatch::new(actions()))
        .stream()
        .check(&messages);
}

#[test]
fn wrong_text_ends_the_connection_and_says_where() {
    let deep = "[".repeat(100_000);
    let cases = [
        ("{\"action\":\"echo\",\"x\":NaN}", "invalid_json", 21),
        ("[\"\\ud800\"]", "invalid_json", 8),
        ("[\"1e999\", 01]", "invalid_json", 11),
        ("[1.]", "invalid_json", 3),
        ("[-]", "invalid_json", 2),
        ("[Infinity]", "invalid_json", 1),
        ("}", "invalid_json", 0),
        ("  ,", "invalid_json", 2),
        ("GET / HTTP/1.1\r\n", "invalid_json", 0),
        (&deep, "too_deep", 32),
    ];
    for (text, code, at) in cases {
        let expected = (code.to_owned(), json!(at), false);
        assert_eq!(refused(text), expected, "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn numbers_come_back_as_they_were_sent() {
    let mut session = session();
    let numbers = "[1.10,1e2,1E+2,-0,0.1,100000000000000000000000,18446744073709551616,1e-400]";
    let request = format!("{{\"action\":\"echo\",\"x\":{numbers}}}");
    session.receive(request.as_bytes());
    let expected = format!("{{\"ok\":true,\"result\":{{\"x\":{numbers}}}}}\n");
    assert_eq!(String::from_utf8(session.sent()).unwrap(), expected);
}

#[test]
fn text_that_is_no_utf8_is_refused_with_its_place() {
    let mut session = session();
    session.receive(b"{\"action\":\"help\"}[\"ab\xff\"]");
    let reply = replies(&mut session).pop().expect("a reply");
    assert_eq!(reply["error"]["code"], "invalid_json");
    assert_eq!(reply["error"]["at"], 17 + 4);
    assert!(session.reason().is_some());
}

#[test]
fn the_place_is_counted_from_the_beginning_of_the_connection() {
    let mut session = session();
    session.receive(b" {\"action\":\"help\"}\n");
    session.receive(b"[1] [x]");
    let replies = replies(&mut session);
    assert_eq!(replies[1]["error"]["code"], "not_an_object");
    assert_eq!(replies[2]["error"]["at"], 19 + 5);
    let reason = session.reason();
    assert!(matches!(
        reason,
        Some(CloseReason::Protocol(ProtocolError::Malformed(_)))
    ));
}

#[test]
fn trailing_data_is_the_next_value() {
    let mut session = session();
    session.receive(br#"{"action":"sum","numbers":[1]}]"#);
    let replies = replies(&mut session);
    assert_eq!(replies[0]["result"], 1);
    assert_eq!(replies[1]["error"]["code"], "invalid_json");
    assert_eq!(replies[1]["error"]["at"], 30);
}

#[test]
fn wrong_meaning_concerns_one_value() {
    let cases = [
        ("[1]", "not_an_object", ""),
        ("null ", "not_an_object", ""),
        ("{}", "missing_action", ""),
        ("{\"action\":[]}", "wrong_type", "/action"),
        ("{\"action\":\"\\u0000\"}", "unknown_action", "/action"),
        ("{\"action\":\"sum\"}", "wrong_type", ""),
        (
            "{\"action\":\"sum\",\"numbers\":[1,\"2\"]}",
            "wrong_type",
            "/numbers/1",
        ),
        (
            "{\"action\":\"echo\",\"action\":\"help\"}",
            "duplicate_key",
            "",
        ),
        (
            "{\"action\":\"echo\",\"a\":[{\"$serde_json::private::Number\":\"1\"}]}",
            "reserved_key",
            "/a/0",
        ),
        (
            "{\"action\":\"echo\",\"\\u0024serde_json::private::Number\":1}",
            "reserved_key",
            "",
        ),
        (
            "{\"action\":\"echo\",\"x\":{\"$serde_json::private::Number\":\"5\",\"b\":1}}",
            "reserved_key",
            "/x",
        ),
        (
            "{\"action\":\"echo\",\"x\":{\"$serde_json::private::Number\":5}}",
            "reserved_key",
            "/x",
        ),
        ("{\"action\":\"echo\",\"x\":1e400}", "out_of_range", "/x"),
        ("[1e999999999]", "out_of_range", "/0"),
        ("[1, -1e+309 , 2]", "out_of_range", "/1"),
        (
            "{\"action\":\"echo\",\"a\":[{\"b\":1,\"b\":1}]}",
            "duplicate_key",
            "/a/0",
        ),
        (
            "{\"action\":\"long\",\"numbers\":[2000000]}",
            "reply_too_long",
            "",
        ),
    ];
    for (text, code, at) in cases {
        assert_eq!(refused(text), (code.to_owned(), json!(at), true), "{text}");
    }
}

#[test]
fn a_value_has_a_longest_length() {
    let config = Config {
        limits: Limits {
            max_frame: 100,
            ..Limits::default()
        },
        ..Config::default()
    };
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let mut session = MemorySession::with_config(Dispatch::new(actions()), config);
    session.receive(text(100).as_bytes());
    assert_eq!(replies(&mut session)[0]["error"]["code"], "not_an_object");
    session.receive(&text(101).as_bytes()[..101]);
    let replies = replies(&mut session);
    assert_eq!(replies[0]["error"]["code"], "too_long");
    assert_eq!(replies[0]["error"]["at"], 200);
    assert!(session.reason().is_some());
}

/// It was told of the level, which lies beyond the longest length, if both came at once.
#[test]
fn what_is_too_long_is_so_however_it_is_cut() {
    let config = Config {
        limits: Limits {
            max_frame: 10,
            ..Limits::default()
        },
        ..Config::default()
    };
    let text = "[".repeat(40);
    for size in [1, 11, 40] {
        let mut session = MemorySession::with_config(Dispatch::new(actions()), config.clone());
        for piece in text.as_bytes().chunks(size) {
            session.receive(piece);
        }
        let error = &replies(&mut session)[0]["error"];
        assert_eq!(error["code"], "too_long", "in pieces of {size} bytes");
        assert_eq!(error["at"], 10);
    }
}

#[test]
fn the_end_of_the_stream_ends_a_word_and_nothing_else() {
    for (text, code) in [("12", "not_an_object"), ("nul", "invalid_json")] {
        let mut session = session();
        session.receive(text.as_bytes());
        assert_eq!(session.sent(), b"");
        session.receive_eof();
        assert_eq!(replies(&mut session)[0]["error"]["code"], code);
        assert!(session.reason().is_some());
    }
    for text in ["{\"action\":", "\"12", "[1, 2"] {
        let mut session = session();
        session.receive(text.as_bytes());
        session.receive_eof();
        let error = &replies(&mut session)[0]["error"];
        assert_eq!(error["code"], "truncated");
        assert_eq!(error["at"], text.len());
        let reason = session.reason();
        assert!(matches!(
            reason,
            Some(CloseReason::Protocol(ProtocolError::Truncated { .. }))
        ));
    }
}

#[test]
fn the_depth_is_for_the_server_to_say() {
    let nested = |levels: usize| {
        let levels = levels - 1;
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!("{{\"action\":\"echo\",\"x\":{open}{close}}}")
    };
    for (asked, given) in [(32, 32), (3, 3), (1_000, 126)] {
        let make = || MemorySession::new(Dispatch::new(actions()).with_max_depth(asked));
        let mut session = make();
        session.receive(nested(given).as_bytes());
        assert_eq!(replies(&mut session)[0]["ok"], true, "{asked}");
        let mut session = make();
        session.receive(nested(given + 1).as_bytes());
        assert_eq!(replies(&mut session)[0]["error"]["code"], "too_deep");
    }
}

/// Whatever looks at all that is unread for each byte that comes needs minutes for this.
#[test]
fn one_byte_at_a_time_costs_no_more_than_all_at_once() {
    let text = format!("{{\"action\":\"echo\",\"x\":\"{}\"}}", "y".repeat(500_000));
    let began = Instant::now();
    let mut session = session();
    for byte in text.as_bytes() {
        session.receive(&[*byte]);
    }
    assert_eq!(replies(&mut session)[0]["ok"], true);
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// Keys that a careless hash maps to one place: "Aa" and "BB" are the same to `31 * hash + byte`.
/// Comparing each with all others would be 20,000,000,000 comparisons.
#[test]
fn keys_chosen_to_collide_cost_no_more_than_others() {
    let config = Config {
        limits: Limits {
            max_frame: 16 << 20,
            max_output: 16 << 20,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut text = String::from("{\"action\":\"echo\"");
    for number in 0..200_000_u32 {
        let key: String = (0..18)
            .map(|bit| if number >> bit & 1 == 0 { "Aa" } else { "BB" })
            .collect();
        write!(text, ",\"{key}\":0").unwrap();
    }
    text.push('}');
    let began = Instant::now();
    let mut session = MemorySession::with_config(Dispatch::new(actions()), config);
    session.receive(text.as_bytes());
    let replies = replies(&mut session);
    assert_eq!(replies[0]["result"].as_object().unwrap().len(), 200_000);
    assert!(began.elapsed() < Duration::from_secs(100));
}

#[test]
fn a_datagram_is_answered_on_its_own() {
    let peer = Peer::new("udp://127.0.0.1:1".parse().unwrap(), Some(0));
    let make = Dispatch::new(actions());
    let mut session = MemorySession::with_peer(make, Config::default(), peer);
    session.receive(br#"{"action":"sum","numbers":[2,3]}"#);
    session.receive_eof();
    assert_eq!(session.sent(), b"{\"ok\":true,\"result\":5}\n");
}

/// Text of which a part is JSON, to get further than noise does.
fn some_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"{\"action\":\"echo\"}"[..]),
        Just(&b"{\"action\":"[..]),
        Just(&b"\"\\\""[..]),
        Just(&b"[1,"[..]),
        Just(&b"]"[..]),
        Just(&b"}"[..]),
        Just(&b" \n"[..]),
        Just(&b"-1e5"[..]),
        Just(&b"\xff\x00"[..]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn anything_has_the_same_answer_in_any_pieces(text in some_text(), size in 1_usize..7) {
        let answer = |size: usize| {
            let mut session = session();
            text.chunks(size.max(1)).for_each(|piece| session.receive(piece));
            session.receive_eof();
            prop_assert!(session.reason().is_some());
            Ok(session.sent())
        };
        let whole = answer(text.len())?;
        prop_assert_eq!(&whole, &answer(size)?);
        for line in String::from_utf8(whole).unwrap().lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
    }
}

#[test]
fn no_reply_is_longer_than_a_datagram() {
    for (peer, fits) in [("udp://127.0.0.1:1", false), ("unixgram:///s", true)] {
        let peer = Peer::new(peer.parse().unwrap(), Some(0));
        let make = Dispatch::new(actions());
        let mut session = MemorySession::with_peer(make, Config::default(), peer);
        session.receive(br#"{"action":"long","numbers":[65507]}"#);
        let replies = replies(&mut session);
        assert_eq!(replies[0]["ok"], fits);
        let code = (!fits).then_some("reply_too_long");
        assert_eq!(replies[0]["error"]["code"].as_str(), code);
    }
}
