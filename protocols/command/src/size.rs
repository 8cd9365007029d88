//! A number of bytes, as people read it.

use std::fmt;

/// Displays a number of bytes in the largest unit that gives a whole number: `12KiB`, `1MiB`, `1025`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        let (shift, unit) = match bytes.trailing_zeros() {
            _ if bytes == 0 => (0, ""),
            30.. => (30, "GiB"),
            20..30 => (20, "MiB"),
            10..20 => (10, "KiB"),
            _ => (0, ""),
        };
        write!(f, "{}{unit}", bytes >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_their_unit() {
        let sizes = [
            (0, "0"),
            (1, "1"),
            (1_023, "1023"),
            (1 << 10, "1KiB"),
            (1_025, "1025"),
            ((1 << 20) + (1 << 10), "1025KiB"),
            (256 << 20, "256MiB"),
            (2 << 30, "2GiB"),
        ];
        for (bytes, expected) in sizes {
            assert_eq!(Size(bytes).to_string(), expected);
        }
    }
}
