//! Functions that the framings share: finding the end of a message, and checking its length.

use crate::error::ProtocolError;

pub(super) fn checked_length(length: u64, limit: usize) -> Result<usize, ProtocolError> {
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or(ProtocolError::TooLong { length, limit })
}

/// Finds `needle`, and continues where the last search of the same unread bytes stopped.
#[inline]
pub(super) fn find_from(data: &[u8], scanned: &mut usize, needle: &[u8]) -> Option<usize> {
    let from = (*scanned).min(data.len());

    match find(&data[from..], needle) {
        Some(at) => {
            *scanned = 0;
            Some(from + at)
        }
        None => {
            *scanned = data.len().saturating_sub(needle.len() - 1);
            None
        }
    }
}

pub(super) fn find(data: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return find_byte(data, *byte);
    }

    let mut from = 0;
    while let Some(at) = find_byte(&data[from..], needle[0]) {
        from += at;
        if data[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

/// Finds `byte`, comparing eight bytes at a time, in blocks of four times as many.
#[inline]
pub(super) fn find_byte(data: &[u8], byte: u8) -> Option<usize> {
    let mut blocks = data.chunks_exact(BLOCK);
    let mut from = 0;
    for block in &mut blocks {
        let hits = [0, WORD, 2 * WORD, 3 * WORD].map(|at| hits(block, at, byte));
        if hits[0] | hits[1] | hits[2] | hits[3] != 0 {
            return hits.iter().zip((from..).step_by(WORD)).find_map(first_hit);
        }
        from += BLOCK;
    }

    let rest = blocks.remainder();
    let mut words = rest.chunks_exact(WORD);
    for word in &mut words {
        let found = first_hit((&hits(word, 0, byte), from));
        if found.is_some() {
            return found;
        }
        from += WORD;
    }
    if words.remainder().is_empty() {
        return None;
    }
    // The last word reaches back over bytes that were looked at.
    match data.len().checked_sub(WORD) {
        Some(last) => first_hit((&hits(data, last, byte), last)),
        None => data.iter().position(|other| *other == byte),
    }
}

/// The bytes of a word, and of what is looked at before the next branch.
const WORD: usize = size_of::<u64>();
const BLOCK: usize = 4 * WORD;

const LOW_BITS: u64 = u64::MAX / 255;
const HIGH_BITS: u64 = LOW_BITS << 7;

/// Returns a word in which the lowest bit that is set is the highest of the first byte, of the eight at
/// `at`, that is `byte`.
#[inline]
fn hits(data: &[u8], at: usize, byte: u8) -> u64 {
    let word = data
        .get(at..at + WORD)
        .and_then(|word| word.try_into().ok());
    let differs = u64::from_le_bytes(word.unwrap_or_default()) ^ (LOW_BITS * u64::from(byte));
    differs.wrapping_sub(LOW_BITS) & !differs & HIGH_BITS
}

#[inline]
fn first_hit((hits, from): (&u64, usize)) -> Option<usize> {
    (*hits != 0).then(|| from + hits.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place in data of every length up to some blocks, among bytes that differ in one bit.
    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for byte in [0_u8, b'\n', 0x7f, 0x80, 0xff] {
            for length in 0..3 * BLOCK {
                let others = [byte ^ 1, byte ^ 0x80, !byte, byte.wrapping_add(1)];
                let mut data: Vec<u8> = others.iter().copied().cycle().take(length).collect();
                assert_eq!(find_byte(&data, byte), None, "{byte} in {length}");
                for place in (0..length).rev() {
                    data[place] = byte;
                    assert_eq!(find_byte(&data, byte), Some(place), "{byte} in {length}");
                }
            }
        }
    }
}
