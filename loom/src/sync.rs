//! The model checker's threads in place of the system's: see `src/waker/sync.rs` in the library.

use std::time::Duration;

use loom::thread::yield_now;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds a lock")
}

/// Locks `mutex`, and waits while `condition` is true. There is no time in a model: a `patience` of 0
/// is over when other threads had their turns, and any other is without limit.
pub(crate) fn wait_while<'a, T>(
    mutex: &'a Mutex<T>,
    condvar: &Condvar,
    patience: Option<Duration>,
    mut condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let mut guard = lock(mutex);
    while condition(&mut guard) {
        if patience == Some(Duration::ZERO) {
            drop(guard);
            yield_now();
            return lock(mutex);
        }
        guard = condvar.wait(guard).expect("no thread panics");
    }
    guard
}
