//! One JSON value from its text, in which no object has a key twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::problem::{Problem, pointer};

/// The deepest nesting, whatever was asked for: the parser takes one level more, which is what a reply
/// adds, so that a client with the same parser can read it.
pub(crate) const DEPTH_MOST: usize = 126;

/// Why a text is no value that can be worked with.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// It is no JSON, as was noticed at a byte of the text.
    Text(String, usize),
    /// It is, but its meaning is not clear.
    Value(Problem),
}

pub(crate) fn parse(text: &[u8]) -> Result<Value, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed: Result<Unique, _> = serde_path_to_error::deserialize(&mut deserializer);
    let Unique(value) = parsed.map_err(|error| match error.inner().classify() {
        Category::Data => twice(error.inner(), pointer(error.path()), text),
        _ => no_json(error.inner(), text),
    })?;
    deserializer.end().map_err(|error| no_json(&error, text))?;
    Ok(value)
}

/// A key came twice. What follows it was not read, and comes first if it is no JSON.
fn twice(error: &serde_json::Error, pointer: String, text: &[u8]) -> Rejection {
    match serde_json::from_slice::<Value>(text) {
        Ok(_) => Rejection::Value(Problem::of_value("duplicate_key", message(error), pointer)),
        Err(error) => no_json(&error, text),
    }
}

fn no_json(error: &serde_json::Error, text: &[u8]) -> Rejection {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let at = before + error.column().saturating_sub(1);
    Rejection::Text(message(error), at.min(text.len()))
}

/// The parser's message without the place, which it knows in lines of this text alone.
fn message(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if let Some(end) = message.rfind(" at line ") {
        message.truncate(end);
    }
    message
}

/// A value whose objects have no key twice. (A `Value` keeps the last one.)
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Unique(value) = entries.next_value()?;
            match object.entry(key) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!(
                        "two values for {:?}",
                        entry.key()
                    )));
                }
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_no_json(text: &str, message: &str, at: usize) {
        match parse(text.as_bytes()) {
            Err(Rejection::Text(found, place)) => {
                assert!(found.contains(message), "{text}: {found}");
                assert_eq!(place, at, "{text}: {found}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn values_are_what_serde_json_makes_of_them() {
        for value in [
            json!(null),
            json!([true, -1, u64::MAX, 0.5, "\u{20ac}\u{0}"]),
            json!({"a": {"b": [{}]}, "": ""}),
        ] {
            assert_eq!(parse(value.to_string().as_bytes()).unwrap(), value);
        }
    }

    #[test]
    fn what_is_no_json_has_its_place() {
        check_no_json("[1,\n 2,\n NaN]", "expected value", 9);
        check_no_json("[1e999999999]", "number out of range", 11);
        check_no_json(r#"["\ud800"]"#, "end of hex escape", 8);
        check_no_json("12abc", "trailing characters", 2);
        check_no_json("[1,]", "trailing comma", 3);
        check_no_json("{\"a\":1]", "expected `,` or `}`", 6);
        check_no_json("\"\u{1}\"", "control character", 1);
        check_no_json(r#"{"a":1,"a":2,@@@@}"#, "key must be a string", 13);
        check_no_json(r#"[{"a":1,"a":2}, 1e999]"#, "number out of range", 20);
    }

    #[test]
    fn invalid_text_is_no_json() {
        assert!(matches!(parse(b"\"\xff\""), Err(Rejection::Text(..))));
    }

    #[test]
    fn a_key_twice_is_no_clear_meaning() {
        let text = br#"{"a": [0, {"b": 1, "c": 2, "b": 3}]}"#;
        let Err(Rejection::Value(problem)) = parse(text) else {
            panic!("two values for one key");
        };
        let expected = json!({
            "code": "duplicate_key", "message": "two values for \"b\"", "at": "/a/1",
        });
        assert_eq!(serde_json::to_value(problem).unwrap(), expected);
    }

    #[test]
    fn the_deepest_nesting_is_less_than_the_parsers() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(nested(DEPTH_MOST).as_bytes()).is_ok());
        assert!(parse(nested(DEPTH_MOST + 1).as_bytes()).is_ok());
        assert!(parse(nested(DEPTH_MOST + 2).as_bytes()).is_err());
    }
}
