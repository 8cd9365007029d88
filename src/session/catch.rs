//! The one place where a panic of user code is caught.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code and returns `None` if it panicked. A panic while the payload is dropped is caught
/// too.
#[inline]
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                mem::forget(payload);
            }
            None
        }
    }
}
