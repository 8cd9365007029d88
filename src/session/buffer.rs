//! Buffers for unread input and for output that a socket has not taken yet, and where in a memory
//! page each kind of buffer begins.

use std::ops::{Deref, DerefMut, Range};

/// The page size that determines how fast a copy is. Some processors copy many times slower if the
/// destination begins 1 to 31 bytes after the source, modulo this size. Large heap blocks all begin
/// 16 bytes into a page, so two of them, or a slice of one and another, easily end up like that.
const PAGE: usize = 4_096;

/// A buffer of at least this size is placed in its page. Smaller buffers are copied fast anywhere,
/// and placing them would waste memory.
const PLACED_FROM: usize = 16 * 1024;

/// The offset in bytes at which a buffer begins in its page: far from the offsets of the other
/// kinds and from that of a large heap block.
#[derive(Clone, Copy, Debug)]
enum Place {
    Input = 64,
    Unread = 1_088,
    Output = 2_112,
    /// Where the allocator has put it, so that its block can be given away.
    Anywhere = 0,
}

impl Place {
    /// Returns how many bytes to skip at the front of a block.
    fn offset(self, block: *const u8) -> usize {
        (self as usize).wrapping_sub(block.addr()) % PAGE
    }
}

/// The most that one growth adds beyond what is needed, so that a buffer's size follows the bytes
/// that arrived and not the length that a peer announced.
const GROWTH: usize = 64 * 1024;

/// How many taken bytes may stay at the front before the rest moves up. A larger value would waste
/// memory on a slow reader, and a smaller one would move bytes often.
const SLACK: usize = 4 * 1024;

/// The most memory, in bytes, that a driver's shared buffer keeps from one turn to the next.
const SCRATCH_MOST: usize = 256 * 1024;

