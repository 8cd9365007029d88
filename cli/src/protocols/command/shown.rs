//! What a client wrote, as a line of the log can hold it.

use std::fmt::{self, Write};

/// The most bytes of one field, quotes not counted.
const MOST: usize = 256;

const CUT: &str = "...";

/// Bytes in quotes, on one line, in at most 256 bytes: control characters and those that change
/// the direction of text are escaped, and so is what is no UTF-8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a>(pub(super) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Excerpt::default();
        // An excerpt only fails when it is full.
        let _ = self.escape(&mut text);
        write!(f, "\"{}\"", text.0)
    }
}

impl Shown<'_> {
    fn escape(&self, text: &mut Excerpt) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '\'' => text.push("'")?,
                    _ => text.push(&letter.escape_debug().to_string())?,
                }
            }
            for byte in chunk.invalid() {
                text.push(&format!("\\x{byte:02x}"))?;
            }
        }
        Ok(())
    }
}

/// Takes whole escapes as long as there is room.
#[derive(Default)]
struct Excerpt(String);

impl Excerpt {
    fn push(&mut self, escape: &str) -> fmt::Result {
        if self.0.len() + escape.len() + CUT.len() > MOST {
            self.0.write_str(CUT)?;
            return Err(fmt::Error);
        }
        self.0.write_str(escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_line() {
        let shown = |bytes: &[u8]| Shown(bytes).to_string();
        assert_eq!(shown(b"ls -l"), r#""ls -l""#);
        assert_eq!(shown(b"it's"), r#""it's""#);
        assert_eq!(shown(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(shown(b"a\r\n\x1b[31m\0"), r#""a\r\n\u{1b}[31m\0""#);
        assert_eq!(
            shown("\u{202e}\u{2028}\u{feff}".as_bytes()),
            r#""\u{202e}\u{2028}\u{feff}""#
        );
        assert_eq!(shown("größe".as_bytes()), "\"größe\"");
        assert_eq!(shown(b"\xff\xc3"), r#""\xff\xc3""#);
    }

    #[test]
    fn long_fields_are_cut_between_escapes() {
        let exact = Shown(&[b'a'; MOST - 3]).to_string();
        assert_eq!(exact.len(), MOST - 3 + 2);
        for long in [vec![b'a'; 10_000], vec![0xff; 10_000], vec![b'\n'; 10_000]] {
            let shown = Shown(&long).to_string();
            assert!(shown.len() <= MOST + 2, "{shown}");
            assert!(shown.ends_with("...\""), "{shown}");
        }
    }
}
