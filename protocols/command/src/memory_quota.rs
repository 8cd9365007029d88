//! The memory quota for program output that clients have not taken yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory for the output of all programs of a server, in bytes.
#[derive(Debug)]
pub(crate) struct MemoryQuota {
    max: usize,
    held: AtomicUsize,
}

impl MemoryQuota {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let held = AtomicUsize::new(0);
        Arc::new(Self { max, held })
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.max
    }

    /// Returns a share that holds nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share {
            store: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// The part of the quota that one program's output takes. Dropping it, with the reply, gives the
/// part back.
#[derive(Debug)]
pub(crate) struct Share {
    store: Arc<MemoryQuota>,
    bytes: usize,
}

impl Share {
    /// Takes `wanted` more bytes, or as many as are left, and returns how many.
    pub(crate) fn grow(&mut self, wanted: usize) -> usize {
        let room = |held: usize| wanted.min(self.store.max - held);
        let grow = |held| Some(held + room(held));
        let before = self
            .store
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
        let taken = before.map_or(0, room);
        self.bytes += taken;
        taken
    }

    /// Gives `bytes` back, or all of the share if it is less.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.store.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the size of the whole quota.
    pub(crate) fn max(&self) -> usize {
        self.store.max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.store.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_what_is_left_and_give_it_back() {
        let store = MemoryQuota::new(10);
        let mut first = store.share();
        let mut second = store.share();
        assert_eq!(first.grow(6), 6);
        assert_eq!(second.grow(6), 4);
        assert!(store.is_full());
        assert_eq!(first.grow(1), 0);

        drop(first);
        assert!(!store.is_full());
        assert_eq!(second.grow(9), 6);

        second.shrink(4);
        assert!(!store.is_full());
        second.shrink(100);
        assert_eq!(store.share().grow(11), 10);

        drop(second);
        assert_eq!(store.share().grow(11), 10);
    }
}