/// A queue of bytes that appends at the end, takes from the front, and shows its content as one
/// slice.
///
/// ```
/// use serveloop::driver::Buffer;
///
/// let mut buffer = Buffer::new();
/// buffer.push(b"hello, ");
/// buffer.push(b"world");
/// buffer.consume(7);
/// assert_eq!(buffer.as_slice(), b"world");
/// ```
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    head: usize,
    /// How many bytes at the front are skipped, so that the content begins at its place.
    start: usize,
    place: Place,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// Creates an empty buffer that owns no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::at(Place::Output)
    }

    /// Creates an empty buffer for unread input, which is often copied to the output.
    pub(super) const fn unread() -> Self {
        Self::at(Place::Unread)
    }

    /// Creates an empty buffer for input of which a protocol may take the memory.
    pub(super) const fn anywhere() -> Self {
        Self::at(Place::Anywhere)
    }

    pub(super) fn is_anywhere(&self) -> bool {
        matches!(self.place, Place::Anywhere)
    }

    const fn at(place: Place) -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            start: 0,
            place,
        }
    }

    /// Returns how many bytes wait.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        debug_assert!(self.head <= self.bytes.len(), "the head is inside");
        // Unchecked, because this runs several times per message. Debug builds check it above.
        self.bytes.len().wrapping_sub(self.head)
    }

    /// Returns whether no bytes wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.head
    }

    /// Returns how many bytes of memory the buffer owns.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns how many bytes of memory the buffer owns, or 0 if no bytes wait.
    pub(super) fn held(&self) -> usize {
        if self.is_empty() { 0 } else { self.capacity() }
    }

    /// Returns all bytes that wait, oldest first.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Appends `data`. Memory grows by what is needed and at most 64 KiB more.
    #[inline]
    pub fn push(&mut self, data: &[u8]) {
        if data.len() > self.bytes.capacity().wrapping_sub(self.bytes.len()) {
            return self.push_beyond(data);
        }
        self.bytes.extend_from_slice(data);
    }

    /// Appends what does not fit. In a function of its own, so that the other way has one check.
    #[cold]
    fn push_beyond(&mut self, data: &[u8]) {
        self.make_room(data.len());
        self.bytes.extend_from_slice(data);
    }

    /// Moves all bytes after the first `count` that wait to the end of `rest`.
    pub(super) fn split_off(&mut self, count: usize, rest: &mut Vec<u8>) {
        let at = (self.head + count).min(self.bytes.len());
        rest.extend_from_slice(&self.bytes[at..]);
        self.bytes.truncate(at);
    }

    /// Appends up to `most` bytes that `fill` writes. `fill` returns how many it wrote. If it panics,
    /// nothing is appended.
    pub(super) fn push_with(&mut self, most: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        if most > self.bytes.capacity().wrapping_sub(self.bytes.len()) {
            self.make_room(most);
        }

        let mut room = Room::new(&mut self.bytes, most);
        room.filled = fill(room.as_mut_slice()).min(most);
    }

    /// Works like `push_with`, for one part of `total` bytes. The memory at most doubles: it grows with
    /// what came, and is never more than what is needed for all.
    pub(super) fn push_part(
        &mut self,
        most: usize,
        total: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let needed = self.bytes.len() + most;
        if needed > self.bytes.capacity() {
            let doubled = self.bytes.len().saturating_mul(2);
            let target = doubled.min(self.head.saturating_add(total)).max(needed);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.push_with(most, fill);
    }

    /// Drops the first `taken` bytes and returns those of `range`, which is among them. Gives the
    /// memory away instead of a copy, if most of it is theirs.
    pub(super) fn take_out(&mut self, range: Range<usize>, taken: usize) -> Vec<u8> {
        let rest = &self.as_slice()[taken..];
        if range.len() < self.bytes.capacity() / 2 || rest.len() > range.len() {
            let copy = self.as_slice()[range].to_vec();
            self.consume(taken);
            return copy;
        }

        let (head, rest) = (self.head, rest.to_vec());
        let mut block = std::mem::replace(&mut self.bytes, rest);
        (self.head, self.start) = (0, 0);
        block.truncate(head + range.end);
        block.drain(..head + range.start);
        block
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// Panics if fewer than `count` bytes wait.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        let waiting = self.len();
        if count == waiting {
            return self.clear();
        }
        if count > waiting {
            too_many(count, waiting);
        }
        self.head += count;
    }

    /// Drops all bytes and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        if self.start > 0 {
            return self.rewind();
        }
        self.bytes.clear();
        self.head = 0;
    }

    /// Drops all bytes but those that bring the next byte to its place.
    #[cold]
    fn rewind(&mut self) {
        self.bytes.truncate(self.start);
        self.head = self.start;
    }

    /// Empties the buffer so that it can be lent again. Returns `None` if it has grown too large to
    /// keep.
    pub(super) fn into_scratch(mut self: Box<Self>) -> Option<Box<Self>> {
        self.clear();
        (self.capacity() <= SCRATCH_MOST + PAGE).then_some(self)
    }

    #[cold]
    fn make_room(&mut self, extra: usize) {
        if self.head - self.start >= SLACK.min(self.len()) {
            self.bytes.drain(self.start..self.head);
            self.head = self.start;
        }

        let capacity = self.bytes.capacity();
        let needed = self.bytes.len() + extra;
        if needed <= capacity {
            return;
        }

        let mut target = needed.max(capacity + capacity.min(GROWTH));
        let placed = target >= PLACED_FROM && !self.is_anywhere();
        if placed {
            target = target.max(PAGE + self.len() + extra);
        }
        self.bytes.reserve_exact(target - self.bytes.len());
        if placed {
            self.settle();
        }
    }

    /// Moves the waiting bytes to their place in the page if growing has moved them elsewhere. A
    /// large block that grows usually keeps its offset.
    fn settle(&mut self) {
        let start = self.place.offset(self.bytes.as_ptr());
        if start == self.start {
            return;
        }

        let waiting = self.len();
        let end = start + waiting;
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }

        self.bytes
            .copy_within(self.head..self.head + waiting, start);
        self.bytes.truncate(end);
        (self.head, self.start) = (start, start);
    }
}

/// In a function of its own, so that a caller does not prepare the message.
#[cold]
fn too_many(count: usize, waiting: usize) -> ! {
    panic!("consumed {count} of {waiting} waiting bytes")
}

/// Zeros at the end of a buffer, of which only those that were `filled` stay.
struct Room<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    filled: usize,
}

