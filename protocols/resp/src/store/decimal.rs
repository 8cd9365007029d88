//! Decimal numbers with seventeen digits behind the point, as `INCRBYFLOAT` adds and writes them.

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

/// Returns the number in units of the last place, if it has no more places and is not very large.
fn exact(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat().parse::<i128>().ok()?;

    let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    match PLACES.checked_add_signed(places.checked_neg()?) {
        Some(shift) => digits.checked_mul(10_i128.checked_pow(shift)?),
        None => None,
    }
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
