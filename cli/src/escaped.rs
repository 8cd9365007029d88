//! Bytes of a client as a terminal can show them.

use std::fmt::{self, Write};

/// Shows what can be printed as it is, and everything else as an escape, so that whoever sent it has
/// no say over the terminal: a control character as `\n` or `\u{1b}`, a byte that is no text as
/// `\xff`, and a backslash as `\\`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for next in chunk.valid().chars() {
                match next {
                    '\'' | '"' => f.write_char(next)?,
                    _ => write!(f, "{}", next.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_is_escaped() {
        let shown = |bytes: &[u8]| Escaped(bytes).to_string();
        assert_eq!(shown(b"it's \"plain\""), "it's \"plain\"");
        assert_eq!(
            shown("gr\u{fc}n \u{4f60}\u{597d}".as_bytes()),
            "gr\u{fc}n \u{4f60}\u{597d}"
        );
        assert_eq!(shown(b"\x1b[2J\r\n\t\0\\"), r"\u{1b}[2J\r\n\t\0\\");
        assert_eq!(
            shown("\u{202e}\u{9b}\u{7f}".as_bytes()),
            r"\u{202e}\u{9b}\u{7f}"
        );
        assert_eq!(shown(b"half \xe2\x82"), r"half \xe2\x82");
    }
}
