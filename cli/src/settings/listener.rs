//! A listener that is written as a table: `uri`, and its options, which become the query.

use std::fmt::Write;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::settings::value::{Digits, Mistake, Value, no_value, plain, shown};

const URI: &str = "uri";
/// The names of the option for the permissions of a Unix socket.
const MODES: [&str; 2] = ["mode", "socket-mode"];

/// Returns the URI of a table.
pub(super) fn uri(table: &DeTable<'_>, at: usize) -> Result<Value, Mistake> {
    let missing = || {
        (
            at,
            "a listener has a uri, such as uri = \"tcp://:9999\"".to_owned(),
        )
    };
    let (_, uri) = table
        .iter()
        .find(|(key, _)| key.get_ref() == URI)
        .ok_or_else(missing)?;
    let DeValue::String(place) = uri.get_ref() else {
        let problem = format!("uri: expected a text, not {}", shown(uri.get_ref()));
        return Err((uri.span().start, problem));
    };

    let mut options: Vec<_> = table
        .iter()
        .filter(|(key, _)| key.get_ref() != URI)
        .collect();
    options.sort_by_key(|(key, _)| key.span().start);
    let mut text = place.to_string();
    let mut parts = Vec::new();
    for (key, value) in options {
        if parts.is_empty() && !place.contains('?') {
            text = match place.starts_with("unix") {
                // With a query, a percent sign in a path has a meaning.
                true => text.replace('%', "%25"),
                false => text,
            };
            text.push('?');
        } else {
            text.push('&');
        }
        text += &query(key, value)?;
        parts.push((key.get_ref().to_string(), key.span().start));
    }
    Ok(Value {
        text,
        at: uri.span().start,
        parts,
    })
}

/// Returns the part of a query that says the value of a key, or each of its values.
fn query(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<String, Mistake> {
    let name = key.get_ref();
    let values = match value.get_ref() {
        DeValue::Array(array) if array.is_empty() => {
            return Err((value.span().start, no_value(name)));
        }
        DeValue::Array(array) => array.iter().collect(),
        _ => vec![value],
    };
    let digits = match MODES.contains(&name.as_ref()) {
        true => Digits::Octal,
        false => Digits::Decimal,
    };
    let pairs = values.into_iter().map(|value| {
        let text = plain(value.get_ref(), digits).ok_or_else(|| {
            let problem = format!(
                "{name}: expected a text, a whole number, true or false, not {}",
                shown(value.get_ref())
            );
            (value.span().start, problem)
        })?;
        Ok(format!("{name}={}", encoded(&text)))
    });
    Ok(pairs.collect::<Result<Vec<_>, Mistake>>()?.join("&"))
}

/// Writes what has a meaning in a query as `%XX`.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~/:,@[]*".contains(&byte);
        let _ = match is_plain {
            true => write!(encoded, "{}", char::from(byte)),
            false => write!(encoded, "%{byte:02X}"),
        };
    }
    encoded
}
