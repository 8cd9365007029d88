//! Exact decimal arithmetic on JSON numbers.

use std::fmt::Write;

use serde_json::{Number, Value};

/// The most digits of an exact sum. An `f64` has fewer than 800.
const DIGITS_MOST: usize = 1_100;

/// The largest exponent that is counted. It is far from the limits of 64 bits, so that the length
/// of a text can be added to it.
const EXPONENT_MOST: i64 = (i32::MAX as i64) << 16;

/// The most digits of a whole number, and the most zeros after the point of a fraction, before an
/// exponent is used.
const PLAIN_MOST: usize = 40;

/// Adds numbers exactly, by the decimal values that they are written with: 0.1 and 0.2 are 0.3.
///
/// The result has no more digits than it needs. A whole sum is written as an integer, or with an
/// exponent if it has more than 40 digits.
///
/// # Errors
/// Returns `None` if the numbers are so far apart that their sum would need more than 1,100 digits,
/// or if one of them is not zero and has an exponent beyond about 140 million millions (2 to the
/// 47).
///
/// ```
/// let numbers: Vec<serde_json::Number> = serde_json::from_str("[18446744073709551616, -1, 0.50]").unwrap();
/// let sum = serveloop_dispatch::sum_exactly(&numbers).unwrap();
/// assert_eq!(sum.to_string(), "18446744073709551615.5");
/// ```
#[must_use]
pub fn sum_exactly(numbers: &[Number]) -> Option<Number> {
    let texts: Vec<_> = numbers.iter().map(Number::to_string).collect();
    let decimals: Vec<_> = texts.iter().map(|text| Decimal::of(text)).collect();
    if decimals.iter().any(|decimal| decimal.is_beyond) {
        return None;
    }

    let others = || decimals.iter().filter(|decimal| !decimal.is_zero());
    let lowest = others().map(|it| it.exponent).min().unwrap_or(0);
    let highest = others().map(Decimal::end).max().unwrap_or(0);

    // Twenty more digits hold the carries of more numbers than fit into memory.
    let width = usize::try_from(highest.checked_sub(lowest)?).ok()?;
    if width > DIGITS_MOST {
        return None;
    }

    let mut columns = vec![0_i64; width + 20];
    for decimal in others() {
        let offset = usize::try_from(decimal.exponent - lowest).ok()?;
        decimal.add_to(&mut columns[offset..]);
    }
    Some(number(&columns, lowest))
}

