//! Finds where a JSON value ends in text that arrives in pieces.

/// Finds the end of the first value. Scanning resumes where it stopped, so no byte is read twice.
/// The scanner only knows brackets and quotes. The parser decides whether a value is valid.
#[derive(Debug)]
pub(crate) struct Scanner {
    max_depth: usize,
    /// How much of the unread text has been scanned.
    scanned: usize,
    depth: usize,
    inside: Inside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// Before the first byte of a value.
    Nothing,
    /// A number, `true`, `false`, `null`, or something that looks like one.
    Word,
    /// An array or an object.
    Brackets,
    Quotes,
    /// After a backslash in quotes.
    Escape,
}

/// Why there is no value, with the byte of the text where that was noticed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// No value begins like this.
    Unexpected(usize),
    TooDeep(usize),
}

impl Scanner {
    pub(crate) fn new(max_depth: usize) -> Self {
        Self {
            max_depth,
            scanned: 0,
            depth: 0,
            inside: Inside::Nothing,
        }
    }

    /// Returns the length of the value at the start of `text`, if it is complete. `text` must be
    /// everything that is unread, without leading whitespace.
    pub(crate) fn scan(&mut self, text: &[u8]) -> Result<Option<usize>, Misfit> {
        for (at, byte) in text.iter().enumerate().skip(self.scanned) {
            if let Some(end) = self.step(*byte, at)? {
                self.restart();
                return Ok(Some(end));
            }
        }
        self.scanned = text.len();
        Ok(None)
    }

    /// Returns whether the end of the stream completes the value that was scanned last.
    pub(crate) fn ends_here(&self) -> bool {
        self.inside == Inside::Word
    }

    fn restart(&mut self) {
        *self = Self::new(self.max_depth);
    }

    /// Scans one byte. Returns the end of the value if this byte completes it.
    fn step(&mut self, byte: u8, at: usize) -> Result<Option<usize>, Misfit> {
        match (self.inside, byte) {
            (Inside::Nothing | Inside::Brackets, b'{' | b'[') => self.open(at)?,
            (Inside::Nothing | Inside::Brackets, b'"') => self.inside = Inside::Quotes,
            (Inside::Nothing, _) if is_of_word(byte) => self.inside = Inside::Word,
            (Inside::Nothing, _) => return Err(Misfit::Unexpected(at)),
            (Inside::Word, _) if !is_of_word(byte) => return Ok(Some(at)),
            (Inside::Brackets, b'}' | b']') => {
                self.depth -= 1;
                return Ok((self.depth == 0).then_some(at + 1));
            }
            (Inside::Quotes, b'\\') => self.inside = Inside::Escape,
            (Inside::Quotes, b'"') if self.depth == 0 => return Ok(Some(at + 1)),
            (Inside::Quotes, b'"') => self.inside = Inside::Brackets,
            (Inside::Escape, _) => self.inside = Inside::Quotes,
            (Inside::Word | Inside::Brackets | Inside::Quotes, _) => {}
        }

        Ok(None)
    }

    fn open(&mut self, at: usize) -> Result<(), Misfit> {
        if self.depth == self.max_depth {
            return Err(Misfit::TooDeep(at));
        }
        self.depth += 1;
        self.inside = Inside::Brackets;
        Ok(())
    }
}

/// Counts the leading whitespace of JSON.
pub(crate) fn count_blanks(text: &[u8]) -> usize {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    text.iter().take_while(is_blank).count()
}

/// Returns whether a byte belongs to a word. All letters do, so that a misspelled word is reported
/// whole.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Option<usize>, Misfit>) {
        assert_eq!(Scanner::new(3).scan(text.as_bytes()), expected, "{text}");
        let mut scanner = Scanner::new(3);
        let ends = 1..=text.len();
        let found = ends
            .map(|end| scanner.scan(&text.as_bytes()[..end]))
            .find(|found| *found != Ok(None));
        assert_eq!(found.unwrap_or(Ok(None)), expected, "byte by byte: {text}");
    }

    #[test]
    fn values_end_where_they_end() {
        check(r#"{"a":[1,{}]}{"#, Ok(Some(12)));
        check(r#"{"}":"]\"}\\"} "#, Ok(Some(14)));
        check(r#""a\"b"1"#, Ok(Some(6)));
        check("[]]", Ok(Some(2)));
        check("12 34", Ok(Some(2)));
        check("true{", Ok(Some(4)));
        check("-1.5e+3,", Ok(Some(7)));
    }

    #[test]
    fn values_that_are_not_complete() {
        for text in ["", "{", "[1,2", "\"a", "\"a\\\"", "{\"a\":\"}", "12", "nul"] {
            check(text, Ok(None));
        }
        let mut scanner = Scanner::new(3);
        scanner.scan(b"12").unwrap();
        assert!(scanner.ends_here());
        let mut scanner = Scanner::new(3);
        scanner.scan(b"[12").unwrap();
        assert!(!scanner.ends_here());
    }

    #[test]
    fn what_begins_no_value() {
        for text in ["}", ",1", ":", "\u{feff}{}", "\u{20ac}", "\0"] {
            check(text, Err(Misfit::Unexpected(0)));
        }
    }

    #[test]
    fn levels_are_counted() {
        check("[[[]]] ", Ok(Some(6)));
        check("[{\"a\":[[]]}]", Err(Misfit::TooDeep(7)));
        check("\"[[[[\" ", Ok(Some(6)));
    }
}
