//! The only source of randomness in a simulation.

use std::collections::VecDeque;

/// A stream of numbers determined by a seed: SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014). The first numbers may come from given bytes instead.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
    choices: VecDeque<u8>,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: seed,
            choices: VecDeque::new(),
        }
    }

    /// Creates a stream whose first numbers come from one byte each: 0 gives the smallest number,
    /// 255 the largest. When the bytes run out, a hash of all of them is the seed.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let hash = |seed: u64, byte: &u8| mix(seed.wrapping_add(GOLDEN) ^ u64::from(*byte));
        Self {
            state: bytes.iter().fold(0, hash),
            choices: bytes.iter().copied().collect(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        if let Some(choice) = self.choices.pop_front() {
            return u64::from_ne_bytes([choice; 8]);
        }
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Returns a number from 0 up to but not including `end`, or 0 if `end` is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let wide = u128::from(self.number()) * end as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Returns a number from `least` to `most`, inclusive.
    pub(super) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// Returns true in `of_thousand` of 1,000 cases.
    pub(super) fn chance(&mut self, of_thousand: u16) -> bool {
        of_thousand > 0 && self.below(1_000) < usize::from(of_thousand)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The odd number closest to 2 to the 64th divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes a number, so that a change of one bit affects all bits.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Random {
        /// Returns the number that follows after `others` earlier ones.
        fn nth(mut self, others: usize) -> Option<u64> {
            (0..=others).map(|_| self.number()).last()
        }
    }

    /// Compares the first numbers for seed 1234567 with the reference implementation.
    #[test]
    fn is_splitmix64() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.number(), 6_457_827_717_110_365_317);
        assert_eq!(random.number(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn bytes_come_first() {
        let mut random = Random::of_bytes(&[0, 255, 127]);
        assert_eq!(random.below(10), 0);
        assert_eq!(random.between(1, 100_000), 100_000);
        assert_eq!(random.below(2), 0);
        let rest = Some(random.number());
        assert_eq!(Random::of_bytes(&[0, 255, 127]).nth(3), rest);
        assert_ne!(Random::of_bytes(&[0, 255, 126]).nth(3), rest);
        assert_ne!(Random::of_bytes(&[]).nth(0), Random::of_bytes(&[0]).nth(1));
    }

    #[test]
    fn stays_in_its_bounds() {
        let mut random = Random::new(1);
        let numbers: Vec<_> = (0..1_000).map(|_| random.between(3, 5)).collect();
        for number in 3..=5 {
            assert!(numbers.contains(&number));
        }
        assert!(numbers.iter().all(|number| (3..=5).contains(number)));
        assert_eq!(random.below(0), 0);
        assert!(!random.chance(0));
        assert!(random.chance(1_000));
    }
}
