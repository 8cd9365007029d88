//! The bytes that clients send. Each connection starts at its own place in one stream with a long
//! period, so that a shifted or torn echo, or the echo of another connection, is detected.

use crate::load::scenario::Shape;

/// The period of the stream, in bytes, unless messages have a shape. It is a prime, so that it is
/// not a multiple of any usual message size, and it exceeds the number of connections, so that each
/// starts at a different place.
const PERIOD: usize = 65_521;
/// The fewest messages of a period, if messages have a shape.
const MESSAGES_LEAST: usize = 3;

/// The most bytes that can be taken in one piece, from any place.
const PIECE: usize = 64 * 1024;

/// The distance between the starts of two neighbours, far from the sizes of small messages.
const STRIDE: usize = 40_503;

#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Box<[u8]>,
    period: usize,
    /// Connections start at multiples of this many bytes.
    step: usize,
    /// How many of these lie between the starts of two neighbours.
    stride: usize,
}

/// The position in the stream of one direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Pattern {
    /// Returns a stream of messages of `size` bytes.
    pub(crate) fn new(size: usize, shape: Shape) -> Self {
        let (step, stride, period) = match shape {
            Shape::Plain => (1, STRIDE, PERIOD),
            Shape::Length | Shape::Line => (size, 1, size * (PERIOD / size).max(MESSAGES_LEAST)),
        };

        let mut bytes = any(period);
        bytes
            .chunks_mut(size.max(1))
            .for_each(|message| shape.apply(message));
        let missing = PIECE.div_ceil(period);
        (0..missing).for_each(|_| bytes.extend_from_within(..period));
        Self {
            bytes: bytes.into(),
            period,
            step,
            stride,
        }
    }

    /// Returns a stream of the same message, again and again.
    pub(crate) fn repeating(message: &[u8]) -> Self {
        let count = PIECE.div_ceil(message.len()) + 1;
        Self {
            bytes: message.repeat(count).into(),
            period: message.len(),
            step: message.len(),
            stride: 1,
        }
    }

    /// Returns the place at which connection `number` starts.
    pub(crate) fn begin(&self, number: usize) -> Place {
        let places = self.period / self.step;
        Place(number % places * self.stride % places * self.step)
    }

    /// Returns up to `count` of the next bytes of the stream in one piece, and moves `place` past
    /// them.
    #[inline]
    pub(crate) fn take(&self, place: &mut Place, count: usize) -> &[u8] {
        let count = count.min(PIECE);
        let piece = &self.bytes[place.0..place.0 + count];
        place.0 += count;
        while place.0 >= self.period {
            place.0 -= self.period;
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

impl Shape {
    /// Makes `message` one for the server.
    fn apply(self, message: &mut [u8]) {
        match self {
            Self::Plain => {}
            Self::Length => {
                let length = u32::try_from(message.len()).unwrap_or(0).saturating_sub(4);
                if let Some(header) = message.first_chunk_mut() {
                    *header = length.to_be_bytes();
                }
            }
            Self::Line => {
                // A server may take a carriage return for a part of the end.
                let ends = message.iter_mut().filter(|byte| b"\r\n".contains(*byte));
                ends.for_each(|byte| *byte = b'-');
                if let Some(last) = message.last_mut() {
                    *last = b'\n';
                }
            }
        }
    }
}

/// Returns `count` bytes that differ, though they can be predicted (xorshift).
fn any(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = (0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_matches_however_it_is_cut() {
        let pattern = Pattern::new(64, Shape::Plain);
        let mut from = pattern.begin(7);
        let mut stream = Vec::new();
        while stream.len() < 5 * PERIOD {
            stream.extend_from_slice(pattern.take(&mut from, 1 << 20));
        }

        for cut in [1, 64, 1_000, 65_536, 300_000] {
            let mut place = pattern.begin(7);
            let right = stream
                .chunks(cut)
                .all(|piece| pattern.matches(&mut place, piece));
            assert!(right, "{cut}");
        }
    }

    #[test]
    fn bytes_that_are_shifted_lost_or_anothers_do_not_match() {
        let pattern = Pattern::new(64, Shape::Plain);
        let bytes = |number| {
            let mut place = pattern.begin(number);
            pattern.take(&mut place, 256).to_vec()
        };

        let own = bytes(3);
        assert!(pattern.matches(&mut pattern.begin(3), &own));
        assert!(!pattern.matches(&mut pattern.begin(3), &own[1..]));
        assert!(!pattern.matches(&mut pattern.begin(3), &bytes(4)));

        let mut torn = own;
        torn.drain(64..128);
        assert!(!pattern.matches(&mut pattern.begin(3), &torn));
    }

    #[test]
    fn every_connection_begins_somewhere_else() {
        let pattern = Pattern::new(64, Shape::Plain);
        let mut places: Vec<_> = (0..20_000).map(|number| pattern.begin(number).0).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 20_000);
    }

    #[test]
    fn messages_have_the_shape_wherever_a_connection_begins() {
        for size in [4, 64, 1_000, 100_000] {
            let lengths = Pattern::new(size, Shape::Length);
            let lines = Pattern::new(size, Shape::Line);
            for number in 0..5 {
                let message = first(&lengths, number, size);
                let length = u32::from_be_bytes(*message.first_chunk().unwrap());
                assert_eq!(length as usize + 4, size);

                let message = first(&lines, number, size);
                assert_eq!(
                    message.iter().position(|byte| *byte == b'\n'),
                    Some(size - 1)
                );
                assert!(!message.contains(&b'\r'));
            }
        }
    }

    /// Returns the first message of connection `number`.
    fn first(pattern: &Pattern, number: usize, size: usize) -> Vec<u8> {
        let (mut place, mut message) = (pattern.begin(number), Vec::new());
        while message.len() < size {
            message.extend_from_slice(pattern.take(&mut place, size - message.len()));
        }
        message
    }
}
