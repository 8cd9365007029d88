//! Untrusted bytes, escaped for a terminal or for one line of a log.

use std::fmt;

/// The most bytes between the quotes of a [`Quoted`].
const QUOTED_MOST: usize = 256;

const CUT: &str = "...";

/// Displays bytes with everything unprintable escaped, so that their sender cannot control the
/// terminal: a control character as `\n` or `\u{1b}`, a byte that is not UTF-8 as `\xff`, and a
/// backslash as `\\`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, |shown| f.write_str(shown))
    }
}

/// Displays the same in double quotes, with quotes inside escaped and at most 256 bytes between
/// them. A longer text is cut between two escapes and ends in `...`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Excerpt::default();
        // Pushing fails only when the excerpt is full.
        let _ = escape(self.0, |shown| {
            text.push(if shown == "\"" { "\\\"" } else { shown })
        });
        write!(f, "\"{}\"", text.0)
    }
}

/// Collects whole escapes as long as there is room.
#[derive(Default)]
struct Excerpt(String);

impl Excerpt {
    fn push(&mut self, shown: &str) -> fmt::Result {
        if self.0.len() + shown.len() + CUT.len() > QUOTED_MOST {
            self.0.push_str(CUT);
            return Err(fmt::Error);
        }
        self.0.push_str(shown);
        Ok(())
    }
}

/// Escapes a message of our own, which may quote an argument: line ends, other control characters
/// and bidirectional controls. Backslashes stay, since quoted parts are often escaped already.
pub(crate) fn on_one_line(text: &str) -> String {
    let is_order = |next| matches!(next, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');

    let escaped = text.chars().map(|next| {
        if next.is_control() || is_order(next) {
            next.escape_debug().to_string()
        } else {
            next.to_string()
        }
    });

    escaped.collect()
}

/// Escapes a peer's bytes for a terminal: line ends (CR LF too), tabs and text stay, and everything
/// else is escaped. A character that is split between two calls shows as two escaped halves.
pub(crate) fn for_terminal(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::new();
    for chunk in bytes.utf8_chunks() {
        let mut characters = chunk.valid().chars().peekable();
        while let Some(next) = characters.next() {
            let is_line_end = next == '\r' && characters.peek() == Some(&'\n');
            if next.is_control() && !matches!(next, '\n' | '\t') && !is_line_end {
                shown.extend(next.escape_debug().to_string().bytes());
            } else {
                shown.extend(next.encode_utf8(&mut [0; 4]).bytes());
            }
        }

        for byte in chunk.invalid() {
            shown.extend(format!("\\x{byte:02x}").bytes());
        }
    }
    shown
}

/// Calls `show` with the shown form of each character, or of each byte that is not UTF-8.
fn escape(bytes: &[u8], mut show: impl FnMut(&str) -> fmt::Result) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for next in chunk.valid().chars() {
            match next {
                '\'' => show("'")?,
                '"' => show("\"")?,
                _ => show(&next.escape_debug().to_string())?,
            }
        }

        for byte in chunk.invalid() {
            show(&format!("\\x{byte:02x}"))?;
        }
    }
    Ok(())
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
            shown("\u{202e}\u{9b}\u{7f}\u{2028}\u{feff}".as_bytes()),
            r"\u{202e}\u{9b}\u{7f}\u{2028}\u{feff}"
        );
        assert_eq!(shown(b"half \xe2\x82"), r"half \xe2\x82");
    }

    #[test]
    fn a_terminal_is_given_lines_of_text() {
        let shown = |text: &str| String::from_utf8(for_terminal(text.as_bytes())).unwrap();
        let plain = "a\tb\r\ngr\u{fc}n \\ 'q' e\u{301}\n";
        assert_eq!(shown(plain), plain);
        assert_eq!(
            shown("\x1b]0;x\x07\x7f\u{9b}2J"),
            r"\u{1b}]0;x\u{7}\u{7f}\u{9b}2J"
        );
        assert_eq!(shown("over\rwritten\r"), r"over\rwritten\r");
        assert_eq!(for_terminal(b"\xe2\x82\0"), br"\xe2\x82\0");
    }

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(
            on_one_line("a\nb\r\x1b[31m\u{9b}\u{202e}"),
            r"a\nb\r\u{1b}[31m\u{9b}\u{202e}"
        );
        for text in [r#"it's "plain""#, r"\u{1b}", "gr\u{fc}n", "e\u{301}"] {
            assert_eq!(on_one_line(text), text);
        }
    }

    #[test]
    fn quotes_hold_what_is_between_them() {
        let quoted = |bytes: &[u8]| Quoted(bytes).to_string();
        assert_eq!(quoted(b"it's"), r#""it's""#);
        assert_eq!(quoted(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted(b"a\r\n\x1b[31m\0"), r#""a\r\n\u{1b}[31m\0""#);
        assert_eq!(quoted(b"\xff\xc3"), r#""\xff\xc3""#);
    }

    #[test]
    fn what_is_long_is_cut_between_escapes() {
        let exact = Quoted(&[b'a'; QUOTED_MOST - 3]).to_string();
        assert_eq!(exact.len(), QUOTED_MOST - 3 + 2);
        for long in [vec![b'a'; 10_000], vec![0xff; 10_000], vec![b'\n'; 10_000]] {
            let quoted = Quoted(&long).to_string();
            assert!(quoted.len() <= QUOTED_MOST + 2, "{quoted}");
            assert!(quoted.ends_with("...\""), "{quoted}");
        }
    }
}