/// Rewrites numbers that have a fraction or an exponent the way an `f64` is written, if the value
/// stays exactly the same: `1.10` becomes `1.1`. Without this, types that accept several kinds of
/// values would not recognise them. All other numbers stay unchanged.
pub(crate) fn unify(value: &mut Value) {
    match value {
        Value::Number(number) => unify_number(number),
        Value::Array(elements) => elements.iter_mut().for_each(unify),
        Value::Object(entries) => entries.values_mut().for_each(unify),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn unify_number(number: &mut Number) {
    let text = number.as_str();
    let is_whole = |text: &str| !text.contains(['.', 'e', 'E']) && text != "-0";
    if is_whole(text) {
        return;
    }

    let unified = text.parse().ok().and_then(Number::from_f64);
    let is_equal = |unified: &Number| Decimal::of(unified.as_str()) == Decimal::of(text);
    if let Some(unified) = unified.filter(is_equal) {
        *number = unified;
    }
}

/// The digits of a number without zeros at either end, and the power of ten of the last digit.
#[derive(Debug)]
struct Decimal<'t> {
    is_negative: bool,
    /// True if the real exponent is larger than the one that is counted.
    is_beyond: bool,
    /// The digits before and after the point.
    parts: [&'t [u8]; 2],
    exponent: i64,
}

impl<'t> Decimal<'t> {
    /// Parses a JSON number. If the exponent is too large to be counted, only its sign is kept.
    fn of(text: &'t str) -> Self {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };

        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let counted = counted_exponent(exponent);
        let exponent = counted.unwrap_or_else(|farthest| farthest);
        let mut decimal = Self {
            is_negative,
            is_beyond: counted.is_err(),
            parts: [whole.as_bytes(), fraction.as_bytes()],
            exponent: exponent - i64::try_from(fraction.len()).unwrap_or(i64::MAX >> 1),
        };
        decimal.trim();
        decimal.is_beyond &= !decimal.is_zero();
        decimal
    }

    fn trim(&mut self) {
        for part in [1, 0] {
            while let [rest @ .., b'0'] = self.parts[part] {
                self.parts[part] = rest;
                self.exponent += 1;
            }
            if !self.parts[part].is_empty() {
                break;
            }
        }

        for part in [0, 1] {
            while let [b'0', rest @ ..] = self.parts[part] {
                self.parts[part] = rest;
            }
            if !self.parts[part].is_empty() {
                break;
            }
        }
    }

    fn is_zero(&self) -> bool {
        self.parts == [b"", b""]
    }

    /// Returns the power of ten above the first digit.
    fn end(&self) -> i64 {
        let digits = self.parts[0].len() + self.parts[1].len();
        self.exponent + i64::try_from(digits).unwrap_or(i64::MAX >> 1)
    }

    /// Returns all digits, the last one first.
    fn digits(&self) -> impl Iterator<Item = i64> {
        let [whole, fraction] = self.parts;
        let digits = fraction.iter().rev().chain(whole.iter().rev());
        digits.map(|digit| i64::from(digit - b'0'))
    }

    fn add_to(&self, columns: &mut [i64]) {
        for (column, digit) in columns.iter_mut().zip(self.digits()) {
            *column += if self.is_negative { -digit } else { digit };
        }
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.is_zero() || other.is_zero() {
            return self.is_zero() && other.is_zero();
        }
        // Two numbers beyond the counted exponents may differ.
        let is_known = !self.is_beyond && !other.is_beyond;
        is_known
            && (self.is_negative, self.exponent) == (other.is_negative, other.exponent)
            && self.digits().eq(other.digits())
    }
}

/// Returns the value of an exponent, or as an error the largest counted one with the same sign if
/// it lies beyond.
fn counted_exponent(text: &str) -> Result<i64, i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // The sign is parsed separately, so that only leading zeros can make the digits long.

    let signed = |value: i64| if is_negative { -value } else { value };
    match digits.parse() {
        Ok(value) if value <= EXPONENT_MOST => Ok(signed(value)),
        _ => Err(signed(EXPONENT_MOST)),
    }
}

/// Builds the number whose digits are the sums of `columns`. The first column counts 10 to the
/// `lowest`.
fn number(columns: &[i64], lowest: i64) -> Number {
    let positive = carry(columns.iter().copied());
    let (is_negative, digits) = match positive {
        Some(digits) => (false, digits),
        None => (
            true,
            carry(columns.iter().map(|sum| -sum)).unwrap_or_default(),
        ),
    };

    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let mut exponent = lowest + i64::try_from(zeros).unwrap_or_default();
    let leading = digits.iter().rev().take_while(|digit| **digit == b'0');
    let end = digits.len() - leading.count();
    let mut digits: Vec<_> = digits[zeros.min(end)..end].to_vec();
    digits.reverse();
    if digits.is_empty() {
        (digits, exponent) = (b"0".to_vec(), 0);
    }

    let digits = String::from_utf8(digits).unwrap_or_default();
    let sign = if is_negative { "-" } else { "" };
    Number::from_string_unchecked(sign.to_owned() + &written(&digits, exponent))
}

/// Returns the digits of the columns, the lowest first, or `None` if the sum is negative.
fn carry(columns: impl Iterator<Item = i64>) -> Option<Vec<u8>> {
    let mut carry = 0;
    let mut digits = Vec::new();
    for sum in columns {
        let sum = sum + carry;
        carry = sum.div_euclid(10);
        digits.push(b"0123456789"[usize::try_from(sum.rem_euclid(10)).unwrap_or_default()]);
    }
    (carry == 0).then_some(digits)
}

/// Formats `digits` times 10 to the `exponent` as a JSON number.
fn written(digits: &str, exponent: i64) -> String {
    let count = i64::try_from(digits.len()).unwrap_or(i64::MAX >> 1);
    let most = i64::try_from(PLAIN_MOST).unwrap_or_default();
    let end = count + exponent;

    if (0..=most).contains(&exponent) && end <= most {
        return digits.to_owned() + &"0".repeat(usize::try_from(exponent).unwrap_or_default());
    }
    if exponent < 0 && end > 0 {
        let (whole, fraction) = digits.split_at(usize::try_from(end).unwrap_or_default());
        return format!("{whole}.{fraction}");
    }
    if exponent < 0 && end > -most {
        let zeros = "0".repeat(usize::try_from(-end).unwrap_or_default());
        return format!("0.{zeros}{digits}");
    }

    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let mut text = format!("{first}{point}{rest}");
    let sign = if end > 0 { "+" } else { "" };
    // Writing to a string never fails.
    let _ = write!(text, "e{sign}{}", end - 1);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(numbers: &str, expected: &str) {
        let numbers: Vec<Number> = serde_json::from_str(numbers).unwrap();
        let sum = sum_exactly(&numbers).map(|sum| sum.to_string());
        assert_eq!(sum.as_deref(), Some(expected), "{numbers:?}");
    }

    #[test]
    fn sums_are_exact() {
        check("[]", "0");
        check("[0, -0, 0.0, 0e99999999999]", "0");
        check("[1, 2, -5]", "-2");
        check("[18446744073709551616, -1]", "18446744073709551615");
        check("[18446744073709551615, 1]", "18446744073709551616");
        check("[-9223372036854775808, -1]", "-9223372036854775809");
        check("[0.1, 0.2]", "0.3");
        check("[0.1, 0.2, -0.3]", "0");
        check("[1e2, 1E-2, -0.01]", "100");
        check("[1.10, 2.20]", "3.3");
        check("[0.5, 0.5]", "1");
        check("[999.99, 0.01]", "1000");
        check("[-0.5, 0.25]", "-0.25");
        check("[9007199254740993, 0.5]", "9007199254740993.5");
        check("[100000000000000000000000, 1]", "100000000000000000000001");
        check("[1e300]", "1e+300");
        check("[12e300, 1e298]", "1.201e+301");
        check("[1e-50, 5e-51]", "1.5e-50");
        check("[1e-5]", "0.00001");
    }

    #[test]
    fn sums_of_numbers_too_far_apart_are_refused() {
        for numbers in ["[1, 1e-2000]", "[1e99999999999, 1]", "[1, 1e-99999999999]"] {
            let numbers: Vec<Number> = serde_json::from_str(numbers).unwrap();
            assert_eq!(sum_exactly(&numbers), None, "{numbers:?}");
        }
        check("[1e300, 1, -1e300]", "1");
    }

    /// They must not be treated as if they had the largest counted exponent.
    #[test]
    fn sums_of_numbers_with_exponents_beyond_count_are_refused() {
        let farthest = EXPONENT_MOST;
        for text in [
            "[1e-999999999999999999999]".to_owned(),
            "[1e999999999999999999999]".to_owned(),
            format!("[1e-{}]", farthest + 1),
            format!("[1e{}]", farthest + 1),
            format!("[1e-{}, -1e-{farthest}]", farthest + 1),
            format!("[1e-{}, -1e-{}]", farthest + 2, farthest + 1),
            "[1e-99999999999999999999, -1e-999999999999999999999]".to_owned(),
        ] {
            let numbers: Vec<Number> = serde_json::from_str(&text).unwrap();
            assert_eq!(sum_exactly(&numbers), None, "{text}");
        }

        check(&format!("[1e-{farthest}]"), &format!("1e-{farthest}"));
        check(
            &format!("[12.5e-{farthest}, 5e-{farthest}]"),
            &format!("1.75e-{}", farthest - 1),
        );

        check("[0e-999999999999999999999, 1]", "1");
        check("[1e-0000000000000000000000000000001]", "0.1");
        check("[1E+0000000000000000000000000000001]", "10");
    }

    #[test]
    fn many_numbers_carry_far() {
        let numbers = vec![Number::from(999_999_999_u64); 100_000];
        let sum = sum_exactly(&numbers).unwrap();
        assert_eq!(sum.to_string(), "99999999900000");
    }

    #[test]
    fn numbers_are_unified_without_changing_their_value() {
        let text = "[1.10, 1e2, -0, 1.0, 0.30000000000000000001, 18446744073709551616, 1E1]";
        let mut value: Value = serde_json::from_str(text).unwrap();
        unify(&mut value);
        let expected = "[1.1,100.0,-0.0,1.0,0.30000000000000000001,18446744073709551616,10.0]";
        assert_eq!(value.to_string(), expected);
        let mut value = json!({"a": [{"b": null}, "1.10", true]});
        unify(&mut value);
        assert_eq!(value, json!({"a": [{"b": null}, "1.10", true]}));
    }
}
