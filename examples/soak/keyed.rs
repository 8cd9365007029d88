//! Pseudo-random streams of bytes that a key determines. They reveal any byte that is lost,
//! duplicated, moved or from another stream.

/// xorshift64* (Vigna, 2016).
pub(crate) struct Keyed(u64);

impl Keyed {
    pub(crate) fn new(key: u64) -> Self {
        Self(key.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() >> 33).expect("31 bits") % end
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
