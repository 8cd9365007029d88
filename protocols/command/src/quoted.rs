//! Untrusted bytes, quoted for one line of a log or a reply.

use std::fmt;

/// The most bytes between the quotes.
const MOST: usize = 256;

const CUT: &str = "...";

/// Displays bytes in double quotes, with everything unprintable escaped, so that their sender can
/// neither control a terminal nor forge a line: a control character as `\n` or `\u{1b}`, a byte that
/// is not UTF-8 as `\xff`, a quote as `\"`. At most 256 bytes are between the quotes. A longer text is
/// cut between two escapes and ends in `...`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for chunk in self.0.utf8_chunks() {
            let valid = chunk.valid().chars().map(shown);
            let invalid = chunk.invalid().iter();

            for shown in valid.chain(invalid.map(|byte| format!("\\x{byte:02x}"))) {
                if text.len() + shown.len() + CUT.len() > MOST {
                    return write!(f, "\"{text}{CUT}\"");
                }
                text += &shown;
            }
        }
        write!(f, "\"{text}\"")
    }
}

fn shown(next: char) -> String {
    match next {
        '\'' => "'".to_owned(),
        _ => next.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_or_end_the_quote_is_escaped() {
        let quoted = |bytes: &[u8]| Quoted(bytes).to_string();
        assert_eq!(quoted(b"it's"), r#""it's""#);
        assert_eq!(quoted(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted(b"a\r\n\x1b[31m\0"), r#""a\r\n\u{1b}[31m\0""#);
        assert_eq!(quoted(b"\xff\xe2\x82"), r#""\xff\xe2\x82""#);
        assert_eq!(quoted("gr\u{fc}n".as_bytes()), "\"gr\u{fc}n\"");
    }

    #[test]
    fn what_is_long_is_cut_between_escapes() {
        let exact = Quoted(&[b'a'; MOST - 3]).to_string();
        assert_eq!(exact.len(), MOST - 3 + 2);
        for long in [vec![b'a'; 10_000], vec![0xff; 10_000], vec![b'\n'; 10_000]] {
            let quoted = Quoted(&long).to_string();
            assert!(quoted.len() <= MOST + 2, "{quoted}");
            assert!(quoted.ends_with("...\""), "{quoted}");
        }
    }
}
