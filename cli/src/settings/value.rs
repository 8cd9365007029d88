//! Values of TOML, as they would be typed.

use toml::de::DeValue;

/// A value of an option: its text, where it is, and where the parts of it are that have a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) at: usize,
    pub(super) parts: Vec<(String, usize)>,
}

/// What is wrong, and at which byte.
pub(super) type Mistake = (usize, String);

/// In which digits an option takes whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digits {
    Decimal,
    /// The permissions of a file.
    Octal,
}

/// Returns a value as it would be typed.
pub(super) fn plain(value: &DeValue<'_>, digits: Digits) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => whole(number.as_str(), number.radix(), digits),
        DeValue::Boolean(is_on) => Some(is_on.to_string()),
        _ => None,
    }
}

/// Returns a whole number as it would be typed.
fn whole(number: &str, radix: u32, digits: Digits) -> Option<String> {
    match (radix, digits) {
        (10, _) | (8, Digits::Octal) => Some(number.to_owned()),
        // The option says that these are no octal digits.
        (2, Digits::Octal) => Some(format!("0b{number}")),
        (_, Digits::Octal) => Some(format!("0x{number}")),
        (_, Digits::Decimal) => {
            let value = i128::from_str_radix(number, radix).ok()?;
            Some(value.to_string())
        }
    }
}

/// Says that an array of values has none.
pub(super) fn no_value(name: &str) -> String {
    format!("{name}: expected at least one value; without the key {name}, the default is in effect")
}

/// Describes a value by its type.
pub(super) fn shown(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
