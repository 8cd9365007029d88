//! Values of options as text: yes or no, numbers, sizes, durations and permissions.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The units of a duration, each with its names.
const SPANS: [(&[&str], u64); 5] = [
    (&["ms", "msec", "millis"], 1),
    (&["s", "sec", "secs", "second", "seconds"], 1_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
];

const SIZES: [(&str, usize); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "expected true or false".to_owned())
}

/// Parses a number of digits alone, without a sign.
pub(super) fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

pub(super) fn parse_number(text: &str) -> Result<i32, String> {
    parse_digits(text).ok_or_else(|| format!("expected a number of at most {}", i32::MAX))
}

/// Parses permissions, in octal digits as for chmod(1).
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
    mode.ok_or_else(|| "expected permissions in octal digits, for example 0660".to_owned())
}

/// Parses bytes: `4096`, `64KiB`, `1MiB`, `1GiB`.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = split_unit(text);
    let unit = unit.trim_start();
    let factor = match unit {
        "" => Some(1),
        _ => SIZES
            .iter()
            .find_map(|(name, factor)| name.eq_ignore_ascii_case(unit).then_some(*factor)),
    };

    let number = digits.parse::<usize>().ok().zip(factor);
    number
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "expected bytes, for example 65536, 64KiB or 1MiB".to_owned())
}

/// Parses a duration of one or several parts: `60s`, `5m`, `1h30m`, `1h 30m`. Only 0 needs no unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration, for example 60s or 5m".to_owned();
    if !text.is_empty() && text.bytes().all(|byte| byte == b'0') {
        return Ok(Duration::ZERO);
    }

    let (mut rest, mut millis) = (text, 0_u64);
    loop {
        let (digits, behind) = split_unit(rest);
        let behind = behind.trim_start();
        let end = behind.find(|next: char| !next.is_ascii_alphabetic());
        let (unit, more) = behind.split_at(end.unwrap_or(behind.len()));

        let known = |(names, _): &&(&[&str], u64)| names.contains(&unit);
        let (_, factor) = SPANS.iter().find(known).ok_or_else(wrong)?;
        let part = digits.parse::<u64>().ok();
        millis = part
            .and_then(|part| part.checked_mul(*factor)?.checked_add(millis))
            .ok_or_else(wrong)?;

        rest = more.trim_start();
        if rest.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|next: char| !next.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// Displays bytes in the largest unit that gives a whole number.
pub(super) struct Size(pub(super) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, usize)| *factor > 1 && self.0 % factor == 0;
        match SIZES.iter().find(whole) {
            Some((name, factor)) if self.0 > 0 => write!(f, "{}{name}", self.0 / factor),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// Displays a duration in whole seconds, or in milliseconds if it has a fraction of a second.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_secs(), self.0.subsec_nanos()) {
            (0, 0) => f.write_str("0"),
            (seconds, 0) => write!(f, "{seconds}s"),
            _ => write!(f, "{}ms", self.0.as_nanos().div_ceil(1_000_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1 d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in [
            "",
            "60",
            "s",
            "-1s",
            "1.5s",
            "soon",
            "1s 5",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_typed() {
        for text in ["0", "1", "1KiB", "1025", "64KiB", "2GiB"] {
            assert_eq!(Size(parse_size(text).unwrap()).to_string(), text);
        }
        for wrong in [
            "",
            "KiB",
            "-1",
            "+1",
            "1.5MiB",
            "4KB",
            "18446744073709551615KiB",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("660"), Ok(0o660));
        for wrong in [
            "",
            "0680",
            "rw-rw----",
            "-1",
            "+7",
            "0o660",
            "77777777777777",
        ] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_and_truth_are_plain() {
        assert_eq!(parse_number("4096"), Ok(4_096));
        for wrong in ["", "-1", "+1", "2147483648", "many"] {
            assert!(parse_number(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_bool("true"), Ok(true));
        assert!(parse_bool("yes").is_err());
    }
}
