//! Named threads, and what they share.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Starts a thread named `what` that runs `work`. The name shows in debuggers, and in the error when the
/// system has no thread left.
///
/// # Errors
/// Fails if the system has no thread left. The message includes `what`.
pub(crate) fn spawn<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let thread = thread::Builder::new().name(what.to_owned());
    thread.spawn(work).map_err(|error| {
        let problem = format!("cannot start a thread for {what}: {error}");
        io::Error::new(error.kind(), problem)
    })
}

/// Locks `mutex`, also after a thread has panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
