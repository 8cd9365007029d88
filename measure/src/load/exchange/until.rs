//! Replies that end with a text.

use std::rc::Rc;

use crate::load::exchange::{Check, Step, Talk, Wrong};

/// A text to search for, as an automaton (Knuth, Morris and Pratt), which looks at every byte once,
/// however the data is cut.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: Rc<[u8]>,
    /// For each length of a match, the length of the longest shorter one that ends at the same byte.
    fallback: Rc<[usize]>,
}

#[derive(Debug)]
pub(super) struct UntilReader {
    until: Pattern,
    /// How many bytes of the text the data ended with.
    matched: usize,
}

impl Pattern {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut fallback = vec![0; text.len()];
        let mut length = 0;
        for place in 1..text.len() {
            while length > 0 && text[place] != text[length] {
                length = fallback[length - 1];
            }
            length += usize::from(text[place] == text[length]);
            fallback[place] = length;
        }
        Self {
            text: text.into(),
            fallback: fallback.into(),
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns how many bytes of the text are matched after one more byte.
    fn advance(&self, mut matched: usize, byte: u8) -> usize {
        while matched > 0 && self.text[matched] != byte {
            matched = self.fallback[matched - 1];
        }
        matched + usize::from(self.text[matched] == byte)
    }
}

impl UntilReader {
    pub(super) fn new(until: Pattern) -> Self {
        Self { until, matched: 0 }
    }

    pub(super) fn read(
        &mut self,
        data: &[u8],
        check: &mut Check,
        talk: &Talk,
    ) -> Result<Step, Wrong> {
        let end = data.iter().position(|byte| {
            self.matched = self.until.advance(self.matched, *byte);
            self.matched == self.until.text.len()
        });
        let taken = end.map_or(data.len(), |last| last + 1);
        check.content(&data[..taken], talk)?;
        if end.is_some() {
            self.matched = 0;
            check.end(talk)?;
        }
        Ok(Step {
            taken,
            ended: end.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_found_where_it_first_ends() {
        for (text, data) in [
            ("\r\n", "+PONG\r\r\n..\r\n"),
            ("aab", "aaaabaab"),
            ("abab", "abacababab"),
            ("x", "x"),
            ("abcabd", "abcabcabcabd"),
            ("END\r\n", "EENDEND\r\nEND\r\n"),
        ] {
            let pattern = Pattern::new(text.as_bytes());
            let mut matched = 0;
            let end = data.bytes().position(|byte| {
                matched = pattern.advance(matched, byte);
                matched == text.len()
            });
            let expected = data.find(text).map(|start| start + text.len() - 1);
            assert_eq!(end, expected, "{text} in {data}");
        }
    }
}
