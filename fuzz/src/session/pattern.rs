//! Bytes of which each says where in its stream it belongs.

/// Byte `place` of a stream.
pub(super) fn at(place: usize) -> u8 {
    (place.wrapping_mul(167) ^ (place >> 8)) as u8
}

/// This many bytes of a stream, from `start` on.
pub(super) fn piece(start: usize, count: usize) -> Vec<u8> {
    (start..start + count).map(at).collect()
}

/// Whether `data` is what a stream has from `start` on.
pub(super) fn follows(data: &[u8], start: usize) -> bool {
    data.iter()
        .zip(start..)
        .all(|(byte, place)| *byte == at(place))
}
