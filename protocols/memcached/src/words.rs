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

/// Returns how many bytes there are before the first that no key has: a space or a control character. Looks
/// at eight at a time, since keys are longer than other words.
pub(crate) fn shown(data: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    /// The first byte that is more than a space.
    const LEAST: u64 = ONES * (b' ' as u64 + 1);
    const DELETE: u8 = 0x7f;

    let mut at = 0;
    for eight in data.chunks_exact(8) {
        let eight = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        // The lowest mark of each kind is right; those above it may be wrong.
        let deletes = eight ^ (ONES * DELETE as u64);
        let marks = eight.wrapping_sub(LEAST) & !eight | deletes.wrapping_sub(ONES) & !deletes;
        let marks = marks & HIGH;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_hidden = |byte: &u8| *byte <= b' ' || *byte == DELETE;
    let rest = data[at..].iter().position(is_hidden);
    at + rest.unwrap_or(data.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At any place among others, with bytes around it that a carry could mistake.
    #[test]
    fn the_first_byte_that_is_not_shown_is_found() {
        for end in 0..=20 {
            for byte in 0..=u8::MAX {
                for around in [b'!', b'~', 0x80, 0xfe, 0xff] {
                    let mut data = [around; 20].to_vec();
                    data.extend([0, around]);
                    data[end] = byte;
                    let is_hidden = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
                    let expected = data.iter().position(is_hidden);
                    assert_eq!(shown(&data), expected.unwrap_or(22), "{byte} at {end}");
                }
            }
        }
        assert_eq!(shown(b""), 0);
        assert_eq!(shown(&[b'x'; 19]), 19);
    }
}
