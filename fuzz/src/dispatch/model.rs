//! What has to be replied to a stream of values.

use std::slice::Iter;

use serde_json::{Deserializer, Map, Value, json};

use crate::dispatch::Limits;

/// What may be wrong with the text, which ends the connection.
const TEXT_CODES: [&str; 4] = ["invalid_json", "too_deep", "too_long", "truncated"];

/// What may be wrong with a key or a number.
const UNCLEAR_CODES: [&str; 3] = ["duplicate_key", "reserved_key", "out_of_range"];

/// The most bytes of a message, and of a pointer.
const TEXT_MOST: usize = 256;

/// The sum that the action `sum` gives.
pub(super) fn sum(numbers: &[i64]) -> i64 {
    numbers.iter().copied().fold(0, i64::wrapping_add)
}

/// Whether `replies` are those to `stream`. `is_well` says that no error ended the connection.
///
/// # Panics
/// When they are not.
pub(super) fn check(stream: &[u8], limits: Limits, replies: &[String], is_well: bool) {
    let mut replies = replies.iter();
    let mut at = 0;
    loop {
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        at += stream[at..].iter().take_while(is_blank).count();
        let rest = &stream[at..];
        if rest.is_empty() {
            assert!(is_well && replies.next().is_none(), "no value has a reply");
            return;
        }
        let reply = next(&mut replies);
        match first(rest) {
            Some((value, length)) if length <= limits.length && depth(&value) <= limits.depth => {
                let pairs = pairs(&rest[..length]);
                answered(&reply, value, pairs);
                at += length;
            }
            // There is no telling where the next value begins, other than that it goes on there.
            None if UNCLEAR_CODES
                .iter()
                .any(|code| reply["error"]["code"] == **code) =>
            {
                return;
            }
            _ => {
                let found = ends(&reply, at, stream.len());
                assert!(found && !is_well, "{reply} at byte {at}");
                assert_eq!(replies.next(), None, "nothing comes after that");
                return;
            }
        }
    }
}

fn next(replies: &mut Iter<'_, String>) -> Value {
    let reply = replies.next().expect("each value has a reply");
    let reply: Value = serde_json::from_str(reply).expect("a reply is JSON");
    let error = &reply["error"];
    let is_short = |text: &Value| text.as_str().is_some_and(|text| text.len() <= TEXT_MOST);
    match &reply["ok"] {
        Value::Bool(true) => assert!(error.is_null(), "{reply}"),
        _ => assert!(is_short(&error["message"]), "{reply}"),
    }
    assert!(error["at"].is_u64() || error.is_null() || is_short(&error["at"]));
    reply
}

/// The value that is in front, and its length, if it is JSON.
fn first(text: &[u8]) -> Option<(Value, usize)> {
    if matches!(text[0], b'{' | b'[' | b'"') {
        let mut values = Deserializer::from_slice(text).into_iter();
        let value = values.next()?.ok()?;
        return Some((value, values.byte_offset()));
    }
    let is_of_word = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    let length = text.iter().take_while(is_of_word).count();
    let value = serde_json::from_slice(&text[..length]).ok()?;
    Some((value, length))
}

/// Whether an `f64` holds each of the numbers, as readers of the reply need it.
fn is_in_range(value: &Value) -> bool {
    match value {
        Value::Array(elements) => elements.iter().all(is_in_range),
        Value::Object(entries) => entries.values().all(is_in_range),
        Value::Number(number) => number.to_string().parse().is_ok_and(f64::is_finite),
        _ => true,
    }
}

fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(elements) => elements.iter().map(depth).max(),
        Value::Object(entries) => entries.values().map(depth).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or(0)
}

/// How many keys the objects in a JSON text have, those counted that come again.
fn pairs(text: &[u8]) -> usize {
    let (mut colons, mut in_quotes, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_quotes = !in_quotes,
            b':' if !in_quotes => colons += 1,
            _ => {}
        }
    }
    colons
}

/// How many keys the objects in a value have.
fn keys(value: &Value) -> usize {
    match value {
        Value::Array(elements) => elements.iter().map(keys).sum(),
        Value::Object(entries) => entries.len() + entries.values().map(keys).sum::<usize>(),
        _ => 0,
    }
}

/// Whether `reply` is the one to `value`, whose text had this many keys.
fn answered(reply: &Value, value: Value, pairs: usize) {
    let is_unique = keys(&value) == pairs;
    let code = match value {
        // The first one counts, and a value that another one replaced is not here.
        _ if !is_unique => {
            let code = &reply["error"]["code"];
            UNCLEAR_CODES
                .into_iter()
                .find(|known| *code == **known)
                .unwrap_or("duplicate_key")
        }
        _ if !is_in_range(&value) => "out_of_range",
        Value::Object(parameters) => return called(reply, parameters),
        _ => "not_an_object",
    };
    refused(reply, code);
}

fn called(reply: &Value, mut parameters: Map<String, Value>) {
    let name = match parameters.remove("action") {
        None => return refused(reply, "missing_action"),
        Some(Value::String(name)) => name,
        Some(_) => return refused(reply, "wrong_type"),
    };
    let result = match name.as_str() {
        "echo" => Value::Object(parameters),
        "help" => json!({
            "echo": "gives it back",
            "help": "lists all actions and what they do",
            "sum": "adds numbers",
        }),
        "sum" => match numbers(&parameters) {
            None => return refused(reply, "wrong_type"),
            Some(numbers) => sum(&numbers).into(),
        },
        _ => return refused(reply, "unknown_action"),
    };
    // What is written is read back: a float may differ in its last bit.
    let result: Value = serde_json::from_str(&result.to_string()).expect("JSON");
    assert_eq!(*reply, json!({"ok": true, "result": result}));
}

fn numbers(parameters: &Map<String, Value>) -> Option<Vec<i64>> {
    let numbers = parameters.get("numbers")?.as_array()?;
    numbers.iter().map(Value::as_i64).collect()
}

fn refused(reply: &Value, code: &str) {
    assert_eq!(reply["error"]["code"], code, "{reply}");
    assert!(reply["error"]["at"].is_string(), "{reply}");
}

/// Whether a reply says of the text, between two of its bytes, that something is wrong.
fn ends(reply: &Value, start: usize, end: usize) -> bool {
    let error = &reply["error"];
    let is_known = TEXT_CODES.iter().any(|code| error["code"] == **code);
    let at = error["at"].as_u64().and_then(|at| usize::try_from(at).ok());
    is_known && at.is_some_and(|at| (start..=end).contains(&at))
}
