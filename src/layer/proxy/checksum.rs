//! CRC32c, the checksum of section 2.2.3.

/// The polynomial 0x1EDC6F41 of RFC 9260 appendix A (formerly RFC 4960 appendix B), its bits
/// reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The checksum of each byte value.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = value & 1;
            value >>= 1;
            if carry != 0 {
                value ^= POLYNOMIAL;
            }
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

/// Computes the CRC32c of the concatenated `parts`.
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(!0, |value, byte| {
        (value >> 8) ^ TABLE[usize::from(value as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720 appendix B.4, whose bytes are in the order of the wire.
    #[test]
    fn examples_of_the_standard() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&[0; 32][..], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&rising, [0x4e, 0x79, 0xdd, 0x46]),
            (&falling, [0x5c, 0xdb, 0x3f, 0x11]),
        ] {
            assert_eq!(crc32c(&[bytes]).to_le_bytes(), expected);
            assert_eq!(crc32c(&[&bytes[..7], &bytes[7..]]).to_le_bytes(), expected);
        }
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
    }
}
