//! Bytes that wait: what a protocol left unread, or what a socket did not take yet.

/// The most that one growth adds beyond what is needed, so that a buffer follows what really
/// arrived and not what a peer announced.
const GROWTH: usize = 64 * 1024;

/// How many taken bytes may stay in front before the rest moves up. Larger would waste memory on
/// a slow reader, smaller would move often.
const SLACK: usize = 4 * 1024;

/// The most memory that a driver's own buffer keeps from one turn to the next.
const SCRATCH_MOST: usize = 256 * 1024;

/// A queue of bytes: appended at the end, taken from the front, shown as one slice.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    head: usize,
}

impl Buffer {
    /// An empty buffer that owns no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
        }
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // What is taken to the last byte is cleared.
        self.bytes.is_empty()
    }

    /// How many bytes of memory the buffer holds on to.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// How much memory is held by bytes that wait.
    pub(crate) fn held(&self) -> usize {
        if self.is_empty() { 0 } else { self.capacity() }
    }

    /// All that waits, oldest first.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Appends `data`. Memory grows by what is needed and at most 64 KiB more.
    #[inline]
    pub fn push(&mut self, data: &[u8]) {
        if data.len() > self.bytes.capacity() - self.bytes.len() {
            self.make_room(data.len());
        }
        self.bytes.extend_from_slice(data);
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// When fewer than `count` bytes wait.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        let waiting = self.len();
        if count == waiting {
            return self.clear();
        }
        assert!(
            count < waiting,
            "consumed {count} of {waiting} waiting bytes"
        );
        self.head += count;
    }

    /// Drops everything and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.head = 0;
    }

    /// The buffer emptied, to be lent again; `None` if it has grown too large to be kept.
    pub(crate) fn into_scratch(mut self: Box<Self>) -> Option<Box<Self>> {
        self.clear();
        (self.capacity() <= SCRATCH_MOST).then_some(self)
    }

    #[cold]
    fn make_room(&mut self, extra: usize) {
        if self.head >= SLACK.min(self.len()) {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        let capacity = self.bytes.capacity();
        let needed = self.bytes.len() + extra;
        if needed > capacity {
            let target = needed.max(capacity + capacity.min(GROWTH));
            self.bytes.reserve_exact(target - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_over_pushes_and_takes() {
        let mut buffer = Buffer::new();
        let mut expected = std::collections::VecDeque::new();
        for round in 0..2_000_usize {
            let data: Vec<u8> = (0..round % 97).map(|n| (n + round) as u8).collect();
            buffer.push(&data);
            expected.extend(data);
            let taken = (round * 31 % 101).min(buffer.len());
            buffer.consume(taken);
            expected.drain(..taken);
            assert_eq!(buffer.as_slice(), expected.make_contiguous());
        }
    }

    #[test]
    fn grows_by_what_came_and_little_more() {
        let mut buffer = Buffer::new();
        buffer.push(&[1; 10]);
        assert!(buffer.capacity() <= 16);
        buffer.push(&vec![2; 1 << 20]);
        assert!(buffer.capacity() <= (1 << 20) + 10 + GROWTH);
        let full = buffer.capacity();
        buffer.push(&vec![3; full - buffer.len() + 1]);
        assert!(buffer.capacity() <= full + GROWTH);
    }

    #[test]
    fn grows_in_few_steps() {
        let mut buffer = Buffer::new();
        let mut steps = 0;
        for _ in 0..256 * 1024 {
            let before = buffer.capacity();
            buffer.push(b"x");
            steps += usize::from(buffer.capacity() != before);
        }
        assert!(steps <= 24, "{steps} steps");
    }

    #[test]
    fn moves_up_only_when_enough_was_taken() {
        let full = 12 * 1024;
        for (taken, grows) in [(4_095, true), (4_096, false), (full - 1, false)] {
            let mut buffer = Buffer::new();
            buffer.push(&vec![0; full]);
            assert_eq!(buffer.capacity(), full);
            buffer.consume(taken);
            buffer.push(&vec![0; taken]);
            assert_eq!(buffer.capacity() > full, grows, "{taken} bytes taken");
            assert_eq!(buffer.len(), full);
        }
    }

    #[test]
    fn only_a_small_buffer_is_lent_again() {
        for (capacity, kept) in [(256 * 1024, true), (256 * 1024 + 1, false)] {
            let mut buffer = Box::new(Buffer::new());
            buffer.push(&vec![0; capacity]);
            let scratch = buffer.into_scratch();
            assert_eq!(scratch.as_ref().is_some(), kept);
            let scratch = scratch.unwrap_or_default();
            assert!(scratch.is_empty());
            assert_eq!(scratch.capacity(), if kept { capacity } else { 0 });
        }
    }

    #[test]
    fn a_slow_reader_costs_no_more_than_the_slack() {
        let mut buffer = Buffer::new();
        buffer.push(&[0; 60_000]);
        for _ in 0..100_000 {
            buffer.consume(1);
            buffer.push(&[0]);
        }
        assert!(
            buffer.capacity() <= 2 * 60_000 + SLACK,
            "{}",
            buffer.capacity()
        );
    }

    #[test]
    #[should_panic(expected = "consumed 2 of 1")]
    fn refuses_to_take_what_is_not_there() {
        let mut buffer = Buffer::new();
        buffer.push(b"a");
        buffer.consume(2);
    }
}
