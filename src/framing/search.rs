//! Functions that the framings share: finding the end of a message, and checking its length.

use crate::error::ProtocolError;
pub(super) use crate::sys::bytes::find_byte;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place in data of every length up to three vectors of the C library, among bytes that differ in
    /// one bit.
    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for byte in [0_u8, b'\n', 0x7f, 0x80, 0xff] {
            for length in 0..100 {
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
