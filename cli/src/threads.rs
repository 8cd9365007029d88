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

/// How much nicer a thread that gives way is, as by `nice`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NICER: i32 = 10;

/// Gives this thread a lower priority, so that a loop that has work need not wait until it has used up its
/// share of the processor. On other systems a priority is one of the whole process, and nothing changes.
pub(crate) fn give_way() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{getpriority_process, setpriority_process};

        let this = Some(rustix::thread::gettid());
        let lower = |now: i32| setpriority_process(this, now.saturating_add(NICER).min(19));
        // If the system refuses, as in some sandboxes, it stays as it was.
        let _ = getpriority_process(this).and_then(lower);
    }
}

/// Locks `mutex`, also after a thread has panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
