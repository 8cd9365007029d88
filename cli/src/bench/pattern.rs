//! The bytes that go around: each connection has its own place in one stream that does not repeat
//! soon, so that an echo that is shifted, torn or another connection's is seen.

/// A prime, so that no usual message size fits into it, and larger than the number of connections:
/// each begins at a place of its own.
const PERIOD: usize = 65_521;

/// How much of the stream can be had in one piece from any place.
const PIECE: usize = 64 * 1024;

/// How far apart two neighbours begin: far from small messages' sizes.
const STRIDE: usize = 40_503;

#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Box<[u8]>,
}

/// Where in the stream one direction of one connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Pattern {
    pub(crate) fn new() -> Self {
        // Xorshift: the bytes need to be different, not unpredictable.
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

    /// Where the connection with that number begins.
    pub(crate) fn begin(number: usize) -> Place {
        Place(number % PERIOD * STRIDE % PERIOD)
    }

    /// The next at most `count` bytes of the stream, in one piece; `place` moves behind them.
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

    /// Whether `data` is what comes next; `place` moves behind it.
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
