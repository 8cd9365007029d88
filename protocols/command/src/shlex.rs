//! Splitting a request into words: spaces and quotes, and nothing else that a shell does.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::{fmt, mem};

/// Splits a request into the words of a command line.
///
/// - Spaces, tabs and line ends separate words.
/// - `'...'` keeps everything as it is. `"..."` does too, but for `\"` and `\\`.
/// - Elsewhere `\` takes the special meaning away from the byte after it.
///
/// These are the rules of Python's `shlex.split`. Everything else is an ordinary byte of its word:
/// `$`, `*`, `~`, `;`, `|`, `>`, `#` and backquotes have no meaning, and neither has any encoding.
///
/// # Errors
/// Fails for a quote that is not closed, a `\` with nothing after it, a NUL byte, which no argument
/// can contain, and a request without a word.
pub(crate) fn split(request: &[u8]) -> Result<Vec<OsString>, Unsplit> {
    let mut splitter = Splitter::default();
    for (at, byte) in request.iter().enumerate() {
        if *byte == 0 {
            return Err(Unsplit::Nul(at));
        }
        splitter.push(at, *byte);
    }
    splitter.finish()
}

/// Why a request cannot be split. Offsets are in bytes, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsplit {
    Empty,
    Nul(usize),
    /// The quote that opens here is not closed.
    Open(usize),
    /// The backslash here is the last byte.
    Backslash(usize),
}

impl fmt::Display for Unsplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no program is named"),
            Self::Nul(at) => write!(f, "NUL at byte {at}"),
            Self::Open(at) => write!(f, "the quote at byte {at} is not closed"),
            Self::Backslash(at) => write!(f, "nothing follows the backslash at byte {at}"),
        }
    }
}

#[derive(Debug, Default)]
struct Splitter {
    words: Vec<OsString>,
    /// The word that has begun. An empty one counts if it has quotes.
    word: Option<Vec<u8>>,
    quote: Option<Quote>,
    /// The offset of the backslash that applies to the next byte.
    escape: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Quote {
    mark: u8,
    at: usize,
}

impl Splitter {
    fn push(&mut self, at: usize, byte: u8) {
        let escaped = self.escape.take().is_some();
        match (self.quote, byte) {
            (Some(quote), _) => self.push_quoted(quote, at, byte, escaped),
            (None, _) if escaped => self.extend(byte),
            (None, b'\\') => self.escape = Some(at),
            (None, b'\'' | b'"') => {
                self.word.get_or_insert_default();
                self.quote = Some(Quote { mark: byte, at });
            }
            (None, b' ' | b'\t' | b'\r' | b'\n') => self.end_word(),
            (None, _) => self.extend(byte),
        }
    }

    fn push_quoted(&mut self, quote: Quote, at: usize, byte: u8, escaped: bool) {
        if escaped {
            // Within double quotes, a backslash escapes only a double quote and itself.
            if byte != b'"' && byte != b'\\' {
                self.extend(b'\\');
            }
            self.extend(byte);
        } else if byte == quote.mark {
            self.quote = None;
        } else if byte == b'\\' && quote.mark == b'"' {
            self.escape = Some(at);
        } else {
            self.extend(byte);
        }
    }

    fn extend(&mut self, byte: u8) {
        self.word.get_or_insert_default().push(byte);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take().map(OsString::from_vec));
    }

    fn finish(mut self) -> Result<Vec<OsString>, Unsplit> {
        if let Some(quote) = self.quote {
            return Err(Unsplit::Open(quote.at));
        }
        if let Some(at) = self.escape {
            return Err(Unsplit::Backslash(at));
        }

        self.end_word();
        match mem::take(&mut self.words) {
            words if words.is_empty() => Err(Unsplit::Empty),
            words => Ok(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_words(request: &str, expected: &[&str]) {
        let words = split(request.as_bytes()).unwrap();
        assert_eq!(words, expected, "{request}");
    }

    #[test]
    fn spaces_separate_and_quotes_keep_together() {
        assert_words("ls", &["ls"]);
        assert_words("  ls\t-l \r\n /tmp\n", &["ls", "-l", "/tmp"]);
        assert_words("a 'b c' \"d e\"", &["a", "b c", "d e"]);
        assert_words("a'b'\"c\"d", &["abcd"]);
        assert_words("a '' \"\"", &["a", "", ""]);
        assert_words("a 'b\nc'", &["a", "b\nc"]);
    }

    #[test]
    fn backslashes_are_those_of_python() {
        assert_words(r"a\ b \' \\ \n", &["a b", "'", r"\", "n"]);
        assert_words(r#""a\"b\\c\d\$""#, &[r#"a"b\c\d\$"#]);
        assert_words(r"'a\b'", &[r"a\b"]);
    }

    #[test]
    fn what_a_shell_would_act_on_is_text() {
        let text = "$HOME * ~ ; | > # `id` $(id) && ${IFS} {a,b} ? [a] !! %d";
        let expected: Vec<_> = text.split(' ').collect();
        assert_words(text, &expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let words = split(b"a \xff\xfe").unwrap();
        assert_eq!(words[1], OsString::from_vec(vec![0xff, 0xfe]));
    }

    #[test]
    fn what_cannot_be_split_is_refused_with_its_place() {
        let refused = [
            (&b""[..], Unsplit::Empty),
            (b" \t\r\n", Unsplit::Empty),
            (b"a 'b", Unsplit::Open(2)),
            (b"a \"b'", Unsplit::Open(2)),
            (b"a \"b\\", Unsplit::Open(2)),
            (b"a \\", Unsplit::Backslash(2)),
            (b"a\0b", Unsplit::Nul(1)),
            (b"'\0'", Unsplit::Nul(1)),
        ];
        for (request, expected) in refused {
            assert_eq!(split(request), Err(expected), "{request:?}");
        }
    }
}
