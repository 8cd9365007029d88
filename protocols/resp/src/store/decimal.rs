//! Decimal numbers with seventeen digits behind the point, as `INCRBYFLOAT` adds and writes them. What is
//! further behind is rounded. Their sums are exact, also where the numbers of Redis have no more digits.

use crate::number;

/// Digits behind the point.
const PLACES: u32 = 17;
const ONE: i128 = 10_i128.pow(PLACES);

/// Parses two numbers and returns their sum, in the shortest form. `Err` tells that the sum is too
/// large or that it is none.
pub(super) fn sum(a: &[u8], b: &[u8]) -> Option<Result<String, Unbounded>> {
    // What no `f64` is, is no number for clients either.
    let (float_a, float_b) = (number::float(a)?, number::float(b)?);
    if let (Some(a), Some(b)) = (exact(a), exact(b)) {
        if let Some(sum) = a.checked_add(b) {
            return Some(Ok(written(sum)));
        }
    }

    let sum = float_a + float_b;
    Some(if sum.is_finite() {
        Ok(sum.to_string())
    } else {
        Err(Unbounded)
    })
}

/// The sum is infinite, or no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unbounded;

/// Returns the number in units of the last place, to which it is rounded, if it is not very large.
fn exact(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, mantissa) = match mantissa.as_bytes().first()? {
        b'-' => (-1, &mantissa[1..]),
        b'+' => (1, &mantissa[1..]),
        _ => (1, mantissa),
    };

    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }

    // A point after this many digits is where the last place ends.
    let end = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(PLACES);
    Some(sign * units(&digits, end)?)
}

/// Returns the number that the first `end` digits are, rounded. Digits behind the last are zeros, and so
/// are those before the first if `end` is negative.
fn units(digits: &str, end: i64) -> Option<i128> {
    let Ok(end) = usize::try_from(end) else {
        return Some(0);
    };
    let (kept, rest) = digits.split_at(end.min(digits.len()));
    let kept = match kept.trim_start_matches('0') {
        "" => 0,
        kept => {
            let zeros = u32::try_from(end.saturating_sub(digits.len())).ok()?;
            let number: i128 = kept.parse().ok()?;
            number.checked_mul(10_i128.checked_pow(zeros)?)?
        }
    };

    let is_up = rest.bytes().next().is_some_and(|digit| digit >= b'5');
    kept.checked_add(i128::from(is_up))
}

fn written(number: i128) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let number = number.unsigned_abs();
    let (whole, fraction) = (number / ONE as u128, number % ONE as u128);
    let text = format!("{sign}{whole}.{fraction:017}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact() {
        for (a, b, expected) in [
            ("10.50", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-1.5", "1", "-0.5"),
            ("+1", ".5", "1.5"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e20", "1", "100000000000000000001"),
            // Beyond the last place nothing is lost but what is beyond it.
            ("9007199254740993", "1e-18", "9007199254740993"),
            ("9223372036854775807", "-1e-40", "9223372036854775807"),
            (
                "9223372036854775807",
                "0.0033333333333333335",
                "9223372036854775807.00333333333333333",
            ),
            ("0.30000000010000001", "1e-18", "0.30000000010000001"),
            (
                "0.30000000010000001",
                "0.000000000000000005",
                "0.30000000010000002",
            ),
            ("-0.30000000010000001", "-5e-18", "-0.30000000010000002"),
            ("0.99999999999999999", "9e-18", "1"),
            (
                "9007199254740993",
                "0.33333333333333333333333333333333333333333333333333",
                "9007199254740993.33333333333333333",
            ),
            ("9007199254740993", "1e-300", "9007199254740993"),
            ("9007199254740993", "0e300", "9007199254740993"),
            ("9007199254740993", "-0.0e-300", "9007199254740993"),
            ("9007199254740993", "0000e-2", "9007199254740993"),
        ] {
            assert_eq!(
                sum(a.as_bytes(), b.as_bytes()),
                Some(Ok(expected.to_owned())),
                "{a} {b}"
            );
        }
    }

    #[test]
    fn what_is_beyond_is_near_or_refused() {
        assert_eq!(sum(b"1e300", b"1"), Some(Ok(1e300_f64.to_string())));
        assert_eq!(sum(b"1e308", b"1e308"), Some(Err(Unbounded)));
        assert_eq!(sum(b"inf", b"1"), Some(Err(Unbounded)));
        for text in ["", "abc", "nan", "1.2.3", "1e", " 1", "1 "] {
            assert_eq!(sum(text.as_bytes(), b"1"), None, "{text:?}");
        }
    }
}
