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

/// Finds `byte`, comparing sixteen bytes at a time, which the compiler turns into vector
/// instructions.
#[inline]
fn find_byte(data: &[u8], byte: u8) -> Option<usize> {
    let mut chunks = data.chunks_exact(16);
    let mut done = 0;
    for chunk in &mut chunks {
        if chunk
            .iter()
            .fold(false, |found, other| found | (*other == byte))
        {
            return chunk
                .iter()
                .position(|other| *other == byte)
                .map(|at| done + at);
        }
        done += 16;
    }

    let rest = chunks.remainder();
    rest.iter()
        .position(|other| *other == byte)
        .map(|at| done + at)
}
