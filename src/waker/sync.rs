//! The locks, waits and atomics of what several threads share.
//!
//! The crate `loom` in this repository has its own version of this module, with which a model checker
//! tries every order of the threads' steps.

use std::sync::PoisonError;
use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// Locks `mutex`. What a panic left behind is used as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `mutex`, and waits while `condition` is true, for up to `patience`, or without limit if that
/// is `None`.
pub(crate) fn wait_while<'a, T>(
    mutex: &'a Mutex<T>,
    condvar: &Condvar,
    patience: Option<Duration>,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let guard = lock(mutex);
    match patience {
        None => condvar
            .wait_while(guard, condition)
            .unwrap_or_else(PoisonError::into_inner),
        Some(patience) => {
            condvar
                .wait_timeout_while(guard, patience, condition)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    }
}