impl<'a> Room<'a> {
    fn new(bytes: &'a mut Vec<u8>, most: usize) -> Self {
        let start = bytes.len();
        bytes.resize(start + most, 0);
        Self {
            bytes,
            start,
            filled: 0,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.bytes.truncate(self.start + self.filled);
    }
}

/// A buffer that a driver reads into, with a fixed length and its own place in the page.
#[derive(Debug)]
pub(crate) struct Input {
    block: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Input {
    pub(crate) fn new(length: usize) -> Self {
        let block: Box<[u8]> = vec![0; length + PAGE].into();
        Self {
            start: Place::Input.offset(block.as_ptr()),
            block,
            length,
        }
    }
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.start..self.start + self.length]
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block[self.start..self.start + self.length]
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
    fn only_what_was_filled_is_appended() {
        let mut buffer = Buffer::new();
        buffer.push(b"ab");
        buffer.push_with(5, |room| {
            assert_eq!(room, [0; 5]);
            room[..2].copy_from_slice(b"cd");
            2
        });
        assert_eq!(buffer.as_slice(), b"abcd");
        buffer.push_with(1, |_| usize::MAX);
        assert_eq!(buffer.as_slice(), b"abcd\0");

        let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            buffer.push_with(100, |room| {
                room.fill(1);
                std::panic::resume_unwind(Box::new("quietly"))
            });
        }));
        assert!(filled.is_err());
        assert_eq!(buffer.as_slice(), b"abcd\0");
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
            let expected = if kept { capacity + PAGE } else { 0 };
            assert_eq!(scratch.capacity(), expected);
        }
    }

    fn offset(bytes: &[u8]) -> usize {
        bytes.as_ptr().addr() % PAGE
    }

    /// Copies between any two buffers stay fast, whatever the buffers went through.
    #[test]
    fn no_two_buffers_begin_where_copies_between_them_are_slow() {
        for length in [1, 4_097, 65_536, 1 << 20] {
            assert_eq!(offset(&Input::new(length)), 64, "{length}");
        }

        for (make, place) in [
            (Buffer::new as fn() -> Buffer, 2_112),
            (Buffer::unread, 1_088),
        ] {
            for length in [PLACED_FROM, PLACED_FROM + 1, 65_536, 300_000, 1 << 20] {
                let mut buffer = make();
                buffer.push(&vec![1; length]);
                assert_eq!(offset(buffer.as_slice()), place, "{length} at once");
                buffer.consume(length);
                buffer.push(&vec![2; length]);
                assert_eq!(offset(buffer.as_slice()), place, "{length} after another");
            }
        }

        let heap_block = 16_usize;
        let places = [heap_block, 64, 1_088, 2_112];
        for (source, to) in places
            .iter()
            .flat_map(|one| places.map(|other| (*one, other)))
        {
            let behind = to.wrapping_sub(source) % PAGE;
            assert!(behind == 0 || behind > 31, "from {source} to {to}");
        }
    }

    #[test]
    fn a_buffer_keeps_its_place_and_its_bytes_while_it_grows_and_moves_up() {
        let mut buffer = Buffer::new();
        let mut expected = Vec::new();
        let mut count = 0_u32;
        // Grow from nothing to a megabyte in pieces of all sizes, and take some bytes in between.
        while buffer.len() < 1 << 20 {
            count += 1;
            let piece: Vec<u8> = count.to_le_bytes().repeat(count as usize % 1_501 + 1);
            buffer.push(&piece);
            expected.extend_from_slice(&piece);

            if count % 5 == 0 {
                let taken = piece.len().min(buffer.len() - 1);
                buffer.consume(taken);
                expected.drain(..taken);
            }

            assert!(buffer.as_slice() == expected, "after {count} pieces");
            let start = offset(&buffer.bytes[buffer.start..]);
            assert!(buffer.capacity() < PLACED_FROM || start == 2_112);
        }

        // The rest moves up when enough was taken.
        buffer.consume(1 << 19);
        let capacity = buffer.capacity();
        buffer.push(&vec![0; capacity - buffer.bytes.len() + 1]);
        assert_eq!(buffer.capacity(), capacity);
        assert_eq!(offset(buffer.as_slice()), 2_112);
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
            buffer.capacity() <= 2 * (60_000 + PAGE) + SLACK,
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
