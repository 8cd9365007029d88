//! Numbers as text, by the rules of Redis: an integer has exactly one spelling.

/// The most characters of an `i64`.
const INTEGER_MOST: usize = 20;

/// Parses a whole number without a plus sign, leading zeros or blanks.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() < INTEGER_MOST => {}
        _ => return None,
    }

    // Nineteen digits always fit.
    let mut number = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }

    if is_negative {
        0_i64.checked_sub_unsigned(number)
    } else {
        i64::try_from(number).ok()
    }
}

/// Parses a decimal number, also with an exponent, or an infinity. Not a number is none.
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|number: &f64| !number.is_nan())
}

/// The decimal digits of an integer.
pub(crate) struct Digits {
    text: [u8; INTEGER_MOST],
    start: usize,
}

impl Digits {
    /// The most digits.
    pub(crate) const MOST: usize = INTEGER_MOST;

    #[inline]
    pub(crate) fn of(number: i64) -> Self {
        let mut digits = Self::of_unsigned(number.unsigned_abs());
        if number < 0 {
            digits.start -= 1;
            digits.text[digits.start] = b'-';
        }
        digits
    }

    #[inline]
    pub(crate) fn of_unsigned(mut number: u64) -> Self {
        let mut text = [0; INTEGER_MOST];
        let mut start = INTEGER_MOST;
        loop {
            start -= 1;
            text[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { text, start };
            }
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_has_one_spelling() {
        for number in [0, 7, -1, 10, i64::MAX, i64::MIN, 1_000_000] {
            let text = number.to_string();
            assert_eq!(integer(text.as_bytes()), Some(number));
            assert_eq!(Digits::of(number).as_slice(), text.as_bytes());
        }
        let others = [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "00",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "1e3",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "--1",
            "1-",
        ];
        for text in others {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn unsigned_numbers_have_all_their_digits() {
        assert_eq!(
            Digits::of_unsigned(u64::MAX).as_slice(),
            b"18446744073709551615"
        );
    }

    #[test]
    fn floats_are_numbers() {
        assert_eq!(float(b"1.5e3"), Some(1_500.0));
        assert_eq!(float(b"-inf"), Some(f64::NEG_INFINITY));
        for text in ["", "nan", "1.5 ", "abc", "1,5"] {
            assert_eq!(float(text.as_bytes()), None, "{text:?}");
        }
    }
}
