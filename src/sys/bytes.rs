//! Searches in memory, by the C library. They make no system call, so that every room may use them.

/// Returns the first place of `byte` in `data`. The C library compares as many bytes at a time as the
/// processor can.
#[inline]
pub(crate) fn find_byte(data: &[u8], byte: u8) -> Option<usize> {
    // SAFETY: all bytes of a slice can be read.
    let found = unsafe { libc::memchr(data.as_ptr().cast(), byte.into(), data.len()) };
    (!found.is_null()).then(|| found.addr() - data.as_ptr().addr())
}
