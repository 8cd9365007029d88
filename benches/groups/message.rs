//! Messages: their length in four bytes, which it includes, their number in eight, and padding.

/// The shortest message.
pub(crate) const LEAST: usize = HEADER + 8;
const HEADER: usize = 4;

/// What a server sends to every new member, which then knows that it is one.
pub(crate) const GREETING: &[u8] = b"!";

/// Returns a message of `size` bytes.
pub(crate) fn message(size: usize, number: u64) -> Vec<u8> {
    let length = u32::try_from(size).unwrap_or(u32::MAX);
    let mut message = [&length.to_be_bytes()[..], &number.to_be_bytes()].concat();
    message.resize(size, b'x');
    message
}

/// Returns the first message of `data`, if all of it is there.
pub(crate) fn first(data: &[u8]) -> Option<&[u8]> {
    let header = *data.first_chunk::<HEADER>()?;
    let length = usize::try_from(u32::from_be_bytes(header)).ok()?;
    data.get(..length.max(LEAST))
}
