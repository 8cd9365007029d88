//! Control messages as bytes, for systems that differ in sizes only.

/// Splits off the first message, and returns its level, type, content and what follows it. `None`
/// at the end, or for a length that makes no sense.
pub(super) fn split<const LENGTH: usize, const HEADER: usize, const ALIGN: usize>(
    control: &[u8],
) -> Option<(i32, i32, &[u8], &[u8])> {
    let (length, rest) = control.split_at_checked(LENGTH)?;

    let mut wide = [0; 8];
    let at = if cfg!(target_endian = "big") {
        8 - LENGTH
    } else {
        0
    };
    wide[at..at + LENGTH].copy_from_slice(length);

    let length = usize::try_from(u64::from_ne_bytes(wide)).ok()?;
    let level = i32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
    let kind = i32::from_ne_bytes(rest.get(4..8)?.try_into().ok()?);
    let content = control.get(HEADER..length)?;
    let next = length.checked_next_multiple_of(ALIGN)?;

    Some((
        level,
        kind,
        content,
        control.get(next..).unwrap_or_default(),
    ))
}

/// Builds one message with this content, and returns it with its length.
pub(super) fn join<
    const ROOM: usize,
    const LENGTH: usize,
    const HEADER: usize,
    const ALIGN: usize,
>(
    level: i32,
    kind: i32,
    content: &[u8],
) -> ([u8; ROOM], usize) {
    let mut control = [0; ROOM];
    let length = HEADER + content.len();
    let wide = (length as u64).to_ne_bytes();

    let at = if cfg!(target_endian = "big") {
        8 - LENGTH
    } else {
        0
    };

    control[..LENGTH].copy_from_slice(&wide[at..at + LENGTH]);
    control[LENGTH..LENGTH + 4].copy_from_slice(&level.to_ne_bytes());
    control[LENGTH + 4..LENGTH + 8].copy_from_slice(&kind.to_ne_bytes());
    control[HEADER..length].copy_from_slice(content);

    (control, length.next_multiple_of(ALIGN))
}
