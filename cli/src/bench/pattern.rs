//! The bytes that clients send. Each connection starts at its own place in one stream with a long
//! period, so that a shifted or torn echo, or the echo of another connection, is detected.

/// The period of the stream, in bytes. It is a prime, so that it is not a multiple of any usual
/// message size, and it exceeds the number of connections, so that each starts at a different
/// place.
const PERIOD: usize = 65_521;

/// The most bytes that can be taken in one piece, from any place.
const PIECE: usize = 64 * 1024;

/// The distance between the starts of two neighbours, far from the sizes of small messages.
const STRIDE: usize = 40_503;

#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Box<[u8]>,
}

/// The position in the stream of one direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Pattern {
    pub(crate) fn new() -> Self {
        // Xorshift. The bytes need to differ, not to be unpredictable.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes: Vec<u8> = Vec::with_capacity(PERIOD + PIECE);
        bytes.extend((0..PERIOD).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        }));

        bytes.extend_from_within(..PERIOD.min(PIECE));
        let missing = PERIOD + PIECE - bytes.len();
        bytes.extend_from_within(..missing);
        Self {
            bytes: bytes.into(),
        }
    }

    /// Returns the place at which connection `number` starts.
    pub(crate) fn begin(number: usize) -> Place {
        Place(number % PERIOD * STRIDE % PERIOD)
    }

    /// Returns up to `count` of the next bytes of the stream in one piece, and moves `place` past
    /// them.
    #[inline]
    pub(crate) fn take(&self, place: &mut Place, count: usize) -> &[u8] {
        let count = count.min(PIECE);
        let piece = &self.bytes[place.0..place.0 + count];
        place.0 += count;
        while place.0 >= PERIOD {
            place.0 -= PERIOD;
        }
        piece
    }

    /// Returns whether `data` is what comes next in the stream, and moves `place` past it.
    #[inline]
    pub(crate) fn matches(&self, place: &mut Place, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let expected = self.take(place, data.len());
            let (head, rest) = data.split_at(expected.len());
            if head != expected {
                return false;
            }
            data = rest;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_matches_however_it_is_cut() {
        let pattern = Pattern::new();
        let mut from = Pattern::begin(7);
        let mut stream = Vec::new();
        while stream.len() < 5 * PERIOD {
            stream.extend_from_slice(pattern.take(&mut from, 1 << 20));
        }

        for cut in [1, 64, 1_000, 65_536, 300_000] {
            let mut place = Pattern::begin(7);
            let right = stream
                .chunks(cut)
                .all(|piece| pattern.matches(&mut place, piece));
            assert!(right, "{cut}");
        }
    }

    #[test]
    fn bytes_that_are_shifted_lost_or_anothers_do_not_match() {
        let pattern = Pattern::new();
        let bytes = |number| {
            let mut place = Pattern::begin(number);
            pattern.take(&mut place, 256).to_vec()
        };

        let own = bytes(3);
        assert!(pattern.matches(&mut Pattern::begin(3), &own));
        assert!(!pattern.matches(&mut Pattern::begin(3), &own[1..]));
        assert!(!pattern.matches(&mut Pattern::begin(3), &bytes(4)));

        let mut torn = own;
        torn.drain(64..128);
        assert!(!pattern.matches(&mut Pattern::begin(3), &torn));
    }

    #[test]
    fn every_connection_begins_somewhere_else() {
        let mut places: Vec<_> = (0..20_000).map(|number| Pattern::begin(number).0).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 20_000);
    }
}
