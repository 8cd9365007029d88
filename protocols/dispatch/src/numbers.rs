//! The numbers of a JSON text, exactly as they are written.

use std::str;

/// Steps through the numbers of a text that is JSON or the beginning of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Numbers<'t> {
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the next number outside of strings.
    pub(crate) fn next(&mut self) -> Option<&'t str> {
        loop {
            match *self.text.get(self.at)? {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => break,
                _ => self.at += 1,
            }
        }

        let rest = &self.text[self.at..];
        let is_part =
            |byte: &u8| matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E') || byte.is_ascii_digit();
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        self.at += length;
        str::from_utf8(&rest[..length]).ok()
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_strings_are_not() {
        let text = br#"{"1\"2\\":-0,"b":[1.10,1E+2,{"3":null}],"c":"4"} 5e-6"#;
        let mut numbers = Numbers::new(text);
        for expected in ["-0", "1.10", "1E+2", "5e-6"] {
            assert_eq!(numbers.next(), Some(expected));
        }
        assert_eq!(numbers.next(), None);
    }
}
