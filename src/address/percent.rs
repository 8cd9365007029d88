//! Percent-encoding, for texts that would otherwise be mistaken for the syntax of a URI.

use std::fmt;

/// Displays bytes as text in which everything but letters, digits and harmless punctuation is
/// percent-encoded.
pub(super) struct Encoded<'a>(pub(super) &'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for next in chunk.valid().chars() {
                if is_plain(next) {
                    write!(f, "{next}")?;
                } else {
                    encode(next.encode_utf8(&mut [0; 4]).as_bytes(), f)?;
                }
            }
            encode(chunk.invalid(), f)?;
        }
        Ok(())
    }
}

fn is_plain(next: char) -> bool {
    let is_syntax = matches!(next, '%' | '?' | '#' | '&');
    next.is_alphanumeric() || (next.is_ascii_graphic() && !is_syntax)
}

fn encode(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))
}

/// Decodes each `%XX`. Everything else stands for itself, also a plus sign.
///
/// # Errors
/// A percent sign without two hexadecimal digits, or bytes that are not UTF-8.
pub(super) fn decode(text: &str) -> Result<String, &'static str> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part
            .split_at_checked(2)
            .ok_or("a percent sign is written %25 here")?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        bytes.push(byte.ok_or("a percent sign is written %25 here")?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "what is percent-encoded is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for (text, encoded) in [
            ("", ""),
            ("/run/a.sock", "/run/a.sock"),
            ("what?", "what%3F"),
            ("100%", "100%25"),
            ("a b&c#d", "a%20b%26c%23d"),
            ("caf\u{e9}", "caf\u{e9}"),
            ("line\nend\u{200b}", "line%0Aend%E2%80%8B"),
        ] {
            assert_eq!(Encoded(text.as_bytes()).to_string(), encoded);
            assert_eq!(decode(encoded).as_deref(), Ok(text));
        }
        assert_eq!(Encoded(b"a\xff").to_string(), "a%FF");
    }

    #[test]
    fn decoding_takes_hexadecimal_digits_only() {
        assert_eq!(decode("%2f+%2F").as_deref(), Ok("/+/"));
        for wrong in ["%", "a%2", "%+1", "%zz", "%\u{e9}", "%%25"] {
            assert!(decode(wrong).unwrap_err().contains("%25"), "{wrong}");
        }
        assert!(decode("%FF").unwrap_err().contains("UTF-8"));
    }
}
