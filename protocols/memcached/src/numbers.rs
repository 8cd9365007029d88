//! Numbers as they are written in commands and in values.

use std::io::{self, Write};

/// Reads a decimal number that is the whole of `word`.
pub(crate) fn number<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Reads the number in a value, as `incr` does: spaces around it are allowed, and after one anything.
pub(crate) fn counter(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii_start();
    let end = value.iter().position(u8::is_ascii_whitespace);
    number(&value[..end.unwrap_or(value.len())])
}

/// Appends a decimal number, without the machinery of `write!`.
pub(crate) fn push(to: &mut Vec<u8>, number: u64) {
    // Writing to memory cannot fail.
    let _ = write(to, number);
}

/// Writes a decimal number.
#[inline]
pub(crate) fn write(to: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return to.write_all(&digits[first..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_whole_of_a_word() {
        assert_eq!(number::<u32>(b"4294967295"), Some(u32::MAX));
        assert_eq!(number::<i32>(b"-1"), Some(-1));
        for word in ["", "-1", "4294967296", "1x", " 1", "0x1"] {
            assert_eq!(number::<u32>(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn counters_may_have_spaces_around_them() {
        for value in [
            "12",
            " 12",
            "12 ",
            "12 3",
            "+12",
            "0000000000000000000000012",
        ] {
            assert_eq!(counter(value.as_bytes()), Some(12), "{value}");
        }
        for value in ["", " ", "12a", "-1", "18446744073709551616"] {
            assert_eq!(counter(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_number_is_written_in_digits() {
        for number in [0, 9, 10, 99, 100, u64::MAX] {
            let mut text = Vec::new();
            push(&mut text, number);
            assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
