//! Numbers out of arbitrary bytes.

/// Bytes that are read one after the other; behind their end there are zeros.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// A number below `end`, which is at most 256.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Sizes of the pieces in which a stream arrives, over and over: see [`pieces`].
    pub(crate) fn sizes(&mut self) -> Vec<usize> {
        let mut sizes: Vec<_> = (0..4).map(|_| 1 + self.below(64)).collect();
        sizes.truncate(1 + self.below(4));
        sizes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that was not read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// A stream in pieces of these sizes, which are taken in turn.
pub(crate) fn pieces<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at(stream.len().min(*size));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// What bytes spell: byte 1 means the first of `words`, and so on, and all others for
/// themselves. So valid input is not found by luck alone.
pub(crate) fn spelled(bytes: &[u8], words: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        let word = usize::from(*byte).checked_sub(1);
        match word.and_then(|at| words.get(at)) {
            Some(word) => text.extend_from_slice(word.as_bytes()),
            None => text.push(*byte),
        }
    }
    text
}
