//! The words of a line.

/// The most words of a line.
const WORDS_MOST: usize = 24;

/// The words of a line. No command but those with any number of keys has more than 24.
pub(crate) struct Words<'a> {
    list: [&'a [u8]; WORDS_MOST],
    count: usize,
}

impl<'a> Words<'a> {
    /// Splits a line at its spaces. Drops words beyond the 24th, with which no line makes sense.
    pub(crate) fn of(line: &'a [u8]) -> Self {
        let words = line.split(|byte| *byte == b' ');
        let words = words.filter(|word| !word.is_empty());

        let (mut list, mut count) = ([&b""[..]; WORDS_MOST], 0);
        for (place, word) in list.iter_mut().zip(words) {
            *place = word;
            count += 1;
        }
        Self { list, count }
    }

    pub(crate) fn as_slice(&self) -> &[&'a [u8]] {
        &self.list[..self.count]
    }
}
