//! Parses one JSON value and rejects duplicate keys.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use serde_path_to_error::Track;

use crate::numbers::Numbers;
use crate::problem::{Problem, pointer};

/// The deepest nesting that can be allowed. The parser takes one level more, which the reply adds,
/// so that a client with the same parser can read it.
pub(crate) const DEPTH_MOST: usize = 126;

/// The key under which the parser passes a number as text.
const NUMBER_KEY: &str = "$serde_json::private::Number";

/// The keys by which conversions would take an object for a number, or for text that is parsed once
/// more. No request may use them.
const RESERVED: [&str; 2] = [NUMBER_KEY, "$serde_json::private::RawValue"];

/// Why a value is rejected.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// The text is not JSON. Holds a message and the position of the error in bytes.
    Text(String, usize),
    /// The text is JSON, but its meaning is not clear.
    Value(Problem),
}

/// Parses one value. Numbers keep the text that they were sent with, digit by digit.
pub(crate) fn parse(text: &[u8]) -> Result<Value, Rejection> {
    let reading = Reading::new(text);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let parsed = Unique(&reading).deserialize(tracked);

    let value = parsed.map_err(|error| match error.classify() {
        Category::Data => unclear(reading.code.get(), &error, pointer(&track.path()), text),
        _ => no_json(&error, text),
    })?;
    deserializer.end().map_err(|error| no_json(&error, text))?;
    Ok(value)
}

/// Returns the rejection of a key or a number. The parser stopped there, so if the rest is not
/// JSON, that error takes precedence.
fn unclear(
    code: &'static str,
    error: &serde_json::Error,
    pointer: String,
    text: &[u8],
) -> Rejection {
    match serde_json::from_slice::<Anything>(text) {
        Ok(Anything) => Rejection::Value(Problem::of_value(code, message(error), pointer)),
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

/// Returns the parser's message without the position, which it counts in lines of this text alone.
fn message(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if let Some(end) = message.rfind(" at line ") {
        message.truncate(end);
    }
    message
}

/// The text being parsed, and how far its numbers have been read.
struct Reading<'t> {
    text: &'t [u8],
    numbers: Cell<Numbers<'t>>,
    /// The code for an error in the meaning.
    code: Cell<&'static str>,
}

impl<'t> Reading<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            numbers: Cell::new(Numbers::new(text)),
            code: Cell::new("duplicate_key"),
        }
    }

    /// Returns the next number of the text as it is written. The parser would write `1E2` as
    /// `1e+2`. Rejects a number that no `f64` can hold, since most clients could not read it back.
    fn next_number<E: Error>(&self) -> Result<Value, E> {
        let mut numbers = self.numbers.get();
        let number = numbers
            .next()
            .ok_or_else(|| E::custom("expected a number"))?;
        self.numbers.set(numbers);

        if number.parse().is_ok_and(f64::is_infinite) {
            self.code.set("out_of_range");
            return Err(E::custom(format_args!("{number} is out of range")));
        }
        let number = Number::from_string_unchecked(number.to_owned());
        Ok(Value::Number(number))
    }

    /// Returns whether the parser made up this key to announce a number. Such a key is not part of
    /// the text.
    fn announces_number(&self, key: &str) -> bool {
        key == NUMBER_KEY && !self.text.as_ptr_range().contains(&key.as_ptr())
    }
}

/// Deserializes a value whose objects have no duplicate keys. (`Value` alone would keep the last
/// one.)
#[derive(Clone, Copy)]
struct Unique<'r, 't>(&'r Reading<'t>);

impl<'de> DeserializeSeed<'de> for Unique<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_, '_> {
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

    fn visit_i64<E: Error>(self, _: i64) -> Result<Value, E> {
        self.0.next_number()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Value, E> {
        self.0.next_number()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        self.0.next_number()
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    /// Visits an object, or a number, which the parser presents as an object.
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key_seed(Key(self.0))? {
            let Some(key) = key else {
                entries.next_value::<IgnoredAny>()?;
                return self.0.next_number();
            };

            if RESERVED.contains(&&*key) {
                self.0.code.set("reserved_key");
                return Err(A::Error::custom(format_args!(
                    "the key {key:?} is reserved"
                )));
            }

            let value = entries.next_value_seed(self)?;
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

/// Deserializes a key of an object, or `None` for the key that announces a number.
struct Key<'r, 't>(&'r Reading<'t>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok((!self.0.announces_number(key)).then(|| key.to_owned()))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Some(key.to_owned()))
    }
}

/// Any value, of which only the text matters. A `Value` would take objects with the keys of `RESERVED`
/// for something else, and `IgnoredAny` would pass over strings that are no text.
#[derive(Clone, Copy)]
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Anything {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
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
        check_no_json(r#"["\ud800"]"#, "end of hex escape", 8);
        check_no_json("12abc", "trailing characters", 2);
        check_no_json("[1,]", "trailing comma", 3);
        check_no_json("{\"a\":1]", "expected `,` or `}`", 6);
        check_no_json("\"\u{1}\"", "control character", 1);
        check_no_json(r#"{"a":1,"a":2,@@@@}"#, "key must be a string", 13);
        check_no_json(r#"[1e999, "\ud800"]"#, "end of hex escape", 15);
        check_no_json(
            r#"{"$serde_json::private::Number":"5",}"#,
            "trailing comma",
            36,
        );
    }

    #[track_caller]
    fn check_unclear(text: &str, code: &str, message: &str, at: &str) {
        let Err(Rejection::Value(problem)) = parse(text.as_bytes()) else {
            panic!("{text}");
        };
        let expected = json!({ "code": code, "message": message, "at": at });
        assert_eq!(serde_json::to_value(problem).unwrap(), expected, "{text}");
    }

    #[test]
    fn numbers_that_most_clients_cannot_read_have_their_place() {
        check_unclear("1e999", "out_of_range", "1e999 is out of range", "");
        let text = r#"{"a": [1, {"b": -1E+400}], "c": 1e999}"#;
        check_unclear(text, "out_of_range", "-1E+400 is out of range", "/a/1/b");
        let text = r#"[{"a":1,"a":2}, 1e999]"#;
        check_unclear(text, "duplicate_key", "two values for \"a\"", "/0");
    }

    /// Whatever such an object has in addition, and however the key is written.
    #[test]
    fn keys_with_a_meaning_for_the_parser_are_reserved() {
        for key in RESERVED {
            let escaped = key.replace('$', "\\u0024");
            for key in [key, &escaped] {
                for rest in [
                    "\"5\"",
                    "\"5\",\"b\":1",
                    "5",
                    "null",
                    "{\"b\":[1.5]}",
                    "\"x\"",
                ] {
                    let text = format!("[0.5, {{\"{key}\":{rest}}}]");
                    let key = key.replace("\\u0024", "$");
                    let message = format!("the key \"{key}\" is reserved");
                    check_unclear(&text, "reserved_key", &message, "/1");
                }
            }
        }
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
