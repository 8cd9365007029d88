//! Bytes as they are typed: text with escapes.

use std::str::FromStr;

/// The bytes of a text in which `\r`, `\n`, `\t`, `\\` and `\xNN` stand for single bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unescaped(pub(crate) Vec<u8>);

impl FromStr for Unescaped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((plain, escape)) = rest.split_once('\\') {
            bytes.extend_from_slice(plain.as_bytes());
            let place = text.len() - escape.len();
            let (byte, length) = escaped(escape).ok_or_else(|| {
                let shown: String = escape.chars().take(1).collect();
                format!(
                    "the escape \\{shown} at byte {place} is not known: expected \\r, \\n, \\t, \\\\ or \
                     \\xNN with two hexadecimal digits"
                )
            })?;
            bytes.push(byte);
            rest = &escape[length..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        Ok(Self(bytes))
    }
}

/// Returns the byte of an escape, which is given without its backslash, and the length of that.
fn escaped(escape: &str) -> Option<(u8, usize)> {
    let byte = match escape.as_bytes() {
        [b'r', ..] => b'\r',
        [b'n', ..] => b'\n',
        [b't', ..] => b'\t',
        [b'\\', ..] => b'\\',
        [b'x', high, low, ..] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let value = digit(high)? * 16 + digit(low)?;
            return Some((u8::try_from(value).ok()?, 3));
        }
        _ => return None,
    };
    Some((byte, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes() {
        for (text, bytes) in [
            ("PING\\r\\n", &b"PING\r\n"[..]),
            ("a\\tb\\\\n", b"a\tb\\n"),
            ("\\x00\\xff\\x4A", b"\0\xffJ"),
            ("gr\u{fc}n", "gr\u{fc}n".as_bytes()),
            ("", b""),
        ] {
            assert_eq!(text.parse(), Ok(Unescaped(bytes.to_vec())), "{text}");
        }
    }

    #[test]
    fn what_is_no_escape_is_told_with_its_place() {
        for (text, part) in [
            ("\\", "\\ at byte 1"),
            ("ab\\q", "\\q at byte 3"),
            ("\\x", "\\x at byte 1"),
            ("\\x4", "\\x at byte 1"),
            ("\\x+1", "\\x at byte 1"),
            ("\\x4g", "\\x at byte 1"),
            ("\\\u{fc}", "\\\u{fc} at byte 1"),
        ] {
            let problem = text.parse::<Unescaped>().expect_err(text);
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
