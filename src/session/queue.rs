//! Output that waits behind the buffer and is not copied: shared, static and owned bytes, and
//! sources, which make their bytes as there is room.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::sync::Arc;

use crate::session::buffer::Buffer;
use crate::session::catch::catch;
use crate::session::outbox::Post;

/// Bytes up to this length are copied into the buffer when nothing else waits behind it, because a
/// copy costs less than a place in the queue.
pub(super) const COPIED_MOST: usize = 4 * 1024;

/// The most bytes to take from sources, or to hand to a layer, at a time.
pub(super) const PIECE: usize = 64 * 1024;

/// The most pieces of output that one call of the system is given.
pub(crate) const SLICES_MOST: usize = 16;

/// Bytes that others own, or that were handed over.
#[derive(Debug)]
pub(super) enum Bytes {
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
    Owned(Vec<u8>),
    /// On an account of its own.
    Posted(Post),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Posted(post) => post,
        }
    }

    /// Returns how many bytes of memory these keep.
    fn held(&self) -> usize {
        match self {
            Self::Static(_) | Self::Posted(_) => 0,
            Self::Shared(bytes) => bytes.len(),
            Self::Owned(bytes) => bytes.capacity(),
        }
    }

    /// Returns how many bytes these keep on an account of their own.
    fn posted(&self) -> usize {
        match self {
            Self::Posted(post) => post.len(),
            _ => 0,
        }
    }
}

enum Part {
    /// Bytes, of which those before the place were sent.
    Bytes(Bytes, usize),
    Source(Box<dyn Read + Send>),
}

/// The output behind the buffer, oldest first.
///
/// Sources are read into the buffer, and only when that is empty and everything before them was sent.
/// So the buffer always comes first, and the queue begins with bytes that can be sent, or with a
/// source that has none for now.
#[derive(Default)]
pub(super) struct Queue {
    parts: VecDeque<Part>,
    /// How many bytes wait, without those that sources are still to make.
    waiting: usize,
    held: usize,
    /// How many bytes of posts wait, which are on an account of their own.
    posted: usize,
}

/// What a read from a source has brought.
#[derive(Debug)]
pub(super) enum Filled {
    /// Bytes, or nothing for now, or there is no source.
    Well,
    /// The source has failed.
    Failed(io::Error),
    /// The source has panicked.
    Panicked,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns how many parts wait here.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Returns how many bytes wait here.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns how many bytes of memory the queue keeps. Shared bytes count for each queue that they
    /// wait in.
    pub(super) fn held(&self) -> usize {
        self.held + self.parts.capacity() * size_of::<Part>()
    }

    /// Returns how many bytes are in posts of which a part waits here.
    pub(super) fn posted(&self) -> usize {
        self.posted
    }

    /// Appends a copy of `data`.
    pub(super) fn push_copy(&mut self, data: &[u8]) {
        match self.parts.back_mut() {
            Some(Part::Bytes(Bytes::Owned(tail), _)) if tail.len() + data.len() <= PIECE => {
                let before = tail.capacity();
                tail.extend_from_slice(data);
                self.held += tail.capacity() - before;
                self.waiting += data.len();
            }
            _ => self.push(Bytes::Owned(data.to_vec())),
        }
    }

    /// Appends bytes without a copy.
    pub(super) fn push(&mut self, bytes: Bytes) {
        let length = bytes.as_slice().len();
        if length > 0 {
            self.waiting += length;
            self.held += bytes.held();
            self.posted += bytes.posted();
            self.parts.push_back(Part::Bytes(bytes, 0));
        }
    }

    pub(super) fn push_source(&mut self, source: Box<dyn Read + Send>) {
        self.parts.push_back(Part::Source(source));
    }

    /// Returns the bytes that are next, if any are there.
    pub(super) fn front(&self) -> &[u8] {
        match self.parts.front() {
            Some(Part::Bytes(bytes, from)) => &bytes.as_slice()[*from..],
            _ => &[],
        }
    }

    /// Puts the bytes up to the first source into `slices`, up to `most` of them. Returns how many
    /// slices and how many bytes that are.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>], most: usize) -> (usize, usize) {
        let (mut count, mut length) = (0, 0);
        for (part, slice) in self.parts.iter().zip(slices) {
            let Part::Bytes(bytes, from) = part else {
                break;
            };
            let bytes = &bytes.as_slice()[*from..];
            let bytes = &bytes[..bytes.len().min(most - length)];
            if bytes.is_empty() {
                break;
            }
            *slice = IoSlice::new(bytes);
            count += 1;
            length += bytes.len();
        }
        (count, length)
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// Panics if fewer wait before the first source.
    pub(super) fn consume(&mut self, mut count: usize) {
        while count > 0 {
            let Some(Part::Bytes(bytes, from)) = self.parts.front_mut() else {
                panic!("consumed {count} bytes that do not wait");
            };
            let left = bytes.as_slice().len() - *from;
            let taken = count.min(left);
            *from += taken;
            self.waiting -= taken;
            count -= taken;

            if taken == left {
                self.held -= bytes.held();
                self.posted -= bytes.posted();
                self.parts.pop_front();
            }
        }
    }

    /// Reads the sources that are first into `buffer`, until it has `most` bytes, a source has
    /// nothing for now, or something else comes first. A source that has ended is dropped.
    pub(super) fn fill(&mut self, buffer: &mut Buffer, most: usize) -> Filled {
        while let Some(Part::Source(source)) = self.parts.front_mut() {
            let room = most.saturating_sub(buffer.len());
            if room == 0 {
                return Filled::Well;
            }

            let mut outcome = None;
            buffer.push_with(room, |room| {
                outcome = catch(|| source.read(room));
                match &outcome {
                    Some(Ok(count)) => *count,
                    _ => 0,
                }
            });

            match outcome {
                Some(Ok(0)) => {
                    let ended = self.parts.pop_front();
                    if catch(|| drop(ended)).is_none() {
                        return Filled::Panicked;
                    }
                }
                Some(Ok(count)) if count > room => return Filled::Panicked,
                Some(Ok(_)) => {}
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return Filled::Well,
                Some(Err(error)) => return Filled::Failed(error),
                None => return Filled::Panicked,
            }
        }
        Filled::Well
    }

    /// Moves bytes into `buffer` until it has `most`, or a source has nothing for now.
    pub(super) fn flatten(&mut self, buffer: &mut Buffer, most: usize) -> Filled {
        loop {
            let before = buffer.len();
            let front = self.front();
            let count = front.len().min(most.saturating_sub(before));
            buffer.push(&front[..count]);
            self.consume(count);

            // A source that has just ended may have been in front of bytes.
            let moves = |queue: &Self, length| length > before || !queue.front().is_empty();
            match self.fill(buffer, most) {
                Filled::Well if buffer.len() < most && moves(self, buffer.len()) => {}
                outcome => return outcome,
            }
        }
    }

    /// Returns whether a source waits, which has bytes to make.
    pub(super) fn has_sources(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part, Part::Source(_)))
    }

    /// Appends a copy of all bytes that wait to `bytes`.
    pub(super) fn copy_to(&self, bytes: &mut Vec<u8>) {
        for part in &self.parts {
            if let Part::Bytes(waiting, from) = part {
                bytes.extend_from_slice(&waiting.as_slice()[*from..]);
            }
        }
    }

    /// Drops everything.
    pub(super) fn end(self) {
        // A source is user code, and so is its `Drop`.
        for part in self.parts {
            catch(|| drop(part));
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("parts", &self.parts.len())
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
